package upgrade

import (
	"bytes"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/ecs"
	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/nginx"
	"github.com/upgradectl/upgradectl/slb"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// grown is a host as grown hosts are: Java by hand and in a unit, two in one
// directory, Compose, containers in two ways, a unit of its own, something
// started by hand, and places that lead to nothing.
func grown() *Surroundings {
	sections := map[string]hostinv.Section{}
	for _, n := range hostinv.SectionNames() {
		sections[n] = hostinv.Section{Status: hostinv.StatusOK}
	}
	listen := func(addr string, port, pid int, process string) hostinv.Listener {
		return hostinv.Listener{Proto: "tcp", Addr: addr, Port: port, PID: pid, Process: process}
	}
	inv := &hostinv.Inventory{
		Schema: 2, Sections: sections,
		Java: []hostinv.Java{
			{PID: 71, Cwd: "/srv/order", User: "app", Exe: "/usr/bin/java", Jar: "order.jar", Args: []string{"java", "-jar", "order.jar", "--name=it's"}, Ports: []int{8080, 33333, 8443}},
			{PID: 72, Cwd: "/srv/pay", User: "root", Jar: "pay.jar", Args: []string{"java", "-Ddb.password=[hidden]", "-jar", "pay.jar"}, Ports: []int{8083}},
			{PID: 73, Cwd: "/srv/pay", User: "root", Jar: "pay-job.jar", Args: []string{"java"}, Ports: []int{8084}},
			{PID: 74, Cwd: "/", User: "app", Jar: "/opt/x/report.jar", Args: []string{"java", "-jar", "/opt/x/report.jar"}, Ports: []int{8085}},
			{PID: 75, Cwd: "/srv/old (deleted)", Ports: []int{8086}},
			{PID: 76, Cwd: "/opt/tomcat", Unit: "tomcat.service", Ports: []int{8087}, MainClass: "org.apache.catalina.startup.Bootstrap"},
			{PID: 77, Cwd: "/work", Container: "c0ffee", Ports: []int{9999}},
			{PID: 51, Cwd: "/srv/stock", User: "app", Jar: "stock.jar", Unit: "supervisord.service", Ports: []int{8091}},
			{PID: 78, Cwd: "/srv/登录", User: "app", Jar: "login.jar", Unit: "session-3.scope", Ports: []int{8088}},
		},
		Listeners: []hostinv.Listener{
			listen("0.0.0.0", 8080, 71, "java"), {Proto: "tcp", Addr: "0.0.0.0", Port: 33333, PID: 71, Process: "java", Ephemeral: true}, listen("127.0.0.1", 8443, 71, "java"),
			listen("::", 8083, 72, "java"), listen("::", 8084, 73, "java"), listen("::", 8085, 74, "java"), listen("::", 8087, 76, "java"), listen("::", 8088, 78, "java"),
			listen("0.0.0.0", 80, 90, "nginx"), listen("0.0.0.0", 22, 91, "sshd"), listen("0.0.0.0", 7000, 92, "python3"), listen("0.0.0.0", 7001, 94, "nc"), listen("0.0.0.0", 9100, 93, "node_exporter"),
			listen("0.0.0.0", 9001, 50, "supervisord"), listen("::", 8091, 51, "java"), listen("0.0.0.0", 8092, 53, "gunicorn"), listen("127.0.0.1", 8093, 53, "gunicorn"), listen("0.0.0.0", 8094, 54, "x"),
		},
		Supervisor: []hostinv.Program{
			{Name: "api:api_0", State: "RUNNING", Settings: []string{"command=/usr/local/bin/gunicorn -w 4", "numprocs=2"}}, {Name: "api:api_1", State: "RUNNING", Settings: []string{"command=/usr/local/bin/gunicorn -w 4"}},
			{Name: "idle", State: "STOPPED"}, {Name: "stock", State: "RUNNING", Settings: []string{"command=java -jar stock.jar", "directory=/srv/stock/"}}, {Name: "名", State: "RUNNING"},
		},
		Processes: []hostinv.Process{
			{PID: 90, Name: "nginx", Program: "nginx", Unit: "nginx.service"}, {PID: 92, Name: "python3", Program: "python3 serve.py", Exe: "/usr/bin/python3.11", Cwd: "/home/w", User: "w", Unit: "session-9.scope"},
			{PID: 94, Name: "nc", Program: "nc"},
			{PID: 50, PPID: 1, Name: "supervisord", Program: "python supervisord", Exe: "/usr/bin/python2.7", Unit: "supervisord.service"},
			{PID: 51, PPID: 50, Name: "java", Program: "java", Exe: "/usr/bin/java", Cwd: "/srv/stock", Unit: "supervisord.service"},
			{PID: 52, PPID: 50, Name: "gunicorn", Program: "python3 gunicorn", Exe: "/usr/bin/python3.11", Cwd: "/", Unit: "supervisord.service"},
			{PID: 53, PPID: 52, Name: "gunicorn", Program: "python3 gunicorn", Exe: "/usr/bin/python3.11", Cwd: "/srv/api", Unit: "supervisord.service"},
			{PID: 54, PPID: 50, Name: "x", Program: "x", Exe: "/opt/x", Cwd: "/opt", Unit: "supervisord.service"},
			{PID: 93, Name: "node_exporter", Program: "node_exporter", Unit: "node_exporter.service"},
		},
		Containers: []hostinv.Container{
			{ID: "c0ffee", Name: "shop_web_1", State: "running", Compose: hostinv.Compose{Project: "shop", Dir: "/srv/shop"}, Ports: []hostinv.Port{{Proto: "tcp", ContainerPort: 80, HostPort: 8081}}},
			{ID: "cafe", Name: "shop_db_1", State: "running", Compose: hostinv.Compose{Project: "shop", Dir: "/srv/shop"}, Volumes: []hostinv.Volume{{Type: "volume", Source: "shop_data", Target: "/data"}}},
			{ID: "beef", Name: "cache", State: "running", Ports: []hostinv.Port{{Proto: "tcp", ContainerPort: 6379, HostPort: 6379}, {Proto: "udp", HostPort: 6380}}},
			{ID: "dead", Name: "old", State: "exited"},
		},
		Units: []hostinv.Unit{{Name: "crond.service", Active: "active", Sub: "running", Enabled: "enabled"}, {Name: "worker.service", Active: "active", Sub: "running", SHA256: "ab"}, {Name: "settle.timer", Active: "active"}, {Name: "docker.service", Active: "active", Sub: "running", SHA256: "cd"}},
		Cron:  []hostinv.Line{{Source: "/var/spool/cron/root", Text: "*/5 * * * * /srv/job.sh"}},
		Connections: []hostinv.Peer{{Direction: "out", Process: "java", IP: "172.31.3.7", Port: 3306, Count: 20}, {Direction: "out", IP: "172.31.3.8", Port: 6379, Count: 2},
			{Direction: "in", LocalPort: 9100, IP: "172.31.0.7", Count: 1}},
	}
	member := slb.Backend{ServerID: "i-web90", Port: 8080, Weight: 60}
	pass := func(port, line int, upstream string) nginx.Ref {
		return nginx.Ref{Kind: nginx.KindServer, File: "/etc/nginx/conf.d/app.conf", Line: line, Host: "172.31.0.90", Port: port, Upstream: upstream, Directive: "server", Certain: true}
	}
	return &Surroundings{
		Config: &Config{Host: "172.31.0.90", Instance: "i-web90", Address: "172.31.0.90", Nginx: []NginxHost{{Host: "172.31.0.5", Conf: "/etc/nginx/nginx.conf"}, {Host: "ops@p6:2222", Conf: "/opt/nginx/nginx.conf"}}},
		Facts: &Facts{
			Instance: ecs.Instance{ID: "i-web90", Name: "web-90", Status: "Running", Region: "cn-hangzhou", PrivateIPs: []string{"172.31.0.90"}}, Inventory: inv, HasDocker: true,
			Boot: hostos.Boot{Kernel: "3.10.0", Release: "CentOS Linux release 7.5.1804 (Core)"}, Extra: &HostExtra{},
			Memberships: []slb.Membership{
				{LoadBalancerID: "lb-shop", LoadBalancerName: "shop", VServerGroupID: "rsp-order", Backend: member, Backends: []slb.Backend{member}, Listeners: []slb.Listener{{Port: 80, Protocol: "http", Scheduler: "wrr", HealthCheck: true, Rule: "rule-1", Domain: "a.example"}}},
				{LoadBalancerID: "lb-shop", VServerGroupID: "rsp-gone", Backend: slb.Backend{ServerID: "i-web90", Port: 9009, Weight: 1}, Listeners: []slb.Listener{{Port: 99, Protocol: "tcp", Scheduler: "wrr"}}},
			},
			Nginx:  []NginxFacts{{Host: "172.31.0.5", Refs: []nginx.Ref{pass(8080, 3, "order"), pass(9010, 4, "gone"), {Kind: nginx.KindComment, Port: 1}}}},
			Direct: []string{"172.31.9.9 uses port 8083", "public address 192.0.2.1: x"},
		},
		Scripts: []Script{{"/srv/登录", "bin/stop.sh"}, {"/srv/登录", "bin/start.sh"}, {"/srv/pay", "restart.sh"}, {"/", "go.sh"}},
		Looked:  []LookedAt{{Host: "172.31.0.5", Why: "uses port 8080", Result: "its nginx names it at 2 places", Names: true}},
		Domains: []Domain{{"a.example", "172.31.0.5", 8080}},
	}
}

func TestDraft(t *testing.T) {
	s := grown()
	draftServices(s)
	draftRest(s)
	s.Trust = ListTrustPeers(s.Facts.Inventory, s.Config.Address)
	assert.Equal(t, []Service{
		{Name: "shop", Kind: KindCompose, Dir: "/srv/shop", Ports: []int{8081}},
		{Name: "cache", Kind: KindContainer, Container: "cache", Ports: []int{6379}},
		{Name: "api", Kind: KindSupervisor, Program: "api:*", Ports: []int{8092}},
		{Name: "stock", Kind: KindSupervisor, Program: "stock", Ports: []int{8091}},
		{Name: "order", Kind: KindJava, Dir: "/srv/order", User: "app", Ports: []int{8080}},
		{Name: "pay", Kind: KindJava, Dir: "/srv/pay", Match: "pay.jar", Ports: []int{8083}},
		{Name: "pay-2", Kind: KindJava, Dir: "/srv/pay", Match: "pay-job.jar", Ports: []int{8084}},
		{Name: "report", Kind: KindJava, Dir: "/", User: "app", Ports: []int{8085}},
		{Name: "tomcat", Kind: KindUnit, Unit: "tomcat", Ports: []int{8087}},
		{Name: "service", Kind: KindJava, Dir: "/srv/登录", User: "app", Start: "./bin/start.sh", Ports: []int{8088}},
		{Name: "nginx", Kind: KindUnit, Unit: "nginx", Ports: []int{80}},
		{Name: "worker", Kind: KindUnit, Unit: "worker"},
		{Name: "python3.11", Kind: KindProcess, Dir: "/home/w", User: "w", Program: "python3.11", Ports: []int{7000}},
	}, s.Config.Services)
	var todo []string
	for _, n := range s.Todo {
		assert.NotEmpty(t, n.ZH)
		todo = append(todo, n.EN)
	}
	all := strings.Join(todo, "\n")
	for _, want := range []string{
		"service report: is it started by one of go.sh?",
		`process 75 is java in "/srv/old (deleted)"`,
		"process 94, nc (in ?, as , port 7001) was started by hand",
		"port 8094 is served below supervisord by x: write it into the ports of the program that it belongs to",
		`supervisor "名" has a name that this file cannot hold: it is left out`,
	} {
		assert.Contains(t, all, want)
	}

	table := ListProjects(s)
	assert.Equal(t, []string{"tcp/8081 (shop)", "tcp/6379 (cache)", "tcp/8092 (api)", "tcp/8091 (stock)", "tcp/8084 (pay-2)", "tcp/8085 (report)", "tcp/8087 (tomcat)", "tcp/8088 (service)", "tcp/80 (nginx)", "tcp/7000 (python3.11)", "tcp/7001 (nc)", "tcp/9001 (supervisord)", "tcp/8094 (x)"}, table.Unreferenced)
	assert.Equal(t, []string{"lb-shop rsp-gone, tcp 99: leads to port 9009, where nothing listens", "172.31.0.5 upstream gone (app.conf:4): leads to port 9010, where nothing listens"}, table.Dead)
	assert.Equal(t, "stock.jar", table.Projects[3].Jar)
	order := table.Projects[4]
	assert.Equal(t, "order.jar", order.Jar)
	assert.Equal(t, []ProjectPort{{8080, []string{"lb-shop (shop) rsp-order, http 80 (rule rule-1, a.example)"}, []string{"172.31.0.5 upstream order (app.conf:3)"}, []string{"a.example"}, []string{}}}, order.Ports)
	assert.Equal(t, []string{"172.31.9.9"}, table.Projects[5].Ports[0].Peers)
	assert.Equal(t, []string{"shop_web_1", "shop_db_1"}, table.Projects[0].Containers)
}

// What is written is what was drafted, by the strict loader, in both languages.
func TestDraftYAML(t *testing.T) {
	for _, lang := range []string{"en", "zh"} {
		s := grown()
		draftServices(s)
		draftRest(s)
		s.Trust = ListTrustPeers(s.Facts.Inventory, s.Config.Address)
		text, err := s.YAML(lang, planTime)
		require.NoError(t, err)
		c, err := ParseConfig("upgrade.yaml", text)
		require.NoError(t, err, "%s", text)
		assert.Equal(t, s.Config.Services, c.Services)
		assert.Equal(t, s.Config.Nginx, c.Nginx)
		assert.Equal(t, "cn-hangzhou", c.Cloud.Region)
		assert.Equal(t, "web-90-transition", c.Transition.Name)
		assert.Equal(t, []string{"4.1", "4.4", "5.3"}, c.Gates)
		for _, want := range []string{"# TODO: - \"state-volume:shop_data\"", "172.31.3.7:3306 (MySQL), 20", "8080 ← lb-shop (shop) rsp-order, http 80 (rule rule-1, a.example)", "*/5 * * * * /srv/job.sh", "server_name a.example (172.31.0.5) → 8080", "[nginx-port]"} {
			assert.Contains(t, string(text), want, "%s\n%s", lang, text)
		}
		assert.Equal(t, lang == "zh", strings.Contains(string(text), "升级后必须照原样运行的服务"))
		assert.NotContains(t, string(text), "[hidden]")
		// What is left to do for a service stands in its item, not in the next one.
		items := strings.Split(string(text), "\n  - name: ")[1:]
		require.Len(t, items, len(s.Config.Services))
		for _, item := range items {
			name, rest, _ := strings.Cut(item, "\n")
			if i := strings.Index(rest, "\n  - "); i >= 0 {
				rest = rest[:i]
			}
			i := slices.IndexFunc(s.Config.Services, func(x Service) bool { return strings.Trim(name, `"'`) == x.Name })
			require.GreaterOrEqual(t, i, 0, name)
			sv := s.Config.Services[i]
			body, _, _ := strings.Cut(rest, "\ntransition:")
			assert.Equal(t, sv.Health == "" && len(sv.Ports) > 0, regexp.MustCompile(`TODO.*health: /`).MatchString(body), item)
		}
		again, err := s.YAML(lang, planTime)
		require.NoError(t, err)
		assert.Equal(t, string(text), string(again))
	}
	// An accept line is good as it stands.
	s := grown()
	draftServices(s)
	draftRest(s)
	text, err := s.YAML("en", planTime)
	require.NoError(t, err)
	var entries []string
	for l := range strings.SplitSeq(string(text), "\n") {
		if rest, ok := strings.CutPrefix(l, "# TODO: - "); ok {
			e, _, _ := strings.Cut(rest, "  # ")
			entries = append(entries, e)
		}
	}
	require.NotEmpty(t, entries)
	c, err := ParseConfig("u.yaml", bytes.Replace(text, []byte("accept: []"), []byte("accept: ["+strings.Join(entries, ", ")+"]"), 1))
	require.NoError(t, err)
	for _, f := range Detect(c, s.Facts, planTime) {
		assert.False(t, f.open() && acceptable(f.ID), "%+v", f)
	}
}

// Whatever a host shows, the file is valid, and its values are those drafted.
func FuzzDraftYAML(f *testing.F) {
	f.Add("/srv/order", "order", "java -jar x.jar", "tomcat.service", "0.0.0.0", 8080)
	f.Add("/srv/a: b # c\n\t'\"", "\x00\xff", "- {", "@", "::1", 22)
	f.Add("/ ", "true", "~", "null", "", -1)
	f.Add("/srv/\u2028x", "1e3", "\u0085", "0x1f", "172.31.0.90", 65536)
	f.Fuzz(func(t *testing.T, dir, name, args, unit, ip string, port int) {
		s := grown()
		inv := s.Facts.Inventory
		inv.Java = append(inv.Java, hostinv.Java{PID: 200, Cwd: dir, User: name, Jar: args, Args: []string{args, name}, Ports: []int{port}}, hostinv.Java{PID: 201, Cwd: dir, Unit: unit, Ports: []int{port + 1}})
		inv.Containers = append(inv.Containers, hostinv.Container{Name: name, State: "running", Ports: []hostinv.Port{{Proto: "tcp", HostPort: port, HostIP: ip}}}, hostinv.Container{Name: unit, State: "running", Compose: hostinv.Compose{Dir: dir}})
		inv.Listeners = append(inv.Listeners, hostinv.Listener{Proto: "tcp", Addr: ip, Port: port, PID: 200, Process: name})
		inv.Processes = append(inv.Processes, hostinv.Process{PID: 200, Name: name, Program: args, Cwd: dir, Unit: unit})
		inv.Units = append(inv.Units, hostinv.Unit{Name: unit, Active: "active", Sub: "running", SHA256: "x"}, hostinv.Unit{Name: name + ".timer", Active: "active"})
		inv.Cron = append(inv.Cron, hostinv.Line{Source: dir, Text: args})
		s.Facts.Instance.Name = name
		s.Domains = append(s.Domains, Domain{name, args, port})
		draftServices(s)
		draftRest(s)
		text, err := s.YAML("zh", planTime)
		require.NoError(t, err)
		c, err := ParseConfig("upgrade.yaml", text)
		require.NoError(t, err, "%s", text)
		assert.Equal(t, len(s.Config.Services), len(c.Services))
		for i := range c.Services {
			assert.Equal(t, s.Config.Services[i], c.Services[i])
		}
		_, err = json.Marshal(ListProjects(s))
		require.NoError(t, err)
	})
}

func TestListDomains(t *testing.T) {
	files := nginx.MapFS{"/etc/nginx/nginx.conf": []byte(`events {}
http {
	upstream app { server 172.31.0.90:8080; server 172.31.0.88:8080; }
	server { listen 80; server_name a.example *.b.example; location / { proxy_pass http://app; } }
	server { listen 80; server_name _; location / { proxy_pass http://172.31.0.90:8083; } }
	server { listen 80; server_name c.example; location / { proxy_pass http://172.31.0.91:8080; } }
}
`)}
	tree, err := nginx.Load(t.Context(), files, "/etc/nginx/nginx.conf")
	require.NoError(t, err)
	got := listDomains(tree, "p5", tree.Refs(nginx.Query{Host: "172.31.0.90"}))
	slices.SortFunc(got, func(a, b Domain) int { return strings.Compare(a.Name, b.Name) })
	assert.Equal(t, []Domain{{"*.b.example", "p5", 8080}, {"a.example", "p5", 8080}}, got)
}
