package lab

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/upgradectl/upgradectl/internal/sim/cloud"
)

// Machines puts the lab's hosts behind the instances of a simulated cloud.
func (l *Lab) Machines() cloud.Machines { return machines{l} }

type machines struct{ lab *Lab }

// patience bounds what the cloud asks of a host.
const patience = 2 * time.Minute

func (m machines) host(id string) (*Host, error) {
	if h := m.lab.Host(id); h != nil {
		return h, nil
	}
	return nil, fmt.Errorf("internal error: no machine behind instance %s", id)
}

// Snapshot copies the disk of a host that may run: its processes halt
// meanwhile, so that it is the disk of one moment.
func (m machines) Snapshot(id string) (string, error) {
	h, err := m.host(id)
	if err != nil {
		return "", err
	}
	return h.Snapshot()
}

// Create makes a host, switched off, with a copy of a snapshot as its disk and
// an identity of its own.
func (m machines) Create(n cloud.Machine) error {
	name := n.HostName
	if name == "" {
		name = n.InstanceID
	}
	_, err := m.lab.Clone(context.Background(), n.InstanceID, name, n.PrivateIP, n.From, n.UserData)
	return err
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
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return h.Stop(ctx)
}

func (m machines) Reboot(id string) error {
	if err := m.Stop(id); err != nil {
		return err
	}
	return m.Start(id)
}

// Delete destroys a host and its disk.
func (m machines) Delete(id string) error {
	h, err := m.host(id)
	if err != nil {
		return err
	}
	if err := h.Cut(); err != nil {
		return err
	}
	m.lab.mu.Lock()
	delete(m.lab.hosts, id)
	m.lab.mu.Unlock()
	if err := h.unmount(); err != nil {
		return err
	}
	return os.RemoveAll(h.dir)
}

func (m machines) RunCommand(ctx context.Context, id, script string) (int, []byte, error) {
	h, err := m.host(id)
	if err != nil {
		return 0, nil, err
	}
	return h.Run(ctx, script)
}
