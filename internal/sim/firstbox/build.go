package firstbox

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/internal/sim/host"
)

// What building takes, at Speed 1.
const (
	buildAllTakes = 90 * time.Second
	buildOneTakes = 4 * time.Second
)

// deb is a package of the repository.
type deb struct {
	name, version string
	data          []byte // of the one file that counts; nil for most
}

const debMagic = "!<arch>\nsimulated\n"

// debOf is the file of a package: a name, and a tar of what it installs.
func debOf(name string, data []byte) []byte {
	var b bytes.Buffer
	b.WriteString(debMagic)
	w := tar.NewWriter(&b)
	file := "./usr/share/doc/" + name + "/changelog"
	if data == nil {
		data = []byte(name + "\n")
	} else {
		file = "./opt/pitrix/hosts"
	}
	_ = w.WriteHeader(&tar.Header{Name: file, Mode: 0o644, Size: int64(len(data))})
	_, _ = w.Write(data)
	_ = w.Close()
	return b.Bytes()
}

// inRepo is the test of update_nodes.sh: a prefix of a file name is enough.
func (s *Site) inRepo(prefix string) bool {
	entries, _ := s.firstbox.Host.ReadDir(repoDir)
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return strings.HasPrefix(e.Name(), prefix) })
}

// newestDeb finds a package by its exact name, as apt does.
func (s *Site) newestDeb(name string) (deb, bool) {
	entries, _ := s.firstbox.Host.ReadDir(repoDir)
	var best deb
	file := ""
	for _, e := range entries {
		n, rest, _ := strings.Cut(e.Name(), "_")
		version, _, _ := strings.Cut(rest, "_")
		if n == name && version > best.version {
			best, file = deb{name: name, version: version}, e.Name()
		}
	}
	if file == "" {
		return deb{}, false
	}
	data, err := s.firstbox.Host.ReadFile(repoDir + "/" + file)
	if err != nil {
		return deb{}, false
	}
	inside, err := untar(data)
	if err != nil {
		return deb{}, false
	}
	if name == "pitrix-hosts" {
		best.data = inside
	}
	return best, true
}

// untar gives the content of the files of a package, one after the other.
func untar(data []byte) ([]byte, error) {
	archive, ok := bytes.CutPrefix(data, []byte(debMagic))
	if !ok {
		return nil, fmt.Errorf("not a Debian package of this world")
	}
	return untarAll(bytes.NewReader(archive))
}

func untarAll(in io.Reader) ([]byte, error) {
	var out []byte
	r := tar.NewReader(in)
	for {
		_, err := r.Next()
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		part, err := io.ReadAll(r)
		if err != nil {
			return nil, err
		}
		out = append(out, part...)
	}
}

// cmdDpkgDeb is dpkg-deb --fsys-tarfile FILE.
func (s *Site) cmdDpkgDeb(_ context.Context, p *host.Proc) int {
	if len(p.Args) != 3 || p.Args[1] != "--fsys-tarfile" {
		return p.Refusef("only dpkg-deb --fsys-tarfile FILE")
	}
	data, err := p.Host.ReadFile(p.Path(p.Args[2]))
	archive, ok := bytes.CutPrefix(data, []byte(debMagic))
	if err != nil || !ok {
		return p.Failf(2, "error: failed to read archive '%s': No such file or directory", p.Args[2])
	}
	_, _ = p.Stdout.Write(archive)
	return 0
}

// cmdTar is tar -xO[f -]: what is in an archive, to standard output.
func (s *Site) cmdTar(_ context.Context, p *host.Proc) int {
	ok := false
	switch strings.Join(p.Args[1:], " ") {
	case "-xO", "-xOf -", "xO", "xOf -":
		ok = true
	}
	if !ok {
		return p.Refusef("only tar -xOf -")
	}
	out, err := untarAll(p.Stdin)
	if err != nil {
		return p.Failf(2, "This does not look like a tar archive")
	}
	_, _ = p.Stdout.Write(out)
	return 0
}

// allPackages is what build_pkgs_allinone builds.
var allPackages = []string{
	"pitrix-hosts", "pitrix-global-conf", "pitrix-alert-agent", "pitrix-ks-proxy", "pitrix-ks-proxy-boss",
	"pitrix-ks-proxy-boss2", "pitrix-ks-proxy-warehouse", "pitrix-ks-webservice", "pitrix-ks-api", "pitrix-ks-cli",
	"pitrix-ks-website", "pitrix-ks-webconsole", "pitrix-ks-dnsmaster",
}

// packagesOf are the groups of packages that update.sh knows, of those that
// there are here.
var packagesOf = map[string][]string{
	"proxy": {"pitrix-ks-proxy"}, "dns": {"pitrix-ks-dnsmaster"},
	"global-webservice": {"pitrix-ks-webservice", "pitrix-ks-api", "pitrix-ks-cli"}, "global-website": {"pitrix-ks-website", "pitrix-ks-webconsole"},
	"zone-webservice": {"pitrix-ks-webservice", "pitrix-ks-webconsole"}, "zone-website": {"pitrix-ks-webconsole"},
}

// globalPackages is what build_global_conf builds, of those that are here.
var globalPackages = []string{"pitrix-global-conf", "pitrix-alert-agent", "pitrix-hosts"}

func (s *Site) cmdBuildAll(ctx context.Context, p *host.Proc) int {
	list := allPackages
	switch {
	case len(p.Args) == 1:
	case len(p.Args) == 3 && p.Args[1] == "-r" && s.python():
		list = slices.DeleteFunc(slices.Clone(allPackages), func(n string) bool {
			return strings.HasPrefix(n, "pitrix-ks-") && !strings.HasPrefix(n, "pitrix-ks-"+p.Args[2])
		})
	default:
		return p.Refusef("arguments")
	}
	fmt.Fprintln(p.Stdout, "Building the packages allinone ...")
	if p.Host.Sleep(ctx, buildAllTakes) != nil {
		return 143
	}
	if status := s.buildPackages(ctx, p, list); status != 0 {
		return status
	}
	fmt.Fprintln(p.Stdout, "Build the packages allinone Done.")
	fmt.Fprintln(p.Stdout, "Scanning [/pitrix/repo/indep] ... OK.")
	return 0
}

// cmdBuildGlobal is build_global_conf.sh: it begins by deleting the backup of
// the same day, which may be the only good one.
func (s *Site) cmdBuildGlobal(ctx context.Context, p *host.Proc) int {
	if len(p.Args) > 1 && (len(p.Args) != 3 || p.Args[1] != "-z") {
		fmt.Fprintln(p.Stdout, "Usage: build_global_conf.sh [-z <zone_ids>]")
		return 1
	}
	backup := variablesDir + "/global_" + time.Now().Format("20060102")
	for _, name := range s.below(backup) {
		_ = p.Host.Remove(backup + "/" + name)
	}
	for _, name := range s.below(variablesDir + "/global") {
		data, _ := p.Host.ReadFile(variablesDir + "/global/" + name)
		_ = p.Host.WriteFile(backup+"/"+name, data, 0o644)
	}
	return s.buildPackages(ctx, p, globalPackages)
}

func (s *Site) below(dir string) []string {
	entries, _ := s.firstbox.Host.ReadDir(dir)
	var out []string
	for _, e := range entries {
		if !e.IsDir() {
			out = append(out, e.Name())
		}
	}
	return out
}

// buildPackages builds from what the settings are now, and installs
// pitrix-hosts on the firstbox itself [inferred: its scripts log in by name].
func (s *Site) buildPackages(ctx context.Context, p *host.Proc, list []string) int {
	for _, name := range list {
		if p.Host.Sleep(ctx, buildOneTakes) != nil {
			return 143
		}
		s.mu.Lock()
		s.builds++
		version := fmt.Sprintf("%s-%s.%04d", s.cfg.Version, time.Now().UTC().Format("20060102150405"), s.builds)
		s.mu.Unlock()
		d := s.place(name, version)
		fmt.Fprintf(p.Stdout, "Building [%s] ... OK.\n", name)
		s.logs("/pitrix/log/build_pkgs/build_pkgs.log", fmt.Sprintf("%s Building [%s] ... OK.\n", time.Now().Format(stamp), name))
		if name == "pitrix-hosts" && !s.cfg.Faults.StaleNames {
			_ = s.configure(s.firstbox, d) // writes a file of ours
		}
	}
	return 0
}

// place puts a package into the repository, in the place of an older one.
func (s *Site) place(name, version string) deb {
	d := deb{name: name, version: version}
	if name == "pitrix-hosts" {
		d.data = s.hostsLines()
		_ = s.firstbox.Host.WriteFile("/pitrix/build/packages/deb/pitrix-hosts/opt/pitrix/hosts", d.data, 0o644)
	}
	for _, file := range s.below(repoDir) {
		if strings.HasPrefix(file, name+"_") {
			_ = s.firstbox.Host.Remove(repoDir + "/" + file)
		}
	}
	_ = s.firstbox.Host.WriteFile(repoDir+"/"+name+"_"+version+"_all.deb", debOf(name, d.data), 0o644)
	return d
}

// hostsLines is what pitrix-hosts says of the settings as they are now.
func (s *Site) hostsLines() []byte {
	var b bytes.Buffer
	all, names := s.fleet()
	for _, n := range names {
		v := all[n]
		fmt.Fprintf(&b, "%s %s.mgmt.pitrix.yunify.com %s\n", v["mgmt_network_address"], v["hostname"], v["hostname"])
	}
	for _, name := range Roles() {
		fmt.Fprintf(&b, "%s %s\n", VIP(name), name)
	}
	return b.Bytes()
}

// noteHosts remembers when a machine learns an address of a node that is not
// the one it keeps: temporary addresses that were spread. The firstbox has to
// know them, and so have the new nodes.
func (s *Site) noteHosts(m *Machine, lines []byte) {
	if m == s.firstbox || m.isNew() {
		return
	}
	for line := range strings.Lines(string(lines)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		name := f[len(f)-1]
		want, ok := finalAddress[name]
		if got, err := netip.ParseAddr(f[0]); ok && err == nil && got != want {
			s.hurt("%s was told that %s is %s: a temporary address was spread", m.label, name, got)
		}
	}
}
