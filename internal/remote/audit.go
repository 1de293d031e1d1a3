package remote

import (
	"encoding/hex"
	"errors"
	"time"

	"golang.org/x/crypto/ssh"
)

// AuditRecord is described at hostinv.AuditRecord.
type AuditRecord struct {
	Time        time.Time
	Duration    time.Duration
	Target      string
	Addr        string
	User        string
	HostKey     string
	Sudo        bool
	Command     string
	Exit        int
	Signal      string
	Err         string
	BytesIn     int64
	BytesOut    int64
	BytesErr    int64
	OutputSHA   string
	OutputKnown bool
}

// audit tells the Dialer's owner about a command.
func (c *Conn) audit(r *run, err error) {
	if c.auditor == nil {
		return
	}
	a := AuditRecord{
		Time: r.begin, Duration: time.Since(r.begin), Target: c.target, Addr: c.hop.addr(), User: c.hop.user,
		HostKey: ssh.FingerprintSHA256(c.key), Sudo: c.sudo != nil, Command: r.cmd.Line, Exit: -1, BytesIn: r.sent.Load(),
	}
	if r.out != nil {
		// The gates are shut by now, or nothing writes to them.
		r.out.mu.Lock()
		a.BytesOut, a.OutputSHA = r.out.n, hex.EncodeToString(r.out.sum.Sum(nil))
		r.out.mu.Unlock()
		r.errs.mu.Lock()
		a.BytesErr = r.errs.n
		r.errs.mu.Unlock()
	}
	var x *ExitError
	switch {
	case err == nil:
		a.Exit, a.OutputKnown = 0, true
	case errors.As(err, &x):
		a.Exit, a.Signal, a.OutputKnown = x.Status, x.Signal, true
	default:
		a.Err = err.Error()
	}
	c.auditor(a)
}
