package sim

import (
	"fmt"
	"io/fs"
	"strings"

	"github.com/upgradectl/upgradectl/internal/sim/cloud"
	"github.com/upgradectl/upgradectl/internal/sim/host"
	"github.com/upgradectl/upgradectl/internal/sim/traffic"
)

// The addresses and names of runbook A's world.
const (
	region      = "cn-hangzhou"
	production  = "172.31.0.90"
	instanceID  = "i-web90"
	bastionAddr = "172.31.0.2"
	proxyA      = "172.31.0.5"
	proxyB      = "172.31.0.6"

	baseImage = "centos_7_05_64_20G_alibase_20180801.vhd" // a public one that web-90 was made from

	updatedKernel  = "3.10.0-1160.6.1.el7.x86_64"
	updatedRelease = "CentOS Linux release 7.9.2009 (Core)"
)

// machine is a host and the instance it runs in.
type machine struct {
	instance cloud.Instance
	spec     host.Spec
}

// inventory is what the world consists of at the beginning.
func (w *World) inventory() []machine {
	key := strings.TrimSpace(w.key.authorized)
	users := []host.User{{Name: "root", AuthorizedKeys: []string{key}}, {Name: "app", UID: 1001}}
	list := []machine{{
		instance: cloud.Instance{
			ID: instanceID, Name: "web-90", HostName: "web-90", PrivateIP: production,
			SecurityGroups: []string{"sg-web"}, KeyPair: "ops", ImageID: baseImage,
			Disks: w.disksOf90(),
		},
		spec: host.Spec{
			Name: "web-90", Addr: production, Hostname: "web-90",
			Release: "CentOS Linux release 7.5.1804 (Core)", Kernel: "3.10.0-862.9.1.el7.x86_64",
			UpdateRelease: updatedRelease, UpdateKernel: updatedKernel,
			Users: users,
			Files: map[string]host.File{
				"/srv/order/order.jar":          app("order"),
				"/srv/order/start.sh":           start("order", 8080),
				"/srv/pay/pay.jar":              app("pay"),
				"/srv/pay/start.sh":             start("pay", 8083),
				"/srv/order":                    dir(),
				"/srv/pay":                      dir(),
				"/srv/shop/docker-compose.yml":  {Data: []byte(composeFile)},
				"/srv/worker/worker.jar":        app("worker"),
				"/srv/worker":                   dir(),
				"/etc/supervisord.conf":         {Data: []byte(supervisordConf)},
				"/etc/supervisord.d/worker.ini": {Data: []byte(workerProgram)},
			},
			Packages: []string{"cloud-init-18.5-6.el7.centos.5.x86_64", "supervisor-3.4.0-1.el7.noarch"}, // every image of the cloud has the first
			Units: []host.Unit{{
				Name: "supervisord", Description: "Process Monitoring and Control Daemon", Enabled: true, Active: true,
				Start: "/usr/bin/supervisord -c /etc/supervisord.conf", Forking: true,
			}},
			Compose: []string{"/srv/shop"},
			Containers: []host.Container{{
				Name: "cache", Image: "registry.internal/cache:6.2", Restart: "always",
				Ports: []host.Port{{Host: 8082, Container: 8080}},
			}},
			Processes: []host.Process{java("order", 8080), java("pay", 8083)},
		},
	}}
	for _, n := range []string{"88", "89"} {
		list = append(list, machine{
			instance: cloud.Instance{ID: "i-app" + n, Name: "app-" + n, HostName: "app-" + n, PrivateIP: "172.31.0." + n, SecurityGroups: []string{"sg-web"}},
			spec: host.Spec{
				Name: "app-" + n, Addr: "172.31.0." + n, Users: users,
				Files: map[string]host.File{"/srv/order": dir(), "/srv/shop": dir(), "/srv/pay": dir()},
				Processes: []host.Process{
					java("order", 8080), java("shop", 8081), java("pay", 8083),
				},
			},
		})
	}
	for _, p := range []struct {
		n, addr string
		files   map[string]string
	}{{"5", proxyA, proxyAFiles}, {"6", proxyB, proxyBFiles}} {
		program := traffic.NewNginx("proxy-"+p.n, p.addr, w.Dial)
		w.nginx[p.addr] = program
		files := map[string]host.File{}
		for name, text := range p.files {
			files[name] = host.File{Data: []byte(text)}
		}
		list = append(list, machine{
			instance: cloud.Instance{ID: "i-proxy" + p.n, Name: "proxy-" + p.n, HostName: "proxy-" + p.n, PrivateIP: p.addr, SecurityGroups: []string{"sg-web"}},
			spec: host.Spec{
				Name: "proxy-" + p.n, Addr: p.addr, Users: users, Files: files,
				Units: []host.Unit{{
					Name: "nginx.service", Description: "The nginx HTTP and reverse proxy server",
					Enabled: true, Active: true, Start: "/usr/sbin/nginx", Forking: true,
				}},
				Commands: map[string]host.Command{"nginx": program.Command},
			},
		})
	}
	return list
}

func (w *World) disksOf90() []cloud.Disk {
	disks := []cloud.Disk{{ID: "d-web90-system", Size: 40}, {ID: "d-web90-data", Size: 100}}
	if w.cfg.Wide {
		disks = append(disks, cloud.Disk{ID: "d-web90-data2", Size: 200}, cloud.Disk{ID: "d-web90-data3", Size: 200}, cloud.Disk{ID: "d-web90-log", Size: 500})
	}
	return disks
}

func app(name string) host.File {
	return host.File{Data: []byte("the program " + name + "\n"), UID: 1001, GID: 1001}
}

func dir() host.File { return host.File{Mode: 0o755 | fs.ModeDir, UID: 1001, GID: 1001} }

func start(name string, port int) host.File {
	return host.File{
		Data: fmt.Appendf(nil, "#!/bin/sh\nexec java -Xmx512m -jar %s.jar --server.port=%d\n", name, port),
		Mode: 0o755, UID: 1001, GID: 1001,
	}
}

func java(name string, port int) host.Process {
	return host.Process{
		Args: []string{"java", "-Xmx512m", "-jar", name + ".jar", fmt.Sprintf("--server.port=%d", port)},
		Cwd:  "/srv/" + name, User: "app", Ports: []int{port},
	}
}

const composeFile = `version: "3"
services:
  web:
    image: registry.internal/shop:1.4
    restart: always
    ports:
      - "8081:8080"
`

// What supervisor's package of EPEL 7 puts there, as far as it matters, and a
// program without a port: a consumer of messages.
const (
	supervisordConf = `[unix_http_server]
file=/run/supervisor/supervisor.sock
[supervisord]
logfile=/var/log/supervisor/supervisord.log
pidfile=/run/supervisord.pid
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix:///run/supervisor/supervisor.sock
[include]
files = supervisord.d/*.ini
`
	workerProgram = `[program:worker]
command=java -Xmx256m -jar worker.jar
directory=/srv/worker
user=app
autorestart=true
`
)

// balancers is the world's one CLB: a weighted group, the default group, and
// a group behind a TCP listener.
func balancers() cloud.LoadBalancer {
	return cloud.LoadBalancer{
		ID: "lb-shop", Name: "shop", Address: balancerAddr,
		Listeners: []cloud.Listener{
			{Port: 80, Protocol: "http", Scheduler: "wrr", VServerGroup: "rsp-order", HealthCheck: true, HealthCheckURI: "/health"},
			{Port: 81, Protocol: "http", Scheduler: "wrr", BackendPort: 8081, HealthCheck: true, HealthCheckURI: "/health"},
			{Port: 82, Protocol: "tcp", Scheduler: "wrr", VServerGroup: "rsp-pay", HealthCheck: true},
		},
		Default: []cloud.Backend{{ServerID: instanceID, Weight: 100}, {ServerID: "i-app88", Weight: 100}, {ServerID: "i-app89", Weight: 60}},
		Groups: []cloud.VServerGroup{
			{ID: "rsp-order", Name: "order", Backends: []cloud.Backend{
				{ServerID: instanceID, Port: 8080, Weight: 60, Description: "order on web-90"},
				{ServerID: "i-app88", Port: 8080, Weight: 100},
			}},
			{ID: "rsp-pay", Name: "pay", Backends: []cloud.Backend{
				{ServerID: instanceID, Port: 8083, Weight: 1},
				{ServerID: "i-app89", Port: 8083, Weight: 1},
			}},
		},
	}
}

// targets is what the clients ask: every listener, every rule and every nginx
// site.
func targets(wide bool) []traffic.Target {
	all := []traffic.Target{
		{Name: "CLB order", URL: "http://" + balancerAddr + ":80"},
		{Name: "CLB shop", URL: "http://" + balancerAddr + ":81"},
		{Name: "CLB pay", URL: "http://" + balancerAddr + ":82"},
		{Name: "nginx order", URL: "http://" + proxyA + ":80"},
		{Name: "nginx shop", URL: "http://" + proxyA + ":8000"},
		{Name: "nginx legacy order", URL: "http://" + proxyB + ":80"},
		{Name: "nginx pay", URL: "http://" + proxyB + ":8000"},
	}
	if wide {
		all = append(all,
			traffic.Target{Name: "CLB shop by wlc", URL: "http://" + balancerAddr + ":83"},
			traffic.Target{Name: "CLB pay by rule", URL: "http://pay.shop.example:80"},
			traffic.Target{Name: "second CLB", URL: "http://" + secondAddr + ":80"},
			traffic.Target{Name: "ALB order", URL: "http://alb-site.cn-hangzhou.alb.aliyuncs.com:80"},
			traffic.Target{Name: "NLB pay", URL: "http://nlb-site.cn-hangzhou.nlb.aliyuncs.com:82"},
		)
	}
	return all
}

const nginxMain = `user  nginx;
worker_processes  1;
error_log  /var/log/nginx/error.log warn;
pid        /run/nginx.pid;

events {
    worker_connections  1024;
}

http {
    include       /etc/nginx/mime.types;
    default_type  application/octet-stream;
    log_format  main  '$remote_addr - $remote_user [$time_local] "$request" '
                      '$status $body_bytes_sent "$upstream_addr"';
    access_log  /var/log/nginx/access.log  main;
    sendfile        on;
    keepalive_timeout  65;
    include /etc/nginx/conf.d/*.conf;
}
`

const mimeTypes = "types {\n    text/html html htm;\n    application/json json;\n}\n"

// The files of the first proxy. One was written on Windows, with tabs and with
// lines that somebody switched off by hand: what edits it must leave all of
// that as it is.
var proxyAFiles = map[string]string{
	"/etc/nginx/nginx.conf": nginxMain,
	"/etc/nginx/mime.types": mimeTypes,
	"/etc/nginx/conf.d/order.conf": strings.ReplaceAll(`# 订单服务 order
upstream order {
	server	172.31.0.90:8080 weight=6;	# web-90
	#server	172.31.0.87:8080 weight=6;	# gone since 2019
	server	172.31.0.88:8080 weight=10;
}
server {
	listen	80;
	server_name	order.internal;
	location / {
		proxy_set_header	Host $host;
		proxy_pass	http://order;
	}
}
`, "\n", "\r\n"),
	"/etc/nginx/conf.d/shop.conf": `upstream shop { server 172.31.0.90:8081; server 172.31.0.89:8081 max_fails=2 fail_timeout=5s;
    keepalive 8; }

server {
    listen 8000 default_server;
    location / {
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_pass http://shop;
    }
}
`,
}

// The files of the second proxy: one site names the production host itself.
var proxyBFiles = map[string]string{
	"/etc/nginx/nginx.conf": nginxMain,
	"/etc/nginx/mime.types": mimeTypes,
	"/etc/nginx/conf.d/legacy.conf": `server {
    listen 80;
    server_name legacy.internal;

    # straight to the host, from before there was a balancer
    location / {
        proxy_pass http://172.31.0.90:8080;
    }
}
`,
	"/etc/nginx/conf.d/pay.conf": `upstream pay {
    server 172.31.0.89:8083;
    server 172.31.0.90:8083; # web-90
    server 172.31.0.88:8083 backup;
}
server {
    listen 8000;
    location = /status { return 200 "ok"; }
    location / {
        proxy_pass http://pay;
        proxy_next_upstream error timeout;
    }
}
`,
}
