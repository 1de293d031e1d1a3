package hostinv

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestPlantedChange changes one thing of every section in what a host says,
// and has the comparison name it.
func TestPlantedChange(t *testing.T) {
	tests := map[string][]struct{ old, now, want string }{ // want: "SEVERITY KEY [FIELD]"
		SectionOS:          {{"7.5.1804", "7.9.2009", "changed release"}},
		SectionKernel:      {{"3.10.0-862.9.1", "3.10.0-1160.6.1", "changed kernel release"}, {"net.ifnames=0", "net.ifnames=1", "changed argument net.ifnames=0"}},
		SectionBoot:        {{"d2cf5a55", "d2cf5a56", "changed boot ID"}},
		SectionHost:        {{"web-90", "web-91", "changed hostname"}, {"abc", "abd", "changed machine ID"}},
		SectionKernels:     {{"/boot/vmlinuz-3.10.0-862", "/boot/vmlinuz-3.10.0-1160", "changed default"}, {"vmlinuz-0-rescue-1", "vmlinuz-4.19", "new installed 4.19"}},
		SectionPackages:    {{"9.9.4-61.el7", "9.9.4-60.el7", "lost bind-libs x86_64 version"}, {"9.9.4-61.el7", "9.11.4-1.el7", "changed bind-libs x86_64 version"}, {"bind-libs\t32\t9.9.4-61.el7\tx86_64\n", "", "lost bind-libs x86_64"}},
		SectionHardware:    {{"0-3", "0-1", "lost processors"}, {"8009300", "4009300", "lost memory"}},
		SectionDisks:       {{"41943040", "20971520", "changed vda size"}, {" 253        1   41942016 vda1\n", "", "lost vda1"}},
		SectionFilesystems: {{"10288203", "5288203", "lost / size"}},
		SectionMounts:      {{"40 20 0:40 / /mnt/a\\040b rw,noatime - nfs4 nas:/x rw\n", "", "lost /mnt/a b"}, {"rw,noatime", "ro,noatime", "lost /mnt/a b options"}, {"nas:/x", "nas:/y", "changed /mnt/a b device"}},
		SectionFstab:       {{"//nas/x /mnt/x", "//nas/x /mnt/z", "lost /mnt/x"}},
		SectionInterfaces:  {{"172.31.0.90/20", "172.31.0.91/20", "lost eth0 addresses"}, {":up", ":down", "lost eth0 state"}, {"mtu:1500", "mtu:1400", "changed eth0 mtu"}},
		SectionRoutes:      {{"default via 172.31.15.253", "default via 172.31.15.254", "lost 4 default via 172.31.15.253 dev eth0"}},
		SectionRules:       {{"100:\tfrom 10.0.0.1 lookup 100 \n", "", "lost 4 100: from 10.0.0.1 lookup 100"}},
		SectionDNS:         {{"100.100.2.136", "8.8.8.8", "changed servers"}, {"172.31.0.20 db", "172.31.0.21 db", "lost hosts 172.31.0.20 db"}},
		SectionFirewall:    {{"--dport 22", "--dport 23", "lost iptables filter: -A INPUT -p tcp -m tcp --dport 22 -j ACCEPT"}, {"DROP [12:3456]", "ACCEPT [0:0]", "lost iptables filter: :INPUT DROP"}, {"dport 9090", "dport 9091", "lost nft table inet mine chain in: tcp dport 9090 counter accept"}},
		SectionListeners:   {{":1F90 00000000:0000 0A", ":1F91 00000000:0000 0A", "lost tcp *:8080"}, {"00000000:1F90 00000000:0000", "0100007F:1F90 00000000:0000", "lost tcp *:8080 address"}},
		SectionConnections: {{"14001FAC:0CEA", "15001FAC:0CEA", "lost java to 172.31.0.20:3306"}},
		SectionOwners:      {{"/proc/800/status:Name:\tmysqld", "/proc/800/status:Name:\tmariadbd", "lost tcp *:3306 program"}},
		SectionProcesses:   {{"/proc/810/exe -> /usr/sbin/chronyd", "/proc/810/exe -> /usr/sbin/ntpd", "changed root chronyd"}, {"700 DB_PASSWORD\n", "", "changed app java environment"}},
		SectionJava:        {{"/proc/700/cwd -> /srv/order", "/proc/700/cwd -> /srv/other", "lost /srv/order order.jar"}, {"-Xmx1g", "-Xmx2g", "changed /srv/order order.jar args"}},
		SectionAgents:      {{"/proc/800/exe -> /usr/sbin/mysqld", "/proc/800/exe -> /usr/sbin/zabbix_agentd", "new zabbix agent"}},
		SectionDocker:      {{"20.10.24", "26.1.4", "changed docker version"}, {"overlay2", "devicemapper", "lost docker storage driver"}, {"dddd", "ddde", "changed docker daemon.json"}},
		SectionContainers: {{`"running"`, `"exited"`, "lost shop/web state"}, {`"always"`, `"no"`, "lost shop/web restart policy"}, {`"healthy"`, `"unhealthy"`, "lost shop/web health"}, {`sha256:77","running`, `sha256:78","running`, "changed shop/web image id"},
			{`"/srv/shop/data"`, `"/srv/shop/data2"`, "lost shop/web volumes"}, {`"DB_PASSWORD"`, `"DB_PASS"`, "changed shop/web environment"}, {`sha256:99`, `sha256:98`, "changed shop/web digests"}, {`"HostPort":"8081"`, `"HostPort":"8082"`, "lost shop/web ports"}},
		SectionUnits:      {{"nginx.service loaded active running", "nginx.service loaded inactive dead", "lost nginx.service state"}, {"keepalived.service enabled", "keepalived.service disabled", "lost keepalived.service enabled"}, {"aaaa", "aaab", "changed nginx.service file"}},
		SectionTimers:     {{"logrotate.timer enabled", "logrotate.timer disabled", "lost logrotate.timer enabled"}, {"logrotate.timer loaded active waiting", "logrotate.timer loaded inactive dead", "lost logrotate.timer state"}},
		SectionSupervisor: {{"RUNNING", "FATAL", "lost worker state"}, {"command=/srv/worker", "command=/srv/worker2", "changed worker settings"}},
		SectionCron:       {{"/srv/tick", "/srv/tock", "lost /var/spool/cron/app: * * * * * /srv/tick"}, {"/var/spool/at/a00001\n", "", "lost /var/spool/at: a00001"}},
		SectionSysctl:     {{"swappiness:30", "swappiness:60", "lost vm.swappiness"}, {"6291456", "6291457", "changed net.ipv4.tcp_rmem"}, {"sysctl.conf:vm.swappiness=30", "sysctl.conf:#", "changed configured vm.swappiness"}},
		SectionLimits:     {{"65535", "1024", "lost /etc/security/limits.conf: * soft nofile 65535"}},
		SectionModules:    {{"ip_vs 1 0", "nf_nat 1 0", "changed ip_vs"}},
		SectionSecurity:   {{"1", "0", "lost SELinux now"}, {"SELINUX=enforcing", "SELINUX=disabled", "lost SELinux configured"}, {"Y", "N", "lost AppArmor enabled"}, {"(enforce)", "(complain)", "changed profile /usr/sbin/mysqld (enforce)"}},
		SectionUsers:      {{"/home/app:/bin/sh", "/home/app:/sbin/nologin", "changed user app shell"}, {"app:x:1000", "apq:x:1000", "lost user app"}, {"ops:x:990:b,a", "ops:x:990:b", "changed group ops members"}, {"eeee", "eeef", "changed /etc/sudoers sha256"}},
		SectionSSH:        {{"ffff", "fffe", "changed /root/.ssh/id_rsa sha256"}, {"-rw-------.", "-rw-r--r--.", "changed /root/.ssh/id_rsa mode"}, {"pYB ops", "pYC ops", "lost key in /root/.ssh/authorized_keys: ssh-ed25519"}, {"hpk7a3pYB\n", "hpk7a3pYC\n", "lost host key ssh-ed25519 fingerprint"}},
		SectionTime:       {{"Asia/Shanghai", "UTC", "lost zone"}, {"ntp.cloud", "ntp2.cloud", "lost /etc/chrony.conf: server ntp.cloud.aliyuncs.com iburst"}, {"Normal", "Not synchronised", "changed synchronised"}},
		SectionNginx:      {{"1.14.0", "1.20.1", "changed nginx version"}},
	}
	before := web90().inventory(t)
	assert.Empty(t, Diff(before, web90().inventory(t), Expect{Peers: true}).Findings)
	for _, section := range SectionNames() {
		if section == SectionUptime {
			continue // noise: the boot ID tells what matters
		}
		from := section // whose text holds it
		for whole, parts := range derived {
			if slices.Contains(parts, section) {
				from = whole
			}
		}
		require.NotEmpty(t, tests[section], "no planted change in section %s", section)
		for _, tc := range tests[section] {
			after := web90().with(from, tc.old, tc.now).inventory(t)
			var got []string
			for _, f := range Diff(before, after, Expect{Peers: true}).Findings {
				if f.Area == section || section == SectionOwners && f.Area == SectionListeners {
					got = append(got, strings.TrimSpace(string(f.Severity)+" "+f.Key+" "+f.Field))
				}
			}
			assert.True(t, slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, tc.want) }), "%s: %q → %q: found %q", section, tc.old, tc.now, got)
		}
		// A section that cannot be read is unknown, in whatever way.
		lost := *before
		lost.Sections = map[string]Section{}
		for n, s := range before.Sections {
			lost.Sections[n] = s
		}
		lost.Sections[section] = Section{Status: StatusDenied, Message: "said so"}
		c := Diff(before, &lost, Expect{Peers: true})
		require.NotEmpty(t, c.Findings, section)
		assert.Equal(t, Unknown, c.Findings[0].Kind, section)
	}
}

// TestPlantedProcess: a daemon that is gone is lost, a user's editor is not.
func TestPlantedProcess(t *testing.T) {
	before := web90().inventory(t)
	h := web90()
	h[SectionProcesses] = processItems(initProcess, mysql)
	c := Diff(before, h.inventory(t), Expect{})
	keys := map[string]Severity{}
	for _, f := range c.Findings {
		if f.Area == SectionProcesses {
			keys[f.Key] = f.Severity
		}
	}
	assert.Equal(t, map[string]Severity{"app java": Changed, "root chronyd": Changed, "root nginx": Changed}, keys)
}

// TestAwkwardNames: quotes, line feeds, markup and terminal codes in a
// container's name stay data.
func TestAwkwardNames(t *testing.T) {
	name := "a'b\"c`d$(e)\nf|g\x1b[31m<script>"
	quoted, err := json.Marshal("/" + name)
	require.NoError(t, err)
	h := web90().with(SectionContainers, `"/shop_web_1"`, string(quoted)).with(SectionContainers, `["shop","web","1","/srv/shop","docker-compose.yml"]`, `[null,null,null,null,null]`)
	inv := h.inventory(t)
	require.Len(t, inv.Containers, 1)
	assert.Equal(t, name, inv.Containers[0].Name)
	assert.Equal(t, StatusOK, inv.Sections[SectionContainers].Status)
	gone := *inv
	gone.Containers = []Container{}
	c := Diff(inv, &gone, Expect{})
	require.Len(t, c.Losses(), 1)
	assert.Equal(t, name, c.Losses()[0].Key)
	for _, text := range []string{c.Text(English), c.Text(Chinese), c.Markdown(English), c.Markdown(Chinese), inv.Text(English)} {
		assert.NotContains(t, text, "\x1b")
		assert.NotContains(t, text, "c`d$(e)\nf")
	}
	assert.NotContains(t, c.Markdown(Chinese), "<script>")
	assert.Contains(t, c.Markdown(Chinese), `f\|g`)
	data, err := json.Marshal(inv)
	require.NoError(t, err)
	back, err := ParseInventory(data)
	require.NoError(t, err)
	assert.Empty(t, Diff(inv, back, Expect{Peers: true}).Findings)
}

func TestReasonsInChinese(t *testing.T) {
	for en, zh := range chinese {
		assert.NotEmpty(t, zh, en)
	}
	before := web90().inventory(t)
	after := &Inventory{Sections: map[string]Section{}}
	for _, n := range SectionNames() {
		after.Sections[n] = Section{Status: StatusOK}
	}
	for _, f := range append(Diff(before, after, Expect{}).Findings, Diff(after, before, Expect{}).Findings...) {
		assert.NotEmpty(t, chinese[f.Reason], "reason %q is not in Chinese", f.Reason)
	}
}
