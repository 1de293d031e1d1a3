package upgrade_test

import (
	"context"
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/ecs"
	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/internal/sim/cloud"
	"github.com/upgradectl/upgradectl/internal/sim/host"
	"github.com/upgradectl/upgradectl/upgrade"
	"github.com/upgradectl/upgradectl/upgrade/engine"
)

// dangerous plants on production what must run once only: jobs of cron, a
// consumer of messages, a timer, a unit that a service of the plan is, and an
// address and a host name for itself.
func dangerous(w *sim.World) {
	w.Cloud().AddSecurityGroup(cloud.SecurityGroup{ID: "sg-alone", VPC: "vpc-sim"})
	h := w.Host("172.31.0.90")
	write := func(name, text string) { _ = h.WriteFile(name, []byte(text), 0o644) }
	write("/etc/cron.d/settle", "# pays out\nMAILTO=\"\"\n* * * * * root echo settled >> /var/log/settled\n")
	write("/var/spool/cron/app", "*/2 * * * * echo mailed >> /tmp/mailed\n")
	write("/usr/local/bin/consume", "#!/bin/sh\nwhile :; do echo taken >> /var/log/taken; sleep 60; done\n")
	write("/etc/systemd/system/orders-consumer.service", "[Unit]\nDescription=takes orders\n[Service]\nType=simple\nExecStart=/bin/sh /usr/local/bin/consume\n")
	write("/etc/systemd/system/report.service", "[Unit]\nDescription=report\n[Service]\nType=forking\nExecStart=/bin/sh -c 'echo reported >> /var/log/reported'\n")
	write("/etc/systemd/system/report.timer", "[Unit]\nDescription=report\n[Timer]\nOnUnitActiveSec=5min\n")
	write("/etc/sysconfig/network-scripts/ifcfg-eth0", "DEVICE=eth0\nBOOTPROTO=static\nIPADDR=172.31.0.90\nPREFIX=24\n")
	for _, u := range []string{"orders-consumer.service", "report.timer"} {
		_, _, _ = h.Run(context.Background(), "systemctl enable "+u)
		_ = h.StartUnit(u) // the test fails when they do not run
	}
}

// twice counts what a host did a second time, by its own words: files are
// copied with the disk, so what was in them when the clone booted is taken off.
type twice struct{ cron, taken, reported int }

func didTwice(t *testing.T, clone *host.Host) (n twice) {
	t.Helper()
	name, err := clone.ReadFile("/etc/hostname")
	require.NoError(t, err)
	log, _ := clone.ReadFile("/var/log/cron")
	n.cron = strings.Count(string(log), strings.TrimSpace(string(name))+" CROND[")
	count := func(file, word string) int {
		b, _ := clone.ReadFile(file)
		return strings.Count(string(b), word)
	}
	n.taken, n.reported = count("/var/log/taken", "taken"), count("/var/log/reported", "reported")
	return n
}

// The danger is real: a clone that nothing is held back on runs production's
// jobs, consumers and timers a second time, in every minute it lives.
func TestQuarantineDanger(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStageIn(t, sim.Config{}, dangerous, func(y string) string {
			return strings.Replace(y, "  auto_release: 24h\n", "  auto_release: 24h\n  quarantine: {allow: ['*']}\n", 1) + "accept: [net-static]\n"
		})
		r := s.apply(upgrade.RunOptions{ApproveAll: true, Until: "3.8"})
		require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
		h := s.world.Host(s.world.Cloud().InstanceIP(s.clone()))
		n := didTwice(t, h)
		assert.Positive(t, n.cron)
		assert.Greater(t, n.taken, 1)
		r = s.rollback()
		require.Equal(t, "rolled-back", r.State, "%s: %s", r.Step, r.Reason)
		s.end("rolled-back")
	})
}

// What must run once only does not run on the transition host; until traffic
// comes it stands alone; what its services need is let go; production goes on
// with all of it.
func TestQuarantine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStageIn(t, sim.Config{}, dangerous, func(y string) string {
			return strings.Replace(y, "  auto_release: 24h\n", "  auto_release: 24h\n  quarantine: {hold: [never-there], security_group: sg-alone}\n", 1) + "accept: [net-static]\n"
		})
		p, err := upgrade.ParsePlan(s.plan)
		require.NoError(t, err)
		text := p.Text()
		for _, line := range []string{
			"held back: crond.service: cron: 2 jobs of the site's own would run twice",
			"held back: orders-consumer.service: a consumer: it would take messages from the other",
			"held back: report.timer: a timer: what it starts would run twice",
			"held back: never-there.service: named in transition.quarantine.hold",
			"held back until 3.4-release: docker.service: it starts cache, shop_web_1; needed by ",
			"files that set one of 172.31.0.90, ",
			"it gets a machine ID of its own",
			"docker.service, and start it",
		} {
			assert.Contains(t, text, line)
		}
		r := s.apply(upgrade.RunOptions{ApproveAll: true, Until: "3.8"})
		require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
		id := s.clone()
		h := s.world.Host(s.world.Cloud().InstanceIP(id))
		_, out, err := h.Run(t.Context(), "for u in crond orders-consumer report.timer docker; do systemctl is-active $u; done; cat /etc/sysconfig/network-scripts/ifcfg-eth0")
		require.NoError(t, err)
		assert.Equal(t, "inactive\ninactive\ninactive\nactive\nDEVICE=eth0\nBOOTPROTO=dhcp\n", string(out))
		ours, err := h.ReadFile("/etc/machine-id")
		require.NoError(t, err)
		theirs, err := s.world.Host("172.31.0.90").ReadFile("/etc/machine-id")
		require.NoError(t, err)
		assert.NotEqual(t, string(theirs), string(ours))
		assert.Regexp(t, regexp.MustCompile(`^[0-9a-f]{32}\n$`), string(ours))

		// Before cloud-init came the consumer took one message: that is what the
		// security group is for. After that nothing, over boots and hours.
		before, err := s.world.Host("172.31.0.90").ReadFile("/var/log/cron")
		require.NoError(t, err)
		assert.Contains(t, string(before), " web-90 CROND[")
		n := didTwice(t, h)
		assert.Zero(t, n.cron, "no job of cron runs a second time")

		api, err := ecs.New(ecs.Config{Region: s.op.Region, AccessKeyID: s.op.AccessKeyID, AccessKeySecret: s.op.AccessKeySecret}, ecs.WithTransport(s.world.Cloud().Transport()))
		require.NoError(t, err)
		groups := func() []string {
			in, err := api.GetInstance(t.Context(), id)
			require.NoError(t, err)
			return in.SecurityGroups
		}
		assert.Equal(t, []string{"sg-alone"}, groups())
		r = s.resume(upgrade.RunOptions{ApproveAll: true, Until: "3.10"})
		require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
		assert.Equal(t, []string{"sg-web"}, groups())
		assert.Equal(t, n, didTwice(t, h), "nothing runs a second time, however long the transition host lives")
		r = s.resume(unattended)
		require.Equal(t, "succeeded", r.State, "%s: %s", r.Step, r.Reason)
		s.end("succeeded")
		for _, u := range []string{"crond", "orders-consumer", "report.timer"} {
			assert.True(t, s.world.Host("172.31.0.90").UnitActive(u), "%s on production", u)
		}
	})
}

// A clone whose user data did not run, or that has production's name, is found
// out before anything is done on it, and rolling back leaves nothing.
func TestQuarantineNotHeld(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil func(h *host.Host)
		want  string
	}{
		"cloud-init off": {func(h *host.Host) {
			_, _, _ = h.Run(context.Background(), "rm -r /etc/systemd/system/*.service.d; systemctl daemon-reload; systemctl start crond; systemctl start docker")
		}, "crond.service active free"},
		"one unit started": {func(h *host.Host) {
			_, _, _ = h.Run(context.Background(), "mkdir -p /etc/upgradectl; echo > /etc/upgradectl/quarantine-lifted; systemctl start orders-consumer")
		}, "orders-consumer.service active held"},
		"machine ID": {func(h *host.Host) {}, "its machine ID is production's"},
		"java by hand": {func(h *host.Host) {
			_, _ = h.Spawn(host.Process{Args: []string{"java", "-jar", "xxl-executor.jar"}, Cwd: "/opt/xxl"})
		}, "xxl-executor.jar) runs in /opt/xxl, and nobody has started it"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newStageIn(t, sim.Config{}, dangerous, func(y string) string {
					return strings.Replace(y, "  timeout: ", "  timeout: 5s # ", 1) + "accept: [net-static]\n"
				})
				spoil := unattended
				spoil.Observer = func(e upgrade.Event) {
					if e.Kind != "done" || e.Step != "3.4-addresses" {
						return
					}
					h := s.world.Host(s.world.Cloud().InstanceIP(s.clone()))
					if name == "machine ID" {
						id, err := s.world.Host("172.31.0.90").ReadFile("/etc/machine-id")
						assert.NoError(t, err)
						assert.NoError(t, h.WriteFile("/etc/machine-id", id, 0o644))
					}
					c.spoil(h)
				}
				r := s.apply(spoil)
				require.Equal(t, "failed", r.State)
				assert.Equal(t, "3.4-quarantine", r.Step)
				assert.Contains(t, r.Reason, c.want)
				r = s.rollback()
				require.Equal(t, "rolled-back", r.State, "%s: %s", r.Step, r.Reason)
				s.end("rolled-back")
			})
		})
	}
}

// What an inventory shows of production on the transition host is named.
func TestQuarantineRuns(t *testing.T) {
	before := unitsOf("sshd.service", "crond.service")
	before.Hostname, before.MachineID = "web-90", strings.Repeat("a", 32)
	before.Interfaces = []hostinv.Interface{{Name: "eth0", Addresses: []string{"172.31.0.90/24"}}}
	cfg := &upgrade.Config{}
	p := upgrade.PlanQuarantine(before, cfg)
	clean := unitsOf("sshd.service", "crond.service disabled")
	clean.Hostname, clean.MachineID = "web-90-transition", strings.Repeat("b", 32)
	clean.Interfaces = []hostinv.Interface{{Name: "eth0", Addresses: []string{"172.31.0.101/24"}}, {Name: "docker0", Addresses: []string{"172.17.0.1/16"}}}
	assert.Empty(t, upgrade.QuarantineRuns(clean, before, p, cfg))
	for want, spoil := range map[string]func(i *hostinv.Inventory){
		"its host name is production's, web-90": func(i *hostinv.Inventory) { i.Hostname = "web-90" },
		"its machine ID is production's":        func(i *hostinv.Inventory) { i.MachineID = before.MachineID },
		"eth1 has the address 172.31.0.90, which is production's": func(i *hostinv.Inventory) {
			i.Interfaces = append(slices.Clone(i.Interfaces), hostinv.Interface{Name: "eth1", Addresses: []string{"172.31.0.90/24"}})
		},
		"unit backup.timer is active: a timer": func(i *hostinv.Inventory) {
			i.Units = append(slices.Clone(i.Units), hostinv.Unit{Name: "backup.timer", Active: "active", Enabled: "enabled"})
		},
		"process 7 (crond) of unit crond.service runs": func(i *hostinv.Inventory) {
			i.Processes = []hostinv.Process{{PID: 7, Program: "crond", Unit: "crond.service"}}
		},
		"process 9 (java, job.jar) runs in /opt/job": func(i *hostinv.Inventory) {
			i.Java = []hostinv.Java{{PID: 9, Jar: "job.jar", Cwd: "/opt/job"}}
		},
	} {
		now := *clean
		spoil(&now)
		bad := upgrade.QuarantineRuns(&now, before, p, cfg)
		require.Len(t, bad, 1, want)
		assert.Contains(t, bad[0], want)
	}
	cfg.Transition.Quarantine.Allow = []string{"hostname", "machine-id"}
	same := *clean
	same.Hostname, same.MachineID = before.Hostname, before.MachineID
	assert.Empty(t, upgrade.QuarantineRuns(&same, before, p, cfg))
}

// unitsOf makes an inventory of systemd units, "NAME" or "NAME disabled".
func unitsOf(names ...string) *hostinv.Inventory {
	inv := &hostinv.Inventory{Sections: map[string]hostinv.Section{hostinv.SectionUnits: {Status: hostinv.StatusOK}}}
	for _, n := range names {
		name, off, _ := strings.Cut(n, " ")
		u := hostinv.Unit{Name: name, Load: "loaded", Active: "active", Sub: "running", Enabled: "enabled"}
		if off != "" {
			u.Active, u.Sub, u.Enabled = "inactive", "dead", off
		}
		inv.Units = append(inv.Units, u)
	}
	return inv
}

// What makes a machine of a host is never held back, whatever it carries; what
// acts on others is; what waits to be asked is not.
func TestPlanQuarantine(t *testing.T) {
	machine := []string{
		"sshd.service", "ssh.service", "systemd-logind.service", "systemd-tmpfiles-clean.timer", "network.service", "NetworkManager.service", "networking.service",
		"cloud-init.service", "cloud-init-local.service", "cloud-config.service", "cloud-final.service", "aliyun.service", "rsyslog.service", "auditd.service",
		"chronyd.service", "getty@tty1.service", "serial-getty@ttyS0.service", "dbus.service", "polkit.service", "lvm2-monitor.service", "sssd.service", "logrotate.timer", "fstrim.timer",
		"qemu-guest-agent.service", "rpcbind.service", "dbus-broker.service", "firewalld.service", "kdump.service", "irqbalance.service", "user@0.service",
	}
	inv := unitsOf(machine...)
	for i := range inv.Units {
		inv.Units[i].SHA256 = strings.Repeat("0", 64) // overridden by the site
	}
	p := upgrade.PlanQuarantine(inv, &upgrade.Config{})
	assert.Empty(t, p.Units)

	act := []string{
		"anacron.service", "apt-daily-upgrade.timer", "atd.service", "backup.timer", "canal-deployer.service", "cron.service", "crond.service", "dnf-automatic.timer", "filebeat.service", "ilogtaild.service",
		"keepalived.service", "nacos.service", "postfix.service", "rc-local.service", "salt-minion.service", "xxl-job-admin.service", "zabbix-agent.service",
	}
	p = upgrade.PlanQuarantine(unitsOf(append(slices.Clone(act), "nginx.service", "httpd.service", "mysqld.service disabled", "crontab.service masked")...), &upgrade.Config{})
	var held []string
	for _, u := range p.Units {
		held = append(held, u.Unit)
		assert.NotEmpty(t, u.Reason)
		assert.False(t, u.Released)
	}
	assert.Equal(t, act, held)

	// The rest by what it runs.
	inv = unitsOf("web.service", "shop.service", "docker.service", "supervisord.service", "custom.service", "puppet-agent.service")
	inv.Java = []hostinv.Java{{PID: 7, Unit: "shop.service", Jar: "/srv/shop.jar"}}
	inv.Containers = []hostinv.Container{{Name: "db", RestartPolicy: "always", State: "running"}, {Name: "once", RestartPolicy: "no"}, {Name: "old", RestartPolicy: "always", State: "exited"}}
	inv.Supervisor = []hostinv.Program{{Name: "worker"}}
	inv.Units[4].SHA256 = "x"
	inv.Agents = []hostinv.Agent{{Name: "puppet", Evidence: "process puppet", Why: "it has the same certificate"}}
	inv.Processes = []hostinv.Process{{PID: 9, Name: "puppet", Unit: "puppet-agent.service"}}
	inv.Interfaces = []hostinv.Interface{{Name: "lo", Addresses: []string{"127.0.0.1/8"}}, {Name: "eth0", MAC: "00:16:3e:00:00:01", Addresses: []string{"172.31.0.90/24", "fe80::1/64"}}, {Name: "docker0", Addresses: []string{"172.17.0.1/16"}}}
	inv.MachineID = strings.Repeat("a", 32)
	cfg := &upgrade.Config{Services: []upgrade.Service{{Name: "w", Kind: upgrade.KindUnit, Unit: "web"}, {Name: "d", Kind: upgrade.KindContainer, Container: "db"}}}
	p = upgrade.PlanQuarantine(inv, cfg)
	b, err := json.Marshal(p)
	require.NoError(t, err)
	assert.JSONEq(t, `{"units":[
		{"unit":"custom.service","reason":"a unit of the site's own (below /etc/systemd/system), which may consume, schedule or register itself"},
		{"unit":"docker.service","reason":"it starts db, old; needed by d","released":true,"engine":true},
		{"unit":"puppet-agent.service","reason":"puppet: it has the same certificate"},
		{"unit":"shop.service","reason":"it runs shop.jar, which may consume, schedule or register itself"},
		{"unit":"supervisord.service","reason":"it starts worker"},
		{"unit":"web.service","reason":"an application, started with the services; needed by w","released":true}],
		"known":["container old is exited, but its restart policy makes the engine start it"],
		"addresses":["172.31.0.90","00:16:3e:00:00:01"],"machine_id":"`+inv.MachineID+`"}`, string(b))

	// What is known of a packaged program is whom it is connected to.
	peers := unitsOf("orders.service", "prices.service", "web.service")
	peers.Processes = []hostinv.Process{{PID: 1, Name: "orders", Unit: "orders.service"}, {PID: 2, Name: "prices", Unit: "prices.service"}, {PID: 3, Name: "web", Unit: "web.service"}, {PID: 4, Name: "kafkacat", Container: "c0ffee"}}
	peers.Connections = []hostinv.Peer{
		{Direction: "out", Process: "orders", IP: "172.31.3.9", Port: 9876, Count: 2}, {Direction: "out", Process: "prices", IP: "172.31.3.8", Port: 8848},
		{Direction: "out", Process: "web", IP: "172.31.3.7", Port: 3306}, {Direction: "in", Process: "web", LocalPort: 8848, IP: "172.31.0.5"}, {Direction: "out", Process: "kafkacat", IP: "172.31.3.9", Port: 9092},
	}
	p = upgrade.PlanQuarantine(peers, &upgrade.Config{})
	require.Len(t, p.Units, 2)
	assert.Equal(t, upgrade.HeldUnit{Unit: "orders.service", Reason: "it is connected to RocketMQ at 172.31.3.9:9876: it would take messages from the other"}, p.Units[0])
	assert.Equal(t, upgrade.HeldUnit{Unit: "prices.service", Reason: "it is connected to Nacos at 172.31.3.8:8848: it would register itself and get traffic"}, p.Units[1])

	// A person's word.
	cfg.Transition.Quarantine = upgrade.QuarantineConfig{Hold: []string{"sshd-extra.timer"}, Allow: []string{"custom", "shop.service", "machine-id"}}
	p = upgrade.PlanQuarantine(inv, cfg)
	held = nil
	for _, u := range p.Units {
		held = append(held, u.Unit)
	}
	assert.Equal(t, []string{"docker.service", "puppet-agent.service", "sshd-extra.timer", "supervisord.service", "web.service"}, held)
	assert.Len(t, p.Allowed, 2)
	assert.Empty(t, p.MachineID)
	cfg.Transition.Quarantine = upgrade.QuarantineConfig{Allow: []string{"*"}}
	assert.Empty(t, upgrade.PlanQuarantine(inv, cfg).Units)

	// Without systemd it says what runs twice.
	inv.Sections[hostinv.SectionUnits] = hostinv.Section{Status: hostinv.StatusAbsent}
	inv.Units, inv.Cron = nil, []hostinv.Line{{Source: "/etc/crontab", Text: "* * * * * root x"}}
	assert.Contains(t, upgrade.PlanQuarantine(inv, cfg).Known[0], "the host has no systemd, so that nothing can be held back: 1 job of cron and at, 1 program of supervisor, puppet")
}

// The keys by which the transition host is known come through the cloud's own
// channel, not from whoever answers at its address first.
func TestQuarantineHostKeys(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, nil)
		known, err := os.ReadFile(s.op.KnownHosts)
		require.NoError(t, err)
		r := s.apply(upgrade.RunOptions{ApproveAll: true, Until: "3.4"})
		require.Equal(t, "paused", r.State, "%s: %s", r.Step, r.Reason)
		h := s.world.Host(s.world.Cloud().InstanceIP(s.clone()))
		assert.NotContains(t, string(known), h.Addr(), "nobody knew it before")
		assert.NotEqual(t, s.world.Host("172.31.0.90").HostKey(), h.HostKey(), "cloud-init makes new ones")
		run, err := engine.Read(s.run)
		require.NoError(t, err)
		var c struct {
			HostKeys []string `json:"host_keys"`
		}
		require.NoError(t, json.Unmarshal(run.StepByID("3.4-addresses").Result, &c))
		require.NotEmpty(t, c.HostKeys)
		assert.Contains(t, strings.Join(c.HostKeys, "\n"), h.HostKey())
		assert.Positive(t, s.world.Cloud().Counts()["RunCommand"], "read by Cloud Assistant")
	})
}
