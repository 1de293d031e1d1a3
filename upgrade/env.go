package upgrade

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/upgradectl/upgradectl/ecs"
	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/nginx"
	"github.com/upgradectl/upgradectl/slb"
)

// An Env is what a procedure reaches the world through: the cloud's APIs and
// the hosts. Close it when the procedure has returned.
type Env struct {
	ECS    *ecs.Client
	SLB    *slb.Client
	Dialer *hostinv.Dialer

	// netDial makes connections from this machine.
	netDial  func(ctx context.Context, network, addr string) (net.Conn, error)
	resolver slb.Resolver // nil = the machine's

	mu    sync.Mutex
	links map[string]*link

	holder *leaseholder // nil while nothing is changed
}

// Access says how the world is reached where that is not the configuration's
// or the environment's business. It is never stored.
type Access struct {
	// An access key of the cloud; empty = from the environment or the profile.
	AccessKeyID, AccessKeySecret, SecurityToken string
	// NetDial makes the connections to the cloud and to the first SSH hop; nil =
	// the machine's network.
	NetDial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Resolver looks domains up for section 2.7; nil = the machine's.
	Resolver slb.Resolver
	// Held is told when the cloud's flow control holds calls back; see
	// ecs.WithHeld. nil = nobody.
	Held func(ecs.Held)
}

// transport is the clients' connection pool; nil = one of each client's own.
func (a *Access) transport() http.RoundTripper {
	if a.NetDial == nil {
		return nil
	}
	return &http.Transport{DialContext: a.NetDial, TLSHandshakeTimeout: 10 * time.Second, IdleConnTimeout: 30 * time.Second}
}

// NewEnv makes the clients that cfg describes. It reads the SSH settings, but
// reaches nothing yet. A nil Access is an empty one.
func NewEnv(cfg *Config, a *Access) (*Env, error) {
	if a == nil {
		a = &Access{}
	}
	var (
		ec *ecs.Client
		sc *slb.Client
	)
	// A rebuild knows no cloud: it needs no credentials either.
	if cfg.Procedure != ProcedureRebuild {
		var err error
		if ec, sc, err = newClients(cfg, a); err != nil {
			return nil, &AccessError{err}
		}
	}
	d, err := hostinv.NewDialer(cfg.SSH.dialer(a))
	if err != nil {
		return nil, &AccessError{err}
	}
	dial := a.NetDial
	if dial == nil {
		dial = (&net.Dialer{Timeout: 10 * time.Second}).DialContext
	}
	return &Env{ECS: ec, SLB: sc, Dialer: d, netDial: dial, resolver: a.Resolver, links: map[string]*link{}}, nil
}

// newClients makes the clients of the cloud.
func newClients(cfg *Config, a *Access) (*ecs.Client, *slb.Client, error) {
	ec, err := ecs.New(ecs.Config{
		Region: cfg.Cloud.Region, Endpoint: cfg.Cloud.Endpoint, Profile: cfg.Cloud.Profile, Poll: cfg.Pace.Poll,
		AccessKeyID: a.AccessKeyID, AccessKeySecret: a.AccessKeySecret, SecurityToken: a.SecurityToken,
		Timeout: 7 * 24 * time.Hour, // what stands still is given up long before; see whileMoving
	}, ecs.WithTransport(a.transport()), ecs.WithHeld(a.Held))
	if err != nil {
		return nil, nil, err
	}
	var held func(slb.Held)
	if a.Held != nil {
		held = func(h slb.Held) { a.Held(ecs.Held(h)) }
	}
	sc, err := slb.New(slb.Config{
		Region: cfg.Cloud.Region, Endpoint: cfg.Cloud.Endpoint, Profile: cfg.Cloud.Profile, Poll: cfg.Pace.Poll,
		AccessKeyID: a.AccessKeyID, AccessKeySecret: a.AccessKeySecret, SecurityToken: a.SecurityToken,
	}, slb.WithTransport(a.transport()), slb.WithHeld(held))
	return ec, sc, err
}

// dialer gives the settings for hostinv.
func (c *SSHConfig) dialer(a *Access) hostinv.SSHConfig {
	s := hostinv.SSHConfig{ConfigFile: c.Config, KnownHosts: c.KnownHosts, Agent: true, NetDial: a.NetDial, Sudo: c.Sudo, AllowSHA1: c.AllowSHA1}
	for _, x := range []struct {
		file string
		to   *func(context.Context, string) (string, error)
	}{{c.SudoPasswordFile, &s.SudoPassword}, {c.PasswordFile, &s.Password}, {c.PassphraseFile, &s.Passphrase}} {
		if x.file != "" {
			*x.to = hostinv.SecretFile(x.file)
		}
	}
	return s
}

// Close ends all connections.
func (e *Env) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, l := range e.links {
		l.drop(nil)
	}
	if e.ECS != nil {
		e.ECS.CloseIdleConnections()
	}
	if e.SLB != nil {
		e.SLB.CloseIdleConnections()
	}
	return e.Dialer.Close()
}

// CheckLogin connects to an SSH target as cfg says, and asks it for the emptiest
// of commands, in limit at most. It changes nothing.
func CheckLogin(ctx context.Context, cfg *Config, target string, limit time.Duration) error {
	d, err := hostinv.NewDialer(cfg.SSH.dialer(&Access{}))
	if err != nil {
		return &AccessError{err}
	}
	e := &Env{Dialer: d, links: map[string]*link{}}
	defer func() { _ = e.Close() }()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return e.host(target).Run(ctx, ":", nil, io.Discard, io.Discard)
}

// host gives the link to an SSH target. It does not dial yet.
func (e *Env) host(target string) *link {
	e.mu.Lock()
	defer e.mu.Unlock()
	l := e.links[target]
	if l == nil {
		l = &link{env: e, target: target}
		e.links[target] = l
	}
	return l
}

// A link is a host that is dialled when it is needed, and again after its
// connection was lost: a procedure outlives reboots and network troubles of
// its hosts. It never repeats a command by itself; an unknown result stays
// unknown, and the caller looks before it acts again.
type link struct {
	env    *Env
	target string

	mu   sync.Mutex
	keys string // the only host keys that are accepted; "" = those that are known for the target
	conn *hostinv.Conn
	used time.Time // when conn was last known to work
}

// reach gives the link to the machine with these host keys at target, and to
// no other: an address can go from one machine to another. Without keys it is
// the link to whoever is known there.
func (e *Env) reach(target string, keys []string) (*link, error) {
	l, want := e.host(target), strings.Join(keys, "\n")
	l.mu.Lock()
	defer l.mu.Unlock()
	if want == "" || l.keys == want {
		return l, nil
	}
	if err := e.Dialer.Pin(targetHost(target), keys); err != nil {
		return nil, err
	}
	l.keys = want
	if l.conn != nil { // it may lead to the other one
		_ = l.conn.Close()
		l.conn = nil
	}
	return l, nil
}

// name is the target, for errors.
func (l *link) name() string { return l.target }

// wrapHost says on which host an error came up.
func wrapHost(addr string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("host %s: %w", addr, err)
}

// machine names whoever the link leads to: by its host keys, or else by the
// target.
func (l *link) machine() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return cmp.Or(l.keys, l.target)
}

// A connection that was idle for longer than idleLimit is asked whether it
// still works, and given pingLimit to answer: firewalls and bastions forget
// idle connections without a word, and keepalives notice only after a minute.
const (
	idleLimit = 3 * time.Second
	pingLimit = 10 * time.Second
)

func (l *link) get(ctx context.Context) (*hostinv.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil {
		select {
		case <-l.conn.Done(): // dead; keepalive noticed
			_ = l.conn.Close()
			l.conn = nil
		default:
			if time.Since(l.used) < idleLimit || l.pings(ctx) {
				l.used = time.Now()
				return l.conn, nil
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			_ = l.conn.Close()
			l.conn = nil
		}
	}
	c, err := l.env.Dialer.Dial(ctx, l.target)
	if err != nil {
		return nil, &AccessError{err}
	}
	l.conn, l.used = c, time.Now()
	return c, nil
}

// pings asks the connection for the emptiest of commands.
func (l *link) pings(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, pingLimit)
	defer cancel()
	return l.conn.Run(ctx, ":", nil, io.Discard, io.Discard) == nil
}

// connected tells whether there is a connection, without making one.
func (l *link) connected() bool {
	if !l.mu.TryLock() {
		return false // it is being made
	}
	defer l.mu.Unlock()
	if l.conn == nil {
		return false
	}
	select {
	case <-l.conn.Done():
		return false
	default:
		return true
	}
}

// drop forgets the connection c, or whichever there is when c is nil.
func (l *link) drop(c *hostinv.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil && (c == nil || c == l.conn) {
		_ = l.conn.Close()
		l.conn = nil
	}
}

// check drops the connection when err does not come from the host's own
// answer: then the connection may be dead, and the next call dials anew.
func (l *link) check(c *hostinv.Conn, err error) error {
	var ran interface{ ExitStatus() int }
	if err == nil || errors.As(err, &ran) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrPermission) {
		return err
	}
	l.drop(c)
	return err
}

// Run runs a command on the host; see hostinv.Conn.Run.
func (l *link) Run(ctx context.Context, cmd string, stdin io.Reader, stdout, stderr io.Writer) error {
	c, err := l.get(ctx)
	if err != nil {
		return err
	}
	return l.check(c, c.Run(ctx, cmd, stdin, stdout, stderr))
}

// ReadFile reads a file of the host.
func (l *link) ReadFile(ctx context.Context, name string) ([]byte, error) {
	c, err := l.get(ctx)
	if err != nil {
		return nil, err
	}
	b, err := c.ReadFile(ctx, name)
	return b, l.check(c, err)
}

// WriteFile makes a new file on the host.
func (l *link) WriteFile(ctx context.Context, name string, data []byte, perm fs.FileMode) error {
	c, err := l.get(ctx)
	if err != nil {
		return err
	}
	return l.check(c, c.WriteFile(ctx, name, data, perm))
}

// ReadDir lists a directory of the host.
func (l *link) ReadDir(ctx context.Context, name string) ([]fs.DirEntry, error) {
	c, err := l.get(ctx)
	if err != nil {
		return nil, err
	}
	d, err := c.ReadDir(ctx, name)
	return d, l.check(c, err)
}

// DialContext opens a connection from the host to addr. A refused connection
// is an answer, so the SSH connection is kept.
func (l *link) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := l.get(ctx)
	if err != nil {
		return nil, err
	}
	return c.DialContext(ctx, network, addr)
}

// HostKey is the key that the host has shown in the connection of now, as in
// authorized_keys; empty without one.
func (l *link) HostKey() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == nil {
		return ""
	}
	return l.conn.HostKey()
}

// alive makes sure that the link has a working connection, dialling anew if
// the present one does not answer.
func (l *link) alive(ctx context.Context) error {
	ping, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	if err := l.Run(ping, ":", nil, io.Discard, io.Discard); err == nil {
		return nil
	}
	l.drop(nil)
	return l.Run(ctx, ":", nil, io.Discard, io.Discard)
}

// nginx gives the nginx server of one of the plan's nginx hosts.
func (e *Env) nginx(n NginxHost) *nginx.Server {
	return &nginx.Server{Host: e.host(n.Host), Conf: n.Conf}
}

// An AccessError reports that the cloud or a host cannot be reached or does
// not let us in, before anything was changed.
type AccessError struct{ Err error }

func (e *AccessError) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *AccessError) Unwrap() error { return e.Err }

// A RefusedError reports everything that keeps a plan from being made or
// applied.
type RefusedError struct {
	What    string // what cannot be done; "" = planning the upgrade of Host
	Host    string
	Reasons []string

	Findings []Finding // of a plan: all of them, the blocking ones first
}

// Rest prints, for people, the findings that are not among Reasons.
func (e *RefusedError) Rest() string {
	var rest []Finding
	for _, f := range e.Findings {
		if !f.open() {
			rest = append(rest, f)
		}
	}
	return findingsText(rest)
}

func (e *RefusedError) Error() string {
	msg := e.What + ":"
	if e.What == "" {
		msg = fmt.Sprintf("cannot plan the upgrade of %s:", e.Host)
	}
	for _, r := range e.Reasons {
		msg += "\n  - " + r
	}
	return msg
}

// A DriftError reports that the world is no longer what the plan was made
// for. Nothing was changed on account of it; make a new plan.
type DriftError struct {
	Changes []string
}

func (e *DriftError) Error() string {
	msg := "the plan is stale; make a new one. Since it was made:"
	for _, c := range e.Changes {
		msg += "\n  - " + c
	}
	return msg
}
