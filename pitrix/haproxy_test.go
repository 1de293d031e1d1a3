package pitrix_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/testenv"
	"github.com/upgradectl/upgradectl/pitrix"
)

// haproxyFile is of a proxy as the installer makes it.
const haproxyFile = `# made by the installer
global
    maxconn 4096
    daemon

defaults
    timeout connect 5s
    timeout client 1m
    timeout server 1m

listen api-front
    bind 0.0.0.0:7777
    mode tcp
    balance source
    server apiserver_0 192.0.2.65:7777 check inter 2000 rise 2 fall 3
    server apiserver_1 192.0.2.66:7777 check inter 2000 rise 2 fall 3

listen ws-front
    bind 0.0.0.0:8565
    mode tcp
    balance roundrobin
    server ws_server_0 192.0.2.65:8565 check
    server ws_server_1 192.0.2.66:8565 check

listen io-front
    bind 0.0.0.0:8000
    mode tcp
    balance source
    server io_server_0 192.0.2.65:8000 check

listen website-front
    bind 0.0.0.0:8081
    mode tcp
    server website_0 192.0.2.65:8081 check
`

// edit replaces pairs of texts, each of which has to be there.
func editText(t testing.TB, text string, pairs ...string) string {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		require.Contains(t, text, pairs[i])
		text = strings.ReplaceAll(text, pairs[i], pairs[i+1])
	}
	return text
}

// byHand are sections that nobody generates.
const byHand = `
# the exporter, added by hand
# in 2021
listen node-exporter
    bind 192.0.2.61:9100 # not on the outer address
    mode http
    server exporter 127.0.0.1:9101 check

frontend zone-metad
    bind *:9611
    default_backend metad
backend metad
    balance leastconn
    server metad_0 192.0.2.70:9611
`

type haproxyRow struct {
	name     string
	old, new string
	opts     pitrix.HAProxyOptions
	want     []string // "kind section item: old -> new", with ! before what must be carried over
	oldForm  bool     // the old side has a form that a later haproxy refuses
}

func haproxyRows(t testing.TB) []haproxyRow {
	edit := func(pairs ...string) string { return editText(t, haproxyFile, pairs...) }
	sections := strings.Split(haproxyFile, "\nlisten ")
	reordered := sections[0] + "\nlisten " + strings.Join([]string{sections[3], sections[1], sections[4], sections[2]}, "\nlisten ")
	sub := edit("192.0.2.65:7777", "198.51.100.65:443", "server apiserver_1 192.0.2.66:7777 check inter 2000 rise 2 fall 3", "server apiserver_2 198.51.100.66:443 check",
		"192.0.2.65:8565", "198.51.100.65:8565", "192.0.2.66:8565", "198.51.100.66:8565")
	return []haproxyRow{
		{name: "same", old: haproxyFile, new: haproxyFile},
		{name: "order of sections", old: haproxyFile, new: reordered},
		{name: "order of lines", old: haproxyFile, new: edit("    mode tcp\n    balance source\n", "    balance source\n    mode tcp\n")},
		{name: "comments and blanks", old: haproxyFile, new: "# x\n\n" + edit("    ", "\t", "\n\nlisten", " # y\n\n\n# listen x\nlisten")},
		{name: "order of server options", old: haproxyFile, new: edit("check inter 2000 rise 2 fall 3", "fall 3 check rise 2 inter 2000")},
		{name: "other values of server options", old: haproxyFile, new: edit("7777 check inter 2000 rise 2 fall 3", "7777 check inter 2 rise 2000 fall 3"), want: []string{
			"server listen api-front server apiserver_0: 192.0.2.65:7777 check fall 3 inter 2000 rise 2 -> 192.0.2.65:7777 check fall 3 inter 2 rise 2000",
			"server listen api-front server apiserver_1: 192.0.2.66:7777 check fall 3 inter 2000 rise 2 -> 192.0.2.66:7777 check fall 3 inter 2 rise 2000"}},
		{name: "bind in the header", old: edit("listen api-front\n    bind 0.0.0.0:7777\n", "listen api-front 0.0.0.0:7777\n", "listen io-front\n    bind 0.0.0.0:8000\n", "listen io-front *:8000\n"), new: haproxyFile, oldForm: true},
		{name: "binds of one line", old: edit("    bind 0.0.0.0:7777\n", "    bind 0.0.0.0:7777,192.0.2.61:7778\n"), new: edit("    bind 0.0.0.0:7777\n", "    bind 192.0.2.61:7778\n    bind :7777\n")},
		{name: "mode from the defaults", old: edit("    timeout connect", "    mode tcp\n    timeout connect", "7777\n    mode tcp\n", "7777\n"), new: haproxyFile, want: []string{
			"directive defaults : mode tcp -> "}},
		{name: "mode", old: haproxyFile, new: edit("7777\n    mode tcp", "7777\n    mode http"), want: []string{"mode listen api-front mode: tcp -> http"}},
		{name: "balance", old: haproxyFile, new: edit("8000\n    mode tcp\n    balance source\n", "8000\n    mode tcp\n"), want: []string{"balance listen io-front balance: source -> roundrobin"}},
		{name: "website", old: haproxyFile, new: edit("listen website-front\n    bind 0.0.0.0:8081\n    mode tcp\n    server website_0 192.0.2.65:8081 check\n", "")},
		{name: "website elsewhere", old: haproxyFile, new: edit("website_0 192.0.2.65:8081", "cronus 192.0.2.66:9091")},
		{name: "website counts if told", old: haproxyFile, new: edit("website_0 192.0.2.65:8081", "website_0 192.0.2.66:8081"), opts: pitrix.HAProxyOptions{IgnorePorts: []int{}},
			want: []string{"server listen website-front server website_0: 192.0.2.65:8081 check -> 192.0.2.66:8081 check"}},
		{name: "made by hand", old: haproxyFile + byHand, new: haproxyFile, want: []string{
			"!section listen node-exporter : listen node-exporter -> ", "!section frontend zone-metad : frontend zone-metad -> ", "!section backend metad : backend metad -> "}},
		{name: "made by hand, other defaults", old: edit("    timeout connect", "    mode http\n    balance source\n    timeout connect") + byHand, new: haproxyFile, want: []string{
			"directive defaults : mode http -> ", "directive defaults : balance source -> ",
			"!section listen node-exporter : listen node-exporter -> ", "!section frontend zone-metad : frontend zone-metad -> ", "!section backend metad : backend metad -> "}},
		{name: "a bind and a server by hand", old: edit("    bind 0.0.0.0:8565\n", "    bind 0.0.0.0:8565\n    bind 192.0.2.61:8566,192.0.2.61:8567 # own\n", "    server io_server_0", "    server io_old 192.0.2.9:8000 backup\n    server io_server_0"),
			new: haproxyFile, want: []string{
				"!bind listen ws-front bind: 192.0.2.61:8566 -> ", "!bind listen ws-front bind: 192.0.2.61:8567 -> ", "!server listen io-front server io_old: 192.0.2.9:8000 backup -> "}},
		{name: "a section more", old: haproxyFile, new: haproxyFile + byHand[:strings.Index(byHand, "\nfrontend")+1], want: []string{"section listen node-exporter :  -> listen node-exporter"}},
		{name: "a moved server", old: haproxyFile, new: edit("192.0.2.65:8565", "192.0.2.67:8565"), want: []string{"server listen ws-front server ws_server_0: 192.0.2.65:8565 check -> 192.0.2.67:8565 check"}},
		{name: "directives", old: edit("    maxconn 4096", "    maxconn 8192"), new: haproxyFile, want: []string{"directive global : maxconn 8192 -> ", "directive global :  -> maxconn 4096"}},
		{name: "temporary addresses", old: edit("0.0.0.0:7777", "192.0.2.61:7777"), new: edit("0.0.0.0:7777", "192.0.2.71:7777"), opts: pitrix.HAProxyOptions{Addresses: map[string]string{"192.0.2.71": "192.0.2.61"}}},
		{name: "other addresses", old: edit("0.0.0.0:7777", "192.0.2.61:7777"), new: edit("0.0.0.0:7777", "192.0.2.71:7777"), want: []string{
			"!bind listen api-front bind: 192.0.2.61:7777 -> ", "bind listen api-front bind:  -> 192.0.2.71:7777"}},
		{name: "rules in another order", old: haproxyFile + "frontend f\n    bind :99\n    mode http\n    http-request deny if TRUE\n    http-request allow if TRUE\n",
			new: haproxyFile + "frontend f\n    bind :99\n    mode http\n    http-request allow if TRUE\n    http-request deny if TRUE\n", want: []string{
				"order frontend f http-request: http-request deny if TRUE; http-request allow if TRUE -> http-request allow if TRUE; http-request deny if TRUE"}},
		{name: "sub region", old: sub, new: haproxyFile, opts: pitrix.HAProxyOptions{Sub: true}, want: []string{
			"!server listen api-front server apiserver_0: 198.51.100.65:443 check fall 3 inter 2000 rise 2 -> 192.0.2.65:7777 check fall 3 inter 2000 rise 2",
			"!server listen api-front server apiserver_2: 198.51.100.66:443 check -> ",
			"!server listen api-front server apiserver_1:  -> 192.0.2.66:7777 check fall 3 inter 2000 rise 2",
			"!server listen ws-front server ws_server_0: 198.51.100.65:8565 check -> 192.0.2.65:8565 check",
			"!server listen ws-front server ws_server_1: 198.51.100.66:8565 check -> 192.0.2.66:8565 check"}},
		{name: "the same in a global region", old: sub, new: haproxyFile, want: []string{
			"server listen api-front server apiserver_0: 198.51.100.65:443 check fall 3 inter 2000 rise 2 -> 192.0.2.65:7777 check fall 3 inter 2000 rise 2",
			"!server listen api-front server apiserver_2: 198.51.100.66:443 check -> ",
			"server listen api-front server apiserver_1:  -> 192.0.2.66:7777 check fall 3 inter 2000 rise 2",
			"server listen ws-front server ws_server_0: 198.51.100.65:8565 check -> 192.0.2.65:8565 check",
			"server listen ws-front server ws_server_1: 198.51.100.66:8565 check -> 192.0.2.66:8565 check"}},
		{name: "sub region without a last line end", old: strings.TrimSuffix(sub, "\n") + byHand, new: strings.TrimSuffix(haproxyFile, "\n"), opts: pitrix.HAProxyOptions{Sub: true}},
	}
}

func haproxy(t testing.TB, name, src string) *pitrix.HAProxy {
	t.Helper()
	h, err := pitrix.ParseHAProxy(name, []byte(src))
	require.NoError(t, err)
	assert.Equal(t, src, string(h.Bytes()))
	return h
}

func shortly(ds []pitrix.HAProxyDifference) []string {
	var out []string
	for _, x := range ds {
		must := ""
		if x.MustCarryOver {
			must = "!"
		}
		out = append(out, fmt.Sprintf("%s%s %s %s: %s -> %s", must, x.Kind, x.Section, x.Item, x.Old, x.New))
	}
	return out
}

func TestCompareHAProxy(t *testing.T) {
	for _, row := range haproxyRows(t) {
		old, now := haproxy(t, "old", row.old), haproxy(t, "new", row.new)
		d := pitrix.CompareHAProxy(old, now, row.opts)
		got := shortly(d.Differences)
		if row.want != nil || !strings.Contains(row.name, "last line") {
			assert.Equal(t, row.want, got, row.name)
			assert.Equal(t, len(row.want) == 0, d.Equal(), row.name)
		}
		for _, x := range d.Differences {
			assert.True(t, x.OldLine > 0 || x.NewLine > 0, row.name)
			assert.Equal(t, x.OldLine == 0, x.Old == "", row.name)
			assert.Contains(t, x.String(), x.Section)
		}
		carried, err := d.CarryOver()
		if !assert.NoError(t, err, row.name) {
			continue
		}
		assert.Empty(t, pitrix.CompareHAProxy(old, carried, row.opts).MustCarryOver(), row.name)
		if len(d.MustCarryOver()) == 0 {
			assert.Equal(t, row.new, string(carried.Bytes()), row.name)
		}
		// Every line of the new file that is no server is still there, in its order.
		rest := string(carried.Bytes())
		for line := range strings.Lines(row.new) {
			if strings.Contains(line, " server ") {
				continue
			}
			i := strings.Index(rest, strings.TrimSuffix(line, "\n"))
			if assert.GreaterOrEqual(t, i, 0, "%s: %q", row.name, line) {
				rest = rest[i+len(strings.TrimSuffix(line, "\n")):]
			}
		}
	}
}

// The real haproxy takes both sides of every comparison and every file that
// was carried over.
func TestHAProxyAccepts(t *testing.T) {
	path := testenv.Need(t, "haproxy")
	dir := t.TempDir()
	known := map[string]bool{} // each call takes a while
	accepts := func(src []byte) error {
		// A later haproxy wants the last line to end; an older one did not.
		src = append(bytes.TrimSuffix(src, []byte("\n")), '\n')
		if known[string(src)] {
			return nil
		}
		known[string(src)] = true
		file := filepath.Join(dir, fmt.Sprintf("%d.cfg", len(known)))
		require.NoError(t, os.WriteFile(file, src, 0o600))
		if out, err := exec.CommandContext(t.Context(), path, "-c", "-f", file).CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	for _, row := range haproxyRows(t) {
		if row.oldForm {
			assert.ErrorContains(t, accepts([]byte(row.old)), "please use the 'bind' keyword", row.name)
		} else {
			assert.NoError(t, accepts([]byte(row.old)), row.name)
		}
		assert.NoError(t, accepts([]byte(row.new)), row.name)
		carried, err := pitrix.CompareHAProxy(haproxy(t, "old", row.old), haproxy(t, "new", row.new), row.opts).CarryOver()
		require.NoError(t, err)
		assert.NoError(t, accepts(carried.Bytes()), "%s\n%s", row.name, carried.Bytes())
	}
	// A section in the old form is carried over in the new one.
	old := haproxyFile + "\nlisten own 192.0.2.61:9100 maxconn 50\n    server a 192.0.2.9:1\n"
	carried, err := pitrix.CompareHAProxy(haproxy(t, "old", old), haproxy(t, "new", haproxyFile), pitrix.HAProxyOptions{}).CarryOver()
	require.NoError(t, err)
	assert.Equal(t, haproxyFile+"\nlisten own\n    bind 192.0.2.61:9100 maxconn 50\n    server a 192.0.2.9:1\n", string(carried.Bytes()))
	assert.NoError(t, accepts(carried.Bytes()))
}

// What somebody added to the old node's file is lost with it unless it is found
// and carried over, with the comment that says why.
func TestTrapHandMadeHAProxy(t *testing.T) {
	d := pitrix.CompareHAProxy(haproxy(t, "old", haproxyFile+byHand), haproxy(t, "new", haproxyFile), pitrix.HAProxyOptions{})
	require.Len(t, d.MustCarryOver(), 3)
	carried, err := d.CarryOver()
	require.NoError(t, err)
	text := string(carried.Bytes())
	assert.True(t, strings.HasPrefix(text, haproxyFile))
	assert.Contains(t, text, "\n# the exporter, added by hand\n# in 2021\nlisten node-exporter\n    bind 192.0.2.61:9100 # not on the outer address\n")
	assert.True(t, pitrix.CompareHAProxy(haproxy(t, "old", haproxyFile+byHand), carried, pitrix.HAProxyOptions{}).Equal())
}

// In a sub region api, ws and io lead to the global zone; the generated file
// leads to nodes that do not serve it.
func TestTrapSubRegionBackends(t *testing.T) {
	old := editText(t, haproxyFile, "192.0.2.65:7777", "198.51.100.65:443", "listen api-front", "listen lab2b-api-front")
	now := editText(t, haproxyFile, "listen api-front", "listen lab2b-api-front")
	d := pitrix.CompareHAProxy(haproxy(t, "old", old), haproxy(t, "new", now), pitrix.HAProxyOptions{Sub: true})
	require.Len(t, d.MustCarryOver(), 1)
	assert.Contains(t, d.MustCarryOver()[0].Why, "global")
	carried, err := d.CarryOver()
	require.NoError(t, err)
	assert.Equal(t, old, string(carried.Bytes()))
	assert.Empty(t, pitrix.CompareHAProxy(haproxy(t, "old", old), haproxy(t, "new", now), pitrix.HAProxyOptions{}).MustCarryOver())
}

// Passwords that differ are a difference, and are not shown.
func TestHAProxyHidesPasswords(t *testing.T) {
	old := haproxyFile + "\nlisten stats\n    bind :9000\n    mode http\n    stats auth admin:s3cr3t\nuserlist u\n    user a insecure-password s3cr3t\n    user b groups x password s3cr3t\n"
	now := strings.ReplaceAll(old, "s3cr3t", "other-s3cr3t")
	d := pitrix.CompareHAProxy(haproxy(t, "old", old), haproxy(t, "new", now), pitrix.HAProxyOptions{})
	require.Len(t, d.Differences, 6)
	for _, x := range d.Differences {
		assert.NotContains(t, x.String(), "s3cr3t")
		assert.Contains(t, x.String(), "[hidden]")
	}
}

func TestParseHAProxyRefuses(t *testing.T) {
	for src, want := range map[string]string{
		"mode tcp\n":                 "f:1:1: no section is open",
		"global\n.if 1\n.endif\n":    "f:2:1: a condition",
		"listen a\nlisten a\n":       "f:2:1: a second listen a, the first is in line 1",
		"listen a\n  bind \"x\n":     "f:2:8: the quote is not closed",
		"listen a\n  bind 'x\n":      "f:2:8: the quote is not closed",
		"listen a\n  bind \x00\n":    "f:2:8: control character",
		strings.Repeat("#", 1<<20+1): "f:1:1: the file has",
		"unknown-section a\n":        "f:1:1: no section is open",
	} {
		h, err := pitrix.ParseHAProxy("f", []byte(src))
		assert.Nil(t, h)
		if assert.Error(t, err, "%.40q", src) {
			assert.Contains(t, err.Error(), want)
		}
	}
	h, err := pitrix.ParseHAProxy("f", nil)
	require.NoError(t, err)
	assert.True(t, pitrix.CompareHAProxy(h, h, pitrix.HAProxyOptions{}).Equal())
}

// A file equals itself, also with other comments; and whatever the two files,
// what is carried over is not missing afterwards.
func FuzzHAProxy(f *testing.F) {
	for _, row := range haproxyRows(f) {
		f.Add([]byte(row.old), []byte(row.new), row.opts.Sub)
	}
	f.Add([]byte("listen a :1,:2 x\n bind :3\n server b c"), []byte("frontend a\n"), true)
	f.Fuzz(func(t *testing.T, a, b []byte, sub bool) {
		old, err := pitrix.ParseHAProxy("old", a)
		if err != nil {
			t.Skip("refused: nothing to compare")
		}
		opts := pitrix.HAProxyOptions{Sub: sub}
		require.True(t, pitrix.CompareHAProxy(old, old, opts).Equal())
		now, err := pitrix.ParseHAProxy("new", b)
		if err != nil {
			t.Skip("refused: nothing to compare")
		}
		d := pitrix.CompareHAProxy(old, now, opts)
		carried, err := d.CarryOver()
		if err != nil {
			require.NotContains(t, err.Error(), "internal error")
			return
		}
		require.Empty(t, pitrix.CompareHAProxy(old, carried, opts).MustCarryOver())
		if len(d.MustCarryOver()) == 0 {
			require.Equal(t, string(b), string(carried.Bytes()))
		}
	})
}
