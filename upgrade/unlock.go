package upgrade

import (
	"context"
	"time"

	"github.com/upgradectl/upgradectl/upgrade/engine"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// A Lease says which run holds a host; see hostos.Lease.
type Lease = hostos.Lease

// GetLease reads who holds a host; nil when nobody does.
func GetLease(ctx context.Context, h hostos.Host) (*Lease, error) { return hostos.GetLease(ctx, h) }

// UnlockHost frees a host whose holder shows no sign of life for as long as
// wait; false when nobody held it any more. A lease that is alive is left alone,
// and the error wraps *hostos.LeaseHeldError (ErrorStatus: 9). Who broke it and
// why stays on the host. An empty actor is the user of the process.
func UnlockHost(ctx context.Context, h hostos.Host, actor, reason string, wait time.Duration) (bool, error) {
	seen, err := hostos.WaitLeaseStill(ctx, h, wait, min(wait/4, 5*time.Second))
	if err != nil || seen == nil {
		return false, err
	}
	return true, hostos.BreakLease(ctx, h, *seen, holderName(actor), reason, time.Now())
}

// LastWorkedOn says who worked on a run last, and where.
func LastWorkedOn(dir string) (run, by string, err error) {
	h, err := engine.Read(dir)
	if err != nil {
		return "", "", err
	}
	return h.Run, h.Origin.String(), nil
}

// UnlockRun lets a run go on in this machine that another one has worked on
// last. It is recorded with who, where and why.
func UnlockRun(dir, actor, reason, version string) error {
	r, err := engine.Open(dir, engine.WithActor(actor), engine.WithVersion(version))
	if err != nil {
		return err
	}
	defer r.Close()
	return r.Unlock(actor, reason)
}
