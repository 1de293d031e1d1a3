package host

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"
)

// What yum takes, at Speed 1.
const (
	updateTakes  = 60 * time.Second
	installTakes = 15 * time.Second
	removeTakes  = 8 * time.Second

	transactionFile = "/var/lib/yum/transaction-all.simulated"
)

// rpmPackage is an installed package.
type rpmPackage struct{ name, version, release, arch string }

func (r rpmPackage) String() string {
	return r.name + "-" + r.version + "-" + r.release + "." + r.arch
}

// parsePackage splits name-version-release.arch.
func parsePackage(s string) (rpmPackage, error) {
	dot := strings.LastIndexByte(s, '.')
	if dot > 0 {
		if f := strings.Split(s[:dot], "-"); len(f) >= 3 {
			n := len(f)
			return rpmPackage{strings.Join(f[:n-2], "-"), f[n-2], f[n-1], s[dot+1:]}, nil
		}
	}
	return rpmPackage{}, fmt.Errorf("package %q is not name-version-release.arch", s)
}

// packages is the package database.
type packages struct {
	busy sync.Mutex // yum's lock

	mu         sync.Mutex
	list       []rpmPackage
	bootKernel string // what the boot loader starts next
}

var (
	oldDocker = []rpmPackage{
		{"docker", "1.13.1", "75.git8633870.el7.centos", "x86_64"},
		{"docker-client", "1.13.1", "75.git8633870.el7.centos", "x86_64"},
		{"docker-common", "1.13.1", "75.git8633870.el7.centos", "x86_64"},
	}
	newDockerPackages = []rpmPackage{
		{"docker-ce", "20.10.24", "3.el7", "x86_64"},
		{"docker-ce-cli", "20.10.24", "3.el7", "x86_64"},
		{"containerd.io", "1.6.20", "3.1.el7", "x86_64"},
	}
)

func newPackages(s Spec) *packages {
	k := &packages{}
	k.put(kernelPackage(s.Kernel), releasePackage(s.Release))
	k.put(
		rpmPackage{"bash", "4.2.46", "30.el7", "x86_64"},
		rpmPackage{"coreutils", "8.22", "21.el7", "x86_64"},
		rpmPackage{"openssh-server", "7.4p1", "16.el7", "x86_64"},
		rpmPackage{"systemd", "219", "57.el7", "x86_64"},
		rpmPackage{"yum", "3.4.3", "158.el7.centos", "noarch"},
	)
	return k
}

func kernelPackage(release string) rpmPackage {
	arch := "x86_64"
	release = strings.TrimSuffix(release, ".x86_64")
	version, rest, _ := strings.Cut(release, "-")
	return rpmPackage{"kernel", version, rest, arch}
}

// releasePackage is centos-release for a line of redhat-release, "… 7.5.1804 (Core)".
func releasePackage(line string) rpmPackage {
	for f := range strings.FieldsSeq(line) {
		if f[0] >= '0' && f[0] <= '9' {
			major, rest, _ := strings.Cut(f, ".")
			return rpmPackage{"centos-release", major, rest + ".el" + major + ".centos", "x86_64"}
		}
	}
	return rpmPackage{"centos-release", "7", "0.el7.centos", "x86_64"}
}

// put installs packages; all but kernels replace an older one.
func (k *packages) put(more ...rpmPackage) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, m := range more {
		k.list = slices.DeleteFunc(k.list, func(r rpmPackage) bool { return r.name == m.name && (m.name != "kernel" || r == m) })
		k.list = append(k.list, m)
	}
	slices.SortFunc(k.list, func(a, b rpmPackage) int { return strings.Compare(a.String(), b.String()) })
}

func (k *packages) add(names []string) error {
	for _, s := range names {
		r, err := parsePackage(s)
		if err != nil {
			return err
		}
		k.put(r)
	}
	return nil
}

func (k *packages) addOldDocker() { k.put(oldDocker...) }

func (k *packages) drop(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.list = slices.DeleteFunc(k.list, func(r rpmPackage) bool { return r.name == name })
}

func (k *packages) all() []rpmPackage {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.list)
}

func (k *packages) find(name string) []rpmPackage {
	return slices.DeleteFunc(k.all(), func(r rpmPackage) bool { return r.name != name && r.String() != name })
}

func (k *packages) clone() *packages {
	k.mu.Lock()
	defer k.mu.Unlock()
	return &packages{list: slices.Clone(k.list), bootKernel: k.bootKernel}
}

func (k *packages) setBootKernel(release string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.bootKernel = release
}

func (k *packages) nextKernel() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.bootKernel
}

func cmdRpm(_ context.Context, p *Proc) int {
	f, ok := p.flags("-q", "-a", "--qf=")
	if !ok {
		return statusUnknownFlag
	}
	if !f.is["-q"] || f.is["-a"] == (len(f.rest) > 0) {
		return p.refusef("only rpm -qa and rpm -q PACKAGE")
	}
	format, has := f.val["--qf"]
	if !has {
		format = "%{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}\\n"
	}
	status := 0
	list := p.Host.pk.all()
	if !f.is["-a"] {
		list = nil
		for _, name := range f.rest {
			found := p.Host.pk.find(name)
			if len(found) == 0 {
				fmt.Fprintf(p.Stdout, "package %s is not installed\n", name)
				status = 1
			}
			list = append(list, found...)
		}
	}
	for _, r := range list {
		line := strings.NewReplacer("%{NAME}", r.name, "%{VERSION}", r.version, "%{RELEASE}", r.release, "%{ARCH}", r.arch,
			"%{EPOCH}", "(none)", "%{EPOCHNUM}", "0", "\\n", "\n", "\\t", "\t").Replace(format)
		if strings.Contains(line, "%{") {
			return p.refusef("query format %s", format)
		}
		fmt.Fprint(p.Stdout, line)
	}
	return status
}

func cmdYum(ctx context.Context, p *Proc) int {
	f, ok := p.flags("-y")
	if !ok {
		return statusUnknownFlag
	}
	if len(f.rest) == 0 {
		return p.refusef("no command")
	}
	if p.p.cred.uid != 0 {
		fmt.Fprintln(p.Stderr, "You need to be root to perform this command.")
		return 1
	}
	verb, names := f.rest[0], f.rest[1:]
	if !f.is["-y"] && verb != "makecache" {
		return p.refusef("yum %s without -y would ask", verb)
	}
	if !p.Host.pk.busy.TryLock() {
		fmt.Fprintln(p.Stderr, "Existing lock /var/run/yum.pid: another copy is running.")
		return 1
	}
	defer p.Host.pk.busy.Unlock()
	fmt.Fprintln(p.Stdout, "Loaded plugins: fastestmirror")
	if _, err := p.tree().stat(cred{}, transactionFile, true); err == nil && verb != "makecache" {
		fmt.Fprintln(p.Stderr, "There are unfinished transactions remaining. You might consider running yum-complete-transaction, or \"yum-complete-transaction --cleanup-only\" and \"yum history redo last\", first to finish them.")
	}
	y := &yum{p: p, ctx: ctx}
	switch verb {
	case "makecache":
		if !y.wait(2 * time.Second) {
			return 143
		}
		fmt.Fprintln(p.Stdout, "Metadata Cache Created")
		return 0
	case "update":
		if len(names) > 0 {
			return p.refusef("yum update of single packages")
		}
		return y.update()
	case "install":
		return y.install(names)
	case "remove":
		return y.remove(names)
	}
	return p.refusef("yum %s", verb)
}

// yum is one run of yum.
type yum struct {
	p   *Proc
	ctx context.Context
}

func (y *yum) wait(d time.Duration) bool { return y.p.Host.sleep(y.ctx, d) == nil }

// transaction runs steps that take d in all. A yum that is killed in between
// leaves the transaction open, with what is done done.
func (y *yum) transaction(d time.Duration, steps ...func()) int {
	h := y.p.Host
	if !y.wait(d / 3) { // download: nothing has happened yet
		return 143
	}
	fmt.Fprintln(y.p.Stdout, "Running transaction")
	_ = h.WriteFile(transactionFile, []byte("open\n"), 0o644) // as root on our tree
	for _, step := range steps {
		if !y.wait(d * 2 / 3 / time.Duration(len(steps))) {
			return 143
		}
		step()
	}
	_ = h.tree.remove(cred{}, transactionFile, false)
	fmt.Fprintln(y.p.Stdout, "Complete!")
	return 0
}

func (y *yum) update() int {
	h := y.p.Host
	release, kernel := h.update()
	current, _ := h.ReadFile("/etc/redhat-release")
	newRelease := release != "" && strings.TrimSpace(string(current)) != strings.TrimSpace(release)
	newKernel := kernel != "" && h.pk.nextKernel() != kernel
	if !newRelease && !newKernel {
		if !y.wait(2 * time.Second) {
			return 143
		}
		fmt.Fprintln(y.p.Stdout, "No packages marked for update")
		return 0
	}
	return y.transaction(updateTakes,
		func() {
			if newKernel {
				h.pk.put(kernelPackage(kernel))
				fmt.Fprintf(y.p.Stdout, "  Installing : %s\n", kernelPackage(kernel))
			}
		},
		func() {
			if newRelease {
				h.pk.put(releasePackage(release))
				_ = h.WriteFile("/etc/redhat-release", []byte(strings.TrimSuffix(release, "\n")+"\n"), 0o644)
				_ = h.WriteFile("/etc/os-release", []byte(osRelease(release)), 0o644)
				fmt.Fprintf(y.p.Stdout, "  Updating   : %s\n", releasePackage(release))
			}
		},
		func() {
			if newKernel { // its scriptlet makes the initramfs and the boot entry
				h.putKernel(kernel)
				h.pk.setBootKernel(kernel)
			}
		})
}

func (y *yum) install(names []string) int {
	h := y.p.Host
	if len(names) == 0 {
		return y.p.refusef("nothing to install")
	}
	todo := false
	for _, name := range names {
		_, err := h.tree.stat(cred{}, "/etc/yum.repos.d/docker-ce.repo", true)
		switch {
		case len(h.pk.find(name)) > 0:
			fmt.Fprintf(y.p.Stdout, "Package %s already installed and latest version\n", h.pk.find(name)[0])
		case name == "docker-ce" && err == nil && len(h.pk.find("docker-common")) > 0:
			fmt.Fprintln(y.p.Stderr, "Error: docker-ce conflicts with 2:docker-common-1.13.1")
			return 1
		case name == "docker-ce" && err == nil:
			todo = true
		default:
			if name != "docker-ce" {
				h.refuse("yum install "+name, "no such package in the simulator")
			}
			fmt.Fprintf(y.p.Stdout, "No package %s available.\n", name)
			fmt.Fprintln(y.p.Stderr, "Error: Nothing to do")
			return 1
		}
	}
	if !todo {
		fmt.Fprintln(y.p.Stdout, "Nothing to do")
		return 0
	}
	return y.transaction(installTakes,
		func() { h.pk.put(newDockerPackages[1:]...) },
		func() {
			h.pk.put(newDockerPackages[0])
			h.installDocker()
		})
}

func (y *yum) remove(names []string) int {
	h := y.p.Host
	var found []string
	for _, name := range names {
		if len(h.pk.find(name)) == 0 {
			fmt.Fprintf(y.p.Stdout, "No Match for argument: %s\n", name)
			continue
		}
		found = append(found, name)
	}
	if len(found) == 0 {
		fmt.Fprintln(y.p.Stdout, "No Packages marked for removal")
		return 0
	}
	var steps []func()
	for _, name := range found {
		switch name {
		case "docker", "docker-client", "docker-common", "docker-ce", "docker-ce-cli", "containerd.io":
		default:
			return y.p.refusef("removing %s", name)
		}
		steps = append(steps, func() {
			if name == "docker" || name == "docker-ce" {
				h.removeDocker()
			}
			h.pk.drop(name)
			fmt.Fprintf(y.p.Stdout, "  Erasing    : %s\n", name)
		})
	}
	return y.transaction(removeTakes, steps...)
}

var dockerPrograms = []string{"/usr/bin/docker", "/usr/bin/dockerd", "/usr/bin/docker-proxy"}

// installDocker puts the files of Docker's package in place.
func (h *Host) installDocker() {
	for _, name := range dockerPrograms {
		h.putProgram(name)
	}
	h.tree.mkdirAll("/etc/docker", 0o755)
	h.tree.mkdirAll("/var/lib/docker", 0o710)
	text := "[Unit]\nDescription=Docker Application Container Engine\n\n[Service]\nType=notify\nExecStart=/usr/bin/dockerd\n\n[Install]\nWantedBy=multi-user.target\n"
	_ = h.WriteFile(unitDir+"/docker.service", []byte(text), 0o644)
}

// removeDocker takes them away; containers and configuration stay.
func (h *Host) removeDocker() {
	if h.unitState("docker.service").active {
		h.stopUnit("docker.service")
	}
	h.enableUnit("docker.service", false)
	for _, name := range append([]string{unitDir + "/docker.service"}, dockerPrograms...) {
		if err := h.tree.remove(cred{}, name, false); err != nil && !isMissing(err) {
			h.refuse("remove "+name, err.Error())
		}
	}
}

func isMissing(err error) bool { return err != nil && errText(err) == errText(fs.ErrNotExist) }
