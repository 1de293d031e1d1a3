package hostinv

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func base() *Inventory {
	i := &Inventory{
		Schema: schema, Hostname: "web-90", Kernel: "3.10.0-862", BootID: "b1", Docker: Docker{Version: "20.10.24"},
		OS:       OS{ID: "centos", Release: "CentOS Linux release 7.5.1804 (Core)"},
		Sections: map[string]Section{},
		Listeners: []Listener{
			{Proto: "tcp", Addr: "0.0.0.0", Port: 8080, PID: 7, Process: "java"},
			{Proto: "tcp", Addr: "127.0.0.1", Port: 3306},
			{Proto: "udp", Addr: "0.0.0.0", Port: 41234},
		},
		Java: []Java{
			{PID: 7, Cwd: "/srv/order", Jar: "order.jar", User: "app", Args: []string{"java", "-jar", "order.jar"}},
			{PID: 8, Cwd: "/srv/twin", Jar: "twin.jar", User: "app"},
			{PID: 9, Cwd: "/srv/twin", Jar: "twin.jar", User: "app"},
		},
		Containers: []Container{
			{ID: "1", Name: "cache", Image: "redis:6", ImageID: "sha256:1", State: "running", RestartPolicy: "always"},
			{ID: "2", Name: "shop_web_1", Image: "shop:1", ImageID: "sha256:2", State: "running", Health: "healthy", RestartPolicy: "always",
				Compose: Compose{Project: "shop", Service: "web"}, Ports: []Port{{"tcp", 80, "0.0.0.0", 8081}}},
		},
		Units: []Unit{
			{"nginx.service", "loaded", "active", "running", "enabled", ""},
			{"idle.service", "loaded", "inactive", "dead", "disabled", ""},
		},
	}
	for _, n := range SectionNames() {
		i.Sections[n] = Section{Status: StatusOK}
	}
	return i
}

func TestDiff(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(i *Inventory)
		expect Expect
		want   []string // "severity kind area key field"; expected ones begin with "("
	}{
		{"nothing that matters", func(i *Inventory) {
			i.Java[0].PID, i.Listeners[0].PID = 70, 70
			i.Containers[0].ID = "9"
			i.Listeners[2].Port = 55555
			i.Listeners[0].Addr = "::"
			slices.Reverse(i.Java)
		}, Expect{}, nil},
		{"a boot", func(i *Inventory) { i.BootID = "b2" }, Expect{}, []string{"changed changed boot boot ID "}},
		{"a boot as meant", func(i *Inventory) { i.BootID = "b2" }, Expect{Rebooted: true}, []string{"expected changed boot boot ID "}},
		{"kernel", func(i *Inventory) { i.Kernel = "x" }, Expect{}, []string{"changed changed kernel kernel release"}},
		{"kernel as meant", func(i *Inventory) { i.Kernel = "x" }, Expect{KernelChanged: true}, []string{"expected changed kernel kernel release"}},
		{"the very kernel", func(i *Inventory) { i.Kernel = "x" }, Expect{Kernel: "x", KernelChanged: true}, []string{"expected changed kernel kernel release"}},
		{"another kernel", func(i *Inventory) { i.Kernel = "y" }, Expect{Kernel: "x", KernelChanged: true}, []string{"lost changed kernel kernel release"}},
		{"kernel did not change", func(*Inventory) {}, Expect{KernelChanged: true}, []string{"lost changed kernel kernel release"}},
		{"release", func(i *Inventory) { i.OS.Release = "7.9" }, Expect{ReleaseChanged: true}, []string{"expected changed os release "}},
		{"another release", func(i *Inventory) { i.OS.Release = "7.8" }, Expect{Release: "7.9"}, []string{"changed changed os release "}},
		{"docker", func(i *Inventory) { i.Docker.Version = "26" }, Expect{DockerChanged: true}, []string{"expected changed docker docker version"}},
		{"docker gone", func(i *Inventory) { i.Docker.Version = "" }, Expect{DockerChanged: true}, []string{"lost changed docker docker version"}},
		{"java gone", func(i *Inventory) { i.Java = i.Java[1:] }, Expect{}, []string{"lost removed java /srv/order order.jar "}},
		{"one twin gone", func(i *Inventory) { i.Java = i.Java[:2] }, Expect{}, []string{"lost removed java /srv/twin twin.jar "}},
		{"java of another user", func(i *Inventory) { i.Java[0].User = "root" }, Expect{}, []string{"lost changed java /srv/order order.jar user"}},
		{"listener gone", func(i *Inventory) { i.Listeners = i.Listeners[1:] }, Expect{}, []string{"lost removed listeners tcp *:8080 "}},
		{"any to loopback", func(i *Inventory) { i.Listeners[0].Addr = "127.0.0.1" }, Expect{}, []string{"lost changed listeners tcp *:8080 address"}},
		{"loopback to any", func(i *Inventory) { i.Listeners[1].Addr = "0.0.0.0" }, Expect{}, []string{"changed changed listeners tcp *:3306 address"}},
		{"another program", func(i *Inventory) { i.Listeners[0].Process = "python3" }, Expect{}, []string{"lost changed listeners tcp *:8080 program"}},
		{"new listener", func(i *Inventory) { i.Listeners = append(i.Listeners, Listener{Proto: "tcp", Addr: "::", Port: 9}) }, Expect{}, []string{"new added listeners tcp *:9 "}},
		{"ephemeral listener", func(i *Inventory) {
			i.Listeners = append(i.Listeners, Listener{Proto: "tcp", Addr: "::", Port: 40001, Ephemeral: true})
		}, Expect{}, nil},
		{"compose v2 name", func(i *Inventory) { i.Containers[1].Name = "shop-web-1" }, Expect{}, []string{"changed changed containers shop/web name"}},
		{"container gone", func(i *Inventory) { i.Containers = i.Containers[1:] }, Expect{}, []string{"lost removed containers cache "}},
		{"container stopped", func(i *Inventory) { i.Containers[0].State = "exited" }, Expect{}, []string{"lost changed containers cache state"}},
		{"restart policy lost", func(i *Inventory) { i.Containers[0].RestartPolicy = "no" }, Expect{}, []string{"lost changed containers cache restart policy"}},
		{"unhealthy", func(i *Inventory) { i.Containers[1].Health = "unhealthy" }, Expect{}, []string{"lost changed containers shop/web health"}},
		{"not healthy yet", func(i *Inventory) { i.Containers[1].Health = "starting" }, Expect{}, []string{"changed changed containers shop/web health"}},
		{"image rebuilt", func(i *Inventory) { i.Containers[0].ImageID = "sha256:9" }, Expect{}, []string{"changed changed containers cache image id"}},
		{"unit stopped", func(i *Inventory) { i.Units[0].Active, i.Units[0].Sub = "inactive", "dead" }, Expect{}, []string{"lost changed units nginx.service state"}},
		{"unit failed", func(i *Inventory) { i.Units[1].Active = "failed" }, Expect{}, []string{"lost changed units idle.service state"}},
		{"unit disabled", func(i *Inventory) { i.Units[0].Enabled = "disabled" }, Expect{ReleaseChanged: true}, []string{"lost changed units nginx.service enabled"}},
		{"units of a release", func(i *Inventory) { i.Units[1].Name = "new.service" }, Expect{ReleaseChanged: true},
			[]string{"expected removed units idle.service ", "expected added units new.service "}},
		{"a rule", func(i *Inventory) { i.Java = i.Java[1:] }, Expect{Rules: []ExpectRule{{Area: SectionJava, Key: "/srv/order *", Kind: Removed, Why: "it moved"}}},
			[]string{"expected removed java /srv/order order.jar "}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b, a := base(), base()
			tc.change(a)
			c := Diff(b, a, tc.expect)
			var got []string
			for _, f := range c.Findings {
				s := fmt.Sprintf("%s %s %s %s %s", f.Severity, f.Kind, f.Area, f.Key, f.Field)
				got = append(got, s)
			}
			assert.Equal(t, tc.want, got)
			losses := 0
			for _, w := range tc.want {
				if strings.HasPrefix(w, "lost") {
					losses++
				}
			}
			assert.Len(t, c.Losses(), losses)
			assert.NotEmpty(t, c.Text(Chinese))
		})
	}
}

func TestDiffUnknown(t *testing.T) {
	for _, s := range []Status{StatusDenied, StatusError, StatusTimeout} {
		b, a := base(), base()
		a.Java, a.Sections[SectionJava] = nil, Section{Status: s, Message: "said so"}
		for _, c := range []*Comparison{Diff(b, a, Expect{}), Diff(a, b, Expect{}), Diff(a, a, Expect{})} {
			require.Len(t, c.Findings, 1)
			assert.Equal(t, Unknown, c.Findings[0].Kind)
			assert.Contains(t, c.Findings[0].Detail, "said so")
			assert.Len(t, c.Losses(), 1)
		}
	}
	// What a partial side lists counts; what it does not list is unknown.
	b, a := base(), base()
	a.Java, a.Sections[SectionJava] = a.Java[:1], Section{Status: StatusPartial}
	a.Java[0].User = "root"
	c := Diff(b, a, Expect{})
	require.Len(t, c.Findings, 2)
	assert.Equal(t, Unknown, c.Findings[0].Kind)
	assert.Equal(t, "user", c.Findings[1].Field)
	// A host without Docker is known to have no containers.
	a = base()
	a.Containers, a.Docker = nil, Docker{}
	a.Sections[SectionContainers], a.Sections[SectionDocker] = Section{Status: StatusAbsent}, Section{Status: StatusAbsent}
	assert.Len(t, Diff(base(), a, Expect{}).Losses(), 3)
	assert.Empty(t, Diff(a, a, Expect{}).Findings)
	// A section that was never collected is unknown too.
	a = base()
	delete(a.Sections, SectionUnits)
	assert.Len(t, Diff(a, a, Expect{}).Losses(), 1)
}

// TestDiffProperties: nothing differs from itself, in whatever order it is
// listed, and looking from the other side swaps the kinds and values.
func TestDiffProperties(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2)) // the same every time
	pick := func(l ...string) string { return l[r.IntN(len(l))] }
	random := func() *Inventory {
		i := base()
		i.Java, i.Listeners, i.Containers, i.Units = nil, nil, nil, nil
		i.Kernel = pick("k1", "k2")
		for range r.IntN(6) {
			i.Java = append(i.Java, Java{PID: r.Int(), Cwd: pick("/a", "/b"), Jar: pick("x.jar", "y.jar"), User: pick("u", "v")})
			i.Listeners = append(i.Listeners, Listener{Proto: pick("tcp", "udp"), Addr: pick("0.0.0.0", "::", "127.0.0.1", "10.0.0.1"), Port: 1 + r.IntN(3)})
			i.Containers = append(i.Containers, Container{Name: pick("a", "b", "c"), State: pick("running", "exited"), Health: pick("", "healthy", "unhealthy"), Image: pick("i", "j")})
			if n := pick("n", "m", "o") + ".service"; !slices.ContainsFunc(i.Units, func(u Unit) bool { return u.Name == n }) {
				i.Units = append(i.Units, Unit{n, "loaded", pick("active", "failed", "inactive"), pick("running", "exited"), pick("enabled", "disabled", ""), ""})
			}
		}
		for _, n := range []string{SectionJava, SectionContainers, SectionUnits, SectionListeners} {
			if r.IntN(6) == 0 {
				i.Sections[n] = Section{Status: StatusPartial}
			}
		}
		return i
	}
	keys := func(c *Comparison, swap bool) []string {
		l := []string{}
		for _, f := range c.Findings {
			if swap {
				f.Before, f.After = f.After, f.Before
				switch f.Kind {
				case Added:
					f.Kind = Removed
				case Removed:
					f.Kind = Added
				}
			}
			l = append(l, fmt.Sprintf("%s|%s|%s|%s|%s|%s", f.Area, f.Key, f.Kind, f.Field, f.Before, f.After))
		}
		slices.Sort(l)
		return l
	}
	for range 500 {
		a, b := random(), random()
		require.Equal(t, keys(Diff(a, b, Expect{}), false), keys(Diff(b, a, Expect{}), true))
		assert.Empty(t, onlyKnown(Diff(a, a, Expect{}).Findings))
		shuffled := *a
		shuffled.Java, shuffled.Listeners, shuffled.Containers = slices.Clone(a.Java), slices.Clone(a.Listeners), slices.Clone(a.Containers)
		r.Shuffle(len(a.Java), func(i, j int) {
			shuffled.Java[i], shuffled.Java[j] = shuffled.Java[j], shuffled.Java[i]
		})
		slices.Reverse(shuffled.Listeners)
		slices.Reverse(shuffled.Containers)
		assert.Equal(t, Diff(a, b, Expect{}), Diff(&shuffled, b, Expect{}))
	}
}
