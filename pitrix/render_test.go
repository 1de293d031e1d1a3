package pitrix_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/pitrix"
)

var templateValues = map[string]string{
	"is_region": "0", "region_id": "", "zone_id": "lab1a", "firstbox_address": "192.0.2.2",
	"cpu_arch": "x86_64", "cpu_cores": "4", "memory_size": "8000", "os_name": "xenial", "os_version": "16.04.5",
	"hostname": "proxy0", "mgmt_network_address": "192.0.2.61", "mgmt_network_netmask": "255.255.255.0",
	"mgmt_network_gateway": "192.0.2.254", "vg_mgmt_network_gateway": "192.0.2.21", "mgmt_network_dns_servers": "192.0.2.41 192.0.2.42",
	"mgmt_network_mac_address": "00:16:3e:1a:07:c1", "mgmt_network_routing_rule": "", "vm_base_network": "10.80.0.0/16",
	"eip_network_address": "2.2.2.2", "eip_network_netmask": "255.255.255.0", "eip_network_gateway": "2.2.2.1",
	"eip_network_mac_address": "00:16:3e:5b:90:0e", "physical_host": "192.0.2.102",
	"physical_host_network_interface": "br0", "physical_host_eip_network_interface": "br1",
}

func fill(template []byte, change map[string]string) map[string]string {
	out := map[string]string{}
	for _, name := range pitrix.Placeholders(template) {
		if v, ok := templateValues[name]; ok {
			out[name] = v
		}
		if v, ok := change[name]; ok {
			out[name] = v
		}
	}
	return out
}

// Each template gives a node that passes every rule, and bash reads it as we do.
func TestTemplate(t *testing.T) {
	for _, role := range []string{"proxy", "webservice", "dnsmaster"} {
		for _, vg := range []bool{false, true} {
			text, err := pitrix.Template(role, vg)
			require.NoError(t, err)
			assert.Equal(t, role == "proxy" && vg, strings.Contains(string(text), "## Eip Network"), "%s %t", role, vg)
			f := pitrix.Fleet{}
			physical := "192.0.2.102"
			host(t, f, "lab1ar01n01", "TBD", "192.0.2.101")
			if vg {
				physical = "192.0.2.22"
				host(t, f, "lab1ar01n03", "vgateway", physical)
			}
			host(t, f, "lab1ar01n02", "TBD", "192.0.2.102")
			name := role + "0"
			f[name], err = pitrix.Render(name, text, fill(text, map[string]string{"hostname": name, "physical_host": physical}))
			require.NoError(t, err)
			assert.Empty(t, pitrix.CheckFleet(f), "%s %t", role, vg)
			t.Run(fmt.Sprintf("%s %t as bash", role, vg), func(t *testing.T) { sameAsBash(t, realBash(t), f[name]) })
		}
	}
	_, err := pitrix.Template("boss", true)
	assert.ErrorContains(t, err, "derive from an existing file")
}

func TestRender(t *testing.T) {
	s, err := pitrix.Render("proxy0", []byte("# {{name}} \xff\na=\"{{ x }} {{x}}\" # {{ y }}\nb={{ y }}\nc='{{ z }}'\n"),
		map[string]string{"name": "it's $x", "x": "1 2", "y": "3", "z": ""})
	require.NoError(t, err)
	assert.Equal(t, "# it's $x \xff\na=\"1 2 1 2\" # 3\nb=3\nc=''\n", string(s.Bytes()))

	for _, tt := range []struct {
		template string
		values   map[string]string
		want     string // at and text
	}{
		{"a=\"{{ x }}\"\n", nil, "1:4: x: {{ x }} has no value"},
		{"\n# {{ x }}\n", nil, "2:3: x: {{ x }} has no value"},
		{"a=\"1\"\n", map[string]string{"x": "1"}, "1:1: x: the template has no {{ x }}"},
		{"a=\"{{ x }}\"\n", map[string]string{"x": "$(reboot)"}, "1:4: x: the value holds a command"},
		{"a=\"{{ x }}\"\n", map[string]string{"x": "a\nb"}, "1:4: x: the value has a control character"},
		{"# {{ x }}\n", map[string]string{"x": "a\nreboot"}, "1:3: x: the value has a line end"},
		{"a=\"{{ x }}\"\n", map[string]string{"x": "a\"; reboot; b=\""}, "1:4: x: the value has a quote"},
		{"a=\"{{ x }}\"\n", map[string]string{"x": "$HOME"}, "1:4: x: the value has a quote, a backslash or a dollar"},
		{"a=\"{{ x }}\"\n", map[string]string{"x": "{{ y }}"}, "1:4: x: the template's {{ }} is not filled in"},
		{"a={{ x }}\n", map[string]string{"x": "1 # note"}, "1:3: x: the value needs quotes around it"},
		{"a={{ x }}\n", map[string]string{"x": "~"}, "1:3: x: the value needs quotes around it"},
		{"a=\"{{ x-y }}\"\n", nil, "1:4: a: the template's {{ }} is not filled in"},
		{"a=\"{{ }}\"\n", nil, "1:4: a: the template's {{ }} is not filled in"},
		{"a = \"{{ x }}\"\n", map[string]string{"x": "1"}, "1:1: blanks before the ="},
	} {
		s, err := pitrix.Render("conf/proxy0", []byte(tt.template), tt.values)
		assert.Nil(t, s)
		if assert.Error(t, err, "%q", tt.template) {
			assert.Contains(t, err.Error(), "conf/proxy0:"+tt.want)
			assert.NotContains(t, err.Error(), "\n", "one problem")
		}
	}
	// All at once, in their order.
	_, err = pitrix.Render("f", []byte("a=\"{{ x }}\"\nb=\"{{ y }}\"\n"), map[string]string{"y": "`z`"})
	assert.Regexp(t, `^f:1:4: x: .*\nf:2:4: y: `, err.Error())
}

// Whatever the values: the file is refused, or every value reads back as given
// and nothing else changed.
func FuzzRender(f *testing.F) {
	for _, v := range editValues {
		f.Add(v, "plain")
	}
	f.Add("a", "x #y")
	f.Fuzz(func(t *testing.T, a, b string) {
		s, err := pitrix.Render("f", []byte("## {{ t }}\na=\"<{{ a }}>\"\nb={{ b }}\nc='{{ a }}' # {{ a }}\n"), map[string]string{"a": a, "b": b, "t": "T"})
		if err != nil {
			t.Skip("refused: fine; another value is not")
		}
		require.Equal(t, "<"+a+">", get(s, "a"))
		require.Equal(t, b, get(s, "b"))
		require.Equal(t, a, get(s, "c"))
		require.Equal(t, []string{"a", "b", "c"}, s.Keys())
		require.Len(t, strings.Split(string(s.Bytes()), "\n"), 5)
	})
}
