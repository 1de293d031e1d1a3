package upgrade_test

import (
	"os"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/upgrade"
)

// preflightTests are the items of the list in docs/rebuild.md: each breaks one
// thing in the site and puts it back. TestRebuildPreflight looks at what a plan
// says of it.
var preflightTests = []struct {
	item   string
	break_ func(s *rebuildStage)
	mend   func(s *rebuildStage)
	edit   func(yaml string) string // of upgrade.yaml
	want   string
}{
	{item: "rules", break_: editSettings("proxy1", `zone_id="lab1a"`, `zone_id="lab9z"`), mend: editSettings("proxy1", `zone_id="lab9z"`, `zone_id="lab1a"`), want: `"lab9z" is not among the firstbox's zone_ids`},
	{item: "rules", break_: editSettings("proxy1", `mgmt_network_address="192.0.2.62"`, `mgmt_network_address="192.0.2.61"`), mend: editSettings("proxy1", `mgmt_network_address="192.0.2.61"`, `mgmt_network_address="192.0.2.62"`), want: "mgmt_network_address"},
	{item: "temporary address in settings", edit: replaced("192.0.2.71", "192.0.2.65"), want: "192.0.2.65 is in use"},
	{item: "temporary address by ARP", break_: onMachine("192.0.2.65", "ip addr add 192.0.2.71/24 dev eth0"), mend: onMachine("192.0.2.65", "ip addr del 192.0.2.71/24 dev eth0"), want: "temporary address 192.0.2.71 of proxy0 is in use by"},
	{item: "temporary address by ping", break_: onMachine("192.0.2.65", "ip addr add 192.0.2.72/24 dev eth0"), mend: onMachine("192.0.2.65", "ip addr del 192.0.2.72/24 dev eth0"), want: "temporary address 192.0.2.72 of proxy1 answers the firstbox's ping"},
	{item: "bridges", edit: replaced("physical_host: 192.0.2.102", "physical_host: 192.0.2.102, bridge: br7"), want: "host 192.0.2.102: there is no bridge br7"},
	{item: "memory", break_: editSettings("proxy0", `memory_size="8000"`, `memory_size="8000000"`), mend: editSettings("proxy0", `memory_size="8000000"`, `memory_size="8000"`), want: "proxy0 needs 8000000"},
	{item: "base image", break_: moveFile("192.0.2.2", "/pitrix/kernels/ksnode16045a.img", "/root/ksnode16045a.img"), mend: moveFile("192.0.2.2", "/root/ksnode16045a.img", "/pitrix/kernels/ksnode16045a.img"), want: "no base image of release 16.04.5"},
	{item: "repositories", break_: moveFile("192.0.2.2", "/var/www/repo/16.04.5", "/var/www/repo/was"), mend: moveFile("192.0.2.2", "/var/www/repo/was", "/var/www/repo/16.04.5"), want: "no repository /var/www/repo/16.04.5"},
	{item: "repositories", break_: moveFile("192.0.2.2", "/pitrix/repo/16.04.5", "/pitrix/repo/was"), mend: moveFile("192.0.2.2", "/pitrix/repo/was", "/pitrix/repo/16.04.5"), want: "no repository /pitrix/repo/16.04.5"},
	{item: "keepalived can be held down", edit: replaced("16.04.5", "14.04.5"), want: "release 14.04.5 has no systemd"},
	{item: "marker of an earlier launch", break_: onMachine("192.0.2.102", "touch /pitrix/kernels/proxy0.Done"), mend: onMachine("192.0.2.102", "rm -f /pitrix/kernels/proxy0.Done"), want: "host 192.0.2.102: files of a proxy0 are in /pitrix/kernels"},
	{item: "domain of that name", break_: defineTwin, mend: onMachine("192.0.2.102", "virsh undefine proxy0; rm -f /root/x.xml"), want: "host 192.0.2.102: a domain proxy0 exists already"},
	{item: "scripts of the version", break_: moveFile("192.0.2.2", "/pitrix/bin/gen_node_list.py", "/pitrix/bin/gen_node_list.sh"), mend: moveFile("192.0.2.2", "/pitrix/bin/gen_node_list.sh", "/pitrix/bin/gen_node_list.py"), want: "installer 4.3.1 and no /pitrix/bin/gen_node_list.py"},
	{item: "holder of the floating address", break_: onMachine("192.0.2.62", "ip addr add 192.0.2.60/24 dev eth0"), mend: onMachine("192.0.2.62", "ip addr del 192.0.2.60/24 dev eth0"), want: "192.0.2.60 is held by proxy0 and proxy1"},
	{item: "pair", break_: onMachine("192.0.2.62", "supervisorctl stop cb_server"), mend: onMachine("192.0.2.62", "supervisorctl start cb_server"), want: "proxy1 is not well"},
}

func replaced(old, next string) func(string) string {
	return func(y string) string { return strings.Replace(y, old, next, 1) }
}

func onMachine(addr, command string) func(*rebuildStage) {
	return func(s *rebuildStage) { s.on(addr, command) }
}

// defineTwin makes a domain proxy0 on the host that is to get the new one.
func defineTwin(s *rebuildStage) {
	host := s.world.Site().Machine("192.0.2.102").Host
	b, err := host.ReadFile("/pitrix/kernels/proxy1.xml")
	require.NoError(s.t, err)
	require.NoError(s.t, host.WriteFile("/root/x.xml", []byte(strings.ReplaceAll(string(b), "proxy1", "proxy0")), 0o600))
	s.on("192.0.2.102", "virsh define /root/x.xml")
}

func moveFile(addr, from, to string) func(*rebuildStage) {
	return onMachine(addr, "mv "+from+" "+to)
}

func editSettings(node, old, next string) func(*rebuildStage) {
	return func(s *rebuildStage) {
		fb := s.world.Site().Firstbox().Host
		name := "/pitrix/conf/settings/" + node
		b, err := fb.ReadFile(name)
		require.NoError(s.t, err)
		require.Contains(s.t, string(b), old)
		require.NoError(s.t, fb.WriteFile(name, []byte(strings.Replace(string(b), old, next, 1)), 0o644))
	}
}

// Each item of the preflight list is looked at before a plan is made, and the
// plan is refused with words that name the thing.
func TestRebuildPreflight(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newRebuildStage(t, sim.RebuildConfig{Rate: 5}, nil, nil)
		yaml, err := os.ReadFile(s.op.Config)
		require.NoError(t, err)
		for _, tt := range preflightTests {
			if tt.break_ != nil {
				tt.break_(s)
			}
			if tt.edit != nil {
				edited := tt.edit(string(yaml))
				require.NotEqual(t, string(yaml), edited, tt.item)
				require.NoError(t, os.WriteFile(s.op.Config, []byte(edited), 0o600))
			}
			_, err := s.makePlan()
			if assert.Error(t, err, "%s: %s", tt.item, tt.want) {
				assert.Contains(t, err.Error(), tt.want, tt.item)
			}
			if tt.mend != nil {
				tt.mend(s)
			}
			require.NoError(t, os.WriteFile(s.op.Config, yaml, 0o600))
		}
		_, err = s.makePlan()
		require.NoError(t, err, "everything was put back")
	})
}

// What was there when the plan was made and is gone by the time the run begins
// stops it before anything is changed.
func TestRebuildPreflightAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newRebuildStage(t, sim.RebuildConfig{Rate: 5}, nil, nil)
		s.on("192.0.2.2", "mv /pitrix/repo/16.04.5 /pitrix/repo/was")
		r := s.apply(quiet)
		require.Equal(t, "failed", r.State)
		assert.Equal(t, "1.3-hosts", r.Step)
		assert.Equal(t, upgrade.ExitDrift, r.ExitStatus())
		assert.Contains(t, r.Reason, "/pitrix/repo/16.04.5")
		s.on("192.0.2.2", "mv /pitrix/repo/was /pitrix/repo/16.04.5")
	})
}
