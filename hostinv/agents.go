package hostinv

import (
	"slices"
	"sort"
	"strings"
)

// twice are programs that must not run on a host and on its clone at the same
// time, by the name of the process. Never written to.
var twice = []struct{ process, name, why string }{
	{"keepalived", "keepalived", "it would take the virtual address"},
	{"corosync", "corosync", "it would join the cluster under the same node"},
	{"pacemakerd", "pacemaker", "it would join the cluster under the same node"},
	{"crond", "cron", "jobs would run twice"},
	{"cron", "cron", "jobs would run twice"},
	{"atd", "at", "jobs would run twice"},
	{"zabbix_agentd", "zabbix agent", "it reports under the same host name"},
	{"zabbix_agent2", "zabbix agent", "it reports under the same host name"},
	{"salt-minion", "salt", "it has the same minion ID"},
	{"puppet", "puppet", "it has the same certificate"},
	{"chef-client", "chef", "it has the same node name"},
	{"consul", "consul", "it joins under the same node ID"},
	{"etcd", "etcd", "it has the same member ID"},
	{"kubelet", "kubelet", "it joins under the same node name"},
	{"nomad", "nomad", "it joins under the same node ID"},
	{"mysqld", "MySQL", "a replica has the same server UUID"},
	{"mariadbd", "MariaDB", "a replica has the same server ID"},
	{"mongod", "MongoDB", "it is the same member of its replica set"},
	{"redis-sentinel", "Redis Sentinel", "it has the same run ID"},
	{"filebeat", "filebeat", "logs would be shipped twice"},
	{"ilogtail", "Logtail", "logs would be shipped twice"},
	{"loongcollector", "LoongCollector", "logs would be shipped twice"},
	{"fluentd", "fluentd", "logs would be shipped twice"},
	{"fluent-bit", "fluent-bit", "logs would be shipped twice"},
	{"td-agent", "td-agent", "logs would be shipped twice"},
	{"AliYunDun", "Security Center", "it has the same client ID until it is registered again"},
	{"argusagent", "CloudMonitor", "it reports under the same host"},
	{"gitlab-runner", "GitLab runner", "it takes jobs under the same token"},
	{"jenkins-agent", "Jenkins agent", "it takes jobs under the same name"},
	{"frpc", "frp client", "it takes the tunnel of the other"},
	{"openvpn", "OpenVPN", "it takes the session of the other"},
	{"xxl-job-executor", "XXL-JOB executor", "jobs would run twice"},
}

// fillAgents finds them among the processes and the units that are enabled.
func (inv *Inventory) fillAgents() {
	add := func(a Agent) {
		if !slices.ContainsFunc(inv.Agents, func(b Agent) bool { return a.Name == b.Name }) {
			inv.Agents = append(inv.Agents, a)
		}
	}
	running := map[string]bool{}
	for i := range inv.Processes {
		if p := &inv.Processes[i]; p.Container == "" {
			running[p.Name] = true
			running[p.Program] = true
			running[p.Program[strings.LastIndexByte(p.Program, ' ')+1:]] = true // a script
		}
	}
	for _, t := range twice {
		if running[t.process] {
			add(Agent{t.name, "process " + t.process, t.why})
		}
		for _, u := range inv.Units {
			if u.Name == t.process+".service" && u.Enabled == "enabled" {
				add(Agent{t.name, "unit " + u.Name, t.why})
			}
		}
	}
	sort.Slice(inv.Agents, func(i, j int) bool { return inv.Agents[i].Name < inv.Agents[j].Name })
}

// fillEmpty makes lists that are empty lists, for JSON.
func (inv *Inventory) fillEmpty() {
	inv.fillAgents()
	if inv.Sysctl.Runtime == nil {
		inv.Sysctl = Sysctl{map[string]string{}, map[string]string{}}
	}
	empty(&inv.KernelArgs)
	empty(&inv.Kernels.Installed)
	empty(&inv.Packages)
	empty(&inv.Disks)
	empty(&inv.Filesystems)
	empty(&inv.Mounts)
	empty(&inv.Fstab)
	empty(&inv.Interfaces)
	empty(&inv.Routes)
	empty(&inv.Rules)
	empty(&inv.DNS.Servers)
	empty(&inv.DNS.Search)
	empty(&inv.DNS.Options)
	empty(&inv.DNS.Hosts)
	empty(&inv.Firewall)
	empty(&inv.Listeners)
	empty(&inv.Connections)
	empty(&inv.Processes)
	empty(&inv.Java)
	empty(&inv.Agents)
	empty(&inv.Containers)
	empty(&inv.Units)
	empty(&inv.Supervisor)
	empty(&inv.Cron)
	empty(&inv.Limits)
	empty(&inv.Modules)
	empty(&inv.Security.Profiles)
	empty(&inv.Users)
	empty(&inv.Groups)
	empty(&inv.Sudoers)
	empty(&inv.SSH.Files)
	empty(&inv.SSH.Keys)
	empty(&inv.SSH.HostKeys)
	empty(&inv.Time.Daemons)
	empty(&inv.Time.Servers)
	empty(&inv.Nginx.Running)
	for i := range inv.Mounts {
		empty(&inv.Mounts[i].Options)
	}
	for i := range inv.Fstab {
		empty(&inv.Fstab[i].Options)
	}
	for i := range inv.Interfaces {
		empty(&inv.Interfaces[i].Addresses)
	}
	for i := range inv.Processes {
		empty(&inv.Processes[i].Environment)
	}
	for i := range inv.Containers {
		c := &inv.Containers[i]
		empty(&c.Digests)
		empty(&c.Ports)
		empty(&c.Volumes)
		empty(&c.Networks)
		empty(&c.Environment)
	}
	for i := range inv.Supervisor {
		empty(&inv.Supervisor[i].Settings)
	}
	for i := range inv.Groups {
		empty(&inv.Groups[i].Members)
	}
}

func empty[T any](list *[]T) {
	if *list == nil {
		*list = []T{}
	}
}
