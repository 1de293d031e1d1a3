package upgrade

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/ecs"
	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/internal/shellq"
	"github.com/upgradectl/upgradectl/nginx"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// Surroundings is what Survey found around a host: what an upgrade.yaml for it
// is written from.
type Surroundings struct {
	Config  *Config  `json:"-"` // a configuration as it would be written
	Facts   *Facts   `json:"-"`
	Scripts []Script `json:"-"` // start scripts beside Java projects

	Looked  []LookedAt  `json:"looked_at"`   // hosts that were looked at for an nginx
	Domains []Domain    `json:"domains"`     // names whose requests nginx leads to the host
	Trust   []TrustPeer `json:"trust_peers"` // who may let the host in by its address
	Todo    []Note      `json:"todo"`        // what a person has to decide
}

// A Note is a sentence for people, in both languages.
type Note struct {
	EN string `json:"en"`
	ZH string `json:"zh"`
}

// In gives the sentence in a language, zh or else English.
func (n Note) In(lang string) string {
	if lang == "zh" {
		return n.ZH
	}
	return n.EN
}

// A Script is a shell script beside a Java project.
type Script struct {
	Dir  string `json:"dir"`  // of the project
	Name string `json:"name"` // relative to Dir, as bin/start.sh
}

// A LookedAt is a peer of the host that may run an nginx.
type LookedAt struct {
	Host   string `json:"host"`
	Why    string `json:"why"`            // "given", or the port that it uses
	Result string `json:"result"`         // what was found, or why nothing was
	Names  bool   `json:"names_the_host"` // its nginx refers to the host
}

// A Domain is a name whose requests an nginx leads to the host.
type Domain struct {
	Name  string `json:"name"`
	Nginx string `json:"nginx"` // its host
	Port  int    `json:"port"`  // of the production host
}

// healthPaths are what Survey asks a port for, in this order. Never written to.
var healthPaths = []string{"/actuator/health", "/health", "/healthz", "/healthcheck"}

// noSuchPath is a path that no service has.
const noSuchPath = "/upgradectl/no-such-path"

// Limits of a survey: how many peers are looked at for an nginx, and how long
// one of them, or one request for health, may take.
const (
	maxPeers  = 16
	peerLimit = 20 * time.Second
	askLimit  = 3 * time.Second
)

// Survey looks at everything around the host that cfg names by its instance, its
// address or its SSH target, and drafts a configuration for it. Of cfg it takes
// Host, Instance, Address, Cloud, SSH and Nginx (hosts that are known to run
// one); peers that use the host's ports are looked at besides, if the operator
// can log in there. It changes nothing: on the host it reads, and sends one GET
// to each port of each service for some of the usual health paths. Progress, if not nil, is told
// what is looked at.
func Survey(ctx context.Context, cfg *Config, e *Env, progress func(string)) (*Surroundings, error) {
	if progress == nil {
		progress = func(string) {}
	}
	s := &Surroundings{Config: cfg, Facts: &Facts{}, Looked: []LookedAt{}, Domains: []Domain{}, Trust: []TrustPeer{}, Todo: []Note{}}
	f := s.Facts
	if err := s.findHost(ctx, e, progress); err != nil {
		return nil, err
	}
	prod := e.host(cfg.Host)
	var err error
	if f.Boot, err = hostos.GetBoot(ctx, prod); err != nil {
		return nil, fmt.Errorf("host %s: %w", cfg.Host, err)
	}
	if f.HasDocker, err = hostos.DockerInstalled(ctx, prod); err != nil {
		return nil, fmt.Errorf("host %s: %w", cfg.Host, err)
	}
	if f.Elsewhere, err = elsewhere(ctx, cfg, prod); err != nil {
		return nil, err
	}
	if f.Elsewhere != "" {
		return nil, &RefusedError{What: "cannot look around " + cfg.Host, Reasons: []string{f.Elsewhere}}
	}
	if f.Extra, err = collectExtra(ctx, prod); err != nil {
		return nil, fmt.Errorf("host %s: %w", cfg.Host, err)
	}
	if s.Scripts, err = listScripts(ctx, prod, f.Inventory); err != nil {
		return nil, fmt.Errorf("host %s: %w", cfg.Host, err)
	}
	f.Blockers = ecs.CheckClone(&f.Instance, f.Disks)
	progress("load balancers")
	if f.Memberships, err = discoverBalancers(ctx, cfg, e, f.Instance); err != nil {
		return nil, err
	}
	if f.Sick, err = discoverSick(ctx, e, f.Memberships); err != nil {
		return nil, err
	}
	progress("other ways to the host")
	if err := discoverPaths(ctx, cfg, e, f); err != nil {
		return nil, err
	}
	progress("allow lists, disks and events")
	if err := discoverInstore(ctx, cfg, e, f); err != nil {
		return nil, err
	}
	if err := discoverTrust(ctx, cfg, e, f); err != nil {
		return nil, err
	}
	if err := s.findNginx(ctx, e, prod, progress); err != nil {
		return nil, err
	}
	draftServices(s)
	progress("health of the services")
	if err := s.askHealth(ctx, prod); err != nil {
		return nil, err
	}
	draftRest(s)
	if f.Direct, err = discoverDirect(ctx, cfg, e, f); err != nil {
		return nil, err
	}
	s.Trust = ListTrustPeers(f.Inventory, cfg.Address)
	return s, nil
}

// CheckTargets sees that the hosts, the instance, and the endpoint of c are such
// as upgrade.yaml takes.
func (c *Config) CheckTargets() error {
	for _, x := range []struct {
		what, value string
		check       func(string) string
	}{{"host", c.Host, checkTarget}, {"instance", c.Instance, checkInstance}, {"endpoint", c.Cloud.Endpoint, checkEndpoint}} {
		if x.value != "" && x.check(x.value) != "" {
			return fmt.Errorf("%s %s %s", x.what, quote(x.value), x.check(x.value))
		}
	}
	for _, n := range c.Nginx {
		for _, s := range []string{checkTarget(n.Host), checkAbs(n.Conf)} {
			if s != "" {
				return fmt.Errorf("nginx %s=%s: %s", quote(n.Host), n.Conf, s)
			}
		}
	}
	return nil
}

// findHost finds the instance by what is known of it, and reads the host.
func (s *Surroundings) findHost(ctx context.Context, e *Env, progress func(string)) (err error) {
	cfg, f := s.Config, s.Facts
	if cfg.Address == "" && checkAddress(targetHost(cfg.Host)) == "" {
		cfg.Address = targetHost(cfg.Host)
	}
	if cfg.Instance != "" || cfg.Address != "" {
		progress("instance " + orWord(cfg.Instance, cfg.Address))
		if f.Instance, f.Disks, err = discoverInstance(ctx, cfg, e); err != nil {
			return err
		}
		cfg.Instance = f.Instance.ID
		if cfg.Address == "" && len(f.Instance.PrivateIPs) > 0 {
			cfg.Address = f.Instance.PrivateIPs[0]
		}
		if cfg.Host == "" {
			cfg.Host = cfg.Address
		}
	}
	progress("host " + cfg.Host)
	if f.Inventory, err = hostinv.Collect(ctx, e.host(cfg.Host), hostinv.Options{}); err != nil {
		return fmt.Errorf("host %s: %w", cfg.Host, err)
	}
	if cfg.Instance != "" {
		return nil
	}
	// A name of ssh_config: the host itself says its addresses.
	var tried []string
	for _, i := range f.Inventory.Interfaces {
		for _, a := range i.Addresses {
			p, err := netip.ParsePrefix(a)
			if err != nil || virtual(i) || !p.Addr().Is4() {
				continue
			}
			tried = append(tried, p.Addr().String())
			cfg.Address = p.Addr().String()
			f.Instance, f.Disks, err = discoverInstance(ctx, cfg, e)
			if errors.Is(err, ecs.ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			cfg.Instance = f.Instance.ID
			return nil
		}
	}
	cfg.Address = ""
	return &RefusedError{What: "cannot look around " + cfg.Host, Reasons: []string{fmt.Sprintf("no instance of the region has one of its addresses (%s); give --instance, or another --region", orWord(strings.Join(tried, ", "), "it shows none"))}}
}

// scriptsScript prints the shell scripts in the directories $@ and in their
// directory bin that name a jar or java.
const scriptsScript = `for d do
	for f in "$d"/*.sh "$d"/bin/*.sh; do
		[ -f "$f" ] && [ -x "$f" ] && [ -r "$f" ] || continue
		grep -q -E 'java|\.jar' "$f" && printf '%s\n' "$f"
	done
done
exit 0
`

// listScripts looks for start scripts beside the Java projects.
func listScripts(ctx context.Context, h hostinv.Host, inv *hostinv.Inventory) ([]Script, error) {
	var dirs []string
	for _, j := range inv.Java {
		if j.Container == "" && path.IsAbs(j.Cwd) && j.Cwd != "/" && !strings.HasSuffix(j.Cwd, " (deleted)") && !slices.Contains(dirs, j.Cwd) {
			dirs = append(dirs, j.Cwd)
		}
	}
	if len(dirs) == 0 {
		return nil, nil
	}
	cmd := "/bin/sh -s --"
	for _, d := range dirs {
		cmd += " " + shellq.Quote(d)
	}
	var out bytes.Buffer
	if err := h.Run(ctx, cmd, strings.NewReader(scriptsScript), &limited{w: &out, left: maxExtra}, io.Discard); err != nil {
		return nil, fmt.Errorf("cannot look for start scripts: %w", err)
	}
	var scripts []Script
	for name := range strings.SplitSeq(out.String(), "\n") {
		for _, d := range dirs {
			if rest, ok := strings.CutPrefix(name, d+"/"); ok && (!strings.Contains(rest, "/") || strings.HasPrefix(rest, "bin/") && strings.Count(rest, "/") == 1) {
				scripts = append(scripts, Script{Dir: d, Name: rest})
				break
			}
		}
	}
	return scripts, nil
}

// findNginx looks at the hosts that are said to run an nginx, and at the peers
// that use the host's ports.
func (s *Surroundings) findNginx(ctx context.Context, e *Env, prod *link, progress func(string)) error {
	cfg, f := s.Config, s.Facts
	given := cfg.Nginx
	cfg.Nginx = nil
	type candidate struct {
		n   NginxHost
		why string
	}
	var all []candidate
	for _, n := range given {
		all = append(all, candidate{n, "given"})
	}
	peers, err := listPeers(ctx, prod, f.Inventory, cfg.Address)
	if err != nil {
		return err
	}
	for _, p := range peers {
		if !slices.ContainsFunc(all, func(c candidate) bool { return targetHost(c.n.Host) == p.ip }) {
			all = append(all, candidate{NginxHost{Host: p.ip, Conf: "/etc/nginx/nginx.conf"}, p.why})
		}
	}
	for i, c := range all {
		l := LookedAt{Host: c.n.Host, Why: c.why}
		switch {
		case i >= len(given)+maxPeers:
			l.Result = fmt.Sprintf("not looked at: more than %d peers", maxPeers)
		default:
			progress("nginx on " + c.n.Host)
			l.Result, l.Names, err = s.readNginx(ctx, e, c.n, c.why == "given")
			if err != nil {
				return err
			}
		}
		s.Looked = append(s.Looked, l)
	}
	return nil
}

// readNginx reads the nginx of one host. One that was given has to be readable.
func (s *Surroundings) readNginx(ctx context.Context, e *Env, n NginxHost, given bool) (result string, names bool, err error) {
	cfg, f := s.Config, s.Facts
	look, cancel := context.WithTimeout(ctx, peerLimit)
	defer cancel()
	t, err := e.nginx(n).Load(look)
	if err != nil {
		if ctx.Err() != nil {
			return "", false, ctx.Err()
		}
		if given {
			return "", false, fmt.Errorf("host %s: %w", n.Host, err)
		}
		return "cannot be read: " + oneLine(err.Error()), false, nil
	}
	refs := t.Refs(nginx.Query{Host: cfg.Address})
	if len(refs) == 0 {
		return "its nginx does not name " + cfg.Address, false, nil
	}
	cfg.Nginx = append(cfg.Nginx, n)
	nf := NginxFacts{Host: n.Host, Conf: n.Conf, Files: map[string]string{}, Refs: refs}
	nf.preview(t, cfg.Address)
	f.Nginx = append(f.Nginx, nf)
	s.Domains = append(s.Domains, listDomains(t, n.Host, refs)...)
	return fmt.Sprintf("its nginx names it at %d places", len(refs)), true, nil
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// listDomains gives the server names of the servers whose passes reach refs.
func listDomains(t *nginx.Tree, host string, refs []nginx.Ref) []Domain {
	type place struct {
		file string
		line int
	}
	ports := map[place]int{}
	for _, r := range refs {
		ports[place{r.File, r.Line}] = r.Port // a pass that names the address itself
		for _, u := range r.UsedBy {
			ports[place{u.File, u.Line}] = r.Port
		}
	}
	var out []Domain
	t.Walk(func(c *nginx.Cursor) bool {
		port, ok := ports[place{c.File().Name(), c.Line()}]
		if !ok {
			return true
		}
		for _, b := range c.Context {
			if b.Name() != "server" {
				continue
			}
			for d := range b.Children() {
				if d.Name() != "server_name" {
					continue
				}
				for _, name := range d.Args() {
					x := Domain{Name: name, Nginx: host, Port: port}
					if name != "" && name != "_" && name != "localhost" && !slices.Contains(out, x) {
						out = append(out, x)
					}
				}
			}
		}
		return true
	})
	return out
}

// A userOf is a host that uses a port of ours.
type userOf struct{ ip, why string }

// listPeers lists the private addresses that are connected, or were a moment
// ago, to a port of the host that others can reach.
func listPeers(ctx context.Context, prod *link, inv *hostinv.Inventory, own string) ([]userOf, error) {
	published := publishedPorts(inv)
	conns, err := hostinv.ListConnections(ctx, prod, sortedInts(published)...)
	if err != nil {
		return nil, fmt.Errorf("host %s: %w", prod.target, err)
	}
	listening := map[int]bool{}
	for _, l := range inv.Listeners {
		if l.Proto == "tcp" && l.Port != 22 && l.Process != "sshd" {
			listening[l.Port] = true
		}
	}
	var out []userOf
	for _, c := range conns {
		port := c.LocalPort
		if c.PID != 0 {
			ports := published[c.PID][c.LocalPort]
			if len(ports) == 0 || sameBridge(c.LocalIP, c.RemoteIP) {
				continue
			}
			port = ports[0]
		} else if !listening[port] {
			continue
		}
		a, err := netip.ParseAddr(c.RemoteIP)
		if err != nil || !a.IsPrivate() || isBalancer(c.RemoteIP) || isLocal(c.RemoteIP, own) || containerNet(inv, c.RemoteIP) {
			continue
		}
		if !slices.ContainsFunc(out, func(u userOf) bool { return u.ip == c.RemoteIP }) {
			out = append(out, userOf{c.RemoteIP, fmt.Sprintf("uses port %d", port)})
		}
	}
	slices.SortFunc(out, func(a, b userOf) int { return addr(a.ip).Compare(addr(b.ip)) })
	return out, nil
}

func sortedInts[V any](m map[int]V) []int {
	out := make([]int, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// askHealth sends a GET for each of the usual paths to each port that others
// lead to or that a Java process has, until one answers well.
func (s *Surroundings) askHealth(ctx context.Context, prod *link) error {
	for i := range s.Config.Services {
		sv := &s.Config.Services[i]
		answers := func(path string) bool {
			ask, cancel := context.WithTimeout(ctx, askLimit)
			defer cancel()
			return hostos.Probe(ask, prod.DialContext, s.Config.Address, hostos.Service{Name: sv.Name, Ports: sv.Ports, Health: path}) == nil
		}
		if len(sv.Ports) > 0 {
			// Who says yes to everything proves nothing by it.
			if i := slices.IndexFunc(healthPaths, answers); i >= 0 && !answers(noSuchPath) {
				sv.Health = healthPaths[i]
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}
