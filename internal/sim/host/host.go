package host

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

const (
	defaultRelease = "CentOS Linux release 7.5.1804 (Core) "
	defaultKernel  = "3.10.0-862.9.1.el7.x86_64"
	hostKeyFile    = "/etc/ssh/ssh_host_ed25519_key"
)

// A Host is one simulated machine. All methods are safe for concurrent use.
type Host struct {
	// Forward is how this host reaches others (direct-tcpip channels of its SSH
	// server). Set it before the first ServeSSH; nil refuses.
	Forward func(ctx context.Context, addr string) (net.Conn, error)

	spec        Spec
	o           Options
	tree        *tree
	commands    map[string]Command
	failing     map[int]*failing   // by port
	intercepted map[string]Command // guarded by mu
	panics      bool               // kernels panic at boot
	hung        bool               // one did
	power       power              // one change of power at a time
	async       sync.WaitGroup     // what outlives a boot: reboots asked for from inside, signals
	dock        *docker
	pk          *packages
	started     []Unit // units that ran when the host was looked at first

	// mu is a leaf: no other lock is taken and nothing of the tree is called
	// while it is held.
	mu        sync.Mutex
	boot      *boot
	closed    bool
	fresh     bool // never booted: the first boot takes no time
	looking   bool // in that first boot
	kernel    string
	bootID    string
	bootTime  time.Time
	booting   bool // units are still being started
	procs     map[int]*process
	exits     map[int]int // status of processes that ended, in this boot
	lastPID   int
	services  map[int]*service
	conns     map[*tracked]struct{}
	lastInode int
	transient map[string]*transient
	sshConns  map[net.Conn]struct{}
	refused   []string
	super     *supervisor // nil: none runs
}

// New makes a host, powered off.
func New(spec Spec, o Options) (*Host, error) {
	h := newHost(spec, o)
	h.fresh = true
	h.tree = newTree()
	if h.spec.Release == "" {
		h.spec.Release = defaultRelease
	}
	if h.spec.Kernel == "" {
		h.spec.Kernel = defaultKernel
	}
	h.install()
	for _, name := range slices.Sorted(maps.Keys(spec.Files)) {
		if err := h.place(name, spec.Files[name]); err != nil {
			return nil, fmt.Errorf("cannot make host %s: %w", spec.Name, err)
		}
	}
	h.pk = newPackages(h.spec)
	if err := h.pk.add(spec.Packages); err != nil {
		return nil, fmt.Errorf("cannot make host %s: %w", spec.Name, err)
	}
	h.dock = newDocker(h)
	if len(spec.Containers) > 0 || len(spec.Compose) > 0 || slices.ContainsFunc(spec.Units, func(u Unit) bool { return unitName(u.Name) == "docker.service" }) {
		h.pk.addOldDocker()
		h.installDocker()
		h.enableUnit("docker.service", true)
	}
	for _, u := range spec.Units {
		h.placeUnit(u)
		if u.Active {
			h.started = append(h.started, u)
		}
	}
	for _, c := range spec.Containers {
		if _, err := h.dock.create(c, !c.Stopped); err != nil {
			return nil, fmt.Errorf("cannot make host %s: %w", spec.Name, err)
		}
	}
	for _, dir := range spec.Compose {
		if err := h.dock.composeCreate(dir); err != nil {
			return nil, fmt.Errorf("cannot make host %s: %w", spec.Name, err)
		}
	}
	if err := h.newHostKeys(); err != nil {
		return nil, err
	}
	h.pk.setBootKernel(h.spec.Kernel)
	return h, nil
}

func newHost(spec Spec, o Options) *Host {
	if o.Speed <= 0 {
		o.Speed = 1
	}
	if o.BootTakes == 0 {
		o.BootTakes = 20 * time.Second
	}
	if o.Listen == nil {
		o.Listen = func() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") }
	}
	if spec.Hostname == "" {
		spec.Hostname = spec.Name
	}
	return &Host{
		spec: spec, o: o, commands: programs(spec.Commands),
		procs: map[int]*process{}, exits: map[int]int{}, services: map[int]*service{},
		conns: map[*tracked]struct{}{}, lastInode: firstInode,
		transient: map[string]*transient{}, sshConns: map[net.Conn]struct{}{}, power: make(power, 1),
	}
}

// place puts a file of the Spec into the tree.
func (h *Host) place(name string, f File) error {
	root := cred{}
	h.tree.mkdirAll(path.Dir(clean(name)), 0o755)
	perm := f.Mode &^ fs.ModeDir
	switch {
	case f.Link != "":
		return h.tree.symlink(root, f.Link, name)
	case f.Mode.IsDir():
		if perm == 0 {
			perm = 0o755
		}
		h.tree.mkdirAll(name, perm)
	default:
		if perm == 0 {
			perm = 0o644
		}
		if err := h.tree.writeFile(root, name, f.Data, oCreate|oTrunc, perm); err != nil {
			return err
		}
	}
	if err := h.tree.chmod(root, name, perm); err != nil {
		return err
	}
	return h.tree.chown(root, name, f.UID, f.GID)
}

// Restore puts the content of a disk back on a host that is off. Unlike
// FromDisk it changes nothing of it: the host comes back as the one it was.
func (h *Host) Restore(d *Disk) error {
	h.power.Lock()
	defer h.power.Unlock()
	if h.Up() {
		return fmt.Errorf("cannot restore the disk of %s: the host runs", h.Name())
	}
	h.tree = &tree{root: d.root.clone()}
	h.pk = d.packs.clone()
	h.dock = newDocker(h)
	h.dock.thaw(d.dock)
	return nil
}

// FirstBoot does to the disk of another host what cloud-init does when it first
// meets this one: it notes the instance and makes new SSH host keys. The host
// name stays, as on hosts that preserve it. The host is off.
func (h *Host) FirstBoot() error {
	if err := h.WriteFile("/var/lib/cloud/data/instance-id", []byte(h.spec.Name+"\n"), 0o644); err != nil {
		return err
	}
	return h.newHostKeys()
}

// Age makes everything on the disk as old as if it had been there for d.
func (h *Host) Age(d time.Duration) { h.tree.age(time.Now().Add(-d)) }

// power is a lock that is held while a host boots or its processes end. It is
// a channel because waiting for a mutex stops virtual time (testing/synctest).
type power chan struct{}

func (p power) Lock()   { p <- struct{}{} }
func (p power) Unlock() { <-p }

// newHostKeys gives the host SSH host keys of its own.
func (h *Host) newHostKeys() error {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("cannot make a host key for %s: %w", h.Name(), err)
	}
	block, err := ssh.MarshalPrivateKey(key, "root@"+h.spec.Hostname)
	if err != nil {
		return fmt.Errorf("cannot make a host key for %s: %w", h.Name(), err)
	}
	sshPub, err := ssh.NewPublicKey(pub)
	if err != nil {
		return fmt.Errorf("cannot make a host key for %s: %w", h.Name(), err)
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(sshPub))) + " root@" + h.spec.Hostname + "\n"
	h.tree.mkdirAll("/etc/ssh", 0o755)
	if err := h.tree.writeFile(cred{}, hostKeyFile, pem.EncodeToMemory(block), oCreate|oTrunc, 0o600); err != nil {
		return err
	}
	return h.tree.writeFile(cred{}, hostKeyFile+".pub", []byte(line), oCreate|oTrunc, 0o644)
}

// scale turns a duration of the world into one of this machine.
func (h *Host) scale(d time.Duration) time.Duration {
	return time.Duration(float64(d) / h.o.Speed)
}

// sleep waits a duration of the world.
func (h *Host) sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(h.scale(d))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (h *Host) changed() {
	if h.o.Network != nil {
		h.o.Network.Changed(h)
	}
}

// Start switches the host on and returns when it has booted, which takes
// BootTakes. On a host that runs it does nothing.
func (h *Host) Start() error {
	h.power.Lock()
	defer h.power.Unlock()
	return h.start()
}

func (h *Host) start() error {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return fmt.Errorf("cannot start %s: the host is gone", h.Name())
	}
	if h.boot != nil {
		h.mu.Unlock()
		return nil
	}
	fresh := h.fresh
	if h.panics {
		h.hung = true
		h.mu.Unlock()
		return nil
	}
	h.mu.Unlock()
	if !fresh {
		t := time.NewTimer(h.scale(h.o.BootTakes))
		<-t.C
	}
	h.bootTree()
	kernel := h.pk.nextKernel()
	b := &boot{}
	b.ctx, b.cancel = context.WithCancelCause(context.Background())
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return fmt.Errorf("cannot start %s: the host is gone", h.Name())
	}
	h.fresh, h.looking = false, fresh
	h.kernel = kernel
	h.bootID = newUUID()
	h.bootTime = time.Now()
	h.booting = true
	h.lastPID = 0
	clear(h.procs)
	clear(h.exits)
	clear(h.conns)
	clear(h.transient)
	b.wg.Add(1) // for the rest of this function
	h.boot = b
	h.mu.Unlock()
	defer b.wg.Done()
	if h.o.Boot != nil {
		h.o.Boot(h)
	}
	h.bootProcesses(b)
	for _, u := range h.enabledUnits() {
		_ = h.startUnit(b, u) // a unit that does not start is failed, as in life
	}
	h.cloudInit(b)
	if fresh {
		h.firstLook(b)
		h.mu.Lock()
		h.looking = false
		h.mu.Unlock()
	}
	h.mu.Lock()
	h.booting = false
	h.mu.Unlock()
	h.changed()
	return nil
}

// bootTree prepares the volatile parts of the tree.
func (h *Host) bootTree() {
	root := cred{}
	_ = h.tree.removeAll(root, "/run") // missing at the first boot
	for _, dir := range []string{"/run/systemd/system", "/run/lock", "/tmp"} {
		h.tree.mkdirAll(dir, 0o755)
	}
	_ = h.tree.chmod(root, "/tmp", 0o777|fs.ModeSticky) // it exists
	h.mountProc()
}

// bootProcesses starts what runs on every host.
func (h *Host) bootProcesses(b *boot) {
	h.fork(b, b.ctx, &process{title: "/usr/lib/systemd/systemd --switched-root --system --deserialize 22", args: []string{"systemd"}, exe: "/usr/lib/systemd/systemd", ext: true})
	h.fork(b, b.ctx, &process{args: nil, title: "", ext: true}) // kthreadd: no command line
	h.mu.Lock()
	h.lastPID = 400
	h.mu.Unlock()
}

// firstLook starts what the Spec says ran when the world began.
func (h *Host) firstLook(b *boot) {
	for _, u := range h.started {
		_ = h.startUnit(b, unitName(u.Name)) // seen as failed
	}
	h.dock.firstLook()
	for _, d := range h.spec.Processes {
		if len(d.Ports) == 0 {
			d.Ports = javaPorts(d.Args)
		}
		if _, err := h.spawn(b, d, 0); err != nil {
			h.refuse("start of a process of the spec", err.Error())
		}
	}
}

// PanicAtBoot makes the kernels of all boots to come panic before anything
// runs: the host is on, and nothing of it answers.
func (h *Host) PanicAtBoot(on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.panics, h.hung = on, h.hung && on
}

// Hung reports whether the host is on and its kernel has panicked.
func (h *Host) Hung() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.hung
}

// Stop shuts the host down as an operating system does (processes get SIGTERM
// and finish their requests, up to a bound) and returns when it is off. On a
// host that is off it does nothing.
func (h *Host) Stop() error {
	h.power.Lock()
	defer h.power.Unlock()
	h.stop(true)
	return nil
}

func (h *Host) stop(gently bool) {
	h.mu.Lock()
	b := h.boot
	if b == nil {
		h.mu.Unlock()
		return
	}
	b.over = true // nothing starts from here on
	procs := slices.Collect(maps.Values(h.procs))
	h.mu.Unlock()
	if gently {
		h.changed()
		var wg sync.WaitGroup
		for _, p := range procs {
			wg.Go(p.drain)
		}
		wg.Wait()
	}
	b.cancel(errPowerCut)
	h.mu.Lock()
	conns := slices.Collect(maps.Keys(h.sshConns))
	procs = slices.Collect(maps.Values(h.procs))
	h.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
	for _, p := range procs {
		if p.ext {
			p.end(137)
		}
	}
	b.wg.Wait()
	h.mu.Lock()
	left := slices.Collect(maps.Values(h.procs))
	h.mu.Unlock()
	for _, p := range left {
		p.end(137)
	}
	h.dock.powerOff()
	h.mu.Lock()
	h.boot = nil
	h.mu.Unlock()
	h.changed()
}

// Reboot is Stop and Start in one. Every connection drops, the boot id
// changes, and a kernel that was installed runs afterwards.
func (h *Host) Reboot() error {
	h.power.Lock()
	defer h.power.Unlock()
	h.stop(true)
	return h.start()
}

// Close cuts the power for good and waits for everything the host runs. It
// waits for a boot that is under way.
func (h *Host) Close() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.power.Lock()
	h.stop(false)
	h.power.Unlock()
	h.async.Wait()
}

// Up reports whether the host runs.
func (h *Host) Up() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.boot != nil && !h.boot.over
}

// Name returns the name given in the Spec.
func (h *Host) Name() string { return h.spec.Name }

// Addr returns the private address given in the Spec.
func (h *Host) Addr() string { return h.spec.Addr }

// Kernel returns the release of the running kernel, or of the last one.
func (h *Host) Kernel() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.kernel
}

// BootID returns the id of the current boot, or of the last one.
func (h *Host) BootID() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.bootID
}

// HostKey returns the public SSH host key, "ssh-ed25519 AAAA…", without
// comment.
func (h *Host) HostKey() string {
	data, err := h.tree.readFile(cred{}, hostKeyFile+".pub")
	if err != nil {
		return ""
	}
	f := strings.Fields(string(data))
	if len(f) < 2 {
		return ""
	}
	return f[0] + " " + f[1]
}

// Refused returns the commands and flags that were asked for and that this
// simulator does not know, in order.
func (h *Host) Refused() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.refused)
}

func (h *Host) refuse(what, why string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refused = append(h.refused, what+": "+why)
}

// ReadFile reads a file of the tree as root.
func (h *Host) ReadFile(name string) ([]byte, error) { return h.tree.readFile(cred{}, name) }

// WriteFile creates or replaces a file of the tree as root; missing parents
// are made.
func (h *Host) WriteFile(name string, data []byte, perm fs.FileMode) error {
	h.tree.mkdirAll(path.Dir(clean(name)), 0o755)
	return h.tree.writeFile(cred{}, name, data, oCreate|oTrunc, perm)
}

// ReadDir lists a directory of the tree, sorted by name.
func (h *Host) ReadDir(name string) ([]fs.DirEntry, error) { return h.tree.readDir(cred{}, name) }

// Stat describes a file of the tree, following symbolic links.
func (h *Host) Stat(name string) (fs.FileInfo, error) {
	i, err := h.tree.stat(cred{}, name, true)
	if err != nil {
		return nil, err
	}
	return i, nil
}

func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// A Disk is the content of a host's disks at one moment, as after a power
// cut. It never changes.
type Disk struct {
	spec  Spec
	root  *node
	dock  *dockerDisk
	packs *packages
}

// Freeze copies the disks as they are now, whatever runs.
func (h *Host) Freeze() *Disk {
	h.mu.Lock()
	d := &Disk{spec: h.spec}
	h.mu.Unlock()
	d.dock, d.packs = h.dock.freeze(), h.pk.clone()
	h.tree.mu.RLock()
	defer h.tree.mu.RUnlock()
	root := *h.tree.root
	root.kids = map[string]*node{}
	for name, kid := range h.tree.root.kids {
		if name != "proc" && name != "run" {
			root.kids[name] = kid.clone()
		}
	}
	d.root = &root
	return d
}

// FromDisk makes a host, powered off, from a disk. Of spec, the fields Name,
// Addr, Hostname, Commands are used; the rest is on the disk. It gets SSH host
// keys, host name and address of its own, as cloud images do, and keeps the
// machine ID.
func FromDisk(d *Disk, spec Spec, o Options) (*Host, error) {
	if d == nil {
		return nil, errors.New("cannot make a host: no disk")
	}
	if spec.Hostname == "" {
		spec.Hostname = spec.Name
	}
	spec.Release, spec.Kernel = d.spec.Release, d.spec.Kernel
	spec.UpdateRelease, spec.UpdateKernel = d.spec.UpdateRelease, d.spec.UpdateKernel
	if spec.Commands == nil {
		spec.Commands = d.spec.Commands
	}
	h := newHost(spec, o)
	h.tree = &tree{root: d.root.clone()}
	h.pk = d.packs.clone()
	h.dock = newDocker(h)
	h.dock.thaw(d.dock)
	for name, data := range map[string]string{
		"/etc/hostname":                   spec.Hostname + "\n",
		"/var/lib/cloud/data/instance-id": spec.Name + "\n",
	} {
		if err := h.WriteFile(name, []byte(data), 0o644); err != nil {
			return nil, fmt.Errorf("cannot make host %s from a disk: %w", spec.Name, err)
		}
	}
	if err := h.newHostKeys(); err != nil {
		return nil, err
	}
	return h, nil
}
