package foreign

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestNode runs the official JavaScript clients.
func TestNode(t *testing.T) {
	_, err := exec.LookPath("node")
	need(t, "node", err)
	if _, err = os.Stat("node_modules/@alicloud"); err != nil {
		err = fmt.Errorf("run `npm ci` in internal/foreign: %w", err)
	}
	need(t, "npm", err)
	for _, c := range []struct {
		name, script string
		args         []string
		actions      int // at least
	}{
		{"pop-core POST", "testdata/pop-core.js", []string{"POST"}, 17},
		{"pop-core GET", "testdata/pop-core.js", []string{"GET"}, 17},
		{"ecs20140526", "testdata/ecs20140526.js", nil, 21},
		{"log", "testdata/log.js", nil, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := serve(t)
			out, err := s.client(nil, "node", append([]string{c.script}, c.args...)...)
			require.NoErrorf(t, err, "%s", out)
			end := s.end()
			assert.Empty(t, end.left())
			assert.GreaterOrEqual(t, len(end.Calls), c.actions)

			wrong := serve(t)
			wrong.Secret = "another"
			out, err = wrong.client(nil, "node", append(append([]string{c.script}, c.args...), "wrong")...)
			require.NoErrorf(t, err, "%s", out)
			wrong.stop()
			assert.Empty(t, wrong.last.Calls)
		})
	}
}
