package hostos

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/upgradectl/upgradectl/hostinv"
)

func TestFindUnowned(t *testing.T) {
	inv := &hostinv.Inventory{
		Processes: []hostinv.Process{
			{PID: 1, Program: "systemd", Exe: "/usr/lib/systemd/systemd", Cwd: "/"},
			{PID: 10, PPID: 1, Program: "sshd", Exe: "/usr/sbin/sshd", Unit: "sshd.service", Cwd: "/"},
			{PID: 20, PPID: 1, Program: "java", Name: "java", Exe: "/usr/bin/java", Cwd: "/srv/order", User: "app"},
			{PID: 21, PPID: 1, Program: "java", Name: "java", Exe: "/usr/bin/java", Cwd: "/srv/pay", User: "app"},
			{PID: 22, PPID: 10, Program: "java", Name: "java", Exe: "/usr/bin/java", Cwd: "/srv/batch", User: "app", Unit: "sshd.service"},
			{PID: 23, PPID: 1, Program: "java", Name: "java", Exe: "/usr/bin/java", Cwd: "/srv/unit", User: "app", Unit: "app.service"},
			{PID: 30, PPID: 1, Program: "python3 supervisord", Exe: "/usr/bin/python3", Cwd: "/"},
			{PID: 31, PPID: 30, Program: "worker", Exe: "/srv/worker/worker", Cwd: "/srv/worker", User: "app"},
			{PID: 40, PPID: 1, Program: "node gate.js", Name: "node", Exe: "/usr/bin/node", Cwd: "/srv/gate", User: "app"},
			{PID: 41, PPID: 1, Program: "tick", Name: "tick", Exe: "/opt/tick/tick", Cwd: "/opt/tick", User: "root"},
			{PID: 50, PPID: 1, Program: "redis-server", Exe: "/usr/bin/redis-server", Cwd: "/data", Container: "0123"},
			{PID: 51, PPID: 52, Program: "docker-proxy", Exe: "/usr/bin/docker-proxy", Cwd: "/"},
			{PID: 52, PPID: 1, Program: "dockerd", Exe: "/usr/bin/dockerd", Cwd: "/", Unit: "docker.service"},
			{PID: 60, PPID: 1, Program: "sleep", Exe: "/bin/sleep", Cwd: "/", User: "root"},
		},
		Java: []hostinv.Java{
			{PID: 20, Cwd: "/srv/order", Args: []string{"java", "-jar", "order.jar"}, Jar: "order.jar"},
			{PID: 21, Cwd: "/srv/pay", Args: []string{"java", "-jar", "pay.jar", "a b"}, Jar: "pay.jar"},
			{PID: 22, Cwd: "/srv/batch", Args: []string{"java", "-Dkey=[hidden]", "shop.Batch"}, MainClass: "shop.Batch"},
			{PID: 23, Cwd: "/srv/unit", Unit: "app.service", Args: []string{"java", "-jar", "unit.jar"}, Jar: "unit.jar"},
		},
		Listeners: []hostinv.Listener{
			{Proto: "tcp", Addr: "0.0.0.0", Port: 22, PID: 10}, {Proto: "tcp", Addr: "::", Port: 8080, PID: 20},
			{Proto: "tcp", Addr: "0.0.0.0", Port: 8083, PID: 21}, {Proto: "tcp", Addr: "0.0.0.0", Port: 8084, PID: 21}, {Proto: "tcp", Addr: "0.0.0.0", Port: 45678, PID: 21, Ephemeral: true},
			{Proto: "tcp", Addr: "0.0.0.0", Port: 9001, PID: 31}, {Proto: "tcp", Addr: "0.0.0.0", Port: 9100, PID: 40},
			{Proto: "udp", Addr: "127.0.0.1", Port: 9200, PID: 41}, {Proto: "tcp", Addr: "0.0.0.0", Port: 8082, PID: 51}, {Proto: "tcp", Addr: "0.0.0.0", Port: 6379, PID: 50},
		},
		Cron: []hostinv.Line{{Source: "/etc/crontab", Text: "* * * * * root pgrep tick || /opt/tick/tick"}},
	}
	services := []Service{{Name: "order", Kind: Java, Dir: "/srv/order"}}
	var got []string
	for _, u := range FindUnowned(inv, services) {
		got = append(got, u.Kind+": "+u.Evidence+" → "+u.Remedy)
	}
	const nobody = ", and no service, unit, container or supervisord starts it again"
	assert.Equal(t, []string{
		"listener: process 41: tick of root in /opt/tick listens on 9200 for the host itself" + nobody + "; /etc/crontab: * * * * * root pgrep tick || /opt/tick/tick may → see that it does, or add a service {kind: process, dir: /opt/tick, program: tick}",
		"process: process 22: java shop.Batch of app in /srv/batch (java -Dkey=[hidden] shop.Batch)" + nobody + " → add a service {kind: java, dir: /srv/batch, user: app}, or stop it if nobody needs it",
		"listener: process 40: node gate.js of app in /srv/gate listens on 9100" + nobody + " → add a service {kind: process, dir: /srv/gate, program: node, user: app, ports: [9100]}, or stop it if nobody needs it",
		"listener: process 21: java pay.jar of app in /srv/pay listens on 8083, 8084 (java -jar pay.jar a b)" + nobody + " → add a service {kind: java, dir: /srv/pay, user: app, ports: [8083, 8084], start: \"java -jar pay.jar 'a b'\"}, or stop it if nobody needs it",
	}, got)
	services = append(services, Service{Name: "pay", Kind: Java, Dir: "/srv/pay", Match: "pay.jar"}, Service{Name: "other", Kind: Java, Dir: "/srv/batch", Match: "shop.Other"},
		Service{Name: "gate", Kind: Process, Dir: "/srv/gate", Program: "node"})
	left := FindUnowned(inv, services)
	assert.Len(t, left, 2)

	// The other way round: which processes a service has.
	assert.Equal(t, []int{21}, FindProcesses(inv, services[1]))
	assert.Empty(t, FindProcesses(inv, services[2]), "another main class")
	assert.Equal(t, []int{40}, FindProcesses(inv, services[3]))
	assert.Empty(t, FindProcesses(inv, Service{Name: "redis", Kind: Process, Dir: "/data", Program: "redis-server"}), "in a container")
	assert.Empty(t, FindProcesses(inv, Service{Name: "unit", Kind: Unit, Unit: "app"}))

	// Without the section of processes, what is known of Java is enough.
	inv.Processes = nil
	assert.Len(t, FindUnowned(inv, services), 1)
	assert.Equal(t, []int{21}, FindProcesses(inv, services[1]))
}
