package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

const (
	maxSessions  = 10 // per connection, as OpenSSH
	loginTimeout = 120 * time.Second
)

// ServeSSH serves one SSH connection and returns when it ended: when the
// client leaves, or when the host's power goes. On a host that is off, or
// whose sshd does not run, the connection is closed at once.
//
// The connection must be buffered: over a net.Pipe both sides would wait for
// each other's greeting.
func (h *Host) ServeSSH(c net.Conn) {
	defer c.Close()
	b, ok := h.enter()
	if !ok {
		return
	}
	defer b.wg.Done()
	h.mu.Lock()
	if h.sshdPID() == 0 {
		h.mu.Unlock()
		return
	}
	h.sshConns[c] = struct{}{}
	h.mu.Unlock()
	stop := context.AfterFunc(b.ctx, func() { c.Close() })
	defer stop()
	defer func() {
		h.mu.Lock()
		delete(h.sshConns, c)
		h.mu.Unlock()
	}()

	config, err := h.sshConfig()
	if err != nil {
		return
	}
	_ = c.SetDeadline(time.Now().Add(loginTimeout)) // not every net.Conn can
	conn, channels, requests, err := ssh.NewServerConn(c, config)
	if err != nil {
		return
	}
	_ = c.SetDeadline(time.Time{})
	defer conn.Close()
	a, _ := h.account(conn.User())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer conn.Close()
	wg.Go(func() { ssh.DiscardRequests(requests) }) // answers keepalives
	sessions := make(chan struct{}, maxSessions)
	for nc := range channels {
		switch nc.ChannelType() {
		case "session":
			select {
			case sessions <- struct{}{}:
			default:
				_ = nc.Reject(ssh.Prohibited, "open failed")
				continue
			}
			ch, reqs, err := nc.Accept()
			if err != nil {
				<-sessions
				continue
			}
			wg.Go(func() {
				defer func() { <-sessions }()
				s := &session{h: h, b: b, a: a, ch: ch, env: map[string]string{}}
				s.serve(reqs)
			})
		case "direct-tcpip":
			wg.Go(func() { h.direct(b.ctx, nc) })
		default:
			_ = nc.Reject(ssh.UnknownChannelType, "unknown channel type")
		}
	}
}

func (h *Host) sshConfig() (*ssh.ServerConfig, error) {
	pem, err := h.tree.readFile(cred{}, hostKeyFile)
	if err != nil {
		return nil, err
	}
	key, err := ssh.ParsePrivateKey(pem)
	if err != nil {
		return nil, fmt.Errorf("cannot read the host key of %s: %w", h.Name(), err)
	}
	config := &ssh.ServerConfig{
		ServerVersion: "SSH-2.0-OpenSSH_7.4",
		PublicKeyCallback: func(m ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
			if h.authorized(m.User(), k) {
				return &ssh.Permissions{}, nil
			}
			return nil, fmt.Errorf("key of %s is not authorized", m.User())
		},
	}
	config.AddHostKey(key)
	return config, nil
}

func (h *Host) authorized(user string, key ssh.PublicKey) bool {
	a, ok := h.account(user)
	if !ok {
		return false
	}
	data, err := h.tree.readFile(cred{}, a.home+"/.ssh/authorized_keys")
	if err != nil {
		return false
	}
	for len(data) > 0 {
		k, _, _, rest, err := ssh.ParseAuthorizedKey(data)
		if err != nil {
			return false // no further key in the file
		}
		if bytes.Equal(k.Marshal(), key.Marshal()) {
			return true
		}
		data = rest
	}
	return false
}

// piece is what a forwarded connection carries at once: they are many and short.
const piece = 4 << 10

// direct serves a direct-tcpip channel.
func (h *Host) direct(ctx context.Context, nc ssh.NewChannel) {
	var to struct {
		Host     string
		Port     uint32
		FromHost string
		FromPort uint32
	}
	if err := ssh.Unmarshal(nc.ExtraData(), &to); err != nil {
		_ = nc.Reject(ssh.ConnectionFailed, "bad request")
		return
	}
	target, err := h.dialOut(ctx, to.Host, int(to.Port))
	if err != nil {
		reason := ssh.ConnectionFailed
		if h.Forward == nil {
			reason = ssh.Prohibited
		}
		_ = nc.Reject(reason, err.Error())
		return
	}
	defer target.Close()
	ch, reqs, err := nc.Accept()
	if err != nil {
		return
	}
	defer ch.Close()
	stop := context.AfterFunc(ctx, func() { target.Close() })
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { ssh.DiscardRequests(reqs) })
	wg.Go(func() {
		_, _ = io.CopyBuffer(target, ch, make([]byte, piece))
		if half, ok := target.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		} else {
			target.Close()
		}
	})
	_, _ = io.CopyBuffer(ch, target, make([]byte, piece))
	ch.Close()
	target.Close()
	wg.Wait()
}

// dialOut connects from this host.
func (h *Host) dialOut(ctx context.Context, to string, port int) (net.Conn, error) {
	if to == "127.0.0.1" || to == "localhost" || to == "::1" {
		addr, ok := h.Endpoint(port)
		if !ok {
			return nil, errors.New("Connection refused") //lint:ignore ST1005 sshd's own words
		}
		var d net.Dialer
		return d.DialContext(ctx, "tcp", addr)
	}
	if h.Forward == nil {
		return nil, errors.New("forwarding is not set up on this simulated host")
	}
	return h.Forward(ctx, net.JoinHostPort(to, strconv.Itoa(port)))
}

// session is a session channel.
type session struct {
	h   *Host
	b   *boot
	a   account
	ch  ssh.Channel
	env map[string]string

	mu   sync.Mutex
	proc *process
}

func (s *session) serve(reqs <-chan *ssh.Request) {
	defer s.ch.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	started := false
	for r := range reqs {
		ok := false
		var begin func() // after the reply: a quick command would close the channel before it
		switch r.Type {
		case "env":
			var kv struct{ Name, Value string }
			if ssh.Unmarshal(r.Payload, &kv) == nil && slices.Contains([]string{"LANG", "LC_ALL", "LC_CTYPE"}, kv.Name) {
				s.env[kv.Name], ok = kv.Value, true
			}
		case "exec", "shell":
			var cmd struct{ Command string }
			if started || r.Type == "exec" && ssh.Unmarshal(r.Payload, &cmd) != nil {
				break
			}
			ok, started = true, true
			if l, is := parseLeash(cmd.Command); is {
				begin = func() { s.leash(l) }
				break
			}
			args := []string{"/bin/sh", "-c", cmd.Command}
			if r.Type == "shell" {
				args = []string{"/bin/sh", "-s"}
			}
			p := s.start(args)
			begin = func() { s.exec(p, args, s.ch) }
		case "subsystem":
			var sub struct{ Name string }
			if started || ssh.Unmarshal(r.Payload, &sub) != nil || sub.Name != "sftp" {
				break
			}
			ok, started = true, true
			begin = func() {
				s.h.serveSFTP(s.ch, s.a)
				s.exit(0, nil)
				s.ch.Close()
			}
		case "signal":
			var sig struct{ Name string }
			s.mu.Lock()
			p := s.proc
			s.mu.Unlock()
			if ssh.Unmarshal(r.Payload, &sig) == nil && p != nil && signals[sig.Name] != 0 {
				p.signal(sig.Name)
				ok = true
			}
		}
		if r.WantReply {
			_ = r.Reply(ok, nil) // the connection may be gone
		}
		if begin != nil {
			wg.Go(begin)
		}
	}
}

func (s *session) start(args []string) *process {
	p := s.h.fork(s.b, s.b.ctx, &process{user: s.a.name, cred: s.a.cred, args: args, cwd: s.a.home, unit: "/user.slice"})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.proc = p
	return p
}

// exec runs the command, tells its status, and closes the channel when no
// process holds its output any more.
func (s *session) exec(p *process, args []string, stdin io.Reader) {
	out, errs := &sessionWriter{w: s.ch}, &sessionWriter{w: s.ch.Stderr()}
	env := map[string]string{"PATH": defaultPath, "HOME": s.a.home, "USER": s.a.name, "LOGNAME": s.a.name, "SHELL": "/bin/bash"}
	for k, v := range s.env {
		env[k] = v
	}
	q := &Proc{
		Host: s.h, Args: args, Env: env, Dir: s.a.home, Stdin: stdin, Stdout: out, Stderr: errs,
		User: s.a.name, PID: p.pid, p: p, umask: 0o022,
	}
	if _, err := s.h.tree.stat(cred{}, s.a.home, true); err != nil {
		q.Dir = "/"
	}
	status := s.h.execute(p.ctx, q, args)
	status = p.statusAfter(status)
	cause := context.Cause(p.ctx)
	p.end(status)
	if s.b.ctx.Err() != nil {
		return // power is gone: nobody tells a status
	}
	if s.h.o.Ran != nil {
		s.h.o.Ran(s.h, args[len(args)-1])
	}
	s.exit(status, cause)
	out.wait(s.b.ctx)
	errs.wait(s.b.ctx)
	s.ch.Close()
}

func (s *session) exit(status int, cause error) {
	var k killedError
	if errors.As(cause, &k) {
		_, _ = s.ch.SendRequest("exit-signal", false, ssh.Marshal(struct {
			Signal string
			Core   bool
			Msg    string
			Lang   string
		}{k.signal, false, "", ""}))
		return
	}
	_, _ = s.ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{uint32(status)}))
}

// sessionWriter is the output of a session. A background job that keeps it
// open keeps the session open, as with a real sshd.
type sessionWriter struct {
	mu   sync.Mutex
	w    io.Writer
	held int
	free chan struct{} // closed when held falls to 0 while somebody waits
}

func (w *sessionWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.w.Write(b)
}

func (w *sessionWriter) hold() (release func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.held++
	return sync.OnceFunc(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.held--
		if w.held == 0 && w.free != nil {
			close(w.free)
			w.free = nil
		}
	})
}

func (w *sessionWriter) wait(ctx context.Context) {
	w.mu.Lock()
	if w.held == 0 {
		w.mu.Unlock()
		return
	}
	free := make(chan struct{})
	w.free = free
	w.mu.Unlock()
	select {
	case <-free:
	case <-ctx.Done():
	}
}

// holdOutput keeps w open until the process is gone.
func (p *process) holdOutput(w *sessionWriter) {
	release := w.hold()
	p.h.mu.Lock()
	defer p.h.mu.Unlock()
	if p.gone {
		go release()
		return
	}
	before := p.hold
	p.hold = func() {
		release()
		if before != nil {
			before()
		}
	}
}

// Run runs a script in a root shell and returns its exit status and its
// standard output and error together, as Cloud Assistant does. err tells that
// the script could not run to its end: the host is off, went down, or ctx
// ended, which kills the script.
func (h *Host) Run(ctx context.Context, script string) (exit int, out []byte, err error) {
	b, ok := h.enter()
	if !ok {
		return 0, nil, fmt.Errorf("cannot run a script on %s: the host is off", h.Name())
	}
	defer b.wg.Done()
	args := []string{"/bin/sh", "-c", script}
	p := h.fork(b, b.ctx, &process{args: args, unit: "aliyun.service"})
	stop := context.AfterFunc(ctx, func() { p.signal("KILL") })
	defer stop()
	var buf bytes.Buffer
	w := &sessionWriter{w: &buf}
	q := h.rootProc(p, args, w)
	q.Dir = "/root"
	status := p.statusAfter(h.execute(p.ctx, q, args))
	p.end(status)
	w.mu.Lock()
	w.w = io.Discard // jobs left behind may still write
	out = bytes.Clone(buf.Bytes())
	w.mu.Unlock()
	switch {
	case b.ctx.Err() != nil:
		return status, out, fmt.Errorf("script on %s did not end: %w", h.Name(), context.Cause(b.ctx))
	case ctx.Err() != nil:
		return status, out, fmt.Errorf("script on %s did not end: %w", h.Name(), ctx.Err())
	}
	return status, out, nil
}
