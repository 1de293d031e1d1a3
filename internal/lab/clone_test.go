package lab_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/lab"
	"github.com/upgradectl/upgradectl/internal/sim/cloud"
	"github.com/upgradectl/upgradectl/internal/testenv"
)

// The user data of a clone runs before what its disk would start.
func TestLabUserData(t *testing.T) {
	testenv.Lab(t)
	if !lab.Isolated(t) {
		return
	}
	ctx := t.Context()
	l := lab.New(t)
	_, err := l.Add(ctx, "i-1", "web-1", "172.31.0.11", "", lab.Setup{Kernel: "3.10.0-862.el7.x86_64", Enable: []string{"cron"},
		Files: map[string]string{"/etc/cron.d/job": "* * * * * root touch /srv/ran\n"}})
	require.NoError(t, err)
	state, err := l.Machines().Snapshot("i-1")
	require.NoError(t, err)
	data := "#cloud-config\nbootcmd:\n  - echo \"$(echo $(systemctl is-active cron ssh))\" >>/srv/state\n  - [rm, -f, /etc/cron.d/job]\n"
	require.NoError(t, l.Machines().Create(cloud.Machine{InstanceID: "i-2", HostName: "web-2", PrivateIP: "172.31.0.12", From: state, UserData: []byte(data)}))
	require.NoError(t, l.Machines().Start("i-2"))
	c := l.Host("i-2")
	require.NoError(t, c.WaitUp(ctx))
	require.NoError(t, c.WaitReady(ctx))
	out, err := c.Must(ctx, "cat /srv/state; [ ! -e /etc/cron.d/job ]; systemctl is-active cron ssh")
	require.NoError(t, err)
	assert.Equal(t, "inactive inactive\nactive\nactive\n", out)
}

// A snapshot of a host that writes is the disk of one moment.
func TestLabSnapshot(t *testing.T) {
	testenv.Lab(t)
	if !lab.Isolated(t) {
		return
	}
	ctx := t.Context()
	l := lab.New(t)
	h, err := l.Add(ctx, "i-1", "web-1", "172.31.0.11", "", lab.Setup{Kernel: "3.10.0-862.el7.x86_64"})
	require.NoError(t, err)
	// The files before and after a large one, in the order in which a copy
	// reads them or the other way round.
	_, err = h.Must(ctx, `mkdir /srv/a /srv/z
head -c 100M /dev/zero >/srv/large
setsid sh -c 'n=0; while :; do n=$((n + 1)); echo $n >/srv/a/n; echo $n >/srv/z/n; done' >/dev/null 2>&1 </dev/null &
until [ -s /srv/z/n ]; do sleep 0.01; done`)
	require.NoError(t, err)
	for range 5 {
		began := time.Now()
		state, err := h.Snapshot()
		require.NoError(t, err)
		t.Logf("a snapshot of 100 MB: %v", time.Since(began).Round(time.Millisecond))
		var n [2]int
		for i, dir := range []string{"a", "z"} {
			text, err := os.ReadFile(filepath.Join(state, "disk/srv", dir, "n"))
			require.NoError(t, err)
			if len(text) == 0 { // it was about to write
				continue
			}
			n[i], err = strconv.Atoi(strings.TrimSpace(string(text)))
			require.NoError(t, err)
		}
		if n[0] != 0 && n[1] != 0 {
			assert.Contains(t, []int{0, 1}, n[0]-n[1])
		}
		require.NoError(t, os.RemoveAll(state))
	}
	before, err := h.Must(ctx, "cat /srv/z/n")
	require.NoError(t, err)
	assert.Eventually(t, func() bool {
		after, err := h.Must(ctx, "cat /srv/z/n")
		return err == nil && after != before
	}, 5*time.Minute, 20*time.Millisecond, "it goes on")
}
