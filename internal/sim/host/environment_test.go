package host_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What the system starts has no login's variables (the shell's interpreter wants
// some HOME; it is not root's), and cron's PATH has no sbin.
func TestEnvironmentOfJobs(t *testing.T) {
	h := start(t, spec(""))
	_, out, err := h.Run(t.Context(), `systemd-run --quiet --unit=who /bin/sh -c 'echo "HOME=$HOME $PATH" >/root/unit'
mkdir -p /etc/cron.d
echo '* * * * * root echo "$PATH" >/root/cron' >/etc/cron.d/who`)
	require.NoError(t, err, "%s", out)
	read := func(name string) string {
		var data []byte
		require.Eventually(t, func() bool { data, err = h.ReadFile(name); return err == nil && len(data) > 0 }, 10*time.Second, time.Millisecond, name)
		return string(data)
	}
	assert.Equal(t, "HOME=/ /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n", read("/root/unit"))
	assert.Equal(t, "/usr/bin:/bin\n", read("/root/cron"))
}

// Debian's cron passes over names with a dot; cronie does not.
func TestNamesOfCronFiles(t *testing.T) {
	h := start(t, spec(""))
	for _, name := range []string{"a.b", ".c", "d~", "e-f_1"} {
		require.NoError(t, h.WriteFile("/etc/cron.d/"+name, []byte("* * * * * root "+name+"\n"), 0o644))
	}
	assert.Equal(t, []string{"a.b", "e-f_1"}, h.Jobs())
	require.NoError(t, h.WriteFile("/etc/os-release", []byte("ID=ubuntu\nID_LIKE=debian\n"), 0o644))
	assert.Equal(t, []string{"e-f_1"}, h.Jobs())
}
