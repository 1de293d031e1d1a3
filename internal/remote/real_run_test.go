//go:build linux

package remote_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/remote"
	"github.com/upgradectl/upgradectl/internal/testenv"
)

// TestRealShells runs commands through login shells of every kind.
func TestRealShells(t *testing.T) {
	accounts := []account{
		{name: "plain"},
		{name: "noisy", bashrc: "printf 'welcome\\033[1m to'; echo oops >&2; alias cat=rm\n"},
		{name: "eater", bashrc: "read x\n"},
		{name: "leaver", bashrc: "echo bye; exit 0\n"},
		{name: "none", shell: "/usr/sbin/nologin"},
		{name: "dashes", shell: "/bin/dash"},
	}
	for _, s := range []string{"/usr/bin/tcsh", "/usr/bin/fish"} {
		if _, err := os.Stat(s); err == nil {
			accounts = append(accounts, account{name: filepath.Base(s), shell: s})
		}
	}
	banner := filepath.Join(t.TempDir(), "banner")
	require.NoError(t, os.WriteFile(banner, []byte("authorised use only\n"), 0o644))
	r := startReal(t, accounts, "Banner "+banner, "PrintMotd yes")
	data := bytes.Repeat([]byte("\x00'$x`!\\\n\xff"), 40000)
	for _, a := range accounts {
		t.Run(a.name, func(t *testing.T) {
			c := r.dial(t, a.name, nil)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			var out bytes.Buffer
			err := c.Run(ctx, "# a comment\ncat; echo \"it's $((1+1))\" 'a  !b'\n", bytes.NewReader(data), &out, nil)
			switch a.name {
			case "leaver", "none":
				var shell *remote.ShellError
				require.ErrorAs(t, err, &shell)
				assert.NotEmpty(t, shell.Said)
				return
			case "eater":
				require.Error(t, err)
				assert.ErrorContains(t, err, "start file")
				return
			}
			require.NoError(t, err)
			assert.True(t, bytes.Equal(append(data[:len(data):len(data)], "it's 2 a  !b\n"...), out.Bytes()), "%d bytes", out.Len())
			got, err := c.Exec(ctx, remote.Cmd{Line: "echo out; echo err >&2; exit 3"})
			var exit *remote.ExitError
			require.ErrorAs(t, err, &exit)
			assert.Equal(t, 3, exit.Status)
			assert.Equal(t, "out\n", string(got.Stdout))
			assert.Equal(t, "err\n", string(got.Stderr))
			assert.Equal(t, a.name == "noisy", strings.Contains(got.Noise, "welcome") && strings.Contains(got.Noise, "oops"))
			got, err = c.Exec(ctx, remote.Cmd{Line: "cat; echo end", Stdin: strings.NewReader("in"), OnLost: remote.OnLostDetach})
			require.NoError(t, err)
			assert.Equal(t, "inend\n", string(got.Stdout))
			got, err = c.Exec(ctx, remote.Cmd{Line: "head -c 300000 /dev/zero", MaxOutput: 1000})
			require.NoError(t, err)
			assert.Len(t, got.Stdout, 1000)
			assert.True(t, got.Truncated)
			got, err = c.Exec(ctx, remote.Cmd{Line: "cat", MaxOutput: 1000})
			require.NoError(t, err)
			assert.False(t, got.Truncated)
			assert.Empty(t, got.Stdout)
		})
	}
}

// alive counts the processes whose command line holds the word.
func alive(t testing.TB, word string) int {
	n := 0
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	for _, f := range all {
		b, _ := os.ReadFile(f)
		if bytes.Contains(b, []byte(word)) && !bytes.Contains(b, []byte("remote.test")) {
			n++
		}
	}
	return n
}

// sleeps counts the sleep processes of a word; what is still on its way to
// be one does not count.
func sleeps(t testing.TB, word string) int {
	n := 0
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	for _, f := range all {
		if b, _ := os.ReadFile(f); bytes.HasPrefix(b, []byte("sleep\x00"+word)) {
			n++
		}
	}
	return n
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatal(what)
		case <-tick.C:
		}
	}
}

// TestRealKill holds that a command ends with its caller, or not, as it says.
func TestRealKill(t *testing.T) {
	testenv.Slow(t)
	testenv.Need(t, "sudo")
	r := startReal(t, []account{{name: "ops", sudoers: "ALL=(ALL) NOPASSWD: ALL"}})
	var serial atomic.Int32
	for _, how := range []string{"cancel", "drop"} {
		for _, sudo := range []bool{false, true} {
			for name, tc := range map[string]struct {
				line   string
				onLost remote.OnLost
				lives  bool
			}{
				"simple":       {"sleep @", remote.OnLostKill, false},
				"tree":         {"sh -c 'sleep @; true' | cat", remote.OnLostKill, false},
				"ignores TERM": {"trap '' TERM; sleep @; sleep @", remote.OnLostKill, false},
				"detached":     {"sleep @", remote.OnLostDetach, true},
				"own session":  {"setsid sleep @ >/dev/null 2>&1 </dev/null & sleep 600", remote.OnLostKill, true},
			} {
				t.Run(fmt.Sprintf("%s sudo=%v %s", how, sudo, name), func(t *testing.T) {
					t.Parallel()
					word := fmt.Sprintf("3%06d.%d", os.Getpid(), serial.Add(1))
					c := r.dial(t, "ops", func(o *remote.Options) { o.Sudo = sudo })
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					ended := make(chan error, 1)
					go func() {
						_, err := c.Exec(ctx, remote.Cmd{Line: strings.ReplaceAll(tc.line, "@", word), OnLost: tc.onLost})
						ended <- err
					}()
					eventually(t, "it does not start", func() bool { return sleeps(t, word) > 0 })
					if how == "cancel" {
						cancel()
						require.ErrorIs(t, <-ended, context.Canceled)
					} else {
						c.Close()
						var lost *remote.DisconnectedError
						require.ErrorAs(t, <-ended, &lost)
					}
					if !tc.lives {
						eventually(t, "it still runs", func() bool { return alive(t, word) == 0 })
						return
					}
					<-time.After(3 * time.Second) // longer than the killing takes
					assert.Positive(t, sleeps(t, word))
					killWord(t, "sleep\x00"+word)
				})
			}
		}
	}
}

func killWord(t testing.TB, word string) {
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	for _, f := range all {
		if b, _ := os.ReadFile(f); bytes.Contains(b, []byte(word)) {
			var pid int
			fmt.Sscanf(f, "/proc/%d/", &pid)
			if p, err := os.FindProcess(pid); err == nil {
				p.Kill()
			}
		}
	}
}

// TestRealTruncatedInput holds that a lost connection never makes input look
// whole.
func TestRealTruncatedInput(t *testing.T) {
	r := startReal(t, []account{{name: "ops"}})
	c := r.dial(t, "ops", nil)
	done := filepath.Join(r.dir, "ops", "done")
	started := make(chan struct{})
	in := readerFunc(func(p []byte) (int, error) {
		select {
		case <-started:
			c.Close()
			return 0, errors.New("gone")
		default:
			close(started)
			return copy(p, "first half"), nil
		}
	})
	err := c.Run(t.Context(), "cat >"+done+".part && mv "+done+".part "+done, in, nil, nil)
	require.Error(t, err)
	eventually(t, "it still runs", func() bool { return alive(t, "upgradectl-end") == 0 && alive(t, done) == 0 })
	_, err = os.Stat(done)
	assert.ErrorIs(t, err, fs.ErrNotExist)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestRealSudo talks to the real sudo.
func TestRealSudo(t *testing.T) {
	testenv.Slow(t)
	testenv.Need(t, "sudo")
	r := startReal(t, []account{
		{name: "free", sudoers: "ALL=(ALL) NOPASSWD: ALL"},
		{name: "asks", sudoers: "ALL=(ALL) ALL"},
		{name: "chatty", sudoers: "ALL=(ALL) ALL", bashrc: "echo noise; echo 'Password:' >&2\n"},
		{name: "nobodys"},
		{name: "tty", sudoers: "ALL=(ALL) NOPASSWD: ALL\nDefaults:tty requiretty"},
		{name: "ptys", sudoers: "ALL=(ALL) ALL\nDefaults:ptys use_pty, lecture=always"},
	})
	secret := filepath.Join(r.dir, "secret")
	require.NoError(t, os.WriteFile(secret, []byte("root only"), 0o600))
	var asked atomic.Int32
	with := func(password string) func(*remote.Options) {
		return func(o *remote.Options) {
			o.Sudo = true
			if password != "" {
				o.SudoPassword = func(context.Context, string) (string, error) { asked.Add(1); return password, nil }
			}
		}
	}
	var refused *remote.SudoError
	for _, tc := range []struct{ user, password, says string }{
		{"root", "", ""},
		{"root", testPassword, ""},
		{"free", "", ""},
		{"free", testPassword, ""},
		{"free", "rm -rf /tmp/none", ""}, // never executed, never needed
		{"asks", testPassword, ""},
		{"chatty", testPassword, ""},
		{"ptys", testPassword, ""},
		{"asks", "", "asks for a password"},
		{"asks", "wrong", "the password is wrong"},
		{"asks", "two\nlines", "line break"},
		{"nobodys", testPassword, "sudoers does not allow it"},
		{"tty", "", "insists on a terminal"},
	} {
		t.Run(tc.user+" "+tc.password, func(t *testing.T) {
			c := r.dial(t, tc.user, with(tc.password))
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			got, err := c.Exec(ctx, remote.Cmd{Line: "id -u; cat; env | grep -c -F \"$PW\"", Stdin: strings.NewReader("input\n")})
			if tc.says != "" {
				require.ErrorContains(t, err, tc.says)
				assert.NotContains(t, err.Error(), testPassword)
				var status interface{ ExitStatus() int }
				assert.False(t, errors.As(err, &status), "nothing ran, so there is no exit status")
				_, err = c.ReadFile(ctx, secret)
				require.ErrorContains(t, err, tc.says)
				if tc.says == "the password is wrong" {
					require.ErrorAs(t, err, &refused)
					before := strings.Count(r.log.String(), "incorrect")
					_, err = c.Exec(ctx, remote.Cmd{Line: "true"})
					require.ErrorAs(t, err, &refused)
					assert.Equal(t, before, strings.Count(r.log.String(), "incorrect"), "it was tried again")
				}
				return
			}
			require.NoError(t, err)
			assert.True(t, strings.HasPrefix(string(got.Stdout), "0\ninput\n"), "%q", got.Stdout)
			if tc.password != "" {
				assert.NotContains(t, string(got.Stdout)+string(got.Stderr)+got.Noise, tc.password)
			}
			b, err := c.ReadFile(ctx, secret)
			require.NoError(t, err)
			assert.Equal(t, "root only", string(b))
			name := filepath.Join(r.dir, "new-"+tc.user+fmt.Sprint(asked.Load()))
			require.NoError(t, c.WriteFile(ctx, name, []byte("x"), 0o640))
			info, err := os.Stat(name)
			require.NoError(t, err)
			assert.Equal(t, fs.FileMode(0o640), info.Mode())
			list, err := c.ReadDir(ctx, "/root")
			require.NoError(t, err)
			assert.NotEmpty(t, list)
			require.NoError(t, c.WriteFile(ctx, name+".new", bytes.Repeat([]byte("y"), 1<<20), 0o600))
			for range 3 {
				var exit *remote.ExitError
				require.ErrorAs(t, c.Run(ctx, "exit 9", nil, nil, nil), &exit)
			}
		})
	}
}
