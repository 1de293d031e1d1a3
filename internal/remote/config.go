package remote

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
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

// foreignError says that ssh would understand all that we do not.
type foreignError struct{ err *ConfigError }

func (e *foreignError) Error() string { return e.err.Error() }
func (e *foreignError) Unwrap() error { return e.err }

// config is what ssh_config files say: their lines in the order of the files,
// each with the Host and Match blocks it stands in. A line before the first
// block belongs to every host.
type config struct {
	name  string
	lines []configLine
}

type configLine struct {
	no   int
	when []criterion // all must hold
	key  string      // lower case
	args []string
}

// criterion is a Host line or one condition of a Match line.
type criterion struct {
	kind     string // host (of Host, the name as given), originalhost, hostname, user, localuser
	patterns []string
	not      bool
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
	globalKnown  []string // nil = not set
	certs        []string // certificate files
	agentSocket  string   // file name; empty = as the environment says, "none" = no agent
	proxyCommand string   // empty = none
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
	"host": 0, "match": 0, "include": 0, "hostname": 1, "port": 1, "user": 1, "identityfile": 1, "identitiesonly": 1,
	"userknownhostsfile": 0, "globalknownhostsfile": 0, "hostkeyalias": 1, "proxyjump": 1, "connecttimeout": 1,
	"serveraliveinterval": 1, "serveralivecountmax": 1, "stricthostkeychecking": 1, "certificatefile": 1,
	"identityagent": 1, "proxycommand": 1,
}

// harmless are keywords that change neither the way to a host nor who is
// trusted, so that they can be passed over. Never written to.
var harmless = map[string]bool{
	"addkeystoagent": true, "batchmode": true, "checkhostip": true, "compression": true,
	"controlmaster": true, "controlpath": true, "controlpersist": true, "dynamicforward": true, "escapechar": true,
	"exitonforwardfailure": true, "fingerprinthash": true, "forwardagent": true, "forwardx11": true,
	"forwardx11timeout": true, "forwardx11trusted": true, "gssapiauthentication": true, "gssapidelegatecredentials": true,
	"hashknownhosts": true, "localforward": true, "loglevel": true, "numberofpasswordprompts": true, "remoteforward": true,
	"requesttty": true, "sendenv": true, "tcpkeepalive": true, "updatehostkeys": true, "usekeychain": true,
	"visualhostkey": true, "xauthlocation": true,
}

// includeDepth is how deep files may include each other, as in ssh.
const includeDepth = 16

var commandLine = regexp.MustCompile(`(?i)^[ \t]*proxycommand(?:[ \t]*=[ \t]*|[ \t]+)(.*)$`)

// parser reads ssh_config files.
type parser struct {
	c        *config
	base     string // directory of relative Include names
	problems []string
	foreign  bool // every problem is something ssh would understand
}

// parseConfig reads an ssh_config file strictly. What ssh would honour and we
// would not is an error, so that a connection never takes another way than
// the operator's own ssh does.
func parseConfig(name string, src []byte) (*config, error) {
	p := &parser{c: &config{name: name}, foreign: true}
	if home, err := os.UserHomeDir(); err == nil {
		p.base = filepath.Join(home, ".ssh")
	}
	p.parse(name, src, nil, 0)
	return p.done()
}

func (p *parser) done() (*config, error) {
	if p.problems != nil {
		err := &ConfigError{Problems: p.problems}
		if p.foreign {
			return nil, &foreignError{err}
		}
		return nil, err
	}
	return p.c, nil
}

func (p *parser) parse(name string, src []byte, outer []criterion, depth int) {
	when := outer
	for i, raw := range strings.Split(string(src), "\n") {
		no := i + 1
		bad := func(format string, a ...any) {
			p.foreign = false
			p.problems = append(p.problems, fmt.Sprintf("%s:%d: ", name, no)+fmt.Sprintf(format, a...))
		}
		// unsupported is for what ssh can tell us.
		unsupported := func(format string, a ...any) {
			p.problems = append(p.problems, fmt.Sprintf("%s:%d: ", name, no)+fmt.Sprintf(format, a...))
		}
		raw = strings.TrimRight(raw, "\r")
		words, err := splitConfig(raw)
		if m := commandLine.FindStringSubmatch(raw); m != nil { // the rest is for a shell, as it is
			words, err = []string{"proxycommand", strings.TrimSpace(m[1])}, nil
		}
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
		case !ok && harmless[key]:
			continue
		case !ok:
			unsupported("keyword %s is not supported; put the hosts of this tool into an ssh_config of their own", words[0])
			continue
		case len(args) == 0 || args[0] == "":
			bad("%s has no value", words[0])
			continue
		case limit > 0 && len(args) > limit:
			bad("%s has %d values, want %d", words[0], len(args), limit)
			continue
		}
		switch key {
		case "host":
			when = append(outer[:len(outer):len(outer)], criterion{kind: "host", patterns: args})
			continue
		case "match":
			conds, err := parseMatch(args)
			if err != nil {
				unsupported("%v", err)
				// Its lines belong to nobody, and the file is refused anyway.
			}
			when = append(outer[:len(outer):len(outer)], conds...)
			continue
		case "include":
			if err := p.include(args, when, depth); err != nil {
				bad("%v", err)
			}
			continue
		}
		if msg := checkConfig(key, args); msg != "" {
			if strings.Contains(msg, "not supported") {
				unsupported("%s", msg)
			} else {
				bad("%s", msg)
			}
			continue
		}
		p.c.lines = append(p.c.lines, configLine{no: no, when: when, key: key, args: args})
	}
}

// include reads the files of an Include line. As in ssh, a pattern that
// matches nothing is no error, and relative names begin at ~/.ssh (in the
// system's file at /etc/ssh).
func (p *parser) include(args []string, when []criterion, depth int) error {
	if depth >= includeDepth {
		//lint:ignore ST1005 the keyword
		return fmt.Errorf("Include goes deeper than %d files", includeDepth)
	}
	for _, a := range args {
		name, err := expand(a, &hop{})
		if err != nil {
			return err
		}
		if strings.Contains(a, "%") {
			return fmt.Errorf("tokens as in Include %q are not supported", a)
		}
		if !filepath.IsAbs(name) {
			name = filepath.Join(p.base, name)
		}
		files, err := filepath.Glob(name)
		if err != nil {
			//lint:ignore ST1005 the keyword
			return fmt.Errorf("Include %q: %w", a, err)
		}
		for _, f := range files { // sorted
			src, err := os.ReadFile(f)
			if err != nil {
				return fmt.Errorf("cannot read the included file: %w", err)
			}
			p.parse(f, src, when, depth+1)
		}
	}
	return nil
}

// parseMatch reads the conditions of a Match line.
func parseMatch(args []string) ([]criterion, error) {
	var l []criterion
	for i := 0; i < len(args); i++ {
		kind, value, eq := strings.Cut(strings.ToLower(args[i]), "=")
		not := strings.HasPrefix(kind, "!")
		kind = strings.TrimPrefix(kind, "!")
		switch kind {
		case "all":
			if len(args) > 1 || not {
				//lint:ignore ST1005 the keyword
				return nil, errors.New("Match all with other conditions is not supported")
			}
			return nil, nil
		case "host", "originalhost", "user", "localuser":
		default:
			//lint:ignore ST1005 the keyword
			return nil, fmt.Errorf("Match %s is not supported; put the hosts of this tool into an ssh_config of their own", args[i])
		}
		if eq {
			_, value, _ = strings.Cut(args[i], "=") // as written
		} else if i++; i < len(args) {
			value = args[i]
		}
		if value == "" {
			//lint:ignore ST1005 the keyword
			return nil, fmt.Errorf("Match %s has no value", kind)
		}
		if kind == "host" {
			kind = "hostname"
		}
		l = append(l, criterion{kind: kind, patterns: strings.Split(value, ","), not: not})
	}
	return l, nil
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
	case "identityagent":
		if strings.HasPrefix(v, "$") {
			return fmt.Sprintf("the variable in IdentityAgent %s is not supported", v)
		}
		if _, err := expand(v, nil); err != nil {
			return err.Error()
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
	case "hostname", "identityfile", "userknownhostsfile", "globalknownhostsfile", "certificatefile":
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
		case 'u':
			v = localUser()
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

// matchHost reports whether the patterns of a known_hosts line apply to a
// host.
func matchHost(patterns []string, host string) bool { return matchPatterns(patterns, host, true) }

// matchPatterns reports whether one of patterns matches s and none that begins
// with "!" does. fold = whatever the case.
func matchPatterns(patterns []string, s string, fold bool) bool {
	lower := func(s string) string {
		if fold {
			return strings.ToLower(s)
		}
		return s
	}
	found := false
	for _, p := range patterns {
		neg := strings.HasPrefix(p, "!")
		if matchPattern(lower(strings.TrimPrefix(p, "!")), lower(s)) {
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
	var name, login string
	local := func() string {
		if login == "" {
			login = localUser()
		}
		return login
	}
	holds := func(k criterion) bool {
		subject := alias // Host minds the case, Match takes it in lower case
		switch k.kind {
		case "originalhost":
			subject = strings.ToLower(alias)
		case "hostname":
			if name != "" {
				subject = hostName(name, alias)
			}
			subject = strings.ToLower(subject)
		case "user":
			if subject = h.user; subject == "" {
				subject = local()
			}
		case "localuser":
			subject = local()
		}
		return matchPatterns(k.patterns, subject, false) != k.not
	}
	// A block is decided about where it begins: its own lines must not change
	// the answer.
	var last *criterion
	var applies bool
	for _, l := range c.lines {
		if len(l.when) == 0 {
			applies, last = true, nil
		} else if block := &l.when[len(l.when)-1]; block != last {
			applies, last = true, block
			for _, k := range l.when {
				applies = applies && holds(k)
			}
		}
		many := l.key == "identityfile" || l.key == "certificatefile"
		if !applies || seen[l.key] || l.key == "proxycommand" && seen["proxyjump"] || l.key == "proxyjump" && seen["proxycommand"] {
			continue
		}
		seen[l.key] = !many
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
			h.identities = append(h.identities, v)
		case "certificatefile":
			h.certs = append(h.certs, v)
		case "identitiesonly":
			h.idsOnly = strings.EqualFold(v, "yes")
		case "identityagent":
			if v != "SSH_AUTH_SOCK" {
				h.agentSocket = v
			}
		case "userknownhostsfile":
			h.knownHosts = append([]string{}, l.args...)
		case "globalknownhostsfile":
			h.globalKnown = append([]string{}, l.args...)
		case "hostkeyalias":
			h.hostKeyAlias = v
		case "proxyjump":
			if !strings.EqualFold(v, "none") {
				h.jump = strings.Split(v, ",")
			}
		case "proxycommand":
			if !strings.EqualFold(v, "none") {
				h.proxyCommand = v
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
		h.host = hostName(name, alias)
	}
	return h, nil
}

// hostName expands the tokens of a HostName.
func hostName(name, alias string) string {
	return strings.NewReplacer("%%", "%", "%h", alias).Replace(name)
}

// localUser is the login name of the user running this program, empty if
// nobody knows it.
func localUser() string {
	u, err := user.Current()
	if err != nil {
		return ""
	}
	if i := strings.LastIndexByte(u.Username, '\\'); i >= 0 { // DOMAIN\user on Windows
		return u.Username[i+1:]
	}
	return u.Username
}

// expandFiles replaces the tokens of file names, once the user is known.
func (h *hop) expandFiles() error {
	if h.agentSocket != "" && h.agentSocket != "none" {
		v, err := expand(h.agentSocket, h)
		if err != nil {
			return &ConfigError{Problems: []string{fmt.Sprintf("host %s: %v", h.alias, err)}}
		}
		h.agentSocket = v
	}
	for _, list := range [][]string{h.identities, h.knownHosts, h.globalKnown, h.certs} {
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

// chainFrom follows ProxyJump: it gives the hosts to go through, the target last.
// name is the file to blame.
func chainFrom(name string, resolve func(target string) (*hop, error), target string, path []string) ([]*hop, error) {
	h, err := resolve(target)
	if err != nil {
		return nil, err
	}
	for _, p := range path {
		if p == h.alias {
			return nil, &ConfigError{Problems: []string{fmt.Sprintf("%s: ProxyJump goes in a circle: %s",
				name, strings.Join(append(path, h.alias), " → "))}}
		}
	}
	if h.jump == nil {
		return []*hop{h}, nil
	}
	// Only the first jump host is reached by its own ProxyJump; the others
	// are reached from the one before them.
	hops, err := chainFrom(name, resolve, h.jump[0], append(path, h.alias))
	if err != nil {
		return nil, err
	}
	for _, j := range h.jump[1:] {
		next, err := resolve(j)
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
			return nil, &ConfigError{Problems: []string{fmt.Sprintf("%s: ProxyJump to %s goes through %s twice", name, target, x.alias)}}
		}
		seen[k] = true
	}
	return hops, nil
}
