package hostos

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim/host"
)

// The same over SSH on a CentOS 7 host, through a reboot that loses the process.
func TestRestart(t *testing.T) {
	s := simulate(t, func(sp *host.Spec) {
		withServices(sp)
		sp.Processes[0].Env = map[string]string{"PATH": "/usr/bin:/bin", "DB_PASSWORD": "hunter2 'and\nmore", "EMPTY": ""}
		sp.Processes[0].Ports = []int{8080}
		sp.Processes[0].Args = []string{"java", "-jar", "order.jar", "--server.port=8080", "", "a b", "it's\n"}
	})
	c := s.dial()
	svc := services[0]
	svc.Start = ""
	get := func(id, name string) string {
		out, err := output(soon(t), c, "tr '\\000\\n' '\\n\\001' <"+"/proc/"+id+"/"+name, nil)
		require.NoError(t, err)
		return out
	}
	one := func() string {
		t.Helper()
		ids, err := servicePIDs(soon(t), c, svc, false)
		require.NoError(t, err)
		require.Len(t, ids, 1)
		return ids[0]
	}
	id := one()
	args, env := get(id, "cmdline"), get(id, "environ")
	kept, err := CheckRestart(soon(t), c, []Service{svc, services[1]})
	require.NoError(t, err)
	keys, err := ListRestart(soon(t), c)
	require.NoError(t, err)
	assert.Empty(t, keys, "looking keeps nothing")
	again, err := CaptureRestart(soon(t), c, "k1", []Service{svc, services[1]})
	require.NoError(t, err)
	assert.Equal(t, kept, again)
	require.NoError(t, StopService(soon(t), c, svc, ServiceOptions{Poll: poll}))
	_, err = CheckRestart(soon(t), c, []Service{svc})
	require.ErrorIs(t, err, ErrNotRunning)
	again, err = CaptureRestart(soon(t), c, "k1", []Service{svc, services[1]})
	require.NoError(t, err, "what was kept stays")
	assert.Equal(t, kept, again)
	require.ErrorIs(t, StartService(soon(t), c, svc, ServiceOptions{Restart: []string{"k2"}}), ErrNoRestart)
	require.NoError(t, StartService(soon(t), c, svc, ServiceOptions{Restart: []string{"k2", "k1"}}))
	require.NoError(t, WaitHealthy(soon(t), c, dialTo(s), "172.31.0.90", svc, poll, 1))
	require.NoError(t, StartService(soon(t), c, svc, ServiceOptions{Restart: []string{"k1"}}))
	id = one()
	assert.Equal(t, args, get(id, "cmdline"))
	assert.Equal(t, env, get(id, "environ"))
	assert.Contains(t, env, "hunter2")
	require.NoError(t, RemoveRestart(soon(t), c, "k1"))
	keys, err = ListRestart(soon(t), c)
	require.NoError(t, err)
	assert.Empty(t, keys)
}
