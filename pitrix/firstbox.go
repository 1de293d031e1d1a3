package pitrix

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/internal/shellq"
)

// A Firstbox is the machine that the installer runs on.
type Firstbox struct {
	Host Host
	Root string // where its /pitrix is; "" = /
}

func (f *Firstbox) at(name string) string { return f.Root + name }

// GetVersion reads the version of the installer.
func (f *Firstbox) GetVersion(ctx context.Context) (Version, error) {
	// Up to 3.x it is a text, later JSON. Both can be there after an upgrade.
	out, err := output(ctx, f.Host, "cd "+shellq.Quote(f.at("/pitrix"))+" && if [ -e version.json ]; then cat version.json; else cat version; fi")
	if err != nil {
		return Version{}, fmt.Errorf("cannot read the installer's version from /pitrix/version.json or /pitrix/version: %w", err)
	}
	return ParseVersionFile([]byte(out))
}

// A MissingScriptError says that the firstbox has no file of the name that its
// version's script should have.
type MissingScriptError struct {
	Script  Script
	Version Version
	Want    string
	Found   []string // of the other spelling
}

func (e *MissingScriptError) Error() string {
	s := fmt.Sprintf("the firstbox has installer %s and no %s, which that version calls its %s", e.Version, e.Want, e.Script)
	if len(e.Found) > 0 {
		s += "; it has " + strings.Join(e.Found, ", ") + ", which belongs to another version: check /pitrix/version.json"
	}
	return s
}

// GetScripts reads the version and looks every script up: documents mix the
// spellings of versions, so a path is used only where a file stands. A script
// that is not there, or cannot be executed, gives a *MissingScriptError.
func (f *Firstbox) GetScripts(ctx context.Context) (Scripts, error) {
	v, err := f.GetVersion(ctx)
	if err != nil {
		return Scripts{}, err
	}
	s := Scripts{Root: f.Root, Version: v}
	cmd := "for f in"
	for _, script := range AllScripts() {
		for _, ext := range []string{".sh", ".py"} {
			cmd += " " + shellq.Quote(f.Root+scriptFile(script, ext))
		}
	}
	out, err := output(ctx, f.Host, cmd+`; do if [ -f "$f" ] && [ -x "$f" ]; then printf '%s\n' "$f"; fi; done`)
	if err != nil {
		return Scripts{}, fmt.Errorf("cannot look for the scripts of the firstbox: %w", err)
	}
	have := strings.Split(out, "\n")
	var errs []error
	for _, script := range AllScripts() {
		if slices.Contains(have, s.Path(script)) {
			continue
		}
		e := &MissingScriptError{Script: script, Version: v, Want: s.Path(script)}
		for _, ext := range []string{".sh", ".py"} {
			if p := f.Root + scriptFile(script, ext); p != e.Want && slices.Contains(have, p) {
				e.Found = append(e.Found, p)
			}
		}
		errs = append(errs, e)
	}
	return s, errors.Join(errs...)
}

// readDir returns the plain files of a directory whose names do not begin with
// a dot, in one command. A file that changes meanwhile is an error.
func (f *Firstbox) readDir(ctx context.Context, dir string) (map[string][]byte, error) {
	sizes := `set --; for f in *; do if [ -f "$f" ]; then set -- "$@" "./$f"; fi; done; if [ $# -gt 0 ]; then wc -c "$@"; fi`
	out, err := output(ctx, f.Host, "cd "+shellq.Quote(dir)+" || exit 1; "+sizes+"; echo; if [ $# -gt 0 ]; then cat \"$@\" && echo && wc -c \"$@\"; fi")
	if err != nil {
		return nil, fmt.Errorf("cannot read the files of %s: %w", dir, err)
	}
	head, rest, ok := strings.Cut(out, "\n\n")
	if !ok {
		if strings.TrimSpace(out) == "" {
			return map[string][]byte{}, nil
		}
		return nil, fmt.Errorf("cannot read the files of %s: the answer was cut short", dir)
	}
	files := map[string][]byte{}
	for line := range strings.SplitSeq(head, "\n") {
		size, name, _ := strings.Cut(strings.TrimLeft(line, " "), " ")
		n, err := strconv.Atoi(size)
		name, named := strings.CutPrefix(name, "./")
		switch {
		case err == nil && !named: // the total
			continue
		case err != nil || n < 0 || n > len(rest):
			return nil, fmt.Errorf("cannot read the files of %s: they changed meanwhile, or the answer was cut short; try again", dir)
		}
		files[name], rest = []byte(rest[:n]), rest[n:]
	}
	if strings.TrimSpace(rest) != strings.TrimSpace(head) {
		return nil, fmt.Errorf("cannot read the files of %s: they changed meanwhile; try again", dir)
	}
	return files, nil
}

const (
	settingsDir  = "/pitrix/conf/settings"
	nodesDir     = "/pitrix/conf/nodes"
	variablesDir = "/pitrix/conf/variables"
)

// ReadFleet reads all settings files. Files that do not parse give Problems.
func (f *Firstbox) ReadFleet(ctx context.Context) (Fleet, error) {
	files, err := f.readDir(ctx, f.at(settingsDir))
	if err != nil {
		return nil, err
	}
	return ParseFleet(files)
}

// ReadGroups reads the node lists as the firstbox has them, which need not be
// those of the settings: see Groups.Diff.
func (f *Firstbox) ReadGroups(ctx context.Context) (Groups, error) {
	files, err := f.readDir(ctx, f.at(nodesDir))
	if err != nil {
		return nil, err
	}
	groups := Groups{}
	for name, src := range files {
		nodes, err := ParseGroupFile(name, src)
		if err != nil {
			return nil, err
		}
		groups[name] = nodes
	}
	return groups, nil
}

// BackupSettings copies the settings directory to a sibling named after at and
// returns its path. It never writes into a directory that is there, and
// compares the copy before it returns.
func (f *Firstbox) BackupSettings(ctx context.Context, at time.Time) (string, error) {
	dir := f.at(settingsDir)
	out, err := output(ctx, f.Host, "ls -1A "+shellq.Quote(path.Dir(dir)))
	if err != nil {
		return "", fmt.Errorf("cannot back up %s: %w", dir, err)
	}
	to, err := BackupPath(dir, at, strings.Split(strings.TrimSpace(out), "\n"))
	if err != nil {
		return "", err
	}
	// A plain mkdir fails when somebody else was faster.
	cmd := fmt.Sprintf("mkdir %[2]s && cp -a %[1]s/. %[2]s", shellq.Quote(dir), shellq.Quote(to))
	if _, err := output(ctx, f.Host, cmd); err != nil {
		return "", fmt.Errorf("cannot back up %s to %s: %w; remove what is there of the copy and try again", dir, to, err)
	}
	was, err := f.readDir(ctx, dir)
	if err != nil {
		return "", err
	}
	is, err := f.readDir(ctx, to)
	if err != nil {
		return "", err
	}
	for name, src := range was {
		if string(is[name]) != string(src) || len(was) != len(is) {
			return "", fmt.Errorf("the copy of %s in %s differs, first in %s; the settings change meanwhile, or the disk is full: remove the copy and try again", dir, to, name)
		}
	}
	return to, nil
}

// A DriftError says that a file is not what it has to be to be changed.
type DriftError struct{ Path, Why string }

func (e *DriftError) Error() string {
	return fmt.Sprintf("%s was changed by somebody else: %s; look at the difference and plan anew", e.Path, e.Why)
}

// WriteSettings puts the settings file of s in place of the one with the bytes
// old; nil: there is none. A file that has s's bytes already is left alone; one
// that has others gives a *DriftError.
func (f *Firstbox) WriteSettings(ctx context.Context, s *Settings, old []byte) error {
	if err := checkNode(s.Name()); err != nil {
		return fmt.Errorf("cannot write settings: %w", err)
	}
	return replaceFile(ctx, f.Host, f.at(settingsDir)+"/"+s.Name(), old, s.Bytes())
}

// ReadSettings returns the bytes of one node's settings file, nil where there
// is none.
func (f *Firstbox) ReadSettings(ctx context.Context, name string) ([]byte, error) {
	if err := checkNode(name); err != nil {
		return nil, fmt.Errorf("cannot read settings: %w", err)
	}
	return readFile(ctx, f.Host, f.at(settingsDir)+"/"+name)
}

// BaseImages lists the files that VMs of this firstbox can be laid over.
func (f *Firstbox) BaseImages(ctx context.Context) ([]string, error) {
	dir := kernels(f.Root)
	out, err := output(ctx, f.Host, "cd "+shellq.Quote(dir)+` && for i in *.img; do if [ -f "$i" ]; then printf '%s\n' "$i"; fi; done`)
	if err != nil {
		return nil, fmt.Errorf("cannot list the images in %s: %w", dir, err)
	}
	return strings.Fields(out), nil
}

// PackageFiles returns the files in the firstbox's repositories that hold
// exactly these packages. update.sh itself looks for the beginning of a name
// and so accepts pitrix-host for pitrix-hosts. A package without a file is an
// error.
func (f *Firstbox) PackageFiles(ctx context.Context, packages ...string) (map[string][]string, error) {
	if err := checkPackages(packages); err != nil {
		return nil, err
	}
	files := map[string][]string{}
	var missing []string
	for _, p := range packages {
		out, err := output(ctx, f.Host, f.find(p+"_*.deb"))
		if err != nil {
			return nil, fmt.Errorf("cannot look for the package %s: %w", p, err)
		}
		if files[p] = strings.Fields(out); len(files[p]) == 0 {
			missing = append(missing, p)
		}
	}
	if len(missing) > 0 {
		return files, fmt.Errorf("the repositories /pitrix/repo and /var/www/repo have no package %s; build it, or correct the name", strings.Join(missing, ", "))
	}
	return files, nil
}

func (f *Firstbox) find(pattern string) string {
	return fmt.Sprintf(`for d in %s %s; do if [ -d "$d" ]; then find "$d" -type f -name %s || exit 1; fi; done`,
		shellq.Quote(f.at("/pitrix/repo")), shellq.Quote(f.at("/var/www/repo")), shellq.Quote(pattern))
}

// BuiltHosts returns the lines of host names and addresses inside the newest
// pitrix-hosts package, which are what its installation will write on a node,
// whatever the settings say by now. Several that are equally new have to say
// the same.
func (f *Firstbox) BuiltHosts(ctx context.Context) (deb string, lines []byte, err error) {
	fail := func(err error) (string, []byte, error) {
		return "", nil, fmt.Errorf("cannot read the built pitrix-hosts: %w", err)
	}
	files, err := f.PackageFiles(ctx, "pitrix-hosts")
	if err != nil {
		return "", nil, err
	}
	newest, debs := int64(-1), []string(nil)
	for _, name := range files["pitrix-hosts"] {
		out, err := output(ctx, f.Host, "stat -c %Y "+shellq.Quote(name))
		if err != nil {
			return fail(err)
		}
		at, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
		if err != nil {
			return fail(err)
		}
		if at > newest {
			newest, debs = at, nil
		}
		if at == newest {
			debs = append(debs, name)
		}
	}
	for _, name := range debs {
		out, err := output(ctx, f.Host, "dpkg-deb --fsys-tarfile "+shellq.Quote(name)+" | tar -xOf -")
		if err != nil {
			return fail(err)
		}
		got := hostsLines(out)
		switch {
		case len(got) == 0:
			return fail(fmt.Errorf("%s holds no line of a hosts file", name))
		case deb != "" && string(got) != string(lines):
			return fail(fmt.Errorf("%s and %s are equally new and say different things; remove the wrong one", deb, name))
		}
		deb, lines = name, got
	}
	return deb, lines, nil
}

// hostsLines keeps the lines that begin with an address.
func hostsLines(text string) []byte {
	var out []byte
	for line := range strings.SplitSeq(text, "\n") {
		if words := strings.Fields(line); len(words) > 1 {
			if _, err := netip.ParseAddr(words[0]); err == nil {
				out = append(append(out, line...), '\n')
			}
		}
	}
	return out
}

// Exec runs a command on the nodes of a scope and waits for its end. A command
// that fails is no error here: see [ExecFailed].
func (f *Firstbox) Exec(ctx context.Context, scripts Scripts, scope Scope, command string) ([]ExecResult, error) {
	tag := randomKey()
	line, err := scripts.Exec(scope, tag, command)
	if err != nil {
		return nil, err
	}
	out, _, err := both(ctx, f.Host, line)
	if err != nil {
		return nil, fmt.Errorf("cannot run a command on %s: %w", scope, err)
	}
	return ParseExec(scope, tag, out)
}
