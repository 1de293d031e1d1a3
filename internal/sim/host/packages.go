package host

import (
	"context"
	"fmt"
	"io/fs"
	"path"
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

// AddPackages installs packages, "name-version-release.arch", as somebody else
// would.
func (h *Host) AddPackages(names ...string) error { return h.pk.add(names) }

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
	return slices.DeleteFunc(k.all(), func(r rpmPackage) bool { return !r.called(name) })
}

// called tells whether name is one of the ways to name r: with its version,
// release and architecture or without, and with its epoch, which is 0 here.
func (r rpmPackage) called(name string) bool {
	name = strings.Replace(name, r.name+"-0:", r.name+"-", 1)
	return slices.Contains([]string{r.name, r.name + "." + r.arch, r.name + "-" + r.version, r.name + "-" + r.version + "-" + r.release, r.String()}, name)
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
	f, ok := p.flags("-q", "-a", "-f", "--qf=", "-e", "--test")
	if !ok {
		return statusUnknownFlag
	}
	switch {
	case f.is["-e"] && f.is["--test"] && !f.is["-q"] && len(f.rest) > 0:
		return p.rpmTestErase(f.rest)
	case f.is["-f"] && f.is["-q"] && len(f.rest) == 1:
		owner := p.Host.ownerOf(p.abs(f.rest[0]))
		if owner == "" {
			fmt.Fprintf(p.Stdout, "file %s is not owned by any package\n", f.rest[0])
			return 1
		}
		f.rest[0] = owner
	case f.is["-f"] || f.is["-e"] || f.is["--test"]:
		return p.refusef("only -qf FILE and -e --test PACKAGE")
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

// cmdRpmdb is rpmdb --verifydb on a database that is in order.
func cmdRpmdb(_ context.Context, p *Proc) int {
	if f, ok := p.flags("--verifydb"); !ok || !f.is["--verifydb"] || len(f.rest) > 0 {
		return p.refusef("anything but rpmdb --verifydb")
	}
	return 0
}

// needs are what packages cannot be without.
var needs = map[string]string{"docker": "docker-common", "docker-client": "docker-common", "docker-ce": "docker-ce-cli"}

// rpmTestErase says what would be left without what it needs.
func (p *Proc) rpmTestErase(names []string) int {
	status := 0
	for _, name := range names {
		if len(p.Host.pk.find(name)) == 0 {
			fmt.Fprintf(p.Stderr, "error: package %s is not installed\n", name)
			status++
		}
	}
	if status > 0 {
		return status
	}
	for _, r := range p.Host.pk.all() {
		if slices.Contains(names, r.name) || !slices.Contains(names, needs[r.name]) && !slices.Contains(names, p.Host.spec.Needs[r.name]) {
			continue
		}
		if status == 0 {
			fmt.Fprintln(p.Stderr, "error: Failed dependencies:")
		}
		status++
		fmt.Fprintf(p.Stderr, "\tdocker is needed by (installed) %s\n", r)
	}
	return status
}

// ownerOf is the package a file came with.
func (h *Host) ownerOf(file string) string {
	if slices.Contains(dockerPrograms, file) {
		for _, name := range []string{"docker-ce-cli", "docker-client", "docker"} {
			if len(h.pk.find(name)) > 0 {
				return name
			}
		}
	}
	return ""
}

func cmdYum(ctx context.Context, p *Proc) int {
	f, ok := p.flags("-y", "-q", "--assumeno", "--security", "--setopt=")
	if !ok {
		return statusUnknownFlag
	}
	if v, has := f.val["--setopt"]; has && v != "clean_requirements_on_remove=0" {
		return p.refusef("--setopt=%s", v)
	}
	if len(f.rest) == 0 {
		return p.refusef("no command")
	}
	if p.p.cred.uid != 0 {
		fmt.Fprintln(p.Stderr, "You need to be root to perform this command.")
		return 1
	}
	verb, names := f.rest[0], f.rest[1:]
	if f.is["--security"] && (verb != "update" || len(names) > 0) {
		return p.refusef("--security but for update")
	}
	if verb == "list" {
		return p.yumList(f.is["-q"], names)
	}
	if f.is["-q"] {
		return p.refusef("-q with %s", verb)
	}
	if f.is["-y"] == f.is["--assumeno"] && verb != "makecache" && verb != "clean" {
		return p.refusef("yum %s without -y would ask", verb)
	}
	if !p.Host.pk.busy.TryLock() {
		fmt.Fprintln(p.Stderr, "Existing lock /var/run/yum.pid: another copy is running.")
		return 1
	}
	defer p.Host.pk.busy.Unlock()
	fmt.Fprintln(p.Stdout, "Loaded plugins: fastestmirror")
	if _, err := p.tree().stat(cred{}, transactionFile, true); err == nil && verb != "makecache" && verb != "clean" {
		fmt.Fprintln(p.Stderr, "There are unfinished transactions remaining. You might consider running yum-complete-transaction, or \"yum-complete-transaction --cleanup-only\" and \"yum history redo last\", first to finish them.")
	}
	y := &yum{p: p, ctx: ctx, ask: f.is["--assumeno"]}
	switch verb {
	case "makecache":
		if !y.wait(2 * time.Second) {
			return 143
		}
		fmt.Fprintln(p.Stdout, "Metadata Cache Created")
		return 0
	case "clean":
		if len(names) != 1 || names[0] != "expire-cache" {
			return p.refusef("yum clean %s", strings.Join(names, " "))
		}
		fmt.Fprintln(p.Stdout, "Cleaning repos: base")
		return 0
	case "update":
		if len(names) > 0 && !slices.Equal(names, []string{"kernel"}) {
			return p.refusef("yum update of single packages but the kernel")
		}
		if f.is["--security"] { // repositories of CentOS have no updateinfo
			fmt.Fprintf(p.Stdout, "No packages needed for security; %d packages available\n", len(y.offered()))
			return 0
		}
		return y.update(len(names) > 0)
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
	ask bool // show the transaction only
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

// offered is what the repositories have that is newer than what is installed,
// but for what /etc/yum.conf excludes.
func (y *yum) offered() (out []rpmPackage) {
	h := y.p.Host
	release, kernel := h.update()
	current, _ := h.ReadFile("/etc/redhat-release")
	if kernel != "" && len(h.pk.find(kernelPackage(kernel).String())) == 0 && !y.excluded("kernel") {
		out = append(out, kernelPackage(kernel))
	}
	if release != "" && strings.TrimSpace(string(current)) != strings.TrimSpace(release) && !y.excluded("centos-release") {
		out = append(out, releasePackage(release))
	}
	return out
}

func (y *yum) excluded(name string) bool {
	conf, _ := y.p.Host.ReadFile("/etc/yum.conf") // some hosts have none
	for line := range strings.Lines(string(conf)) {
		list, ok := strings.CutPrefix(strings.TrimSpace(line), "exclude=")
		for pattern := range strings.FieldsFuncSeq(list, func(r rune) bool { return r == ' ' || r == ',' }) {
			if hit, err := path.Match(pattern, name); ok && (hit || err != nil) {
				return true
			}
		}
	}
	return false
}

// show prints the table of a transaction and declines it, as --assumeno does.
func (y *yum) show(list []rpmPackage) int {
	if !y.wait(2 * time.Second) {
		return 143
	}
	rule := strings.Repeat("=", 80)
	fmt.Fprintf(y.p.Stdout, "\nDependencies Resolved\n\n%s\n Package          Arch     Version                   Repository     Size\n%[1]s\n", rule)
	row := func(r rpmPackage) {
		fmt.Fprintf(y.p.Stdout, " %-16s %-8s %-25s %-12s %6s\n", r.name, r.arch, r.version+"-"+r.release, "base", "1.0 M")
	}
	counts := map[string]int{}
	for _, section := range []string{"Installing", "Updating"} {
		for _, r := range list {
			if (len(y.p.Host.pk.find(r.name)) == 0 || r.name == "kernel") != (section == "Installing") {
				continue
			}
			if counts[section]++; counts[section] == 1 {
				fmt.Fprintln(y.p.Stdout, section+":")
			}
			row(r)
		}
	}
	fmt.Fprintf(y.p.Stdout, "\nTransaction Summary\n%s\nInstall  %d Packages\nUpgrade  %d Packages\n\nTotal download size: %d.0 M\n", rule, counts["Installing"], counts["Updating"], len(list))
	fmt.Fprintln(y.p.Stdout, "Exiting on user command\nYour transaction was saved, rerun it with:\n yum load-transaction /tmp/yum_save_tx.yumtx")
	return 1
}

func (y *yum) update(kernelOnly bool) int {
	list := y.offered()
	if kernelOnly {
		list = slices.DeleteFunc(list, func(r rpmPackage) bool { return r.name != "kernel" })
	}
	if len(list) == 0 {
		if !y.wait(2 * time.Second) {
			return 143
		}
		fmt.Fprintln(y.p.Stdout, "No packages marked for update")
		return 0
	}
	if y.ask {
		return y.show(list)
	}
	return y.transaction(updateTakes, y.puts(list)...)
}

// puts are the steps that install what the repositories offer.
func (y *yum) puts(list []rpmPackage) []func() {
	h := y.p.Host
	release, kernel := h.update()
	var steps []func()
	for _, r := range list {
		steps = append(steps, func() {
			h.pk.put(r)
			verb := "Updating  "
			switch r.name {
			case "kernel":
				verb = "Installing"
			case "centos-release":
				_ = h.WriteFile("/etc/redhat-release", []byte(strings.TrimSuffix(release, "\n")+"\n"), 0o644)
				_ = h.WriteFile("/etc/os-release", []byte(osRelease(release)), 0o644)
			}
			fmt.Fprintf(y.p.Stdout, "  %s : %s\n", verb, r)
		})
	}
	if slices.Contains(list, kernelPackage(kernel)) { // its scriptlet makes the initramfs and the boot entry
		steps = append(steps, func() {
			h.putKernel(kernel)
			h.pk.setBootKernel(kernel)
		})
	}
	return steps
}

func (y *yum) install(names []string) int {
	h := y.p.Host
	if len(names) == 0 {
		return y.p.refusef("nothing to install")
	}
	offered := y.offered()
	var exact []rpmPackage
	docker := false
	for _, name := range names {
		at := slices.IndexFunc(offered, func(r rpmPackage) bool { return r.String() == name })
		_, notExact := parsePackage(name)
		switch {
		case len(h.pk.find(name)) > 0:
			fmt.Fprintf(y.p.Stdout, "Package %s already installed and latest version\n", h.pk.find(name)[0])
		case at >= 0:
			exact = append(exact, offered[at])
		case h.offersDocker(name) && len(h.pk.find("docker-common")) > 0:
			fmt.Fprintln(y.p.Stderr, "Error: docker-ce conflicts with 2:docker-common-1.13.1")
			return 1
		case h.offersDocker(name):
			docker = true
		default:
			if !strings.HasPrefix(name, "docker-ce") && notExact != nil {
				h.refuse("yum install "+name, "no such package in the simulator")
			}
			fmt.Fprintf(y.p.Stdout, "No package %s available.\n", name)
		}
	}
	switch {
	case docker && (len(exact) > 0 || y.ask):
		return y.p.refusef("docker-ce together with other packages, or resolved only")
	case docker:
		return y.transaction(installTakes,
			func() { h.pk.put(newDockerPackages[1:]...) },
			func() {
				h.pk.put(newDockerPackages[0])
				h.installDocker()
			})
	case len(exact) == 0:
		if slices.ContainsFunc(names, func(n string) bool { return len(h.pk.find(n)) == 0 }) {
			fmt.Fprintln(y.p.Stderr, "Error: Nothing to do")
			return 1
		}
		fmt.Fprintln(y.p.Stdout, "Nothing to do")
		return 0
	case y.ask:
		return y.show(exact)
	}
	return y.transaction(updateTakes, y.puts(exact)...)
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

// offersDocker tells whether Docker's repository has a package that is called
// so.
func (h *Host) offersDocker(name string) bool {
	if _, err := h.tree.stat(cred{}, "/etc/yum.repos.d/docker-ce.repo", true); err != nil {
		return false
	}
	return slices.ContainsFunc(newDockerPackages, func(r rpmPackage) bool { return r.called(name) })
}

// yumList is yum -q list NAME: whether such packages are installed or offered.
func (p *Proc) yumList(quiet bool, names []string) int {
	if !quiet || len(names) == 0 {
		return p.refusef("yum list without -q or without a name")
	}
	status := 1
	for _, name := range names {
		for _, r := range p.Host.pk.find(name) {
			fmt.Fprintf(p.Stdout, "%s.%s  %s-%s  installed\n", r.name, r.arch, r.version, r.release)
			status = 0
		}
		if p.Host.offersDocker(name) {
			fmt.Fprintf(p.Stdout, "%s  docker-ce-stable\n", name)
			status = 0
		}
	}
	if status != 0 {
		fmt.Fprintln(p.Stderr, "Error: No matching Packages to list")
	}
	return status
}

var dockerPrograms = []string{"/usr/bin/docker", "/usr/bin/dockerd", "/usr/bin/docker-proxy", "/usr/bin/docker-init"}

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
