package main

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/upgradectl/upgradectl/internal/sim/cloud"
)

// While the cloud's flow control holds a call back the operator is told so,
// once, in his language; the results stay what they are.
func TestHeldLine(t *testing.T) {
	for lang, want := range map[string]string{
		"en": `waiting for the cloud's flow control since [0-9:]{8}: %s \(Throttling\.User\); the call is sent again until it passes`,
		"zh": `自 [0-9:]{8} 起等待云端流控放行：%s（Throttling\.User）；将反复重试，直至放行`,
	} {
		for action, args := range map[string][]string{
			"ecs:DescribeInstances":    {"ecs", "instance", "show", "i-web90"},
			"slb:DescribeHealthStatus": {"slb", "health", "lb-1"},
		} {
			t.Run(lang+" "+args[0], func(t *testing.T) {
				c := serveCloud(t)
				_, name, _ := strings.Cut(action, ":")
				c.InjectFault(cloud.Fault{Action: name, Code: "Throttling.User", Times: 5})
				status, out, errs := runApp(t, append(args, "--lang="+lang, "--poll=10ms", "--endpoint="+os.Getenv("ENDPOINT"))...)
				assert.Zero(t, status, errs)
				assert.Regexp(t, strings.ReplaceAll(want, "%s", action), errs)
				assert.Equal(t, 1, strings.Count(errs, action))
				assert.NotContains(t, out, "Throttling")
			})
		}
	}
}
