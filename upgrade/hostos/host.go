package hostos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"unicode/utf8"
)

// Host is what this package needs of a machine. *hostinv.Conn is one.
//
// Run executes a POSIX sh command line. A command that ran and failed gives
// an error that satisfies interface{ ExitStatus() int } through errors.As;
// any other error means that the result is unknown. WriteFile creates a new
// file and fails when it exists.
type Host interface {
	Run(ctx context.Context, cmd string, stdin io.Reader, stdout, stderr io.Writer) error
	ReadFile(ctx context.Context, name string) ([]byte, error)
	WriteFile(ctx context.Context, name string, data []byte, perm fs.FileMode) error
}

// maxOutput bounds what is kept of a command's output: the answers this
// package asks for are short, and a runaway program must not fill our memory.
const maxOutput = 1 << 20

// output runs cmd and gives its standard output. A failure carries the start
// of its standard error, which is where tools say why.
func output(ctx context.Context, h Host, cmd string, stdin io.Reader) (string, error) {
	var stdout, stderr capped
	if err := h.Run(ctx, cmd, stdin, &stdout, &stderr); err != nil {
		if msg := strings.TrimSpace(firstBytes(stderr.String(), 400)); msg != "" {
			return stdout.String(), fmt.Errorf("%w: %s", err, msg)
		}
		return stdout.String(), err
	}
	return stdout.String(), nil
}

// exitStatus gives the status of a command that ran and failed, and false
// when it is not known whether the command ran.
func exitStatus(err error) (int, bool) {
	var e interface{ ExitStatus() int }
	if errors.As(err, &e) {
		return e.ExitStatus(), true
	}
	return 0, false
}

// has tells whether the host has a program of that name on its PATH.
func has(ctx context.Context, h Host, program string) (bool, error) {
	_, err := output(ctx, h, "command -v "+program+" >/dev/null", nil)
	if err == nil {
		return true, nil
	}
	if _, ran := exitStatus(err); ran {
		return false, nil
	}
	return false, err
}

// capped keeps the first maxOutput bytes written to it and takes the rest
// without keeping it, so that the command on the other end can finish.
type capped struct{ buf bytes.Buffer }

func (c *capped) Write(p []byte) (int, error) {
	if room := maxOutput - c.buf.Len(); room > 0 {
		c.buf.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

func (c *capped) String() string { return c.buf.String() }

// firstBytes and lastBytes cut a text that people read, never inside a
// character.
func firstBytes(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

func lastBytes(s string, n int) string {
	if len(s) <= n {
		return s
	}
	at := len(s) - n
	for at < len(s) && !utf8.RuneStart(s[at]) {
		at++
	}
	return "…" + s[at:]
}
