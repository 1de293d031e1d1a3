package upgrade

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// running90 is what runs on a host, at its old or its new kernel.
func running90(kernel string) *hostinv.Inventory {
	inv := &hostinv.Inventory{
		Hostname: "web-90", Kernel: kernel, BootID: "boot of " + kernel, Sections: map[string]hostinv.Section{},
		OS:         hostinv.OS{ID: "centos", Version: "7", Release: "CentOS Linux release 7.9.2009 (Core)"},
		Containers: []hostinv.Container{{ID: "1", Name: "cache", Image: "redis:6", State: "running", RestartPolicy: "always", PID: 50, Ports: []hostinv.Port{{Proto: "tcp", ContainerPort: 6379, HostPort: 8082}}}},
		Listeners:  []hostinv.Listener{{Proto: "tcp", Addr: "0.0.0.0", Port: 9100, PID: 30, Process: "gate"}},
		Java: []hostinv.Java{
			{PID: 10, Cwd: "/srv/order", User: "app", Args: []string{"java", "-jar", "order.jar"}, Jar: "order.jar"},
			{PID: 11, Cwd: "/srv/order", User: "app", Args: []string{"java", "-jar", "order.jar"}, Jar: "order.jar"},
		},
		Cron:       []hostinv.Line{{Source: "/var/spool/cron/app", Text: "* * * * * /srv/tick"}},
		Supervisor: []hostinv.Program{{Name: "worker", State: "RUNNING"}},
		Units: []hostinv.Unit{
			{Name: "gate.service", Load: "loaded", Active: "active", Sub: "running", Enabled: "enabled"},
			{Name: "tidy.timer", Load: "loaded", Active: "active", Sub: "waiting", Enabled: "enabled"},
		},
	}
	for _, name := range hostinv.SectionNames() {
		inv.Sections[name] = hostinv.Section{Status: hostinv.StatusOK}
	}
	return inv
}

// TestPlantedLosses takes one thing of each kind away from what runs after an
// upgrade: each is a loss, and is named; what was meant to change is none.
func TestPlantedLosses(t *testing.T) {
	const was, is = "3.10.0-862.9.1.el7.x86_64", "3.10.0-1160.6.1.el7.x86_64"
	tr := &transition{cfg: &Config{OS: OSConfig{Reboot: true, Docker: DockerUpgrade}}, p: &Plan{Host: "web-90", Facts: Facts{HasDocker: true}}}
	losses := func(spoil func(*hostinv.Inventory)) []string {
		before, after := running90(was), running90(is)
		spoil(after)
		return lossTexts(hostinv.Diff(before, after, tr.meant(before, after, hostos.Boot{Kernel: is})).Losses())
	}
	assert.Empty(t, losses(func(*hostinv.Inventory) {}))
	for what, c := range map[string]struct {
		spoil func(*hostinv.Inventory)
		names string
	}{
		"container":       {func(i *hostinv.Inventory) { i.Containers = nil }, "containers cache"},
		"stopped":         {func(i *hostinv.Inventory) { i.Containers[0].State = "exited" }, "containers cache"},
		"port":            {func(i *hostinv.Inventory) { i.Listeners = nil }, "listeners tcp *:9100"},
		"one java of two": {func(i *hostinv.Inventory) { i.Java = i.Java[:1] }, "java /srv/order order.jar"},
		"cron line":       {func(i *hostinv.Inventory) { i.Cron = nil }, "cron /var/spool/cron/app: * * * * * /srv/tick"},
		"supervisor":      {func(i *hostinv.Inventory) { i.Supervisor[0].State = "FATAL" }, "supervisor worker"},
		"no supervisor":   {func(i *hostinv.Inventory) { i.Supervisor = nil }, "supervisor worker"},
		"unit disabled":   {func(i *hostinv.Inventory) { i.Units[0].Enabled = "disabled" }, "units gate.service"},
		"unit dead":       {func(i *hostinv.Inventory) { i.Units[0].Active, i.Units[0].Sub = "failed", "failed" }, "units gate.service"},
		"timer disabled":  {func(i *hostinv.Inventory) { i.Units[1].Enabled = "disabled" }, "timers tidy.timer"},
		"timer gone":      {func(i *hostinv.Inventory) { i.Units = i.Units[:1] }, "timers tidy.timer"},
		"another kernel":  {func(i *hostinv.Inventory) { i.Kernel = "4.19.0" }, "kernel"},
		"section unknown": {func(i *hostinv.Inventory) {
			i.Sections[hostinv.SectionJava] = hostinv.Section{Status: hostinv.StatusTimeout}
			i.Java = nil
		}, "java"},
		"restart policy":   {func(i *hostinv.Inventory) { i.Containers[0].RestartPolicy = "no" }, "containers cache"},
		"listens locally":  {func(i *hostinv.Inventory) { i.Listeners[0].Addr = "127.0.0.1" }, "listeners tcp *:9100"},
		"job in directory": {func(i *hostinv.Inventory) { i.Java[1].Cwd = "/srv/other" }, "java /srv/order order.jar"},
	} {
		got := losses(c.spoil)
		assert.True(t, slices.ContainsFunc(got, func(l string) bool { return strings.HasPrefix(l, c.names) }), "%s: %v", what, got)
	}
}
