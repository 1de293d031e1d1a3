package cloud_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim/cloud"
)

// A client that repeats a call with the same ClientToken, whatever became of
// the first answer, has made one thing and knows which.
func TestTokensMakeOneThingUnderEveryFault(t *testing.T) {
	faults := map[string]cloud.Fault{
		"throttled":           {Code: "Throttling"},
		"500 before":          {},
		"500 after":           {Applied: true},
		"503 after":           {Code: "ServiceUnavailable", Status: 503, Applied: true},
		"cut before":          {Kind: cloud.FaultCut},
		"cut after":           {Kind: cloud.FaultCut, Applied: true},
		"empty 200":           {Kind: cloud.FaultEmpty, Applied: true},
		"page of a proxy":     {Kind: cloud.FaultHTML, Applied: true},
		"numeric code":        {Kind: cloud.FaultNumericCode, Applied: true},
		"late, and cut after": {Kind: cloud.FaultCut, Applied: true, Delay: time.Minute},
		"twice cut after":     {Kind: cloud.FaultCut, Applied: true, Times: 2},
	}
	for _, row := range []struct {
		action, id, kind string // kind: of cloud.Resource, "" for a command
		kv               func(a *api, img string) []string
	}{
		{"CreateSnapshot", "SnapshotId", "snapshot", func(*api, string) []string { return []string{"DiskId", "d-sys"} }},
		{"CreateSnapshotGroup", "SnapshotGroupId", "snapshotgroup", func(*api, string) []string { return []string{"InstanceId", "i-web90"} }},
		{"CreateImage", "ImageId", "image", func(*api, string) []string { return []string{"InstanceId", "i-web89"} }},
		{"CopyImage", "ImageId", "image", func(_ *api, img string) []string { return []string{"ImageId", img} }},
		{"CreateDisk", "DiskId", "disk", func(*api, string) []string { return []string{"ZoneId", "cn-hangzhou-h", "Size", "20"} }},
		{"RunInstances", "InstanceIdSets.InstanceIdSet.0", "instance", func(a *api, img string) []string { return a.cloneOf(img) }},
		{"CreateInstance", "InstanceId", "instance", func(_ *api, img string) []string {
			return []string{"ImageId", img, "InstanceType", "ecs.g6.large", "VSwitchId", "vsw-sim", "SecurityGroupId", "sg-sim"}
		}},
		{"RunCommand", "InvokeId", "", func(*api, string) []string {
			return []string{"Type", "RunShellScript", "CommandContent", "true", "InstanceId.1", "i-web90"}
		}},
	} {
		for name, f := range faults {
			t.Run(row.action+"/"+name, func(t *testing.T) {
				world(t, func(cfg *cloud.Config) { cfg.Machines = nil }, func(c *cloud.Cloud, _ *machines, a *api) {
					kv := append(row.kv(a, a.image()), "ClientToken", "t")
					before := c.Resources()
					f.Action = row.action
					c.InjectFault(f)
					for n := 0; ; n++ {
						require.Less(t, n, 5, "the fault does not end")
						status, body, err := a.send("POST", a.signed("POST", ecs, row.action, kv...), nil)
						if err == nil && status == 200 && len(body) > 0 {
							break
						}
					}
					first := a.ok(ecs, row.action, kv...).Str(row.id)
					assert.Equal(t, first, a.ok(ecs, row.action, kv...).Str(row.id))
					made := 0
					for _, r := range c.Resources() {
						if r.Type == row.kind {
							made++
						}
					}
					for _, r := range before {
						if r.Type == row.kind {
							made--
						}
					}
					if row.kind == "" {
						made = a.ok(ecs, "DescribeInvocations").Len("Invocations.Invocation")
					}
					assert.Equal(t, 1, made)
				})
			})
		}
	}
}
