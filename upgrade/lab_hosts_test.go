package upgrade_test

import (
	"fmt"

	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/lab"
)

// appUser makes the user that services run as.
const appUser = "grep -q ^app: /etc/passwd || { echo 'app:x:1500:1500::/srv:/bin/sh' >>/etc/passwd; echo 'app:x:1500:' >>/etc/group; echo 'app:*:19000:0:99999:7:::' >>/etc/shadow; }\n"

// composeFile is the Compose project pay. The container reads the host's name
// table to say on which host it runs.
const composeFile = `version: "3"
services:
  web:
    image: lab/app:1
    command: ["pay", "8083", "/hosts"]
    ports: ["8083:8083"]
    volumes: ["/etc/hosts:/hosts:ro"]
    restart: always
`

// unit is a systemd unit of the application.
func appUnit(name string, port int) string {
	return fmt.Sprintf("[Unit]\nDescription=%[1]s\n[Service]\nUser=app\nExecStart=%[3]s %[1]s %[2]d\n[Install]\nWantedBy=multi-user.target\n", name, port, lab.AppBinary)
}

// addProxies switches the nginx hosts on.
func (w *labWorld) addProxies() {
	for _, m := range []struct{ id, name, addr string }{{"i-ng5", "ng-5", labProxyA}, {"i-ng6", "ng-6", labProxyB}} {
		w.add(m.id, m.name, m.addr, lab.Setup{Files: labSites[m.addr], Enable: []string{"nginx"}, Script: `cd /etc/nginx/sites-enabled
rm -f ./*
for f in shop pay stock all; do [ ! -e ../sites-available/$f ] || ln -s /etc/nginx/sites-available/$f .; done
`})
	}
}

// addOther switches the host on that serves beside production.
func (w *labWorld) addOther() {
	s := lab.Setup{Files: map[string]string{}, Script: appUser}
	for name, port := range map[string]int{"order": 8080, "pay": 8083, "cache": 8084, "stock": 8085} {
		s.Files["/etc/systemd/system/"+name+".service"] = appUnit(name, port)
		s.Enable = append(s.Enable, name)
	}
	w.add("i-web88", "web-88", labOther, s)
}

// addProduction switches production on and starts what runs there: a Java
// process by hand, a Compose project, a container, a program of supervisor, a
// unit, and a cron job.
func (w *labWorld) addProduction() *lab.Host {
	h := w.add("i-web90", "web-90", labProd, lab.Setup{Docker: true, Enable: []string{"docker", "cron", "supervisor", "agent"}, Files: map[string]string{
		"/srv/order/start.sh":               "#!/bin/sh\nexec /usr/bin/java -Xmx48m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dsun.net.httpserver.nodelay=true -jar order.jar --server.port=8080\n",
		"/srv/pay/docker-compose.yml":       composeFile,
		"/etc/supervisor/conf.d/stock.conf": "[program:stock]\ncommand=" + lab.AppBinary + " stock 8085\nuser=app\nautostart=true\nautorestart=true\n",
		"/etc/systemd/system/agent.service": appUnit("agent", 8086),
		"/etc/cron.d/report":                "* * * * * root hostname >>/var/log/report\n",
	}, Script: appUser + "cp " + lab.AppJar + " /srv/order/order.jar\nchown -R app:app /srv/order\n"})
	require.NoError(w.t, h.WaitReady(w.t.Context()))
	w.must(h, `set -eu
docker import -c 'ENTRYPOINT ["/app"]' `+lab.AppImage+` lab/app:1
cd /srv/pay
docker-compose up -d
docker run -d --name cache --restart always -p 8084:8084 -v /etc/hosts:/hosts:ro lab/app:1 cache 8084 /hosts
su -s /bin/sh app -c 'cd /srv/order && setsid ./start.sh >/dev/null 2>&1 </dev/null &'
`)
	return h
}

// config is the operator's upgrade.yaml.
func (w *labWorld) config() string {
	return `version: 1
procedure: transition
host: ` + labProd + `
cloud:
  region: cn-hangzhou
  endpoint: ` + w.endpoint + `
ssh:
  config: ssh_config
  known_hosts: [known_hosts]
nginx:
  - host: ` + labProxyA + `
  - host: ` + labProxyB + `
services:
  - name: order
    kind: java
    dir: /srv/order
    user: app
    ports: [8080]
    health: /health
    start: ./start.sh
  - name: pay
    kind: compose
    dir: /srv/pay
    ports: [8083]
    health: /health
  - name: cache
    kind: container
    container: cache
    ports: [8084]
    health: /health
  - name: stock
    kind: unit
    unit: supervisor
    ports: [8085]
    health: /health
  - name: agent
    kind: unit
    unit: agent
    ports: [8086]
    health: /health
transition:
  name: web-90-transition
  public_ip: false
os:
  strategy: yum-update
  blackout: 45s
docker:
  repo_url: ` + lab.MirrorURL + `/docker-ce.repo
pace:
  poll: 200ms
  sample: 200ms
  observe: 5
  timeout: 3m
  cloud_timeout: 3m
`
}
