package remote

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

const (
	defaultTimeout = 15 * time.Second // of one hop: connect, handshake, login
	defaultAlive   = 15 * time.Second
	defaultCount   = 3 // unanswered keepalives that end a connection
	probeTimeout   = 5 * time.Second
)

var errClosed = errors.New("the dialer is closed")

// Options are described at hostinv.SSHConfig, which has the same fields.
type Options struct {
	ConfigFile     string
	KnownHosts     []string
	User           string
	Identities     []string
	Agent          bool
	ConnectTimeout time.Duration
	KeepAlive      time.Duration
	NetDial        func(ctx context.Context, network, addr string) (net.Conn, error)
	Warn           func(text string)

	Password          func(ctx context.Context, who string) (string, error)
	Passphrase        func(ctx context.Context, file string) (string, error)
	AllowProxyCommand bool
	AllowSHA1         bool

	Sudo         bool
	SudoPassword func(ctx context.Context, who string) (string, error)
	Audit        func(AuditRecord)
}

// A Dialer makes connections and owns those to jump hosts.
type Dialer struct {
	opt    Options
	config *resolver
	base   context.Context // ends with the Dialer, and all it is dialing
	stop   context.CancelFunc

	mu     sync.Mutex
	closed bool
	pins   map[string][]ssh.PublicKey // by knownName, or by host alone
	jumps  map[string]*jump
	sudoes map[string]*once // by user@host:port
	logins map[string]*once // passwords of logins, by user@host:port
	locked map[string]*lockedFile
	doors  map[string]chan struct{} // handshakes under way, by what they go through
}

// maxHandshakes is how many logins go on at once through one jump host, or to
// one address: sshd drops some of more than ten (MaxStartups).
const maxHandshakes = 8

// door lets a bounded number of handshakes through.
func (d *Dialer) door(ctx context.Context, name string) (leave func(), err error) {
	d.mu.Lock()
	c := d.doors[name]
	if c == nil {
		c = make(chan struct{}, maxHandshakes)
		d.doors[name] = c
	}
	d.mu.Unlock()
	select {
	case c <- struct{}{}:
		return func() { <-c }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// jump is the shared connection to one jump host.
type jump struct {
	turn chan struct{} // one token: held while conn is looked at or dialed
	conn *Conn
}

// NewDialer reads the ssh_config file.
func NewDialer(o Options) (*Dialer, error) {
	d := &Dialer{opt: o, pins: map[string][]ssh.PublicKey{}, jumps: map[string]*jump{}, sudoes: map[string]*once{},
		logins: map[string]*once{}, locked: map[string]*lockedFile{}, doors: map[string]chan struct{}{}}
	var err error
	if d.config, err = newResolver(o.ConfigFile); err != nil {
		return nil, err
	}
	d.base, d.stop = context.WithCancel(context.Background())
	if d.opt.Warn == nil {
		d.opt.Warn = func(string) {}
	}
	if d.opt.NetDial == nil {
		d.opt.NetDial = (&net.Dialer{}).DialContext
	}
	return d, nil
}

// Pin makes keys the only ones accepted for host.
func (d *Dialer) Pin(host string, keys []string) error {
	_, name, port, err := splitTarget(host)
	if err != nil {
		return fmt.Errorf("cannot pin a host key: %w", err)
	}
	parsed, err := parseKeys(host, keys)
	if err != nil {
		return err
	}
	name = strings.ToLower(name)
	if port != 0 {
		name = knownName(name, port)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pins[name] = parsed
	return nil
}

// pinned returns the keys pinned for a hop and the name they were found by.
func (d *Dialer) pinned(h *hop) (string, []ssh.PublicKey) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, n := range []string{h.alias, h.hostKeyAlias, h.host} {
		if n == "" {
			continue
		}
		n = strings.ToLower(n)
		for _, key := range []string{knownName(n, h.port), n} {
			if p := d.pins[key]; p != nil {
				return key, p
			}
		}
	}
	return "", nil
}

// Close closes the connections to jump hosts.
func (d *Dialer) Close() error {
	d.mu.Lock()
	d.closed = true
	jumps := d.jumps
	d.jumps = map[string]*jump{}
	d.mu.Unlock()
	d.stop()
	for _, j := range jumps {
		j.turn <- struct{}{} // a dial under way ends now
		if j.conn != nil {
			j.conn.Close()
		}
		<-j.turn
	}
	return nil
}

// Dial connects to target through its jump hosts.
func (d *Dialer) Dial(ctx context.Context, target string) (*Conn, error) {
	if d.base.Err() != nil {
		return nil, fmt.Errorf("cannot connect to %s: %w", target, errClosed)
	}
	hops, err := d.config.chain(ctx, target)
	if err != nil {
		return nil, err
	}
	for _, h := range hops {
		if err := d.complete(h); err != nil {
			return nil, err
		}
	}
	c, err := d.dialHops(ctx, target, hops)
	if err == nil {
		d.become(c)
	}
	return c, err
}

func (d *Dialer) dialHops(ctx context.Context, target string, hops []*hop) (*Conn, error) {
	last := hops[len(hops)-1]
	if len(hops) == 1 {
		dial := d.opt.NetDial
		if last.proxyCommand != "" {
			dial = dialCommand(last)
		}
		return d.connect(ctx, target, last, "", dial)
	}
	before := hops[:len(hops)-1]
	via := before[len(before)-1]
	for {
		b, reused, err := d.jumpConn(ctx, before)
		if err != nil {
			return nil, fmt.Errorf("cannot reach %s: its jump host %s: %w", target, via.alias, err)
		}
		c, err := d.connect(ctx, target, last, via.alias, b.DialContext)
		if err == nil || !reused || ctx.Err() != nil {
			return c, err
		}
		select {
		case <-b.Done(): // died under us: once more with a new one
		default:
			return nil, err
		}
	}
}

// jumpConn returns the shared connection to the last of hops, connecting if
// there is none that is alive.
func (d *Dialer) jumpConn(ctx context.Context, hops []*hop) (c *Conn, reused bool, err error) {
	var path []string
	for _, h := range hops {
		path = append(path, h.who()+" "+h.alias)
	}
	key := strings.Join(path, "\n")
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil, false, errClosed
	}
	j := d.jumps[key]
	if j == nil {
		j = &jump{turn: make(chan struct{}, 1)}
		d.jumps[key] = j
	}
	d.mu.Unlock()

	select {
	case j.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
	defer func() { <-j.turn }()
	if j.conn != nil {
		if j.conn.alive(ctx, probeTimeout) {
			return j.conn, true, nil
		}
		if ctx.Err() != nil {
			return nil, false, ctx.Err()
		}
		j.conn.Close()
		j.conn = nil
	}
	c, err = d.dialHops(ctx, hops[len(hops)-1].alias, hops)
	if err != nil {
		return nil, false, err
	}
	d.mu.Lock()
	closed := d.closed
	d.mu.Unlock()
	if closed {
		c.Close()
		return nil, false, errClosed
	}
	j.conn = c
	return c, false, nil
}

// complete fills in what neither the target nor ssh_config said.
func (d *Dialer) complete(h *hop) error {
	if h.user == "" {
		h.user = d.opt.User
	}
	if h.user == "" {
		if h.user = localUser(); h.user == "" {
			return fmt.Errorf("cannot tell the login name for %s: give one, as in USER@%s", h.alias, h.alias)
		}
	}
	if h.proxyCommand != "" && !d.opt.AllowProxyCommand {
		return &ConfigError{Problems: []string{fmt.Sprintf("%s: ProxyCommand of %s is not run: it is a program of anybody's choice; "+
			"use ProxyJump, or allow it explicitly", d.config.name, h.alias)}}
	}
	if d.opt.KnownHosts != nil {
		h.knownHosts = append([]string{}, d.opt.KnownHosts...)
	} else {
		if h.knownHosts == nil {
			h.knownHosts = []string{"~/.ssh/known_hosts", "~/.ssh/known_hosts2"}
		}
		if h.globalKnown == nil {
			h.globalKnown = []string{"/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"}
		}
		h.knownHosts = append(h.knownHosts, h.globalKnown...)
	}
	if d.opt.ConnectTimeout > 0 {
		h.timeout = d.opt.ConnectTimeout
	}
	if h.timeout <= 0 {
		h.timeout = defaultTimeout
	}
	if d.opt.KeepAlive > 0 {
		h.alive = d.opt.KeepAlive
	}
	if h.alive <= 0 {
		h.alive = defaultAlive
	}
	if h.aliveCount <= 0 {
		h.aliveCount = defaultCount
	}
	return h.expandFiles()
}

// verifierFor says which keys are accepted for a hop.
func (d *Dialer) verifierFor(h *hop) (*verifier, error) {
	keys, err := readKnownHosts(h.knownHosts)
	if err != nil {
		return nil, err
	}
	for _, s := range keys.skipped {
		d.opt.Warn("known_hosts line skipped: " + s)
	}
	v := &verifier{keys: keys}
	if h.hostKeyAlias != "" {
		// As in ssh, the alias is used as it is, without the port.
		v.name = strings.ToLower(h.hostKeyAlias)
		v.principal = v.name
		v.known, v.cas, v.revoked = keys.keysFor(v.name, 22)
	} else {
		v.name, v.principal = knownName(h.host, h.port), strings.ToLower(h.host)
		v.known, v.cas, v.revoked = keys.keysFor(h.host, h.port)
	}
	if name, pins := d.pinned(h); pins != nil {
		// Revoked keys stay revoked.
		v.name, v.known, v.cas = name, nil, nil
		for _, k := range pins {
			v.known = append(v.known, knownEntry{key: k, source: "pinned"})
		}
	}
	return v, nil
}

// connect makes one connection and logs in.
func (d *Dialer) connect(ctx context.Context, target string, h *hop, via string,
	netDial func(context.Context, string, string) (net.Conn, error)) (*Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("cannot connect to %s: %w", target, err)
	}
	v, err := d.verifierFor(h)
	if err != nil {
		return nil, err
	}
	// The first to fill the door waits for nobody, and waiting is not the
	// host's time.
	door := via
	if door == "" {
		door = h.addr()
	}
	leave, err := d.door(ctx, door)
	if err != nil {
		return nil, fmt.Errorf("cannot connect to %s: %w", target, err)
	}
	defer leave()
	limited, cancel := context.WithTimeout(ctx, h.timeout)
	defer cancel()
	defer context.AfterFunc(d.base, cancel)()

	ids := d.identitiesFor(limited, h)
	defer ids.close()
	pass := d.passwordFor(limited, h)
	if len(ids.list) == 0 && pass == nil {
		return nil, &AuthError{Host: h.who(), Notes: ids.notes}
	}

	fail := func(err error) error {
		if ctx.Err() != nil {
			return fmt.Errorf("cannot connect to %s: %w", target, ctx.Err())
		}
		if d.base.Err() != nil {
			return fmt.Errorf("cannot connect to %s: %w", target, errClosed)
		}
		if limited.Err() != nil {
			err = fmt.Errorf("no answer within %v: %w", h.timeout, limited.Err())
		}
		return &DialError{Host: target, Addr: h.addr(), Via: via, Err: err}
	}
	raw, err := netDial(limited, "tcp", h.addr())
	if err != nil {
		return nil, fail(err)
	}
	raw = quickAck(raw)
	// Deadlines do nothing on connections through a jump host; closing works
	// on all. The agent is closed with it, in case it waits for its owner.
	stop := context.AfterFunc(limited, func() { raw.Close(); ids.close() })
	var signers []ssh.Signer
	for _, i := range ids.list {
		signers = append(signers, i.signer)
	}
	var methods []ssh.AuthMethod
	if len(signers) > 0 {
		methods = append(methods, ssh.PublicKeys(signers...))
	}
	methods = append(methods, pass.methods()...)
	algos := ssh.SupportedAlgorithms()
	v.sha1 = d.opt.AllowSHA1
	kex := algos.KeyExchanges
	if d.opt.AllowSHA1 {
		kex = append(kex, "diffie-hellman-group-exchange-sha1", "diffie-hellman-group14-sha1") // last
	}
	var banner string // read when the handshake is over
	cfg := &ssh.ClientConfig{
		BannerCallback: func(text string) error {
			if len(banner) < noiseKept {
				banner += text
			}
			return nil
		},
		Config:            ssh.Config{KeyExchanges: kex},
		User:              h.user,
		Auth:              methods,
		HostKeyAlgorithms: v.algorithms(),
		HostKeyCallback: func(name string, remote net.Addr, key ssh.PublicKey) error {
			return v.check(key, h.addr())
		},
	}
	conn, chans, reqs, err := ssh.NewClientConn(raw, h.addr(), cfg)
	if !stop() && err == nil {
		conn.Close()
		err = limited.Err()
	}
	if err != nil {
		raw.Close()
		if limited.Err() != nil {
			return nil, fail(err)
		}
		if v.err != nil {
			return nil, v.err
		}
		if v.ok != nil && (isAuthFailure(err) || pass.failed() != nil) {
			if text := strings.TrimSpace(banner); text != "" {
				ids.notes = append(ids.notes, fmt.Sprintf("the host says %q", shorten(text, 300)))
			}
			return nil, &AuthError{Host: h.who(), Offered: append(ids.offered(), pass.offered()...), Notes: append(ids.notes, pass.notes()...), Err: err}
		}
		return nil, fail(err)
	}
	if a, ok := conn.(ssh.AlgorithmsConnMetadata); ok && weak(a.Algorithms()) {
		d.opt.Warn(fmt.Sprintf("%s (%s) uses SHA-1: %s, host key %s; upgrade its SSH server", target, conn.ServerVersion(),
			a.Algorithms().KeyExchange, a.Algorithms().HostKey))
	}
	c := newConn(target, h, raw, conn, chans, reqs, v.ok)
	c.openssh = isOpenSSH(string(conn.ServerVersion()))
	c.auditor = d.opt.Audit
	return c, nil
}

// weak reports whether a connection rests on SHA-1.
func weak(a ssh.NegotiatedAlgorithms) bool {
	return strings.HasSuffix(a.KeyExchange, "-sha1") || a.HostKey == ssh.KeyAlgoRSA || a.HostKey == ssh.CertAlgoRSAv01
}

// isOpenSSH reports whether a server is an OpenSSH with a POSIX shell behind.
func isOpenSSH(version string) bool {
	return strings.HasPrefix(version, "SSH-2.0-OpenSSH_") && !strings.Contains(version, "for_Windows")
}

// become makes the commands of a connection to a target (never of one to a
// jump host) run as root.
func (d *Dialer) become(c *Conn) {
	if !d.opt.Sudo {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	who := c.hop.who()
	if d.sudoes[who] == nil {
		d.sudoes[who] = &once{}
	}
	c.sudo = &sudo{ask: d.opt.SudoPassword, who: who, bad: d.sudoes[who]}
}

// isAuthFailure reads the text, as x/crypto has no type for it: either our
// methods ran out, or the server ended it after too many keys.
func isAuthFailure(err error) bool {
	s := err.Error()
	return strings.Contains(s, "unable to authenticate") || strings.Contains(s, "Too many authentication failures")
}
