package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// A snapshot is what was on a host's disk.
type snapshot struct{ setup Setup }

// Snapshot copies the disk of the host, which may run: its processes halt
// meanwhile, so that it is the disk of one moment. The result is for
// [Lab.Clone].
func (h *Host) Snapshot() (string, error) {
	l := h.lab
	h.mu.Lock()
	defer h.mu.Unlock()
	l.mu.Lock()
	to := filepath.Join(l.dir, "snapshots", strconv.Itoa(len(l.snapshots)+1))
	l.snapshots[to] = snapshot{setup: h.setup}
	l.mu.Unlock()
	if err := os.MkdirAll(to, 0o700); err != nil {
		return "", err
	}
	thaw := func() error { return nil }
	if h.boot != nil && h.boot.pid != 0 {
		var err error
		if thaw, err = h.boot.groups.freeze(); err != nil {
			return "", fmt.Errorf("cannot take a snapshot of %s: %w", h.Name, err)
		}
	}
	err := command("cp", "-a", h.fs("disk"), h.fs("docker"), h.fs("boot"), to)
	if err = errors.Join(err, thaw()); err != nil {
		return "", fmt.Errorf("cannot take a snapshot of %s: %w", h.Name, err)
	}
	return to, nil
}

// Clone makes a host, switched off, with a copy of a snapshot as its disk, and
// an identity of its own. userData is its #cloud-config; the snapshot's own
// is not taken over.
func (l *Lab) Clone(ctx context.Context, id, name, addr, from string, userData []byte) (*Host, error) {
	l.mu.Lock()
	s, ok := l.snapshots[from]
	l.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("internal error: %s is no snapshot", from)
	}
	s.setup.UserData = userData
	h, err := l.newHost(id, name, addr, s.setup, from)
	if err != nil {
		return nil, err
	}
	return h, h.identify(ctx, "")
}

// unmount gives the host's file systems back.
func (h *Host) unmount() error {
	var errs []error
	if h.setup.BootMB > 0 {
		errs = append(errs, command("umount", h.root()+"/boot"), command("umount", h.fs("boot")))
	}
	return errors.Join(append(errs, command("umount", h.root()), command("umount", h.fs("")))...)
}
