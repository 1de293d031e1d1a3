package sim

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/upgradectl/upgradectl/internal/sim/cloud"
	"github.com/upgradectl/upgradectl/internal/sim/host"
	"github.com/upgradectl/upgradectl/internal/sim/traffic"
)

// Config says how a world is built. The zero value is runbook A's world at
// sixty times the speed of a real cloud.
type Config struct {
	Speed     float64       // how much faster clouds, boots and packages are than real ones; 0 = 60
	Rate      float64       // short requests a second, all targets together; 0 = 180, negative = none
	Streams   int           // streams open at a time per target; 0 = 2, negative = none
	StreamMax time.Duration // longest stream; 0 = 5s
	FreeIPs   []string      // addresses for new instances; nil = 172.31.0.101 to .120

	// Wide adds to the runbook's world what a grown site has: four data disks, a
	// second CLB, an ALB and an NLB, one more VServer group, a forwarding rule,
	// and access logs of the CLB and the ALB.
	Wide bool

	// VisibleAfter is how long what was made in the cloud is in no list, in the
	// world's time.
	VisibleAfter time.Duration

	// Memory makes a world without sockets, for testing/synctest: there it runs
	// in virtual time. Operators reach it with DialOperator.
	Memory bool

	// Happened is told of everything that an operator did, before the operator
	// learns of it: "api ACTION" and "ssh ADDRESS COMMAND". nil = nobody.
	Happened func(what string)
}

func (c Config) withDefaults() Config {
	if c.Speed <= 0 {
		c.Speed = 60
	}
	if c.Rate == 0 {
		c.Rate = 180
	}
	if c.Streams == 0 {
		c.Streams = 2
	}
	if c.StreamMax <= 0 {
		c.StreamMax = 5 * time.Second
	}
	if c.FreeIPs == nil {
		for i := 101; i <= 120; i++ {
			c.FreeIPs = append(c.FreeIPs, fmt.Sprintf("172.31.0.%d", i))
		}
	}
	return c
}

// A World is a cloud, its hosts, their network and the clients that use them.
// Its methods are safe for concurrent use.
type World struct {
	ports
	cfg      Config
	op       Operator
	key      keyPair
	cloud    *cloud.Cloud
	api      *http.Server
	apiLn    net.Listener
	balancer *traffic.Balancer
	bastion  *bastion
	clients  *traffic.Clients
	nginx    map[string]*traffic.Nginx // by address of their host
	locals   host.LocalPorts
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	wg       sync.WaitGroup
	setting  sync.Mutex // one change of the balancers at a time

	mu      sync.Mutex
	hosts   map[string]*host.Host // by instance ID
	byAddr  map[string]*host.Host
	disks   map[string]*host.Disk // by handle
	refused []string              // by hosts that are gone
	created map[string]bool       // resources that the API ever made
	problem []string              // of the world itself: reported as refused

	weights map[string]int // at the beginning
	files   map[string]map[string][]byte
	kernel  string
}

// New builds a world and returns when its services are healthy and traffic
// flows. Close it.
func New(ctx context.Context, cfg Config) (*World, error) {
	cfg = cfg.withDefaults()
	w := &World{
		ports: newPorts(cfg.Memory), cfg: cfg, hosts: map[string]*host.Host{}, byAddr: map[string]*host.Host{}, disks: map[string]*host.Disk{},
		nginx: map[string]*traffic.Nginx{}, created: map[string]bool{},
	}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	if err := w.build(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot build the simulated world: %w", err), w.Close())
	}
	return w, nil
}

func (w *World) build(ctx context.Context) error {
	var err error
	if w.key, err = newKeyPair("operator"); err != nil {
		return err
	}
	w.op = Operator{Region: region, AccessKeyID: "LTAI" + random(16), AccessKeySecret: random(30)}
	w.cloud = cloud.New(cloud.Config{
		Region: region, AccessKeyID: w.op.AccessKeyID, AccessKeySecret: w.op.AccessKeySecret,
		Speed: w.cfg.Speed, Machines: machines{w}, FreeIPs: w.cfg.FreeIPs, Health: w.health, VisibleAfter: w.cfg.VisibleAfter,
	})
	w.cloud.AddImage(cloud.Image{ID: baseImage, Name: baseImage, Owner: "system", OSName: "CentOS  7.5 64位", Size: 20})
	for _, m := range w.inventory() {
		if err := w.add(m); err != nil {
			return err
		}
	}
	w.balancer = traffic.NewBalancer(traffic.BalancerConfig{
		Dial: w.Dial, Listen: w.listen, Log: w.logAccess, Interval: w.interval(), Timeout: w.patience(),
	})
	w.addBalancers()
	w.cloud.OnChange(w.rebalance)
	w.rebalance()
	if w.apiLn, err = w.listen(); err != nil {
		return fmt.Errorf("cannot listen for the cloud's API: %w", err)
	}
	w.op.Endpoint = "http://" + w.apiLn.Addr().String()
	w.api = &http.Server{Handler: http.HandlerFunc(w.serveAPI), ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: 10 * time.Second}
	w.wg.Go(func() { _ = w.api.Serve(w.apiLn) })
	if w.bastion, err = newBastion(w); err != nil {
		return err
	}
	if err := w.waitHealthy(ctx); err != nil {
		return err
	}
	w.weights = w.weightsNow()
	w.files = w.nginxFiles()
	w.kernel = w.Host(production).Kernel()
	w.wg.Go(w.watchResources)
	w.clients = traffic.StartClients(traffic.Load{
		Dial: w.Dial, Targets: targets(w.cfg.Wide), Rate: w.cfg.Rate, Streams: max(w.cfg.Streams, 0), StreamMax: w.cfg.StreamMax,
		BootOf: func(addr string) string {
			if h := w.Host(addr); h != nil {
				return h.BootID()
			}
			return ""
		},
	})
	return nil
}

// add makes one host of the inventory, starts it and tells the cloud.
func (w *World) add(m machine) error {
	h, err := host.New(m.spec, w.options())
	if err != nil {
		return err
	}
	w.enter(m.instance.ID, h)
	w.cloud.AddInstance(m.instance)
	if err := h.Start(); err != nil {
		return err
	}
	return nil
}

// spawn runs f, which ends soon after w.ctx or the hosts do, unless the world is
// being closed.
func (w *World) spawn(f func()) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ctx.Err() != nil {
		return false
	}
	w.wg.Go(f)
	return true
}

func (w *World) options() host.Options {
	return host.Options{Speed: w.cfg.Speed, Network: w, Listen: w.listen, Ran: w.ran}
}

func (w *World) ran(h *host.Host, command string) {
	if w.cfg.Happened != nil {
		w.cfg.Happened("ssh " + h.Addr() + " " + command)
	}
}

// serveAPI is the cloud's API, which tells what it has carried out.
func (w *World) serveAPI(rw http.ResponseWriter, r *http.Request) {
	w.cloud.ServeHTTP(rw, r)
	if w.cfg.Happened != nil {
		w.cfg.Happened("api " + r.Header.Get("x-acs-action"))
	}
}

// interval is the time between two health checks. Virtual time costs nothing
// but what happens in it.
func (w *World) interval() time.Duration {
	if w.mem != nil {
		return max(w.scaled(2*time.Second), 500*time.Millisecond)
	}
	return max(w.scaled(2*time.Second), 100*time.Millisecond)
}

// patience is how long a health check waits for an answer. What is down refuses
// at once; in real time it is the machine underneath that is slow.
func (w *World) patience() time.Duration {
	if w.mem != nil {
		return 2 * time.Second
	}
	return 15 * time.Second
}

// enter connects a host with the network.
func (w *World) enter(id string, h *host.Host) {
	addr := h.Addr()
	h.Forward = func(ctx context.Context, to string) (net.Conn, error) { return w.Dial(ctx, addr, to) }
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hosts[id] = h
	w.byAddr[addr] = h
}

func (w *World) scaled(d time.Duration) time.Duration {
	return time.Duration(float64(d) / w.cfg.Speed)
}

// waitHealthy waits until the balancers know their members to be well.
func (w *World) waitHealthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		bad := ""
		for _, s := range w.services() {
			for _, m := range s.Members {
				if got := w.balancer.Health(s.Addr, m.Addr); got != traffic.Normal {
					bad = fmt.Sprintf("%s behind %s is %s", m.Addr, s.Addr, got)
				}
			}
		}
		if bad == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", bad, ctx.Err())
		case <-tick.C:
		}
	}
}

// Close ends everything that the world started. A second call does nothing.
func (w *World) Close() error {
	w.mu.Lock()
	w.cancel() // under the lock: see spawn
	w.mu.Unlock()
	if w.clients != nil {
		w.clients.Close()
	}
	if w.bastion != nil {
		w.bastion.close()
	}
	if w.api != nil {
		_ = w.api.Close()
	}
	if w.cloud != nil {
		w.cloud.Close()
	}
	if w.balancer != nil {
		w.balancer.Close()
	}
	w.mu.Lock()
	hosts := slices.Collect(maps.Values(w.hosts))
	w.mu.Unlock()
	var down sync.WaitGroup
	for _, h := range hosts {
		down.Go(h.Close)
	}
	down.Wait()
	w.wg.Wait()
	return nil
}

// Cloud is the world's cloud.
func (w *World) Cloud() *cloud.Cloud { return w.cloud }

// Host is the host at an address of the world, nil when there is none.
func (w *World) Host(addr string) *host.Host {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.byAddr[addr]
}

// powerOffAfter is how long a host must be down before it counts as switched
// off: longer than a shutdown waits for requests under way, in real time.
const powerOffAfter = 12 * time.Second

// Changed is called by hosts whose services or power changed. A host that
// switched itself off becomes Stopped in the cloud; one that only reboots is
// back before that.
func (w *World) Changed(h *host.Host) {
	if h.Up() {
		return
	}
	w.spawn(func() {
		t := time.NewTimer(w.scaled(time.Minute) + powerOffAfter)
		defer t.Stop()
		select {
		case <-w.ctx.Done():
			return
		case <-t.C:
		}
		w.mu.Lock()
		id := ""
		for k, v := range w.hosts {
			if v == h {
				id = k
			}
		}
		w.mu.Unlock()
		if id != "" && !h.Up() && !h.Hung() && w.cloud.InstanceStatus(id) == "Running" {
			w.cloud.PoweredOff(id)
		}
	})
}

// Dial connects from an address of the world ("" = somewhere outside) to
// HOST:PORT in the world. Nothing listening there gives
// syscall.ECONNREFUSED, a host that is down or unknown syscall.EHOSTUNREACH.
// The connection stands in the tables of the hosts at both ends until it is
// closed.
func (w *World) Dial(ctx context.Context, from, to string) (net.Conn, error) {
	ip, p, err := net.SplitHostPort(to)
	if err != nil {
		return nil, fmt.Errorf("cannot dial %s: %w", to, err)
	}
	if addr := names[ip]; addr != "" {
		ip, to = addr, net.JoinHostPort(addr, p)
	}
	port, err := strconv.Atoi(p)
	if err != nil {
		return nil, fmt.Errorf("cannot dial %s: bad port", to)
	}
	if err := ctx.Err(); err != nil {
		return nil, host.DialError(to, err)
	}
	h := w.Host(ip)
	var c net.Conn
	switch {
	case h == nil && slices.Contains(balancerAddrs, ip):
		real, ok := w.balancer.Endpoint(to)
		if !ok {
			return nil, host.DialError(to, syscall.ECONNREFUSED)
		}
		c, err = w.dialReal(ctx, to, real)
	case h == nil || !h.Up():
		return nil, host.DialError(to, syscall.EHOSTUNREACH)
	case port == 22:
		var far net.Conn
		c, far = net.Pipe()
		if !w.spawn(func() { h.ServeSSH(far); _ = far.Close() }) {
			return nil, host.DialError(to, syscall.EHOSTUNREACH)
		}
	default:
		real, ok := h.Endpoint(port)
		if !ok {
			return nil, host.DialError(to, syscall.ECONNREFUSED)
		}
		c, err = w.dialReal(ctx, to, real)
	}
	if err != nil {
		return nil, err
	}
	if from == "" {
		from = "203.0.113.10"
	}
	return host.TrackBoth(c, w.Host(from), h, host.Conn{LocalIP: from, LocalPort: w.locals.Next(), RemoteIP: ip, RemotePort: port}), nil
}

// dialReal connects with the port that stands for one of the world.
func (w *World) dialReal(ctx context.Context, to, real string) (net.Conn, error) {
	c, err := w.DialOperator(ctx, "tcp", real)
	if err != nil {
		// The address that the caller knows, not the loopback one behind it.
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err
		}
		return nil, host.DialError(to, err)
	}
	return c, nil
}

// watchResources remembers what the API ever made: at the end most of it is
// gone again.
func (w *World) watchResources() {
	tick := time.NewTicker(w.interval() / 2)
	defer tick.Stop()
	for {
		w.noteResources()
		select {
		case <-w.ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (w *World) noteResources() []cloud.Resource {
	all := w.cloud.Resources()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range all {
		if r.CreatedByAPI && r.Type != "disk" && r.Type != "snapshotgroup" { // they come and go with their instance and their snapshots
			w.created[r.ID] = true
		}
	}
	return all
}

// nginxFiles is every file below /etc/nginx, by address and name.
func (w *World) nginxFiles() map[string]map[string][]byte {
	out := map[string]map[string][]byte{}
	for addr := range w.nginx {
		h := w.Host(addr)
		files := map[string][]byte{}
		var walk func(dir string)
		walk = func(dir string) {
			entries, err := h.ReadDir(dir)
			if err != nil {
				return
			}
			for _, e := range entries {
				name := path.Join(dir, e.Name())
				if e.IsDir() {
					walk(name)
				} else if data, err := h.ReadFile(name); err == nil {
					files[name] = data
				}
			}
		}
		walk("/etc/nginx")
		out[addr] = files
	}
	return out
}

// changedFiles names the nginx files that are not as at the beginning.
func (w *World) changedFiles() []string {
	var out []string
	now := w.nginxFiles()
	for addr, before := range w.files {
		names := map[string]bool{}
		for n := range before {
			names[n] = true
		}
		for n := range now[addr] {
			names[n] = true
		}
		for n := range names {
			b, was := before[n]
			a, is := now[addr][n]
			switch {
			case !is:
				out = append(out, addr+":"+n+" (gone)")
			case !was:
				out = append(out, addr+":"+n+" (new)")
			case string(a) != string(b):
				out = append(out, addr+":"+n)
			}
		}
	}
	slices.Sort(out)
	return out
}

// Figures is what was counted up to now.
func (w *World) Figures() Figures {
	s := w.clients.Summary()
	f := Figures{
		Requests: s.Requests, Failed: s.Failed, P50: ms(s.P50), P99: ms(s.P99),
		MinHealthyByGroup: w.balancer.MinHealthy(),
		WeightsBefore:     maps.Clone(w.weights), WeightsAfter: w.weightsNow(),
		KernelBefore: w.kernel, KernelMeant: updatedKernel,
		NginxChanged: w.changedFiles(),
		Backends:     s.Backends, Targets: s.Targets, Failures: s.Failures,
		Since: s.Since, Duration: s.Elapsed,
	}
	f.WeightsRestored = maps.Equal(f.WeightsBefore, f.WeightsAfter)
	f.NginxRestored = len(f.NginxChanged) == 0
	for _, n := range w.nginx {
		maps.Copy(f.MinHealthyByGroup, n.MinHealthy())
		f.Refused = append(f.Refused, n.Refused()...)
	}
	if len(f.MinHealthyByGroup) > 0 {
		f.MinHealthy = slices.Min(slices.Collect(maps.Values(f.MinHealthyByGroup)))
	}
	for _, r := range w.noteResources() {
		switch {
		case !r.CreatedByAPI, r.Type == "snapshotgroup": // a group is no more than its snapshots
		case r.Type == "snapshot":
			f.KeptSnapshots++
		default:
			f.Leaked++
			f.LeakedResources = append(f.LeakedResources, strings.TrimSpace(r.Type+" "+r.ID+" "+r.Name))
		}
	}
	if h := w.Host(production); h != nil {
		f.KernelAfter = h.Kernel()
		release, _ := h.ReadFile("/etc/redhat-release")
		f.ReleaseAfter = strings.TrimSpace(string(release))
	}
	for _, line := range w.cloud.Refused() {
		f.Refused = append(f.Refused, "cloud: "+line)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	f.Created = len(w.created)
	f.Refused = append(f.Refused, w.refused...)
	f.Refused = append(f.Refused, w.problem...)
	for _, h := range w.hosts {
		f.Refused = append(f.Refused, refusedBy(h)...)
	}
	for addr, h := range w.byAddr {
		if _, err := h.ReadFile("/var/lib/upgradectl/lease"); err == nil {
			f.LeasedHosts = append(f.LeasedHosts, addr)
		}
	}
	slices.Sort(f.LeasedHosts)
	slices.Sort(f.Refused)
	return f
}

func refusedBy(h *host.Host) []string {
	var out []string
	for _, line := range h.Refused() {
		out = append(out, h.Addr()+": "+line)
	}
	return out
}

func ms(d time.Duration) float64 {
	return float64(d.Round(10*time.Microsecond)) / float64(time.Millisecond)
}

// Finish stops the traffic, waits for requests under way and takes the final
// figures. The world goes on; only its clients have stopped.
func (w *World) Finish(ctx context.Context) (Figures, error) {
	err := w.clients.Stop(ctx)
	return w.Figures(), err
}

// random is n characters that nobody can guess.
func random(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b))[:n]
}
