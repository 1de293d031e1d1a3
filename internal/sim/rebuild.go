package sim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/upgradectl/upgradectl/internal/sim/firstbox"
	"github.com/upgradectl/upgradectl/internal/sim/memnet"
	"github.com/upgradectl/upgradectl/internal/sim/traffic"
)

// RebuildConfig says how a world of procedure B is built: a firstbox, physical
// hosts and the VMs on them. The zero value is the runbook's site at sixty
// times the speed of a real one. Requests, keepalived and ARP are always in real
// time, so that a gap is as long as it would be.
type RebuildConfig struct {
	Speed     float64       // how much faster boots, packages and installations are than real ones; 0 = 60
	Rate      float64       // short requests a second through the role's virtual address; 0 = 20, negative = none
	Streams   int           // long connections open at a time; 0 = 2, negative = none
	StreamMax time.Duration // longest of them; 0 = 5s

	Role      string // of the nodes that are rebuilt: proxy, webservice or dnsmaster; "" = proxy
	Strategy  string // of upgrade.yaml: "side-by-side" or "in-place"; "" = the first
	Version   string // of the installer; "" = 4.3.1
	VG        bool   // VG nodes carry the proxies, which have EIPs
	Sub       bool   // a sub zone: front ends of the old proxies point to the global site
	Boss      bool   // optional packages of the old proxies
	Boss2     bool
	Warehouse bool
	Faults    firstbox.Faults

	// Memory makes a world without sockets, as in [Config].
	Memory bool

	// Happened is told of everything that an operator did, before the operator
	// learns of it: "ssh ADDRESS COMMAND". nil = nobody.
	Happened func(what string)
}

func (c RebuildConfig) withDefaults() RebuildConfig {
	if c.Role == "" {
		c.Role = "proxy"
	}
	if c.Speed <= 0 {
		c.Speed = 60
	}
	c.Strategy = cmp.Or(c.Strategy, "side-by-side")
	if c.Rate == 0 {
		c.Rate = 20
	}
	if c.Streams == 0 {
		c.Streams = 2
	}
	if c.StreamMax <= 0 {
		c.StreamMax = 5 * time.Second
	}
	return c
}

// inPlace is the strategy that puts each old machine away first.
const inPlace = "in-place"

// Roles are those whose nodes can be rebuilt, the default one first.
func Roles() []string { return firstbox.Roles() }

// A Rebuild is the world of procedure B. Its methods are safe for concurrent
// use. Operators come in through the firstbox, which forwards connections to
// every address of the site.
type Rebuild struct {
	ports
	cfg     RebuildConfig
	op      Operator
	key     keyPair
	site    *firstbox.Site
	clients *traffic.VIPClients
	ln      net.Listener // the firstbox's port 22, for operators
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]struct{}

	before map[string]firstbox.State // of the nodes, by name, at the beginning
}

// NewRebuild builds a world and returns when traffic flows. Close it.
func NewRebuild(ctx context.Context, cfg RebuildConfig) (*Rebuild, error) {
	w := &Rebuild{ports: newPorts(cfg.Memory), cfg: cfg.withDefaults(), conns: map[net.Conn]struct{}{}}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	if err := w.build(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot build the simulated world: %w", err), w.Close())
	}
	return w, nil
}

func (w *Rebuild) build(context.Context) error {
	vip := firstbox.VIP(w.cfg.Role)
	if vip == "" {
		return fmt.Errorf("there is no role %q; there are %s", w.cfg.Role, strings.Join(firstbox.Roles(), ", "))
	}
	var err error
	if w.key, err = newKeyPair("operator"); err != nil {
		return err
	}
	w.op = Operator{}
	opt := firstbox.Options{Speed: w.cfg.Speed, Listen: w.listen, Connect: func(ctx context.Context, addr string) (net.Conn, error) {
		return w.DialOperator(ctx, "tcp", addr)
	}}
	opt.Pipe = func() (net.Conn, net.Conn) { return memnet.Pipe(&net.TCPAddr{}, &net.TCPAddr{}) }
	opt.Nginx = func(name string, dial func(context.Context, string) (net.Conn, error)) firstbox.WebServer {
		return traffic.NewNginx(name, "", func(ctx context.Context, _, to string) (net.Conn, error) { return dial(ctx, to) })
	}
	if w.cfg.Happened != nil {
		opt.Ran = func(addr, command string) { w.cfg.Happened("ssh " + addr + " " + command) }
	}
	w.site, err = firstbox.New(firstbox.Config{
		Version: w.cfg.Version, VG: w.cfg.VG, Sub: w.cfg.Sub, Boss: w.cfg.Boss, Boss2: w.cfg.Boss2, Warehouse: w.cfg.Warehouse,
		Keys: []string{strings.TrimSpace(w.key.authorized)}, Faults: w.cfg.Faults,
	}, opt)
	if err != nil {
		return err
	}
	if w.ln, err = w.listen(); err != nil {
		return fmt.Errorf("cannot listen for the firstbox: %w", err)
	}
	w.wg.Go(w.accept)
	w.before = w.site.States()
	fronts := w.site.Fronts(w.cfg.Role)
	var targets []traffic.VIPTarget
	for _, f := range fronts {
		targets = append(targets, traffic.VIPTarget{Name: f.Name, Port: f.Port, Stream: f.Stream})
	}
	w.clients = traffic.StartVIPClients(traffic.VIPLoad{
		Targets: targets, Rate: w.cfg.Rate, Streams: max(w.cfg.Streams, 0), StreamMax: w.cfg.StreamMax,
		Open: func(target int) (traffic.VIPConn, error) {
			f, err := w.site.OpenFront(vip, fronts[target])
			if err != nil {
				return traffic.VIPConn{}, err
			}
			return traffic.VIPConn{Server: f.Server, Cut: f.Cut(), Why: f.Why, Close: func() { w.site.CloseFlow(f) }}, nil
		},
		Gap: func(begin, end time.Time) (int, bool) { return w.site.Gap(vip, begin, end) },
	})
	return nil
}

// accept serves operators' connections to the firstbox.
func (w *Rebuild) accept() {
	box := w.site.Firstbox().Host
	for {
		c, err := w.ln.Accept()
		if err != nil {
			return
		}
		w.mu.Lock()
		if w.ctx.Err() != nil {
			w.mu.Unlock()
			_ = c.Close()
			return
		}
		w.conns[c] = struct{}{}
		w.wg.Go(func() {
			box.ServeSSH(c)
			_ = c.Close()
			w.mu.Lock()
			delete(w.conns, c)
			w.mu.Unlock()
		})
		w.mu.Unlock()
	}
}

// Site is what the world consists of.
func (w *Rebuild) Site() *firstbox.Site { return w.site }

// Operator is the operator of the world, without files; WriteOperatorFiles
// makes them.
func (w *Rebuild) Operator() Operator { return w.op }

// Finish stops the traffic, waits for requests under way and takes the final
// figures.
func (w *Rebuild) Finish(ctx context.Context) (RebuildFigures, error) {
	err := w.clients.Stop(ctx)
	return w.Figures(), err
}

// Close ends everything that the world started. A second call does nothing.
func (w *Rebuild) Close() error {
	w.mu.Lock()
	w.cancel()
	for c := range w.conns {
		_ = c.Close()
	}
	w.mu.Unlock()
	if w.clients != nil {
		w.clients.Close()
	}
	if w.ln != nil {
		_ = w.ln.Close()
	}
	if w.site != nil {
		w.site.Close()
	}
	w.wg.Wait()
	return nil
}
