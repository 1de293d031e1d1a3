package remote

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/testenv"
)

// TestAsSSH compares our reading of ssh_config with ssh's own, over every
// file and target of a table.
func TestAsSSH(t *testing.T) {
	testenv.Slow(t)
	testenv.Need(t, "ssh")
	dir := t.TempDir()
	extra := filepath.Join(dir, "extra")
	require.NoError(t, os.WriteFile(extra, []byte("User fromextra\nHost web-2\n  Port 77\nMatch user root\n  IdentityFile /k/root\n"), 0o600))
	me := localUser()
	files := map[string]string{
		"empty":        "",
		"sample":       strings.Replace(sample, "ServerAliveInterval 5", "ServerAliveInterval 5\n  ForwardAgent yes\n  SendEnv LANG", 1),
		"first wins":   "Host web-*\n User a\n Port 1\nHost *\n User b\n Port 2\n HostName %h.example\nHost web-1\n User c\n",
		"negated":      "Host *.x !bad.x\n User good\nHost !web-1 *\n Port 9\n",
		"equals":       "User = a\nPort=33\nHostName=\"h.example\"\n",
		"match host":   "Host web-1\n HostName real.example\nMatch host real.example\n User matched\nMatch originalhost web-1\n Port 5\nMatch host web-1\n IdentityFile /never\n",
		"match user":   "Match user root\n Port 7\nMatch !user root\n Port 8\nMatch user root,ops host \"web-*\"\n IdentityFile /k/%r\n",
		"match set":    "Host web-1\n User ops\nMatch user ops\n Port 8\n User other\n ConnectTimeout 5\n",
		"match local":  "Match localuser " + me + "\n Port 8\nMatch localuser nobody-else\n Port 9\n",
		"match all":    "Host web-1\n Port 3\nMatch all\n User everybody\n",
		"include":      "Include " + extra + "\nUser later\n",
		"include host": "Host web-1\n Include " + extra + "\nHost *\n User later\n",
		"include none": "Include " + filepath.Join(dir, "nothing-*") + "\nPort 4\n",
		"known hosts":  "UserKnownHostsFile /k/a /k/b\nGlobalKnownHostsFile /g/a\nHostKeyAlias al\n",
		"certificates": "CertificateFile /c/a\nCertificateFile /c/b\nIdentityFile /k/a\nIdentitiesOnly yes\n",
		"agent":        "IdentityAgent /run/agent.sock\n",
		"no agent":     "IdentityAgent none\n",
		"jump":         "Host web-1\n ProxyJump a,b@c:7\nHost *\n ProxyJump none\n",
		"command":      "Host web-1\n ProxyCommand nc -X 5 %h %p\nHost *\n ProxyJump a\n",
		"no command":   "ProxyCommand none\nProxyJump a\n",
		"jump first":   "ProxyJump a\nProxyCommand nc %h %p\n",
		"times":        "ConnectTimeout 4\nServerAliveInterval 6\nServerAliveCountMax 9\n",
		"quoted":       "IdentityFile \"/k/a b\"\nHost \"web-1\"\n Port 6\n",
		"comments":     "# x\nUser a # b\n\n   # c\nPort 7\n",
		"keyword case": "hOsT web-1\n uSeR x\n",
	}
	targets := []string{"web-1", "web-2", "root@web-1", "ops@web-3:2222", "db-1", "bad.x", "h.x", "10.0.0.1", "WEB-1"}
	n := 0
	for name, text := range files {
		file := filepath.Join(dir, "config")
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		src, err := os.ReadFile(file)
		require.NoError(t, err)
		c, err := parseConfig(file, src)
		require.NoError(t, err, name)
		ask := &resolver{name: file, file: file, ssh: "ssh", known: map[string]*hop{}}
		for _, target := range targets {
			ours, err := c.resolve(target)
			require.NoError(t, err)
			theirs, err := ask.ask(t.Context(), target)
			require.NoError(t, err, "%s: %s", name, target)
			// What ssh fills in where nothing is set.
			if ours.user == me {
				ours.user = ""
			}
			if theirs.user == me {
				theirs.user = ""
			}
			if ours.knownHosts == nil {
				theirs.knownHosts = nil
			}
			if ours.globalKnown == nil {
				theirs.globalKnown = nil
			}
			if ours.aliveCount == 0 && theirs.aliveCount == 3 {
				theirs.aliveCount = 0
			}
			theirs.host, ours.host = strings.ToLower(theirs.host), strings.ToLower(ours.host)
			for _, h := range []*hop{ours, theirs} {
				if h.user == "" {
					h.user = me
				}
				require.NoError(t, h.expandFiles())
				h.proxyCommand = strings.NewReplacer("%h", h.host, "%p", fmt.Sprint(h.port)).Replace(h.proxyCommand)
			}
			assert.Equal(t, theirs, ours, "%s: %s", name, target)
			n++
		}
	}
	t.Logf("%d answers compared", n)
}

// TestAsksSSH holds that what we do not understand is asked of ssh, and is an
// error where there is none.
func TestAsksSSH(t *testing.T) {
	ssh := testenv.Need(t, "ssh")
	dir := t.TempDir()
	file := filepath.Join(dir, "config")
	require.NoError(t, os.WriteFile(file, []byte("Match host db exec \"false\"\n User wrong\nMatch host db exec \"true\"\n User right\n"+
		"Host edge\n Port 5\nHost db\n ProxyJump me@edge\n Tunnel no\n"), 0o600))
	r, err := newResolver(file)
	require.NoError(t, err)
	hops, err := r.chain(t.Context(), "db")
	require.NoError(t, err)
	require.Len(t, hops, 2)
	assert.Equal(t, "me@edge:5", hops[0].who())
	assert.Equal(t, "right@db:22", hops[1].who())
	_, err = r.chain(t.Context(), "-oProxyCommand=x")
	assert.ErrorContains(t, err, "names no host")

	require.NoError(t, os.WriteFile(file, []byte("Tunnel no\nSomethingWrong yes\n"), 0o600))
	r, err = newResolver(file)
	require.NoError(t, err)
	_, err = r.chain(t.Context(), "db")
	assert.ErrorContains(t, err, "somethingwrong", "ssh's own words")
	require.NoError(t, os.WriteFile(file, []byte("Tunnel no\nStrictHostKeyChecking no\n"), 0o600))
	_, err = newResolver(file)
	assert.ErrorContains(t, err, "StrictHostKeyChecking no is refused", "ssh would accept it")

	t.Setenv("PATH", dir)
	require.NoError(t, os.WriteFile(file, []byte("Match host db exec \"false\"\n User wrong\n"), 0o600))
	_, err = newResolver(file)
	assert.ErrorContains(t, err, "is not supported", "nothing is guessed without ssh")
	require.NoError(t, os.WriteFile(file, []byte("Include "+file+"\n"), 0o600))
	_, err = newResolver(file)
	assert.ErrorContains(t, err, "deeper than 16")

	// The user's own file.
	home := t.TempDir()
	t.Setenv("HOME", home)
	require.NoError(t, os.Mkdir(filepath.Join(home, ".ssh"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(home, ".ssh", "config"), []byte("Host db\n Port 7\n"), 0o600))
	r, err = newResolver("")
	require.NoError(t, err)
	assert.NotNil(t, r.parsed, "there is no ssh to ask")
	h, err := r.resolve(t.Context(), "db")
	require.NoError(t, err)
	assert.Equal(t, 7, h.port)
	t.Setenv("PATH", filepath.Dir(ssh))
	if _, err := exec.LookPath("ssh"); err == nil {
		r, err = newResolver("")
		require.NoError(t, err)
		assert.Nil(t, r.parsed, "ssh is asked")
	}
	r, err = newResolver("none")
	require.NoError(t, err)
	h, err = r.resolve(t.Context(), "db")
	require.NoError(t, err)
	assert.Equal(t, 22, h.port)
}
