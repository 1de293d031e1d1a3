package hostinv

import "time"

// OS identifies the distribution.
type OS struct {
	ID      string `json:"id"`                // os-release ID, for instance centos
	Version string `json:"version"`           // os-release VERSION_ID
	Pretty  string `json:"pretty"`            // os-release PRETTY_NAME
	Release string `json:"release,omitempty"` // first line of /etc/redhat-release, or Debian with its point release
}

// Kernels are the installed kernels.
type Kernels struct {
	Installed      []string `json:"installed"`         // releases, sorted
	Default        string   `json:"default,omitempty"` // what boots next: a release, or what the boot loader's settings say
	RebootRequired bool     `json:"reboot_required,omitempty"`
}

// A Package is an installed package.
type Package struct {
	Manager string `json:"manager"` // rpm, dpkg or apk
	Name    string `json:"name"`
	EVR     string `json:"evr"` // [epoch:]version[-release]
	Arch    string `json:"arch,omitempty"`
	Status  string `json:"status,omitempty"` // of dpkg when it is not "ii"
}

// EVRA returns name-[epoch:]version-release.arch, as rpm and yum write it.
func (p Package) EVRA() string {
	s := p.Name + "-" + p.EVR
	if p.Arch != "" {
		s += "." + p.Arch
	}
	return s
}

// Hardware is what the machine consists of.
type Hardware struct {
	CPUs    int    `json:"cpus"` // online
	Model   string `json:"model,omitempty"`
	Memory  int64  `json:"memory_bytes"`
	Swap    int64  `json:"swap_bytes"`
	Product string `json:"product,omitempty"` // vendor and product of the firmware
}

// A Disk is a block device or a partition of one.
type Disk struct {
	Name   string `json:"name"`
	Bytes  int64  `json:"bytes"`
	Serial string `json:"serial,omitempty"`
	UUID   string `json:"uuid,omitempty"` // of the file system on it
}

// A Filesystem is a mounted file system on a disk. Network file systems are
// never asked: they may not answer.
type Filesystem struct {
	Target    string `json:"target"`
	Type      string `json:"type"`
	Bytes     int64  `json:"bytes"`
	Available int64  `json:"available_bytes"`
	Inodes    int64  `json:"inodes"`
}

// A Mount is a mounted file system, or a line of fstab.
type Mount struct {
	Target  string   `json:"target"`
	Type    string   `json:"type"`
	Source  string   `json:"source"`         // with secrets replaced
	UUID    string   `json:"uuid,omitempty"` // of a mounted device, where /dev/disk/by-uuid knows it
	Options []string `json:"options"`        // sorted, with secrets replaced
}

// An Interface is a network interface.
type Interface struct {
	Name      string   `json:"name"`
	MAC       string   `json:"mac,omitempty"`
	MTU       int      `json:"mtu"`
	State     string   `json:"state,omitempty"`  // up, down, unknown
	Master    string   `json:"master,omitempty"` // bridge or bond it belongs to
	Addresses []string `json:"addresses"`        // ADDRESS/BITS, sorted; without link-local IPv6
}

// A Route is a route, as `ip route` writes it without what changes by itself.
type Route struct {
	Family int    `json:"family"` // 4 or 6
	Text   string `json:"text"`
}

// DNS is how names are resolved.
type DNS struct {
	Servers []string `json:"servers"` // in their order
	Search  []string `json:"search"`
	Options []string `json:"options"`
	Hosts   []string `json:"hosts"` // lines of /etc/hosts, single blanks
	Switch  string   `json:"switch,omitempty"`
}

// A Rule is a rule or a policy of the packet filter, without counters. Chains
// that Docker, Kubernetes and fail2ban write themselves are not among them.
type Rule struct {
	Tool  string `json:"tool"` // iptables, ip6tables, nft
	Table string `json:"table"`
	Text  string `json:"text"`
}

// A Listener is a socket that accepts traffic from elsewhere.
type Listener struct {
	Proto     string `json:"proto"` // tcp or udp
	Addr      string `json:"addr"`  // 0.0.0.0 and :: mean every address
	Port      int    `json:"port"`
	Ephemeral bool   `json:"ephemeral,omitempty"` // the kernel chose the port, as far as its range tells
	UID       int    `json:"uid"`
	PID       int    `json:"pid,omitempty"`     // 0 = not known or not permitted to know
	Process   string `json:"process,omitempty"` // name of that process

	inode string
}

// A Peer is who has established TCP connections with the host, counted.
type Peer struct {
	Direction string `json:"direction"`         // in or out
	Process   string `json:"process,omitempty"` // name of the process of this side; "" = not known
	LocalPort int    `json:"local_port,omitempty"`
	IP        string `json:"ip"`
	Port      int    `json:"port,omitempty"` // of the other side, for out
	Count     int    `json:"count"`
}

// A Process is a process that is no kernel thread.
type Process struct {
	PID         int       `json:"pid"`
	PPID        int       `json:"ppid"`
	Name        string    `json:"name"`          // as the kernel has it, 15 bytes
	Program     string    `json:"program"`       // base name of the program; of a script, interpreter and script
	Exe         string    `json:"exe,omitempty"` // "" = not permitted to know
	Cwd         string    `json:"cwd,omitempty"` // likewise
	User        string    `json:"user"`
	Started     time.Time `json:"started"`             // by the host's clock
	Unit        string    `json:"unit,omitempty"`      // systemd service it runs in
	Container   string    `json:"container,omitempty"` // ID of the container it runs in
	Environment []string  `json:"environment"`         // names of variables, sorted; values never leave the host
	Lasting     bool      `json:"lasting"`             // a daemon that had run for five minutes

	args []string
	uid  string
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
	Container string   `json:"container,omitempty"`  // ID of the container it runs in
	Unit      string   `json:"unit,omitempty"`       // systemd service it runs in
	Ports     []int    `json:"ports"`                // TCP ports it listens on, sorted
}

// An Agent is a program that must not run twice under one identity: see it
// stopped on a clone.
type Agent struct {
	Name     string `json:"name"`
	Evidence string `json:"evidence"` // the process or unit it was known by
	Why      string `json:"why"`
}

// Docker is the container engine.
type Docker struct {
	Version       string `json:"version,omitempty"` // of the daemon
	StorageDriver string `json:"storage_driver,omitempty"`
	LogDriver     string `json:"log_driver,omitempty"`
	CgroupDriver  string `json:"cgroup_driver,omitempty"`
	RootDir       string `json:"root_dir,omitempty"`
	LiveRestore   bool   `json:"live_restore,omitempty"`
	DaemonJSON    string `json:"daemon_json_sha256,omitempty"` // of /etc/docker/daemon.json; "" = there is none
}

// A Container is a Docker container, running or not.
type Container struct {
	ID            string   `json:"id"`
	Name          string   `json:"name"` // without the leading slash
	Image         string   `json:"image"`
	ImageID       string   `json:"image_id"`
	Digests       []string `json:"digests"` // of the image in its registries, sorted
	State         string   `json:"state"`   // running, exited, …
	ExitCode      int      `json:"exit_code"`
	Health        string   `json:"health,omitempty"`
	RestartPolicy string   `json:"restart_policy"`
	Compose       Compose  `json:"compose"`
	Ports         []Port   `json:"ports"`         // published
	Volumes       []Volume `json:"volumes"`       // what is mounted into it
	Networks      []string `json:"networks"`      // names, sorted
	Environment   []string `json:"environment"`   // names of variables, sorted; values never leave the host
	PID           int      `json:"pid,omitempty"` // of its first process; 0 = it does not run
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

// A Volume is what is mounted into a container.
type Volume struct {
	Type     string `json:"type"`             // bind, volume or tmpfs
	Source   string `json:"source,omitempty"` // path, or name of the volume; "" for one without a name
	Target   string `json:"target"`
	ReadOnly bool   `json:"read_only,omitempty"`
}

// A Unit is a systemd service or timer.
type Unit struct {
	Name    string `json:"name"`
	Load    string `json:"load,omitempty"`
	Active  string `json:"active,omitempty"`  // active, inactive, failed, …; empty = not loaded
	Sub     string `json:"sub,omitempty"`     // running, exited, dead, …
	Enabled string `json:"enabled,omitempty"` // enabled, disabled, static, …; empty = no unit file
	SHA256  string `json:"sha256,omitempty"`  // of its own files under /etc/systemd/system together
}

// A Program is a program that supervisord keeps running.
type Program struct {
	Name     string   `json:"name"`            // as supervisorctl names it: GROUP:NAME, or NAME
	State    string   `json:"state,omitempty"` // RUNNING, STOPPED, …; "" = supervisorctl did not say
	Source   string   `json:"source,omitempty"`
	Settings []string `json:"settings"` // command, user, directory and the like, with secrets replaced
}

// A Line is a line of a file that is no comment.
type Line struct {
	Source string `json:"source"`
	Text   string `json:"text"` // single blanks, secrets replaced
}

// Sysctl are the kernel's settings.
type Sysctl struct {
	Runtime    map[string]string `json:"runtime"`    // without those that change by themselves or belong to one interface
	Configured map[string]string `json:"configured"` // by the files of sysctl, the last one wins
}

// Security says what of mandatory access control is on.
type Security struct {
	SELinux           string   `json:"selinux,omitempty"`            // enforcing, permissive; "" = off
	SELinuxConfigured string   `json:"selinux_configured,omitempty"` // what the next boot brings
	AppArmor          bool     `json:"apparmor"`
	Profiles          []string `json:"profiles"` // of AppArmor, "NAME (MODE)", sorted
}

// A User is an account of the host.
type User struct {
	Name  string `json:"name"`
	UID   int    `json:"uid"`
	GID   int    `json:"gid"`
	Home  string `json:"home"`
	Shell string `json:"shell"`
}

// A Group is a group of the host.
type Group struct {
	Name    string   `json:"name"`
	GID     int      `json:"gid"`
	Members []string `json:"members"` // sorted
}

// A File is a file by its content.
type File struct {
	Path   string `json:"path"`
	SHA256 string `json:"sha256"`
	Mode   string `json:"mode,omitempty"` // with owner, as "-rw------- root root"
}

// SSHFiles is who may log in, and what the host shows to those who do.
type SSHFiles struct {
	Files    []File `json:"files"`     // of root's .ssh, and sshd_config; private keys by digest alone
	Keys     []Key  `json:"keys"`      // root's authorized_keys and public keys
	HostKeys []Key  `json:"host_keys"` //
}

// A Key is a public key.
type Key struct {
	Path        string `json:"path"`
	Type        string `json:"type"`
	Fingerprint string `json:"fingerprint"` // SHA256:…, as ssh-keygen -l gives
	Comment     string `json:"comment,omitempty"`
}

// Time is where the host has its time from.
type Time struct {
	Zone    string   `json:"zone,omitempty"`
	Daemons []string `json:"daemons"`          // chronyd, ntpd, systemd-timesyncd: those that run
	Servers []Line   `json:"servers"`          // server, pool, peer and NTP= lines
	Synced  string   `json:"synced,omitempty"` // yes, no; "" = nobody says
}

// Nginx is the web server.
type Nginx struct {
	Version string   `json:"version,omitempty"`
	Conf    string   `json:"conf,omitempty"` // the configuration file it was built for
	Running []string `json:"running"`        // configuration files of the masters that run, sorted
}
