package hostos

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRebootProof(t *testing.T) {
	s := simulate(t, nil)
	c := s.dial()
	before, err := GetBoot(soon(t), c)
	require.NoError(t, err)
	assert.Equal(t, Boot{ID: s.BootID(), Kernel: oldKernel, Release: "CentOS Linux release 7.5.1804 (Core)"}, before)

	require.NoError(t, StartJob(soon(t), c, "k", "yum -y update\n"))
	_, err = WaitJob(soon(t), c, "k", poll, nil)
	require.NoError(t, err)
	if err := StartReboot(soon(t), c, before.ID); err != nil {
		_, ran := exitStatus(err)
		require.False(t, ran, "%v: only the answer may be lost, the host is going down", err)
	}
	var after Boot
	require.Eventually(t, func() bool {
		// Only a changed ID counts: an answer alone may be the old boot's.
		c, err := s.tryDial()
		if err != nil {
			return false
		}
		after, err = GetBoot(t.Context(), c)
		return err == nil && after.ID != before.ID
	}, 20*time.Second, poll)
	assert.Equal(t, newKernel, after.Kernel)
	assert.Equal(t, "CentOS Linux release 7.9.2009 (Core)", after.Release)

	// The same request again leaves the new boot alone.
	c = s.dial()
	require.NoError(t, StartReboot(soon(t), c, before.ID))
	out, err := output(soon(t), c, "sleep 3; cat /proc/sys/kernel/random/boot_id", nil)
	require.NoError(t, err)
	assert.Equal(t, after.ID, strings.TrimSpace(out))

	// The transaction's status has outlived the reboot.
	st, err := GetJob(soon(t), c, "k")
	require.NoError(t, err)
	assert.Equal(t, JobState{Phase: JobExited}, st)
}

func TestBootIDs(t *testing.T) {
	f := &fake{run: func(string, io.Writer) error { return nil }}
	for _, id := range []string{"", "x", strings.Repeat("a", 35), strings.Repeat("a", 37), "'; reboot; echo 'aaaaaaaaaaaaaaaaaaa", strings.Repeat("\n", 36)} {
		assert.ErrorContains(t, StartReboot(t.Context(), f, id), "no boot ID", id)
	}
	assert.Empty(t, f.cmds, "nothing reached the host")
	for _, answer := range []string{"", "x\n", strings.Repeat("a", 36), "cat: no such file\nx\n"} {
		f.run = func(_ string, w io.Writer) error { _, err := io.WriteString(w, answer); return err }
		_, err := GetBoot(t.Context(), f)
		assert.ErrorContains(t, err, "unexpected answer", answer)
	}
	f.run = func(string, io.Writer) error { return errLost }
	_, err := GetBoot(t.Context(), f)
	assert.ErrorIs(t, err, errLost)
	assert.ErrorIs(t, StartReboot(t.Context(), f, strings.Repeat("a", 36)), errLost)
}

func TestRebootScript(t *testing.T) {
	onShells(t, func(t *testing.T, h local) {
		f := &fake{run: func(string, io.Writer) error { return nil }}
		b, err := GetBoot(soon(t), h)
		require.NoError(t, err)
		require.NoError(t, StartReboot(t.Context(), f, b.ID))
		require.NoError(t, StartReboot(t.Context(), f, strings.Repeat("0", 36)))
		for i, want := range []string{"/bin/sh -c sleep 1; exec shutdown -r now\n", ""} {
			// setsid says what it would run.
			var out bytes.Buffer
			cmd := strings.Replace(f.cmds[i], ">/dev/null 2>&1", "", 1)
			require.NoError(t, h.Run(context.Background(), "setsid() { echo \"$@\"; }\n"+cmd+"wait", nil, &out, io.Discard))
			assert.Equal(t, want, out.String())
		}
	})
}
