package hostos

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A Transaction is what a package manager would do, resolved to exact
// packages.
type Transaction struct {
	Install []Package `json:"install,omitempty"` // new, or beside an older version as kernels are
	Upgrade []Package `json:"upgrade,omitempty"` // in the place of another version of the same name and architecture
	Remove  []Package `json:"remove,omitempty"`  // replaced by others, obsolete, or more than installonly_limit
	Skipped []Package `json:"skipped,omitempty"` // would be upgraded, but cannot be: dnf goes on without them
	Bytes   int64     `json:"bytes"`             // to be downloaded
}

// Empty tells whether there is nothing to do.
func (t *Transaction) Empty() bool { return len(t.Install)+len(t.Upgrade)+len(t.Remove) == 0 }

// Incoming gives every package that the transaction brings, sorted.
func (t *Transaction) Incoming() PackageSet {
	return NewPackageSet(slices.Concat(t.Install, t.Upgrade)...)
}

// Apply gives the set of packages that there is after the transaction on s.
func (t *Transaction) Apply(s PackageSet) PackageSet {
	replaced := map[[2]string]bool{}
	for _, p := range t.Upgrade {
		replaced[[2]string{p.Name, p.Arch}] = true
	}
	gone := NewPackageSet(t.Remove...)
	out := slices.DeleteFunc(slices.Clone(s), func(p Package) bool {
		return replaced[[2]string{p.Name, p.Arch}] || gone.Has(p)
	})
	return NewPackageSet(append(out, t.Incoming()...)...)
}

// Kernel gives the release of the newest kernel that the transaction brings;
// "" when it brings none.
func (t *Transaction) Kernel() string { return t.Incoming().NewestKernel() }

// String counts the packages, as in "2 installed, 31 upgraded, 1 removed, 41 MB".
func (t *Transaction) String() string {
	s := fmt.Sprintf("%d installed, %d upgraded, %d removed, %.1f MB to download", len(t.Install), len(t.Upgrade), len(t.Remove), float64(t.Bytes)/1e6)
	if k := t.Kernel(); k != "" {
		s += ", kernel " + k
	}
	return s
}

// A ResolveError reports that a package manager could not resolve what it is
// to do: a dependency is broken, or a repository does not answer.
type ResolveError struct {
	Dead   bool   // it is a repository that does not answer
	Output string // the end of what the package manager wrote
}

func (e *ResolveError) Error() string {
	what := "the package manager cannot resolve the transaction"
	if e.Dead {
		what = "a package repository does not answer"
	}
	return what + ": " + strings.Join(strings.Fields(lastBytes(e.Output, 600)), " ")
}

// The sections of the table that yum 3 and dnf 4 print of a transaction.
var tableSections = map[string]string{
	"Installing": "install", "Installing for dependencies": "install", "Installing dependencies": "install",
	"Installing weak dependencies": "install", "Installing group/module packages": "install",
	"Updating": "upgrade", "Updating for dependencies": "upgrade", "Upgrading": "upgrade", "Downgrading": "upgrade",
	"Removing": "remove", "Removing for dependencies": "remove", "Removing dependent packages": "remove",
	"Removing dependencies": "remove", "Removing unused dependencies": "remove",
	"Reinstalling": "none", "Skipped (dependency problems)": "skip", "Not installed (provides already installed)": "none",
	"Skipping packages with conflicts": "skip", "Skipping packages with broken dependencies": "skip",
	// Rows of streams and groups have another form and change no package.
	"Enabling module streams": "other", "Switching module streams": "other", "Disabling module profiles": "other",
	"Disabling module streams": "other", "Installing module profiles": "other", "Installing Groups": "other",
	"Upgrading Groups": "other", "Removing Groups": "other", "Installing Environment Groups": "other",
}

var (
	nothingToDo = regexp.MustCompile(`(?mi)^(Nothing to do\.?|No packages marked for update|No packages? needed for security.*|Error: Nothing to do)\s*$`)
	notAgreed   = regexp.MustCompile(`(?m)^(Exiting on user command|Operation aborted\.?)\s*$`)
	deadMirror  = regexp.MustCompile(`(?i)Cannot find a valid baseurl|Could not retrieve mirrorlist|Failed to download metadata for repo|Cannot (download|retrieve) repo(sitory metadata|md\.xml)|Cannot prepare internal mirrorlist|Failed to fetch http|Some index files failed to download|Could not resolve host|repomd\.xml`)
	ignoredRepo = regexp.MustCompile(`(?m)^(?:Ignoring repositories: |Failed to synchronize cache for repo ')([^'\n]+)`)
	downloads   = regexp.MustCompile(`(?m)^Total (?:download )?size: ([0-9.]+)\s*([kMGT]?)`)
	unavailable = regexp.MustCompile(`(?m)^(?:No package (\S+) available\.?|No match for argument: (\S+))`)
)

// parseTable reads what `yum --assumeno VERB` of yum 3 and dnf 4 prints,
// standard error included, and how it ended. Declined is status 1 with both.
func parseTable(text string, status int) (*Transaction, error) {
	t := &Transaction{}
	start := strings.Index(text, "\n Package ")
	if start < 0 {
		if status == 0 || nothingToDo.MatchString(text) && !deadMirror.MatchString(text) {
			return t, nil
		}
		return nil, &ResolveError{Dead: deadMirror.MatchString(text), Output: text}
	}
	end := strings.Index(text[start:], "\nTransaction Summary")
	if end < 0 || status != 0 && !notAgreed.MatchString(text) {
		return nil, &ResolveError{Dead: deadMirror.MatchString(text), Output: text}
	}
	section := ""
	var row []string
	flush := func() error {
		if len(row) == 0 {
			return nil
		}
		defer func() { row = nil }()
		if len(row) < 4 {
			return fmt.Errorf("cannot read the table of the transaction: row %q has no version", strings.Join(row, " "))
		}
		p, ok := newPackage(row[0], row[2], row[1])
		if !ok {
			return fmt.Errorf("cannot read the table of the transaction: unexpected row %q", strings.Join(row, " "))
		}
		switch section {
		case "install":
			t.Install = append(t.Install, p)
		case "upgrade":
			t.Upgrade = append(t.Upgrade, p)
		case "remove":
			t.Remove = append(t.Remove, p)
		case "skip":
			t.Skipped = append(t.Skipped, p)
		}
		return nil
	}
	lines := strings.Split(text[start+1:start+end], "\n")
	for _, line := range lines[1:] { // the first names the columns
		f := strings.Fields(line)
		switch {
		case len(f) == 0 || strings.Trim(line, "=-") == "":
			if err := flush(); err != nil {
				return nil, err
			}
		case line[0] != ' ':
			if err := flush(); err != nil {
				return nil, err
			}
			if strings.HasPrefix(line, "(add '") {
				continue // dnf says how to get at what it skips
			}
			name, ok := strings.CutSuffix(strings.TrimSpace(line), ":")
			if section = tableSections[name]; !ok || section == "" {
				return nil, fmt.Errorf("cannot read the table of the transaction: unknown section %q", firstBytes(line, 80))
			}
		case section == "other":
		case f[0] == "replacing" && len(f) == 3:
			if err := flush(); err != nil {
				return nil, err
			}
			dot := strings.LastIndexByte(f[1], '.')
			if dot < 1 {
				return nil, fmt.Errorf("cannot read the table of the transaction: unexpected row %q", strings.TrimSpace(line))
			}
			p, ok := newPackage(f[1][:dot], f[2], f[1][dot+1:])
			if !ok {
				return nil, fmt.Errorf("cannot read the table of the transaction: unexpected row %q", strings.TrimSpace(line))
			}
			t.Remove = append(t.Remove, p)
		case len(line) > 1 && line[1] == ' ':
			// Yum 3 breaks a row whose columns do not fit.
			row = append(row, f...)
		default:
			if err := flush(); err != nil {
				return nil, err
			}
			row = f
		}
	}
	if err := flush(); err != nil {
		return nil, err
	}
	if m := downloads.FindStringSubmatch(text); m != nil {
		t.Bytes = size(m[1], m[2], 1024)
	}
	return t, nil
}

// size gives bytes for a number with a unit, each step times the one before.
func size(number, unit string, step float64) int64 {
	v, err := strconv.ParseFloat(strings.ReplaceAll(number, ",", ""), 64)
	if err != nil {
		return 0
	}
	for range max(0, strings.Index("-kMGT", cmp.Or(unit, "-"))) {
		v *= step
	}
	return int64(v)
}

var (
	// aptInst is a line of apt-get -s: name, version that is there, new version,
	// where from, architecture.
	aptInst = regexp.MustCompile(`^Inst (\S+) (?:\[([^\]]+)\] )?\((\S+) .*\[([^\]]+)\]\)`)
	aptRemv = regexp.MustCompile(`^Remv (\S+) \[([^\]]+)\]`)
	aptNeed = regexp.MustCompile(`Need to get ([0-9.,]+) ?([kMGT]?)B`)
)

// parseApt reads what apt-get -s and then apt-get --assume-no print; installed
// tells the architecture of what would be removed.
func parseApt(text string, status int, installed PackageSet) (*Transaction, error) {
	t := &Transaction{}
	if status != 0 {
		return nil, &ResolveError{Dead: deadMirror.MatchString(text), Output: text}
	}
	for line := range strings.SplitSeq(text, "\n") {
		if m := aptInst.FindStringSubmatch(line); m != nil {
			name, _, _ := strings.Cut(m[1], ":")
			p := Package{Name: name, Version: m[3], Arch: m[4]}
			if m[2] == "" {
				t.Install = append(t.Install, p)
			} else {
				t.Upgrade = append(t.Upgrade, p)
			}
		} else if m := aptRemv.FindStringSubmatch(line); m != nil {
			name, arch, _ := strings.Cut(m[1], ":")
			i := slices.IndexFunc(installed, func(p Package) bool { return p.Name == name && p.Version == m[2] && (arch == "" || p.Arch == arch) })
			if i < 0 {
				return nil, fmt.Errorf("cannot read the transaction: apt-get would remove %s %s, which dpkg does not list", m[1], m[2])
			}
			t.Remove = append(t.Remove, installed[i])
		} else if strings.HasPrefix(line, "Inst ") || strings.HasPrefix(line, "Remv ") {
			return nil, fmt.Errorf("cannot read the transaction: unexpected line %q", firstBytes(line, 120))
		}
	}
	if m := aptNeed.FindStringSubmatch(text); m != nil {
		t.Bytes = size(m[1], m[2], 1000)
	}
	return t, nil
}
