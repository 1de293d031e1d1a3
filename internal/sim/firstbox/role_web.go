package firstbox

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/upgradectl/upgradectl/internal/sim/host"
)

// webConsolePort is where the console's program listens, behind nginx.
const webConsolePort = 8080

// A WebServer is the nginx program of one machine.
type WebServer interface {
	Command(ctx context.Context, p *host.Proc) int
	// Refused is what it was asked, or found in its files, and does not know.
	Refused() []string
	// Behind says where requests of a port go: to which servers (HOST:PORT),
	// none when it answers them itself. ok: it runs and listens there.
	Behind(port int) (servers []string, ok bool)
}

func webPackages(s *Site) []string {
	list := []string{"pitrix-ks-webservice", "pitrix-ks-api", "pitrix-ks-cli", "pitrix-ks-webconsole", "nginx", "keepalived"}
	if !s.cfg.Sub {
		list = append(list, "pitrix-ks-website")
	}
	return list
}

// webFronts are the pages, one that somebody has added by hand, and the
// programs.
func webFronts(s *Site) []Front {
	list := []Front{{Name: "webconsole", Port: 80}, {Name: "website", Port: 8081}, {Name: "fg_server", Port: 8665}}
	if s.opt.Nginx != nil {
		list = append(list, Front{Name: "operations page", Port: 8090})
	}
	if !s.cfg.Sub {
		list = append(list, Front{Name: "apiserver", Port: 7777}, Front{Name: "ws_server", Port: 8565}, Front{Name: "io_server", Port: 8000, Stream: true})
	}
	return list
}

const (
	nginxFile = "/etc/nginx/nginx.conf"
	siteFile  = "/etc/nginx/sites-enabled/webconsole"
	pageFile  = "/etc/nginx/conf.d/operations.conf"
)

// nginxText is nginx.conf: of an old node with what people have tuned.
func nginxText(tuned bool) string {
	workers, more := 4, ""
	if tuned {
		workers, more = 8, "    client_max_body_size 200m;\n    proxy_read_timeout 300s;\n"
	}
	return fmt.Sprintf(`user www-data;
worker_processes %d;
pid /run/nginx.pid;

events {
    worker_connections 768;
}

http {
    sendfile on;
    tcp_nopush on;
    keepalive_timeout 65;
    types_hash_max_size 2048;
%s    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    access_log /var/log/nginx/access.log;
    error_log /var/log/nginx/error.log;
    gzip on;
    include /etc/nginx/conf.d/*.conf;
    include /etc/nginx/sites-enabled/*;
}
`, workers, more)
}

// webFiles are what the packages bring.
func webFiles(tuned bool) map[string]string {
	pass := fmt.Sprintf("    location / {\n        proxy_pass http://127.0.0.1:%d;\n        proxy_set_header Host $host;\n    }\n", webConsolePort)
	return map[string]string{
		nginxFile:               nginxText(tuned),
		"/etc/nginx/mime.types": "types {\n    text/html html htm;\n    text/css css;\n}\n",
		siteFile:                "server {\n    listen 80 default_server;\n    server_name console.lab.example boss.lab.example;\n" + pass + "}\n\nserver {\n    listen 8081;\n" + pass + "}\n",
	}
}

// agedWeb is an old webservice: nginx.conf is tuned, and there is a page that
// no package knows of.
func agedWeb(*Site) map[string]string {
	files := webFiles(true)
	files[pageFile] = fmt.Sprintf("# made by hand: the operations page\nserver {\n    listen 8090;\n    server_name ops.lab.example;\n    location / {\n        proxy_pass http://127.0.0.1:%d;\n    }\n}\n", webConsolePort)
	return files
}

// configureWeb is the post-installation of the console. keepalived comes with
// it and has no configuration, which only sites with a virtual address have.
func (s *Site) configureWeb(m *Machine, _ string) error {
	first := m.bring(map[string]string{"nginx": "1.10.3-0ubuntu0.16.04.5", "keepalived": "1:1.2.19-1ubuntu0.2"}, "nginx", "keepalived")
	for name, text := range webFiles(false) {
		if _, err := m.Host.Stat(name); err == nil && name == nginxFile {
			continue // a configuration file that was changed stays
		}
		if err := m.Host.WriteFile(name, []byte(text), 0o644); err != nil {
			return err
		}
	}
	if first && m.mayStart("nginx") {
		s.restart(m, "nginx")
	}
	return nil
}

// cmdNginx is the nginx of a machine.
func (s *Site) cmdNginx(ctx context.Context, p *host.Proc) int {
	if s.opt.Nginx == nil {
		return p.Refusef("nginx in a site without one")
	}
	m := s.of(p)
	s.mu.Lock()
	if m.web == nil {
		m.web = s.opt.Nginx(m.label, func(ctx context.Context, to string) (net.Conn, error) { return s.Dial(ctx, m, to) })
	}
	web := m.web
	s.mu.Unlock()
	return web.Command(ctx, p)
}

// webListens reports whether a page of a machine is answered. Site.mu is held.
func (s *Site) webListens(m *Machine, port int) bool {
	if m.web == nil {
		return false
	}
	servers, ok := m.web.Behind(port)
	return ok && (len(servers) == 0 || slices.ContainsFunc(servers, func(to string) bool {
		a, err := netip.ParseAddrPort(to)
		if err != nil {
			return false
		}
		far, err := s.reach(m, a.Addr())
		return err == nil && far.super != nil && far.super.listens(int(a.Port()))
	}))
}
