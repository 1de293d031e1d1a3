package nginx

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/testenv"
)

// TestErrorLogRotation reads with the real tools what was appended to a log
// since a mark, whatever logrotate did to it meanwhile.
func TestErrorLogRotation(t *testing.T) {
	testenv.Need(t, "tail")
	testenv.Need(t, "stat")
	sh := func(t *testing.T, script string) string {
		t.Helper()
		cmd := exec.Command("/bin/sh", "-c", script)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		require.NoError(t, err, "%s", script)
		return string(out)
	}
	line := func(pid, msg string) string {
		return "2026/11/22 04:45:31 [emerg] " + pid + "#" + pid + ": " + msg + "\n"
	}
	appendTo := func(t *testing.T, name, text string) {
		t.Helper()
		f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		require.NoError(t, err)
		_, err = f.WriteString(text)
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	for _, row := range []struct {
		name  string
		fresh bool // there is no log before
		then  func(t *testing.T, log string)
		want  []string
		why   string
	}{
		{name: "nothing new", then: func(*testing.T, string) {}},
		{name: "appended", then: func(t *testing.T, log string) {
			appendTo(t, log, "2026/11/22 04:45:31 [notice] 7#7: signal process started\n"+line("7", "bind() to 0.0.0.0:80 failed")+line("7", "bind() to 0.0.0.0:80 failed")+line("8", "not ours")+line("7", "still could not bind()"))
		}, want: []string{"bind() to 0.0.0.0:80 failed", "still could not bind()"}},
		{name: "renamed, the end in the old one", then: func(t *testing.T, log string) {
			appendTo(t, log, line("7", "before"))
			require.NoError(t, os.Rename(log, log+".1"))
			appendTo(t, log, line("7", "after"))
		}, want: []string{"after", "before"}},
		{name: "renamed, not yet made anew", then: func(t *testing.T, log string) {
			require.NoError(t, os.Rename(log, log+"-20261122"))
			appendTo(t, log+"-20261122", line("7", "after"))
		}, want: []string{"after"}},
		{name: "truncated", then: func(t *testing.T, log string) {
			require.NoError(t, os.Truncate(log, 0))
			appendTo(t, log, line("7", "x"))
		}, want: []string{"x"}},
		{name: "made meanwhile", fresh: true, then: func(t *testing.T, log string) { appendTo(t, log, line("7", "first")) }, want: []string{"first"}},
		{name: "still not there", fresh: true, then: func(*testing.T, string) {}},
		{name: "not a file", fresh: true, then: func(*testing.T, string) {}, why: "not a file"},
		{name: "no directory", fresh: true, then: func(*testing.T, string) {}, why: "cannot be reached"},
		{name: "bytes of any kind", then: func(t *testing.T, log string) {
			appendTo(t, log, "\x00\xff\n"+line("7", "GET /\xff\xfe")+"[emerg] 7#7: no date\n2026/11/22 04:45:31 [emerg] x#7: odd\n")
		}, want: []string{"GET /\xff\xfe"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			log := filepath.Join(t.TempDir(), "a 'log")
			switch {
			case row.why == "not a file":
				require.NoError(t, os.Mkdir(log, 0o700))
			case row.why == "cannot be reached":
				log = filepath.Join(log, "none", "log")
			case !row.fresh:
				appendTo(t, log, line("7", "of last year, and longer than what comes now"))
			}
			marks := []logMark{{name: log}}
			require.NoError(t, parseMarks(marks, sh(t, markScript(marks))))
			if row.why != "" {
				assert.Contains(t, unread(marks), row.why)
				assert.Empty(t, emergScript(marks))
				return
			}
			require.Empty(t, unread(marks))
			row.then(t, log)
			assert.Equal(t, row.want, parseEmerg(sh(t, emergScript(marks)), 7))
		})
	}
}

func TestParseBuild(t *testing.T) {
	for _, row := range []struct {
		text string
		want build
	}{
		{"nginx version: nginx/1.16.0\nconfigure arguments:\n", build{"/usr/local/nginx", "conf/nginx.conf", "logs/nginx.pid", "logs/error.log"}},
		{"nginx version: openresty/1.21.4.1\nbuilt with OpenSSL 1.1.1\nconfigure arguments: --prefix=/usr/local/openresty/nginx --with-cc-opt='-O2 -DNGX_LUA_ABORT_AT_PANIC' --add-module=../ngx_devel_kit-0.3.1\n",
			build{"/usr/local/openresty/nginx", "conf/nginx.conf", "logs/nginx.pid", "logs/error.log"}},
		{"Tengine version: Tengine/3.1.0\nnginx version: nginx/1.24.0\nconfigure arguments: --prefix='/opt/tengine' --conf-path=/etc/tengine/nginx.conf --pid-path=/run/t.pid --error-log-path=stderr\n",
			build{"/opt/tengine", "/etc/tengine/nginx.conf", "/run/t.pid", "stderr"}},
	} {
		assert.Equal(t, row.want, parseBuild(row.text))
	}
}

func TestParseTime(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"3s": 3 * time.Second, "90": 90 * time.Second, "500ms": 500 * time.Millisecond, "1h 30m": 90 * time.Minute,
		"1d1h": 25 * time.Hour, "1M": 30 * 24 * time.Hour, "1y": 365 * 24 * time.Hour, "": 0, "x": 0, "3q": 0, "s": 0,
	} {
		assert.Equal(t, want, parseTime(text), "%q", text)
	}
}

// TestParseConnections: ss and the kernel's tables say the same in other words.
func TestParseConnections(t *testing.T) {
	for _, row := range []struct {
		line    string
		ss      bool
		want    socket
		nothing bool
	}{
		{line: "ESTAB 0      0       10.0.0.5:41000     10.0.0.1:8080  uid:33 ino:4711 sk:1 cgroup:/ <->", ss: true,
			want: socket{netip.MustParseAddrPort("10.0.0.5:41000"), netip.MustParseAddrPort("10.0.0.1:8080"), 4711}},
		{line: "CLOSE-WAIT 1 0 [fd00::5%eth0]:41000 [fd00::1]:80 ino:1", ss: true,
			want: socket{netip.MustParseAddrPort("[fd00::5]:41000"), netip.MustParseAddrPort("[fd00::1]:80"), 1}},
		{line: "ESTAB 0 0 ::ffff:10.0.0.5:41000 ::ffff:10.0.0.1:80 timer:(keepalive,1min,0) ino:2", ss: true,
			want: socket{netip.MustParseAddrPort("10.0.0.5:41000"), netip.MustParseAddrPort("10.0.0.1:80"), 2}},
		{line: "State Recv-Q Send-Q Local Address:Port Peer Address:Port Process", ss: true, nothing: true},
		{line: "TIME-WAIT 0 0 10.0.0.5:1 10.0.0.1:80", ss: true, nothing: true},
		{line: "0: 0500000A:A028 0100000A:1F90 01 00000000:00000000 00:00000000 00000000 33 0 4711 1 0 20 4 30 10 -1",
			want: socket{netip.MustParseAddrPort("10.0.0.5:41000"), netip.MustParseAddrPort("10.0.0.1:8080"), 4711}},
		{line: "0: 000000FD000000000000000005000000:0050 000000FD000000000000000001000000:0051 08 0:0 00:0 0 33 0 5",
			want: socket{netip.MustParseAddrPort("[fd00::5]:80"), netip.MustParseAddrPort("[fd00::1]:81"), 5}},
		{line: "0: 0500000A:A028 0100000A:1F90 01 00000000", nothing: true},
		{line: "1: 0500000A:A028 0100000A:1F90 06 0:0 03:0 0 0 0 0 3 0", nothing: true},
	} {
		parse := parseProcTCP
		if row.ss {
			parse = parseSS
		}
		got, ok := parse(row.line)
		assert.Equal(t, !row.nothing, ok, row.line)
		if ok {
			assert.Equal(t, row.want, got)
		}
	}
	assert.Equal(t, []string{"0100007F", "0000000000000000FFFF00000100007F"}, procAddresses(netip.MustParseAddr("127.0.0.1")))
	assert.Equal(t, []string{"000000FD000000000000000001000000"}, procAddresses(netip.MustParseAddr("fd00::1")))
}
