package host

import (
	"context"
	"errors"
	"io/fs"
	"net"
)

// A Host is one simulated machine. All methods are safe for concurrent use.
type Host struct {
	// Forward is how this host reaches others (direct-tcpip channels of its SSH
	// server). Set it before the first ServeSSH; nil refuses.
	Forward func(ctx context.Context, addr string) (net.Conn, error)
}

// process is a running process.
type process struct{}

// A Disk is the content of a host's disks at one moment, as after a power cut.
type Disk struct{}

var errSoon = errors.New("host is being built")

// New makes a host, powered off.
func New(spec Spec, o Options) (*Host, error) { return nil, errSoon }

// FromDisk makes a host, powered off, from a disk. Of spec, the fields Name,
// Addr, Hostname, Commands are used; the rest is on the disk. At its first
// boot it gets SSH host keys of its own, as cloud images do.
func FromDisk(d *Disk, spec Spec, o Options) (*Host, error) { return nil, errSoon }

// Start switches the host on and returns when it has booted.
func (h *Host) Start() error { return errSoon }

// Stop shuts the host down and returns when it is off.
func (h *Host) Stop() error { return errSoon }

// Reboot is Stop and Start in one.
func (h *Host) Reboot() error { return errSoon }

// Close cuts the power for good and waits for everything the host runs.
func (h *Host) Close() {}

// Up reports whether the host runs.
func (h *Host) Up() bool { return false }

// Name returns the name given in the Spec.
func (h *Host) Name() string { return "" }

// Addr returns the private address given in the Spec.
func (h *Host) Addr() string { return "" }

// Kernel returns the running kernel's release.
func (h *Host) Kernel() string { return "" }

// BootID returns the running kernel's boot id.
func (h *Host) BootID() string { return "" }

// HostKey returns the public SSH host key, "ssh-ed25519 AAAA…".
func (h *Host) HostKey() string { return "" }

// ServeSSH serves one SSH connection and returns when it ended.
func (h *Host) ServeSSH(c net.Conn) {}

// Freeze copies the disks as they are now.
func (h *Host) Freeze() *Disk { return nil }

// Run runs a script in a root shell, as Cloud Assistant does.
func (h *Host) Run(ctx context.Context, script string) (exit int, out []byte, err error) {
	return 0, nil, errSoon
}

// ReadFile reads a file of the tree as root.
func (h *Host) ReadFile(name string) ([]byte, error) { return nil, errSoon }

// WriteFile creates or replaces a file of the tree as root.
func (h *Host) WriteFile(name string, data []byte, perm fs.FileMode) error { return errSoon }

// ReadDir lists a directory of the tree, sorted by name.
func (h *Host) ReadDir(name string) ([]fs.DirEntry, error) { return nil, errSoon }

// Endpoint returns the loopback address on which the service of a port really
// listens. ok is false when nothing listens there: connection refused.
func (h *Host) Endpoint(port int) (addr string, ok bool) { return "", false }

// Listening returns the TCP ports something listens on, sorted.
func (h *Host) Listening() []int { return nil }

// Track enters an established connection into the kernel's table; done moves
// it to TIME_WAIT for 60 s of the world.
func (h *Host) Track(c Conn) (done func()) { return func() {} }

// Spawn starts a process for a program that lives outside this package.
func (h *Host) Spawn(p Process) (*Process, error) { return nil, errSoon }

// PID returns the process id of a running process.
func (p *Process) PID() int { return 0 }

// SetTitle rewrites the command line that /proc shows.
func (p *Process) SetTitle(title string) {}

// Exit ends the process; its listeners close, open requests are cut.
func (p *Process) Exit() {}

// Refused returns the commands and flags that were asked for and that this
// simulator does not know, in order.
func (h *Host) Refused() []string { return nil }
