package hostinv

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/testenv"
)

// The two parts of the mark.
const (
	testMark = "0123456789abcdef0123456789abcdef"
	ownMark  = "b8b2a1d6"
)

// stream builds what the script writes.
type stream struct{ b strings.Builder }

func (s *stream) line(f string, a ...any) *stream {
	if !strings.Contains(s.b.String(), testMark) {
		s.b.WriteString("\n" + testMark + " K " + ownMark + "\n")
	}
	fmt.Fprintf(&s.b, "\n"+testMark+ownMark+" "+f+"\n", a...)
	return s
}

func (s *stream) section(name string, rc int, items ...string) *stream {
	s.line("B %s", name)
	for i := 0; i+1 < len(items); i += 2 {
		if items[i] != "" {
			s.line("I %s", items[i])
		}
		s.b.WriteString(items[i+1])
	}
	return s.line("R %d", rc).line("E %s", name)
}

const tcpTable = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n" +
	"   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 501 1 0000000000000000 100 0 0 10 0\n" +
	"   1: 0100007F:0CEA 00000000:0000 0A 00000000:00000000 00:00000000 00000000   999        0 502 1 0000000000000000 100 0 0 10 0\n" +
	"   2: 5A001FAC:1F90 05001FAC:C350 01 00000000:00000000 00:00000000 00000000  1000        0 600 1 0000000000000000 20 4 30 10 -1\n" +
	"   3: 5A001FAC:1F90 06001FAC:C351 06 00000000:00000000 00:00000000 00000000     0        0 0 3 0000000000000000\n"

const tcp6Table = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n" +
	"   0: 00000000000000000000000000000000:46A1 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 503 1 0000000000000000 100 0 0 10 0\n" +
	"   1: 0000000000000000FFFF00000100007F:46A2 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 504 1 0000000000000000 100 0 0 10 0\n" +
	"   2: 0000000000000000FFFF00005A001FAC:46A1 0000000000000000FFFF000005001FAC:C350 01 00000000:00000000 00:00000000 00000000  1000        0 601 1 0000000000000000 20 4 30 10 -1\n"

// host is what the script says about a host: items by section, label and text in turn.
type hostSays map[string][]string

func (h hostSays) stream() string {
	s := &stream{}
	s.b.WriteString("Welcome to web-90") // noise without a line feed
	for _, name := range asked {
		if items, ok := h[name]; ok {
			s.section(name, 0, items...)
		} else {
			s.section(name, 10)
		}
	}
	s.line("Z")
	return s.b.String()
}

// with replaces text in one section.
func (h hostSays) with(section, old, now string) hostSays {
	out := maps.Clone(h)
	items := slices.Clone(h[section])
	found := false
	for i := 1; i < len(items); i += 2 {
		found = found || strings.Contains(items[i], old)
		items[i] = strings.Replace(items[i], old, now, 1)
	}
	if !found {
		panic(fmt.Sprintf("section %s does not hold %q", section, old))
	}
	out[section] = items
	return out
}

func (h hostSays) inventory(t *testing.T) *Inventory {
	t.Helper()
	inv, framed := parseStream([]byte(h.stream()), testMark)
	require.True(t, framed)
	return inv
}

const containerLine = `["` + "aa11" + `","/shop_web_1","shop/web:1","sha256:77","running",0,"healthy","always",["shop","web","1","/srv/shop","docker-compose.yml"],{"80/tcp":[{"HostIp":"","HostPort":"8081"}]},{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8081"},{"HostIp":"::","HostPort":"8081"}],"9000/tcp":null},4711,` +
	`[["bind","/srv/shop/data","","/data",true],["volume","/var/lib/docker/volumes/x/_data","` + strings64 + `","/tmp",true],null],["shop_default",null],["PATH","DB_PASSWORD",null]]` + "\n"

const strings64 = "abababababababababababababababababababababababababababababababab"

// a process in the tables of sec_processes.
type says struct {
	pid, ppid int
	name, uid string
	start     int // clock ticks
	args      []string
	cgroup    string
	exe, cwd  string
	env       []string
	sockets   []string
}

func processItems(list ...says) []string {
	var status, stat, cgroup, cmdline, environ, links, sockets strings.Builder
	for _, p := range list {
		fmt.Fprintf(&status, "/proc/%[1]d/status:Name:\t%[2]s\n/proc/%[1]d/status:State:\tS (sleeping)\n/proc/%[1]d/status:PPid:\t%[3]d\n/proc/%[1]d/status:Uid:\t%[4]s\t%[4]s\t%[4]s\t%[4]s\n", p.pid, p.name, p.ppid, p.uid)
		fmt.Fprintf(&stat, "/proc/%[1]d/stat:%[1]d (%[2]s) S %[3]d 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 %[4]d 0 0\n", p.pid, p.name, p.ppid, p.start)
		fmt.Fprintf(&cgroup, "/proc/%d/cgroup:1:name=systemd:%s\n", p.pid, p.cgroup)
		for _, a := range p.args {
			fmt.Fprintf(&cmdline, "/proc/%d/cmdline:%s\n", p.pid, strings.ReplaceAll(a, "\n", "\x01"))
		}
		for _, e := range p.env {
			fmt.Fprintf(&environ, "%d %s\n", p.pid, e)
		}
		for _, l := range [][2]string{{"exe", p.exe}, {"cwd", p.cwd}} {
			fmt.Fprintf(&links, "lrwxrwxrwx 1 root root 0 Nov 22 01:00 /proc/%d/%s", p.pid, l[0])
			if l[1] != "" {
				links.WriteString(" -> " + strings.NewReplacer("\\", `\\`, " ", `\ `, "\n", `\n`).Replace(l[1]))
			}
			links.WriteString("\n")
		}
		fmt.Fprintf(&sockets, "P %d\n%s", p.pid, strings.Join(append(p.sockets, ""), "\n"))
	}
	return []string{"tables", status.String() + stat.String() + cgroup.String() + "rc 0\n",
		"cmdline", cmdline.String() + "rc 0\x01\n", "environ", environ.String() + "rc 0\n", "links", links.String() + "rc 2\n", "sockets", sockets.String() + "rc 0\n"}
}

func java(pid int, cwd, cgroup string, sockets []string, args ...string) says {
	return says{pid: pid, ppid: 1, name: "java", uid: "1000", start: 100, args: args, cgroup: cgroup, exe: "/opt/jdk/bin/java", cwd: cwd, env: []string{"PATH", "DB_PASSWORD"}, sockets: sockets}
}

var (
	initProcess = says{pid: 1, name: "systemd", uid: "0", start: 1, args: []string{"/usr/lib/systemd/systemd"}, cgroup: "/", exe: "/usr/lib/systemd/systemd", cwd: "/"}
	mysql       = says{pid: 800, ppid: 1, name: "mysqld", uid: "999", start: 200, args: []string{"/usr/sbin/mysqld"}, cgroup: "/system.slice/mysqld.service", exe: "/usr/sbin/mysqld", cwd: "/var/lib/mysql", sockets: []string{"502"}}
	chrony      = says{pid: 810, ppid: 1, name: "chronyd", uid: "0", start: 200, args: []string{"/usr/sbin/chronyd"}, cgroup: "/system.slice/chronyd.service", exe: "/usr/sbin/chronyd", cwd: "/"}
	nginxMaster = says{pid: 820, ppid: 1, name: "nginx", uid: "0", start: 200, args: []string{"nginx: master process /usr/sbin/nginx -c /etc/nginx/nginx.conf"}, cgroup: "/system.slice/nginx.service", exe: "/usr/sbin/nginx", cwd: "/"}
)

// web90 is a host that has something in every section.
func web90() hostSays {
	sum := func(c string) string { return strings.Repeat(c, 64) }
	return hostSays{
		SectionOS:          {"os-release", "NAME=\"CentOS Linux\"\nID=\"centos\"\nVERSION_ID=\"7\"\nPRETTY_NAME=\"CentOS Linux 7 (Core)\"\n", "redhat-release", "CentOS Linux release 7.5.1804 (Core) \n", "debian_version", ""},
		SectionKernel:      {"release", "3.10.0-862.9.1.el7.x86_64\n", "cmdline", "BOOT_IMAGE=/boot/vmlinuz-3.10.0 root=UUID=1 ro net.ifnames=0\n"},
		SectionBoot:        {"", "d2cf5a55-550f-4407-adf6-1110d73a4fac\n"},
		SectionUptime:      {"uptime", "93784.27 1.00\n", "clock", "1700000000\n"},
		SectionHost:        {"hostname", "web-90\n", "uid", "0\n", "machine-id", "abc\n"},
		SectionKernels:     {"images", "config-3.10.0-862.9.1.el7.x86_64\nvmlinuz-3.10.0-862.9.1.el7.x86_64\nvmlinuz-0-rescue-1\n", "default", "/boot/vmlinuz-3.10.0-862.9.1.el7.x86_64\n", "settings", "", "reboot", ""},
		SectionPackages:    {"rpm", "kernel\t(none)\t3.10.0-862.9.1.el7\tx86_64\nbind-libs\t32\t9.9.4-61.el7\tx86_64\ngpg-pubkey\t(none)\tf4a80eb5-53a7ff4b\t(none)\n"},
		SectionHardware:    {"cpus", "0-3\n", "cpuinfo", "processor\t: 0\nmodel name\t: Intel  Xeon\n", "meminfo", "MemTotal:        8009300 kB\nSwapTotal:             0 kB\n", "product", "Alibaba Cloud\nAlibaba Cloud ECS\n"},
		SectionDisks:       {"partitions", "major minor  #blocks  name\n\n 253        0   41943040 vda\n 253        1   41942016 vda1\n", "serial", "/sys/block/vda/serial:bp1\n", "uuid", "total 0\nlrwxrwxrwx 1 root root 10 Nov 22 01:00 1114fe9e -> ../../vda1\n"},
		SectionFilesystems: {"", "4096 10288203 5000000 2621440 /\n"},
		SectionMounts:      {"", "20 0 253:1 / / rw,relatime - ext4 /dev/vda1 rw\n21 20 0:3 / /proc rw - proc proc rw\n40 20 0:40 / /mnt/a\\040b rw,noatime - nfs4 nas:/x rw\n"},
		SectionFstab:       {"fstab", "/etc/fstab:# comment\n/etc/fstab:UUID=1114fe9e / ext4 defaults 1 1\n/etc/fstab://nas/x /mnt/x cifs username=u,password=hunter2 0 0\n"},
		SectionInterfaces: {"sys", "/sys/class/net/eth0/address:00:16:3e:00:00:01\n/sys/class/net/veth12/address:00:16:3e:00:00:02\n/sys/class/net/eth0/mtu:1500\n/sys/class/net/eth0/operstate:up\n", "master", "",
			"addr", "1: lo    inet 127.0.0.1/8 scope host lo\\       valid_lft forever\n2: eth0    inet 172.31.0.90/20 brd 172.31.15.255 scope global dynamic eth0\\       valid_lft 100sec\n2: eth0    inet6 fe80::1/64 scope link \\       valid_lft forever\n"},
		SectionRoutes:      {"4", "default via 172.31.15.253 dev eth0 \n172.31.0.0/20 dev eth0 proto kernel scope link src 172.31.0.90 \nlocal 172.31.0.90 dev eth0 table local proto kernel scope host src 172.31.0.90 \n", "6", "fd00::/64 dev eth0 proto ra metric 100 expires 1234sec pref medium\n"},
		SectionRules:       {"4", "0:\tfrom all lookup local \n100:\tfrom 10.0.0.1 lookup 100 \n32766:\tfrom all lookup main \n", "6", "0:\tfrom all lookup local\n"},
		SectionDNS:         {"files", "/etc/resolv.conf:nameserver 100.100.2.136\n/etc/resolv.conf:search internal\n/etc/hosts:127.0.0.1   localhost # us\n/etc/hosts:172.31.0.20 db\n/etc/nsswitch.conf:hosts:      files dns\n"},
		SectionFirewall:    {"iptables-save", "# Generated by iptables-save v1.4.21 on Sun Nov 22\n*filter\n:INPUT DROP [12:3456]\n:DOCKER - [0:0]\n[5:300] -A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -j ACCEPT\nCOMMIT\n", "nft", "table inet mine {\n\tchain in {\n\t\ttcp dport 9090 counter packets 5 bytes 300 accept\n\t}\n}\n"},
		SectionListeners:   {"tcp", tcpTable, "tcp6", tcp6Table, "range", "32768\t60999\n"},
		SectionConnections: {"tcp", "5A001FAC:1F90 05001FAC:C350 600\n5A001FAC:1F90 05001FAC:C351 601\n5A001FAC:D431 14001FAC:0CEA 602\nend\n"},
		SectionProcesses: processItems(initProcess,
			java(700, "/srv/order", "/system.slice/order.service", []string{"501", "503", "602"}, "java", "-Xmx1g", "-Ddb.password=hunter2", "-jar", "order.jar"),
			java(701, "/ (deleted)", "/", []string{"504"}, "java", "-cp", "a:b", "com.x.Main"),
			java(900, "/", "/docker/"+strings64, nil, "/usr/bin/java", "-jar", "/app.jar"),
			says{pid: 901, ppid: 55, name: "vim", uid: "1000", start: 9378000, args: []string{"vim", "java.txt"}, cgroup: "/user.slice/session-3.scope", exe: "/usr/bin/vim", cwd: "/"},
			mysql, chrony, nginxMaster),
		SectionDocker:     {"daemon", sum("d") + "  /etc/docker/daemon.json\n", "info", `["20.10.24","overlay2","json-file","cgroupfs","/var/lib/docker",false]` + "\n"},
		SectionContainers: {"ids", "aa11\n", "images", `["sha256:77","shop/web","sha256:99"]` + "\n", "inspect", containerLine},
		SectionUnits: {"active", "nginx.service loaded active running The nginx\n● bad.service loaded failed failed Bad\nlogrotate.timer loaded active waiting Rotate\nkeepalived.service loaded inactive dead\n",
			"files", "nginx.service enabled enabled\nidle@.service static -\nlogrotate.timer enabled\nkeepalived.service enabled\n", "own", sum("a") + "  /etc/systemd/system/nginx.service\n" + sum("b") + "  /etc/systemd/system/nginx.service.d/x.conf\n"},
		SectionSupervisor: {"config", "/etc/supervisord.conf:[program:worker]\n/etc/supervisord.conf:command=/srv/worker --token abc\n/etc/supervisord.conf:environment=PASSWORD=\"hunter2\"\n", "status", "worker                           RUNNING   pid 123, uptime 0:10:00\n"},
		SectionCron:       {"tabs", "/etc/crontab:# m h\n/etc/crontab:5 4 * * * root backup --password=hunter2\n/var/spool/cron/app:* * * * * /srv/tick\n", "scripts", "/etc/cron.daily/logrotate\n", "at", "/var/spool/at/a00001\n"},
		SectionSysctl:     {"runtime", "/proc/sys/vm/swappiness:30\n/proc/sys/kernel/ns_last_pid:77\n/proc/sys/net/ipv4/tcp_rmem:4096\t87380\t6291456\n", "configured", "/etc/sysctl.d/99-a.conf:vm.swappiness = 60\n/etc/sysctl.conf:vm.swappiness=30\n"},
		SectionLimits:     {"files", "/etc/security/limits.conf:# x\n/etc/security/limits.conf:*  soft nofile 65535\n"},
		SectionModules:    {"", "ip_vs 1 0 - Live 0x0\next4 2 1 - Live 0x0\n"},
		SectionSecurity:   {"enforce", "1", "config", "/etc/selinux/config:SELINUX=enforcing\n", "apparmor", "Y\n", "profiles", "/usr/sbin/mysqld (enforce)\n"},
		SectionUsers:      {"passwd", "/etc/passwd:root:x:0:0:root:/root:/bin/bash\n/etc/passwd:app:x:1000:1000::/home/app:/bin/sh\n", "group", "/etc/group:root:x:0:\n/etc/group:ops:x:990:b,a\n", "sudoers", sum("e") + "  /etc/sudoers\n"},
		SectionSSH: {"files", sum("f") + "  /root/.ssh/id_rsa\n", "modes", "drwx------ 2 root root 80 Nov 22 01:00 /root/.ssh\n-rw-------. 1 root root 80 Nov 22 01:00 /root/.ssh/id_rsa\n",
			"keys", "/root/.ssh/authorized_keys:from=\"10.0.0.0/8\" ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFN5OZ+8Fz0cGZfWyC1pjG1Cj+gDdBGMbs2hpk7a3pYB ops\n", "host", "/etc/ssh/ssh_host_ed25519_key.pub:ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFN5OZ+8Fz0cGZfWyC1pjG1Cj+gDdBGMbs2hpk7a3pYB\n"},
		SectionTime:  {"zone", "../usr/share/zoneinfo/Asia/Shanghai\n", "files", "/etc/chrony.conf:server ntp.cloud.aliyuncs.com iburst\n/etc/chrony.conf:driftfile /x\n", "synced", "Reference ID    : 64\nLeap status     : Normal\n"},
		SectionNginx: {"", "nginx version: nginx/1.14.0\nconfigure arguments: --prefix=/etc/nginx --conf-path=/etc/nginx/nginx.conf\n"},
	}
}

func TestParseStream(t *testing.T) {
	inv, framed := parseStream([]byte(web90().stream()), testMark)
	require.True(t, framed)
	for n, s := range inv.Sections {
		assert.Equal(t, StatusOK, s.Status, "%s: %s", n, s.Message)
	}
	assert.Equal(t, "Welcome to web-90", inv.Noise)
	assert.Equal(t, OS{"centos", "7", "CentOS Linux 7 (Core)", "CentOS Linux release 7.5.1804 (Core)"}, inv.OS)
	assert.Equal(t, "3.10.0-862.9.1.el7.x86_64", inv.Kernel)
	assert.Equal(t, "web-90", inv.Hostname)
	assert.Equal(t, 0, inv.UID)

	type l struct {
		addr string
		port int
		proc string
	}
	var got []l
	for _, x := range inv.Listeners {
		got = append(got, l{x.Addr, x.Port, x.Process + " " + strconv.Itoa(x.PID)})
	}
	assert.Equal(t, []l{{"127.0.0.1", 3306, "mysqld 800"}, {"0.0.0.0", 8080, "java 700"}, {"::", 18081, "java 700"}, {"127.0.0.1", 18082, "java 701"}}, got)

	require.Len(t, inv.Java, 3)
	assert.Equal(t, Java{PID: 700, Cwd: "/srv/order", User: "app", Exe: "/opt/jdk/bin/java", Args: []string{"java", "-Xmx1g", "-Ddb.password=[hidden]", "-jar", "order.jar"}, Jar: "order.jar", Unit: "order.service", Ports: []int{8080, 18081}}, inv.Java[0])
	assert.Equal(t, "com.x.Main", inv.Java[1].MainClass)
	assert.Equal(t, "/ (deleted)", inv.Java[1].Cwd)
	assert.Equal(t, strings64, inv.Java[2].Container)

	require.Len(t, inv.Containers, 1)
	assert.Equal(t, Container{ID: "aa11", Name: "shop_web_1", Image: "shop/web:1", ImageID: "sha256:77", Digests: []string{"shop/web@sha256:99"}, State: "running", Health: "healthy", RestartPolicy: "always",
		Compose: Compose{"shop", "web", "1", "/srv/shop", "docker-compose.yml"}, Ports: []Port{{"tcp", 80, "0.0.0.0", 8081}}, PID: 4711,
		Volumes: []Volume{{"bind", "/srv/shop/data", "/data", false}, {"volume", "", "/tmp", false}}, Networks: []string{"shop_default"}, Environment: []string{"DB_PASSWORD", "PATH"}}, inv.Containers[0])
	assert.Equal(t, []string{"bad.service", "idle@.service", "keepalived.service", "logrotate.timer", "nginx.service"}, unitNames(inv.Units))
	assert.Equal(t, "bind-libs-32:9.9.4-61.el7.x86_64", inv.Packages[0].EVRA())
	assert.Equal(t, Kernels{Installed: []string{"3.10.0-862.9.1.el7.x86_64"}, Default: "3.10.0-862.9.1.el7.x86_64"}, inv.Kernels)
	assert.Equal(t, Hardware{4, "Intel Xeon", 8009300 << 10, 0, "Alibaba Cloud Alibaba Cloud ECS"}, inv.Hardware)
	assert.Equal(t, []Disk{{"vda", 40 << 30, "bp1", ""}, {"vda1", 41942016 << 10, "", "1114fe9e"}}, inv.Disks)
	assert.Equal(t, []Filesystem{{"/", "ext4", 4096 * 10288203, 4096 * 5000000, 2621440}}, inv.Filesystems)
	assert.Equal(t, []Mount{{"/", "ext4", "/dev/vda1", "1114fe9e", []string{"relatime", "rw"}}, {"/mnt/a b", "nfs4", "nas:/x", "", []string{"noatime", "rw"}}}, inv.Mounts)
	assert.Equal(t, []string{"password=[hidden]", "username=u"}, inv.Fstab[1].Options)
	assert.Equal(t, []Interface{{"eth0", "00:16:3e:00:00:01", 1500, "up", "", []string{"172.31.0.90/20"}}, {"lo", "", 0, "", "", []string{"127.0.0.1/8"}}}, inv.Interfaces)
	assert.Equal(t, []Route{{4, "172.31.0.0/20 dev eth0 proto kernel scope link src 172.31.0.90"}, {4, "default via 172.31.15.253 dev eth0"}, {6, "fd00::/64 dev eth0 proto ra metric 100"}}, inv.Routes)
	assert.Equal(t, DNS{[]string{"100.100.2.136"}, []string{"internal"}, []string{}, []string{"127.0.0.1 localhost", "172.31.0.20 db"}, "files dns"}, inv.DNS)
	assert.Equal(t, []Rule{{"iptables", "filter", ":INPUT DROP"}, {"iptables", "filter", "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT"}, {"nft", "table inet mine chain in", "tcp dport 9090 counter accept"}}, inv.Firewall)
	assert.Equal(t, []Peer{{"in", "", 8080, "172.31.0.5", 0, 2}, {"out", "java", 0, "172.31.0.20", 3306, 1}}, inv.Connections)
	assert.Equal(t, []Agent{{"MySQL", "process mysqld", "a replica has the same server UUID"}, {"keepalived", "unit keepalived.service", "it would take the virtual address"}}, inv.Agents)
	assert.Equal(t, []Program{{"worker", "RUNNING", "/etc/supervisord.conf", []string{"command=/srv/worker --token [hidden]"}}}, inv.Supervisor)
	assert.Equal(t, "5 4 * * * root backup --password=[hidden]", inv.Cron[1].Text)
	assert.Equal(t, Sysctl{map[string]string{"vm.swappiness": "30", "net.ipv4.tcp_rmem": "4096 87380 6291456"}, map[string]string{"vm.swappiness": "30"}}, inv.Sysctl)
	assert.Equal(t, Security{"enforcing", "enforcing", true, []string{"/usr/sbin/mysqld (enforce)"}}, inv.Security)
	assert.Equal(t, []Group{{"root", 0, []string{}}, {"ops", 990, []string{"a", "b"}}}, inv.Groups)
	assert.Equal(t, "-rw------- root root", inv.SSH.Files[0].Mode)
	assert.Equal(t, "ops", inv.SSH.Keys[0].Comment)
	assert.Equal(t, Time{"Asia/Shanghai", []string{"chronyd"}, []Line{{"/etc/chrony.conf", "server ntp.cloud.aliyuncs.com iburst"}}, "yes"}, inv.Time)
	assert.Equal(t, Nginx{"nginx/1.14.0", "/etc/nginx/nginx.conf", []string{"/etc/nginx/nginx.conf"}}, inv.Nginx)
	text, err := json.Marshal(inv)
	require.NoError(t, err)
	assert.NotContains(t, string(text), "hunter2")
}

func unitNames(units []Unit) (out []string) {
	for _, u := range units {
		out = append(out, u.Name)
	}
	return out
}

// TestCutAnywhere cuts a good stream at every byte: what is said to be whole
// is what the whole stream says, and nothing is empty without being told.
func TestCutAnywhere(t *testing.T) {
	s := web90().stream()
	full, _ := parseStream([]byte(s), testMark)
	for i := range s {
		// Near the marks at every byte; within what they enclose, at every one when
		// there is time.
		if at := strings.LastIndex(s[:i], testMark); !testenv.RunSlow() && i%17 != 0 && (at < 0 || i-at > 60) {
			continue
		}
		inv, framed := parseStream([]byte(s[:i]), testMark)
		checkCut(t, full, inv, i)
		if !framed {
			require.Equal(t, StatusTruncated, inv.Sections[SectionOS].Status)
		}
	}
}

// parts are what belongs to a section.
func (i *Inventory) parts(section string) []any {
	switch section {
	case SectionOS:
		return []any{i.OS}
	case SectionKernel:
		return []any{i.Kernel, i.KernelArgs}
	case SectionBoot:
		return []any{i.BootID}
	case SectionUptime:
		return []any{i.Uptime}
	case SectionHost:
		return []any{i.Hostname, i.MachineID, i.UID}
	case SectionKernels:
		return []any{i.Kernels}
	case SectionPackages:
		return []any{i.Packages}
	case SectionHardware:
		return []any{i.Hardware}
	case SectionDisks:
		return []any{i.Disks}
	case SectionFilesystems:
		return []any{len(i.Filesystems)} // their types come with the mounts
	case SectionMounts:
		return []any{i.Mounts}
	case SectionFstab:
		return []any{i.Fstab}
	case SectionInterfaces:
		return []any{i.Interfaces}
	case SectionRoutes:
		return []any{i.Routes}
	case SectionRules:
		return []any{i.Rules}
	case SectionDNS:
		return []any{i.DNS}
	case SectionFirewall:
		return []any{i.Firewall}
	case SectionListeners:
		return []any{len(i.Listeners)} // their processes come later
	case SectionConnections:
		n := 0
		for _, p := range i.Connections {
			n += p.Count
		}
		return []any{n}
	case SectionProcesses:
		return []any{len(i.Processes)} // their names come with the users
	case SectionJava:
		return []any{len(i.Java)}
	case SectionDocker:
		return []any{i.Docker}
	case SectionContainers:
		return []any{i.Containers}
	case SectionUnits, SectionTimers:
		return []any{i.Units}
	case SectionSupervisor:
		return []any{i.Supervisor}
	case SectionCron:
		return []any{i.Cron}
	case SectionSysctl:
		return []any{i.Sysctl}
	case SectionLimits:
		return []any{i.Limits}
	case SectionModules:
		return []any{i.Modules}
	case SectionSecurity:
		return []any{i.Security}
	case SectionUsers:
		return []any{i.Users, i.Groups, i.Sudoers}
	case SectionSSH:
		return []any{i.SSH}
	case SectionTime:
		return []any{i.Time}
	case SectionNginx:
		return []any{i.Nginx}
	}
	return nil // owners and agents are made of several sections
}

func checkCut(t *testing.T, full, inv *Inventory, at int) {
	for _, n := range SectionNames() {
		s := inv.Sections[n]
		if s.Status != StatusOK {
			require.Equal(t, StatusTruncated, s.Status, "%s, cut at %d: %s", n, at, s.Message)
			continue
		}
		if !reflect.DeepEqual(full.parts(n), inv.parts(n)) {
			require.Equal(t, full.parts(n), inv.parts(n), "%s, cut at %d", n, at)
		}
	}
}

func FuzzCollectStream(f *testing.F) {
	good := web90().stream()
	f.Add([]byte(good), len(good)/2, []byte("x"))
	f.Add([]byte(good), len(good)-3, []byte("\n"+testMark+ownMark+" E os\n"))
	f.Add([]byte("\n"+testMark+" K \n\n"+testMark+" B os\n\n"+testMark+" B os\n"), 5, []byte{0, 255})
	full, _ := parseStream([]byte(good), testMark)
	f.Fuzz(func(t *testing.T, data []byte, cut int, junk []byte) {
		inv, _ := parseStream(data, testMark)
		require.Len(t, inv.Sections, len(SectionNames()))
		_ = inv.Text(English)
		_ = inv.Text(Chinese, SectionNames()...)
		require.Empty(t, onlyKnown(Diff(inv, inv, Expect{Peers: true}).Findings))
		if cut >= 0 && cut < len(good) {
			inv, _ = parseStream([]byte(good[:cut]), testMark)
			checkCut(t, full, inv, cut)
			// Junk in the middle may break a section, but never parses badly.
			inv, _ = parseStream(slices.Concat([]byte(good[:cut]), junk, []byte(good[cut:])), testMark)
			text, err := json.Marshal(inv)
			require.NoError(t, err)
			back, err := ParseInventory(text)
			require.NoError(t, err)
			require.Empty(t, onlyKnown(Diff(back, back, Expect{}).Findings))
		}
	})
}

// TestForgery lets file names, arguments and process names look like ours.
func TestForgery(t *testing.T) {
	evil := says{pid: 666, ppid: 1, name: `x\n/proc/1/status:Name:`, uid: "7", args: []string{"java", "\n/proc/1/cmdline:evil\n" + testMark[1:] + " E processes", "-jar", "x.jar"},
		cgroup: "/", exe: "/usr/bin/java", cwd: "/a -> b\nP 1\n/proc/1/cwd", sockets: []string{"77"}}
	h := hostSays{SectionListeners: {"tcp", tcpTable}, SectionProcesses: processItems(initProcess, evil, mysql)}
	h = h.with(SectionProcesses, "/proc/666/stat:666 (x", "/proc/666/stat:666 (x) S 1\n/proc/666/stat:1 (")
	inv := h.inventory(t)
	assert.Equal(t, "mysqld", inv.Listeners[0].Process)
	require.Len(t, inv.Java, 1)
	require.Len(t, inv.Processes, 3)
	assert.Equal(t, "systemd", inv.Processes[0].Name)
	assert.Equal(t, []string{"java", "\n/proc/1/cmdline:evil\n" + testMark[1:] + " E processes", "-jar", "x.jar"}, inv.Java[0].Args)
	assert.Equal(t, "/a -> b\nP 1\n/proc/1/cwd", inv.Java[0].Cwd)
	assert.Equal(t, "7", inv.Java[0].User)
}
