package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/upgrade"
)

// allowed reports whether a policy has an action. The simulator counts actions
// of ECS and CLB by their bare names.
func (d policyDocument) allowed(counted string) bool {
	names := []string{"ecs:" + counted, "slb:" + counted}
	if product, action, ok := strings.Cut(counted, ":"); ok {
		names = []string{map[string]string{"r-kvstore": "kvstore"}[product] + ":" + action, counted}
		if counted == "sls:GetLogs" {
			names = []string{"log:GetLogStoreLogs"}
		}
	}
	return slices.ContainsFunc(d.Statement, func(s policyStatement) bool {
		return slices.ContainsFunc(names, func(n string) bool { return slices.Contains(s.Action, n) })
	})
}

func runApp(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	a := &app{in: strings.NewReader(""), out: &out, err: &errs, lang: "en"}
	return a.main(t.Context(), args), out.String(), errs.String()
}

func printed(t *testing.T, args ...string) (d policyDocument) {
	t.Helper()
	status, out, errs := runApp(t, args...)
	require.Zero(t, status, errs)
	dec := json.NewDecoder(strings.NewReader(out))
	dec.DisallowUnknownFields()
	require.NoError(t, dec.Decode(&d))
	assert.Equal(t, "1", d.Version)
	for _, s := range d.Statement {
		assert.Equal(t, "Allow", s.Effect)
		assert.NotEmpty(t, s.Action)
		assert.NotEmpty(t, s.Resource)
		for _, action := range s.Action {
			assert.Regexp(t, `^[a-z]+:[A-Z]\w+$`, action)
		}
		for _, r := range s.Resource {
			assert.Regexp(t, `^(\*|acs:[a-z]+:[^:]*:\*:[^:]+)$`, r)
		}
	}
	return d
}

// TestPolicyCoversARun: everything a whole run calls is in the policy that its
// plan prints, and so is what discovery calls; deletions are limited to what
// carries our tag.
func TestPolicyCoversARun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, err := sim.New(t.Context(), sim.Config{Rate: 20, Streams: 1, Memory: true})
		require.NoError(t, err)
		defer func() { assert.NoError(t, w.Close()) }()
		dir := t.TempDir()
		op, err := w.WriteOperatorFiles(dir)
		require.NoError(t, err)
		access := &upgrade.Access{AccessKeyID: op.AccessKeyID, AccessKeySecret: op.AccessKeySecret, NetDial: w.DialOperator}
		cfg, err := upgrade.LoadConfig(op.Config)
		require.NoError(t, err)
		e, err := upgrade.NewEnv(cfg, access)
		require.NoError(t, err)
		defer e.Close()
		facts, err := upgrade.Discover(t.Context(), cfg, e)
		require.NoError(t, err)
		p, err := upgrade.BuildPlan(cfg, facts, time.Now(), "test")
		require.NoError(t, err)
		stored, err := p.JSON()
		require.NoError(t, err)
		file := filepath.Join(dir, "plan.json")
		require.NoError(t, os.WriteFile(file, stored, 0o600))
		r, err := upgrade.Apply(t.Context(), filepath.Join(dir, "run"), "t1", stored, upgrade.RunOptions{Actor: "test", Version: "test", Access: access, ApproveAll: true})
		require.NoError(t, err)
		require.Equal(t, "succeeded", r.State, "%s: %s", r.Step, r.Reason)

		d := printed(t, "policy", "--plan", file)
		counts := w.Cloud().Counts()
		require.Greater(t, len(counts), 20)
		for action := range counts {
			assert.Truef(t, d.allowed(action), "the run called %s, and the policy of its plan does not allow it", action)
		}
		full := printed(t, "policy")
		var wide, narrow int
		for _, s := range d.Statement {
			for _, action := range s.Action {
				narrow++
				assert.Truef(t, slices.ContainsFunc(full.Statement, func(o policyStatement) bool { return slices.Contains(o.Action, action) }), "%s is in the plan's policy only", action)
				if strings.HasPrefix(action, "ecs:Delete") {
					assert.NotEmptyf(t, s.Condition, "%s has no condition", action)
				}
				if strings.Contains(action, "BackendServers") && !strings.Contains(action, "Describe") {
					assert.NotContains(t, s.Resource, "*")
				}
			}
		}
		for _, s := range full.Statement {
			wide += len(s.Action)
		}
		assert.Less(t, narrow, wide)
		assert.False(t, d.allowed("ResetDisk"), "no step of the plan resets a disk")
		assert.False(t, d.allowed("CreateRules"))
	})
}

func TestPolicyErrors(t *testing.T) {
	status, _, errs := runApp(t, "policy", filepath.Join(t.TempDir(), "none.json"))
	assert.Equal(t, exitFailure, status)
	assert.Contains(t, errs, "none.json")
	status, _, _ = runApp(t, "policy", "a", "b")
	assert.Equal(t, exitUsage, status)
}
