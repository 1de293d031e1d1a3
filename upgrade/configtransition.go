package upgrade

import (
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

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

// defaultHealthy is Pace.Healthy where nothing is said.
const defaultHealthy = 3

// Pace says how often is looked and how long is waited.
type Pace struct {
	Poll         time.Duration `json:"poll"`          // between two questions to the cloud
	Sample       time.Duration `json:"sample"`        // between two samples of an observation
	Observe      int           `json:"observe"`       // samples in a row that prove arrival or silence
	Healthy      int           `json:"healthy"`       // good answers in a row that prove health
	Timeout      time.Duration `json:"timeout"`       // longest wait on a host or for silence
	JobTimeout   time.Duration `json:"job_timeout"`   // longest wait for a package transaction
	CloudTimeout time.Duration `json:"cloud_timeout"` // without progress of a snapshot or an image
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
	s := d.mapping(m.values["pace"], "pace", "poll", "sample", "observe", "healthy", "timeout", "job_timeout", "cloud_timeout")
	c.Pace = Pace{
		Poll:         s.duration("poll", 3*time.Second, time.Millisecond, false),
		Sample:       s.duration("sample", time.Second, time.Millisecond, false),
		Observe:      s.integer("observe", 10, 1, 100000),
		Healthy:      s.integer("healthy", defaultHealthy, 1, 1000),
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
