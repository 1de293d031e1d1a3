package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/upgrade"
)

// TestExample plans the upgrade of the simulated world's production host with
// what an operator has there: a directory and credentials.
func TestExample(t *testing.T) {
	w, err := sim.New(t.Context(), sim.Config{Speed: 240, Rate: 20})
	require.NoError(t, err)
	defer func() { assert.NoError(t, w.Close()) }()
	dir := t.TempDir()
	op, err := w.WriteOperatorFiles(dir)
	require.NoError(t, err)
	for _, e := range op.Environ() {
		name, value, _ := strings.Cut(e, "=")
		t.Setenv(name, value)
	}

	var out bytes.Buffer
	file := filepath.Join(dir, "plan.json")
	require.NoError(t, run(t.Context(), []string{"-o", file, op.Config}, &out))
	assert.Contains(t, out.String(), "Transition upgrade of 172.31.0.90 (i-web90, CentOS Linux release 7.5.1804 (Core), 3.10.0-862.9.1.el7.x86_64)\n")
	assert.Contains(t, out.String(), "--- gate before 4.1: ")
	assert.Contains(t, out.String(), "5.3-verify")
	stored, err := os.ReadFile(file)
	require.NoError(t, err)
	plan, err := upgrade.ParsePlan(stored)
	require.NoError(t, err)
	assert.Equal(t, out.String(), plan.Text())
	assert.NotContains(t, string(stored), op.AccessKeySecret)

	require.NoError(t, os.WriteFile(op.Config, []byte("version: 1\nhots: web-90\n"), 0o600))
	err = run(t.Context(), []string{op.Config}, &out)
	var config *upgrade.ConfigError
	require.ErrorAs(t, err, &config)
	assert.Contains(t, err.Error(), "upgrade.yaml:2:1: ")
	assert.Error(t, run(t.Context(), nil, &out))
}
