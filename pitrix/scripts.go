package pitrix

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/upgradectl/upgradectl/internal/shellq"
)

// A Script is one of the firstbox's programs.
type Script string

// The scripts, by what they do; Scripts.Path says which file that is.
const (
	ScriptGenMAC          Script = "gen_mac"
	ScriptGenNodeList     Script = "gen_node_list"
	ScriptBuildPackages   Script = "build_pkgs_allinone"
	ScriptBuildGlobalConf Script = "build_global_conf"
	ScriptLaunchVMs       Script = "launch_vms"
	ScriptInstallNodes    Script = "install_nodes"
	ScriptUpdate          Script = "update"
	ScriptExec            Script = "exec_nodes"
	ScriptDumpHosts       Script = "dump_hosts"
)

// AllScripts lists them.
func AllScripts() []Script {
	return []Script{ScriptGenMAC, ScriptGenNodeList, ScriptBuildPackages, ScriptBuildGlobalConf,
		ScriptLaunchVMs, ScriptInstallNodes, ScriptUpdate, ScriptExec, ScriptDumpHosts}
}

// Strategy says how nodes are replaced.
type Strategy string

const (
	// SideBySide builds new nodes with temporary addresses while the old ones
	// serve, and switches one after the other.
	SideBySide Strategy = "side-by-side"
	// InPlace puts the old node away before the new one of its name is made.
	InPlace Strategy = "in-place"
)

// Scripts makes the command lines of a firstbox's scripts. All of them read an
// empty standard input: a script that asks (exec_nodes and update do without
// -f) would wait for ever, at the full speed of a CPU, if it was empty by
// accident. Each is whole, so that it can be the script of a detached job; a
// Parse function reads what the job wrote.
type Scripts struct {
	Root    string // where /pitrix is; "" = /
	Version Version
}

// Path returns the file of a script. Since version 4.3 two of them are .py;
// documents mix the spellings, so ask the version and then look (see
// Firstbox.GetScripts).
func (s Scripts) Path(script Script) string {
	ext := ".sh"
	if s.Version.Python() {
		ext = ".py"
	}
	return s.Root + scriptFile(script, ext)
}

func scriptFile(script Script, ext string) string {
	switch script {
	case ScriptGenMAC, ScriptDumpHosts: // there is only one spelling of these
		return "/pitrix/bin/" + string(script) + ".py"
	case ScriptGenNodeList:
		return "/pitrix/bin/gen_node_list" + ext
	case ScriptBuildPackages:
		return "/pitrix/build/build_pkgs_allinone" + ext
	case ScriptLaunchVMs, ScriptInstallNodes:
		return "/pitrix/install/" + string(script) + ".sh"
	default:
		return "/pitrix/upgrade/" + string(script) + ".sh"
	}
}

func (s Scripts) line(script Script, args ...string) string {
	return shellq.Join(append([]string{s.Path(script)}, args...)...) + " </dev/null"
}

// GenMAC makes one address. It is not known to be unique: [MACGen] is, and
// needs no script.
func (s Scripts) GenMAC() string { return s.line(ScriptGenMAC) }

// GenNodeList writes the node lists anew from the settings.
func (s Scripts) GenNodeList() string { return s.line(ScriptGenNodeList) }

// BuildPackages builds all packages. From here on pitrix-hosts spreads what
// the settings say now.
func (s Scripts) BuildPackages() string { return s.line(ScriptBuildPackages) }

// BuildGlobalConf builds the packages that hold the configuration of the
// installation. The script begins with deleting the copy of variables/global
// that an earlier run of the same day has made; so copies of this and earlier
// days are saved first, as .upgradectl-KEY/global_DATE beside them, unless
// they were under this key already.
func (s Scripts) BuildGlobalConf(key string) (string, error) {
	if err := checkKey(key); err != nil {
		return "", fmt.Errorf("cannot build the global configuration: %w", err)
	}
	dir := s.Root + "/pitrix/conf/variables"
	return `set -eu
d=` + shellq.Quote(dir) + `
k="$d/.upgradectl-` + key + `"
for g in "$d"/global_*; do
	[ -e "$g" ] || continue
	n=${g##*/}
	if [ -e "$k/$n" ]; then continue; fi
	mkdir -p "$k"
	rm -rf "$k/$n.part"
	cp -a "$g" "$k/$n.part"
	mv -T "$k/$n.part" "$k/$n"
done
` + s.line(ScriptBuildGlobalConf), nil
}

// Launch says how VMs are made.
type Launch struct {
	Strategy Strategy
	// Force is -f: whatever has the VM's name on the host that its settings
	// name is destroyed first, and every file /pitrix/kernels/NAME* with it.
	// It is refused side by side, where that could be the serving node.
	Force bool
}

// LaunchVMs makes and starts the VMs of a scope, on the hosts that their
// settings name.
func (s Scripts) LaunchVMs(scope Scope, how Launch) (string, error) {
	if err := scope.check(); err != nil {
		return "", fmt.Errorf("cannot launch VMs: %w", err)
	}
	switch {
	case how.Strategy != SideBySide && how.Strategy != InPlace:
		return "", fmt.Errorf("cannot launch VMs: the strategy %q is neither %s nor %s", how.Strategy, SideBySide, InPlace)
	case how.Force && how.Strategy == SideBySide:
		return "", errors.New("cannot launch VMs side by side with -f: it destroys what has their names, which may be the nodes that serve; remove stale files of the new nodes by hand and launch without -f")
	case how.Force:
		// The scripts whose source is known honour -f as the first argument only.
		return s.line(ScriptLaunchVMs, "-f", scope.String()), nil
	}
	return s.line(ScriptLaunchVMs, scope.String()), nil
}

// InstallNodes installs the system on new nodes, which reboot several times.
func (s Scripts) InstallNodes(scope Scope) (string, error) {
	if err := scope.check(); err != nil {
		return "", fmt.Errorf("cannot install nodes: %w", err)
	}
	return s.line(ScriptInstallNodes, scope.String()), nil
}

var packageName = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+$`)

// checkPackages refuses what is no package name of the installation. The
// script would take the name of a package group for all its packages, and its
// own check accepts the beginning of a name.
func checkPackages(packages []string) error {
	if len(packages) == 0 {
		return errors.New("no package is named; name one")
	}
	for i, p := range packages {
		switch {
		case !packageName.MatchString(p):
			return fmt.Errorf("%q is not the name of a package", p)
		case !strings.HasPrefix(p, "pitrix-"):
			return fmt.Errorf("%q does not begin with pitrix-, and the script takes other words for groups of packages; name the packages", p)
		case slices.Contains(packages[:i], p):
			return fmt.Errorf("%s is named twice", p)
		}
	}
	return nil
}

// Update installs packages on the nodes of a scope. -f stands first: without
// it the script asks. There are always two more words: update.sh takes a single
// one for a group of nodes and a group of packages at once.
func (s Scripts) Update(scope Scope, packages ...string) (string, error) {
	if err := scope.check(); err != nil {
		return "", fmt.Errorf("cannot update nodes: %w", err)
	}
	if err := checkPackages(packages); err != nil {
		return "", fmt.Errorf("cannot update %s: %w", scope, err)
	}
	return s.line(ScriptUpdate, "-f", scope.String(), strings.Join(packages, ",")), nil
}

// Exec runs a command on the nodes of a scope. The script loses the command's
// status; so the command runs in a shell of its own and a line with its status
// follows it, which [ParseExec] looks for under the same tag. CheckExecCommand
// says which commands are refused.
func (s Scripts) Exec(scope Scope, tag, command string) (string, error) {
	if err := scope.check(); err != nil {
		return "", fmt.Errorf("cannot run a command on nodes: %w", err)
	}
	return s.exec(scope, tag, command)
}

func (s Scripts) exec(scope Scope, tag, command string) (string, error) {
	if err := checkKey(tag); err != nil {
		return "", fmt.Errorf("cannot run a command on %s: %w", scope, err)
	}
	if err := CheckExecCommand(command); err != nil {
		return "", fmt.Errorf("cannot run a command on %s: %w", scope, err)
	}
	return s.line(ScriptExec, "-f", scope.String(), execWrapped(tag, command)), nil
}

func execWrapped(tag, command string) string {
	return "(" + command + "); r=$?; echo; echo " + execTrailer(tag) + "$r"
}

// execTrailer begins the line that gives a command's real status.
func execTrailer(tag string) string { return "__rc_" + strings.ReplaceAll(tag, "-", "_") + "=" }

// CheckExecCommand says why exec_nodes.sh would not run command as it stands.
// Before the command reaches a node the script cuts it at the first #, splits
// it at blanks without regard to quotes, joins the words by single blanks, and
// expands what looks like a file name pattern on the firstbox. What the nodes'
// shell is given must have none of these; nor line ends, tabs and backslashes,
// of which the script's header makes something else.
func CheckExecCommand(command string) error {
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("exec_nodes.sh would change the command %q: %s", firstBytes(command, 120), fmt.Sprintf(format, args...))
	}
	if strings.TrimSpace(command) == "" {
		return errors.New("the command is empty")
	}
	for _, bad := range []struct{ text, why string }{
		{"#", "everything from the first # on is cut off, also inside quotes; leave it out"},
		{"\x00", "it holds a NUL byte"},
		{"\n", "it holds a line end; join the lines by ;"},
		{"\r", "it holds a carriage return"},
		{"\t", "a tab becomes a blank; write a blank"},
		{`\`, "what becomes of a backslash is not known; use quotes instead"},
		{"  ", "runs of blanks become one, also inside quotes; write single blanks"},
	} {
		if strings.Contains(command, bad.text) {
			return refuse("%s", bad.why)
		}
	}
	if command != strings.TrimSpace(command) {
		return refuse("it begins or ends with a blank; remove it")
	}
	if quote := openQuote(command); quote != 0 {
		return refuse("the quote %c is not closed", quote)
	}
	for _, word := range strings.Split(command, " ") {
		if glob(word) {
			return refuse("the firstbox would replace %s by names of its own files; put quotes right around it", word)
		}
	}
	return nil
}

// openQuote returns the quote that is not closed at the end of a command
// without backslashes.
func openQuote(command string) byte {
	var in byte
	for i := range len(command) {
		switch c := command[i]; {
		case in == 0 && (c == '\'' || c == '"'):
			in = c
		case c == in:
			in = 0
		}
	}
	return in
}

// glob reports whether a shell that takes word as data, quotes and all, may
// find files that match it. A pattern with a quote in it matches only names
// with that quote. $? and $* are no patterns that matter: the dollar would have
// to be in the name.
func glob(word string) bool {
	if strings.ContainsAny(word, `'"`) {
		return false
	}
	for i := range len(word) {
		switch word[i] {
		case '*', '?':
			if i == 0 || word[i-1] != '$' {
				return true
			}
		case '[':
			// A test command's [ stands alone and matches nothing.
			if strings.Contains(word[i:], "]") {
				return true
			}
		}
	}
	return false
}

// DumpHosts lists the names under which the console serves.
func (s Scripts) DumpHosts() string { return s.line(ScriptDumpHosts) }

// kernels is where a host keeps the files of its VMs.
func kernels(root string) string { return path.Join("/", root, "pitrix/kernels") }
