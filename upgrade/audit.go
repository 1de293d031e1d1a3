package upgrade

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/upgradectl/upgradectl/upgrade/engine"
)

// An AuditReport is what Audit found.
type AuditReport struct {
	*engine.Audit
	Approvals int `json:"approvals"` // whose signature was checked again
}

// Audit checks the run in dir as engine.Verify does, and every signature on an
// approval against the approvers in the plan. heads are hashes of the journal
// that were kept elsewhere.
func Audit(dir string, heads ...string) (*AuditReport, error) {
	a, err := engine.Verify(dir, heads...)
	if err != nil {
		return nil, err
	}
	r := &AuditReport{Audit: a}
	if len(a.Findings) > 0 {
		return r, nil
	}
	_, p, err := readRun(dir)
	if errors.Is(err, engine.ErrVersion) {
		return r, err
	}
	if err != nil {
		r.Findings = append(r.Findings, engine.Finding{What: err.Error()})
		return r, nil
	}
	for rec, err := range engine.Records(dir) {
		if err != nil {
			return nil, err
		}
		if rec.Kind != "approval" {
			continue
		}
		var b struct {
			Approval engine.Approval
			Signed   json.RawMessage
		}
		err := json.Unmarshal(rec.Body, &b)
		if err == nil {
			var now engine.Approval
			now, err = p.checkApprovalAt(b.Signed, rec.Time)
			now.Expires, b.Approval.Expires = now.Expires.UTC(), b.Approval.Expires.UTC()
			if err == nil && now != b.Approval {
				err = errors.New("the signed statement says something else than the record")
			}
		}
		if err != nil {
			r.Findings = append(r.Findings, engine.Finding{Record: rec.Seq, What: fmt.Sprintf("approval in record %d: %v", rec.Seq, err)})
			continue
		}
		r.Approvals++
	}
	return r, nil
}

// An AuditEntry is one event of a run for an audit system.
type AuditEntry struct {
	Seq    int       `json:"seq"`
	Time   time.Time `json:"time"`
	Run    string    `json:"run"`
	User   string    `json:"user"`   // the actor; with the user of the operating system when that is another name
	Source string    `json:"source"` // host, and the address the user had logged in from
	Event  string    `json:"event"`
	Object string    `json:"object"` // the step, or the host of the run
	Result string    `json:"result"` // success, failure, refused, or open
	Detail string    `json:"detail,omitempty"`
	Prev   string    `json:"prev"` // hash of the record before
	Sum    string    `json:"sum"`
}

// ExportAudit gives every record of the run in dir as an AuditEntry. Of a
// damaged journal it gives what stands before the damage, and then the error.
func ExportAudit(dir string) iter.Seq2[AuditEntry, error] {
	return func(yield func(AuditEntry, error) bool) {
		var e AuditEntry // run, user and source stay until they change
		var host, user, source string
		for rec, err := range engine.Records(dir) {
			if err != nil {
				yield(AuditEntry{}, err)
				return
			}
			var b struct {
				Run, Host, Actor, Reason, Error, Act, Refused, Object, Text, Mode string
				Origin                                                            *engine.Origin
				Approval                                                          *engine.Approval
			}
			_ = json.Unmarshal(rec.Body, &b) // a body of another form: the other fields still tell
			if rec.Kind == "opened" {
				e.Run, host = b.Run, b.Host
			}
			who, from := user, source
			if b.Origin != nil {
				who, from = b.Actor, b.Origin.Host
				if b.Origin.Source != "" {
					from += " from " + b.Origin.Source
				}
				if b.Actor != b.Origin.User {
					who += " (" + b.Origin.User + ")"
				}
			}
			if rec.Kind == "started" {
				user, source = who, from
			}
			if b.Approval != nil {
				who = b.Approval.By + " " + b.Approval.Key
			}
			e.Seq, e.Time, e.User, e.Source, e.Event, e.Prev, e.Sum = rec.Seq, rec.Time, who, from, rec.Kind, rec.Prev, rec.Sum
			e.Object, e.Detail, e.Result = rec.Step, first(b.Error, b.Reason, b.Text, b.Mode), "success"
			if e.Object == "" {
				e.Object = first(b.Object, host)
			}
			if rec.Kind == "operator" {
				e.Event += " " + b.Act
			}
			switch {
			case b.Refused != "":
				e.Result, e.Detail = "refused", b.Refused
			case slices.Contains([]string{"failed", "undo-failed", "rollback-incomplete"}, rec.Kind):
				e.Result = "failure"
			case slices.Contains([]string{"intent", "undo-intent", "gate", "paused", "interrupted"}, rec.Kind):
				e.Result = "open"
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

func first(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}
