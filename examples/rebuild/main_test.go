package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/upgrade"
)

// TestExample rebuilds the proxies of the simulated site as an operator would:
// the plan is looked at, the first question is answered with no, the run is
// gone on with, and nobody notices.
func TestExample(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, err := sim.NewRebuild(t.Context(), sim.RebuildConfig{Speed: 60, Rate: 10, Streams: 1, Memory: true})
		require.NoError(t, err)
		defer func() { assert.NoError(t, w.Close()) }()
		dir := t.TempDir()
		op, err := w.WriteOperatorFiles(dir)
		require.NoError(t, err)
		yaml, err := os.ReadFile(op.Config)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(op.Config, bytes.Replace(yaml, []byte("gates: []\n"), nil, 1), 0o600))
		access := &upgrade.Access{NetDial: w.DialOperator}
		journal := filepath.Join(dir, "run")
		example := func(answers string, args ...string) (string, error) {
			var out bytes.Buffer
			err := run(t.Context(), access, args, strings.NewReader(answers), &out)
			return out.String(), err
		}

		out, err := example("", op.Config)
		require.NoError(t, err)
		assert.Contains(t, out, "--- gate before 7.1: ")
		assert.NoDirExists(t, journal)

		out, err = example("no\n", "-run", journal, op.Config)
		require.ErrorIs(t, err, errStopped)
		assert.Contains(t, out, "approve 7.1-ready? (yes/no) ")
		assert.Contains(t, out, "done 6.5-compare")
		assert.NotContains(t, out, "done 7.1-ready")

		out, err = example("yes\nyes\nyes\n", "-run", journal, op.Config)
		require.NoError(t, err, out)
		assert.Contains(t, out, "approve 9.2-undefine? (yes/no) ")
		assert.Contains(t, out, "done 9.3-verify")
		f, err := w.Finish(t.Context())
		require.NoError(t, err)
		assert.Empty(t, f.CheckEnd("succeeded"))

		_, err = example("", "-run", journal, "-back")
		assert.Error(t, err, "past the undefine there is no way back")
		_, err = example("")
		assert.Error(t, err)
	})
}
