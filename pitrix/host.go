package pitrix

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"strings"
	"unicode/utf8"
)

// Host is what this package needs of a machine: the firstbox, a physical host
// or a node. *hostinv.Conn is one.
//
// cmd is a POSIX sh command line. An error of a command that ran and failed
// satisfies interface{ ExitStatus() int } through errors.As, with -1 for one
// that a signal killed; any other error means that the result is not known.
// WriteFile makes a new file and fails with fs.ErrExist when it is there.
type Host interface {
	Run(ctx context.Context, cmd string, stdin io.Reader, stdout, stderr io.Writer) error
	ReadFile(ctx context.Context, name string) ([]byte, error)
	WriteFile(ctx context.Context, name string, data []byte, perm fs.FileMode) error
}

// maxOutput is how much of a command's output is kept. A command on all nodes
// of a large installation is the longest that is read here.
const maxOutput = 16 << 20

// output runs cmd with an empty standard input and returns its standard
// output. A failure carries the start of its standard error.
func output(ctx context.Context, h Host, cmd string) (string, error) {
	return input(ctx, h, cmd, strings.NewReader(""))
}

func input(ctx context.Context, h Host, cmd string, stdin io.Reader) (string, error) {
	var stdout, stderr capped
	if err := h.Run(ctx, cmd, stdin, &stdout, &stderr); err != nil {
		if text := strings.TrimSpace(firstBytes(stderr.buf.String(), 400)); text != "" {
			err = fmt.Errorf("%w: %s", err, text)
		}
		return stdout.buf.String(), err
	}
	return stdout.buf.String(), nil
}

// exitStatus gives the status of a command that ran and failed, and false when
// it is not known whether it ran.
func exitStatus(err error) (int, bool) {
	var e interface{ ExitStatus() int }
	if errors.As(err, &e) {
		return e.ExitStatus(), true
	}
	return 0, false
}

// both runs cmd and returns all it wrote and its status: 0, or that of a
// command that ran and failed. err is set when the result is not known.
func both(ctx context.Context, h Host, cmd string) (out []byte, status int, err error) {
	var all capped
	err = h.Run(ctx, "{ "+cmd+"\n} 2>&1", strings.NewReader(""), &all, io.Discard)
	if err == nil {
		return all.buf.Bytes(), 0, nil
	}
	if status, ok := exitStatus(err); ok {
		return all.buf.Bytes(), status, nil
	}
	return all.buf.Bytes(), -1, err
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

// keyPattern keeps the keys of effects harmless in paths and command lines.
var keyPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,63}$`)

func checkKey(key string) error {
	if !keyPattern.MatchString(key) {
		return fmt.Errorf("%q cannot be a key; use 1 to 64 of a-z, 0-9 and -", key)
	}
	return nil
}

// checkNode refuses what cannot be the name of a node or VM.
func checkNode(name string) error {
	if !validNode(name) {
		return fmt.Errorf("%q cannot be the name of a node; use letters, digits and -", name)
	}
	return nil
}
