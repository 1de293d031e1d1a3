package upgrade

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// The values of the enumerated settings of a Config.
const (
	// ProcedureTransition moves traffic to a transition host made from an
	// image of the production host while that one is upgraded.
	ProcedureTransition = "transition"
	// ProcedureRebuild replaces the management nodes of a role, such as the
	// proxies, by new virtual machines beside the old ones.
	ProcedureRebuild = "rebuild"

	// BalancersAuto looks for the production instance on every load balancer
	// of the region; BalancersNone asks none.
	BalancersAuto = "auto"
	BalancersNone = "none"

	// PathsAuto asks the cloud for other ways to the host; PathsNone does not.
	PathsAuto = "auto"
	PathsNone = "none"

	// The kinds of a Service: Java processes and those of another program
	// that were started by hand, a Compose project, a single container, a
	// systemd unit, a program of supervisord.
	KindJava       = "java"
	KindProcess    = "process"
	KindCompose    = "compose"
	KindContainer  = "container"
	KindUnit       = "unit"
	KindSupervisor = "supervisor"

	// The strategies of an OSConfig; docs/os.md describes them.
	StrategyYumUpdate = string(hostos.YumUpdate)
	StrategySecurity  = string(hostos.Security)
	StrategyKernel    = string(hostos.KernelOnly)
	StrategyApt       = string(hostos.Apt)
	StrategyScript    = string(hostos.Script)
	StrategyExternal  = string(hostos.External)

	// DockerUpgrade replaces the distribution's Docker by docker-ce as
	// section 3.5 of the runbook does; DockerKeep leaves it alone.
	DockerUpgrade = "upgrade"
	DockerKeep    = "keep"

	// ProfileRunbook adds the runbook's settings to daemon.json; ProfileKeep
	// adds none.
	ProfileRunbook = "runbook"
	ProfileKeep    = "keep"
)

// maxConfigSize bounds what ParseConfig looks at. A hand-written file is a
// few kilobytes; a larger one is the wrong file.
const maxConfigSize = 1 << 20

// configSections are the sections of the runbook, in order: each has a step
// and can therefore have a gate.
var configSections = [...]string{
	"2.1", "2.2", "2.3", "2.4", "2.5", "2.6", "2.7",
	"3.1", "3.2", "3.3", "3.4", "3.5", "3.6", "3.7", "3.8", "3.9", "3.10", "3.11",
	"4.1", "4.2", "4.3", "4.4", "4.5", "4.6", "4.7", "4.8", "4.9",
	"5.1", "5.2", "5.3",
}

// Config is what upgrade.yaml says: one procedure on one production host.
// Every field is filled in by LoadConfig and ParseConfig, with its default
// where the file is silent. docs/config.md describes the keys.
type Config struct {
	// Dir is the directory of the file; relative paths in it start here
	// (LoadConfig has made them absolute already, ParseConfig has not).
	// It is not part of the content and not serialised.
	Dir string `json:"-"`

	Version   int    `json:"version"`             // always 1
	Procedure string `json:"procedure"`           // ProcedureTransition or ProcedureRebuild
	Host      string `json:"host"`                // SSH target of the production host, or of the firstbox: alias, address or user@host:port
	Instance  string `json:"instance,omitempty"`  // its ECS instance; empty: found by Address
	Address   string `json:"address,omitempty"`   // its private address; empty: the instance's
	Balancers string `json:"balancers,omitempty"` // BalancersAuto or BalancersNone

	Cloud      CloudConfig      `json:"cloud"`
	SSH        SSHConfig        `json:"ssh"`
	Nginx      []NginxHost      `json:"nginx,omitempty"`
	Services   []Service        `json:"services,omitempty"`
	Transition TransitionConfig `json:"transition"`
	OS         OSConfig         `json:"os"`
	Docker     DockerConfig     `json:"docker"`
	Snapshots  SnapshotConfig   `json:"snapshots"`
	Paths      PathsConfig      `json:"paths"`
	State      string           `json:"state,omitempty"`  // StateExternal, StateAccepted; empty: there is none, or it refuses the plan
	Accept     []string         `json:"accept,omitempty"` // findings that a person takes on: ID, or ID:OBJECT for one alone
	Weights    WeightsConfig    `json:"weights"`
	Health     HealthConfig     `json:"health"`
	Gates      []string         `json:"gates"` // sections before which a person is asked; empty: none
	Pace       Pace             `json:"pace"`

	Approvals *ApprovalConfig `json:"approvals,omitempty"` // nil: whoever runs it approves

	Rebuild *RebuildConfig `json:"rebuild,omitempty"` // of ProcedureRebuild only
}

// CloudConfig says which cloud to talk to. It holds no credentials: those
// come from the environment or from the profile.
type CloudConfig struct {
	Region   string `json:"region,omitempty"`   // empty: ALIBABA_CLOUD_REGION_ID
	Endpoint string `json:"endpoint,omitempty"` // empty: the public ones; http only on loopback
	Profile  string `json:"profile,omitempty"`  // of ~/.aliyun/config.json; empty: the current one
}

// SSHConfig says how hosts are reached.
type SSHConfig struct {
	Config     string   `json:"config,omitempty"`      // an ssh_config file or "none"; empty: the user's own
	KnownHosts []string `json:"known_hosts,omitempty"` // nil: the user's own

	Sudo             bool   `json:"sudo,omitempty"`               // become root with sudo on every host
	SudoPasswordFile string `json:"sudo_password_file,omitempty"` // mode 0600; empty: sudo must ask for none
	PasswordFile     string `json:"password_file,omitempty"`      // login password, mode 0600; empty: keys only
	PassphraseFile   string `json:"passphrase_file,omitempty"`    // of encrypted private keys, mode 0600
	AllowSHA1        bool   `json:"allow_sha1,omitempty"`         // for servers that know nothing better
}

// NginxHost is a host whose nginx may send traffic to the production host.
type NginxHost struct {
	Host string `json:"host"` // SSH target
	Conf string `json:"conf"` // main file; default /etc/nginx/nginx.conf
}

// TransitionConfig describes the host that serves meanwhile.
type TransitionConfig struct {
	Instance       string           `json:"instance,omitempty"` // an existing instance to adopt; empty: made from an image
	Name           string           `json:"name"`               // instance name of a new one
	PublicIP       bool             `json:"public_ip"`          // whether a new one gets a public address
	AutoRelease    time.Duration    `json:"auto_release"`       // the cloud deletes it after so long while no traffic reaches it; 0: never
	SSH            string           `json:"ssh"`                // SSH target; "{address}" is replaced by its private address
	ReleaseAdopted bool             `json:"release_adopted"`    // whether an adopted one may be released in 5.3
	Quarantine     QuarantineConfig `json:"quarantine"`         // what a new one must not run
}

// OSConfig says how the operating system is upgraded.
type OSConfig struct {
	Strategy string `json:"strategy"`         // StrategyYumUpdate, …Security, …Kernel, …Apt, …Script or …External
	Script   string `json:"script,omitempty"` // of StrategyScript: a file on this machine, run as root on the host
	// Instructions tell a person what to do, of StrategyExternal: the gate before
	// the step shows them.
	Instructions string   `json:"instructions,omitempty"`
	Vault        string   `json:"vault,omitempty"`       // URL of a tree of CentOS 7 that still exists, down to the release; empty: repositories stay as they are
	ExcludeOK    []string `json:"exclude_ok,omitempty"`  // excludes, locks and holds that are meant, as they are written on the host
	UnitsOK      []string `json:"units_ok,omitempty"`    // units that may have failed after the upgrade
	AllowDrift   bool     `json:"allow_drift,omitempty"` // production resolves its own transaction, and may end with other packages than the transition host
	Kernel       string   `json:"kernel,omitempty"`      // that must run afterwards; empty: the transaction's
	Release      string   `json:"release,omitempty"`     // text that the release must contain afterwards
	Docker       string   `json:"docker"`                // DockerUpgrade or DockerKeep
	Reboot       bool     `json:"reboot"`                // whether the host is rebooted afterwards
}

// DockerConfig says how Docker is replaced when OSConfig.Docker is
// DockerUpgrade.
type DockerConfig struct {
	RepoURL     string `json:"repo_url,omitempty"`    // of the package repository's file; "none": the host's own; empty: hostos.DockerRepoURL
	RepoSHA256  string `json:"repo_sha256,omitempty"` // of that file, hex; empty: not compared
	Package     string `json:"package,omitempty"`     // empty: docker-ce
	Version     string `json:"version,omitempty"`     // exact, such as 20.10.24; empty: the newest
	Profile     string `json:"profile"`               // ProfileRunbook, ProfileKeep, or a file with settings to add to daemon.json
	ChmodSocket bool   `json:"chmod_socket"`          // every user may use the daemon's socket, and is root through it
	Down        bool   `json:"down"`                  // Compose projects are taken down first; their writable layers are lost
}

// SnapshotConfig says how long snapshots live. The procedure never deletes
// them itself.
type SnapshotConfig struct {
	RetentionDays int `json:"retention_days"` // days, at least 1
}

// PathsConfig says where other ways to the host than balancers and nginx are
// looked for, and which allow lists know its address.
type PathsConfig struct {
	Check   string   `json:"check"`             // PathsAuto or PathsNone
	Domains []string `json:"domains,omitempty"` // names looked up besides those of the account's DNS
	Accept  []string `json:"accept,omitempty"`  // IDs of findings that a person has judged harmless
}

// WeightsConfig says by which weights a host enters and leaves a group.
type WeightsConfig struct {
	Up   []int `json:"up"`   // before the recorded one, rising
	Down []int `json:"down"` // before 0, falling; those that are not below the recorded one are left out
}

// Pace says how often is looked and how long is waited.
type Pace struct {
	Poll         time.Duration `json:"poll"`          // between two questions to the cloud
	Sample       time.Duration `json:"sample"`        // between two samples of an observation
	Observe      int           `json:"observe"`       // samples in a row that prove arrival or silence
	Timeout      time.Duration `json:"timeout"`       // longest wait on a host or for silence
	JobTimeout   time.Duration `json:"job_timeout"`   // longest wait for a package transaction
	CloudTimeout time.Duration `json:"cloud_timeout"` // without progress of a snapshot or an image
}

// Path returns name as a path that does not depend on the file's place:
// relative names start at c.Dir. The empty name stays empty.
func (c *Config) Path(name string) string {
	if name == "" || filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(c.Dir, name)
}

// resolve makes the paths of c absolute: a plan made from it must mean the
// same files wherever it is applied.
func (c *Config) resolve() error {
	var err error
	if c.Dir, err = filepath.Abs(c.Dir); err != nil {
		return err
	}
	paths := []*string{&c.SSH.SudoPasswordFile, &c.SSH.PasswordFile, &c.SSH.PassphraseFile, &c.OS.Script}
	if c.SSH.Config != "none" {
		paths = append(paths, &c.SSH.Config)
	}
	if c.Docker.Profile != ProfileRunbook && c.Docker.Profile != ProfileKeep {
		paths = append(paths, &c.Docker.Profile)
	}
	for i := range c.SSH.KnownHosts {
		paths = append(paths, &c.SSH.KnownHosts[i])
	}
	for _, p := range paths {
		if rest, ok := strings.CutPrefix(*p, "~/"); ok {
			home, err := os.UserHomeDir()
			if err != nil {
				return err
			}
			*p = filepath.Join(home, rest)
		}
		*p = c.Path(*p)
	}
	return nil
}

// A Problem is one thing wrong with a configuration file.
type Problem struct {
	File string `json:"file"`
	Line int    `json:"line"` // from 1
	Col  int    `json:"col"`  // from 1, in characters
	Path string `json:"path"` // key, as services[0].ports; empty: the whole file
	Text string `json:"text"` // what is wrong and what to do
}

// String returns the problem as file:line:col: key: text.
func (p Problem) String() string {
	s := fmt.Sprintf("%s:%d:%d: ", p.File, p.Line, p.Col)
	if p.Path != "" {
		s += p.Path + ": "
	}
	return s + p.Text
}

// A ConfigError reports every problem of a configuration file, in the order
// of their positions. Problems is never empty.
type ConfigError struct{ Problems []Problem }

// Error returns the problems, one a line.
func (e *ConfigError) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// LoadConfig reads the file at path, parses it and makes the paths in it
// absolute: they start at the file's directory, or at the user's home when
// they begin with "~/". Problems with its content
// are a *ConfigError; a file that cannot be read gives the error of os.Open.
func LoadConfig(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the configuration: %w", err)
	}
	defer f.Close()
	// One byte more than is allowed, so that ParseConfig sees the excess.
	data, err := io.ReadAll(io.LimitReader(f, maxConfigSize+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read the configuration: %w", err)
	}
	c, err := ParseConfig(path, data)
	if err != nil {
		return nil, err
	}
	if err := c.resolve(); err != nil {
		return nil, fmt.Errorf("cannot resolve the paths in %s: %w", path, err)
	}
	if err := c.loadSigners(); err != nil {
		return nil, err
	}
	return c, nil
}

// ParseConfig parses the content of a configuration file. It reads nothing
// else: name is used for positions and for Config.Dir only, and paths stay as
// they are written. All problems are
// reported at once as a *ConfigError.
func ParseConfig(name string, data []byte) (*Config, error) {
	d := &configDecoder{file: name}
	c := &Config{Dir: filepath.Dir(name)}
	if root := d.document(data); root != nil {
		d.config(root, c)
	}
	if len(d.problems) > 0 {
		d.clamp(data)
		slices.SortStableFunc(d.problems, func(a, b Problem) int {
			if a.Line != b.Line {
				return a.Line - b.Line
			}
			return a.Col - b.Col
		})
		return nil, &ConfigError{Problems: d.problems}
	}
	return c, nil
}

// configDecoder walks the YAML nodes itself instead of decoding into structs:
// that is what gives each problem the position of the value that caused it,
// and lets an int be judged as it was written.
type configDecoder struct {
	file     string
	problems []Problem
}

func (d *configDecoder) add(line, col int, path, format string, args ...any) {
	d.problems = append(d.problems, Problem{
		File: d.file, Line: max(line, 1), Col: max(col, 1),
		Path: path, Text: fmt.Sprintf(format, args...),
	})
}

func (d *configDecoder) at(n *yaml.Node, path, format string, args ...any) {
	d.add(n.Line, n.Column, path, format, args...)
}

// document returns the root mapping, or nil after a problem that leaves
// nothing to look at.
func (d *configDecoder) document(data []byte) *yaml.Node {
	if len(data) > maxConfigSize {
		d.add(1, 1, "", "is larger than %d bytes: not a configuration file", maxConfigSize)
		return nil
	}
	if i := invalidUTF8(data); i >= 0 {
		line := bytes.Count(data[:i], []byte("\n"))
		col := utf8.RuneCount(data[bytes.LastIndexByte(data[:i], '\n')+1 : i])
		d.add(line+1, col+1, "", "is not UTF-8 text")
		return nil
	}
	l, err := yaml.NewLoader(bytes.NewReader(data))
	if err != nil {
		d.add(1, 1, "", "cannot be read as YAML: %v", err)
		return nil
	}
	var doc, more yaml.Node
	switch err := l.Load(&doc); {
	case errors.Is(err, io.EOF) || err == nil && len(doc.Content) == 0:
		d.add(1, 1, "", "is empty; docs/config.md has an example")
		return nil
	case err != nil:
		d.syntax(err)
		return nil
	}
	switch err := l.Load(&more); {
	case errors.Is(err, io.EOF):
	case err != nil:
		d.syntax(err)
		return nil
	default:
		d.at(&more, "", "a second document starts here; a file holds one procedure")
	}
	return doc.Content[0]
}

// clamp moves positions behind the end of a line or of the text, which the
// scanner gives for what it misses there, to that end: an editor can jump to
// every position reported.
func (d *configDecoder) clamp(data []byte) {
	lines := bytes.Split(data, []byte("\n"))
	for i := range d.problems {
		p := &d.problems[i]
		p.Line = min(p.Line, len(lines))
		p.Col = min(p.Col, utf8.RuneCount(lines[p.Line-1])+1)
	}
}

func (d *configDecoder) syntax(err error) {
	line, col, text := 1, 1, err.Error()
	var le *yaml.LoadError
	if errors.As(err, &le) {
		text = le.Message
		if le.ContextMsg != "" {
			text = le.ContextMsg + ": " + text
		}
		line, col = le.Mark.Line, le.Mark.Column
	}
	d.add(line, col, "", "not valid YAML: %s", text)
}

func invalidUTF8(data []byte) int {
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

// mapping holds the values of one YAML mapping by key.
type mapping struct {
	d      *configDecoder
	node   *yaml.Node
	path   string
	values map[string]*yaml.Node // null values are left out: as if not written
}

// mapping reports unknown and repeated keys of n. Its result is usable even
// when n is something else: then it is empty.
func (d *configDecoder) mapping(n *yaml.Node, path string, keys ...string) mapping {
	m := mapping{d: d, node: n, path: path, values: map[string]*yaml.Node{}}
	if n == nil {
		return m
	}
	if n.Kind != yaml.MappingNode {
		d.at(n, path, "must be a mapping of keys to values, not %s", kindOf(n))
		return m
	}
	seen := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode {
			d.at(k, path, "a key must be a plain word, not %s", kindOf(k))
			continue
		}
		p := join(path, k.Value)
		if first := seen[k.Value]; first != nil {
			d.at(k, p, "is given twice; the first is on line %d", first.Line)
			continue
		}
		seen[k.Value] = k
		if !slices.Contains(keys, k.Value) {
			d.at(k, join(path, clip(k.Value)), "unknown key%s", hint(k.Value, keys))
			continue
		}
		switch {
		case v.Kind == yaml.AliasNode:
			d.at(v, p, "aliases are not supported; write the value out")
		case v.Kind == yaml.ScalarNode && v.ShortTag() == "!!null":
		default:
			m.values[k.Value] = v
		}
	}
	return m
}

func (m mapping) has(key string) bool { return m.values[key] != nil }

// need reports keys that are missing, at the head of the mapping.
func (m mapping) need(why string, keys ...string) {
	for _, k := range keys {
		if m.node != nil && m.node.Kind == yaml.MappingNode && !m.has(k) && !m.failed(k) {
			m.d.at(m.node, join(m.path, k), "is missing%s", why)
		}
	}
}

// failed says whether the key already has a problem: one is enough.
func (m mapping) failed(key string) bool {
	p := join(m.path, key)
	return slices.ContainsFunc(m.d.problems, func(q Problem) bool { return q.Path == p })
}

func (m mapping) problem(key, format string, args ...any) {
	m.d.at(m.values[key], join(m.path, key), format, args...)
}

// text reads a string and checks it with ok, which says what is expected.
func (m mapping) text(key, def string, check ...func(string) string) string {
	n := m.values[key]
	if n == nil {
		return def
	}
	s, good := m.d.str(n, join(m.path, key))
	if !good {
		return def
	}
	if s == "" {
		return def
	}
	for _, f := range check {
		if want := f(s); want != "" {
			m.problem(key, "%s %s", quote(s), want)
			return def
		}
	}
	return s
}

func (m mapping) enum(key, def string, values ...string) string {
	return m.text(key, def, func(s string) string {
		if slices.Contains(values, s) {
			return ""
		}
		return "is not one of " + strings.Join(values, ", ") + nearest(s, values)
	})
}

func (m mapping) boolean(key string, def bool) bool {
	n := m.values[key]
	if n == nil {
		return def
	}
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!bool" {
		switch n.Value {
		case "true":
			return true
		case "false":
			return false
		}
	}
	m.problem(key, "must be true or false, not %s", kindOf(n))
	return def
}

func (m mapping) integer(key string, def, low, high int) int {
	n := m.values[key]
	if n == nil {
		return def
	}
	i, ok := m.d.integer(n, join(m.path, key), low, high)
	if !ok {
		return def
	}
	return i
}

func (m mapping) duration(key string, def, low time.Duration, zero bool) time.Duration {
	n := m.values[key]
	if n == nil {
		return def
	}
	example := short(cmp.Or(def, 30*time.Second))
	if n.Kind != yaml.ScalarNode {
		m.problem(key, "must be a duration such as %s, not %s", example, kindOf(n))
		return def
	}
	v, err := time.ParseDuration(n.Value)
	switch {
	case err != nil && decimal.MatchString(n.Value):
		m.problem(key, "%s has no unit; write %ss, %sm or %sh", quote(n.Value), clip(n.Value), clip(n.Value), clip(n.Value))
	case err != nil:
		m.problem(key, "%s is not a duration; write one such as %s (units: ms, s, m, h)", quote(n.Value), example)
	case zero && v == 0:
		return 0
	case v < low:
		or := ""
		if zero {
			or = ", or 0 for never"
		}
		m.problem(key, "%s is too short: at least %s%s", quote(n.Value), short(low), or)
	default:
		return v
	}
	return def
}

// list calls each for every item of a sequence; a value that is none is a
// problem.
func (m mapping) list(key string, each func(n *yaml.Node, path string)) {
	n := m.values[key]
	if n == nil {
		return
	}
	p := join(m.path, key)
	if n.Kind != yaml.SequenceNode {
		m.d.at(n, p, "must be a list, not %s", kindOf(n))
		return
	}
	for i, item := range n.Content {
		ip := fmt.Sprintf("%s[%d]", p, i)
		if item.Kind == yaml.AliasNode {
			m.d.at(item, ip, "aliases are not supported; write the value out")
			continue
		}
		each(item, ip)
	}
}

func (d *configDecoder) str(n *yaml.Node, path string) (string, bool) {
	if n.Kind != yaml.ScalarNode {
		d.at(n, path, "must be text, not %s", kindOf(n))
		return "", false
	}
	if n.ShortTag() != "!!str" {
		d.at(n, path, "must be text, not %s; put it in quotes", kindOf(n))
		return "", false
	}
	if i := strings.IndexFunc(n.Value, func(r rune) bool { return r < ' ' || r == 0x7f }); i >= 0 {
		d.at(n, path, "must be one line of text without control characters")
		return "", false
	}
	return n.Value, true
}

var (
	decimal   = regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`)
	leadZero  = regexp.MustCompile(`^[-+]?0[0-9]+$`)
	otherBase = regexp.MustCompile(`^[-+]?0[xXoObB]|_`)
)

func (d *configDecoder) integer(n *yaml.Node, path string, low, high int) (int, bool) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() == "!!str" && !leadZero.MatchString(n.Value) {
		d.at(n, path, "must be a whole number, not %s", kindOf(n))
		return 0, false
	}
	switch v := n.Value; {
	case leadZero.MatchString(v):
		// YAML 1.1 reads 010 as eight and YAML 1.2 as ten: refused, not guessed.
		d.at(n, path, "%s has a leading zero, which some read as octal; write it without", quote(v))
		return 0, false
	case otherBase.MatchString(v):
		d.at(n, path, "%s must be written in plain decimal digits", quote(v))
		return 0, false
	case !decimal.MatchString(v):
		d.at(n, path, "must be a whole number, not %s", kindOf(n))
		return 0, false
	}
	i, err := strconv.Atoi(n.Value)
	if err != nil || i < low || i > high {
		want := fmt.Sprintf("%d to %d", low, high)
		if low == high {
			want = strconv.Itoa(low)
		}
		d.at(n, path, "%s is out of range: it must be %s", quote(n.Value), want)
		return 0, false
	}
	return i, true
}

// config fills c from the root mapping.
func (d *configDecoder) config(n *yaml.Node, c *Config) {
	if procedureOf(n) == ProcedureRebuild {
		d.rebuild(n, c)
		return
	}
	m := d.mapping(n, "", "version", "procedure", "host", "instance", "address", "cloud", "ssh",
		"nginx", "balancers", "services", "transition", "os", "docker", "snapshots", "paths", "state", "accept", "weights", "health", "gates", "approvals", "pace")
	d.head(m, c, "the production host")
	c.Instance = m.text("instance", "", checkInstance)
	hostName := targetHost(c.Host)
	c.Address = m.text("address", "", checkAddress)
	if !m.has("address") && checkAddress(hostName) == "" {
		c.Address = hostName
	}
	c.Balancers = m.enum("balancers", BalancersAuto, BalancersAuto, BalancersNone)

	s := d.mapping(m.values["cloud"], "cloud", "region", "endpoint", "profile")
	c.Cloud.Region = s.text("region", "", matches(`^[a-z]+(-[a-z0-9]+)+$`, "is not a region such as cn-hangzhou"))
	c.Cloud.Endpoint = s.text("endpoint", "", checkEndpoint)
	c.Cloud.Profile = s.text("profile", "")

	d.ssh(m, c)

	hosts := map[string]int{}
	m.list("nginx", func(n *yaml.Node, path string) {
		s := d.mapping(n, path, "host", "conf")
		s.need(": the SSH target of a host that runs nginx", "host")
		h := NginxHost{
			Host: s.text("host", "", checkTarget),
			Conf: s.text("conf", "/etc/nginx/nginx.conf", checkAbs),
		}
		if h.Host != "" {
			key := h.Host + "\x00" + h.Conf
			if line, dup := hosts[key]; dup {
				s.problem("host", "%s is listed twice; the first is on line %d", quote(h.Host), line)
			} else {
				hosts[key] = s.values["host"].Line
			}
		}
		c.Nginx = append(c.Nginx, h)
	})

	d.services(m, c)
	d.transition(m, c, hostName)

	d.os(m, c)

	d.docker(m, c)

	s = d.mapping(m.values["snapshots"], "snapshots", "retention_days")
	c.Snapshots.RetentionDays = s.integer("retention_days", 7, 1, 65536)

	s = d.mapping(m.values["paths"], "paths", "check", "domains", "accept")
	c.Paths.Check = s.enum("check", PathsAuto, PathsAuto, PathsNone)
	d.words(s, "domains", matches(`^[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)+$`, "is not a domain name"), &c.Paths.Domains)
	d.words(s, "accept", func(w string) string { return pick(w == "", "is empty") }, &c.Paths.Accept)

	c.State = m.enum("state", "", StateExternal, StateAccepted)
	d.words(m, "accept", acceptCheck, &c.Accept)

	s = d.mapping(m.values["weights"], "weights", "up", "down")
	c.Weights.Up = d.weights(s, "up", []int{1, 10}, func(a, b int) bool { return a < b })
	c.Weights.Down = d.weights(s, "down", []int{50, 10, 1}, func(a, b int) bool { return a > b })

	d.health(m, c)
	d.gates(m, c, configSections[:], []string{"4.1", "4.4", "5.3"}, "docs/transition.md")
	d.approvals(m, c)
	d.pace(m, c)
}

// docker reads how Docker is replaced.
func (d *configDecoder) docker(m mapping, c *Config) {
	s := d.mapping(m.values["docker"], "docker", "repo_url", "repo_sha256", "package", "version", "profile", "chmod_socket", "down")
	c.Docker = DockerConfig{
		RepoURL: s.text("repo_url", "", func(v string) string {
			u, err := url.Parse(v)
			return pick(v != "none" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil), "is neither none nor an http or https address without a password")
		}),
		RepoSHA256:  s.text("repo_sha256", "", matches(`^[0-9a-f]{64}$`, "is not a SHA-256 in lower-case hex")),
		Package:     s.text("package", "", matches(`^[A-Za-z0-9][A-Za-z0-9._+-]*$`, "is not the name of a package")),
		Version:     s.text("version", "", matches(`^[0-9][A-Za-z0-9._+:~-]*$`, "is not a version such as 20.10.24")),
		Profile:     s.text("profile", ProfileRunbook),
		ChmodSocket: s.boolean("chmod_socket", false),
		Down:        s.boolean("down", false),
	}
	if c.Docker.Profile == "" {
		c.Docker.Profile = ProfileRunbook
	}
}

// os reads how the operating system is upgraded.
func (d *configDecoder) os(m mapping, c *Config) {
	s := d.mapping(m.values["os"], "os", "strategy", "script", "instructions", "vault", "exclude_ok", "units_ok", "allow_drift", "kernel", "release", "docker", "reboot")
	c.OS.Strategy = s.enum("strategy", StrategyYumUpdate, StrategyYumUpdate, StrategySecurity, StrategyKernel, StrategyApt, StrategyScript, StrategyExternal)
	c.OS.Script = s.text("script", "")
	switch {
	case c.OS.Strategy == StrategyScript && c.OS.Script == "":
		s.need(": strategy script needs the file to run", "script")
		if s.has("script") && !s.failed("script") {
			s.problem("script", "is empty: strategy script needs the file to run")
		}
	case c.OS.Strategy != StrategyScript && c.OS.Script != "" && !s.failed("strategy"):
		s.problem("script", "is used by strategy script only, not by %s", c.OS.Strategy)
	}
	c.OS.Instructions = s.text("instructions", "")
	c.OS.Kernel = s.text("kernel", "", matches(`^[0-9][A-Za-z0-9._+~-]*$`, "is not a kernel's release as uname -r prints it"))
	c.OS.Release = s.text("release", "")
	switch {
	case c.OS.Strategy == StrategyExternal:
		s.need(": strategy external needs to tell a person what to do", "instructions")
		if c.OS.Kernel == "" && c.OS.Release == "" && !s.failed("kernel") && !s.failed("release") {
			s.problem("strategy", "external is proved by what is there afterwards: give release, kernel, or both")
		}
	case c.OS.Instructions != "" && !s.failed("strategy"):
		s.problem("instructions", "is used by strategy external only, not by %s", c.OS.Strategy)
	}
	c.OS.Vault = s.text("vault", "", matches(`^https?://[A-Za-z0-9.-]+(:[0-9]+)?(/[A-Za-z0-9._~-]+)+$`, "is not the URL of a tree such as https://mirrors.aliyun.com/centos-vault/7.9.2009, without a slash at its end"))
	word := func(w string) string { return pick(w == "" || strings.ContainsAny(w, " \t\n"), "is no single word") }
	d.words(s, "exclude_ok", word, &c.OS.ExcludeOK)
	d.words(s, "units_ok", word, &c.OS.UnitsOK)
	c.OS.AllowDrift = s.boolean("allow_drift", false)
	c.OS.Docker = s.enum("docker", DockerUpgrade, DockerUpgrade, DockerKeep)
	c.OS.Reboot = s.boolean("reboot", true)
}

// head reads what the files of all procedures begin with.
func (d *configDecoder) head(m mapping, c *Config, host string) {
	m.need("; this is version 1", "version")
	m.need(": "+ProcedureTransition+" or "+ProcedureRebuild, "procedure")
	m.need(": the SSH target of "+host, "host")
	c.Version = m.integer("version", 1, 1, 1)
	c.Procedure = m.enum("procedure", ProcedureTransition, ProcedureTransition, ProcedureRebuild)
	c.Host = m.text("host", "", checkTarget)
	if m.has("host") && c.Host == "" && !m.failed("host") {
		m.problem("host", "is empty: give the SSH target of %s", host)
	}
}

// procedureOf looks for the key that decides which others there may be.
func procedureOf(n *yaml.Node) string {
	if n.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == "procedure" {
				return n.Content[i+1].Value
			}
		}
	}
	return ""
}

func (d *configDecoder) ssh(m mapping, c *Config) {
	s := d.mapping(m.values["ssh"], "ssh", "config", "known_hosts", "sudo", "sudo_password_file", "password_file", "passphrase_file", "allow_sha1")
	c.SSH.Config = s.text("config", "")
	c.SSH.Sudo = s.boolean("sudo", false)
	c.SSH.SudoPasswordFile = s.text("sudo_password_file", "")
	if c.SSH.SudoPasswordFile != "" && !c.SSH.Sudo {
		s.problem("sudo_password_file", "needs sudo: true")
	}
	c.SSH.PasswordFile = s.text("password_file", "")
	c.SSH.PassphraseFile = s.text("passphrase_file", "")
	c.SSH.AllowSHA1 = s.boolean("allow_sha1", false)
	s.list("known_hosts", func(n *yaml.Node, path string) {
		if f, ok := d.str(n, path); ok && f == "" {
			d.at(n, path, "is empty: give the name of a known_hosts file")
		} else if ok {
			c.SSH.KnownHosts = append(c.SSH.KnownHosts, f)
		}
	})
}

func (d *configDecoder) gates(m mapping, c *Config, sections, def []string, doc string) {
	c.Gates = []string{}
	if !m.has("gates") {
		c.Gates = def
	}
	m.list("gates", func(n *yaml.Node, path string) {
		// 4.1 is a float to YAML; what counts is how it was written, or
		// 3.10 would become 3.1.
		switch {
		case n.Kind != yaml.ScalarNode || n.ShortTag() == "!!null" || n.ShortTag() == "!!bool":
			d.at(n, path, "must be a section such as 4.1, not %s", kindOf(n))
		case !slices.Contains(sections, n.Value):
			d.at(n, path, "%s is not a section of the procedure; %s lists them", quote(n.Value), doc)
		case slices.Contains(c.Gates, n.Value):
			d.at(n, path, "%s is listed twice", quote(n.Value))
		default:
			c.Gates = append(c.Gates, n.Value)
		}
	})
}

func (d *configDecoder) pace(m mapping, c *Config) {
	s := d.mapping(m.values["pace"], "pace", "poll", "sample", "observe", "timeout", "job_timeout", "cloud_timeout")
	c.Pace = Pace{
		Poll:         s.duration("poll", 3*time.Second, time.Millisecond, false),
		Sample:       s.duration("sample", time.Second, time.Millisecond, false),
		Observe:      s.integer("observe", 10, 1, 100000),
		Timeout:      s.duration("timeout", 30*time.Minute, time.Second, false),
		JobTimeout:   s.duration("job_timeout", 3*time.Hour, time.Second, false),
		CloudTimeout: s.duration("cloud_timeout", 2*time.Hour, time.Second, false),
	}
	if c.Pace.Timeout < time.Duration(c.Pace.Observe)*c.Pace.Sample {
		n, key := s.values["timeout"], "timeout"
		if n == nil {
			n, key = s.node, "observe"
		}
		d.at(n, join("pace", key), "%d samples of %s do not fit into a timeout of %s",
			c.Pace.Observe, short(c.Pace.Sample), short(c.Pace.Timeout))
	}
}

func (d *configDecoder) transition(m mapping, c *Config, hostName string) {
	s := d.mapping(m.values["transition"], "transition",
		"instance", "name", "public_ip", "auto_release", "ssh", "release_adopted", "quarantine")
	t := &c.Transition
	t.Instance = s.text("instance", "", checkInstance)
	if t.Instance != "" && t.Instance == c.Instance {
		s.problem("instance", "%s is the production instance itself", quote(t.Instance))
	}
	// An instance name starts with a letter, an address does not.
	name := hostName + "-transition"
	if nameCheck(name) != "" || checkAddress(hostName) == "" {
		name = "transition-" + strings.ReplaceAll(hostName, ":", "-")
	}
	t.Name = s.text("name", name, nameCheck)
	t.PublicIP = s.boolean("public_ip", false)
	// The cloud refuses a release time less than half an hour away.
	t.AutoRelease = s.duration("auto_release", 24*time.Hour, 30*time.Minute, true)
	t.SSH = s.text("ssh", "{address}", func(v string) string {
		return checkTarget(strings.ReplaceAll(v, "{address}", "192.0.2.1"))
	})
	if t.Instance != "" {
		d.adoptedServices(m, c)
	}
	t.ReleaseAdopted = s.boolean("release_adopted", false)
	if t.ReleaseAdopted && t.Instance == "" && !s.failed("instance") {
		s.problem("release_adopted", "needs transition.instance: a host made by the run is always released")
	}
	if s.has("quarantine") && t.Instance != "" && !s.failed("instance") {
		s.problem("quarantine", "is for a host that the run makes, not for transition.instance")
	}
	q := d.mapping(s.values["quarantine"], "transition.quarantine", "hold", "allow", "security_group")
	unit := matches(`^[A-Za-z0-9][A-Za-z0-9:_.@-]*$`, "is not the name of a systemd unit such as crond")
	d.words(q, "hold", unit, &t.Quarantine.Hold)
	d.words(q, "allow", func(w string) string {
		if w == "*" {
			return ""
		}
		return unit(w)
	}, &t.Quarantine.Allow)
	for _, u := range t.Quarantine.Hold {
		if t.Quarantine.allows(fullUnit(u)) {
			q.problem("hold", "holds back %s, which transition.quarantine.allow lets run", quote(u))
		}
		base := strings.TrimSuffix(u, ".service")
		for _, sv := range c.Services {
			switch {
			case sv.Kind == KindUnit && base == strings.TrimSuffix(sv.Unit, ".service"):
				q.problem("hold", "holds back %s, which is the service %s", quote(u), sv.Name)
			case (sv.Kind == KindCompose || sv.Kind == KindContainer) && slices.Contains(dockerUnits[:], base):
				q.problem("hold", "holds back %s for good, which the service %s needs; security_group keeps a first boot from reaching anybody", quote(u), sv.Name)
			}
		}
	}
	t.Quarantine.SecurityGroup = q.text("security_group", "", matches(`^sg-[A-Za-z0-9-]+$`, "is not the ID of a security group, sg-…"))
}

// dockerUnits are what containers cannot be without.
var dockerUnits = [...]string{"docker", "docker.socket", "containerd"}

// words reads a list of different words that pass check.
func (d *configDecoder) words(m mapping, key string, check func(string) string, to *[]string) {
	m.list(key, func(n *yaml.Node, path string) {
		w, ok := d.str(n, path)
		switch {
		case !ok:
		case check(w) != "":
			d.at(n, path, "%s %s", quote(w), check(w))
		case slices.Contains(*to, w):
			d.at(n, path, "%s is listed twice", quote(w))
		default:
			*to = append(*to, w)
		}
	})
}

// weights reads a list of weights from 1 to 100, each in order after the one
// before it. An empty list is one step at once.
func (d *configDecoder) weights(m mapping, key string, def []int, order func(a, b int) bool) []int {
	if !m.has(key) {
		return def
	}
	out := []int{}
	m.list(key, func(n *yaml.Node, path string) {
		w, ok := d.integer(n, path, 1, 100)
		switch {
		case !ok:
		case len(out) > 0 && !order(out[len(out)-1], w):
			d.at(n, path, "%d does not follow %d: %s weights %s", w, out[len(out)-1], key, map[bool]string{true: "rise", false: "fall"}[order(1, 2)])
		default:
			out = append(out, w)
		}
	})
	return out
}

// nameCheck holds the cloud's rule for names of instances.
func nameCheck(s string) string {
	return matches(`^\pL[\pL0-9:_.-]{1,127}$`, "is not an instance name: 2 to 128 letters, digits, '.', '-', '_' or ':', a letter first")(s)
}

func checkInstance(s string) string {
	return matches(`^i-[A-Za-z0-9-]+$`, "is not an instance ID: it looks like i-bp1…")(s)
}

func checkAbs(s string) string {
	if !strings.HasPrefix(s, "/") {
		return "must be an absolute path on the host"
	}
	return ""
}

func checkAddress(s string) string {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() {
		return "is not an IP address of a host"
	}
	return ""
}

var target = regexp.MustCompile(`^(?:([A-Za-z_][A-Za-z0-9_.-]*)@)?([A-Za-z0-9_][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+\])(?::([0-9]+))?$`)

// checkTarget accepts alias, address and user@host:port. What could be taken
// for an option or for shell syntax does not pass.
func checkTarget(s string) string {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return ""
	}
	g := target.FindStringSubmatch(s)
	if g == nil {
		return "is not an SSH target: an alias, an address or user@host:port"
	}
	if p, err := strconv.ParseUint(g[3], 10, 16); g[3] != "" && (err != nil || p == 0) {
		return "has a port that is not between 1 and 65535"
	}
	if h := strings.Trim(g[2], "[]"); looksNumeric(h) || h != g[2] {
		if _, err := netip.ParseAddr(h); err != nil {
			return "looks like an address but is none"
		}
	}
	return ""
}

// looksNumeric catches addresses with a typing error (172.31.0.900, 10.0.0)
// before they are looked up as names.
func looksNumeric(s string) bool {
	return strings.Contains(s, ".") && strings.Trim(s, "0123456789.") == ""
}

// targetHost returns the host part of an SSH target.
func targetHost(s string) string {
	if _, err := netip.ParseAddr(s); err == nil {
		return s
	}
	g := target.FindStringSubmatch(s)
	if g == nil {
		return s
	}
	return strings.Trim(g[2], "[]")
}

func checkEndpoint(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http" {
		return "is not a URL such as https://host"
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/" {
		return "must be scheme and host only"
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			return "has a port that is not between 1 and 65535"
		}
	}
	if u.Scheme == "http" {
		// Requests carry a signature, not the secret, but user data and
		// command output would be readable.
		a, err := netip.ParseAddr(u.Hostname())
		if u.Hostname() != "localhost" && (err != nil || !a.IsLoopback()) {
			return "must be https: plain http is for loopback only"
		}
	}
	return ""
}

func matches(expr, want string) func(string) string {
	re := regexp.MustCompile(expr)
	return func(s string) string {
		if re.MatchString(s) {
			return ""
		}
		return want
	}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// short prints 2h0m0s as 2h.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func clip(s string) string {
	if utf8.RuneCountInString(s) > 60 {
		s = string([]rune(s)[:60]) + "…"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
}

func quote(s string) string { return strconv.Quote(clip(s)) }

func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	switch n.ShortTag() {
	case "!!int":
		return "the number " + clip(n.Value)
	case "!!float":
		return "the number " + clip(n.Value)
	case "!!bool":
		return "the truth value " + clip(n.Value)
	case "!!null":
		return "nothing"
	case "!!str":
		return "the text " + quote(n.Value)
	}
	return "a value of type " + clip(n.ShortTag())
}

// hint ends a message about an unknown word: with the known one that is
// nearest, or with where credentials belong, or with what there is.
func hint(word string, known []string) string {
	w := strings.ToLower(strings.ReplaceAll(word, "-", "_"))
	for _, secret := range []string{"access_key", "accesskey", "secret", "password", "passwd", "token"} {
		if strings.Contains(w, secret) {
			return "; credentials do not belong in this file: set them in the environment or in ~/.aliyun/config.json"
		}
	}
	if s := nearest(w, known); s != "" {
		return s
	}
	return "; known are " + strings.Join(known, ", ")
}

// nearest asks whether the known word most like word was meant; it is empty
// when none is like it.
func nearest(word string, known []string) string {
	best, dist := "", (len(word)+1)/3
	for _, k := range known {
		if n := distance(strings.ToLower(word), k); n < dist || n == dist && best == "" {
			best, dist = k, n
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + strconv.Quote(best) + "?"
}

// distance counts the insertions, deletions, replacements and swaps of
// neighbours that make b of a.
func distance(a, b string) int {
	if len(a) > 64 {
		return len(a)
	}
	prev2, prev := []int(nil), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur := make([]int, len(b)+1)
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev = prev, cur
	}
	return prev[len(b)]
}
