package lab_test

import (
	"testing"

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
