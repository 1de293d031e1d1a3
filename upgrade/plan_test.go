package upgrade

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/ecs"
	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/nginx"
	"github.com/upgradectl/upgradectl/slb"
	"github.com/upgradectl/upgradectl/upgrade/engine"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

var planTime = time.Date(2026, 11, 22, 2, 0, 0, 0, time.UTC)

// planInputs gives a configuration and facts that nothing speaks against.
func planInputs(t *testing.T) (*Config, *Facts) {
	t.Helper()
	src, err := os.ReadFile(filepath.Join("testdata", "config", "full.yaml"))
	require.NoError(t, err)
	cfg, err := ParseConfig("upgrade.yaml", src)
	require.NoError(t, err)
	sections := map[string]hostinv.Section{}
	for _, n := range []string{hostinv.SectionOS, hostinv.SectionKernel, hostinv.SectionBoot, hostinv.SectionUptime, hostinv.SectionHost, hostinv.SectionListeners, hostinv.SectionOwners, hostinv.SectionJava, hostinv.SectionDocker, hostinv.SectionContainers, hostinv.SectionUnits} {
		sections[n] = hostinv.Section{Status: hostinv.StatusOK}
	}
	backend := slb.Backend{ServerID: "i-web90", Type: "ecs", ServerIP: "172.31.0.90", Port: 8080, Weight: 100}
	return cfg, &Facts{
		Instance:  ecs.Instance{ID: "i-web90", Status: "Running", Type: "ecs.g6.large", PrivateIPs: []string{"172.31.0.90"}},
		Disks:     []ecs.Disk{{ID: "d-1", Type: "system", Size: 40}, {ID: "d-2", Type: "data", Size: 200}},
		Boot:      hostos.Boot{ID: "d2cf5a55-550f-4407-adf6-1110d73a4fac", Kernel: "3.10.0-862.9.1.el7.x86_64", Release: "CentOS Linux release 7.5.1804 (Core)"},
		HasDocker: true,
		Inventory: &hostinv.Inventory{
			Schema: 1, Sections: sections,
			Listeners: []hostinv.Listener{{Proto: "tcp", Addr: "0.0.0.0", Port: 8080}, {Proto: "udp", Port: 9000}},
			Java:      []hostinv.Java{{PID: 71, Cwd: "/srv/order", User: "app", Ports: []int{8080}}, {PID: 80, Cwd: "/work", Container: "c0ffee"}},
			Containers: []hostinv.Container{
				{Name: "shop_web_1", State: "running", Compose: hostinv.Compose{Project: "shop", Dir: "/srv/shop"}, Ports: []hostinv.Port{{Proto: "tcp", ContainerPort: 80, HostPort: 8081}}},
				{Name: "cache", State: "running", Ports: []hostinv.Port{{Proto: "tcp", ContainerPort: 6379, HostPort: 8082}}},
				{Name: "old", State: "exited"},
			},
		},
		Nginx: []NginxFacts{
			{Host: "172.31.0.5", Conf: "/etc/nginx/nginx.conf", Files: map[string]string{"/etc/nginx/nginx.conf": "aa", "/etc/nginx/conf.d/app.conf": "bb"},
				Refs: []nginx.Ref{{Kind: nginx.KindServer, File: "/etc/nginx/conf.d/app.conf", Line: 2, Addr: "172.31.0.90:8080", Host: "172.31.0.90", Port: 8080, Upstream: "app", Certain: true}}},
			{Host: "172.31.0.6", Conf: "/etc/nginx/nginx.conf", Files: map[string]string{"/etc/nginx/nginx.conf": "cc"},
				Refs: []nginx.Ref{{Kind: nginx.KindPass, File: "/etc/nginx/nginx.conf", Line: 9, Addr: "http://172.31.0.90:8080", Host: "172.31.0.90", Port: 8080, Certain: true},
					{Kind: nginx.KindComment, File: "/etc/nginx/nginx.conf", Line: 12, Addr: "172.31.0.90:8080"}}},
		},
		Memberships: []slb.Membership{{LoadBalancerID: "lb-shop", Address: "172.31.0.200", Backend: backend, Backends: []slb.Backend{backend},
			Listeners: []slb.Listener{{Port: 80, Protocol: "http", Scheduler: "wrr", Status: "running"}, {Port: 81, Protocol: "tcp", Scheduler: "wlc"}}}},
	}
}

func TestBuildPlanPure(t *testing.T) {
	cfg, f := planInputs(t)
	inputs := func() string {
		b, err := json.Marshal([]any{cfg, f})
		require.NoError(t, err)
		return string(b)
	}
	before := inputs()
	a, err := BuildPlan(cfg, f, planTime, "1.0")
	require.NoError(t, err)
	first, err := a.JSON()
	require.NoError(t, err)
	assert.Equal(t, before, inputs(), "the arguments changed")
	b, err := BuildPlan(cfg, f, planTime.Add(300*time.Millisecond).In(time.FixedZone("CST", 8*3600)), "1.0")
	require.NoError(t, err)
	second, err := b.JSON()
	require.NoError(t, err)
	assert.Equal(t, string(first), string(second), "same inputs, same bytes")
	assert.Len(t, PlanHash(first), 64)
	assert.NotEqual(t, PlanHash(first), PlanHash(append(first, ' ')))

	back, err := ParsePlan(first)
	require.NoError(t, err)
	again, err := back.JSON()
	require.NoError(t, err)
	assert.Equal(t, string(first), string(again), "what is stored is what was planned")
	assert.Equal(t, a.Text(), back.Text())
	assert.True(t, back.HasStep("3.1-snapshots"))
	assert.False(t, back.HasStep("3.1"))
}

func TestParsePlanRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":   "cannot read the plan",
		"{}": `its format is ""`,
		`{"format":"upgradectl-plan/9","procedure":"transition"}`:                  "upgradectl-plan/9",
		`{"format":"` + planFormat + `","procedure":"proxy-rebuild"}`:              `unknown procedure "proxy-rebuild"`,
		`{"format":"` + planFormat + `","procedure":"transition","facts":{}}`:      "holds no inventory",
		`{"format":"` + planFormat + `","procedure":"transition","steps":"none!"}`: "cannot read the plan",
	} {
		_, err := ParsePlan([]byte(text))
		assert.ErrorContains(t, err, want, text)
	}
}

// TestRefusals takes facts that are fine and makes one thing wrong at a time.
func TestRefusals(t *testing.T) {
	ref := func(f *Facts) *nginx.Ref { return &f.Nginx[0].Refs[0] }
	cases := []struct {
		name  string
		wrong func(cfg *Config, f *Facts)
		want  string
	}{
		{"stopped instance", func(_ *Config, f *Facts) { f.Instance.Status = "Stopped" }, "instance i-web90 is Stopped, not Running"},
		{"java without service", func(_ *Config, f *Facts) {
			f.Inventory.Java = append(f.Inventory.Java, hostinv.Java{PID: 9, Cwd: "/srv/pay"})
		}, "a java process runs in /srv/pay but no service names that directory"},
		{"service without java", func(_ *Config, f *Facts) { f.Inventory.Java = nil }, "service order: no java process runs in /srv/order"},
		{"container without service", func(_ *Config, f *Facts) {
			f.Inventory.Containers = append(f.Inventory.Containers, hostinv.Container{Name: "extra", State: "running"})
		}, "container extra runs but no service names it"},
		{"service without container", func(_ *Config, f *Facts) {
			f.Inventory.Containers[1].Name, f.Inventory.Containers[1].State = "cache2", "exited"
		}, "service cache: no container of it is on the host"},
		{"mute port", func(_ *Config, f *Facts) { f.Inventory.Listeners = nil }, "service order: nothing listens on port 8080"},
		{"udp is not tcp", func(cfg *Config, _ *Facts) { cfg.Services[0].Ports = []int{8080, 9000} }, "service order: nothing listens on port 9000"},
		{"uncertain reference", func(_ *Config, f *Facts) { ref(f).Certain, ref(f).Reason = false, "it stands in a map" },
			"172.31.0.5: /etc/nginx/conf.d/app.conf:2 refers to 172.31.0.90 in a way that cannot be decided (it stands in a map)"},
		{"line of an earlier run", func(_ *Config, f *Facts) { ref(f).Kind, ref(f).Tag = nginx.KindOff, "uabc" }, "carries a mark of an earlier run (uabc)"},
		{"server of an earlier run", func(_ *Config, f *Facts) { ref(f).Tag = "uabc" }, "carries a mark of an earlier run (uabc)"},
		{"edit that cannot be made", func(_ *Config, f *Facts) { f.Nginx[1].Refusal = "the last active server of upstream app" }, "172.31.0.6: the last active server of upstream app"},
		{"round robin", func(_ *Config, f *Facts) { f.Memberships[0].Listeners[1].Scheduler = "rr" }, `lb-shop listener 81 uses scheduler "rr"`},
		{"primary/secondary group", func(_ *Config, f *Facts) { f.Memberships[0].MasterSlaveGroupID = "rsp-1" }, "rsp-1"},
		{"managed group", func(_ *Config, f *Facts) { f.Memberships[0].Managed = true }, "managed by another service"},
		{"nginx leads to a port of no service", func(_ *Config, f *Facts) { ref(f).Port = 9001 }, "172.31.0.5: /etc/nginx/conf.d/app.conf:2 leads to port 9001 of the host, which no service names"},
		{"balancer leads to a port of no service", func(_ *Config, f *Facts) {
			f.Memberships[0].Backend.Port, f.Memberships[0].Listeners = 9001, f.Memberships[0].Listeners[:1]
		}, "lb-shop listener 80 leads to port 9001 of the host, which no service names"},
		{"two java services in one directory", func(cfg *Config, _ *Facts) {
			again := cfg.Services[0]
			again.Name = "order2"
			cfg.Services = append(cfg.Services, again)
		}, "services order and order2 have the same directory /srv/order"},
		{"service that does not answer", func(_ *Config, f *Facts) { f.Unhealthy = "seen from 172.31.0.5: GET /health answered 404" }, "GET /health answered 404"},
		{"another host behind the name", func(_ *Config, f *Facts) { f.Elsewhere = "ssh web-90 leads to a host with the address 172.31.0.91" }, "172.31.0.91"},
		{"adopted serves already", func(_ *Config, f *Facts) {
			f.Adopted, f.AdoptedServes = &ecs.Instance{ID: "i-other", Status: "Running"}, []string{"it is a backend of lb-shop default group"}
		}, "serves already"},
		{"adopted goes away by itself", func(_ *Config, f *Facts) {
			f.Adopted = &ecs.Instance{ID: "i-other", Status: "Running", AutoReleaseTime: planTime}
		}, "take its release time away first"},
		{"adopted may not be released", func(cfg *Config, f *Facts) {
			cfg.Transition.ReleaseAdopted, f.Adopted = true, &ecs.Instance{ID: "i-other", Status: "Running"}
		}, "only if it carries the tag upgradectl:release=yes"},
		{"adopted is production", func(_ *Config, f *Facts) { f.Adopted = &ecs.Instance{ID: "i-web90", Status: "Running"} }, "is the production host itself"},
		{"adopted is stopped", func(_ *Config, f *Facts) { f.Adopted = &ecs.Instance{ID: "i-other", Status: "Stopped"} }, "i-other is Stopped"},
		{"docker cannot be read", func(_ *Config, f *Facts) {
			f.Inventory.Sections[hostinv.SectionDocker] = hostinv.Section{Status: hostinv.StatusError, Message: "Cannot connect to the Docker daemon"}
		}, "lacks docker (error), so that a loss there would not be seen: Cannot connect to the Docker daemon"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			cfg, f := planInputs(t)
			c.wrong(cfg, f)
			_, err := BuildPlan(cfg, f, planTime, "1.0")
			var refused *RefusedError
			require.ErrorAs(t, err, &refused)
			require.Len(t, refused.Reasons, 1, "%q", refused.Reasons)
			assert.Contains(t, refused.Reasons[0], c.want)
			assert.Equal(t, ExitRefused, ErrorStatus(err))
		})
	}
	t.Run("all at once", func(t *testing.T) {
		cfg, f := planInputs(t)
		for _, i := range []int{0, 1, 3, 5, 7, 10, 11} {
			cases[i].wrong(cfg, f)
		}
		_, err := BuildPlan(cfg, f, planTime, "1.0")
		for _, i := range []int{0, 1, 3, 5, 7, 10, 11} {
			assert.ErrorContains(t, err, cases[i].want, cases[i].name)
		}
		assert.ErrorContains(t, err, "cannot plan the upgrade of 172.31.0.90:\n  - ")
	})
}

func TestDriftOfNginx(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(now *Facts)
		want []string
	}{
		{"none", func(*Facts) {}, nil},
		{"a file changed", func(f *Facts) { f.Nginx[0].Files["/etc/nginx/nginx.conf"] = "xx" }, []string{"172.31.0.5: /etc/nginx/nginx.conf has changed"}},
		{"a file is gone", func(f *Facts) { delete(f.Nginx[0].Files, "/etc/nginx/conf.d/app.conf") }, []string{"172.31.0.5: /etc/nginx/conf.d/app.conf has changed"}},
		{"a file is new", func(f *Facts) { f.Nginx[1].Files["/etc/nginx/new.conf"] = "dd" }, []string{"172.31.0.6: /etc/nginx/new.conf is new"}},
		{"a host is gone", func(f *Facts) { f.Nginx = f.Nginx[:1] }, []string{"172.31.0.6: /etc/nginx/nginx.conf has changed"}},
	} {
		_, was := planInputs(t)
		_, now := planInputs(t)
		c.edit(now)
		assert.Equal(t, c.want, driftNginx(was.Nginx, now.Nginx), c.name)
	}
}

func TestDriftOfBalancers(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(now *Facts)
		want []string
	}{
		{"none", func(*Facts) {}, nil},
		{"another member came", func(f *Facts) {
			f.Memberships[0].Backends = append(f.Memberships[0].Backends, slb.Backend{ServerID: "i-88"})
		}, nil},
		{"weight", func(f *Facts) { f.Memberships[0].Backend.Weight = 50 }, []string{"the host's weight in lb-shop  port 8080 is 50, was 100"}},
		{"removed", func(f *Facts) { f.Memberships = nil }, []string{"the host is no longer a backend of lb-shop  port 8080"}},
		{"added", func(f *Facts) { f.Memberships = append(f.Memberships, slb.Membership{LoadBalancerID: "lb-new"}) }, []string{"the host is a new backend of lb-new  port 0"}},
		{"other port", func(f *Facts) { f.Memberships[0].Backend.Port = 8081 }, []string{"the host is no longer a backend of lb-shop  port 8080", "the host is a new backend of lb-shop  port 8081"}},
	} {
		_, was := planInputs(t)
		_, now := planInputs(t)
		c.edit(now)
		assert.Equal(t, c.want, driftBalancers(was.Memberships, now.Memberships), c.name)
	}
	assert.Equal(t, ExitDrift, ErrorStatus(&DriftError{[]string{"x"}}))
	assert.EqualError(t, &DriftError{[]string{"a", "b"}}, "the plan is stale; make a new one. Since it was made:\n  - a\n  - b")
}

func plan(t *testing.T, edit func(*Config, *Facts)) *Plan {
	t.Helper()
	cfg, f := planInputs(t)
	if edit != nil {
		edit(cfg, f)
	}
	p, err := BuildPlan(cfg, f, planTime, "1.0")
	require.NoError(t, err)
	return p
}

// TestSteps holds the list of steps: what the engine demands, the sections of
// the runbook in their order, gates and the pivot where they belong.
func TestSteps(t *testing.T) {
	for name, edit := range map[string]func(*Config, *Facts){
		"as it is":     nil,
		"without gate": func(c *Config, _ *Facts) { c.Gates = nil },
		"gates everywhere": func(c *Config, _ *Facts) {
			c.Gates = configSections[:]
		},
		"nothing but a host": func(c *Config, f *Facts) {
			c.Nginx, c.Services, c.Balancers = nil, nil, BalancersNone
			f.Nginx, f.Memberships, f.HasDocker, f.Inventory = nil, nil, false, &hostinv.Inventory{Sections: f.Inventory.Sections}
		},
		"adopted": func(c *Config, f *Facts) {
			c.Transition.Instance, f.Adopted = "i-other", &ecs.Instance{ID: "i-other", Status: "Running"}
		},
		"script": func(c *Config, f *Facts) {
			c.OS.Strategy, c.OS.Docker, c.OS.Reboot, f.Script = StrategyScript, DockerKeep, false, "true\n"
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := plan(t, edit)
			steps := transitionSteps(p, nil)
			require.NoError(t, engine.Validate(steps))
			var sections []string
			pivot := -1
			for i, s := range steps {
				if len(sections) == 0 || sections[len(sections)-1] != s.Section {
					sections = append(sections, s.Section)
					assert.Equal(t, slices.Contains(p.Config.Gates, s.Section), s.Gate != "", "a gate is asked at the first step of %s", s.Section)
				} else {
					assert.Empty(t, s.Gate, "%s: once a section is enough", s.ID)
				}
				assert.True(t, strings.HasPrefix(s.ID, s.Section+"-"), s.ID)
				if s.Pivot && pivot < 0 {
					pivot = i
				}
			}
			assert.Equal(t, configSections[:], sections, "2.1 to 5.3, every one of them, in order")
			require.Positive(t, pivot)
			assert.Equal(t, "4.5", steps[pivot].Section)
			assert.Equal(t, "4.5-snapshots", steps[pivot-1].ID, "the last thing before the pivot is a picture of production")
			assert.Equal(t, engine.Irreversible, step(t, steps, "5.3-release").Effect)
			assert.Len(t, p.Steps, len(steps))
		})
	}
	p := plan(t, nil)
	for section, first := range map[string]string{"4.1": "4.1-slb", "4.4": "4.4-stop", "5.3": "5.3-release"} {
		gate := step(t, transitionSteps(p, nil), first).Gate
		assert.NotEmpty(t, gate, section)
		assert.Contains(t, p.Text(), "--- gate before "+section+": "+gate)
	}
	assert.Equal(t, 1, strings.Count(p.Text(), "no rollback, only parking"))
}

func step(t *testing.T, steps []engine.Step, id string) engine.Step {
	t.Helper()
	i := slices.IndexFunc(steps, func(s engine.Step) bool { return s.ID == id })
	require.GreaterOrEqual(t, i, 0, id)
	return steps[i]
}
