package host

import (
	"context"
	"errors"
	"fmt"
)

// What goes wrong on a host; see also FailEvery and PanicAtBoot.

var errNoSpace = errors.New("no space left on device")

// Intercept has by called whenever a program is to run: by gets the program
// and decides whether, and for how long, it does. A nil by ends that. The name
// is the one under which the program is known, as in Spec.Commands.
func (h *Host) Intercept(program string, by func(ctx context.Context, p *Proc, next Command) int) error {
	next := h.commands[program]
	if next == nil {
		return fmt.Errorf("cannot intercept %s on %s: no such program in the simulator", program, h.Name())
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.intercepted == nil {
		h.intercepted = map[string]Command{}
	}
	delete(h.intercepted, program)
	if by != nil {
		h.intercepted[program] = func(ctx context.Context, p *Proc) int { return by(ctx, p, next) }
	}
	return nil
}

// command finds what runs as a program; nil: it is not simulated.
func (h *Host) command(program string) Command {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c := h.intercepted[program]; c != nil {
		return c
	}
	return h.commands[program]
}

// FillDisk makes every write to a file of the tree fail for want of space, those
// of this package included, until it is called with false. Files can be made,
// renamed and removed: directories have room left.
func (h *Host) FillDisk(full bool) { h.tree.full.Store(full) }

// BootNext makes the boot loader start another kernel at the next boot, as one
// does whose default was pinned.
func (h *Host) BootNext(kernel string) { h.pk.setBootKernel(kernel) }

// SetUpdate changes what yum update brings: a mirror has moved on. The fields
// are those of the Spec.
func (h *Host) SetUpdate(release, kernel string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.spec.UpdateRelease, h.spec.UpdateKernel = release, kernel
}

// update is what yum update brings.
func (h *Host) update() (release, kernel string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.spec.UpdateRelease, h.spec.UpdateKernel
}
