package hostinv

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxHostsFile is the most that is read of a file that lists hosts.
const maxHostsFile = 16 << 20

// position is a place in a file; lines and columns begin at 1.
type position struct {
	file      string
	line, col int
}

func (p position) String() string { return fmt.Sprintf("%s:%d:%d", p.file, p.line, p.col) }

// problems collects what is wrong, to be said all at once.
type problems []string

func (p *problems) add(at position, format string, a ...any) {
	*p = append(*p, at.String()+": "+fmt.Sprintf(format, a...))
}

func (p problems) err() error {
	if len(p) == 0 {
		return nil
	}
	return &ConfigError{Problems: p}
}

// MergeHosts joins lists of hosts into one without repetition, in their order.
// A host that stands in several lists counts once; the same name for two
// targets is an error, because results are told apart by name.
func MergeHosts(lists ...[]FleetHost) ([]FleetHost, error) {
	var out []FleetHost
	at := map[string]int{}
	var bad problems
	for _, h := range slices.Concat(lists...) {
		i, ok := at[h.Name]
		switch {
		case !ok:
			at[h.Name] = len(out)
			out = append(out, h)
		case out[i].Address() != h.Address() || out[i].Identity != h.Identity:
			bad = append(bad, fmt.Sprintf("host %s means %s (%s) and %s (%s); give one of them another name",
				h.Name, out[i].Address(), origin(out[i]), h.Address(), origin(h)))
		}
	}
	if err := bad.err(); err != nil {
		return nil, err
	}
	return out, nil
}

func origin(h FleetHost) string {
	if h.Source == "" {
		return "an argument"
	}
	return h.Source
}

// ArgumentHosts returns the hosts named by arguments, each as for Dialer.Dial.
func ArgumentHosts(args []string) ([]FleetHost, error) {
	var out []FleetHost
	var bad problems
	for _, a := range args {
		if err := checkTarget(a); err != nil {
			bad = append(bad, err.Error())
			continue
		}
		out = append(out, FleetHost{Name: a, Target: a})
	}
	if err := bad.err(); err != nil {
		return nil, err
	}
	return out, nil
}

// ParseHosts reads a list of hosts: one a line, each as for Dialer.Dial. Empty
// lines and what follows a # at the beginning of a line or after a blank do
// not count. name is the file's, for errors, which are *ConfigError with every
// bad line as file:line:col.
func ParseHosts(name string, src []byte) ([]FleetHost, error) {
	var out []FleetHost
	var bad problems
	first := map[string]int{}
	for i, line := range lines(src) {
		at := position{name, i + 1, 1}
		if col, why := badText(line); why != "" {
			at.col = col
			bad.add(at, "%s", why)
			continue
		}
		text := line
		for j := 0; j < len(line); j++ {
			if line[j] == '#' && (j == 0 || line[j-1] == ' ' || line[j-1] == '\t') {
				text = line[:j]
				break
			}
		}
		words := strings.Fields(text)
		if len(words) == 0 {
			continue
		}
		at.col = strings.Index(text, words[0]) + 1
		if len(words) > 1 {
			at.col += len(words[0]) + strings.Index(text[at.col-1+len(words[0]):], words[1])
			bad.add(at, "%q follows the host; one host a line", words[1])
			continue
		}
		if err := checkTarget(words[0]); err != nil {
			bad.add(at, "%v", err)
			continue
		}
		if n := first[words[0]]; n != 0 {
			bad.add(at, "host %s stands in line %d already", words[0], n)
			continue
		}
		first[words[0]] = i + 1
		out = append(out, FleetHost{Name: words[0], Target: words[0], Source: fmt.Sprintf("%s:%d", name, i+1)})
	}
	if err := bad.err(); err != nil {
		return nil, err
	}
	return out, nil
}

// LoadHosts reads a file as ParseHosts does.
func LoadHosts(name string) ([]FleetHost, error) {
	src, err := readLimited(name)
	if err != nil {
		return nil, fmt.Errorf("cannot read the list of hosts: %w", err)
	}
	return ParseHosts(name, src)
}

// readLimited reads a regular file that is not too large: a device never ends.
func readLimited(name string) ([]byte, error) {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, fmt.Errorf("%s is a directory, not a file", name)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", name)
	case info.Size() > maxHostsFile:
		return nil, fmt.Errorf("%s has %d bytes, more than the %d that are read", name, info.Size(), maxHostsFile)
	}
	return os.ReadFile(name)
}

// lines splits at line feeds, with or without a carriage return before. A byte
// order mark at the beginning does not count.
func lines(src []byte) []string {
	l := strings.Split(strings.TrimPrefix(string(src), "\ufeff"), "\n")
	for i := range l {
		l[i] = strings.TrimSuffix(l[i], "\r")
	}
	return l
}

// badText says where a line holds what no list of hosts holds.
func badText(line string) (col int, why string) {
	for i, r := range line {
		switch {
		case r == utf8.RuneError:
			return i + 1, "the line is not UTF-8"
		case r != '\t' && unicode.IsControl(r):
			return i + 1, fmt.Sprintf("control character %U", r)
		}
	}
	return 0, ""
}

// checkTarget refuses what Dialer.Dial would, before anything is connected to.
func checkTarget(target string) error {
	rest := strings.TrimSuffix(strings.TrimPrefix(target, "ssh://"), "/")
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		if err := checkUser(rest[:i]); err != nil {
			return fmt.Errorf("target %q: %w", target, err)
		}
		rest = rest[i+1:]
	}
	host := rest
	switch {
	case strings.HasPrefix(rest, "["), strings.Count(rest, ":") == 1:
		var port string
		var err error
		if strings.HasPrefix(rest, "[") && strings.HasSuffix(rest, "]") {
			host = rest[1 : len(rest)-1]
			break
		}
		if host, port, err = net.SplitHostPort(rest); err != nil {
			return fmt.Errorf("target %q is not [USER@]HOST[:PORT]", target)
		}
		if err := checkPort(port); err != nil {
			return fmt.Errorf("target %q: %w", target, err)
		}
	}
	if err := checkHost(host); err != nil {
		return fmt.Errorf("target %q: %w", target, err)
	}
	return nil
}

// checkHost accepts host names, aliases of ssh_config and addresses. A leading
// "-" would be an option to ssh.
func checkHost(h string) error {
	if strings.Contains(h, ":") {
		if _, err := netip.ParseAddr(h); err != nil {
			return fmt.Errorf("%q is no host name and no address", h)
		}
		return nil
	}
	if h == "" || h[0] == '-' || strings.ContainsFunc(h, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || strings.ContainsRune("/,@'\"\\*?!|#[](){}<>$&;`=~^%", r)
	}) {
		return fmt.Errorf("%q is no host name", h)
	}
	return nil
}

func checkUser(u string) error {
	if u == "" || u[0] == '-' || strings.ContainsFunc(u, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || strings.ContainsRune("'\"`;&<>|(){}$:/#*?!", r)
	}) {
		return fmt.Errorf("%q is no user name", u)
	}
	return nil
}

func checkPort(p string) error {
	if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 || p[0] == '0' || p[0] == '+' {
		return fmt.Errorf("%q is no port number", p)
	}
	return nil
}

// ListSSHHosts returns the hosts that an ssh_config file and the files it
// includes name one by one in Host lines, and whose name one of the patterns
// matches (* and ? as in ssh_config, ! before one to leave out), in the order
// of the files. Host lines with * or ? name no host. How a host is reached is
// not read here. No match at all is an error.
func ListSSHHosts(configFile string, patterns ...string) ([]FleetHost, error) {
	l := sshLister{patterns: patterns, matched: make([]bool, len(patterns)), seen: map[string]bool{}}
	if err := l.file(configFile, 0); err != nil {
		return nil, err
	}
	if err := l.bad.err(); err != nil {
		return nil, err
	}
	for i, p := range patterns {
		if !l.matched[i] && !strings.HasPrefix(p, "!") {
			return nil, fmt.Errorf("no Host line of %s names a host that matches %q", configFile, p)
		}
	}
	return l.out, nil
}

type sshLister struct {
	patterns []string
	matched  []bool
	seen     map[string]bool
	out      []FleetHost
	bad      problems
}

// maxInclude is OpenSSH's own limit.
const maxInclude = 16

func (l *sshLister) file(name string, depth int) error {
	src, err := readLimited(name)
	if err != nil {
		return fmt.Errorf("cannot read ssh_config: %w", err)
	}
	for i, line := range lines(src) {
		at := position{name, i + 1, 1}
		words, err := sshWords(line)
		if err != nil {
			l.bad.add(at, "%v", err)
			continue
		}
		if len(words) < 2 {
			continue
		}
		switch strings.ToLower(words[0]) {
		case "host":
			for _, h := range words[1:] {
				l.host(h, fmt.Sprintf("%s:%d", name, i+1))
			}
		case "include":
			if depth == maxInclude {
				l.bad.add(at, "files include one another more than %d deep", maxInclude)
				continue
			}
			for _, pattern := range words[1:] {
				files, err := includes(name, pattern)
				if err != nil {
					l.bad.add(at, "%v", err)
				}
				for _, f := range files {
					if err := l.file(f, depth+1); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

// includes lists the files of an Include: relative ones are in ~/.ssh, or in
// /etc/ssh for the system's file.
func includes(from, pattern string) ([]string, error) {
	home, err := os.UserHomeDir()
	rest, tilde := strings.CutPrefix(pattern, "~/")
	switch {
	case tilde:
		pattern = filepath.Join(home, rest)
	case strings.HasPrefix(pattern, "~"), strings.Contains(pattern, "${"), strings.Contains(pattern, "%"):
		return nil, fmt.Errorf("include %q: users, variables and tokens are not supported", pattern)
	case !filepath.IsAbs(pattern) && strings.HasPrefix(filepath.ToSlash(from), "/etc/ssh/"):
		pattern, err = filepath.Join("/etc/ssh", pattern), nil
	case !filepath.IsAbs(pattern):
		pattern = filepath.Join(home, ".ssh", pattern)
	default:
		err = nil
	}
	if err != nil {
		return nil, fmt.Errorf("include %q: %w", pattern, err)
	}
	files, err := filepath.Glob(pattern) // sorted; none is no error, as in ssh
	if err != nil {
		return nil, fmt.Errorf("include %q: %w", pattern, err)
	}
	return files, nil
}

func (l *sshLister) host(name, source string) {
	if l.seen[name] || strings.ContainsAny(name, "*?!") || checkHost(name) != nil {
		return
	}
	take := false
	for i, p := range l.patterns {
		p, not := strings.CutPrefix(p, "!")
		if !glob(p, name) {
			continue
		}
		if not {
			return
		}
		take, l.matched[i] = true, true
	}
	if take {
		l.seen[name] = true
		l.out = append(l.out, FleetHost{Name: name, Target: name, Source: source})
	}
}

// sshWords splits a line of ssh_config: blanks or one = after the keyword,
// double quotes around words, # begins a comment.
func sshWords(line string) ([]string, error) {
	var words []string
	rest := strings.TrimSpace(line)
	for rest != "" && rest[0] != '#' {
		if rest[0] == '"' {
			word, after, ok := strings.Cut(rest[1:], `"`)
			if !ok {
				return nil, fmt.Errorf("a quote is not closed")
			}
			words, rest = append(words, word), after
		} else {
			end := strings.IndexAny(rest, " \t")
			if len(words) == 0 {
				end = strings.IndexAny(rest, " \t=")
			}
			if end < 0 {
				end = len(rest)
			}
			words, rest = append(words, rest[:end]), rest[end:]
		}
		rest = strings.TrimLeft(rest, " \t")
		if len(words) == 1 {
			rest = strings.TrimLeft(strings.TrimPrefix(rest, "="), " \t")
		}
	}
	return words, nil
}

// glob matches * and ? against a whole name, in linear memory and without
// exponential cases.
func glob(p, s string) bool {
	star, mark := -1, 0
	i, j := 0, 0
	for i < len(s) {
		switch {
		case j < len(p) && p[j] == '*':
			star, mark = j, i
			j++
		case j < len(p) && (p[j] == '?' || p[j] == s[i]):
			i++
			j++
		case star >= 0:
			mark++
			i, j = mark, star+1
		default:
			return false
		}
	}
	return strings.Trim(p[j:], "*") == ""
}
