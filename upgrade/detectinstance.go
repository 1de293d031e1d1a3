package upgrade

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/ecs"
)

// The detectors of the production instance and of the copy that is made of it.

// detectInstance looks at the production instance and at what its money and its
// snapshots do meanwhile.
func detectInstance(_ *Config, f *Facts, now time.Time) []Finding {
	var l found
	in := f.Instance
	if in.Status != ecs.StatusRunning {
		l.add(FindingBlocking, "instance-status", in.ID, "", "instance %s is %s, not Running", in.ID, in.Status)
	}
	if !in.ExpiredTime.IsZero() && in.ChargeType == "PrePaid" {
		switch left := in.ExpiredTime.Sub(now); {
		case left < 2*24*time.Hour:
			l.add(FindingBlocking, "instance-expiry", in.ID, "renew it first: an instance that is stopped for its bill cannot be upgraded, and one that is released is lost",
				"instance %s is paid until %s only", in.ID, in.ExpiredTime.UTC().Format(time.RFC3339))
		case left < 14*24*time.Hour:
			l.add(FindingWarning, "instance-expiry", in.ID, "renew it before the window, or see that it is renewed by itself", "instance %s is paid until %s", in.ID, in.ExpiredTime.UTC().Format(time.RFC3339))
		}
	}
	if !in.AutoReleaseTime.IsZero() {
		l.add(FindingBlocking, "instance-release", in.ID, "take its release time away", "instance %s is released by itself at %s", in.ID, in.AutoReleaseTime.UTC().Format(time.RFC3339))
	}
	for _, s := range f.Snapshotting {
		l.add(FindingWarning, "snapshot-running", s, "let it finish: a disk takes one snapshot at a time, and 3.1 waits for it", "a snapshot of a disk is being made by somebody else: %s", s)
	}
	return l
}

// eventMargin is how long before and after the run the cloud must leave the
// instance alone.
const eventMargin = 24 * time.Hour

// runTime is how long a run may take by its own limits: making the transition
// host, the work on both hosts, and the waits of the traffic.
func runTime(cfg *Config) time.Duration { return 2*cfg.Pace.CloudTimeout + 8*cfg.Pace.Timeout }

// detectEvents looks at what the cloud itself has in store for the instance: a
// scheduled restart or move in the middle of the run would be a second upgrade on
// top of the first. Executing ones are under way; Inquiring ones wait for a
// person's answer and may come at any time.
func detectEvents(cfg *Config, f *Facts, now time.Time) []Finding {
	var l found
	until := now.Add(runTime(cfg) + eventMargin)
	for _, e := range f.Events {
		what := fmt.Sprintf("the cloud will do %s to instance %s", e.Type, f.Instance.ID)
		if e.Reason != "" {
			what += " (" + e.Reason + ")"
		}
		switch {
		case e.Status == "Executing":
			l.add(FindingBlocking, "instance-event", e.ID, "wait until it is over", "%s: it is under way", what)
		case e.Status == "Inquiring" || e.NotBefore.IsZero():
			l.add(FindingBlocking, "instance-event", e.ID, "answer it in the console, and let it happen first", "%s: it waits for an answer, and may happen at any time", what)
		case e.NotBefore.Before(until):
			l.add(FindingBlocking, "instance-event", e.ID, "let it happen first, or move it past the window in the console: it would stop the host in the middle of the run",
				"%s from %s on, and the run may take until %s", what, e.NotBefore.UTC().Format(time.RFC3339), until.Add(-eventMargin).UTC().Format(time.RFC3339))
		default:
			l.add(FindingWarning, "instance-event", e.ID, "upgrade well before it, and expect the restart", "%s from %s on", what, e.NotBefore.UTC().Format(time.RFC3339))
		}
	}
	return l
}

// detectQuotas looks whether each quota has room for the copy, one by one: the dry
// run of RunInstances stops at the first, and knows nothing of snapshots.
func detectQuotas(_ *Config, f *Facts, _ time.Time) []Finding {
	var l found
	for _, q := range f.Quotas {
		what, remedy := "", "have the quota raised in the Quota Center, or release what nobody needs"
		switch q.Kind {
		case ecs.QuotaVCPU:
			what = fmt.Sprintf("the account may have %d more vCPUs of instances paid by use in %s, and the transition host takes %d", max(q.Left, 0), q.Object, q.Need)
		case ecs.QuotaSecurityGroup:
			what = fmt.Sprintf("security group %s has room for %d more instances", q.Object, max(q.Left, 0))
			remedy = "take instances out of it that do not need it"
		case ecs.QuotaAddress:
			what = fmt.Sprintf("vSwitch %s has %d free addresses", q.Object, max(q.Left, 0))
			remedy = "release addresses that nobody needs, or adopt a host of your own by transition.instance"
		case ecs.QuotaSnapshot:
			what = fmt.Sprintf("disk %s can have %d more snapshots, and the run takes %d", q.Object, max(q.Left, 0), q.Need)
			remedy = "delete snapshots that nobody needs"
		default:
			continue
		}
		switch {
		case q.Short():
			l.add(FindingBlocking, "quota-"+q.Kind, q.Object, remedy, "%s", what)
		case q.Kind == ecs.QuotaAddress && q.Left < 3:
			l.add(FindingWarning, "quota-"+q.Kind, q.Object, "others may take them before the transition host is made: "+remedy, "%s", what)
		}
	}
	return l
}

// detectTrust looks who lets production in by its address and would not let in
// whatever address the vSwitch gives the transition host. 3.4-trust looks again
// once that address is known, and stops there.
func detectTrust(_ *Config, f *Facts, _ time.Time) []Finding {
	var l found
	for _, t := range f.Trust {
		x := trustFinding(t)
		switch x.Severity {
		case FindingBlocking:
			x.Severity = FindingWarning
			x.Remedy = "let the vSwitch's block in, or expect 3.4-trust to stop until the one address is let in: " + x.Remedy
		}
		l = append(l, x)
	}
	return l
}

// trustFinding is a finding about who lets the host in, in the form of all others:
// accept takes it on.
func trustFinding(t ecs.TrustFinding) Finding {
	severity := map[string]string{ecs.SeverityBlock: FindingBlocking, ecs.SeverityWarn: FindingWarning}[t.Severity]
	return Finding{ID: "trust-" + t.Kind, Severity: cmp.Or(severity, FindingInfo), Object: t.ID, Evidence: t.Evidence, Remedy: t.Remedy}
}

// detectClone looks at what a copy of the host would lack, and whether the cloud
// would make it.
func detectClone(_ *Config, f *Facts, _ time.Time) []Finding {
	var l found
	for _, b := range f.Blockers {
		remedy := b.Remedy
		if remedy == "none" {
			remedy = ""
		}
		if b.Blocking {
			l.add(FindingBlocking, "clone-"+b.Code, b.Object, remedy, "a copy of the host cannot be made: %s: %s", b.Object, b.Reason)
		} else {
			l.add(FindingInfo, "clone-"+b.Code, b.Object, remedy, "unlike production: %s", b.Reason)
		}
	}
	if f.NoClone != "" {
		l.add(FindingBlocking, "clone-refused", f.Instance.ID, "", "the cloud would not make the transition host: %s", f.NoClone)
	}
	if s := f.Stock; s != nil && !s.Available {
		l.add(FindingBlocking, "clone-stock", s.Zone, "wait, or adopt a host of your own by transition.instance", "zone %s has no %s left (%s)", s.Zone, s.Type, cmp.Or(s.Category, "not offered there"))
	}
	for i, u := range f.Unasked {
		l.add(FindingWarning, "clone-unasked", fmt.Sprint(i+1), "", "not known: %s", u)
	}
	return l
}

// detectAdopted looks whether a host of the operator's own can be the transition
// host.
func detectAdopted(cfg *Config, f *Facts, _ time.Time) []Finding {
	var l found
	a := f.Adopted
	if a == nil {
		return nil
	}
	stop := func(remedy, format string, args ...any) {
		l.add(FindingBlocking, "adopted-unfit", a.ID, remedy, format, args...)
	}
	switch {
	case a.ID == f.Instance.ID:
		stop("", "transition.instance %s is the production host itself", a.ID)
	case a.Status != ecs.StatusRunning:
		stop("", "transition.instance %s is %s, not Running", a.ID, a.Status)
	case !a.AutoReleaseTime.IsZero():
		stop("take its release time away first", "transition.instance %s is released by itself at %s", a.ID, a.AutoReleaseTime.Format(time.RFC3339))
	case len(f.AdoptedServes) > 0:
		stop("", "transition.instance %s serves already, and upgrading it would be noticed: %s", a.ID, strings.Join(f.AdoptedServes, "; "))
	case cfg.Transition.ReleaseAdopted && a.Tags[releaseTag] != "yes":
		stop("", "transition.release_adopted: instance %s may be released only if it carries the tag %s=yes", a.ID, releaseTag)
	}
	return l
}
