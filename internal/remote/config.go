package remote

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// A ConfigError lists every problem of an ssh_config file, or of what it
// says about one host.
type ConfigError struct {
	Problems []string // each as file:line: reason, or as a reason about a host
}

func (e *ConfigError) Error() string { return strings.Join(e.Problems, "\n") }

// config is a parsed ssh_config file: the lines of each Host block in the
// order of the file. A line before the first Host belongs to every host.
type config struct {
	name  string
	lines []configLine
}

type configLine struct {
	no       int
	patterns []string // of the Host block; nil = every host
	key      string   // lower case
	args     []string
}

// hop is everything needed to connect to one host.
type hop struct {
	alias        string // as named in the target or in ProxyJump, without user and port
	host         string // resolved HostName
	port         int
	user         string
	hostKeyAlias string
	identities   []string
	idsOnly      bool
	knownHosts   []string // nil = not set
	jump         []string // ProxyJump; nil = none
	timeout      time.Duration
	alive        time.Duration
	aliveCount   int
}

func (h *hop) addr() string { return net.JoinHostPort(h.host, strconv.Itoa(h.port)) }
func (h *hop) who() string  { return h.user + "@" + h.addr() }

// keywords are the ones understood, with the most arguments each takes
// (0 = any number). Never written to.
var keywords = map[string]int{
	"host": 0, "hostname": 1, "port": 1, "user": 1, "identityfile": 1, "identitiesonly": 1,
	"userknownhostsfile": 0, "hostkeyalias": 1, "proxyjump": 1, "connecttimeout": 1,
	"serveraliveinterval": 1, "serveralivecountmax": 1, "stricthostkeychecking": 1,
}

// parseConfig reads an ssh_config file strictly. What ssh would honour and we
// would not is an error, so that a connection never takes another way than
// the operator's own ssh does.
func parseConfig(name string, src []byte) (*config, error) {
	c := &config{name: name}
	var problems []string
	var patterns []string
	for i, raw := range strings.Split(string(src), "\n") {
		no := i + 1
		bad := func(format string, a ...any) {
			problems = append(problems, fmt.Sprintf("%s:%d: ", name, no)+fmt.Sprintf(format, a...))
		}
		words, err := splitConfig(strings.TrimRight(raw, "\r"))
		if err != nil {
			bad("%v", err)
			continue
		}
		if len(words) == 0 {
			continue
		}
		key, args := strings.ToLower(words[0]), words[1:]
		limit, ok := keywords[key]
		switch {
		case !ok:
			bad("keyword %s is not supported; put the hosts of this tool into an ssh_config of their own", words[0])
			continue
		case len(args) == 0 || args[0] == "":
			bad("%s has no value", words[0])
			continue
		case limit > 0 && len(args) > limit:
			bad("%s has %d values, want %d", words[0], len(args), limit)
			continue
		}
		if key == "host" {
			patterns = args
			continue
		}
		if msg := checkConfig(key, args); msg != "" {
			bad("%s", msg)
			continue
		}
		c.lines = append(c.lines, configLine{no: no, patterns: patterns, key: key, args: args})
	}
	if problems != nil {
		return nil, &ConfigError{Problems: problems}
	}
	return c, nil
}

// checkConfig says what is wrong with the value of a keyword.
func checkConfig(key string, args []string) string {
	v := args[0]
	switch key {
	case "port":
		if n, err := strconv.Atoi(v); err != nil || n < 1 || n > 65535 {
			return fmt.Sprintf("Port %q is no port number", v)
		}
	case "connecttimeout", "serveraliveinterval", "serveralivecountmax":
		if n, err := strconv.Atoi(v); err != nil || n < 0 || n > 1<<20 {
			return fmt.Sprintf("%q is no number of seconds or times", v)
		}
	case "identitiesonly":
		if l := strings.ToLower(v); l != "yes" && l != "no" {
			return fmt.Sprintf("IdentitiesOnly %q is neither yes nor no", v)
		}
	case "stricthostkeychecking":
		// "ask" is treated as yes: nobody is there to be asked.
		if l := strings.ToLower(v); l != "yes" && l != "ask" {
			return fmt.Sprintf("StrictHostKeyChecking %s is refused: host keys are always verified; use yes", v)
		}
	case "proxyjump":
		if strings.EqualFold(v, "none") {
			return ""
		}
		for _, j := range strings.Split(v, ",") {
			if _, _, _, err := splitTarget(j); err != nil {
				return fmt.Sprintf("ProxyJump: %v", err)
			}
		}
	case "hostname", "identityfile", "userknownhostsfile":
		allowed := "%h"
		if key != "hostname" {
			allowed = "%h %d %r %n %p"
		}
		for _, a := range args {
			if _, err := expand(a, nil); err != nil {
				return err.Error()
			}
			if key == "hostname" {
				for i := 0; i+1 < len(a); i++ {
					if a[i] == '%' {
						if a[i+1] != 'h' && a[i+1] != '%' {
							return fmt.Sprintf("token %q is not supported in HostName, only %s", a[i:i+2], allowed)
						}
						i++
					}
				}
			}
		}
	}
	return ""
}

// splitConfig splits a line into words: blanks or one "=" after the keyword,
// quotes, backslash before a quote, a backslash or a blank, "#" ends the line.
func splitConfig(line string) ([]string, error) {
	var words []string
	i := 0
	blank := func() {
		for i < len(line) && strings.IndexByte(" \t\f\v", line[i]) >= 0 {
			i++
		}
	}
	for {
		blank()
		if len(words) == 1 && i < len(line) && line[i] == '=' {
			i++
			blank()
		}
		if i >= len(line) || line[i] == '#' {
			return words, nil
		}
		var w strings.Builder
		quote := byte(0)
	word:
		for ; i < len(line); i++ {
			ch := line[i]
			switch {
			case ch == '\\' && i+1 < len(line) && (strings.IndexByte(`'"\`, line[i+1]) >= 0 || quote == 0 && line[i+1] == ' '):
				i++
				w.WriteByte(line[i])
			case quote == 0 && (ch == ' ' || ch == '\t'):
				break word
			case quote == 0 && ch == '=' && len(words) == 0:
				break word
			case quote == 0 && (ch == '"' || ch == '\''):
				quote = ch
			case quote != 0 && ch == quote:
				quote = 0
			case ch == 0:
				return nil, errors.New("the line holds a NUL byte")
			default:
				w.WriteByte(ch)
			}
		}
		if quote != 0 {
			return nil, fmt.Errorf("quote %c is not closed", quote)
		}
		words = append(words, w.String())
	}
}

// expand replaces ~/ and %-tokens; h nil = only check.
func expand(s string, h *hop) (string, error) {
	if strings.Contains(s, "${") {
		return "", fmt.Errorf("environment variables as in %q are not supported", s)
	}
	home := ""
	if h != nil && (strings.HasPrefix(s, "~") || strings.Contains(s, "%d")) {
		var err error
		if home, err = os.UserHomeDir(); err != nil {
			return "", fmt.Errorf("cannot expand %q: %w", s, err)
		}
	}
	var b strings.Builder
	if strings.HasPrefix(s, "~") {
		if s != "~" && s[1] != '/' {
			return "", fmt.Errorf("the home directory of another user, as in %q, is not supported", s)
		}
		b.WriteString(home)
		s = s[1:]
	}
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		i++
		if i >= len(s) {
			return "", fmt.Errorf("%q ends with a lone %%", s)
		}
		var v string
		switch s[i] {
		case '%':
			v = "%"
		case 'd':
			v = home
		case 'h', 'n', 'r', 'p':
			if h != nil {
				v = map[byte]string{'h': h.host, 'n': h.alias, 'r': h.user, 'p': strconv.Itoa(h.port)}[s[i]]
			}
		default:
			return "", fmt.Errorf("token %%%c in %q is not supported", s[i], s)
		}
		b.WriteString(v)
	}
	return b.String(), nil
}

// splitTarget reads [ssh://][user@]host[:port]. Port 0 = not given. An IPv6
// address with a port needs brackets.
func splitTarget(target string) (user, host string, port int, err error) {
	rest := strings.TrimSuffix(strings.TrimPrefix(target, "ssh://"), "/")
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		user, rest = rest[:i], rest[i+1:]
		if user == "" {
			return "", "", 0, fmt.Errorf("target %q has an empty user", target)
		}
	}
	host = rest
	p := ""
	switch {
	case strings.HasPrefix(rest, "["):
		end := strings.IndexByte(rest, ']')
		if end < 0 || end+1 < len(rest) && rest[end+1] != ':' {
			return "", "", 0, fmt.Errorf("target %q: the bracket is not closed", target)
		}
		host = rest[1:end]
		if end+1 < len(rest) {
			p = rest[end+2:]
			if p == "" {
				p = "-"
			}
		}
	case strings.Count(rest, ":") == 1:
		host, p, _ = strings.Cut(rest, ":")
		if p == "" {
			p = "-"
		}
	}
	if p != "" {
		if port, err = strconv.Atoi(p); err != nil || port < 1 || port > 65535 {
			return "", "", 0, fmt.Errorf("target %q: %q is no port number", target, p)
		}
	}
	// A leading "-" would be an option to ssh; blanks and the like are never a
	// host name and would break the texts the name is put into.
	if host == "" || host[0] == '-' || strings.ContainsAny(host, " \t\r\n\x00/,@'\"\\*?!|#") {
		return "", "", 0, fmt.Errorf("target %q names no host", target)
	}
	return user, host, port, nil
}

// matchHost reports whether a Host line's patterns apply to an alias.
func matchHost(patterns []string, alias string) bool {
	if patterns == nil {
		return true
	}
	found := false
	for _, p := range patterns {
		neg := strings.HasPrefix(p, "!")
		if matchPattern(strings.ToLower(strings.TrimPrefix(p, "!")), strings.ToLower(alias)) {
			if neg {
				return false
			}
			found = true
		}
	}
	return found
}

// matchPattern matches * and ? as ssh does, without exponential cases.
func matchPattern(p, s string) bool {
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
	for j < len(p) && p[j] == '*' {
		j++
	}
	return j == len(p)
}

// resolve says how to reach a target. As in ssh, the first value found wins,
// except that identity files add up.
func (c *config) resolve(target string) (*hop, error) {
	user, alias, port, err := splitTarget(target)
	if err != nil {
		return nil, &ConfigError{Problems: []string{err.Error()}}
	}
	h := &hop{alias: alias, user: user, port: port}
	seen := map[string]bool{"user": user != "", "port": port != 0}
	var name string
	var identities, known []string
	for _, l := range c.lines {
		if !matchHost(l.patterns, alias) || seen[l.key] {
			continue
		}
		seen[l.key] = l.key != "identityfile"
		v := l.args[0]
		num, _ := strconv.Atoi(v) // checked when the file was read
		switch l.key {
		case "hostname":
			name = v
		case "port":
			h.port = num
		case "user":
			h.user = v
		case "identityfile":
			identities = append(identities, v)
		case "identitiesonly":
			h.idsOnly = strings.EqualFold(v, "yes")
		case "userknownhostsfile":
			known = l.args
		case "hostkeyalias":
			h.hostKeyAlias = v
		case "proxyjump":
			if !strings.EqualFold(v, "none") {
				h.jump = strings.Split(v, ",")
			}
		case "connecttimeout":
			h.timeout = time.Duration(num) * time.Second
		case "serveraliveinterval":
			h.alive = time.Duration(num) * time.Second
		case "serveralivecountmax":
			h.aliveCount = num
		}
	}
	if h.port == 0 {
		h.port = 22
	}
	h.host = alias
	if name != "" {
		h.host = strings.NewReplacer("%%", "%", "%h", alias).Replace(name)
	}
	h.identities = identities
	if known != nil {
		h.knownHosts = append([]string{}, known...)
	}
	return h, nil
}

// expandFiles replaces the tokens of file names, once the user is known.
func (h *hop) expandFiles() error {
	for _, list := range [][]string{h.identities, h.knownHosts} {
		for i, f := range list {
			v, err := expand(f, h)
			if err != nil {
				return &ConfigError{Problems: []string{fmt.Sprintf("host %s: %v", h.alias, err)}}
			}
			list[i] = v
		}
	}
	return nil
}

// chain returns the hosts to go through, the target last.
func (c *config) chain(target string) ([]*hop, error) {
	return c.chainFrom(target, nil)
}

func (c *config) chainFrom(target string, path []string) ([]*hop, error) {
	h, err := c.resolve(target)
	if err != nil {
		return nil, err
	}
	for _, p := range path {
		if p == h.alias {
			return nil, &ConfigError{Problems: []string{fmt.Sprintf("%s: ProxyJump goes in a circle: %s",
				c.name, strings.Join(append(path, h.alias), " → "))}}
		}
	}
	if h.jump == nil {
		return []*hop{h}, nil
	}
	// Only the first jump host is reached by its own ProxyJump; the others
	// are reached from the one before them.
	hops, err := c.chainFrom(h.jump[0], append(path, h.alias))
	if err != nil {
		return nil, err
	}
	for _, j := range h.jump[1:] {
		next, err := c.resolve(j)
		if err != nil {
			return nil, err
		}
		hops = append(hops, next)
	}
	hops = append(hops, h)
	seen := map[string]bool{}
	for _, x := range hops {
		k := x.user + "@" + x.addr() + " " + x.alias
		if seen[k] {
			return nil, &ConfigError{Problems: []string{fmt.Sprintf("%s: ProxyJump to %s goes through %s twice", c.name, target, x.alias)}}
		}
		seen[k] = true
	}
	return hops, nil
}
