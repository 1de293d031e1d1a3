package remote_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"github.com/upgradectl/upgradectl/internal/remote"
)

const (
	oldBoot = "d2cf5a55-550f-4407-adf6-1110d73a4fac"
	boot1   = "11111111-550f-4407-adf6-1110d73a4fac"
	boot2   = "22222222-550f-4407-adf6-1110d73a4fac"
)

func inVirtualTime(f func(t *testing.T)) func(t *testing.T) {
	return func(t *testing.T) { synctest.Test(t, f) }
}

// TestWaitBoot plays reboots of every kind: each answer of the host is one
// word of a script.
func TestWaitBoot(t *testing.T) {
	var changed *remote.HostKeyChangedError
	var auth *remote.AuthError
	for _, tc := range []struct {
		name   string
		script string // down, old, 1, 2, starting (boot 1), nologin, refuse, garbage; the last one stays
		boots  []string
		want   any
		says   string
	}{
		{"one boot", "old old down down 1", []string{boot1}, nil, ""},
		{"slow shutdown answers meanwhile", "old old old old old 1", []string{boot1}, nil, ""},
		{"boots twice", "down 1 1 down 2", []string{boot1, boot2}, nil, ""},
		{"services start slowly", "down starting starting starting 1", []string{boot1}, nil, ""},
		{"nologin phase", "down nologin nologin nologin nologin 1", []string{boot1}, nil, ""},
		{"one refusal while homes are mounted", "down refuse 1", []string{boot1}, nil, ""},
		{"garbage", "down garbage 1", []string{boot1}, nil, ""},
		{"login refused for good", "down refuse", nil, &auth, "refuses the login"},
		{"never goes down", "old", nil, nil, "still in the old boot"},
		{"never comes back", "old down", nil, nil, "last seen"},
	} {
		t.Run(tc.name, inVirtualTime(func(t *testing.T) {
			r := newMemRig(t)
			var mu sync.Mutex
			words := strings.Fields(tc.script)
			now := ""
			refusals := 0
			next := func() string {
				mu.Lock()
				defer mu.Unlock()
				now = words[0]
				if len(words) > 1 {
					words = words[1:]
				}
				return now
			}
			r.s.mu.Lock() // the server takes it before each connection
			accept := r.s.cfg.PublicKeyCallback
			r.s.cfg.PublicKeyCallback = func(c ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
				mu.Lock()
				defer mu.Unlock()
				if now == "refuse" || now == "nologin" {
					refusals++
					return nil, fmt.Errorf("refused")
				}
				return accept(c, k)
			}
			r.s.cfg.BannerCallback = func(ssh.ConnMetadata) string {
				mu.Lock()
				defer mu.Unlock()
				if now == "nologin" {
					return "\"System is booting up. Unprivileged users are not permitted to log in yet.\"\n"
				}
				return ""
			}
			r.s.any = func(ch ssh.Channel, cmd string) {
				mu.Lock()
				defer mu.Unlock()
				answer := map[string]string{"old": oldBoot, "1": boot1 + "\nrunning", "2": boot2 + "\ndegraded", "starting": boot1 + "\nstarting"}[now]
				if now == "garbage" {
					answer = "no such file"
				}
				fmt.Fprintln(ch, answer)
				exitStatus(ch, 0)
			}
			r.s.mu.Unlock()
			r.opt.NetDial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				if next() == "down" {
					return nil, fmt.Errorf("connection refused")
				}
				return r.s.dial(ctx, network, addr)
			}
			d, err := remote.NewDialer(r.opt)
			require.NoError(t, err)
			defer d.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
			defer cancel()
			begin := time.Now()
			got, err := d.WaitBoot(ctx, r.addr, remote.BootWait{From: oldBoot})
			if tc.boots != nil {
				require.NoError(t, err)
				assert.Equal(t, tc.boots, got.Boots)
				assert.Equal(t, tc.boots[len(tc.boots)-1], got.ID)
				assert.Less(t, time.Since(begin), 2*time.Minute, "one of them to be sure that it stays")
				return
			}
			require.ErrorContains(t, err, tc.says)
			if tc.want != nil {
				require.ErrorAs(t, err, tc.want)
				assert.LessOrEqual(t, refusals, 4, "a hopeless login is not repeated")
			} else {
				require.ErrorIs(t, err, context.DeadlineExceeded)
			}
		}))
	}
	t.Run("another host key", func(t *testing.T) {
		r := newRig(t)
		r.opt.KnownHosts = []string{file(t, "127.0.0.1 "+text(edKey(t)))}
		d, err := remote.NewDialer(r.opt)
		require.NoError(t, err)
		defer d.Close()
		_, err = d.WaitBoot(t.Context(), r.addr, remote.BootWait{From: oldBoot})
		require.ErrorAs(t, err, &changed)
		_, err = d.WaitBoot(t.Context(), r.addr, remote.BootWait{From: "x"})
		assert.ErrorContains(t, err, "no boot ID")
	})
}
