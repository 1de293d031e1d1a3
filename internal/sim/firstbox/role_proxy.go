package firstbox

import (
	"fmt"
	"slices"
)

func proxyPackages(s *Site) []string {
	list := []string{"pitrix-ks-proxy", "haproxy", "keepalived"}
	for _, o := range []struct {
		on   bool
		name string
	}{{s.cfg.Boss, "pitrix-ks-proxy-boss"}, {s.cfg.Boss2, "pitrix-ks-proxy-boss2"}, {s.cfg.Warehouse, "pitrix-ks-proxy-warehouse"}} {
		if o.on {
			list = append(list, o.name)
		}
	}
	return list
}

// proxyFronts are the generated front ends, one that somebody made by hand, and
// one behind the VM network.
func proxyFronts(*Site) []Front {
	return []Front{
		{Name: "console-front", Port: 80}, {Name: "api-front", Port: 7777}, {Name: "ws-front", Port: 8565},
		{Name: "lab1b-fg-front", Port: 8666}, {Name: "lab1a-metad", Port: 9611}, {Name: "io-front", Port: 8000, Stream: true},
	}
}

// cfgLine is a front end of haproxy.cfg.
type cfgLine struct {
	name, balance, server string
	port, to              int
	addrs                 []string
}

// frontEnds are those that the package generates: local ones, whatever the
// site is.
func (s *Site) frontEnds(packages []string) []cfgLine {
	web := []string{"192.0.2.65", "192.0.2.66"}
	list := []cfgLine{
		{"website", "roundrobin", "website", 8081, 8081, web},
		{"console-front", "roundrobin", "webconsole", 80, 80, web},
		{"api-front", "roundrobin", "apiserver", 7777, 7777, web},
		{"ws-front", "roundrobin", "ws_server", 8565, 8565, web},
		{"io-front", "roundrobin", "io_server", 8000, 8000, web},
		{"lab1a-metad", "roundrobin", "metad", 9611, 9611, []string{vmService}},
	}
	if slices.Contains(packages, "pitrix-ks-proxy-warehouse") {
		list = append(list, cfgLine{"warehouse-front", "roundrobin", "warehouse", 8856, 7756, web})
	}
	if slices.Contains(packages, "pitrix-ks-proxy-boss2") {
		list = append(list, cfgLine{"boss2-warehouse-front", "roundrobin", "boss2_warehouse", 8857, 7757, web})
	}
	if slices.Contains(packages, "pitrix-ks-proxy-boss") {
		list = append(list, cfgLine{"boss-front", "roundrobin", "boss", 8858, 7758, web})
	}
	return list
}

const haproxyHead = `global
    log 127.0.0.1 local0
    maxconn 65536
    user haproxy
    group haproxy
    daemon

defaults
    log global
    mode tcp
    option redispatch
    retries 3
    timeout connect 5s
    timeout client 1h
    timeout server 1h
`

// oldHAProxy is the file of the old proxies: in the old spelling, with what
// people changed by hand.
func (s *Site) oldHAProxy() string {
	list := s.frontEnds(proxyPackages(s))
	if s.cfg.Sub {
		for i, l := range list {
			if slices.Contains([]string{"api-front", "ws-front", "io-front"}, l.name) {
				list[i].addrs = []string{globalSite}
			}
		}
	}
	text := haproxyHead
	for _, l := range list {
		text += fmt.Sprintf("\nlisten %s 0.0.0.0:%d\n    mode tcp\n    balance %s\n", l.name, l.port, l.balance)
		text += l.servers()
	}
	hand := cfgLine{"lab1b-fg-front", "source", "fg_server", 8666, 8665, []string{"192.0.2.65", "192.0.2.66"}}
	return text + fmt.Sprintf("\n# made by hand: front end of the sub zone\nlisten %s 0.0.0.0:%d\n    mode tcp\n    balance %s\n", hand.name, hand.port, hand.balance) + hand.servers()
}

func (l cfgLine) servers() string {
	text := ""
	for i, a := range l.addrs {
		text += fmt.Sprintf("    server %s_%d %s:%d check\n", l.server, i, a, l.to)
	}
	return text
}

// newHAProxy is what the package writes today.
func (s *Site) newHAProxy(packages []string) string {
	text := haproxyHead
	for _, l := range s.frontEnds(packages) {
		text += fmt.Sprintf("\nlisten %s\n    bind 0.0.0.0:%d\n    mode tcp\n    balance %s\n", l.name, l.port, l.balance) + l.servers()
	}
	return text
}

// configureProxy is the post-installation of the proxy packages: it writes
// the files anew, whatever stands in them, and starts everything.
func (s *Site) configureProxy(m *Machine, pkg string) error {
	first := m.bring(map[string]string{"haproxy": "1.6.3-1ubuntu0.1", "keepalived": "1:1.2.19-1ubuntu0.2"}, "haproxy", "keepalived")
	var packages []string
	for name := range m.installed() {
		packages = append(packages, name)
	}
	if err := m.Host.WriteFile(haproxyFile, []byte(s.newHAProxy(packages)), 0o644); err != nil {
		return err
	}
	if pkg == "pitrix-ks-proxy" {
		priority := 100
		if m.Name == "proxy0" {
			priority = 110
		}
		if err := m.Host.WriteFile(keepalivedFile, []byte(keepalivedText("proxy", roles["proxy"].router, priority, ProxyVIP)), 0o644); err != nil {
			return err
		}
	}
	for _, name := range []string{"haproxy", "keepalived"} {
		if !m.mayStart(name) || name == "keepalived" && pkg != "pitrix-ks-proxy" {
			continue
		}
		if name == "haproxy" && !first {
			if err := s.reloadHAProxy(m); err != nil {
				return err
			}
			continue
		}
		s.restart(m, name)
	}
	return nil
}
