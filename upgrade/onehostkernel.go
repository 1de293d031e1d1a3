package upgrade

import (
	"context"
	"fmt"

	"github.com/upgradectl/upgradectl/upgrade/engine"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// PreviousKernel stands for the newest installed kernel that is older than the
// one that runs.
const PreviousKernel = "previous"

// HostKernel is what a host boots, and what was made of it.
type HostKernel struct {
	Host     string          `json:"host"`
	Boot     hostos.Boot     `json:"boot"`    // from before
	Default  string          `json:"default"` // that the boot loader starts; "": cannot be read
	Kernels  []hostos.Kernel `json:"kernels"`
	Release  string          `json:"release,omitempty"` // that is asked for
	Set      bool            `json:"set"`               // the default was changed
	Rebooted bool            `json:"rebooted"`
	After    *hostos.Boot    `json:"after,omitempty"` // the boot that it rebooted into
}

// GetHostKernel reads the kernels of a host and changes nothing. want is "",
// PreviousKernel, or a release as uname -r prints it; one that the host cannot
// boot is a *RefusedError, and the result is there all the same.
func GetHostKernel(ctx context.Context, e *Env, target, want string) (*HostKernel, error) {
	o, err := hostos.GetOS(ctx, e.host(target))
	if err != nil {
		return nil, fmt.Errorf("host %s: %w", target, err)
	}
	k := &HostKernel{Host: target, Boot: o.Boot, Default: o.DefaultKernel, Kernels: o.Kernels, Release: want}
	refuse := func(reason string) (*HostKernel, error) {
		return k, &RefusedError{Host: target, Reasons: []string{reason}}
	}
	switch {
	case want == "":
		return k, nil
	case o.UID != 0:
		return refuse("its login is not root")
	case want == PreviousKernel:
		k.Release = ""
		if k.Release, err = o.PreviousKernel(o.Boot.Kernel); err != nil {
			return refuse(err.Error())
		}
	}
	for _, i := range o.Kernels {
		if i.Release == k.Release && i.Image > 0 && i.Initramfs > 0 {
			return k, nil
		}
	}
	return refuse("kernel " + k.Release + " is not there, with its initramfs, below /boot")
}

// SetHostKernel makes a kernel the one that the host boots, and with reboot
// boots it; want is as in GetHostKernel, and not "". It can be called again
// wherever it was ended, with the release in the place of PreviousKernel: what
// is so already is left alone. Another holder of the host wraps
// *hostos.LeaseHeldError.
func SetHostKernel(ctx context.Context, e *Env, target, want string, reboot bool, o HostJobOptions) (*HostKernel, error) {
	if want == "" {
		return nil, engine.Invalid("cannot set the kernel of %s: none is named", target)
	}
	k, err := GetHostKernel(ctx, e, target, want)
	if err != nil {
		return k, err
	}
	err = HoldHost(ctx, e, target, "kernel", o, func(ctx context.Context) error {
		l := e.host(target)
		if k.Default != k.Release {
			o.say("%s: the boot loader is to start %s", target, k.Release)
			if err := hostos.SetDefaultKernel(ctx, l.held(), k.Release); err != nil {
				return fmt.Errorf("host %s: %w", target, err)
			}
			k.Set = true
		}
		if !reboot || k.Boot.Kernel == k.Release {
			return nil
		}
		now, err := l.reboot(ctx, k.Boot.ID, o)
		if err != nil {
			return err
		}
		k.Rebooted, k.After = true, &now
		if now.Kernel != k.Release {
			return fmt.Errorf("host %s runs %s after its reboot, not %s: see on its console what its boot loader started", target, now.Kernel, k.Release)
		}
		return nil
	})
	return k, err
}
