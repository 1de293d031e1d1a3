package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/upgradectl/upgradectl/internal/redact"
	"github.com/upgradectl/upgradectl/internal/shellq"
)

// sudo is how the commands of a connection become root.
type sudo struct {
	ask func(ctx context.Context, who string) (string, error) // nil = no password
	who string
	bad *once // shared by all connections of the Dialer to this user and host

	mu       sync.Mutex
	password string
	have     bool
}

// once remembers that a secret was refused: a second try could lock the
// account.
type once struct {
	mu      sync.Mutex
	refused error
}

func (o *once) get() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.refused
}

func (o *once) set(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.refused = err
}

// becomeRoot runs script $2 with the mark $3, no command and the flag $4: sudo
// writes command lines to the host's log, so that the command itself comes
// over standard input. It runs as root without sudo where the
// login is root's. $1 is the prompt, or empty to ask for no password. The
// messages of sudo are read, so they must be English.
const becomeRoot = `if [ "$(id -u)" = 0 ]; then exec /bin/sh -c "$2" upgradectl "$3" "" "$4"; fi; LC_ALL=C; export LC_ALL; ` +
	`if [ "$1" = "" ]; then exec sudo -n -- /bin/sh -c "$2" upgradectl "$3" "" "$4"; fi; ` +
	`exec sudo -k -S -p "$1" -- /bin/sh -c "$2" upgradectl "$3" "" "$4"`

// sftpAsRoot finds the SFTP server, which sshd runs as the login user only.
const sftpAsRoot = `printf "%s\n" "$1"; printf "%s\n" "$1" >&2; ` +
	`for f in /usr/lib/openssh/sftp-server /usr/libexec/openssh/sftp-server /usr/lib/ssh/sftp-server /usr/libexec/sftp-server /usr/lib/sftp-server; do ` +
	`if [ -x $f ]; then exec $f; fi; done; echo "no sftp-server is installed" >&2; exit 127`

// sudoTalk is one conversation with sudo: the password is sent when the
// prompt was seen and never before, as a host that asks for none would take it
// for a command, and the command only when sudo has started the shell.
type sudoTalk struct {
	s        *sudo
	c        *Conn
	password string // empty = none
	prompt   string
	asked    chan struct{} // gets a token for each prompt
	mu       sync.Mutex
	tries    int
	said     []byte
}

// prepare gets the password, once for a connection.
func (s *sudo) prepare(ctx context.Context, c *Conn) (*sudoTalk, error) {
	if err := s.bad.get(); err != nil {
		return nil, err
	}
	t := &sudoTalk{s: s, c: c, asked: make(chan struct{}, 2)}
	if s.ask == nil {
		return t, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.have {
		p, err := s.ask(ctx, s.who)
		if err == nil && strings.ContainsAny(p, "\n\r\x00") {
			err = errors.New("it holds a line break or a NUL byte")
		}
		if err != nil {
			return nil, fmt.Errorf("cannot get the sudo password of %s: %w", s.who, err)
		}
		s.password, s.have = p, true
	}
	if t.password = s.password; t.password != "" {
		t.prompt = "upgradectl-" + nonce() + "-password:"
	}
	return t, nil
}

func (t *sudoTalk) wrap(script string) wrapped {
	w := wrapped{mark: "upgradectl-" + nonce()}
	w.line = shellq.Join("/bin/sh", "-c", becomeRoot, "upgradectl", t.prompt, script, w.mark, "input")
	return w
}

// listen passes standard error on and watches for the prompt.
func (t *sudoTalk) listen(w *afterMark) io.Writer {
	if t.prompt == "" {
		return w
	}
	return &promptWatch{t: t, w: w}
}

type promptWatch struct {
	t *sudoTalk
	w *afterMark
}

func (p *promptWatch) Write(b []byte) (int, error) {
	select {
	case <-p.w.seen: // what comes now is the command's
		return p.w.Write(b)
	default:
	}
	t := p.t
	t.mu.Lock()
	if len(t.said) < noiseKept {
		t.said = append(t.said, b...)
	}
	before, _, _ := bytes.Cut(t.said, p.w.mark)
	n := bytes.Count(before, []byte(t.prompt))
	for ; t.tries < n; t.tries++ {
		select {
		case t.asked <- struct{}{}:
		default:
		}
	}
	t.mu.Unlock()
	return p.w.Write(b)
}

// converse ends when sudo has started the shell.
func (t *sudoTalk) converse(ctx context.Context, w io.Writer, started <-chan struct{}, ended <-chan struct{}) error {
	if t.prompt == "" {
		return nil
	}
	sent := false
	limit := time.NewTimer(startLimit)
	defer limit.Stop()
	for {
		select {
		case <-limit.C:
			t.mu.Lock()
			said := strings.ReplaceAll(string(t.said), t.prompt, "")
			t.mu.Unlock()
			return &SudoError{Host: t.s.who, Reason: fmt.Sprintf("sudo did not start the command within %v", startLimit),
				Said: shorten(redact.New(t.password).String(strings.TrimSpace(said)), 300), Help: "a second factor cannot be given here"}
		case <-started:
			return nil
		case <-ended:
			return nil // the exit status says the rest
		case <-ctx.Done():
			return fmt.Errorf("sudo on %s did not start the command: %w", t.c.target, ctx.Err())
		case <-t.asked:
			if sent {
				err := &SudoError{Host: t.s.who, Reason: "the password is wrong",
					Help: "it is not tried again, so that the account is not locked"}
				t.s.bad.set(err)
				return err
			}
			sent = true
			// Beside us, as it blocks on a dead peer.
			line := t.password + "\n"
			t.c.tasks.spawn(func() { io.WriteString(w, line) })
		}
	}
}

// failed explains a sudo that ended without starting the shell.
func (t *sudoTalk) failed(said string, x exit) error {
	if t.prompt != "" {
		said = strings.ReplaceAll(said, t.prompt, "")
		said = redact.New(t.password).String(said)
	}
	e := &SudoError{Host: t.s.who, Reason: "sudo did not start the command", Said: shorten(strings.TrimSpace(said), 300)}
	has := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(said, w) {
				return true
			}
		}
		return false
	}
	switch {
	case has("must have a tty"):
		e.Reason, e.Help = "sudo there insists on a terminal", "put into its sudoers: Defaults:USER !requiretty"
	case has("incorrect password", "Authentication failure"):
		e.Reason, e.Help = "the password is wrong", "it is not tried again, so that the account is not locked"
		t.s.bad.set(e)
	case has("password is required", "a terminal is required"):
		e.Reason, e.Help = "sudo asks for a password", "give one (sudo password file or prompt), or a NOPASSWD rule"
	case has("not in the sudoers", "may not run sudo", "is not allowed to", "not allowed to execute"):
		e.Reason, e.Help = "sudoers does not allow it", "a rule must allow /bin/sh as root, for instance: USER ALL=(root) NOPASSWD: /bin/sh"
	case has("sudo: not found", "sudo: command not found", "sudo: No such file"):
		e.Reason, e.Help = "sudo is not installed", "log in as root, or install it"
	case has("account validation failure", "account is locked", "password expired", "has expired"):
		e.Reason, e.Help = "the account is locked or its password has expired", "ask who runs the host"
	case x.status == 0 && x.signal == "":
		e.Reason = "the login shell did not start sudo"
		e.Help = "check the login shell and its start files on the host"
	}
	return e
}
