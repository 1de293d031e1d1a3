package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sort"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

// maxFile limits what ReadFile takes.
const maxFile = 64 << 20

// withSFTP runs f with an SFTP client of its own. When ctx ends first, the
// client is closed, which ends f soon, and nothing waits for it.
func (c *Conn) withSFTP(ctx context.Context, what, name string, f func(*sftp.Client) error) error {
	wrap := func(err error) error {
		return fmt.Errorf("cannot %s %s on %s: %w", what, name, c.target, err)
	}
	if err := ctx.Err(); err != nil {
		return wrap(err)
	}
	c.mu.Lock()
	client := c.idle
	c.idle = nil
	c.mu.Unlock()
	if client == nil {
		var err error
		if client, err = c.newSFTP(ctx); err != nil {
			return wrap(err)
		}
	} else if err := c.acquire(ctx); err != nil {
		c.keep(client)
		return wrap(err)
	}
	result := make(chan error, 1)
	c.tasks.spawn(func() {
		defer c.release()
		err := f(client)
		var status *sftp.StatusError
		if err == nil || errors.As(err, &status) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrPermission) {
			if ctx.Err() == nil {
				c.keep(client)
			}
		} else {
			client.Close()
		}
		result <- err
	})
	select {
	case err := <-result:
		if err == nil {
			return nil
		}
		if ctx.Err() == nil && (errors.Is(err, sftp.ErrSSHFxConnectionLost) || errors.Is(err, io.ErrUnexpectedEOF)) {
			return c.lost(what+" "+name, err)
		}
		if ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
			err = ctx.Err()
		}
		return wrap(err)
	case <-ctx.Done():
		c.tasks.spawn(func() { client.Close() })
		return wrap(ctx.Err())
	}
}

// keep holds one client for the next file and closes a second one.
func (c *Conn) keep(client *sftp.Client) {
	c.mu.Lock()
	if c.idle == nil {
		c.idle, client = client, nil
	}
	c.mu.Unlock()
	if client != nil {
		client.Close()
	}
}

// dropIdle closes the idle client and its session, if there is one.
func (c *Conn) dropIdle() bool {
	c.mu.Lock()
	client := c.idle
	c.idle = nil
	c.mu.Unlock()
	if client == nil {
		return false
	}
	client.Close()
	return true
}

// newSFTP starts the SFTP subsystem; the caller holds a slot afterwards.
func (c *Conn) newSFTP(ctx context.Context) (*sftp.Client, error) {
	var talk *sudoTalk
	if c.sudo != nil {
		var err error
		if talk, err = c.sudo.prepare(ctx, c); err != nil {
			return nil, err
		}
	}
	ch, reqs, err := c.openSession(ctx, "sftp")
	if err != nil {
		return nil, err
	}
	if talk != nil {
		return c.sudoSFTP(ctx, talk, ch, reqs)
	}
	type made struct {
		client *sftp.Client
		err    error
	}
	got := make(chan made, 1)
	c.tasks.spawn(func() { ssh.DiscardRequests(reqs) })
	c.tasks.spawn(func() {
		ok, err := ch.SendRequest("subsystem", true, ssh.Marshal(struct{ Name string }{"sftp"}))
		if err == nil && !ok {
			err = errors.New("its SSH server has no SFTP subsystem (Subsystem sftp in sshd_config)")
		}
		var client *sftp.Client
		if err == nil {
			client, err = sftp.NewClientPipe(ch, ch, sftp.UseConcurrentReads(true), sftp.UseConcurrentWrites(true))
		}
		if err != nil {
			ch.Close()
		}
		got <- made{client, err}
	})
	select {
	case m := <-got:
		if m.err != nil {
			c.release()
			return nil, m.err
		}
		return m.client, nil
	case <-ctx.Done():
		c.tasks.spawn(func() {
			ch.Close()
			<-got
			c.release()
		})
		return nil, ctx.Err()
	}
}

// sudoSFTP starts an SFTP server as root.
func (c *Conn) sudoSFTP(ctx context.Context, talk *sudoTalk, ch ssh.Channel, reqs <-chan *ssh.Request) (*sftp.Client, error) {
	r := &run{c: c, shown: "sftp-server", ch: ch}
	w := talk.wrap(sftpAsRoot)
	exited := make(chan exit, 1)
	c.tasks.spawn(func() { exited <- awaitExit(reqs); ssh.DiscardRequests(reqs) })
	fail := func(err error) (*sftp.Client, error) {
		r.close()
		c.release()
		return nil, err
	}
	if err := r.exec(ctx, w.line, false); err != nil {
		c.release()
		return nil, err
	}
	pr, pw := io.Pipe()
	out, errs := newAfterMark(w.mark, pw), newAfterMark(w.mark, io.Discard)
	ended := make(chan struct{})
	c.tasks.spawn(func() { _, err := copyOutput(out, ch); pw.CloseWithError(err) })
	c.tasks.spawn(func() { defer close(ended); copyOutput(talk.listen(errs), ch.Stderr()) })
	if err := talk.converse(ctx, ch, errs.seen, ended); err != nil {
		pr.Close()
		return fail(err)
	}
	select {
	case <-errs.seen:
	case <-ended:
		said, started := errs.before()
		if !started {
			pr.Close()
			select {
			case x := <-exited:
				return fail(talk.failed(said, x))
			case <-c.done:
				return fail(c.lost("sftp-server", nil))
			}
		}
	case <-ctx.Done():
		pr.Close()
		return fail(ctx.Err())
	}
	type made struct {
		client *sftp.Client
		err    error
	}
	got := make(chan made, 1)
	c.tasks.spawn(func() {
		client, err := sftp.NewClientPipe(pr, closer{ch, pr}, sftp.UseConcurrentReads(true), sftp.UseConcurrentWrites(true))
		got <- made{client, err}
	})
	select {
	case m := <-got:
		if m.err != nil {
			pr.Close()
			return fail(fmt.Errorf("cannot start an SFTP server as root: %w; the package with sftp-server must be installed there", m.err))
		}
		return m.client, nil
	case <-ctx.Done():
		pr.Close()
		return fail(ctx.Err())
	}
}

// closer closes the channel and what reads from it.
type closer struct {
	ssh.Channel
	r *io.PipeReader
}

func (c closer) Close() error {
	err := c.Channel.Close()
	c.r.Close()
	return err
}

// ReadFile reads a file. See hostinv.Conn.ReadFile.
func (c *Conn) ReadFile(ctx context.Context, name string) ([]byte, error) {
	var data []byte
	err := c.withSFTP(ctx, "read", name, func(s *sftp.Client) error {
		f, err := s.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		w := &limitedBuffer{left: maxFile}
		if _, err := f.WriteTo(w); err != nil {
			return err
		}
		data = w.buf.Bytes()
		return nil
	})
	if err != nil {
		return nil, err
	}
	if data == nil {
		data = []byte{}
	}
	return data, nil
}

// limitedBuffer refuses to grow without end.
type limitedBuffer struct {
	buf  bytes.Buffer
	left int
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, fmt.Errorf("it is larger than %d MiB", maxFile>>20)
	}
	return b.buf.Write(p)
}

// WriteFile creates a file. See hostinv.Conn.WriteFile.
func (c *Conn) WriteFile(ctx context.Context, name string, data []byte, perm fs.FileMode) error {
	data = bytes.Clone(data) // an upload that ctx gave up may still look at it
	return c.withSFTP(ctx, "create", name, func(s *sftp.Client) error {
		f, err := s.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
		if err != nil {
			// Version 3 of the protocol has no code for "exists".
			var status *sftp.StatusError
			if errors.As(err, &status) {
				if _, serr := s.Lstat(name); serr == nil {
					return fs.ErrExist
				}
			}
			return err
		}
		if err := fill(s, f, data, perm); err != nil {
			f.Close()
			if rerr := s.Remove(name); rerr != nil {
				return fmt.Errorf("%w (and what was written could not be removed: %v)", err, rerr)
			}
			return err
		}
		return nil
	})
}

func fill(s *sftp.Client, f *sftp.File, data []byte, perm fs.FileMode) error {
	if err := f.Chmod(perm.Perm()); err != nil {
		return fmt.Errorf("set its permissions: %w", err)
	}
	// A reader of known size lets the writes go out side by side.
	if _, err := f.ReadFrom(bytes.NewReader(data)); err != nil {
		return err
	}
	if _, ok := s.HasExtension("fsync@openssh.com"); ok {
		if err := f.Sync(); err != nil {
			return fmt.Errorf("sync it: %w", err)
		}
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() != int64(len(data)) {
		return fmt.Errorf("%d bytes arrived of %d", info.Size(), len(data))
	}
	return f.Close()
}

// ReadDir lists a directory. See hostinv.Conn.ReadDir.
func (c *Conn) ReadDir(ctx context.Context, name string) ([]fs.DirEntry, error) {
	var list []fs.DirEntry
	err := c.withSFTP(ctx, "list", name, func(s *sftp.Client) error {
		infos, err := s.ReadDirContext(ctx, name)
		if err != nil {
			return err
		}
		for _, i := range infos {
			list = append(list, fs.FileInfoToDirEntry(i))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name() < list[j].Name() })
	return list, nil
}
