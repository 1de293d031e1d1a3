package hostinv

import (
	"context"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// localHost runs commands on this machine with a given shell in the place of
// /bin/sh.
type localHost struct{ shell string }

type exitError struct{ n int }

func (e exitError) Error() string   { return "exited" }
func (e exitError) ExitStatus() int { return e.n }

func (h localHost) Run(ctx context.Context, cmd string, stdin io.Reader, stdout, stderr io.Writer) error {
	c := exec.CommandContext(ctx, h.shell, "-c", strings.ReplaceAll(cmd, "/bin/sh", h.shell))
	c.Stdin, c.Stdout, c.Stderr = stdin, stdout, stderr
	err := c.Run()
	var x *exec.ExitError
	if errors.As(err, &x) {
		return exitError{x.ExitCode()}
	}
	return err
}

func shell(t *testing.T, name string) localHost {
	t.Helper()
	p, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed here", name)
	}
	return localHost{p}
}

func TestScriptDebug(t *testing.T) {
	h := shell(t, "dash")
	inv, err := Collect(t.Context(), h, Options{})
	require.NoError(t, err)
	t.Log("\n" + inv.Text())
	for n, s := range inv.Sections {
		t.Log(n, s)
	}
}
