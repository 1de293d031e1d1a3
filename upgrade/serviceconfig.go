package upgrade

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// Service is something that must run after the upgrade as it did before.
// docs/services.md describes it.
type Service struct {
	Name      string `json:"name"`
	Kind      string `json:"kind"`                // KindJava, KindProcess, KindCompose, KindContainer, KindUnit or KindSupervisor
	Dir       string `json:"dir,omitempty"`       // absolute; java, process and compose: where it is started
	User      string `json:"user,omitempty"`      // java, process: who runs the commands; empty: root
	Program   string `json:"program,omitempty"`   // process: base name of its program; supervisor: NAME, GROUP:NAME or GROUP:*
	Match     string `json:"match,omitempty"`     // java, process: an argument that tells its processes from others in Dir
	Start     string `json:"start,omitempty"`     // java, process: command line, run in Dir as User, detached; empty: from kept restart values
	Stop      string `json:"stop,omitempty"`      // java, process: command line instead of SIGTERM
	Container string `json:"container,omitempty"` // container: its name
	Unit      string `json:"unit,omitempty"`      // unit: its name
	Ports     []int  `json:"ports,omitempty"`     // TCP ports it listens on
	Health    string `json:"health,omitempty"`    // path of an HTTP GET on each port; empty: a TCP connection

	ExpectStatus  []hostos.StatusRange `json:"expect_status,omitempty"`  // of that GET; none: 200-299
	HealthCommand string               `json:"health_command,omitempty"` // has to end with 0 on the host, in addition
	Healthy       int                  `json:"healthy,omitempty"`        // good answers in a row before it counts as healthy; 0: 3
	Warmup        hostos.Warmup        `json:"warmup,omitzero"`          // before it may have traffic
	StartGrace    time.Duration        `json:"start_grace,omitempty"`    // nothing is asked for so long after a start
	StartTimeout  time.Duration        `json:"start_timeout,omitempty"`  // from the start to warm; 0: pace.timeout
	StopTimeout   time.Duration        `json:"stop_timeout,omitempty"`   // from SIGTERM to gone; 0: pace.timeout
	After         []string             `json:"after,omitempty"`          // services that have to be warm before it starts
}

// service gives the hostos form of a configured service.
func service(s Service) hostos.Service {
	return hostos.Service{
		Name: s.Name, Kind: hostos.ServiceKind(s.Kind), Dir: s.Dir, User: s.User, Program: s.Program, Match: s.Match,
		Container: s.Container, Unit: s.Unit, Ports: s.Ports, Start: s.Start, Stop: s.Stop,
		Health: s.Health, Expect: s.ExpectStatus, HealthCommand: s.HealthCommand, Healthy: s.Healthy, Warmup: s.Warmup,
		StartGrace: s.StartGrace, StartTimeout: s.StartTimeout, StopTimeout: s.StopTimeout, After: s.After,
	}
}

// serviceKeys are the keys that only some kinds have, and the kinds that
// need them.
var serviceKeys = [...]struct {
	key          string
	kinds, needs []string
}{
	{"dir", []string{KindJava, KindProcess, KindCompose}, []string{KindJava, KindProcess, KindCompose}},
	{"user", []string{KindJava, KindProcess}, nil},
	{"program", []string{KindProcess, KindSupervisor}, []string{KindProcess, KindSupervisor}},
	{"match", []string{KindJava, KindProcess}, nil},
	{"start", []string{KindJava, KindProcess}, nil},
	{"stop", []string{KindJava, KindProcess}, nil},
	{"container", []string{KindContainer}, []string{KindContainer}},
	{"unit", []string{KindUnit}, []string{KindUnit}},
}

// statusText is one status or range of expect_status.
var statusText = regexp.MustCompile(`^([1-5][0-9][0-9])(?:-([1-5][0-9][0-9]))?$`)

// supervisorProgram is what supervisorctl takes for a program or a group.
var supervisorProgram = regexp.MustCompile(`^[A-Za-z0-9_.][A-Za-z0-9_.-]*(:([A-Za-z0-9_.][A-Za-z0-9_.-]*|\*))?$`)

func (d *configDecoder) services(m mapping, c *Config) {
	names, ports := map[string]int{}, map[int]string{}
	processes := map[string]string{} // identity of processes → service
	var after []func()
	m.list("services", func(n *yaml.Node, path string) {
		s := d.mapping(n, path, "name", "kind", "dir", "user", "program", "match", "ports", "health", "expect_status", "health_command", "healthy",
			"warmup", "start", "start_grace", "start_timeout", "stop", "stop_timeout", "container", "unit", "after")
		s.need("", "name")
		s.need(": java, process, compose, container, unit or supervisor", "kind")
		v := Service{
			Name: s.text("name", "", matches(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`, "is not a name: letters, digits, dot, hyphen and underscore")),
			Kind: s.enum("kind", "", KindJava, KindProcess, KindCompose, KindContainer, KindUnit, KindSupervisor),
			Dir:  s.text("dir", "", checkAbs),
			User: s.text("user", "", matches(`^[A-Za-z_][A-Za-z0-9_.-]*$`, "is not a user name")),
			// An argument of the process, and the operator's own commands.
			Match:         s.text("match", ""),
			Start:         s.text("start", ""),
			Stop:          s.text("stop", ""),
			HealthCommand: s.text("health_command", ""),
			Container:     s.text("container", "", matches(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`, "is not a container name")),
			Unit:          s.text("unit", "", matches(`^[A-Za-z0-9:_.\\@][A-Za-z0-9:_.\\@-]*$`, "is not a unit name")),
			Health:        s.text("health", "", checkPath),
			Healthy:       s.integer("healthy", 0, 1, 1000),
			StartGrace:    s.duration("start_grace", 0, time.Millisecond, true),
			StartTimeout:  s.duration("start_timeout", 0, time.Second, false),
			StopTimeout:   s.duration("stop_timeout", 0, time.Second, false),
		}
		v.Program = s.text("program", "", func(p string) string {
			switch {
			case v.Kind == KindProcess && strings.Contains(p, "/"):
				return "is a path: the base name of the program is enough"
			case v.Kind == KindSupervisor && !supervisorProgram.MatchString(p):
				return "is not a program of supervisord: NAME, GROUP:NAME or GROUP:*"
			}
			return ""
		})
		for _, k := range serviceKeys {
			switch {
			case v.Kind == "":
			case s.has(k.key) && !slices.Contains(k.kinds, v.Kind):
				s.problem(k.key, "has no meaning for kind %s, only for %s", v.Kind, allOf(k.kinds))
			case slices.Contains(k.needs, v.Kind):
				s.need(": kind "+v.Kind+" needs it", k.key)
				if s.has(k.key) && s.values[k.key].Value == "" && !s.failed(k.key) {
					s.problem(k.key, "is empty: kind %s needs it", v.Kind)
				}
			}
		}
		if v.Name != "" {
			if line, dup := names[v.Name]; dup {
				s.problem("name", "%s is the name of two services; the first is on line %d", quote(v.Name), line)
			} else {
				names[v.Name] = s.values["name"].Line
			}
		}
		s.list("ports", func(n *yaml.Node, path string) {
			p, ok := d.integer(n, path, 1, 65535)
			if !ok {
				return
			}
			if owner, dup := ports[p]; dup {
				d.at(n, path, "port %d is already one of service %s", p, quote(owner))
				return
			}
			ports[p] = v.Name
			v.Ports = append(v.Ports, p)
		})
		if v.Health != "" && !s.has("ports") && !s.failed("ports") {
			s.problem("health", "needs ports to ask on")
		}
		d.expectStatus(s, &v)
		d.warmup(s, &v)
		if v.StartTimeout > 0 && v.StartGrace >= v.StartTimeout {
			s.problem("start_grace", "%s leave no time of the start_timeout of %s", short(v.StartGrace), short(v.StartTimeout))
		}
		if v.Kind == KindJava || v.Kind == KindProcess {
			program := v.Program
			if v.Kind == KindJava {
				program = "java"
			}
			id := program + "\x00" + v.Dir + "\x00" + v.Match
			if other, dup := processes[id]; dup && v.Dir != "" && !s.failed("dir") {
				s.problem("dir", "service %s has the same processes; tell them apart with match, an argument that only one has", quote(other))
			}
			processes[id] = v.Name
		}
		i := len(c.Services)
		after = append(after, func() {
			d.words(s, "after", func(w string) string {
				switch {
				case w == v.Name:
					return "is the service itself"
				case names[w] == 0:
					return "is no service of this file"
				}
				return ""
			}, &c.Services[i].After)
		})
		c.Services = append(c.Services, v)
	})
	for _, f := range after {
		f()
	}
	if len(d.problems) == 0 {
		var all []hostos.Service
		for _, s := range c.Services {
			all = append(all, service(s))
		}
		if _, err := hostos.OrderServices(all); err != nil {
			d.at(m.values["services"], "services", "%v", err)
		}
	}
}

// adoptedServices refuses services that would be started from restart values
// on a transition host that was not made of production's disk: it has none.
func (d *configDecoder) adoptedServices(m mapping, c *Config) {
	n := m.values["services"]
	for i, s := range c.Services {
		if len(hostos.NeedRestart([]hostos.Service{service(s)})) > 0 && n.Kind == yaml.SequenceNode && i < len(n.Content) {
			d.at(n.Content[i], fmt.Sprintf("services[%d].start", i), "is missing: transition.instance is adopted and has no restart values of production's processes")
		}
	}
}

// expectStatus reads "200", 200, "200-399" or a list of these.
func (d *configDecoder) expectStatus(s mapping, v *Service) {
	n := s.values["expect_status"]
	if n == nil {
		return
	}
	if v.Health == "" && !s.failed("health") {
		s.problem("expect_status", "needs health: the path whose answer it is")
	}
	one := func(n *yaml.Node, path string) {
		m := statusText.FindStringSubmatch(n.Value)
		if n.Kind != yaml.ScalarNode || m == nil {
			d.at(n, path, "must be a status such as 200 or a range such as 200-399, not %s", kindOf(n))
			return
		}
		r := hostos.StatusRange{}
		r.From, _ = strconv.Atoi(m[1]) // digits
		if r.To = r.From; m[2] != "" {
			r.To, _ = strconv.Atoi(m[2])
		}
		switch {
		case r.From > r.To:
			d.at(n, path, "%s is no range: it ends before it begins", quote(n.Value))
		case r.To >= 500:
			d.at(n, path, "%s takes an error of the service for health: a 5xx is never healthy", quote(n.Value))
		default:
			v.ExpectStatus = append(v.ExpectStatus, r)
		}
	}
	path := join(s.path, "expect_status")
	if n.Kind != yaml.SequenceNode {
		one(n, path)
		return
	}
	for i, item := range n.Content {
		one(item, fmt.Sprintf("%s[%d]", path, i))
	}
}

// warmup reads what a service gets before it may have traffic.
func (d *configDecoder) warmup(s mapping, v *Service) {
	if !s.has("warmup") {
		return
	}
	w := d.mapping(s.values["warmup"], join(s.path, "warmup"), "paths", "count", "duration")
	d.words(w, "paths", checkPath, &v.Warmup.Paths)
	v.Warmup.Count = w.integer("count", 0, 1, 100000)
	v.Warmup.Duration = w.duration("duration", 0, time.Millisecond, false)
	switch {
	case w.failed("paths") || w.failed("duration") || w.node.Kind != yaml.MappingNode:
	case !w.has("paths") && v.Warmup.Duration == 0:
		s.problem("warmup", "needs paths to ask for, or a duration to wait")
	case !w.has("paths") && w.has("count"):
		w.problem("count", "needs paths: it is how often each is asked for")
	case len(v.Warmup.Paths) > 0 && !s.has("ports") && !s.failed("ports"):
		w.problem("paths", "needs ports to ask on")
	}
	if v.StartTimeout > 0 && v.Warmup.Duration >= v.StartTimeout {
		w.problem("duration", "%s leave no time of the start_timeout of %s", short(v.Warmup.Duration), short(v.StartTimeout))
	}
}

func checkPath(s string) string {
	return matches(`^/[!-~]*$`, "is not a path: it starts with / and has no blanks")(s)
}

// allOf joins words as a, b and c.
func allOf(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}
