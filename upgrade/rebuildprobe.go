package upgrade

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/upgradectl/upgradectl/pitrix"
)

// What clients ask for at the floating address, asked from the firstbox: pages
// over HTTP, or the zones of name servers.

// discoverAnswers learns what must answer at the floating address, and which
// of the old machines answer at their own address as well.
func (r *rebuild) discoverAnswers(ctx context.Context, f *RebuildFacts, scripts pitrix.Scripts) error {
	switch r.role.answers {
	case answersZones:
		if err := r.discoverZones(ctx, f); err != nil {
			return err
		}
	default:
		if err := r.discoverPages(ctx, f, scripts); err != nil {
			return err
		}
	}
	if err := r.answered(ctx, r.c.VIP, f); err != nil {
		if ctx.Err() != nil {
			return err
		}
		f.problem("before anything begins: %v", err)
		return nil
	}
	for i := range f.Nodes {
		f.Nodes[i].Direct = r.answered(ctx, f.Nodes[i].Final, f) == nil
	}
	return ctx.Err()
}

func (r *rebuild) discoverPages(ctx context.Context, f *RebuildFacts, scripts pitrix.Scripts) error {
	for _, w := range r.c.Console {
		u, err := url.Parse(w)
		if err != nil {
			return err
		}
		f.Scheme = u.Scheme
		f.Console = append(f.Console, u.Hostname())
	}
	if len(r.c.Console) > 0 {
		return nil
	}
	hosts, err := r.firstbox().Console(ctx, scripts)
	if err != nil {
		return fmt.Errorf("firstbox %s: %w", r.cfg.Host, err)
	}
	for _, h := range hosts {
		listed := h.Address.String() == r.c.VIP
		if r.role.answers == answersPages && !listed {
			one := &RebuildFacts{Scheme: f.Scheme, Console: []string{h.Name}}
			listed = r.answered(ctx, r.c.VIP, one) == nil
		}
		if listed {
			f.Console = append(f.Console, h.Name)
		}
	}
	if len(f.Console) == 0 {
		f.problem("nothing is known to answer at %s: dump_hosts.py lists no name that does; name the URLs in rebuild.console", r.c.VIP)
	}
	return ctx.Err()
}

// maxZones bounds the zones that are asked for again and again; the contents of
// all are compared in 6.3.
const maxZones = 16

func (r *rebuild) discoverZones(ctx context.Context, f *RebuildFacts) error {
	for i := range f.Nodes {
		n := &f.Nodes[i]
		blocks, err := bindBlocks(ctx, r.at(n.Final))
		if err != nil {
			return fmt.Errorf("old %s: %w", n.Name, err)
		}
		for _, z := range bindZones(blocks) {
			if z.serves() && !slices.Contains(f.Zones, z.name) {
				f.Zones = append(f.Zones, z.name)
			}
		}
	}
	slices.Sort(f.Zones)
	if len(f.Zones) == 0 {
		f.problem("nothing is known to answer at %s: no named.conf of an old machine has a zone of its own", r.c.VIP)
	}
	f.Zones = f.Zones[:min(len(f.Zones), maxZones)]
	return nil
}

// asks names what is asked for, for people.
func (f *RebuildFacts) asks() string {
	return strings.Join(append(slices.Clone(f.Console), f.Zones...), ", ")
}

// answered asks for everything at an address.
func (r *rebuild) answered(ctx context.Context, address string, f *RebuildFacts) error {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return err
	}
	bad := r.pagesAnswered(ctx, a, f)
	if len(f.Zones) > 0 {
		if err := r.zonesAnswered(ctx, a, f.Zones); err != nil {
			bad = append(bad, err.Error())
		}
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case len(bad) > 0:
		return errors.New("clients get no answer: " + strings.Join(bad, "; "))
	}
	return nil
}

func (r *rebuild) pagesAnswered(ctx context.Context, a netip.Addr, f *RebuildFacts) (bad []string) {
	var hosts []pitrix.ConsoleHost
	for _, name := range f.Console {
		hosts = append(hosts, pitrix.ConsoleHost{Address: a, Name: name})
	}
	for _, p := range pitrix.ProbeConsole(ctx, r.e.host(r.cfg.Host).DialContext, f.Scheme, hosts) {
		if !p.OK() {
			bad = append(bad, fmt.Sprintf("%s://%s/ at %s: status %d %s", f.Scheme, p.Host.Name, a, p.Status, p.Err))
		}
	}
	return bad
}

const dnsTimeout = 10 * time.Second

// zonesAnswered asks a name server for the SOA of every zone, over one
// connection (RFC 7766). Each answer has to be the server's own.
func (r *rebuild) zonesAnswered(ctx context.Context, a netip.Addr, zones []string) error {
	ctx, cancel := context.WithTimeout(ctx, dnsTimeout)
	defer cancel()
	c, err := r.e.host(r.cfg.Host).DialContext(ctx, "tcp", net.JoinHostPort(a.String(), "53"))
	if err != nil {
		return fmt.Errorf("name server %s: %w", a, err)
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })() // an SSH channel has no deadlines
	for i, zone := range zones {
		if err := askZone(c, uint16(i+1), zone); err != nil {
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			return fmt.Errorf("name server %s, zone %s: %w", a, zone, err)
		}
	}
	return nil
}

// askZone asks for the SOA of a zone.
func askZone(c io.ReadWriter, id uint16, zone string) error {
	name, err := dnsmessage.NewName(zone + ".")
	if err != nil {
		return err
	}
	question := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id},
		Questions: []dnsmessage.Question{{Name: name, Type: dnsmessage.TypeSOA, Class: dnsmessage.ClassINET}},
	}
	b, err := question.AppendPack(make([]byte, 2, 512))
	if err != nil {
		return err
	}
	binary.BigEndian.PutUint16(b, uint16(len(b)-2))
	if _, err := c.Write(b); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, b[:2]); err != nil {
		return err
	}
	answer := make([]byte, binary.BigEndian.Uint16(b[:2]))
	if _, err := io.ReadFull(c, answer); err != nil {
		return err
	}
	var p dnsmessage.Parser
	h, err := p.Start(answer)
	if err != nil {
		return fmt.Errorf("unreadable answer: %w", err)
	}
	switch {
	case h.ID != id || !h.Response:
		return errors.New("the answer is to another question")
	case h.RCode != dnsmessage.RCodeSuccess:
		return fmt.Errorf("answer %s", strings.TrimPrefix(h.RCode.String(), "RCode"))
	case !h.Authoritative:
		return errors.New("the answer is not the server's own: the zone is not loaded")
	}
	if err := p.SkipAllQuestions(); err != nil {
		return fmt.Errorf("unreadable answer: %w", err)
	}
	rr, err := p.AnswerHeader()
	if err != nil || rr.Type != dnsmessage.TypeSOA {
		return errors.New("the answer has no SOA")
	}
	return nil
}
