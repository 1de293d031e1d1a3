package firstbox

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/upgradectl/upgradectl/internal/sim/host"
)

const (
	namedFile     = "/etc/bind/named.conf"
	zoneFile      = "/etc/bind/db.lab.example"
	routerFile    = "/var/lib/bind/db.router.lab.example"
	handZoneFile  = "/etc/bind/db.ops.example"
	routerName    = "r-4k7x0q.router.lab.example"
	namedLocal    = "/etc/bind/named.conf.local"
	namedOptions  = "/etc/bind/named.conf.options"
	bindUser      = "bind"
	bindDirectory = "/etc/bind"
)

func dnsPackages(*Site) []string { return []string{"pitrix-ks-dnsmaster", "bind9", "keepalived"} }

// dnsFronts are names that are asked for: of the site, of a router, which comes
// by a dynamic update, and of a zone that somebody has added by hand.
func dnsFronts(*Site) []Front {
	return []Front{
		{Name: "console", Port: 53, Asks: "console.lab.example"},
		{Name: "a router", Port: 53, Asks: routerName},
		{Name: "a zone made by hand", Port: 53, Asks: "wiki.ops.example"},
	}
}

// zoneText is a zone with its SOA, NS and further records.
func zoneText(origin string, serial int, records ...string) string {
	return fmt.Sprintf("$ORIGIN %[1]s.\n$TTL 300\n@\tIN\tSOA\tdnsmaster0.lab.example. root.lab.example. ( %[2]d 3600 600 86400 300 )\n\tIN\tNS\tdnsmaster0.lab.example.\n\tIN\tNS\tdnsmaster1.lab.example.\n", origin, serial) + strings.Join(append(records, ""), "\n")
}

// dnsFiles are what the package brings; of the routers' zone an empty one.
func dnsFiles() map[string]string {
	return map[string]string{
		namedFile:    "// of the package\ninclude \"" + namedOptions + "\";\ninclude \"" + namedLocal + "\";\n",
		namedOptions: "options {\n\tdirectory \"/var/cache/bind\";\n\tlisten-on { any; };\n\tallow-query { any; };\n\tallow-transfer { 192.0.2.41; 192.0.2.42; };\n\trecursion no;\n};\n",
		namedLocal: "zone \"lab.example\" {\n\ttype master;\n\tfile \"" + zoneFile + "\";\n};\n\n" +
			"zone \"router.lab.example\" {\n\ttype master;\n\tfile \"" + routerFile + "\";\n\tallow-update { 192.0.2.0/24; };\n};\n",
		zoneFile: zoneText("lab.example", 2018030101, "dnsmaster0\tIN\tA\t192.0.2.41", "dnsmaster1\tIN\tA\t192.0.2.42",
			"console\tIN\tA\t"+ProxyVIP, "boss\tIN\tA\t"+ProxyVIP),
		routerFile: zoneText("router.lab.example", 1),
	}
}

// agedDNS is an old name server: routers have entered themselves, and there is
// a zone that no package knows of.
func agedDNS(*Site) map[string]string {
	files := dnsFiles()
	files[namedLocal] += "\n// made by hand: names of the operations network\nzone \"ops.example\" {\n\ttype master;\n\tfile \"" + handZoneFile + "\";\n};\n"
	files[routerFile] = zoneText("router.lab.example", 214, "r-4k7x0q\tIN\tA\t10.80.1.1", "r-9zz01c\tIN\tA\t10.80.2.1")
	files[handZoneFile] = zoneText("ops.example", 7, "wiki\tIN\tA\t10.90.0.8")
	return files
}

// bindUID is the user that named runs as.
const bindUID = 107

// configureDNS is the post-installation of the name server. keepalived comes
// with it and has no configuration.
func (s *Site) configureDNS(m *Machine, _ string) error {
	first := m.bring(map[string]string{"bind9": "1:9.10.3.dfsg.P4-8ubuntu1.19", "keepalived": "1:1.2.19-1ubuntu0.2"}, "bind9", "keepalived")
	if !first {
		return nil
	}
	for name, text := range dnsFiles() {
		if err := m.Host.WriteFile(name, []byte(text), 0o644); err != nil {
			return err
		}
	}
	if status, out, err := m.Host.Run(s.ctx, "chown -R bind:bind /etc/bind /var/lib/bind"); err != nil || status != 0 {
		return fmt.Errorf("chown: %s %w", out, err)
	}
	if m.mayStart("bind9") {
		s.restart(m, "bind9")
	}
	return nil
}

// cmdNamed is named -f -u bind, as its unit starts it.
func (s *Site) cmdNamed(ctx context.Context, p *host.Proc) int {
	m := s.of(p)
	if strings.Join(p.Args[1:], " ") != "-f -u "+bindUser {
		return p.Refusef("only named -f -u bind")
	}
	// It gives its rights up before it reads a file.
	if _, out, err := m.Host.Run(ctx, "stat -c %U "+bindDirectory); err != nil || strings.TrimSpace(string(out)) != bindUser {
		return p.Failf(1, "none:0: open: %s: permission denied", namedFile)
	}
	z, errs := loadZones(p.Host.ReadFile, namedFile)
	for _, e := range errs {
		p.Host.Refuse(namedFile, e)
	}
	if z == nil {
		return p.Failf(1, "loading configuration: failure")
	}
	d, err := p.Spawn(host.Process{Args: []string{"/usr/sbin/named", "-f", "-u", bindUser}, Ports: []int{53}})
	if err != nil {
		return p.Failf(1, "could not listen on port 53: %v", err)
	}
	s.mu.Lock()
	m.dns = z
	s.mu.Unlock()
	select {
	case <-ctx.Done():
	case <-d.Done():
	}
	d.Exit()
	s.mu.Lock()
	if m.dns == z {
		m.dns = nil
		m.cut("named of " + m.label + " ended")
	}
	s.mu.Unlock()
	return 0
}

// cmdNamedCheckconf is named-checkconf [-p] [-x] [-z].
func (s *Site) cmdNamedCheckconf(_ context.Context, p *host.Proc) int {
	is, rest, bad := options(p.Args[1:], "pxz", "")
	if bad != "" || len(rest) > 0 {
		return p.Refusef("option %s", bad)
	}
	tree, err := readNamed(p.Host.ReadFile, namedFile)
	if err != nil {
		fmt.Fprintln(p.Stdout, err)
		return 1
	}
	if is['p'] != "" {
		fmt.Fprint(p.Stdout, canonical(tree, "", is['x'] != ""))
	}
	if is['z'] == "" {
		return 0
	}
	z, errs := loadZones(p.Host.ReadFile, namedFile)
	for _, e := range errs {
		fmt.Fprintln(p.Stdout, e)
	}
	if z != nil {
		for _, one := range z.list {
			fmt.Fprintf(p.Stdout, "zone %s/IN: loaded serial %d\n", one.origin, one.soa.Serial)
		}
	}
	return b2i(len(errs) > 0)
}

// cmdNamedCompilezone is named-compilezone -q -i none -k ignore -n ignore -o -
// ZONE FILE: the records, one a line.
func (s *Site) cmdNamedCompilezone(_ context.Context, p *host.Proc) int {
	is, rest, bad := options(p.Args[1:], "q", "ikno")
	if bad != "" || len(rest) != 2 || is['o'] != "-" || is['i'] != "none" || is['k'] != "ignore" || is['n'] != "ignore" {
		return p.Refusef("only named-compilezone -q -i none -k ignore -n ignore -o - ZONE FILE")
	}
	data, err := p.Host.ReadFile(p.Path(rest[1]))
	if err != nil {
		return p.Failf(1, "zone %s/IN: loading from master file %s failed: file not found", rest[0], rest[1])
	}
	z, err := parseZone(strings.ToLower(rest[0]), string(data))
	if err != nil {
		return p.Failf(1, "zone %s/IN: loading from master file %s failed: %v", rest[0], rest[1], err)
	}
	for _, r := range z.records {
		value := ""
		switch r.kind {
		case dnsmessage.TypeA:
			value = "A " + r.addr.String()
		case dnsmessage.TypeNS:
			value = "NS " + r.target + "."
		case dnsmessage.TypeSOA:
			value = fmt.Sprintf("SOA %s %s %d %d %d %d %d", z.soa.NS, z.soa.MBox, z.soa.Serial, z.soa.Refresh, z.soa.Retry, z.soa.Expire, z.soa.MinTTL)
		}
		fmt.Fprintf(p.Stdout, "%-30s 300 IN %s\n", r.name+".", value)
	}
	return 0
}

// cmdRndc is rndc sync [-clean], reload and status: what is in memory is on
// disk here.
func (s *Site) cmdRndc(_ context.Context, p *host.Proc) int {
	m := s.of(p)
	s.mu.Lock()
	running := m.dns != nil
	s.mu.Unlock()
	switch strings.Join(p.Args[1:], " ") {
	case "sync", "sync -clean", "status":
	default:
		return p.Refusef("only rndc sync [-clean] and status")
	}
	if !running {
		return p.Failf(1, "rndc: connect failed: 127.0.0.1#953: connection refused")
	}
	return 0
}

// serveDNS answers questions over TCP (RFC 7766) until the connection ends.
func (s *Site) serveDNS(m *Machine, from netip.Addr, c net.Conn) {
	for {
		var size [2]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		question := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(c, question); err != nil {
			return
		}
		s.mu.Lock()
		z := m.dns
		s.mu.Unlock()
		if z == nil {
			return
		}
		out, err := z.answer(from, question)
		if err != nil {
			return
		}
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...)); err != nil {
			return
		}
	}
}

// answer is the answer of an authoritative server that knows no others.
func (z *zones) answer(from netip.Addr, question []byte) ([]byte, error) {
	var p dnsmessage.Parser
	h, err := p.Start(question)
	if err != nil {
		return nil, err
	}
	q, err := p.Question()
	if err != nil {
		return nil, err
	}
	name := strings.ToLower(strings.TrimSuffix(q.Name.String(), "."))
	zone := z.of(name)
	h = dnsmessage.Header{ID: h.ID, Response: true, RecursionDesired: h.RecursionDesired}
	var list []record
	switch {
	case zone == nil || !z.allows(from):
		h.RCode = dnsmessage.RCodeRefused
	default:
		h.Authoritative = true
		known := false
		for _, r := range zone.records {
			if r.name == name {
				known = true
				if r.kind == q.Type {
					list = append(list, r)
				}
			}
		}
		if !known {
			h.RCode = dnsmessage.RCodeNameError
		}
	}
	b := dnsmessage.NewBuilder(nil, h)
	if err := b.StartQuestions(); err != nil {
		return nil, err
	}
	if err := b.Question(q); err != nil {
		return nil, err
	}
	if err := b.StartAnswers(); err != nil {
		return nil, err
	}
	for _, r := range list {
		head := dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: 300}
		switch r.kind {
		case dnsmessage.TypeA:
			err = b.AResource(head, dnsmessage.AResource{A: r.addr.As4()})
		case dnsmessage.TypeNS:
			err = b.NSResource(head, dnsmessage.NSResource{NS: dnsmessage.MustNewName(r.target + ".")})
		case dnsmessage.TypeSOA:
			err = b.SOAResource(head, zone.soa)
		}
		if err != nil {
			return nil, err
		}
	}
	return b.Finish()
}
