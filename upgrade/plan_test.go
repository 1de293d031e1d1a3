package upgrade

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
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
			Schema: 2, Sections: sections,
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
		`{"format":"upgradectl-plan/9","procedure":"transition"}`:                                                                                       "upgradectl-plan/9",
		`{"format":"` + planFormat + `","procedure":"proxy-rebuild"}`:                                                                                   `unknown procedure "proxy-rebuild"`,
		`{"format":"` + planFormat + `","procedure":"transition","facts":{}}`:                                                                           "holds no inventory",
		`{"format":"` + planFormat + `","procedure":"transition","steps":"none!"}`:                                                                      "cannot read the plan",
		`{"format":"` + planFormat + `","procedure":"transition","host":"web-90","facts":{"inventory":{"schema":1,"docker":"1.13.1"}}}`:                 "its inventory of web-90 was taken by an older version (schema 1), which recorded less; make a new plan",
		`{"format":"` + planFormat + `","procedure":"rebuild","facts":{"rebuild":{"nodes":[{"name":"proxy-2","inventory":{"schema":1,"docker":""}}]}}}`: "its inventory of proxy-2 ",
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
		}, ", and no service, unit, container or supervisord starts it again; add a service {kind: java, dir: /srv/pay}"},
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
		{"round robin", func(_ *Config, f *Facts) { f.Memberships[0].Listeners[1].Scheduler = "rr" }, "the default group of lb-shop, tcp 81: the scheduler rr ignores weights"},
		{"primary/secondary group", func(_ *Config, f *Facts) { f.Memberships[0].MasterSlaveGroupID = "rsp-1" }, "rsp-1"},
		{"managed group", func(_ *Config, f *Facts) { f.Memberships[0].Managed = true }, "the default group of lb-shop: another service (as ACK) owns it"},
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
		{"copy that cannot be made", func(_ *Config, f *Facts) {
			f.Blockers = []ecs.Blocker{{Blocking: true, Object: "disk d-2", Reason: "it is local", Remedy: "move it"}, {Object: "EIP", Reason: "stays"}}
		}, "a copy of the host cannot be made: disk d-2: it is local; move it"},
		{"clone that the cloud refuses", func(_ *Config, f *Facts) { f.NoClone = "QuotaExceed.ElasticQuota" }, "the cloud would not make the transition host: QuotaExceed.ElasticQuota"},
		{"no stock", func(_ *Config, f *Facts) { f.Stock = &ecs.Stock{Type: "ecs.g6.large", Zone: "z-1"} }, "zone z-1 has no ecs.g6.large left (not offered there)"},
		{"another way in", func(_ *Config, f *Facts) {
			f.Paths = []slb.PathFinding{{Kind: slb.PathDNAT, Severity: slb.SeverityBlock, ID: "fwd-1", Evidence: "leads to the host", Remedy: "remove it"}}
		}, "dnat fwd-1: leads to the host; remove it (or, when it does not matter, accept: [\"path-dnat:fwd-1\"])"},
		// One domain that can be moved does not excuse another that cannot.
		{"domain that no item moves", func(_ *Config, f *Facts) {
			f.Paths = []slb.PathFinding{{Kind: slb.PathDomain, Severity: slb.SeverityBlock, ID: "r-1"}, {Kind: slb.PathDomain, Severity: slb.SeverityBlock, ID: "r-2", Evidence: "leads to an elastic address"}}
			f.Forwarding = []slb.ForwardingItem{{Domain: "www.shop.example", RecordID: "r-1"}}
		}, "domain r-2: leads to an elastic address"},
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
		{"weight", func(f *Facts) { f.Memberships[0].Backend.Weight = 50 }, []string{"the host's weight in lb-shop default group, member i-web90 (172.31.0.90):8080 is 50, was 100"}},
		{"removed", func(f *Facts) { f.Memberships = nil }, []string{"the host is no longer in lb-shop default group, member i-web90 (172.31.0.90):8080"}},
		{"added", func(f *Facts) {
			f.Memberships = append(f.Memberships, slb.Membership{LoadBalancerID: "lb-new", Backend: slb.Backend{ServerID: "i-web90"}})
		}, []string{"the host is new in lb-new default group, member i-web90"}},
		{"other port", func(f *Facts) { f.Memberships[0].Backend.Port = 8081 }, []string{"the host is no longer in lb-shop default group, member i-web90 (172.31.0.90):8080", "the host is new in lb-shop default group, member i-web90 (172.31.0.90):8081"}},
		{"other member of the same group", func(f *Facts) {
			m := f.Memberships[0]
			m.Backend.ServerID, m.Backend.Type = "eni-1", "eni"
			f.Memberships = append(f.Memberships, m)
		}, []string{"the host is new in lb-shop default group, member eni-1 (172.31.0.90):8080"}},
	} {
		_, was := planInputs(t)
		_, now := planInputs(t)
		c.edit(now)
		assert.Equal(t, c.want, driftBalancers(was.Memberships, now.Memberships), c.name)
	}
	// Of the balancers of an ALB group another one may be named first.
	alb := slb.Membership{Product: slb.ALB, LoadBalancerID: "alb-1", VServerGroupID: "sgp-1", Backend: slb.Backend{ServerID: "i-web90", Port: 80}}
	other := alb
	other.LoadBalancerID = "alb-2"
	assert.Empty(t, driftBalancers([]slb.Membership{alb}, []slb.Membership{other}))
	assert.Equal(t, ExitDrift, ErrorStatus(&DriftError{[]string{"x"}}))
	assert.EqualError(t, &DriftError{[]string{"a", "b"}}, "the plan is stale; make a new one. Since it was made:\n  - a\n  - b")
}

// What leads to a group is part of a plan as well: whether weight 0 drains, and
// which listeners have to be silent.
func TestDriftOfListeners(t *testing.T) {
	listener := func(f *Facts, i int) *slb.Listener { return &f.Memberships[0].Listeners[i] }
	for _, c := range []struct {
		name string
		edit func(now *Facts)
		want []string
	}{
		{"none", func(*Facts) {}, nil},
		{"weights are not its business", func(f *Facts) { f.Memberships[0].Backend.Weight = 3 }, nil},
		{"being configured", func(f *Facts) { listener(f, 0).Status = "configuring" }, nil},
		{"scheduler", func(f *Facts) { listener(f, 0).Scheduler = "wlc" }, []string{"lb-shop http 80: the scheduler is wlc, was wrr"}},
		{"stopped", func(f *Facts) { listener(f, 0).Status = "stopped" }, []string{"lb-shop http 80: stopped is true, was false"}},
		{"port", func(f *Facts) { listener(f, 1).BackendPort = 8081 }, []string{"lb-shop tcp 81: the port of the members is 8081, was 0"}},
		{"health check", func(f *Facts) { listener(f, 1).HealthCheck = true }, []string{"lb-shop tcp 81: health check is true, was false"}},
		{"stickiness", func(f *Facts) { listener(f, 0).Sticky = true }, []string{"lb-shop http 80: session stickiness is true, was false"}},
		{"gone", func(f *Facts) { f.Memberships[0].Listeners = f.Memberships[0].Listeners[:1] }, []string{"lb-shop tcp 81 no longer leads to lb-shop default group, member i-web90 (172.31.0.90):8080"}},
		{"new rule", func(f *Facts) {
			f.Memberships[0].Listeners = append(f.Memberships[0].Listeners, slb.Listener{Port: 80, Protocol: "http", Rule: "rule-1", Domain: "a.example", Scheduler: "wrr", HealthCheck: true})
		}, []string{"lb-shop http 80 (rule rule-1, a.example) leads to lb-shop default group, member i-web90 (172.31.0.90):8080 and did not"}},
		{"rule of 2.7", func(f *Facts) {
			f.Memberships[0].Listeners = append(f.Memberships[0].Listeners, slb.Listener{LoadBalancerID: "lb-shop", Port: 80, Protocol: "http", Rule: "rule-1", Domain: "moved.example", Scheduler: "wrr", HealthCheck: true})
		}, nil},
		{"protected", func(f *Facts) { f.Memberships[0].Protected = true }, []string{"protected: the default group of lb-shop: the balancer is protected against changes; ask whoever protected it, then lift it (SetLoadBalancerModificationProtection, NonProtection)"}},
	} {
		_, was := planInputs(t)
		was.Forwarding = []slb.ForwardingItem{{Domain: "moved.example", LoadBalancerID: "lb-shop", Port: 80}}
		_, now := planInputs(t)
		c.edit(now)
		assert.Equal(t, c.want, driftListeners(was, now.Memberships), c.name)
	}
}

func TestDriftOfInstance(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(now *Facts)
		want []string
	}{
		{"none", func(*Facts) {}, nil},
		{"tags are not its business", func(f *Facts) { f.Instance.Tags = map[string]string{"a": "b"} }, nil},
		{"order", func(f *Facts) { slices.Reverse(f.Disks) }, nil},
		{"stopped", func(f *Facts) { f.Instance.Status = "Stopped" }, []string{"instance i-web90: the status is Stopped, was Running"}},
		{"new interface", func(f *Facts) { f.Instance.ENIs = []string{"eni-2"} }, []string{"instance i-web90: the list of network interfaces is [eni-2], was []"}},
		{"another disk in the place of one", func(f *Facts) { f.Disks[1].ID = "d-3" },
			[]string{"instance i-web90: the list of disks is [d-1 (system, , 40 GiB) d-3 (data, , 200 GiB)], was [d-1 (system, , 40 GiB) d-2 (data, , 200 GiB)]"}},
		{"security group", func(f *Facts) { f.Instance.SecurityGroups = []string{"sg-2"} }, []string{"instance i-web90: the list of security groups is [sg-2], was []"}},
	} {
		_, was := planInputs(t)
		_, now := planInputs(t)
		c.edit(now)
		assert.Equal(t, c.want, driftInstance(was, now), c.name)
	}
}

func TestDriftOfPaths(t *testing.T) {
	dnat := slb.PathFinding{Kind: slb.PathDNAT, Severity: slb.SeverityBlock, ID: "fwd-1", Evidence: "e", Remedy: "r"}
	standby := slb.PathFinding{Kind: slb.PathScalingGroup, Severity: slb.SeverityInfo, ID: "asg-1"}
	active := standby
	active.Severity = slb.SeverityBlock
	for _, c := range []struct {
		name     string
		was, now []slb.PathFinding
		accept   []string
		want     int
	}{
		{"none", []slb.PathFinding{dnat}, []slb.PathFinding{dnat}, nil, 0},
		{"new", nil, []slb.PathFinding{dnat}, nil, 1},
		{"accepted", nil, []slb.PathFinding{dnat}, []string{"fwd-1"}, 0},
		{"gone", []slb.PathFinding{dnat}, nil, nil, 0},
		{"worse", []slb.PathFinding{standby}, []slb.PathFinding{active}, nil, 1},
		{"harmless", nil, []slb.PathFinding{standby}, nil, 0},
	} {
		assert.Len(t, driftPaths(&Config{Paths: PathsConfig{Accept: c.accept}}, &Facts{Paths: c.was}, &Facts{Paths: c.now}), c.want, c.name)
	}
}

// A rule is of an HTTP listener of a CLB and leads to a VServer group: nothing
// else is a place behind which a domain can be moved.
func TestForwardTarget(t *testing.T) {
	http := slb.Listener{Port: 80, Protocol: "http"}
	for _, c := range []struct {
		name string
		m    slb.Membership
		port int
	}{
		{"VServer group", slb.Membership{LoadBalancerID: "lb-1", VServerGroupID: "rsp-1", Listeners: []slb.Listener{{Port: 25, Protocol: "tcp"}, http}}, 80},
		{"default group", slb.Membership{LoadBalancerID: "lb-1", Listeners: []slb.Listener{http}}, 0},
		{"TCP only", slb.Membership{LoadBalancerID: "lb-1", VServerGroupID: "rsp-1", Listeners: []slb.Listener{{Port: 25, Protocol: "tcp"}}}, 0},
		{"ALB", slb.Membership{Product: slb.ALB, LoadBalancerID: "alb-1", VServerGroupID: "sgp-1", Listeners: []slb.Listener{http}}, 0},
		{"primary/secondary", slb.Membership{LoadBalancerID: "lb-1", VServerGroupID: "rsp-1", MasterSlaveGroupID: "rsp-1", Listeners: []slb.Listener{http}}, 0},
	} {
		to, ok := forwardTarget([]slb.Membership{c.m})
		assert.Equal(t, c.port, to.Port, c.name)
		assert.Equal(t, c.port != 0, ok, c.name)
	}
}

// Production that is a member of one group twice gives the transition host one
// membership with both weights, and a group behind two ALBs is one member too.
func TestEntering(t *testing.T) {
	m := slb.Membership{LoadBalancerID: "lb-1", VServerGroupID: "rsp-1", Backend: slb.Backend{ServerID: "i-web90", Port: 8080, Weight: 60}}
	eni := m
	eni.Backend = slb.Backend{ServerID: "eni-1", Type: "eni", ServerIP: "172.31.0.91", Port: 8080, Weight: 50}
	other := m
	other.Backend.Port, other.Backend.Weight = 8081, 0
	byIP := slb.Membership{Product: slb.ALB, LoadBalancerID: "alb-1", VServerGroupID: "sgp-1", Backend: slb.Backend{ServerID: "172.31.0.90", Type: "ip", Port: 80, Weight: 9, Description: "blue"}}
	tr := &transition{p: &Plan{Facts: Facts{Memberships: []slb.Membership{m, eni, other, byIP}}}}
	got := tr.entering(cloneFacts{InstanceID: "i-new", PrivateIP: "172.31.0.101"})
	require.Len(t, got, 3)
	assert.Equal(t, 100, got[0].To, "60 and 50, and no more than there is")
	assert.Equal(t, slb.Backend{ServerID: "i-new", Type: "ecs", Port: 8081}, got[1].Backend)
	assert.Zero(t, got[1].To)
	assert.Equal(t, slb.Backend{ServerID: "172.31.0.101", Type: "ip", Port: 80, Description: "blue"}, got[2].Backend)
}

// One port of a balancer is one way, whatever leads through it, and it is named
// by the balancer that it is of.
func TestWays(t *testing.T) {
	rule := slb.Listener{LoadBalancerID: "lb-1", Port: 80, Protocol: "http", Rule: "rule-1", Scheduler: "wlc"}
	ms := []slb.Membership{
		{LoadBalancerID: "lb-1", Address: "192.0.2.1", Backend: slb.Backend{Weight: 5}, Listeners: []slb.Listener{{LoadBalancerID: "lb-1", Port: 80, Protocol: "http", Scheduler: "wrr"}, {LoadBalancerID: "lb-1", Port: 82, Protocol: "tcp", Sticky: true}}},
		{LoadBalancerID: "lb-1", VServerGroupID: "rsp-1", Address: "192.0.2.1", Backend: slb.Backend{Weight: 5}, Listeners: []slb.Listener{rule, {LoadBalancerID: "lb-1", Port: 83, Protocol: "http", Status: "stopped"}}},
		{LoadBalancerID: "lb-1", VServerGroupID: "rsp-2", Address: "192.0.2.1", Listeners: []slb.Listener{{LoadBalancerID: "lb-1", Port: 84, Protocol: "http"}}},
		{Product: slb.ALB, LoadBalancerID: "alb-1", VServerGroupID: "sgp-1", Address: "alb-1.example", Backend: slb.Backend{Weight: 5}, Listeners: []slb.Listener{{LoadBalancerID: "alb-1", Port: 80, Protocol: "http"}, {LoadBalancerID: "alb-2", Port: 80, Protocol: "http"}}},
	}
	tr := &transition{p: &Plan{Facts: Facts{Memberships: ms}}}
	got := tr.logged()
	require.Len(t, got, 4, "stopped listeners and groups without a weight lead nowhere")
	assert.Equal(t, []slb.Group{ms[0].Group(), ms[1].Group()}, got[0].groups)
	assert.True(t, got[0].wlc, "of one of its groups")
	assert.True(t, got[1].sticky)
	assert.Equal(t, "alb-1.example", got[2].address)
	assert.Equal(t, way{lb: "alb-2", l: ms[3].Listeners[1], groups: []slb.Group{ms[3].Group()}}, got[3], "the address of the second balancer is not that of the first")
}

// A balancer's certificate is for its domain, and a probe is sent to its address.
func TestProbeThroughHTTPS(t *testing.T) {
	name := make(chan string, 1)
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { name <- r.TLS.ServerName + r.URL.String() }))
	defer srv.Close()
	host, port, err := net.SplitHostPort(srv.Listener.Addr().String())
	require.NoError(t, err)
	n, err := strconv.Atoi(port)
	require.NoError(t, err)
	var d net.Dialer
	require.NoError(t, probeFrom(host, d.DialContext)(t.Context(), "t1", slb.Listener{Port: n, Protocol: "https", Domain: "*.shop.example,b.example"}))
	assert.Equal(t, "probe.shop.example/?upgradectl-probe=t1", <-name)
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
				for _, l := range s.Lines {
					assert.Equal(t, strings.TrimRight(l, " :;"), strings.TrimRight(l, " "), "%s: a line that ends in the middle", s.ID)
				}
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

// docs/transition.md lists the steps, each in its section, in the order in which
// they are done.
func TestStepsAreDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "docs", "transition.md"))
	require.NoError(t, err)
	var documented, want []string
	for _, m := range regexp.MustCompile("(?m)^\\|[^|]*\\| `([0-9.]+-[a-z-]+)`").FindAllStringSubmatch(string(text), -1) {
		documented = append(documented, m[1])
	}
	for _, s := range plan(t, nil).Steps {
		want = append(want, s.ID)
	}
	assert.Equal(t, want, documented)
}

func step(t *testing.T, steps []engine.Step, id string) engine.Step {
	t.Helper()
	i := slices.IndexFunc(steps, func(s engine.Step) bool { return s.ID == id })
	require.GreaterOrEqual(t, i, 0, id)
	return steps[i]
}
