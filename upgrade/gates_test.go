package upgrade

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/testenv"
	"github.com/upgradectl/upgradectl/upgrade/engine"
)

// sshKey makes a key with ssh-keygen and gives its file and public line.
func sshKey(t *testing.T, kind string) (file, public string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "key")
	out, err := exec.Command(testenv.Need(t, "ssh-keygen"), "-q", "-t", kind, "-N", "", "-C", "", "-f", file).CombinedOutput()
	require.NoError(t, err, "%s", out)
	pub, err := os.ReadFile(file + ".pub")
	require.NoError(t, err)
	return file, strings.TrimSpace(string(pub))
}

// TestSignedGate: a gate that two people have to sign, with real keys,
// ssh-keygen and an agent.
func TestSignedGate(t *testing.T) {
	keygen := testenv.Need(t, "ssh-keygen")
	liKey, li := sshKey(t, "ed25519")
	zhaoKey, zhao := sshKey(t, "ecdsa")
	wangKey, wang := sshKey(t, "ed25519")
	strangerKey, _ := sshKey(t, "ed25519")
	signers := "# who may approve\nli@example.com " + li + "\nzhao@example.com namespaces=\"" + ApprovalNamespace + "\" " + zhao + "\nwang@example.com " + wang + "\n"
	p := plan(t, func(c *Config, _ *Facts) {
		c.Approvals = &ApprovalConfig{File: "approvers", Signers: signers, Required: 2, FourEyes: true, Valid: time.Hour, Sections: []string{"4.1"}}
	})
	i := 0
	for j, s := range p.Steps {
		if s.Signed > 0 {
			i = j
			assert.Equal(t, 2, s.Signed)
		}
	}
	require.Equal(t, "4.1-slb", p.Steps[i].ID)
	assert.Contains(t, p.Text(), "(2 signed approvals)")
	dir, out := dryRun(t, p, nil, "", engine.Options{Actor: "wang", ApproveAll: true, CheckApproval: p.checkApproval})
	require.Equal(t, engine.Paused, out.State)
	require.Equal(t, "4.1-slb", out.Step)
	rep, err := ReadReport(dir)
	require.NoError(t, err)
	assert.Equal(t, "0 of 2 approvals: nobody yet", rep.Approvals)

	refused := func(err error, why string) {
		t.Helper()
		var r *RefusedError
		require.ErrorAs(t, err, &r)
		assert.Equal(t, ExitRefused, ErrorStatus(err))
		assert.ErrorContains(t, err, why)
	}
	sign := func(keyFile string, edit func(*Statement)) ([]byte, []byte) {
		t.Helper()
		s, err := NewStatement(dir, "4.1", 0, "looked at the dashboards")
		require.NoError(t, err)
		if edit != nil {
			edit(s)
		}
		key, err := ReadKey(keyFile)
		require.NoError(t, err)
		text, sig, err := s.Sign(key)
		require.NoError(t, err)
		return text, sig
	}
	hand := func(text, sig []byte) error {
		_, err := Approve(dir, text, sig, "wang")
		return err
	}

	text, sig := sign(liKey, nil)
	// ssh-keygen finds the same name behind the same signature.
	tmp := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(tmp, "signers"), []byte(signers), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(tmp, "sig"), sig, 0o600))
	verify := exec.Command(keygen, "-Y", "verify", "-f", filepath.Join(tmp, "signers"), "-I", "li@example.com", "-n", ApprovalNamespace, "-s", filepath.Join(tmp, "sig"))
	verify.Stdin = bytes.NewReader(text)
	said, err := verify.CombinedOutput()
	require.NoError(t, err, "%s", said)

	edited := bytes.Replace(text, []byte(`"attempt": 1`), []byte(`"attempt": 2`), 1)
	refused(hand(edited, sig), "does not fit what was signed")
	refused(hand(append(text, '\n'), sig), "not as upgradectl writes it")
	refused(hand(sign(strangerKey, nil)), "is not in the list of allowed signers")
	refused(hand(sign(liKey, func(s *Statement) { s.PlanHash = PlanHash(nil) })), "it is for another plan")
	refused(hand(sign(liKey, func(s *Statement) { s.Run = "r0" })), `it is for run "r0"`)
	refused(hand(sign(liKey, func(s *Statement) { s.Expires = time.Now().Add(-time.Second).UTC() })), "it expired at")
	refused(hand(sign(liKey, func(s *Statement) { s.Expires = time.Now().Add(2 * time.Hour).UTC() })), "at most 1h0m0s are allowed")
	refused(hand(sign(liKey, func(s *Statement) { s.Gate = "4.4-stop" })), "has no gate that takes approvals")
	refused(hand(sign(wangKey, nil)), "wang@example.com approved and works on the run as wang")
	_, err = NewStatement(dir, "4.1", 2*time.Hour, "")
	require.ErrorIs(t, err, engine.ErrInvalid)
	_, err = NewStatement(dir, "4.2", 0, "")
	require.ErrorContains(t, err, "no gate stands before such a section or step")
	_, err = NewStatement(dir, "4.4", 0, "")
	require.ErrorContains(t, err, "takes no signatures")

	require.NoError(t, hand(text, sig))
	rep, err = ReadReport(dir)
	require.NoError(t, err)
	assert.Contains(t, rep.Approvals, "1 of 2 approvals: li@example.com until ")

	// The second one signs elsewhere, with ssh-keygen alone.
	s, err := NewStatement(dir, "4.1-slb", 30*time.Minute, "")
	require.NoError(t, err)
	text, err = s.Bytes()
	require.NoError(t, err)
	file := filepath.Join(tmp, "gate.txt")
	require.NoError(t, os.WriteFile(file, text, 0o600))
	said, err = exec.Command(keygen, "-Y", "sign", "-f", zhaoKey, "-n", ApprovalNamespace, file).CombinedOutput()
	require.NoError(t, err, "%s", said)
	sig, err = os.ReadFile(file + ".sig")
	require.NoError(t, err)
	require.NoError(t, hand(text, sig))

	audit, err := Audit(dir)
	require.NoError(t, err)
	assert.Empty(t, audit.Findings)
	assert.Equal(t, 2, audit.Approvals)

	run, err := engine.Open(dir)
	require.NoError(t, err)
	defer run.Close()
	steps := p.steps(nil)
	for i := range steps {
		steps[i].Plan = func(context.Context, *engine.Act) (engine.Proposal, error) {
			return engine.Proposal{NotApplicable: "dry"}, nil
		}
	}
	out, err = run.Apply(t.Context(), steps, engine.Options{Actor: "wang", CheckApproval: p.checkApproval})
	require.NoError(t, err)
	assert.Equal(t, engine.Succeeded, out.State, "%s: %s", out.Step, out.Reason)
	h, err := engine.Read(dir)
	require.NoError(t, err)
	assert.Equal(t, "li@example.com, zhao@example.com", h.StepByID("4.1-slb").ApprovedBy)

	n, refusals, approvals := 0, 0, 0
	for e, err := range ExportAudit(dir) {
		require.NoError(t, err)
		assert.Equal(t, "r1", e.Run)
		assert.NotEmpty(t, e.Event)
		if n++; e.Event == "approval" {
			approvals++
			assert.Regexp(t, `^(li|zhao)@example\.com SHA256:`, e.User)
			assert.Equal(t, "4.1-slb", e.Object)
		}
		if e.Result == "refused" {
			refusals++
		}
	}
	assert.Equal(t, h.Count, n)
	assert.Equal(t, 2, approvals)
	assert.Equal(t, 2, refusals, "what the engine refused is written down")
}

// TestAgentKey finds the key of an approver in a real agent.
func TestAgentKey(t *testing.T) {
	key, public := sshKey(t, "ed25519")
	other, _ := sshKey(t, "ed25519")
	p := plan(t, func(c *Config, _ *Facts) {
		c.Approvals = &ApprovalConfig{Signers: "li " + public, Required: 1, Valid: time.Hour}
	})
	dir, _ := dryRun(t, p, nil, "", engine.Options{Actor: "wang"})
	sock := filepath.Join(t.TempDir(), "a")
	agent := exec.Command(testenv.Need(t, "ssh-agent"), "-D", "-a", sock)
	require.NoError(t, agent.Start())
	defer func() { _ = agent.Process.Kill(); _ = agent.Wait() }()
	require.Eventually(t, func() bool { // the socket has its name before anybody listens
		c, err := net.Dial("unix", sock)
		return err == nil && c.Close() == nil
	}, 30*time.Second, 10*time.Millisecond)
	_, _, err := AgentKey(dir, sock)
	require.ErrorContains(t, err, "none of the agent's 0 keys is in the plan's list")
	add := exec.Command(testenv.Need(t, "ssh-add"), "-q", other, key)
	add.Env = append(os.Environ(), "SSH_AUTH_SOCK="+sock)
	said, err := add.CombinedOutput()
	require.NoError(t, err, "%s", said)
	k, end, err := AgentKey(dir, sock)
	require.NoError(t, err)
	defer end()
	s, err := NewStatement(dir, "4.1", 0, "")
	require.NoError(t, err)
	text, sig, err := s.Sign(k)
	require.NoError(t, err)
	a, err := Approve(dir, text, sig, "wang")
	require.NoError(t, err)
	assert.Equal(t, "li", a.By)
	_, _, err = AgentKey(dir, "")
	require.ErrorContains(t, err, "SSH_AUTH_SOCK is not set")
}

func TestApprovalsConfig(t *testing.T) {
	_, public := sshKey(t, "ed25519")
	dir := t.TempDir()
	load := func(block, signers string) (*Config, error) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "approvers"), []byte(signers), 0o600))
		file := filepath.Join(dir, "upgrade.yaml")
		require.NoError(t, os.WriteFile(file, []byte("version: 1\nprocedure: transition\nhost: web-90\n"+block), 0o600))
		return LoadConfig(file)
	}
	c, err := load("approvals: {file: approvers, required: 1, valid: 8h, sections: [4.4]}\n", "li "+public)
	require.NoError(t, err)
	assert.Equal(t, &ApprovalConfig{File: "approvers", Signers: "li " + public, Required: 1, FourEyes: true, Valid: 8 * time.Hour, Sections: []string{"4.4"}}, c.Approvals)
	assert.True(t, c.Approvals.covers("4.4"))
	assert.False(t, c.Approvals.covers("4.1"))
	c, err = load("", "")
	require.NoError(t, err)
	assert.Nil(t, c.Approvals)
	assert.False(t, c.Approvals.covers("4.4"))
	for want, block := range map[string]string{
		"approvals.file": "approvals: {required: 1}\n",
		"lists 1 approvers, approvals.required is 2": "approvals: {file: approvers, required: 2}\n",
		"has no gate; list it in gates":              "approvals: {file: approvers, sections: [3.1]}\n",
		"required":                                   "approvals: {file: approvers, required: 0}\n",
		"cannot read the approvers":                  "approvals: {file: nobody}\n",
	} {
		_, err := load(block, "li "+public)
		assert.ErrorContains(t, err, want)
	}
	_, err = load("approvals: {file: approvers}\n", "*@example.com "+public)
	assert.ErrorContains(t, err, "line 1: principal \"*@example.com\" is a pattern")
}

// TestForeignRuns: what a run of somebody else's ends a command with.
func TestForeignRuns(t *testing.T) {
	for err, want := range map[error]int{
		&engine.LockedError{}: ExitLocked, &engine.ElsewhereError{}: ExitLocked, engine.ErrVersion: ExitRefused,
		engine.ErrPlanChanged: ExitDrift, engine.ErrNotAtWork: ExitRefused, &engine.DamagedError{}: ExitJournal,
	} {
		assert.Equal(t, want, ErrorStatus(err), "%v", err)
	}
}

// What a paused run says of its approvals is what its gate counts: a person
// once, whatever name was signed, and nobody whose time is over.
func TestGateWaits(t *testing.T) {
	hour := time.Now().Add(time.Hour).Truncate(time.Second)
	waits := func(all ...engine.Approval) string {
		h := &engine.History{Steps: []engine.StepHistory{{ID: "3.1", State: engine.StepPending, Approvers: 2, Approvals: all}}}
		return gateWaits(h, "3.1")
	}
	until := " until " + hour.UTC().Format(time.RFC3339)
	li, bob := engine.Approval{By: "li@example.com", Expires: hour}, engine.Approval{By: "bob", Expires: hour}
	early := engine.Approval{By: "LI", Expires: hour.Add(-time.Minute)}
	assert.Equal(t, "0 of 2 approvals: nobody yet", waits())
	assert.Equal(t, "1 of 2 approvals: li@example.com"+until, waits(li, early, li))
	assert.Equal(t, "2 of 2 approvals: li@example.com"+until+", bob"+until, waits(li, bob, li))
	assert.Equal(t, "1 of 2 approvals: bob"+until, waits(engine.Approval{By: "li", Expires: time.Now()}, bob))
}
