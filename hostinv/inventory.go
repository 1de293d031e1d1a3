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
	// Sections, when not empty, are the only ones that are read, with what is
	// derived from them: the others are missing from Inventory.Sections, so that
	// nothing is known of them. SectionConnections needs SectionListeners. What a
	// whole inventory costs a host, a question that is asked often need not.
	Sections []string
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

// The sections of an inventory, keys of Inventory.Sections, and the areas of
// a comparison.
const (
	SectionOS          = "os"
	SectionKernel      = "kernel" // the running one
	SectionBoot        = "boot"
	SectionUptime      = "uptime"
	SectionHost        = "host"
	SectionKernels     = "kernels" // installed ones, and the one that boots next
	SectionPackages    = "packages"
	SectionHardware    = "hardware"
	SectionDisks       = "disks"
	SectionFilesystems = "filesystems"
	SectionMounts      = "mounts"
	SectionFstab       = "fstab"
	SectionInterfaces  = "interfaces"
	SectionRoutes      = "routes"
	SectionRules       = "rules"
	SectionDNS         = "dns"
	SectionFirewall    = "firewall"
	SectionListeners   = "listeners"
	SectionOwners      = "owners" // which process holds which socket
	SectionConnections = "connections"
	SectionProcesses   = "processes"
	SectionJava        = "java"
	SectionAgents      = "agents"
	SectionDocker      = "docker"
	SectionContainers  = "containers"
	SectionUnits       = "units"
	SectionTimers      = "timers"
	SectionSupervisor  = "supervisor"
	SectionCron        = "cron"
	SectionSysctl      = "sysctl"
	SectionLimits      = "limits"
	SectionModules     = "modules"
	SectionSecurity    = "security" // SELinux, AppArmor
	SectionUsers       = "users"
	SectionSSH         = "ssh" // root's .ssh, host keys, sshd_config
	SectionTime        = "time"
	SectionNginx       = "nginx"
)

// asked are the sections in the order the script collects them, derived those
// that are made of them on our side. Never written to.
var (
	asked = []string{
		SectionOS, SectionKernel, SectionBoot, SectionUptime, SectionHost, SectionKernels, SectionPackages,
		SectionHardware, SectionDisks, SectionFilesystems, SectionMounts, SectionFstab,
		SectionInterfaces, SectionRoutes, SectionRules, SectionDNS, SectionFirewall,
		SectionListeners, SectionConnections, SectionProcesses, SectionDocker, SectionContainers, SectionUnits,
		SectionSupervisor, SectionCron, SectionSysctl, SectionLimits, SectionModules, SectionSecurity,
		SectionUsers, SectionSSH, SectionTime, SectionNginx,
	}
	derived = map[string][]string{
		SectionProcesses: {SectionOwners, SectionJava, SectionAgents},
		SectionUnits:     {SectionTimers},
	}
)

// SectionNames returns the names of all sections in the order they are shown.
func SectionNames() []string {
	var names []string
	for _, n := range asked {
		names = append(append(names, n), derived[n]...)
	}
	return names
}

// A Section says how the collection of one part went.
type Section struct {
	Status     Status   `json:"status"`
	Message    string   `json:"message,omitempty"`    // what the host said, or why it is not ok
	Unreadable []string `json:"unreadable,omitempty"` // what this user may not read, or what did not answer
	Bytes      int      `json:"bytes"`                // raw output; 0 for a section made of another's
}

// schema is the form of Inventory; ParseInventory tells what it does with
// another.
const schema = 2

// An Inventory is what a host was found to be and to run. It holds no secret
// values: of environment variables only the names are read, and values of
// arguments and settings that look like passwords, tokens or keys are replaced.
type Inventory struct {
	Schema      int                `json:"schema"` // 2
	CollectedAt time.Time          `json:"collected_at"`
	Hostname    string             `json:"hostname"`
	MachineID   string             `json:"machine_id,omitempty"`
	UID         int                `json:"uid"`           // of the login; -1 = unknown
	ClockSkew   time.Duration      `json:"clock_skew_ns"` // the host's clock minus ours, to about a second
	OS          OS                 `json:"os"`
	Kernel      string             `json:"kernel"`      // release, as uname -r gives
	KernelArgs  []string           `json:"kernel_args"` // of its command line, without the image
	BootID      string             `json:"boot_id"`     // changes with every boot
	Uptime      time.Duration      `json:"uptime_ns"`
	Noise       string             `json:"noise,omitempty"` // what the login shell printed by itself
	Sections    map[string]Section `json:"sections"`

	Kernels     Kernels      `json:"kernels"`
	Packages    []Package    `json:"packages"`
	Hardware    Hardware     `json:"hardware"`
	Disks       []Disk       `json:"disks"`
	Filesystems []Filesystem `json:"filesystems"`
	Mounts      []Mount      `json:"mounts"`
	Fstab       []Mount      `json:"fstab"`

	Interfaces  []Interface `json:"interfaces"`
	Routes      []Route     `json:"routes"`
	Rules       []string    `json:"rules"` // "4 0: from all lookup local"
	DNS         DNS         `json:"dns"`
	Firewall    []Rule      `json:"firewall"`
	Listeners   []Listener  `json:"listeners"`
	Connections []Peer      `json:"connections"`

	Processes  []Process   `json:"processes"` // without kernel threads
	Java       []Java      `json:"java"`
	Agents     []Agent     `json:"agents"`
	Docker     Docker      `json:"docker"`
	Containers []Container `json:"containers"`
	Units      []Unit      `json:"units"` // services and timers
	Supervisor []Program   `json:"supervisor"`
	Cron       []Line      `json:"cron"` // with secrets replaced; at jobs too

	Sysctl   Sysctl   `json:"sysctl"`
	Limits   []Line   `json:"limits"`
	Modules  []string `json:"modules"`
	Security Security `json:"security"`
	Users    []User   `json:"users"`
	Groups   []Group  `json:"groups"`
	Sudoers  []File   `json:"sudoers"`
	SSH      SSHFiles `json:"ssh"`
	Time     Time     `json:"time"`
	Nginx    Nginx    `json:"nginx"`

	uuids  map[string]string // of file systems, by device
	peers  []socket          // established connections
	owners map[string]int    // pid by socket inode
	clock  int64             // the host's, Unix seconds
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
