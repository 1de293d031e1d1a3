package hostinv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// Limits of CollectFleet where FleetOptions says nothing.
const (
	DefaultForks       = 50
	DefaultHostTimeout = 5 * time.Minute
)

// A FleetHost is one host of many.
type FleetHost struct {
	Name     string   `json:"name"`               // what the result is called by; unique within a fleet
	Target   string   `json:"target"`             // for Dialer.Dial; empty = Name
	Identity string   `json:"identity,omitempty"` // private key file of this host alone; empty = those of the Dialer
	Groups   []string `json:"groups,omitempty"`   // of an Ansible inventory, sorted; without all and ungrouped
	Source   string   `json:"source,omitempty"`   // where it was named, as file:line; empty = an argument
}

// Address returns what is dialed: Target, or Name without one.
func (h FleetHost) Address() string {
	if h.Target == "" {
		return h.Name
	}
	return h.Target
}

// FleetConn is a host that was connected to. *Conn is one.
type FleetConn interface {
	Host
	io.Closer
}

// A FleetDialer connects to the hosts of a fleet: all share the connections to
// jump hosts, but for those with an Identity of their own, which share them
// among the hosts of that identity. It may be used by several goroutines.
type FleetDialer struct {
	cfg     SSHConfig
	mu      sync.Mutex
	closed  bool
	dialers map[string]*Dialer // by identity
}

// NewFleetDialer reads the ssh_config file, as NewDialer does.
func NewFleetDialer(cfg SSHConfig) (*FleetDialer, error) {
	d, err := NewDialer(cfg)
	if err != nil {
		return nil, err
	}
	return &FleetDialer{cfg: cfg, dialers: map[string]*Dialer{"": d}}, nil
}

// Dial connects to a host. Its errors are those of Dialer.Dial.
func (f *FleetDialer) Dial(ctx context.Context, h FleetHost) (*Conn, error) {
	d, err := f.dialer(h.Identity)
	if err != nil {
		return nil, err
	}
	return d.Dial(ctx, h.Address())
}

func (f *FleetDialer) dialer(identity string) (*Dialer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return f.dialers[""], nil // says so itself
	}
	if d := f.dialers[identity]; d != nil {
		return d, nil
	}
	file := identity
	if rest, ok := strings.CutPrefix(file, "~/"); ok {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil, fmt.Errorf("identity %s: %w", identity, err)
		}
		file = filepath.Join(home, rest)
	}
	cfg := f.cfg
	cfg.Identities = append([]string{file}, cfg.Identities...)
	d, err := NewDialer(cfg)
	if err != nil {
		return nil, err
	}
	f.dialers[identity] = d
	return d, nil
}

// Close closes all connections to jump hosts. Dial fails afterwards.
func (f *FleetDialer) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	var errs []error
	for _, d := range f.dialers {
		errs = append(errs, d.Close())
	}
	return errors.Join(errs...)
}

// FleetOptions of CollectFleet. The zero value is usable.
type FleetOptions struct {
	// Forks is how many hosts are connected to at once; 0 = DefaultForks.
	Forks int
	// Timeout limits one host, from connecting to the end of its inventory;
	// 0 = DefaultHostTimeout.
	Timeout time.Duration
	// Collect is passed on for every host.
	Collect Options
	// Each is told of every host that ended, one at a time, in the order in
	// which they end. The inventory of a result is only there during the
	// call, unless Each keeps it: so a fleet of any size needs the memory of
	// Forks inventories. An error says that the result could not be kept; it
	// becomes the host's. nil = the results of the Fleet hold the inventories.
	Each func(FleetResult) error
}

// A FleetResult is what became of one host: an inventory or an error.
type FleetResult struct {
	Host       FleetHost
	Inventory  *Inventory    // nil when Err is set, or Each was given it
	Err        error         // names the host
	Took       time.Duration // from connecting to the end; 0 = never begun
	Incomplete []string      // sections that are neither ok nor absent, as "NAME: STATUS"
	Done       int           // how many hosts have ended, this one included
	Total      int           // of how many
}

// A Fleet is the outcome of CollectFleet.
type Fleet struct {
	Results []FleetResult // one for each host, in the order they were given
	Took    time.Duration
}

// Failed returns the results that hold an error, in the order of the hosts.
func (f *Fleet) Failed() []FleetResult {
	var l []FleetResult
	for _, r := range f.Results {
		if r.Err != nil {
			l = append(l, r)
		}
	}
	return l
}

// Err joins the errors of all hosts, in their order; nil when there are none.
func (f *Fleet) Err() error {
	var l []error
	for _, r := range f.Failed() {
		l = append(l, r.Err)
	}
	return errors.Join(l...)
}

// ErrNotBegun is the error of a host that was not connected to any more
// because the context ended.
var ErrNotBegun = errors.New("not begun")

// CollectFleet collects the inventories of many hosts, Forks at a time. dial
// is FleetDialer.Dial or a function like it; it and the Run and Close of what
// it returns must end soon after their context does, as those of FleetDialer
// and Conn do, because CollectFleet returns when all that it began has ended.
//
// What fails on one host is the error of that host and touches no other. When
// ctx ends, hosts that have not ended fail with its error, those not begun
// with ErrNotBegun as well; every host has a result in any case.
func CollectFleet[C FleetConn](ctx context.Context, hosts []FleetHost,
	dial func(ctx context.Context, h FleetHost) (C, error), o FleetOptions) *Fleet {
	forks, timeout := o.Forks, o.Timeout
	if forks <= 0 {
		forks = DefaultForks
	}
	if timeout <= 0 {
		timeout = DefaultHostTimeout
	}
	begin := time.Now()
	f := &Fleet{Results: make([]FleetResult, len(hosts))}
	next := make(chan int)
	var mu sync.Mutex // serialises Each
	done := 0
	ended := func(i int, r FleetResult) {
		mu.Lock()
		defer mu.Unlock()
		done++
		r.Host, r.Done, r.Total = hosts[i], done, len(hosts)
		if o.Each != nil {
			if err := o.Each(r); err != nil && r.Err == nil {
				r.Err = fmt.Errorf("%s: the inventory could not be kept: %w", r.Host.Name, err)
			}
			r.Inventory = nil
		}
		f.Results[i] = r
	}
	// Reading what a host sent takes processor time and memory: no more of
	// them at once than there are processors.
	turns := make(chan struct{}, runtime.GOMAXPROCS(0))
	var workers sync.WaitGroup
	for range min(forks, len(hosts)) {
		workers.Go(func() {
			for i := range next {
				ended(i, collectHost(ctx, hosts[i], timeout, turns, dial, o.Collect))
			}
		})
	}
	for i := range hosts {
		if ctx.Err() == nil {
			select {
			case next <- i:
				continue
			case <-ctx.Done():
			}
		}
		ended(i, FleetResult{Err: fmt.Errorf("%s: %w: %w", hosts[i].Name, ErrNotBegun, context.Cause(ctx))})
	}
	close(next)
	workers.Wait()
	f.Took = time.Since(begin)
	return f
}

// inTurn is a host whose Run returns when there is a turn to look at what it
// brought.
type inTurn struct {
	Host
	turns chan struct{}
	mine  bool
}

func (t *inTurn) Run(ctx context.Context, cmd string, stdin io.Reader, stdout, stderr io.Writer) error {
	err := t.Host.Run(ctx, cmd, stdin, stdout, stderr)
	if !t.mine {
		t.turns <- struct{}{} // soon: those before it only compute
		t.mine = true
	}
	return err
}

func (t *inTurn) done() {
	if t.mine {
		<-t.turns
	}
}

// collectHost does one host.
func collectHost[C FleetConn](ctx context.Context, h FleetHost, timeout time.Duration, turns chan struct{},
	dial func(context.Context, FleetHost) (C, error), o Options) (r FleetResult) {
	begin := time.Now()
	limited, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not done within %v", timeout))
	defer cancel()
	defer func() { r.Took = time.Since(begin) }()
	fail := func(err error) FleetResult {
		if limited.Err() != nil && ctx.Err() == nil {
			err = fmt.Errorf("%w: %w", context.Cause(limited), err)
		}
		// Most errors of the SSH layer name the target already.
		if !strings.Contains(err.Error(), h.Name) {
			err = fmt.Errorf("%s: %w", h.Name, err)
		}
		return FleetResult{Err: err}
	}
	c, err := dial(limited, h)
	if err != nil {
		return fail(err)
	}
	turn := &inTurn{Host: c, turns: turns}
	inv, err := Collect(limited, turn, o)
	turn.done()
	// What was read is whole; how the connection ends changes nothing.
	_ = c.Close()
	if err != nil {
		return fail(err)
	}
	for _, name := range slices.Sorted(maps.Keys(inv.Sections)) {
		if s := inv.Sections[name]; !s.Status.Known() {
			r.Incomplete = append(r.Incomplete, name+": "+string(s.Status))
		}
	}
	r.Inventory = inv
	return r
}
