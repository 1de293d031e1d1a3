package upgrade_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/upgrade"
)

// newRelease is what the scripted migration of these tests makes of a host.
const newRelease = "Anolis OS release 8.9"

// scripted makes the strategy that of a migration which a script prepares and
// the reboot does, as leapp's and ELevate's.
func scripted(t *testing.T, precheck string) func(string) string {
	dir := t.TempDir()
	for name, text := range map[string]string{"precheck.sh": precheck, "upgrade.sh": "echo prepared\n"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	return func(y string) string {
		was := "  strategy: yum-update\n"
		require.Contains(t, y, was)
		return strings.Replace(y, was, "  strategy: script\n  precheck: "+dir+"/precheck.sh\n  script: "+dir+"/upgrade.sh\n  in_reboot: true\n  blackout: 2h\n  from: CentOS Linux release 7\n  release: "+newRelease+"\n", 1)
	}
}

// inReboot does in a host's reboot what leapp does: for a time the host answers
// with its old release in a new boot, then it has the new one, and boots again.
func (s *stage) inReboot(step string, addr func() string, more string) upgrade.RunOptions {
	return when("intent", step, func() {
		time.AfterFunc(5*time.Minute, func() {
			a := addr()
			h := s.world.Host(a)
			s.say(a, "shutdown -r now")
			time.AfterFunc(2*time.Second, func() { // on its way down, or up
				_ = h.AddPackages("anolis-release-8.9-1.an8.x86_64", more)
				_ = h.WriteFile("/etc/redhat-release", []byte(newRelease+"\n"), 0o644)
			})
		})
	})
}

// The migration of a scripted strategy happens in the reboot, in two boots; only
// the release that is there in the end counts, and both hosts have the same
// packages then.
func TestScenarioScriptInReboot(t *testing.T) {
	edit := scripted(t, "grep -q 'CentOS Linux release 7' /etc/redhat-release\n")
	scenario(t, sim.Config{}, edit, func(t *testing.T, s *stage) {
		first := s.inReboot("3.6-reboot", s.cloneAddr, "bash-5.0-1.an8.x86_64")
		first.Until = "4.4"
		require.Equal(t, "paused", s.apply(first).State)
		assert.Contains(t, s.say(s.cloneAddr(), "cat /etc/redhat-release"), newRelease)
		// On production it brings another package: traffic stays away.
		r := s.resume(s.inReboot("4.5-reboot", func() string { return production }, "bash-5.1-1.an8.x86_64"))
		s.failed(r, "4.5-reboot", "bash")
		s.carried()
		require.NoError(t, s.world.Host(production).AddPackages("bash-5.0-1.an8.x86_64"))
		r = s.resume(quiet)
		require.Equal(t, "succeeded", r.State, "%s: %s", r.Step, r.Reason)
		assert.Zero(t, s.world.Figures().Failed)
		rep, err := upgrade.ReadReport(s.run)
		require.NoError(t, err)
		assert.Equal(t, newRelease, rep.ReleaseAfter)
	})
}

// What os.precheck says against the upgrade stops it before anything is done: on
// the transition host before its transaction, on production before its services
// stop.
func TestScenarioScriptPrecheck(t *testing.T) {
	edit := scripted(t, "if [ -e /root/inhibitor ]; then echo 'inhibitor: a file system of ours'; exit 3; fi\n")
	scenario(t, sim.Config{}, edit, func(t *testing.T, s *stage) {
		s.say(production, "touch /root/inhibitor")
		r := s.apply(quiet)
		s.failed(r, "3.6-os", "inhibitor: a file system of ours")
		assert.Contains(t, r.Reason, "os.precheck")
		s.say(s.cloneAddr(), "rm /root/inhibitor")
		r = s.resume(s.inReboot("3.6-reboot", s.cloneAddr, "bash-5.0-1.an8.x86_64"))
		s.failed(r, "4.3-replay", "inhibitor: a file system of ours")
		s.rolledBack()
	})
}

// cloneAddr is the address of the transition host.
func (s *stage) cloneAddr() string {
	s.t.Helper()
	return s.world.Cloud().InstanceIP(s.clone())
}
