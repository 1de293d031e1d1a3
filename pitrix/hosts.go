package pitrix

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Hosts is what lines of /etc/hosts say: by name the addresses, in the order of
// the lines, each once.
type Hosts map[string][]netip.Addr

// ParseHosts reads lines ADDRESS NAME…, as in the hosts file of the built
// package pitrix-hosts; name is what problems are reported with. The error is
// of type Problems.
func ParseHosts(name string, src []byte) (Hosts, error) {
	hosts := Hosts{}
	var problems Problems
	line := 0
	for text := range strings.Lines(string(src)) {
		line++
		code, _, _ := strings.Cut(text, "#")
		words := strings.Fields(code)
		if len(words) == 0 {
			continue
		}
		col := strings.Index(text, words[0]) + 1
		add := func(format string, args ...any) {
			problems = append(problems, Problem{File: name, Line: line, Col: col, Rule: RuleSyntax, Text: fmt.Sprintf(format, args...)})
		}
		a, err := netip.ParseAddr(words[0])
		switch {
		case err != nil:
			add("%q is not an address; a line is ADDRESS NAME …", words[0])
		case len(words) == 1:
			add("%s has no name; a line is ADDRESS NAME …", a)
		}
		if err != nil {
			continue
		}
		for _, n := range words[1:] {
			if !slices.Contains(hosts[n], a) {
				hosts[n] = append(hosts[n], a)
			}
		}
	}
	if len(problems) > 0 {
		return nil, problems
	}
	return hosts, nil
}

// CheckHosts compares what the built package maps the nodes' hostnames to with
// the settings: every name of a node, NAME and NAME.mgmt.DOMAIN, has to have
// just its mgmt_network_address. The package holds what the settings said when
// it was built, not what they say now. Problems have the position of the
// settings' address and the rule RuleHosts.
func CheckHosts(hosts Hosts, fleet Fleet, nodes ...string) []Problem {
	c := &checker{}
	full := map[string][]string{} // hostname → its names with .mgmt.
	for name := range hosts {
		if short, _, ok := strings.Cut(name, ".mgmt."); ok {
			full[short] = append(full[short], name)
		}
	}
	for _, name := range nodes {
		s := fleet[name]
		if s == nil {
			c.problems = append(c.problems, Problem{File: name, Line: 1, Col: 1, Rule: RuleHosts, Text: "there is no settings file of this name; name a node that is there"})
			continue
		}
		n := &node{name: name, s: s}
		want := n.get("mgmt_network_address")
		for _, hostname := range append([]string{name}, slices.Sorted(slices.Values(full[name]))...) {
			have := make([]string, len(hosts[hostname]))
			for i, a := range hosts[hostname] {
				have[i] = a.String()
			}
			if !slices.Equal(have, []string{want}) {
				c.add(n, RuleHosts, "mgmt_network_address", "%s, but the built package maps %s to %s; build pitrix-hosts again before it is installed", want, hostname, list(have))
			}
		}
	}
	sortProblems(c.problems)
	return c.problems
}
