package sim

import (
	"context"
	"fmt"

	"github.com/upgradectl/upgradectl/internal/sim/cloud"
	"github.com/upgradectl/upgradectl/internal/sim/host"
)

// machines puts the world's hosts behind the cloud's instances.
type machines struct{ w *World }

func (m machines) host(id string) (*host.Host, error) {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	h := m.w.hosts[id]
	if h == nil {
		return nil, fmt.Errorf("internal error: no machine behind instance %s", id)
	}
	return h, nil
}

// Snapshot keeps the content of an instance's disks.
func (m machines) Snapshot(id string) (string, error) {
	h, err := m.host(id)
	if err != nil {
		return "", err
	}
	d := h.Freeze()
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	handle := fmt.Sprintf("%s#%d", id, len(m.w.disks)+1)
	m.w.disks[handle] = d
	return handle, nil
}

// Create makes a host from a kept disk.
func (m machines) Create(n cloud.Machine) error {
	m.w.mu.Lock()
	d := m.w.disks[n.From]
	m.w.mu.Unlock()
	if d == nil {
		return fmt.Errorf("internal error: no disk %q for instance %s", n.From, n.InstanceID)
	}
	name := n.HostName
	if name == "" {
		name = n.InstanceID
	}
	h, err := host.FromDisk(d, host.Spec{Name: name, Addr: n.PrivateIP, Hostname: name, UserData: n.UserData}, m.w.options())
	if err != nil {
		return err
	}
	m.w.enter(n.InstanceID, h)
	return nil
}

// Restore puts a kept disk back; see cloud.Restorer.
func (m machines) Restore(id, from string) error {
	h, err := m.host(id)
	if err != nil {
		return err
	}
	m.w.mu.Lock()
	d := m.w.disks[from]
	m.w.mu.Unlock()
	if d == nil {
		return fmt.Errorf("internal error: no disk %q for instance %s", from, id)
	}
	return h.Restore(d)
}

// Replace gives a host the disk of another one; see cloud.Replacer.
func (m machines) Replace(id, from string) error {
	if err := m.Restore(id, from); err != nil {
		return err
	}
	h, err := m.host(id)
	if err != nil {
		return err
	}
	return h.FirstBoot()
}

func (m machines) Start(id string) error {
	h, err := m.host(id)
	if err != nil {
		return err
	}
	return h.Start()
}

func (m machines) Stop(id string) error {
	h, err := m.host(id)
	if err != nil {
		return err
	}
	return h.Stop()
}

func (m machines) Reboot(id string) error {
	h, err := m.host(id)
	if err != nil {
		return err
	}
	return h.Reboot()
}

// Delete destroys a host; what it refused stays known.
func (m machines) Delete(id string) error {
	h, err := m.host(id)
	if err != nil {
		return err
	}
	h.Close()
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	delete(m.w.hosts, id)
	if m.w.byAddr[h.Addr()] == h {
		delete(m.w.byAddr, h.Addr())
	}
	m.w.refused = append(m.w.refused, refusedBy(h)...)
	return nil
}

func (m machines) RunCommand(ctx context.Context, id, script string) (int, []byte, error) {
	h, err := m.host(id)
	if err != nil {
		return 0, nil, err
	}
	return h.Run(ctx, script)
}
