package pitrix

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/upgradectl/upgradectl/internal/shellq"
)

// KnownHostsFile is the file that the installation's scripts log in with.
const KnownHostsFile = "/root/.ssh/known_hosts"

// KnownHostsNames returns every spelling under which keys of a machine can
// stand in known_hosts: its names and addresses, and with a port other than 22
// (0 stands for 22) each as [NAME]:PORT too. ssh-keygen -R NAME does not find
// the latter.
func KnownHostsNames(names []string, port int) []string {
	var out []string
	for _, n := range names {
		if n == "" || slices.Contains(out, n) {
			continue
		}
		out = append(out, n)
		if port != 0 && port != 22 {
			out = append(out, "["+n+"]:"+strconv.Itoa(port))
		}
	}
	return out
}

var knownHostsName = regexp.MustCompile(`^(?:[A-Za-z0-9][A-Za-z0-9.:_-]*|\[[A-Za-z0-9][A-Za-z0-9.:_-]*\]:[0-9]+)$`)

// RemoveKnownHosts is the command line that removes the keys of names from a
// known_hosts file; "" is KnownHostsFile. It prints "removed NAME" for each
// that was there. A file that is missing, and a name that is not in it, are
// fine. ssh-keygen -R leaves the old file behind as .old, with the keys that
// were to go, over one that was there: it is removed, or the other one put back.
//
// It is one line that exec_nodes.sh does not change, for the same has to be
// done on all nodes.
func RemoveKnownHosts(file string, names []string) (string, error) {
	if file == "" {
		file = KnownHostsFile
	}
	if len(names) == 0 {
		return "", errors.New("cannot remove host keys: no name is given")
	}
	words := ""
	for _, n := range names {
		if !knownHostsName.MatchString(n) {
			return "", fmt.Errorf("cannot remove host keys of %q: it is neither a host name nor an address", n)
		}
		// Quoted always: brackets are a pattern to the script.
		words += " '" + n + "'"
	}
	cmd := "f=" + shellq.Quote(file) + "; k=$f.old; s=$f.upgradectl; r=0; if [ -f $f ]; then " +
		"if [ -e $k ]; then cp -p $k $s || exit 1; fi; " +
		"for n in" + words + "; do if [ -n \"$(ssh-keygen -f $f -F $n)\" ]; then " +
		"if ssh-keygen -f $f -R $n >/dev/null 2>&1; then echo removed $n; else r=1; fi; fi; done; " +
		"rm -f $k; if [ -e $s ]; then mv -f $s $k; fi; fi; exit $r"
	if strings.ContainsAny(file, " '\"*?[") {
		return "", fmt.Errorf("cannot remove host keys from %q: the name of the file has blanks, quotes or wildcards", file)
	}
	return cmd, CheckExecCommand(cmd)
}

// ParseRemoveKnownHosts returns the names that had keys.
func ParseRemoveKnownHosts(out []byte) []string {
	removed := []string{}
	for line := range strings.SplitSeq(string(out), "\n") {
		if n, ok := strings.CutPrefix(line, "removed "); ok {
			removed = append(removed, strings.TrimSpace(n))
		}
	}
	return removed
}

// RemoveKnownHosts removes keys from the firstbox's own known_hosts and returns
// the names that had some. It looks for them again afterwards.
func (f *Firstbox) RemoveKnownHosts(ctx context.Context, names []string) ([]string, error) {
	file := f.at(KnownHostsFile)
	cmd, err := RemoveKnownHosts(file, names)
	if err != nil {
		return nil, err
	}
	out, err := output(ctx, f.Host, cmd)
	if err != nil {
		return nil, fmt.Errorf("cannot remove host keys on the firstbox: %w", err)
	}
	for _, n := range names {
		left, err := output(ctx, f.Host, fmt.Sprintf("f=%s; if [ -f $f ] && [ -n \"$(ssh-keygen -f $f -F '%s')\" ]; then echo left; fi", file, n))
		if err != nil {
			return nil, fmt.Errorf("cannot look for host keys on the firstbox: %w", err)
		}
		if strings.TrimSpace(left) != "" {
			return nil, fmt.Errorf("the firstbox has a host key of %s after it was removed", n)
		}
	}
	return ParseRemoveKnownHosts([]byte(out)), nil
}

// RemoveKnownHosts does the same on all nodes by exec_nodes.sh: the only
// command line of this package with the group all. ParseExec reads its output
// with the scope that comes back and the same tag.
func (s Scripts) RemoveKnownHosts(fleet Fleet, groups Groups, tag string, names []string) (string, Scope, error) {
	scope, err := NewScope(fleet, groups, "all", Allow{KnownHosts: true})
	if err != nil {
		return "", Scope{}, err
	}
	cmd, err := RemoveKnownHosts("", names)
	if err != nil {
		return "", Scope{}, err
	}
	line, err := s.exec(scope, tag, cmd)
	return line, scope, err
}
