package pitrix

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/testenv"
)

func TestReadFirstbox(t *testing.T) {
	b := newBox(t)
	b.write("pitrix/conf/settings/.hidden", "not for scripts")
	require.NoError(t, os.Mkdir(b.path("pitrix/conf/settings/dir"), 0o755))
	fleet, err := b.ReadFleet(t.Context())
	require.NoError(t, err)
	assert.Len(t, fleet, 3)
	assert.Equal(t, b.read("pitrix/conf/settings/proxy1"), string(fleet["proxy1"].Bytes()))
	groups, err := b.ReadGroups(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []string{"proxy0", "proxy1"}, groups["proxy"])

	b.write("pitrix/conf/variables/variables.yaml", "common:\n  is_region: '1' # yes\n  zone_ids:\n  - lab1a\n  - \"lab1b\"\n  ntp_server_address: 192.0.2.3\n  deep:\n    is_region: 0\nlab1a:\n  is_region: 0\n")
	site, err := b.ReadSite(t.Context())
	require.NoError(t, err)
	assert.Equal(t, Site{Version: Version{4, 3, 1}, Region: true, ZoneIDs: []string{"lab1a", "lab1b"}, NTP: []string{"192.0.2.3"}}, site)
	b.write("pitrix/version.json", `{"current": {"installer": "4.2"}}`)
	b.write("pitrix/conf/variables/zone_ids", "lab1a lab1b\n")
	site, err = b.ReadSite(t.Context())
	require.NoError(t, err)
	assert.False(t, site.Region)
	assert.Equal(t, []string{"lab1a", "lab1b"}, site.ZoneIDs)

	assert.Empty(t, site.Releases, "no repositories by release: not known")

	empty := &Firstbox{Host: b.Host, Root: b.root}
	require.NoError(t, os.RemoveAll(b.path(nodesDir)))
	require.NoError(t, os.Mkdir(b.path(nodesDir), 0o755))
	groups, err = empty.ReadGroups(t.Context())
	require.NoError(t, err)
	assert.Empty(t, groups)
	images, err := b.BaseImages(t.Context())
	assert.Error(t, err, "there is no such directory: %v", images)
}

// What the variables say of zones, by both forms of them, and which releases
// have repositories and a base image.
func TestReadSite(t *testing.T) {
	b := newBox(t)
	b.write("pitrix/conf/variables/variables.yaml", "common:\n  zone_ids: lab1a lab1b lab1c\nlab1a:\n  mgmt_network: 192.0.2.0/24\n  vm_base_network: \"10.80.0.0/16\"\n  vg_mgmt_network_gateway: 192.0.2.254\nlab1b:\n  cloud_type: public\n")
	for _, dir := range []string{"var/www/repo", "pitrix/repo"} {
		for _, v := range []string{"14.04.5", "16.04.5", "16.04.5.2"} {
			b.write(dir+"/"+v+"/Packages", "")
		}
	}
	b.write("var/www/repo/16.04.3/Packages", "")
	b.write("pitrix/kernels/ksnode16045a.img", "")
	b.write("pitrix/kernels/ksnode16043c.img", "")
	lab := ZoneSite{ManagementNetwork: netip.MustParsePrefix("192.0.2.0/24"), VMBaseNetwork: netip.MustParsePrefix("10.80.0.0/16"), VGManagementGateway: netip.MustParseAddr("192.0.2.254")}
	site, err := b.ReadSite(t.Context())
	require.NoError(t, err)
	assert.Equal(t, map[string]ZoneSite{"lab1a": lab}, site.Zones)
	assert.Equal(t, []string{"16.04.5", "16.04.5.2"}, site.Releases, "14.04.5 has no image, 16.04.3 one repository")

	b.write("pitrix/conf/variables/variables.yaml", "common:\n  zone_ids: lab1a\nlab1a:\n  mgmt_network: 192.0.2.9/24\n")
	_, err = b.ReadSite(t.Context())
	assert.ErrorContains(t, err, `zone lab1a in /pitrix/conf/variables: mgmt_network is "192.0.2.9/24"; it is a network`)

	b.write("pitrix/version.json", `{"current": {"installer": "4.2.1"}}`)
	b.write("pitrix/conf/variables/zone_ids", "lab1a\n")
	b.write("pitrix/conf/variables/vg_mgmt_network_gateway.lab1a", "192.0.2.254\n")
	site, err = b.ReadSite(t.Context())
	require.NoError(t, err)
	assert.Equal(t, map[string]ZoneSite{"lab1a": {VGManagementGateway: lab.VGManagementGateway}}, site.Zones)
	b.write("pitrix/conf/variables/vg_mgmt_network_gateway.lab1a", "gw\n")
	_, err = b.ReadSite(t.Context())
	assert.ErrorContains(t, err, `vg_mgmt_network_gateway is "gw"`)
}

func TestWriteSettings(t *testing.T) {
	b := newBox(t)
	name := "pitrix/conf/settings/proxy0"
	require.NoError(t, os.Chmod(b.path(name), 0o640))
	old, err := b.ReadSettings(t.Context(), "proxy0")
	require.NoError(t, err)
	s, err := Parse("proxy0", old)
	require.NoError(t, err)
	require.NoError(t, s.Set("mgmt_network_address", "192.0.2.161"))
	for range 2 { // the second time it is there already
		require.NoError(t, b.WriteSettings(t.Context(), s, old))
		assert.Equal(t, string(s.Bytes()), b.read(name))
	}
	info, err := os.Stat(b.path(name))
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o640), info.Mode())

	b.write(name, "role=\"somebody else's\"\n")
	var drift *DriftError
	require.ErrorAs(t, b.WriteSettings(t.Context(), s, old), &drift)
	assert.Equal(t, "role=\"somebody else's\"\n", b.read(name))
	require.ErrorAs(t, b.WriteSettings(t.Context(), s, nil), &drift)
	require.NoError(t, os.Remove(b.path(name)))
	require.ErrorAs(t, b.WriteSettings(t.Context(), s, old), &drift)
	require.NoError(t, b.WriteSettings(t.Context(), s, nil))
	entries, err := os.ReadDir(b.path("pitrix/conf/settings"))
	require.NoError(t, err)
	assert.Len(t, entries, 3, "a temporary file is left, and would be a node: %v", entries)
}

func TestBackupSettings(t *testing.T) {
	b := newBox(t)
	at := time.Date(2026, 11, 22, 3, 15, 0, 0, time.UTC)
	for _, want := range []string{"settings.20261122-031500", "settings.20261122-031500-2"} {
		got, err := b.BackupSettings(t.Context(), at)
		require.NoError(t, err)
		assert.Equal(t, b.path("pitrix/conf/"+want), got)
		assert.Equal(t, b.read("pitrix/conf/settings/proxy0"), b.read("pitrix/conf/"+want+"/proxy0"))
		assert.NoDirExists(t, got+"/settings")
	}
}

func TestMarker(t *testing.T) {
	b := newBox(t)
	m := Marker{Run: "r1", Role: "proxy", Nodes: []string{"proxy0", "proxy1"}, Since: time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)}
	for range 2 {
		require.NoError(t, b.SetMarker(t.Context(), m))
	}
	got, err := b.GetMarker(t.Context())
	require.NoError(t, err)
	assert.Equal(t, &m, got)

	var e *MarkedError
	other := m
	other.Run = "r2"
	require.ErrorAs(t, b.SetMarker(t.Context(), other), &e)
	assert.Equal(t, "r1", e.Marker.Run)
	require.ErrorAs(t, b.ClearMarker(t.Context(), "r2"), &e)

	require.NoError(t, b.CheckMarker(t.Context(), b.proxies()))
	require.ErrorAs(t, b.CheckMarker(t.Context(), b.scope("webservice0", Allow{Role: "webservice"})), &e)
	assert.Equal(t, []string{"webservice0"}, e.Outside)

	for range 2 {
		require.NoError(t, b.ClearMarker(t.Context(), "r1"))
	}
	require.NoError(t, b.CheckMarker(t.Context(), b.scope("webservice0", Allow{Role: "webservice"})))
	left, err := filepath.Glob(b.path(markerDir) + "*")
	require.NoError(t, err)
	assert.Empty(t, left)
}

func TestPointName(t *testing.T) {
	b := newBox(t)
	was := "127.0.0.1 localhost\n192.0.2.61 proxy0.mgmt.pitrix.yunify.com proxy0\n"
	b.write("etc/hosts", was)
	a := netip.MustParseAddr("192.0.2.161")
	for range 2 {
		require.NoError(t, b.PointName(t.Context(), "proxy0", a))
		assert.Equal(t, "192.0.2.161 proxy0 # upgradectl\n"+was, b.read("etc/hosts"))
	}
	require.NoError(t, b.PointName(t.Context(), "proxy1", a.Next()))
	require.NoError(t, b.UnpointName(t.Context(), "proxy0"))
	assert.Equal(t, "192.0.2.162 proxy1 # upgradectl\n"+was, b.read("etc/hosts"))
	for range 2 {
		require.NoError(t, b.UnpointName(t.Context(), "proxy1"))
		assert.Equal(t, was, b.read("etc/hosts"))
	}
}

// The package is built and read by the real dpkg-deb.
func TestTrapBuiltHostsPackage(t *testing.T) {
	testenv.Need(t, "dpkg-deb")
	b := newBox(t)
	require.NoError(t, os.Remove(b.path("pitrix/repo/indep/pitrix-hosts_1_all.deb")))
	build := func(version, hosts string, at time.Time) string {
		dir := t.TempDir()
		for name, text := range map[string]string{
			"DEBIAN/control":   "Package: pitrix-hosts\nVersion: " + version + "\nArchitecture: all\nMaintainer: lab <lab@example.com>\nDescription: names\n",
			"pitrix/hosts":     hosts,
			"pitrix/other.txt": "1.2.3 is no address\n",
		} {
			require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
		}
		deb := b.path("pitrix/repo/indep/pitrix-hosts_" + version + "_all.deb")
		out, err := exec.Command("dpkg-deb", "--root-owner-group", "-Znone", "--build", dir, deb).CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.NoError(t, os.Chtimes(deb, at, at))
		return deb
	}
	now := time.Now().Truncate(time.Second)
	build("1", "192.0.2.161 proxy0.mgmt.pitrix.yunify.com proxy0\n", now.Add(-time.Hour))
	deb := build("2", "# names\n192.0.2.61 proxy0.mgmt.pitrix.yunify.com proxy0\n", now)
	got, lines, err := b.BuiltHosts(t.Context())
	require.NoError(t, err)
	assert.Equal(t, deb, got)
	assert.Equal(t, "192.0.2.61 proxy0.mgmt.pitrix.yunify.com proxy0\n", string(lines))
	hosts, err := ParseHosts(got, lines)
	require.NoError(t, err)
	assert.Equal(t, []netip.Addr{netip.MustParseAddr("192.0.2.61")}, hosts["proxy0"])
	build("3", "192.0.2.9 proxy0\n", now)
	_, _, err = b.BuiltHosts(t.Context())
	assert.ErrorContains(t, err, "say different things")
}

func TestConsole(t *testing.T) {
	b := newBox(t)
	hosts, err := b.Console(t.Context(), b.scripts)
	require.NoError(t, err)
	vip := netip.MustParseAddr("192.0.2.60")
	assert.Equal(t, []ConsoleHost{{vip, "console.lab.example"}, {vip, "supervisor.lab.example"}, {vip, "appcenter.lab.example"},
		{vip, "api.lab.example"}, {vip, "boss.lab.example"}}, hosts)
	for _, bad := range []string{"", "x y\n", "192.0.2.60\n"} {
		_, err := ParseDumpHosts([]byte(bad))
		assert.Error(t, err, bad)
	}

	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Host {
		case "console.lab.example":
		case "supervisor.lab.example":
			http.Redirect(w, r, "/login", http.StatusFound)
		case "api.lab.example":
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer server.Close()
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		assert.Equal(t, "192.0.2.60:80", addr, "the address counts, not what the name resolves to")
		return (&net.Dialer{}).DialContext(ctx, network, strings.TrimPrefix(server.URL, "http://"))
	}
	var ok []string
	for _, p := range ProbeConsole(t.Context(), dial, "http", hosts) {
		if p.OK() {
			ok = append(ok, p.Host.Name)
		}
	}
	assert.Equal(t, []string{"console.lab.example", "supervisor.lab.example"}, ok)
	server.Close()
	for _, p := range ProbeConsole(t.Context(), dial, "http", hosts[:1]) {
		assert.False(t, p.OK())
		assert.NotEmpty(t, p.Err)
	}
}
