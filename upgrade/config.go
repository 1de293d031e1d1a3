package upgrade

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
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
	Windows    WindowsConfig    `json:"windows,omitzero"`
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
	paths := []*string{&c.SSH.SudoPasswordFile, &c.SSH.PasswordFile, &c.SSH.PassphraseFile, &c.OS.Script, &c.OS.Precheck}
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

// config fills c from the root mapping.
func (d *configDecoder) config(n *yaml.Node, c *Config) {
	if procedureOf(n) == ProcedureRebuild {
		d.rebuild(n, c)
		return
	}
	m := d.mapping(n, "", "version", "procedure", "host", "instance", "address", "cloud", "ssh",
		"nginx", "balancers", "services", "transition", "os", "docker", "snapshots", "paths", "state", "accept", "weights", "health", "gates", "approvals", "windows", "pace")
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
	d.windows(m, c)
	d.pace(m, c)
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
