package upgrade

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRebuildConfig(t *testing.T) {
	got, err := LoadConfig(filepath.Join("testdata", "config", "rebuild.yaml"))
	require.NoError(t, err)
	dir, err := filepath.Abs(filepath.Join("testdata", "config"))
	require.NoError(t, err)
	assert.Equal(t, &Config{
		Dir: dir, Version: 1, Procedure: ProcedureRebuild, Host: "root@192.0.2.2",
		SSH:   SSHConfig{Config: filepath.Join(dir, "ssh_config"), KnownHosts: []string{filepath.Join(dir, "known_hosts")}},
		Gates: []string{"7.1", "7.2", "9.2"},
		Pace:  Pace{Poll: 3 * time.Second, Sample: time.Second, Observe: 10, Healthy: 3, Timeout: 30 * time.Minute, JobTimeout: 3 * time.Hour, CloudTimeout: 2 * time.Hour},
		Rebuild: &RebuildConfig{
			Strategy: StrategySideBySide, Role: "proxy", OSName: "xenial", OSVersion: "16.04.5", VIP: "192.0.2.60", SSH: "root@{address}",
			Nodes: []RebuildNode{
				{Name: "proxy0", Address: "192.0.2.161", PhysicalHost: "192.0.2.103", EIP: "2.2.2.2", Bridge: "br0", EIPBridge: "br1"},
				{Name: "proxy1", Address: "192.0.2.162", PhysicalHost: "192.0.2.104", Netmask: "255.255.255.0", Gateway: "192.0.2.254"},
			},
			Console: []string{"https://console.lab.example/"}, Soak: 24 * time.Hour,
		},
	}, got)
}

func TestRebuildConfigProblem(t *testing.T) {
	const head = "version: 1\nprocedure: rebuild\nhost: fb\n"
	const rebuild = head + "rebuild:\n  role: proxy\n  os_name: xenial\n  os_version: 16.04.5\n  vip: 192.0.2.60\n"
	const inPlace = rebuild + "  strategy: in-place\n"
	const node = "  nodes: [{name: proxy0, address: 192.0.2.161, physical_host: 192.0.2.103}]\n"
	for name, tt := range map[string]struct{ src, want string }{
		"good":              {rebuild + node, ""},
		"nothing":           {head, "f:1:1: rebuild: is missing: what is rebuilt"},
		"key of others":     {rebuild + node + "nginx: []\n", `f:10:1: nginx: unknown key; known are version, procedure, host, ssh, rebuild, gates, approvals, pace`},
		"role":              {head + "rebuild:\n  role: proxi\n  os_name: xenial\n  os_version: 16.04.5\n" + node, `f:5:9: rebuild.role: "proxi" is not one of proxy, webservice, dnsmaster; did you mean "proxy"?`},
		"no vip":            {head + "rebuild:\n  role: proxy\n  os_name: xenial\n  os_version: 16.04.5\n" + node, "f:5:3: rebuild.vip: is missing: nodes of this role have a floating address"},
		"no vip needed":     {head + "rebuild:\n  role: webservice\n  os_name: xenial\n  os_version: 16.04.5\n" + node, ""},
		"no nodes":          {rebuild, "f:5:3: rebuild.nodes: is missing: the nodes that are rebuilt"},
		"empty nodes":       {rebuild + "  nodes: []\n", "f:9:10: rebuild.nodes: is empty: name the nodes that are rebuilt"},
		"no host":           {rebuild + "  nodes: [{name: proxy0, address: 192.0.2.161}]\n", "f:9:11: rebuild.nodes[0].physical_host: is missing: the management address of the host that gets the new machine"},
		"option as name":    {rebuild + "  nodes: [{name: -f, address: 192.0.2.161, physical_host: 192.0.2.103}]\n", `f:9:18: rebuild.nodes[0].name: "-f" is not the name of a node: letters, digits and hyphens`},
		"address":           {rebuild + "  nodes: [{name: proxy0, address: fd00::1, physical_host: 192.0.2.103}]\n", `f:9:35: rebuild.nodes[0].address: "fd00::1" is not an IPv4 address`},
		"floating":          {rebuild + "  nodes: [{name: proxy0, address: 192.0.2.60, physical_host: 192.0.2.103}]\n", `f:9:35: rebuild.nodes[0].address: "192.0.2.60" is the floating address; the temporary one is one that nobody uses`},
		"twice the name":    {rebuild + node[:len(node)-2] + ", {name: proxy0, address: 192.0.2.162, physical_host: 192.0.2.104}]\n", `f:9:84: rebuild.nodes[1].name: "proxy0" is the name of two nodes; the first is on line 9`},
		"twice the host":    {rebuild + node[:len(node)-2] + ", {name: proxy1, address: 192.0.2.162, physical_host: 192.0.2.103}]\n", `f:9:129: rebuild.nodes[1].physical_host: "192.0.2.103" is the new host of two nodes; the first is on line 9`},
		"strategy":          {rebuild + node + "  strategy: inplace\n", `f:10:13: rebuild.strategy: "inplace" is not one of side-by-side, in-place; did you mean "in-place"?`},
		"in place":          {inPlace + "  nodes: [{name: proxy0}, {name: proxy1, physical_host: 192.0.2.103, bridge: br1}]\ngates: [7.1.1, 7.2.7, 9.2]\n", ""},
		"no need of it":     {inPlace + "  nodes: [{name: proxy0, address: 192.0.2.161}, {name: proxy1}]\n", `f:10:35: rebuild.nodes[0].address: is of no use in place: the new machine has the addresses of the old one from the beginning; leave it out`},
		"nor of it":         {inPlace + "  nodes: [{name: proxy0}, {name: proxy1, eip: 2.2.2.2}]\n", `f:10:47: rebuild.nodes[1].eip: is of no use in place: the new machine has the addresses of the old one from the beginning; leave it out`},
		"alone":             {inPlace + "  nodes: [{name: proxy0}]\n", `f:10:10: rebuild.nodes: names one node: in place the others of its role serve alone while it is rebuilt; name all of them`},
		"gate side by side": {inPlace + "  nodes: [{name: proxy0}, {name: proxy1}]\ngates: [7.1]\n", `f:11:9: gates[0]: "7.1" is not a section of the procedure; docs/rebuild.md lists them`},
		"target":            {rebuild + node + "  ssh: firstbox\n", `f:10:8: rebuild.ssh: "firstbox" does not hold {address}, which stands for a host's address`},
		"console":           {rebuild + node + "  console: [console.lab.example]\n", `f:10:13: rebuild.console[0]: "console.lab.example" is not a URL of a scheme and a name, such as http://console.example.com/`},
		"gate":              {rebuild + node + "gates: [7.1, 9.2]\n", ""},
		"gate of nobody":    {rebuild + node + "gates: [7.2]\n", `f:10:9: gates[0]: "7.2" is not a section of the procedure; docs/rebuild.md lists them`},
		"gate of another":   {rebuild + node + "gates: [4.4]\n", `f:10:9: gates[0]: "4.4" is not a section of the procedure; docs/rebuild.md lists them`},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := ParseConfig("f", []byte(tt.src))
			if tt.want == "" {
				require.NoError(t, err)
				assert.NotEmpty(t, c.Gates)
				return
			}
			assert.EqualError(t, err, tt.want)
		})
	}
}
