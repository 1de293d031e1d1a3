package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
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

// openSession opens a session channel. An open that ctx gave up is finished
// in the background, and its slot is freed then.
func (c *Conn) openSession(ctx context.Context, what string) (ssh.Channel, <-chan *ssh.Request, error) {
	if err := c.acquire(ctx); err != nil {
		return nil, nil, err
	}
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
		c.release()
		var refused *ssh.OpenChannelError
		if errors.As(o.err, &refused) {
			return nil, nil, fmt.Errorf("cannot open a session on %s: %w", c.target, o.err)
		}
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

// Run runs a command line. See hostinv.Conn.Run.
func (c *Conn) Run(ctx context.Context, cmd string, stdin io.Reader, stdout, stderr io.Writer) error {
	shown := shorten(cmd, cmdShown)
	ended := func(err error) error {
		return fmt.Errorf("command %q on %s, its result is not known: %w", shown, c.target, err)
	}
	ch, reqs, err := c.openSession(ctx, shown)
	if err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("command %q on %s was not started: %w", shown, c.target, ctx.Err())
		}
		return err
	}

	// Everything that talks to the channel may block on a dead peer, so it
	// all runs beside this function, and ends with the channel.
	closeCh := func() {
		c.tasks.spawn(func() {
			ch.Close()
		})
	}
	exited := make(chan exit, 1)
	c.tasks.spawn(func() {
		defer c.release() // the channel is closed when its requests end
		var x exit
		sent := false
		for r := range reqs {
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
			if x.known && !sent {
				sent = true
				exited <- x
			}
		}
		if !sent {
			exited <- x
		}
	})

	started := make(chan error, 1)
	c.tasks.spawn(func() {
		ok, err := ch.SendRequest("exec", true, ssh.Marshal(struct{ Command string }{cmd}))
		if err == nil && !ok {
			err = errRefused
		}
		started <- err
	})
	select {
	case err = <-started:
	case <-ctx.Done():
		closeCh()
		return ended(ctx.Err())
	}
	if err != nil {
		closeCh()
		if errors.Is(err, errRefused) {
			return fmt.Errorf("%s refuses to run command %q: %w", c.target, shown, err)
		}
		return c.lost(shown, err)
	}

	var last atomic.Int64
	last.Store(time.Now().UnixNano())
	out := &gate{w: stdout, last: &last}
	errs := &gate{w: stderr, last: &last, keep: &bytes.Buffer{}}
	drained := make(chan struct{})
	var copies sync.WaitGroup
	copies.Add(2)
	c.tasks.spawn(func() { defer copies.Done(); io.Copy(out, ch) })
	c.tasks.spawn(func() { defer copies.Done(); io.Copy(errs, ch.Stderr()) })
	c.tasks.spawn(func() { copies.Wait(); close(drained) })

	// Not counted in tasks: nobody can interrupt the Read of a foreign
	// reader, and Close must not wait for it.
	badInput := make(chan error, 1)
	go func() {
		if stdin != nil {
			in := &source{r: stdin}
			// A command that does not read its input is no error of ours.
			io.Copy(struct{ io.Writer }{ch}, in)
			if in.err != nil {
				badInput <- in.err // and no end of file: what was sent is not whole
				return
			}
		}
		ch.CloseWrite()
	}()

	var x exit
	select {
	case x = <-exited:
	case err := <-badInput:
		closeCh()
		out.close()
		errs.close()
		return ended(fmt.Errorf("cannot read its input: %w", err))
	case <-ctx.Done():
		closeCh()
		out.close()
		errs.close()
		return ended(ctx.Err())
	}
	if err := c.drain(ctx, drained, &last, out, errs); err != nil {
		closeCh()
		out.close()
		errs.close()
		return ended(err)
	}
	closeCh()
	werr := errors.Join(out.close(), errs.close())
	switch {
	case !x.known:
		return c.lost(shown, errors.New("the session ended without an exit status"))
	case x.status != 0:
		return &ExitError{Host: c.target, Cmd: shown, Status: x.status, Signal: x.signal, Stderr: errs.keep.Bytes()}
	case werr != nil:
		return fmt.Errorf("command %q on %s succeeded, but its output could not be kept: %w", shown, c.target, werr)
	}
	return nil
}

var errRefused = errors.New("its SSH server does not allow it")

// drain waits for the end of the output after the exit status. What the
// command itself wrote is there by then or follows at once; only children
// left in the background can hold it open.
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
		if rest <= 0 || now.Sub(begin) > drainLimit {
			return nil
		}
		t.Reset(rest)
	}
}

// source remembers why reading failed.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}
