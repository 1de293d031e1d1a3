package hostinv

import (
	"context"
	"io"
	"time"
)

// Host is what collecting needs of a host. *Conn is one; anything that can
// run a POSIX sh command line will do. A command that ran and failed gives an
// error with an ExitStatus() int method, found by errors.As.
type Host interface {
	Run(ctx context.Context, cmd string, stdin io.Reader, stdout, stderr io.Writer) error
}

// Options of Collect. The zero value collects everything.
type Options struct {
	// MaxOutput limits what is taken from the host, in bytes; 0 = 64 MiB.
	MaxOutput int64
}

// Status says how far a section of an inventory can be trusted. Only OK and
// Absent say something about the host; with any other status what is missing
// from the section may exist all the same.
type Status string

// The statuses of a section.
const (
	StatusOK        Status = "ok"        // complete
	StatusPartial   Status = "partial"   // some of it could not be read
	StatusDenied    Status = "denied"    // not permitted to this user
	StatusAbsent    Status = "absent"    // the host has no such thing (no docker, no systemd)
	StatusTimeout   Status = "timeout"   // the host took too long
	StatusTruncated Status = "truncated" // the output was cut off
	StatusError     Status = "error"     // the host said something else, see Message
)

// Known reports whether what is not listed surely does not exist.
func (s Status) Known() bool { return s == StatusOK || s == StatusAbsent }

// The sections of an inventory, keys of Inventory.Sections.
const (
	SectionOS         = "os"
	SectionKernel     = "kernel"
	SectionBoot       = "boot"
	SectionUptime     = "uptime"
	SectionHost       = "host"
	SectionListeners  = "listeners"
	SectionOwners     = "owners" // which process holds which listener
	SectionJava       = "java"
	SectionDocker     = "docker"
	SectionContainers = "containers"
	SectionUnits      = "units"
)

// A Section says how the collection of one part went.
type Section struct {
	Status  Status `json:"status"`
	Message string `json:"message,omitempty"` // what the host said, or why it is not ok
	Bytes   int    `json:"bytes"`             // raw output
}

// An Inventory is what a host was found to be and to run. It holds no secret
// values: environment variables are not read, and values of arguments that
// look like passwords, tokens or keys are replaced.
type Inventory struct {
	Schema      int                `json:"schema"` // 1
	CollectedAt time.Time          `json:"collected_at"`
	Hostname    string             `json:"hostname"`
	UID         int                `json:"uid"`           // of the login; -1 = unknown. Without root, listeners have no process
	ClockSkew   time.Duration      `json:"clock_skew_ns"` // the host's clock minus ours, to about a second
	OS          OS                 `json:"os"`
	Kernel      string             `json:"kernel"`  // release, as uname -r gives
	BootID      string             `json:"boot_id"` // changes with every boot
	Uptime      time.Duration      `json:"uptime_ns"`
	Docker      string             `json:"docker,omitempty"` // version of the daemon
	Noise       string             `json:"noise,omitempty"`  // what the login shell printed by itself
	Sections    map[string]Section `json:"sections"`
	Listeners   []Listener         `json:"listeners"`
	Java        []Java             `json:"java"`
	Containers  []Container        `json:"containers"`
	Units       []Unit             `json:"units"`

	owners map[string]owner // by socket inode
	clock  int64            // the host's, Unix seconds
}

// OS identifies the distribution.
type OS struct {
	ID      string `json:"id"`                // os-release ID, for instance centos
	Version string `json:"version"`           // os-release VERSION_ID
	Pretty  string `json:"pretty"`            // os-release PRETTY_NAME
	Release string `json:"release,omitempty"` // first line of /etc/redhat-release
}

// A Listener is a socket that accepts traffic from elsewhere.
type Listener struct {
	Proto   string `json:"proto"` // tcp or udp
	Addr    string `json:"addr"`  // 0.0.0.0 and :: mean every address
	Port    int    `json:"port"`
	UID     int    `json:"uid"`
	PID     int    `json:"pid,omitempty"`     // 0 = not known or not permitted to know
	Process string `json:"process,omitempty"` // name of that process

	inode string
}

// A Java is a process of a Java virtual machine.
type Java struct {
	PID       int      `json:"pid"`
	Cwd       string   `json:"cwd"` // as the kernel says it, with " (deleted)" if it is gone
	User      string   `json:"user"`
	Exe       string   `json:"exe,omitempty"`
	Args      []string `json:"args"`                 // with secrets replaced
	Jar       string   `json:"jar,omitempty"`        // value of -jar
	MainClass string   `json:"main_class,omitempty"` // where there is no -jar
	Container string   `json:"container,omitempty"`  // ID of the Docker container it runs in
	Ports     []int    `json:"ports"`                // TCP ports it listens on, sorted
}

// A Container is a Docker container, running or not.
type Container struct {
	ID            string  `json:"id"`
	Name          string  `json:"name"` // without the leading slash
	Image         string  `json:"image"`
	ImageID       string  `json:"image_id"`
	State         string  `json:"state"` // running, exited, …
	ExitCode      int     `json:"exit_code"`
	Health        string  `json:"health,omitempty"`
	RestartPolicy string  `json:"restart_policy"`
	Compose       Compose `json:"compose"`
	Ports         []Port  `json:"ports"`         // published
	PID           int     `json:"pid,omitempty"` // of its first process; 0 = it does not run
}

// Compose says which service of which compose project a container belongs
// to. It is empty for a container started by hand.
type Compose struct {
	Project string `json:"project,omitempty"`
	Service string `json:"service,omitempty"`
	Number  string `json:"number,omitempty"`
	Dir     string `json:"dir,omitempty"`
	File    string `json:"file,omitempty"` // one or several, separated by commas
}

// A Port is a port of a container made reachable on the host.
type Port struct {
	Proto         string `json:"proto"`
	ContainerPort int    `json:"container_port"`
	HostIP        string `json:"host_ip"` // empty or 0.0.0.0 = every address
	HostPort      int    `json:"host_port"`
}

// A Unit is a systemd service.
type Unit struct {
	Name    string `json:"name"`
	Load    string `json:"load,omitempty"`
	Active  string `json:"active,omitempty"`  // active, inactive, failed, …; empty = not loaded
	Sub     string `json:"sub,omitempty"`     // running, exited, dead, …
	Enabled string `json:"enabled,omitempty"` // enabled, disabled, static, …; empty = no unit file
}

// A Connection is a TCP connection of the host that is not a listener.
type Connection struct {
	LocalIP    string `json:"local_ip"` // IPv4 in dotted form also where the socket is IPv6
	LocalPort  int    `json:"local_port"`
	RemoteIP   string `json:"remote_ip"`
	RemotePort int    `json:"remote_port"`
	State      string `json:"state"`         // ESTABLISHED, TIME_WAIT, …
	PID        int    `json:"pid,omitempty"` // whose network namespace it is in; 0 = the host's own
}

// Collect reads the inventory of a host with one command, /bin/sh -s, and
// the script on its standard input. It installs and changes nothing there.
// A part that could not be read is no error: see Inventory.Sections. An
// error means that there is no inventory.
func Collect(ctx context.Context, h Host, o Options) (*Inventory, error) {
	return collect(ctx, h, o)
}

// ReadBootID returns the boot ID of a host, which changes with every boot:
// the only proof of a reboot.
func ReadBootID(ctx context.Context, h Host) (string, error) {
	return readBootID(ctx, h)
}

// ListConnections returns the TCP connections of a host in every state but
// LISTEN, from its own network namespace and from those of the processes pids
// (Container.PID): a port that is published by address translation alone shows
// only in the namespace of its container. A process that has ended meanwhile
// is an error; look it up again then.
func ListConnections(ctx context.Context, h Host, pids ...int) ([]Connection, error) {
	return listConnections(ctx, h, pids)
}
