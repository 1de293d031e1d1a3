package remote

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
)

const (
	// After the exit status, output of children that keep it open is waited
	// for until it was silent this long, and no longer than drainLimit.
	drainSilence = time.Second
	drainLimit   = 10 * time.Second
	stderrKept   = 4 << 10
	cmdShown     = 200
)

// errAfterEnd is what a writer gets whose Run has returned.
var errAfterEnd = errors.New("the command's output is no longer wanted")

// gate passes output on until it is shut, and notes when it last did.
type gate struct {
	mu   sync.Mutex
	w    io.Writer
	keep *bytes.Buffer // start of what went through; may be nil
	shut bool
	err  error // first error of w
	busy atomic.Bool
	last *atomic.Int64 // UnixNano of the latest output, shared by both gates
	sum  hash.Hash     // of all that went through; may be nil
	n    int64         // its length
}

func (g *gate) Write(p []byte) (int, error) {
	g.busy.Store(true)
	defer func() { g.last.Store(time.Now().UnixNano()); g.busy.Store(false) }()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		return 0, errAfterEnd
	}
	if g.keep != nil {
		if room := stderrKept - g.keep.Len(); room > 0 {
			g.keep.Write(p[:min(room, len(p))])
		}
	}
	g.n += int64(len(p))
	if g.sum != nil {
		g.sum.Write(p)
	}
	// A writer that failed is not written to again, but the rest is read, so
	// that the remote command does not block.
	if g.w != nil && g.err == nil {
		if _, err := g.w.Write(p); err != nil {
			g.err = err
		}
	}
	return len(p), nil
}

// close makes sure that w is not used any more.
func (g *gate) close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = true
	return g.err
}

// A server may take closingTries*closingPause to notice that a session ended.
const (
	closingTries = 20
	closingPause = 50 * time.Millisecond
)

// openSession opens a session channel. An open that ctx gave up is finished
// in the background, and its slot is freed then. A server that allows fewer
// sessions than we have slots (MaxSessions) takes slots away for good.
func (c *Conn) openSession(ctx context.Context, what string) (ssh.Channel, <-chan *ssh.Request, error) {
	for tries := 0; ; {
		if err := c.acquire(ctx); err != nil {
			return nil, nil, err
		}
		ch, reqs, err := c.openOne(ctx, what)
		var refused *ssh.OpenChannelError
		if !errors.As(err, &refused) {
			return ch, reqs, err
		}
		// Here the slot is still ours.
		if c.dropIdle() { // it holds a session of its own
			c.release()
			continue
		}
		c.mu.Lock()
		alone := len(c.slots)-c.lent <= 1
		if !alone {
			c.lent++ // the slot is kept, and the next one to be freed is waited for
		}
		c.mu.Unlock()
		if !alone {
			continue
		}
		c.release()
		// A session that we have closed may still count there.
		if tries++; tries > closingTries {
			return nil, nil, fmt.Errorf("cannot open a session on %s: %w", c.target, err)
		}
		t := time.NewTimer(closingPause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, nil, ctx.Err()
		case <-c.done:
			t.Stop()
			return nil, nil, c.lost(what, nil)
		}
	}
}

func (c *Conn) openOne(ctx context.Context, what string) (ssh.Channel, <-chan *ssh.Request, error) {
	type opened struct {
		ch   ssh.Channel
		reqs <-chan *ssh.Request
		err  error
	}
	got := make(chan opened)
	gone := make(chan struct{})
	c.tasks.spawn(func() {
		ch, reqs, err := c.client.OpenChannel("session", nil)
		select {
		case got <- opened{ch, reqs, err}:
		case <-gone:
			if err == nil {
				go ssh.DiscardRequests(reqs)
				ch.Close()
			}
			c.release()
		}
	})
	select {
	case o := <-got:
		if o.err == nil {
			return o.ch, o.reqs, nil
		}
		var refused *ssh.OpenChannelError
		if errors.As(o.err, &refused) {
			return nil, nil, o.err
		}
		c.release()
		return nil, nil, c.lost(what, o.err)
	case <-ctx.Done():
		close(gone)
		return nil, nil, ctx.Err()
	}
}

// exit is how a command ended.
type exit struct {
	known  bool
	status int
	signal string
}

// OnLost says what becomes of a command when its connection is lost or its
// context ends.
type OnLost int

const (
	OnLostKill OnLost = iota
	OnLostDetach
)

// Cmd and Result are described at hostinv.Cmd and hostinv.Result.
type Cmd struct {
	Line           string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	OnLost         OnLost
	MaxOutput      int
}

type Result struct {
	Stdout, Stderr []byte
	Truncated      bool
	Noise          string
}

const defaultMaxOutput = 1 << 20

// bounded keeps the first bytes and lets the rest go.
type bounded struct {
	buf  bytes.Buffer
	left int
	cut  bool
}

func (b *bounded) Write(p []byte) (int, error) {
	n := min(len(p), b.left)
	b.buf.Write(p[:n])
	b.left -= n
	b.cut = b.cut || n < len(p)
	return len(p), nil
}

// Run runs a command line. See hostinv.Conn.Run.
func (c *Conn) Run(ctx context.Context, cmd string, stdin io.Reader, stdout, stderr io.Writer) error {
	if stdout == nil {
		stdout = io.Discard
	}
	if stderr == nil {
		stderr = io.Discard
	}
	_, err := c.Exec(ctx, Cmd{Line: cmd, Stdin: stdin, Stdout: stdout, Stderr: stderr})
	return err
}

// Exec runs a command line. See hostinv.Conn.Exec.
func (c *Conn) Exec(ctx context.Context, cmd Cmd) (Result, error) {
	limit := cmd.MaxOutput
	if limit <= 0 {
		limit = defaultMaxOutput
	}
	out, errs := &bounded{left: limit}, &bounded{left: limit}
	if cmd.Stdout == nil {
		cmd.Stdout = out
	}
	if cmd.Stderr == nil {
		cmd.Stderr = errs
	}
	r := run{c: c, cmd: cmd, shown: shorten(cmd.Line, cmdShown), begin: time.Now()}
	err := r.do(ctx)
	c.audit(&r, err)
	return Result{Stdout: out.buf.Bytes(), Stderr: errs.buf.Bytes(), Truncated: out.cut || errs.cut, Noise: r.noise}, err
}

// run is one command under way.
type run struct {
	c     *Conn
	cmd   Cmd
	shown string // start of the command line, for errors
	begin time.Time

	ch        ssh.Channel
	out, errs *gate
	sent      atomic.Int64 // bytes of the command's input
	noise     string       // what the login shell printed before the command
}

func (r *run) ended(err error) error {
	return fmt.Errorf("command %q on %s, its result is not known: %w", r.shown, r.c.target, err)
}

// close closes the channel. Everything that talks to it may block on a dead
// peer, so it all runs beside do, and ends with the channel.
func (r *run) close() {
	ch := r.ch
	r.c.tasks.spawn(func() { ch.Close() })
}

func (r *run) do(ctx context.Context) error {
	c := r.c
	var talk *sudoTalk
	if c.sudo != nil {
		var err error
		if talk, err = c.sudo.prepare(ctx, c); err != nil {
			return err
		}
	}
	ch, reqs, err := c.openSession(ctx, r.shown)
	if err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("command %q on %s was not started: %w", r.shown, c.target, ctx.Err())
		}
		return err
	}
	r.ch = ch
	exited := make(chan exit, 1)
	c.tasks.spawn(func() {
		defer c.release() // the channel is closed when its requests end
		exited <- awaitExit(reqs)
		ssh.DiscardRequests(reqs)
	})

	var w wrapped
	script := leash
	if r.cmd.OnLost == OnLostDetach {
		script = free
	}
	switch {
	case talk != nil:
		w = talk.wrap(script)
	case c.openssh:
		w = wrap(script, r.cmd.Line, r.cmd.Stdin != nil)
	default:
		if err := r.exec(ctx, r.cmd.Line, true); err != nil {
			return err
		}
	}

	var last atomic.Int64
	last.Store(time.Now().UnixNano())
	r.out = &gate{w: r.cmd.Stdout, last: &last, sum: sha256.New()}
	r.errs = &gate{w: r.cmd.Stderr, last: &last, keep: &bytes.Buffer{}}
	var outTo, errTo io.Writer = r.out, r.errs
	var outMark, errMark *afterMark
	var begun <-chan struct{} // nil without a mark
	if w.mark != "" {
		outMark, errMark = newAfterMark(w.mark, r.out), newAfterMark(w.mark, r.errs)
		outTo, errTo, begun = outMark, errMark, outMark.seen
		if talk != nil {
			errTo = talk.listen(errMark)
		}
	}
	drained := make(chan struct{})
	var copies sync.WaitGroup
	copies.Add(2)
	c.tasks.spawn(func() { defer copies.Done(); copyOutput(outTo, ch) })
	c.tasks.spawn(func() { defer copies.Done(); copyOutput(errTo, ch.Stderr()) })
	c.tasks.spawn(func() { copies.Wait(); close(drained) })
	stop := func() {
		r.close()
		r.out.close()
		r.errs.close()
	}

	if w.mark != "" {
		// No answer is waited for, which saves a round trip: that the
		// command started is told by the mark.
		if err := r.exec(ctx, w.line, false); err != nil {
			stop()
			return err
		}
		if talk != nil {
			if err := talk.converse(ctx, ch, errMark.seen, drained); err != nil {
				stop()
				return err
			}
		}
	}
	// Not counted in tasks: nobody can interrupt the Read of a foreign
	// reader, and Close must not wait for it.
	badInput := make(chan error, 1)
	go r.feed(w, badInput)

	slow := time.NewTimer(max(startLimit, c.hop.timeout))
	defer slow.Stop()
	var x exit
wait:
	for {
		select {
		case x = <-exited:
			break wait
		case <-begun:
			begun = nil
			slow.Stop()
		case <-slow.C:
			if begun == nil {
				continue
			}
			stop()
			said, _ := outMark.before()
			return r.ended(fmt.Errorf("the login shell did not start it within %v; it printed %q; check the login shell and its start files on the host",
				max(startLimit, c.hop.timeout), shorten(said, 300)))
		case err := <-badInput:
			stop()
			return r.ended(fmt.Errorf("cannot read its input: %w", err))
		case <-ctx.Done():
			stop()
			return r.ended(ctx.Err())
		}
	}
	if err := c.drain(ctx, drained, &last, r.out, r.errs); err != nil {
		stop()
		return r.ended(err)
	}
	// Once the channel is closed, what arrived before is read to its end: the
	// copies may only have had no processor for as long as drain waits.
	r.close()
	limit := time.NewTimer(drainLimit)
	defer limit.Stop()
	select {
	case <-drained:
	case <-limit.C:
	case <-ctx.Done():
		stop()
		return r.ended(ctx.Err())
	}
	werr := errors.Join(r.out.close(), r.errs.close())
	started := true
	if outMark != nil {
		var said, more string
		said, started = outMark.before()
		more, _ = errMark.before()
		r.noise = strings.TrimSpace(said + "\n" + more)
	}
	switch {
	case !x.known:
		return c.lost(r.shown, errors.New("the session ended without an exit status"))
	case !started && talk != nil:
		return talk.failed(r.noise, x)
	case !started:
		return &ShellError{Host: c.target, Status: x.status, Said: shorten(r.noise, 300)}
	case x.status != 0:
		return &ExitError{Host: c.target, Cmd: r.shown, Status: x.status, Signal: x.signal, Stderr: r.errs.keep.Bytes()}
	case werr != nil:
		return fmt.Errorf("command %q on %s succeeded, but its output could not be kept: %w", r.shown, c.target, werr)
	}
	return nil
}

// startLimit bounds the time from the request to run a command to its start:
// the login shell and its start files.
const startLimit = time.Minute

// exec sends the request to run line.
func (r *run) exec(ctx context.Context, line string, wait bool) error {
	started := make(chan error, 1)
	r.c.tasks.spawn(func() {
		ok, err := r.ch.SendRequest("exec", wait, ssh.Marshal(struct{ Command string }{line}))
		if err == nil && wait && !ok {
			err = errRefused
		}
		started <- err
	})
	var err error
	select {
	case err = <-started:
	case <-ctx.Done():
		r.close()
		return r.ended(ctx.Err())
	}
	if err == nil {
		return nil
	}
	r.close()
	if errors.Is(err, errRefused) {
		return fmt.Errorf("%s refuses to run command %q: %w", r.c.target, r.shown, err)
	}
	return r.c.lost(r.shown, err)
}

// copyOutput is io.Copy for the output of a command, which is short as a rule:
// there are two for each command.
func copyOutput(to io.Writer, from io.Reader) (int64, error) {
	return io.CopyBuffer(to, from, make([]byte, 4<<10))
}

// feed sends the command, if it is not in the request, and its input.
func (r *run) feed(w wrapped, bad chan<- error) {
	var to io.Writer = struct{ io.Writer }{r.ch}
	if w.mark != "" {
		if w.begin(r.ch, r.cmd.Line, r.cmd.Stdin != nil) != nil {
			return // the end of the session says why
		}
		if r.cmd.OnLost == OnLostKill {
			to = frames{r.ch}
		}
	}
	if r.cmd.Stdin != nil {
		in := &source{r: r.cmd.Stdin, n: &r.sent}
		// A command that does not read its input is no error of ours.
		if _, err := io.CopyBuffer(to, in, make([]byte, chunk)); in.err != nil {
			bad <- in.err // and no end of file: what was sent is not whole
			return
		} else if err != nil {
			return
		}
	}
	if f, ok := to.(frames); ok {
		if r.cmd.Stdin == nil && w.inline {
			return
		}
		f.end() // and the channel stays open: its end would end the command
		return
	}
	r.ch.CloseWrite()
}

// awaitExit reads the channel's requests to their end, and returns the exit
// status at once when it comes.
func awaitExit(reqs <-chan *ssh.Request) exit {
	for r := range reqs {
		var x exit
		switch r.Type {
		case "exit-status":
			var m struct{ Status uint32 }
			if ssh.Unmarshal(r.Payload, &m) == nil {
				x = exit{known: true, status: int(m.Status)}
			}
		case "exit-signal":
			var m struct {
				Signal     string
				CoreDumped bool
				Message    string
				Lang       string
			}
			if ssh.Unmarshal(r.Payload, &m) == nil {
				x = exit{known: true, status: -1, signal: m.Signal}
			}
		}
		if r.WantReply {
			r.Reply(false, nil)
		}
		if x.known {
			return x
		}
	}
	return exit{}
}

var errRefused = errors.New("its SSH server does not allow it")

// drain waits for the end of the output after the exit status. What the
// command itself wrote is there by then or follows at once; only children
// left in the background can hold it open. Silence may be the line's, though:
// the host has to answer a question in it, and what it sent before that is
// there then.
func (c *Conn) drain(ctx context.Context, drained <-chan struct{}, last *atomic.Int64, gates ...*gate) error {
	begin := time.Now()
	t := time.NewTimer(drainSilence)
	defer t.Stop()
	for {
		select {
		case <-drained:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
		now := time.Now()
		rest := drainSilence - now.Sub(time.Unix(0, last.Load()))
		for _, g := range gates {
			if g.busy.Load() { // our own side is slow
				rest = drainSilence
				begin = now
			}
		}
		if s := drainSilence - now.Sub(begin); rest <= 0 && s > 0 {
			rest = s
		}
		if now.Sub(begin) > drainLimit {
			return nil
		}
		if rest <= 0 {
			heard := last.Load()
			if !c.alive(ctx, c.hop.alive*time.Duration(c.hop.aliveCount+2)) {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				return c.lost("read the rest of the output", nil)
			}
			if last.Load() == heard {
				return nil
			}
			rest, begin = drainSilence, time.Now()
		}
		t.Reset(rest)
	}
}

// source remembers why reading failed.
type source struct {
	r   io.Reader
	n   *atomic.Int64
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.n.Add(int64(n))
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}
