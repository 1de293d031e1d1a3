package hostos

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
)

// A Package is one installed or available package. Of a Debian package Release
// is empty and Version is the whole version, epoch and revision included.
type Package struct {
	Name, Epoch, Version, Release, Arch string
}

// EVR gives [EPOCH:]VERSION[-RELEASE]; an epoch of 0 is left out.
func (p Package) EVR() string {
	s := p.Version
	if p.Release != "" {
		s += "-" + p.Release
	}
	if p.Epoch != "" && p.Epoch != "0" {
		s = p.Epoch + ":" + s
	}
	return s
}

// String gives the NEVRA as NAME-[EPOCH:]VERSION-RELEASE.ARCH, which yum 3 and
// dnf take as an argument, and NAME=VERSION:ARCH… of Debian as
// NAME:ARCH=VERSION, which apt-get takes.
func (p Package) String() string {
	if p.Release == "" {
		return p.Name + ":" + p.Arch + "=" + p.EVR()
	}
	return p.Name + "-" + p.EVR() + "." + p.Arch
}

// MarshalText gives String.
func (p Package) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads what String gives.
func (p *Package) UnmarshalText(b []byte) error {
	var err error
	*p, err = ParsePackage(string(b))
	return err
}

// ParsePackage reads what Package.String gives.
func ParsePackage(s string) (Package, error) {
	if na, v, ok := strings.Cut(s, "="); ok {
		if name, arch, ok := strings.Cut(na, ":"); ok && name != "" && arch != "" && v != "" {
			return Package{Name: name, Version: v, Arch: arch}, nil
		}
		return Package{}, fmt.Errorf("package %q is not NAME:ARCH=VERSION", firstBytes(s, 80))
	}
	dot := strings.LastIndexByte(s, '.')
	if dot > 0 && dot < len(s)-1 {
		if r := strings.LastIndexByte(s[:dot], '-'); r > 0 {
			if v := strings.LastIndexByte(s[:r], '-'); v > 0 {
				if p, ok := newPackage(s[:v], s[v+1:dot], s[dot+1:]); ok {
					return p, nil
				}
			}
		}
	}
	return Package{}, fmt.Errorf("package %q is not NAME-[EPOCH:]VERSION-RELEASE.ARCH", firstBytes(s, 80))
}

// newPackage makes a package of RPM from its name, [EPOCH:]VERSION-RELEASE and
// architecture.
func newPackage(name, evr, arch string) (Package, bool) {
	p := Package{Name: name, Arch: arch}
	if e, rest, ok := strings.Cut(evr, ":"); ok {
		p.Epoch, evr = e, rest
	}
	if p.Epoch == "0" {
		p.Epoch = ""
	}
	var ok bool
	p.Version, p.Release, ok = strings.Cut(evr, "-")
	return p, ok && p.Name != "" && p.Version != "" && p.Release != "" && p.Arch != ""
}

// A PackageSet is a list of packages, sorted, each once.
type PackageSet []Package

// NewPackageSet sorts list and leaves out what is there twice.
func NewPackageSet(list ...Package) PackageSet {
	s := slices.Clone(list)
	slices.SortFunc(s, comparePackages)
	return slices.Compact(s)
}

func comparePackages(a, b Package) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Arch, b.Arch),
		cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Version, b.Version), cmp.Compare(a.Release, b.Release))
}

// Has tells whether exactly this package is in the set.
func (s PackageSet) Has(p Package) bool {
	_, ok := slices.BinarySearchFunc(s, p, comparePackages)
	return ok
}

// Minus gives what is in s and not in t.
func (s PackageSet) Minus(t PackageSet) PackageSet {
	var out PackageSet
	for _, p := range s {
		if !t.Has(p) {
			out = append(out, p)
		}
	}
	return out
}

// DiffPackages says package by package how got differs from want; an empty
// result means that they are the same, to the NEVRA. The names are those of
// the hosts they were read from.
func DiffPackages(wantName string, want PackageSet, gotName string, got PackageSet) []string {
	type key struct{ name, arch string }
	versions := func(s PackageSet) map[key][]string {
		m := map[key][]string{}
		for _, p := range s {
			k := key{p.Name, p.Arch}
			m[k] = append(m[k], p.EVR())
		}
		return m
	}
	less, more := versions(want.Minus(got)), versions(got.Minus(want))
	var keys []key
	for k := range less {
		keys = append(keys, k)
	}
	for k := range more {
		if _, both := less[k]; !both {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b key) int { return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.arch, b.arch)) })
	var out []string
	for _, k := range keys {
		say := func(v []string) string { return cmp.Or(strings.Join(v, " and "), "nothing") }
		out = append(out, fmt.Sprintf("%s.%s: %s on %s, %s on %s", k.name, k.arch, say(less[k]), wantName, say(more[k]), gotName))
	}
	return out
}

// kernelPackages are the packages of RPM distributions whose version is the
// release of a kernel, as uname -r gives it.
var kernelPackages = []string{
	"kernel", "kernel-core", "kernel-uek", "kernel-uek-core", "kernel-lt", "kernel-ml", "kernel-ml-core",
	"kernel-plus", "kernel-rt", "kernel-rt-core", "kernel-64k", "kernel-64k-core",
}

// KernelRelease gives the release, as uname -r prints it, of the kernel that
// the package holds; "" when it holds none.
func (p Package) KernelRelease() string {
	if p.Release == "" {
		r, ok := strings.CutPrefix(p.Name, "linux-image-")
		if !ok || r == "" || r[0] < '0' || r[0] > '9' || strings.HasSuffix(r, "-dbg") {
			return "" // a name without a number stands for the newest
		}
		return strings.TrimSuffix(r, "-unsigned")
	}
	if !slices.Contains(kernelPackages, p.Name) {
		return ""
	}
	return p.Version + "-" + p.Release + "." + p.Arch
}

// The lists of installed packages, one a line: RPM's with tabs between name,
// epoch, version, release and architecture; dpkg's between status, name,
// version and architecture.
const (
	rpmList  = `rpm -qa --qf '%{NAME}\t%{EPOCH}\t%{VERSION}\t%{RELEASE}\t%{ARCH}\n'`
	dpkgList = `dpkg-query -W -f '${db:Status-Abbrev}\t${Package}\t${Version}\t${Architecture}\n'`
)

// rpmQuery sets $p to what rpmList gives and $q to the status of an rpm that
// cannot read its database; 0 also where rpm is there and has none, as the one
// of Debian, which looks below $HOME.
const rpmQuery = `p= q=0
if command -v rpm >/dev/null 2>&1; then
	p=$(` + rpmList + `) || q=$?
	if [ ! -e /var/lib/rpm/Packages ] && [ ! -e /var/lib/rpm/Packages.db ] && [ ! -e /var/lib/rpm/rpmdb.sqlite ] && [ ! -e /usr/lib/sysimage/rpm ]; then q=0; fi
fi
`

// parseInstalled reads rpmList or dpkgList. Imported keys, which RPM lists as
// packages, are left out: their time of import is in their version.
func parseInstalled(text string) (PackageSet, error) {
	var out []Package
	for line := range strings.SplitSeq(text, "\n") {
		c := strings.Split(line, "\t")
		switch {
		case strings.TrimSpace(line) == "":
		case len(c) == 5 && c[0] == "gpg-pubkey":
		case len(c) == 5:
			p := Package{c[0], c[1], c[2], c[3], c[4]}
			if p.Epoch == "(none)" || p.Epoch == "0" {
				p.Epoch = ""
			}
			out = append(out, p)
		case len(c) == 4:
			if st := strings.TrimSpace(c[0]); st == "rc" || st == "un" || st == "pn" {
				continue // removed; its settings are left
			}
			out = append(out, Package{Name: c[1], Version: c[2], Arch: c[3]})
		default:
			return nil, fmt.Errorf("cannot read the list of packages: unexpected line %q", firstBytes(line, 80))
		}
	}
	return NewPackageSet(out...), nil
}

// GetPackages reads what is installed: RPM's packages, or dpkg's where RPM has
// none.
func GetPackages(ctx context.Context, h Host) (PackageSet, error) {
	out, err := output(ctx, h, "LC_ALL=C; export LC_ALL\np=$(command -v rpm >/dev/null && "+rpmList+")\nif [ -n \"$p\" ]; then printf '%s\\n' \"$p\"; else "+dpkgList+"; fi\n", nil)
	if err != nil {
		return nil, fmt.Errorf("cannot list the installed packages: %w", err)
	}
	s, err := parseInstalled(out)
	if err == nil && len(s) == 0 {
		err = fmt.Errorf("cannot list the installed packages: neither RPM nor dpkg knows of any")
	}
	return s, err
}
