package upgrade

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/upgradectl/upgradectl/internal/sshsig"
	"github.com/upgradectl/upgradectl/upgrade/engine"
)

// ApprovalNamespace is what approvals are signed for: ssh-keygen -Y sign -n.
const ApprovalNamespace = "gate@upgradectl"

// approvalFormat is the first line of every statement.
const approvalFormat = "upgradectl-approval/1"

// ApprovalConfig says who has to approve gates, with a signature. Without one
// whoever runs the procedure approves by a flag.
type ApprovalConfig struct {
	File     string        `json:"file"`              // ALLOWED SIGNERS file of ssh-keygen
	Signers  string        `json:"signers,omitempty"` // its content when the plan was made: part of the plan's hash
	Required int           `json:"required"`          // different people for each gate
	FourEyes bool          `json:"four_eyes"`         // who works on the run does not count
	Valid    time.Duration `json:"valid"`             // longest life of an approval
	Sections []string      `json:"sections,omitempty"`
}

// covers tells whether the gate before a section needs approvals.
func (a *ApprovalConfig) covers(section string) bool {
	return a != nil && (len(a.Sections) == 0 || slices.Contains(a.Sections, section))
}

// approvals fills the block of the same name; nil without it.
func (d *configDecoder) approvals(m mapping, c *Config) {
	if !m.has("approvals") {
		return
	}
	s := d.mapping(m.values["approvals"], "approvals", "file", "required", "four_eyes", "valid", "sections")
	s.need(": the ALLOWED SIGNERS file (ssh-keygen(1)) of those who may approve", "file")
	a := &ApprovalConfig{
		File:     s.text("file", ""),
		Required: s.integer("required", 1, 1, 16),
		FourEyes: s.boolean("four_eyes", true),
		Valid:    s.duration("valid", 24*time.Hour, time.Minute, false),
	}
	s.list("sections", func(n *yaml.Node, path string) {
		switch {
		case n.Kind != yaml.ScalarNode || n.ShortTag() == "!!null" || n.ShortTag() == "!!bool":
			d.at(n, path, "must be a section such as 4.1, not %s", kindOf(n))
		case !slices.Contains(c.Gates, n.Value):
			d.at(n, path, "%s has no gate; list it in gates as well", quote(n.Value))
		default:
			a.Sections = append(a.Sections, n.Value)
		}
	})
	c.Approvals = a
}

// loadSigners freezes the list of approvers in the configuration, and with it
// in the plan: who edits the file later approves nothing.
func (c *Config) loadSigners() error {
	a := c.Approvals
	if a == nil {
		return nil
	}
	name := a.File
	if !filepath.IsAbs(name) {
		name = filepath.Join(c.Dir, name)
	}
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("cannot read the approvers: %w", err)
	}
	defer f.Close() // only read
	data, err := io.ReadAll(io.LimitReader(f, maxConfigSize+1))
	if err != nil {
		return fmt.Errorf("cannot read the approvers: %w", err)
	}
	list, err := sshsig.ParseSigners(data)
	if err != nil {
		return fmt.Errorf("cannot read the approvers in %s: %w", name, err)
	}
	if n := len(list.People()); n < a.Required {
		return fmt.Errorf("%s lists %d approvers, approvals.required is %d", name, n, a.Required)
	}
	a.Signers = string(data)
	return nil
}

// askApprovals gives the gates of steps the approvals that the plan wants.
func (p *Plan) askApprovals(steps []engine.Step) {
	for i := range steps {
		if s := &steps[i]; s.Gate != "" && p.Config.Approvals.covers(s.Section) {
			s.Approvers, s.FourEyes = p.Config.Approvals.Required, p.Config.Approvals.FourEyes
		}
	}
}

// A Statement is what an approver signs: one run, one plan, one gate, one
// attempt, until a time, on what the journal said.
type Statement struct {
	Run      string    `json:"run"`
	PlanHash string    `json:"plan_hash"`
	Host     string    `json:"host"`
	Gate     string    `json:"gate"`    // step ID
	Attempt  int       `json:"attempt"` // of that step
	Asks     string    `json:"asks"`    // the question of the gate
	Head     string    `json:"journal_head"`
	Expires  time.Time `json:"expires"`
	Reason   string    `json:"reason,omitempty"`
}

// Bytes is the text that is signed: a line that names the format, and indented
// JSON, for people to read before they sign.
func (s *Statement) Bytes() ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(approvalFormat + "\n")
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	err := enc.Encode(s)
	return b.Bytes(), err
}

// parseStatement takes nothing but what Bytes makes.
func parseStatement(text []byte) (*Statement, error) {
	rest, ok := bytes.CutPrefix(text, []byte(approvalFormat+"\n"))
	if !ok {
		return nil, fmt.Errorf("it does not begin with the line %s", approvalFormat)
	}
	var s Statement
	dec := json.NewDecoder(bytes.NewReader(rest))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return nil, fmt.Errorf("cannot read the statement: %w", err)
	}
	again, err := s.Bytes()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, text) {
		return nil, errors.New("the statement is not as upgradectl writes it")
	}
	return &s, nil
}

// signedApproval is the approval of an engine.Request.
type signedApproval struct {
	Statement string `json:"statement"`
	Signature string `json:"signature"` // armoured
}

// checkApproval is engine.Options.CheckApproval for the plan. Times are those of
// the wall clock: an approval's end is one of the two places where it counts.
func (p *Plan) checkApproval(raw json.RawMessage) (engine.Approval, error) {
	return p.checkApprovalAt(raw, time.Now())
}

func (p *Plan) checkApprovalAt(raw json.RawMessage, now time.Time) (engine.Approval, error) {
	var sa signedApproval
	if p.Config.Approvals == nil {
		return engine.Approval{}, errors.New("the plan names no approvers (approvals in upgrade.yaml)")
	}
	if err := json.Unmarshal(raw, &sa); err != nil {
		return engine.Approval{}, fmt.Errorf("cannot read the approval: %w", err)
	}
	s, err := parseStatement([]byte(sa.Statement))
	if err != nil {
		return engine.Approval{}, err
	}
	list, err := sshsig.ParseSigners([]byte(p.Config.Approvals.Signers))
	if err != nil {
		return engine.Approval{}, fmt.Errorf("cannot read the approvers in the plan: %w", err)
	}
	key, err := sshsig.Verify([]byte(sa.Signature), ApprovalNamespace, []byte(sa.Statement))
	if err != nil {
		return engine.Approval{}, err
	}
	by, err := list.Who(key, ApprovalNamespace, now)
	if err != nil {
		return engine.Approval{}, err
	}
	if s.Expires.Sub(now) > p.Config.Approvals.Valid {
		return engine.Approval{}, fmt.Errorf("it is valid until %s, and at most %s are allowed", s.Expires.UTC().Format(time.RFC3339), p.Config.Approvals.Valid)
	}
	return engine.Approval{Run: s.Run, PlanHash: s.PlanHash, Step: s.Gate, Attempt: s.Attempt, By: by,
		Key: sshsig.Fingerprint(key), Head: s.Head, Expires: s.Expires}, nil
}

// NewStatement is what has to be signed to approve a gate of the run in dir:
// gate is a step ID or a section. valid is how long the approval counts; 0: as
// long as the plan allows.
func NewStatement(dir, gate string, valid time.Duration, reason string) (*Statement, error) {
	h, p, err := readRun(dir)
	if err != nil {
		return nil, err
	}
	a := p.Config.Approvals
	if a == nil {
		return nil, &RefusedError{What: "cannot approve " + gate, Reasons: []string{"the plan names no approvers: whoever runs it approves with resume --approve"}}
	}
	if valid == 0 {
		valid = a.Valid
	}
	if valid < 0 || valid > a.Valid {
		return nil, engine.Invalid("an approval is valid for at most %s, not %s", a.Valid, valid)
	}
	i := slices.IndexFunc(p.Steps, func(s PlanStep) bool { return s.Gate != "" && (s.ID == gate || s.Section == gate) })
	if i < 0 {
		return nil, engine.Invalid("approve %q: no gate stands before such a section or step", gate)
	}
	step := p.Steps[i]
	if !a.covers(step.Section) {
		return nil, engine.Invalid("the gate before %s takes no signatures: whoever runs it approves with resume --approve %s", step.Section, step.Section)
	}
	st := h.StepByID(step.ID)
	if st.ApprovedBy != "" {
		return nil, engine.Invalid("the gate before %s is approved already, by %s", step.ID, st.ApprovedBy)
	}
	return &Statement{Run: h.Run, PlanHash: h.PlanHash, Host: h.Host, Gate: step.ID, Attempt: st.Attempt + 1, Asks: step.Gate,
		Head: h.Head, Expires: time.Now().Add(valid).UTC().Truncate(time.Second), Reason: reason}, nil
}

// A Key signs approvals: an ssh.Signer of golang.org/x/crypto.
type Key = sshsig.Key

// ReadKey reads a private key file without a passphrase.
func ReadKey(file string) (Key, error) { return sshsig.ReadKey(file) }

// AgentKey finds in the agent at socket the first key that the plan of the run
// in dir lets approve. end ends the connection.
func AgentKey(dir, socket string) (key Key, end func() error, err error) {
	_, p, err := readRun(dir)
	if err != nil {
		return nil, nil, err
	}
	if p.Config.Approvals == nil {
		return nil, nil, errors.New("the plan names no approvers")
	}
	list, err := sshsig.ParseSigners([]byte(p.Config.Approvals.Signers))
	if err != nil {
		return nil, nil, err
	}
	keys, end, err := sshsig.AgentKeys(socket)
	if err != nil {
		return nil, nil, err
	}
	for _, k := range keys {
		if _, err := list.Who(k.PublicKey(), ApprovalNamespace, time.Now()); err == nil {
			return k, end, nil
		}
	}
	_ = end() // nothing was asked of it
	return nil, nil, fmt.Errorf("none of the agent's %d keys is in the plan's list of approvers", len(keys))
}

// Sign makes the signature of a statement, as ssh-keygen -Y sign does.
func (s *Statement) Sign(key Key) (statement, signature []byte, err error) {
	if statement, err = s.Bytes(); err != nil {
		return nil, nil, err
	}
	signature, err = sshsig.Sign(key, ApprovalNamespace, statement)
	return statement, signature, err
}

// Approve hands a signed statement in to the run in dir. It is checked at once,
// and again by the process that takes it: at once when none is at work, else by
// that one before its next step.
func Approve(dir string, statement, signature []byte, actor string) (engine.Approval, error) {
	h, p, err := readRun(dir)
	if err != nil {
		return engine.Approval{}, err
	}
	raw, err := json.Marshal(signedApproval{Statement: string(statement), Signature: string(signature)})
	if err != nil {
		return engine.Approval{}, err
	}
	a, err := p.checkApproval(raw)
	switch {
	case err != nil:
	case a.Run != h.Run:
		err = fmt.Errorf("it is for run %q, this is %q", a.Run, h.Run)
	case a.PlanHash != h.PlanHash:
		err = fmt.Errorf("it is for another plan (%.12s…)", a.PlanHash)
	case !time.Now().Before(a.Expires):
		err = fmt.Errorf("it expired at %s", a.Expires.UTC().Format(time.RFC3339))
	}
	if err != nil {
		return a, &RefusedError{What: "cannot take the approval", Reasons: []string{err.Error()}}
	}
	if err := engine.Ask(dir, engine.Request{Kind: engine.RequestApprove, Actor: actor, Approval: raw}); err != nil {
		return a, err
	}
	if h.Live {
		return a, nil
	}
	run, err := engine.Open(dir, engine.WithActor(actor))
	if errors.Is(err, engine.ErrLocked) { // it has begun to work by now
		return a, nil
	}
	if err != nil {
		return a, err
	}
	defer run.Close()
	refused, err := run.TakeApprovals(p.steps(nil), p.checkApproval)
	if err == nil && len(refused) > 0 {
		err = &RefusedError{What: "cannot take the approval", Reasons: refused}
	}
	return a, err
}

// gateWaits tells how many approvals a paused run has and needs: as the engine
// counts them, one of a person, and none whose time is over.
func gateWaits(h *engine.History, step string) string {
	s := h.StepByID(step)
	if s.Approvers == 0 || s.State != engine.StepPending || s.ApprovedBy != "" {
		return ""
	}
	until := map[string]time.Time{} // by person
	var who, by []string
	for _, a := range s.Approvals {
		name, _, _ := strings.Cut(strings.ToLower(a.By), "@")
		if !time.Now().Before(a.Expires) {
			continue
		}
		if _, again := until[name]; !again {
			who = append(who, name)
			by = append(by, a.By)
		}
		if until[name].Before(a.Expires) {
			until[name] = a.Expires
		}
	}
	for i, name := range who {
		by[i] += " until " + until[name].UTC().Format(time.RFC3339)
	}
	return fmt.Sprintf("%d of %d approvals: %s", len(by), s.Approvers, orNobody(strings.Join(by, ", ")))
}

func orNobody(s string) string {
	if s == "" {
		return "nobody yet"
	}
	return s
}
