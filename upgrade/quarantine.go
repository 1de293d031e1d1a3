package upgrade

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/upgradectl/upgradectl/ecs"
	"github.com/upgradectl/upgradectl/hostinv"
)

// QuarantineConfig says what of production a new transition host must not run
// a second time. The zero value leaves it to PlanQuarantine.
type QuarantineConfig struct {
	Hold  []string `json:"hold,omitempty"`  // systemd units besides those that are found
	Allow []string `json:"allow,omitempty"` // units that may run on both; "machine-id" and "hostname" may be equal; "*": all of it
	// SecurityGroup is the one security group of a new transition host until
	// traffic is about to reach it; empty: production's from the beginning.
	SecurityGroup string `json:"security_group,omitempty"`
}

// allows tells whether a unit, or "machine-id" or "hostname", may be there twice.
func (c QuarantineConfig) allows(name string) bool {
	return slices.ContainsFunc(c.Allow, func(a string) bool {
		return a == "*" || a == name || a+".service" == name
	})
}

// groups are the security groups of the first boot; nil: production's.
func (c QuarantineConfig) groups() []string {
	if c.SecurityGroup == "" {
		return nil
	}
	return []string{c.SecurityGroup}
}

// A HeldUnit is a systemd unit that is held back on a new transition host.
type HeldUnit struct {
	Unit   string `json:"unit"`
	Reason string `json:"reason"`
	// Released says that services of the plan need the unit: step 3.4-release
	// lets it go. The others never start on the transition host.
	Released bool `json:"released,omitempty"`
	// Engine says that it runs what the services are, and so starts with its
	// release.
	Engine bool `json:"engine,omitempty"`
}

// A QuarantinePlan says what is held back on a new transition host, and why.
type QuarantinePlan struct {
	Units   []HeldUnit `json:"units"`             // sorted by name
	Allowed []HeldUnit `json:"allowed,omitempty"` // would be held back, but QuarantineConfig.Allow names them
	// Known is what runs twice all the same, or cannot be held back, for a
	// person to judge.
	Known     []string `json:"known,omitempty"`
	Addresses []string `json:"addresses"`            // IPv4 and MAC addresses of production that its files must not set
	MachineID string   `json:"machine_id,omitempty"` // of production; empty: it may be the same
}

// PlanQuarantine derives from production's inventory what the first boot of a
// copy must not run a second time: cron and at, timers, container engines and
// process supervisors for what they start, agents that have an identity,
// message consumers and registries, units of the site's own, and what
// configures a literal address. It is pure.
//
// The rules are those of a clone that boots with everything enabled: what
// starts by itself and acts on others is held back, what waits to be asked is
// not.
func PlanQuarantine(inv *hostinv.Inventory, cfg *Config) QuarantinePlan {
	q := cfg.Transition.Quarantine
	p := QuarantinePlan{Units: []HeldUnit{}, Addresses: []string{}}
	p.addresses(inv)
	if !q.allows("machine-id") {
		p.MachineID = inv.MachineID
	}
	need := neededUnits(cfg)
	byUnit := why(inv)
	for _, name := range q.Hold {
		full := fullUnit(name)
		if !slices.ContainsFunc(inv.Units, func(u hostinv.Unit) bool { return u.Name == full }) {
			p.add(q, HeldUnit{Unit: full, Reason: "named in transition.quarantine.hold"})
		}
	}
	for _, u := range inv.Units {
		held := slices.ContainsFunc(q.Hold, func(n string) bool { return fullUnit(n) == u.Name })
		reason := "named in transition.quarantine.hold"
		if !held {
			if !startsItself(u) || machineUnits.MatchString(u.Name) {
				continue
			}
			reason = unitReason(u, inv, byUnit, need)
		}
		switch {
		case reason != "":
			service, needed := need[u.Name]
			if needed && !held {
				reason += "; needed by " + service
			}
			p.add(q, HeldUnit{Unit: u.Name, Reason: reason, Released: needed && !held, Engine: needed && !held && engineUnits.MatchString(u.Name)})
		case u.Active == "active" && u.Sub == "running" && len(byUnit[u.Name].ports) > 0:
			p.Known = append(p.Known, fmt.Sprintf("%s runs on it as well, and listens on %s", u.Name, strings.Join(byUnit[u.Name].ports, ", ")))
		}
	}
	slices.SortFunc(p.Units, func(a, b HeldUnit) int { return strings.Compare(a.Unit, b.Unit) })
	p.loose(inv, q)
	return p
}

func (p *QuarantinePlan) add(q QuarantineConfig, h HeldUnit) {
	if q.allows(h.Unit) {
		p.Allowed = append(p.Allowed, h)
		return
	}
	p.Units = append(p.Units, h)
}

// addresses are those that only one host of the network can have.
func (p *QuarantinePlan) addresses(inv *hostinv.Inventory) {
	for _, i := range inv.Interfaces {
		if ownNetwork.MatchString(i.Name) {
			continue
		}
		for _, a := range i.Addresses {
			if pre, err := netip.ParsePrefix(a); err == nil && pre.Addr().Is4() && !pre.Addr().IsLoopback() && !slices.Contains(p.Addresses, pre.Addr().String()) {
				p.Addresses = append(p.Addresses, pre.Addr().String())
			}
		}
		if mac, err := net.ParseMAC(i.MAC); err == nil && len(mac) == 6 && mac.String() != "00:00:00:00:00:00" && !slices.Contains(p.Addresses, mac.String()) {
			p.Addresses = append(p.Addresses, mac.String())
		}
	}
}

// ownNetwork are interfaces that live inside one host: each has them with the
// same addresses.
var ownNetwork = regexp.MustCompile(`^(lo|docker.*|br-.*|veth.*|virbr.*|cni.*|flannel.*|cali.*|kube-.*|dummy.*)$`)

// loose are dangers that no unit stands for.
func (p *QuarantinePlan) loose(inv *hostinv.Inventory, q QuarantineConfig) {
	if !hasSystemd(inv) {
		var what []string
		if jobs, _ := ListJobs(inv); len(jobs) > 0 {
			what = append(what, count(len(jobs), "job", "jobs")+" of cron and at")
		}
		if n := len(inv.Supervisor); n > 0 {
			what = append(what, count(n, "program", "programs")+" of supervisor")
		}
		for _, a := range inv.Agents {
			what = append(what, a.Name)
		}
		if len(what) > 0 {
			p.Known = append(p.Known, "the host has no systemd, so that nothing can be held back: "+strings.Join(what, ", "))
		}
		return
	}
	for _, a := range inv.Agents {
		name, ok := strings.CutPrefix(a.Evidence, "process ")
		if !ok {
			continue
		}
		for _, proc := range inv.Processes {
			if proc.Container == "" && (proc.Name == name || path.Base(proc.Exe) == name) && proc.Unit == "" {
				p.Known = append(p.Known, fmt.Sprintf("%s (%s) belongs to no unit and cannot be held back by one: %s; see what starts it", a.Name, proc.Program, a.Why))
				break
			}
		}
	}
	for _, c := range inv.Containers {
		if c.RestartPolicy == "always" && c.State != "running" && !q.allows("docker.service") {
			p.Known = append(p.Known, fmt.Sprintf("container %s is %s, but its restart policy makes the engine start it", c.Name, c.State))
		}
	}
}

func hasSystemd(inv *hostinv.Inventory) bool {
	s := inv.Sections[hostinv.SectionUnits].Status
	return s == hostinv.StatusOK || s == hostinv.StatusPartial
}

// startsItself tells whether a boot starts a unit, or something it starts does.
func startsItself(u hostinv.Unit) bool {
	switch u.Enabled {
	case "masked", "masked-runtime":
		return false
	case "enabled", "enabled-runtime", "generated", "linked", "linked-runtime":
		return true
	}
	return u.Active == "active" || u.Active == "activating" || u.Active == "reloading"
}

func fullUnit(name string) string {
	if strings.HasSuffix(name, ".service") || strings.HasSuffix(name, ".timer") || strings.HasSuffix(name, ".socket") || strings.HasSuffix(name, ".path") || strings.HasSuffix(name, ".target") || strings.HasSuffix(name, ".mount") {
		return name
	}
	return name + ".service"
}

// neededUnits are the units that services of the configuration are or need, by
// name, with the name of a service.
func neededUnits(cfg *Config) map[string]string {
	need := map[string]string{}
	for _, s := range cfg.Services {
		switch s.Kind {
		case KindUnit:
			need[fullUnit(s.Unit)] = s.Name
		case "supervisor":
			need["supervisord.service"], need["supervisor.service"] = s.Name, s.Name
		case KindCompose, KindContainer:
			for _, u := range dockerUnits {
				if full := fullUnit(u); need[full] == "" {
					need[full] = s.Name
				}
			}
		}
	}
	return need
}

// Units that make a machine out of a host: without them nobody gets in, or
// nothing of it is where it belongs.
var machineUnits = regexp.MustCompile(`^(` + strings.Join([]string{
	`sshd?(-keygen)?(@.*)?`, `systemd-.*`, `dbus.*`, `network`, `networking`, `NetworkManager.*`, `wicked.*`, `dhcpcd.*`, `wpa_supplicant`, `ifup@.*`, `netplan-.*`,
	`cloud-.*`, `aliyun(-.*)?`, `AssistDaemon`, `qemu-guest-agent`, `.*getty.*`, `rsyslog`, `syslog.*`, `auditd`, `chronyd?(-.*)?`, `ntp(d|date|sec)?`, `polkit`,
	`tuned`, `irqbalance`, `rngd`, `haveged`, `acpid`, `lvm2-.*`, `dm-event`, `mdmonitor`, `mdadm.*`, `multipathd`, `iscsi.*`, `blk-availability`, `udev`, `kmod.*`,
	`plymouth.*`, `firewalld`, `ip6?tables`, `nftables`, `ufw`, `microcode`, `selinux.*`, `apparmor`, `rhel-.*`, `kdump.*`, `dracut.*`, `initrd-.*`, `emergency`, `rescue`,
	`rpc-.*`, `rpcbind`, `nfs-(client|idmapd|config|utils|blkmap)`, `gssproxy`, `autofs`, `console-setup`, `keyboard-setup`, `resolvconf`, `sssd.*`, `nscd`, `nslcd`, `oddjobd`,
	`user@.*`, `user-runtime-dir@.*`, `session-.*`, `import-state`, `loadmodules`, `nis-domainname`, `grub.*`, `e2scrub.*`, `ldconfig`, `quotaon`, `logrotate`, `fstrim`, `man-db`,
}, "|") + `)\.(service|timer)$`)

// engineUnits run what others gave them.
var engineUnits = regexp.MustCompile(`^(docker|containerd|podman|crio|supervisord?|pm2-.*|monit|circusd)\.service$`)

// unitKinds are the units that are known by name.
var unitKinds = []struct {
	names  *regexp.Regexp
	reason string
}{
	{regexp.MustCompile(`^(crond?|cronie|anacron|fcron|atd)\.service$`), "cron: %s would run twice"},
	{regexp.MustCompile(`^rc-local\.service$`), "what rc.local starts would run twice"},
	{regexp.MustCompile(`^(yum-cron|dnf-automatic.*|dnf-makecache|packagekit.*|apt-daily.*|unattended-upgrades|snapd.*)\.(service|timer)$`), "it changes packages, or holds their lock, in the middle of the upgrade"},
	{regexp.MustCompile(`^(postfix|exim4?|sendmail|msmtpd)\.service$`), "mail that waits in the copied queue would be sent twice"},
	{regexp.MustCompile(`(?i)(xxl-?job|elastic-?job|powerjob|schedulerx|airflow|celery|quartz|resque|sidekiq|delayed_job).*\.(service|timer)$`), "a job executor: jobs would run twice"},
	{regexp.MustCompile(`(?i)(canal|logstash|flume|debezium|maxwell|connect-distributed|kafka-connect|consumer|worker|mq-).*\.service$`), "a consumer: it would take messages from the other"},
	{regexp.MustCompile(`(?i)^(nacos|eureka|zookeeper|kafka|rocketmq.*|rabbitmq-server|activemq|pulsar|elasticsearch|opensearch|redis.*|mysql.*|mariadb|mongod|postgresql.*|etcd|consul|nomad|kubelet|keepalived|corosync|pacemaker|heartbeat|ceph.*|minio|clickhouse-server|tidb.*|tikv.*)\.service$`), "it has an identity in a cluster, or data, that exists once"},
	{regexp.MustCompile(`(?i)^(aegis|agentwatch|cloudmonitor|argusagent|ilogtaild?|loongcollector|zabbix.*|telegraf|node_exporter|prometheus.*|datadog-agent|newrelic.*|filebeat|metricbeat|fluentd|fluent-bit|td-agent|vector|promtail|salt-minion|puppet|chef-client|hbr.*|jumpserver.*|bt|openvpn.*|frpc|wg-quick@.*|strongswan.*|ipsec)\.service$`), "an agent: it has the identity of production"},
}

// started is what a unit runs, by the inventory.
type started struct {
	java, ports, agents []string
	clients             []string // queues and registries that it is connected to
}

// actsOn are services that act on whoever is connected: a queue hands out its
// messages, a registry sends traffic. By their name in askedPorts. Never written to.
var actsOn = map[string]string{
	"RocketMQ": "it would take messages from the other", "Kafka": "it would take messages from the other",
	"RabbitMQ": "it would take messages from the other", "ActiveMQ": "it would take messages from the other",
	"Nacos": "it would register itself and get traffic", "Eureka": "it would register itself and get traffic",
	"Consul": "it would register itself and get traffic", "ZooKeeper": "it would register itself and get traffic",
	"etcd": "it would register itself and get traffic",
}

// why collects what speaks of each unit.
func why(inv *hostinv.Inventory) map[string]*started {
	out := map[string]*started{}
	at := func(unit string) *started {
		if out[unit] == nil {
			out[unit] = &started{}
		}
		return out[unit]
	}
	units := map[int]string{}
	for _, u := range inv.Units {
		at(u.Name)
	}
	for _, p := range inv.Processes {
		if p.Unit == "" || p.Container != "" {
			continue
		}
		units[p.PID] = p.Unit
		for _, a := range inv.Agents {
			if name, ok := strings.CutPrefix(a.Evidence, "process "); ok && (p.Name == name || p.Program == name || strings.HasSuffix(p.Program, " "+name)) {
				at(p.Unit).agents = append(at(p.Unit).agents, a.Name+": "+a.Why)
			}
		}
	}
	for _, a := range inv.Agents {
		if name, ok := strings.CutPrefix(a.Evidence, "unit "); ok {
			at(name).agents = append(at(name).agents, a.Name+": "+a.Why)
		}
	}
	for _, j := range inv.Java {
		if j.Unit != "" && j.Container == "" {
			at(j.Unit).java = append(at(j.Unit).java, cmp.Or(path.Base(cmp.Or(j.Jar, j.MainClass)), "java"))
		}
	}
	// Connections name programs: every unit that runs one of that name may be it.
	for _, c := range inv.Connections {
		does := actsOn[askedPorts[c.Port]]
		if c.Direction != "out" || does == "" || c.Process == "" {
			continue
		}
		for _, p := range inv.Processes {
			if p.Name == c.Process && p.Unit != "" && p.Container == "" {
				text := fmt.Sprintf("it is connected to %s at %s: %s", askedPorts[c.Port], net.JoinHostPort(c.IP, strconv.Itoa(c.Port)), does)
				if !slices.Contains(at(p.Unit).clients, text) {
					at(p.Unit).clients = append(at(p.Unit).clients, text)
				}
			}
		}
	}
	for _, l := range inv.Listeners {
		if u := units[l.PID]; u != "" && !l.Ephemeral {
			if port := fmt.Sprintf("%s %d", l.Proto, l.Port); !slices.Contains(at(u).ports, port) {
				at(u).ports = append(at(u).ports, port)
			}
		}
	}
	return out
}

// unitReason says why a unit is held back; "" when it is not.
func unitReason(u hostinv.Unit, inv *hostinv.Inventory, byUnit map[string]*started, need map[string]string) string {
	for _, k := range unitKinds {
		if !k.names.MatchString(u.Name) {
			continue
		}
		if strings.Contains(k.reason, "%s") {
			jobs, _ := ListJobs(inv)
			return fmt.Sprintf(k.reason, count(len(jobs), "job of the site's own", "jobs of the site's own"))
		}
		return k.reason
	}
	if engineUnits.MatchString(u.Name) {
		var names []string
		if strings.HasPrefix(u.Name, "supervisor") {
			for _, p := range inv.Supervisor {
				names = append(names, p.Name)
			}
		} else if u.Name == "docker.service" {
			for _, c := range inv.Containers {
				if c.RestartPolicy != "no" {
					names = append(names, c.Name)
				}
			}
		}
		switch _, needed := need[u.Name]; {
		case len(names) > 0:
			return "it starts " + list(names)
		case u.Name == "docker.service" || u.Name == "containerd.service":
			return "" // without containers that start by themselves it runs nothing
		case needed:
			return "it starts what it was given"
		}
		return "it starts what it was given, and no service of the plan needs it"
	}
	s := byUnit[u.Name]
	switch {
	case len(s.agents) > 0:
		return s.agents[0]
	case len(s.clients) > 0:
		return s.clients[0]
	case strings.HasSuffix(u.Name, ".timer"):
		return "a timer: what it starts would run twice"
	case len(s.java) > 0:
		return "it runs " + list(s.java) + ", which may consume, schedule or register itself"
	case need[u.Name] != "":
		return "an application, started with the services"
	case u.SHA256 != "":
		return "a unit of the site's own (below /etc/systemd/system), which may consume, schedule or register itself"
	}
	return ""
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// names are the units held back; released only: those that 3.4-release lets go.
func (p QuarantinePlan) names(only func(HeldUnit) bool) []string {
	var out []string
	for _, u := range p.Units {
		if only == nil || only(u) {
			out = append(out, u.Unit)
		}
	}
	return out
}

// ecs is the part that cloud-init does.
func (p QuarantinePlan) ecs() ecs.Quarantine {
	return ecs.Quarantine{Units: p.names(nil), Addresses: p.Addresses, MachineID: p.MachineID}
}

// lines are what a person reads of it in a plan.
func (p QuarantinePlan) lines() []string {
	var out []string
	for _, u := range p.Units {
		until := "held back"
		if u.Released {
			until = "held back until 3.4-release"
		}
		out = append(out, fmt.Sprintf("%s: %s: %s", until, u.Unit, u.Reason))
	}
	for _, u := range p.Allowed {
		out = append(out, fmt.Sprintf("allowed to run twice: %s: %s", u.Unit, u.Reason))
	}
	if len(p.Addresses) > 0 {
		out = append(out, "files that set one of "+strings.Join(p.Addresses, ", ")+" ask DHCP instead")
	}
	if p.MachineID != "" {
		out = append(out, "it gets a machine ID of its own")
	}
	for _, k := range p.Known {
		out = append(out, "to be known: "+k)
	}
	return out
}

// quarantineRuns compares a fresh inventory of the transition host, taken
// before anything is let go, with what production's quarantine is to prevent.
// It gives each thing that runs, or is there, twice.
func quarantineRuns(now, before *hostinv.Inventory, p QuarantinePlan, cfg *Config) []string {
	q := cfg.Transition.Quarantine
	var bad []string
	for _, h := range PlanQuarantine(now, cfg).Units {
		i := slices.IndexFunc(now.Units, func(u hostinv.Unit) bool { return u.Name == h.Unit })
		if i >= 0 && (now.Units[i].Active == "active" || now.Units[i].Active == "activating") {
			bad = append(bad, fmt.Sprintf("unit %s is %s: %s", h.Unit, now.Units[i].Active, h.Reason))
		}
	}
	held := map[string]bool{}
	for _, u := range p.Units {
		held[u.Unit] = true
	}
	for _, proc := range now.Processes {
		switch {
		case proc.Unit != "" && held[proc.Unit]:
			bad = append(bad, fmt.Sprintf("process %d (%s) of unit %s runs", proc.PID, proc.Program, proc.Unit))
		case proc.Container != "" && held["docker.service"]:
			bad = append(bad, fmt.Sprintf("process %d (%s) runs in container %s without its engine", proc.PID, proc.Program, short12(proc.Container)))
		}
	}
	for _, j := range now.Java {
		if j.Container == "" && (j.Unit == "" || held[j.Unit]) && !q.allows("*") {
			bad = append(bad, fmt.Sprintf("process %d (java, %s) runs in %s, and nobody has started it", j.PID, cmp.Or(path.Base(j.Jar), j.MainClass), j.Cwd))
		}
	}
	for _, i := range now.Interfaces {
		if ownNetwork.MatchString(i.Name) {
			continue
		}
		for _, a := range i.Addresses {
			if pre, err := netip.ParsePrefix(a); err == nil && slices.Contains(p.Addresses, pre.Addr().String()) {
				bad = append(bad, fmt.Sprintf("%s has the address %s, which is production's", i.Name, pre.Addr()))
			}
		}
	}
	if now.MachineID != "" && now.MachineID == before.MachineID && !q.allows("machine-id") {
		bad = append(bad, "its machine ID is production's")
	}
	if now.Hostname == before.Hostname && now.Hostname != "" && !q.allows("hostname") {
		bad = append(bad, fmt.Sprintf("its host name is production's, %s (preserve_hostname in cloud.cfg?)", now.Hostname))
	}
	return bad
}

func short12(id string) string { return id[:min(len(id), 12)] }
