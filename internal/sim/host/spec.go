package host

import (
	"context"
	"io"
	"io/fs"
	"net"
	"net/http"
	"time"
)

// A Network is told when the services or the power state of a host changed,
// so that whoever dials hosts can drop what it remembered. Changed must not
// block, and of the host may call only Endpoint, Listening, Up, Name and Addr.
type Network interface {
	Changed(h *Host)
}

// Options are the settings of the simulation, as opposed to what a host is.
type Options struct {
	// Speed divides every duration of the world: 1 = real, 60 = sixty times
	// faster. 0 means 1.
	Speed float64
	// BootTakes is how long a boot takes at Speed 1; 0 means 20 s. The first
	// Start of a host made by New takes no time: it was up before we looked.
	BootTakes time.Duration
	// Network is told about changes; nil = nobody.
	Network Network
	// Ran is told when a command of an SSH session has ended and its status has
	// not left yet; nil = nobody.
	Ran func(h *Host, command string)
	// Boot is called at every boot when the kernel runs and nothing else does
	// yet: whoever simulates the machine configures its network then. nil =
	// nobody.
	Boot func(h *Host)
	// Listen opens a port for a service; nil = one on loopback.
	Listen func() (net.Listener, error)
}

// A Spec says what a host is at the beginning.
type Spec struct {
	// UserData is what cloud-init gets at each boot: "" or a #cloud-config with
	// the module bootcmd, and nothing else.
	UserData []byte
	Name     string // what the world calls it
	Addr     string // private IPv4 address
	Hostname string // empty = Name
	Release  string // a line of /etc/redhat-release; empty = CentOS 7.5
	Kernel   string // osrelease of the running kernel; empty = 3.10.0-862.9.1.el7.x86_64

	UpdateRelease string // release after yum update; empty = unchanged
	UpdateKernel  string // kernel that yum update installs; empty = none

	Files    map[string]File   // by absolute path; missing parents are made
	Proc     map[string]string // more files right below /proc, or others than usual
	Users    []User            // root exists always
	Packages []string          // more packages, "name-version-release.arch"
	Needs    map[string]string // what further packages cannot be without, by their names
	Units    []Unit
	Compose  []string // directories whose docker-compose.yml was brought up

	Containers []Container
	Processes  []Process          // started by hand before the first look: a reboot loses them
	Commands   map[string]Command // more programs, in /usr/sbin, or where an absolute path says
}

// A File is a file, directory or symbolic link of the tree.
type File struct {
	Data     []byte
	Mode     fs.FileMode // permission bits and fs.ModeDir; 0 = 0644, for a directory 0755
	UID, GID int
	Link     string // target, makes this a symbolic link
}

// A User is an account with its login keys.
type User struct {
	Name           string
	UID            int      // also the GID
	AuthorizedKeys []string // lines of ~/.ssh/authorized_keys
}

// A Unit is a systemd service.
type Unit struct {
	Name        string // with or without ".service"
	Description string
	Enabled     bool   // started at every boot
	Active      bool   // also running when the host is looked at first
	Start       string // shell command line; it returns when Forking, else it is the service
	Forking     bool   // Start leaves daemons behind and returns
}

// A Port is a published port of a container.
type Port struct{ Host, Container int }

// A Container is a Docker container.
type Container struct {
	Name    string
	Image   string
	Restart string // "no", "always", "unless-stopped", "on-failure"; empty = "no"
	Labels  map[string]string
	Ports   []Port
	Health  bool // has a health check
	Stopped bool // exists but does not run
}

// A Process is a program that runs. In a Spec and for Spawn it is a
// description; what Spawn returns is the running one.
type Process struct {
	Title string            // cmdline as one string, as a program that rewrote it shows; empty = Args
	Args  []string          // argv
	Cwd   string            // empty = "/"
	Env   map[string]string // environment; nil = what systemd gives
	User  string            // empty = root
	PPID  int               // 0 = 1
	Ports []int             // TCP ports it listens on, at once
	// Handler answers on Ports; nil = the built-in application (see Host.Endpoint).
	Handler http.Handler
	// OnTerm is called in a goroutine of its own when the process gets
	// SIGTERM; the program ends itself by Exit. nil = the process finishes
	// its requests and exits.
	OnTerm func()
	// OnExit is called once, after the process is gone, however it ended. It
	// must not block.
	OnExit func()

	Unit string // systemd unit it belongs to; empty = none (Proc.Spawn fills it in)
	p    *process
}

// A Conn is a TCP connection as the host's kernel knows it.
type Conn struct {
	LocalIP    string
	LocalPort  int
	RemoteIP   string
	RemotePort int
}

// A Command is a simulated program. It returns its exit status, and soon
// after ctx is done. Messages for the user go to p.Stderr.
type Command func(ctx context.Context, p *Proc) int

// A Proc is what a Command gets: its process.
type Proc struct {
	Host   *Host
	Args   []string // Args[0] is the name
	Env    map[string]string
	Dir    string
	Stdin  io.Reader // never nil
	Stdout io.Writer
	Stderr io.Writer
	User   string
	PID    int

	p     *process
	umask fs.FileMode
}

// Spawn is Host.Spawn for a daemon that this command starts: it belongs to the
// systemd unit the command was started for.
func (p *Proc) Spawn(d Process) (*Process, error) {
	if d.Unit == "" {
		d.Unit = p.p.unit
	}
	return p.Host.Spawn(d)
}
