package hostos

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Upgraded is what an upgrade has changed on a host.
type Upgraded struct {
	Packages  PackageSet `json:"-"`         // after
	Installed PackageSet `json:"installed"` // came, in whatever version
	Removed   PackageSet `json:"removed"`   // went, in whatever version
	Kernel    string     `json:"kernel"`    // that the next boot must run; "", of InReboot: any
}

// CheckUpgraded sees what an upgrade has done, and does not trust its exit
// status: everything that a (of Assess, from before it) was to bring must be
// there, to the NEVRA, and no transaction may be open. It changes nothing.
func CheckUpgraded(ctx context.Context, h Host, c StrategyConfig, a *Assessment, before PackageSet) (*Upgraded, error) {
	o, err := GetOS(ctx, h)
	if err != nil {
		return nil, err
	}
	u := &Upgraded{Packages: o.Packages, Installed: o.Packages.Minus(before), Removed: before.Minus(o.Packages)}
	if c.InReboot {
		u.Kernel = c.Kernel // as far as it is known before it is there
	} else {
		u.Kernel = cmp.Or(c.Kernel, a.Kernel, u.Installed.NewestKernel(), o.DefaultKernel, o.Boot.Kernel)
	}
	if len(o.Unfinished) > 0 {
		return u, &TransactionError{o.Unfinished}
	}
	var missing []string
	for _, p := range a.Transaction.Incoming() {
		if !o.Packages.Has(p) {
			missing = append(missing, p.String())
		}
	}
	if len(missing) > 0 {
		return u, fmt.Errorf("the transaction has ended without %s; its log says why", strings.Join(missing, ", "))
	}
	return u, nil
}

// Expected is what a host must be after its upgrade.
type Expected struct {
	Boot        Boot     // before the reboot; its ID must be another now. Empty: no reboot was asked for
	Kernel      string   // that must run; "": any
	Release     string   // text that the release must contain; "": any
	FailedUnits []string // that had failed before already
	UnitsOK     []string // that may fail: a person has judged it harmless
}

// VerifyUpgrade proves a host after its upgrade: another boot, the kernel and
// the release that were meant, and no unit failed that had not before. What is
// not so comes all at once. It changes nothing.
func VerifyUpgrade(ctx context.Context, h Host, want Expected) (*OS, error) {
	o, err := GetOS(ctx, h)
	if err != nil {
		return nil, err
	}
	return o, o.verify(want)
}

func (o *OS) verify(want Expected) error {
	var errs []error
	say := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if want.Boot.ID != "" && o.Boot.ID == want.Boot.ID {
		say("the host was not rebooted: its boot ID is still %s", o.Boot.ID)
	}
	if want.Kernel != "" && o.Boot.Kernel != want.Kernel {
		say("the host runs kernel %s, not %s; look for an exclude in yum.conf and at the boot loader's default (%s)", o.Boot.Kernel, want.Kernel, orUnknown(o.DefaultKernel))
	}
	if !strings.Contains(o.Boot.Release, want.Release) {
		say("the host's release is %q, not one of %q", o.Boot.Release, want.Release)
	}
	for _, u := range o.FailedUnits {
		if !slices.Contains(want.FailedUnits, u) && !slices.Contains(want.UnitsOK, u) {
			say("unit %s has failed, and had not before the upgrade; see systemctl status %s, or list it in os.units_ok", u, u)
		}
	}
	return errors.Join(errs...)
}
