package pitrix

import (
	"bytes"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/upgradectl/upgradectl/internal/textedit"
)

var placeholder = regexp.MustCompile(`\{\{[ \t]*([A-Za-z_][A-Za-z0-9_]*)[ \t]*\}\}`)

// Placeholders returns the names in {{ name }} of a template, in the order of
// their first use, each once.
func Placeholders(template []byte) []string {
	var out []string
	for _, m := range placeholder.FindAllSubmatch(template, -1) {
		if name := string(m[1]); !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// Render fills a template for the file name and parses the result. Problems
// stand at their place in the template, all at once: a {{ name }} without a
// value, a value that no {{ name }} takes, and a value that would not read back
// as it is. Empty values are fine. Bytes outside the {{ }} do not change.
func Render(name string, template []byte, values map[string]string) (*Settings, error) {
	var problems Problems
	at := func(offset int, key, text string) {
		line := 1 + bytes.Count(template[:offset], []byte("\n"))
		col := offset - bytes.LastIndexByte(template[:offset], '\n')
		problems = append(problems, Problem{File: name, Line: line, Col: col, Rule: RuleSyntax, Key: key, Text: text})
	}
	names := Placeholders(template)
	for _, v := range slices.Sorted(maps.Keys(values)) {
		if !slices.Contains(names, v) {
			at(0, v, "the template has no {{ "+v+" }}; correct the name, or leave the value out")
		}
	}
	b := textedit.New(template)
	for _, m := range placeholder.FindAllSubmatchIndex(template, -1) {
		key := string(template[m[2]:m[3]])
		value, ok := values[key]
		if !ok {
			at(m[0], key, "{{ "+key+" }} has no value; give it one, an empty one if need be")
			continue
		}
		lineStart := bytes.LastIndexByte(template[:m[0]], '\n') + 1
		if bytes.HasPrefix(bytes.TrimLeft(template[lineStart:m[0]], " \t"), []byte("#")) {
			// In a comment nothing can be broken but the line.
			if strings.ContainsAny(value, "\r\n") {
				at(m[0], key, "the value has a line end; a value is one line of text")
			}
			b.Replace(m[0], m[1], value)
			continue
		}
		if reason := badValue(value); reason != "" {
			at(m[0], key, reason)
			continue
		}
		if strings.ContainsAny(value, "\"'\\$") {
			at(m[0], key, "the value has a quote, a backslash or a dollar sign, which the template's quotes would read otherwise; render without it and use Set")
			continue
		}
		if !bytes.ContainsAny(template[lineStart:m[0]], "\"'") && strings.ContainsFunc(value, func(r rune) bool { return r >= 0x80 || !bareByte(byte(r)) }) {
			at(m[0], key, "the value needs quotes around it, and the template has none; write KEY=\"{{ "+key+" }}\"")
			continue
		}
		b.Replace(m[0], m[1], value)
	}
	if len(problems) > 0 {
		sortProblems(problems)
		return nil, problems
	}
	src, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("internal error: cannot fill the template of %s: %w", name, err)
	}
	return Parse(name, src) // what is left of {{ is refused here
}

// Template returns a template for the settings of a management VM of the role,
// proxy, webservice or dnsmaster, in a zone with VG nodes or without. It is for
// nodes that have no old file; where there is one, use Derive, which keeps what
// was added to it. Differences between the roles and between zones with and
// without VG nodes are those of R1 to R4.
func Template(role string, vg bool) ([]byte, error) {
	var eip, gateway, mgmtRule, vmRule string
	vmVia := "{{ mgmt_network_gateway }}"
	if vg {
		vmVia = "{{ vg_mgmt_network_gateway }}"
	}
	gateway = "{{ mgmt_network_gateway }}"
	switch role {
	case "proxy":
		vmRule = "ip route add {{ vm_base_network }} src {{ mgmt_network_address }} via " + vmVia
		if vg {
			gateway, mgmtRule = "", "{{ mgmt_network_routing_rule }}"
			eip = `
## Eip Network
eip_network_interface="eth1"
eip_network_address="{{ eip_network_address }}"
eip_network_netmask="{{ eip_network_netmask }}"
eip_network_gateway="{{ eip_network_gateway }}"
eip_network_mac_address="{{ eip_network_mac_address }}"
`
		}
	case "dnsmaster":
		vmRule = "ip route add {{ vm_base_network }} src {{ mgmt_network_address }} via " + vmVia
		if vg {
			gateway = "{{ physical_host }}"
		}
	case "webservice":
	default:
		return nil, fmt.Errorf("there is no template for the role %q; there are some for proxy, webservice and dnsmaster, and others derive from an existing file", role)
	}
	vm := ""
	if vmRule != "" {
		vm = "\n## VM Network\nvm_network_routing_rule=\"" + vmRule + "\"\n"
	}
	eipBridge := ""
	if eip != "" {
		eipBridge = "{{ physical_host_eip_network_interface }}"
	}
	return []byte(`## Role
role="` + role + `"

## Region
is_region="{{ is_region }}"
region_id="{{ region_id }}"
zone_id="{{ zone_id }}"

## Feature
feature_vmnode="on"
feature_ksnode="on"
feature_vgnode="off"
feature_hypernode="off"
feature_conntrack="off"

## Firstbox
firstbox_address="{{ firstbox_address }}"

## General
cpu_arch="{{ cpu_arch }}"
cpu_cores="{{ cpu_cores }}"
memory_size="{{ memory_size }}"
os_name="{{ os_name }}"
os_version="{{ os_version }}"
hostname="{{ hostname }}"

## Mgmt Network
mgmt_network_interface="eth0"
mgmt_network_address="{{ mgmt_network_address }}"
mgmt_network_netmask="{{ mgmt_network_netmask }}"
mgmt_network_gateway="` + gateway + `"
mgmt_network_dns_servers="{{ mgmt_network_dns_servers }}"
mgmt_network_mac_address="{{ mgmt_network_mac_address }}"
mgmt_network_routing_rule="` + mgmtRule + `"
` + vm + eip + `
## Host
physical_host="{{ physical_host }}"
physical_host_network_interface="{{ physical_host_network_interface }}"
physical_host_eip_network_interface="` + eipBridge + `"
`), nil
}
