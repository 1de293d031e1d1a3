package hostinv_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/internal/testenv"
)

func names(l []hostinv.FleetHost) []string {
	out := []string{}
	for _, h := range l {
		out = append(out, h.Name)
	}
	return out
}

func TestParseHosts(t *testing.T) {
	got, err := hostinv.ParseHosts("fleet", []byte("\ufeff# the fleet\r\nweb-90\r\n\n  root@172.31.0.91:2222 # old\n[2001:db8::1]:22\n2001:db8::2\n#x\n"))
	require.NoError(t, err)
	assert.Equal(t, []hostinv.FleetHost{
		{Name: "web-90", Target: "web-90", Source: "fleet:2"},
		{Name: "root@172.31.0.91:2222", Target: "root@172.31.0.91:2222", Source: "fleet:4"},
		{Name: "[2001:db8::1]:22", Target: "[2001:db8::1]:22", Source: "fleet:5"},
		{Name: "2001:db8::2", Target: "2001:db8::2", Source: "fleet:6"},
	}, got)

	_, err = hostinv.ParseHosts("fleet", []byte("web-90 web-91\n -oProxyCommand=x\nweb-92\nweb-92\nweb-93:0\nweb\x1b[m\nroot;x@web\n\xff\nweb#1\n"))
	var bad *hostinv.ConfigError
	require.ErrorAs(t, err, &bad)
	for i, want := range []string{"fleet:1:8: ", "fleet:2:2: ", "fleet:4:1: ", "fleet:5:1: ", "fleet:6:4: ", "fleet:7:1: ", "fleet:8:1: ", "fleet:9:1: "} {
		require.Greater(t, len(bad.Problems), i)
		assert.True(t, strings.HasPrefix(bad.Problems[i], want), bad.Problems[i])
	}
	assert.Len(t, bad.Problems, 8)
}

func TestMergeHosts(t *testing.T) {
	a := []hostinv.FleetHost{{Name: "a", Target: "a"}, {Name: "b", Target: "root@b", Source: "inv:3"}}
	got, err := hostinv.MergeHosts(a, []hostinv.FleetHost{{Name: "c"}, {Name: "a"}})
	require.NoError(t, err)
	assert.Equal(t, []string{"a", "b", "c"}, names(got))
	_, err = hostinv.MergeHosts(a, []hostinv.FleetHost{{Name: "b"}})
	assert.ErrorContains(t, err, "host b means root@b (inv:3) and b (an argument)")
}

func TestListSSHHosts(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("USERPROFILE", home)
	dir := filepath.Join(home, ".ssh")
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "config.d"), 0o700))
	file := func(name, text string) string {
		name = filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
		return name
	}
	config := file("config", "Host web-1 web-2 db-1\n HostName x\nInclude config.d/*\nHost=\"web-9\" # last\nHost web-* !web-3\nMatch host web-8\n")
	file("config.d/a", "Host web-3 bastion web-1\n")
	got, err := hostinv.ListSSHHosts(config, "web-*", "!web-2")
	require.NoError(t, err)
	assert.Equal(t, []string{"web-1", "web-3", "web-9"}, names(got))
	assert.Equal(t, config+":1", got[0].Source)
	_, err = hostinv.ListSSHHosts(config, "web-1", "cache-*")
	assert.ErrorContains(t, err, `matches "cache-*"`)
	file("config.d/b", "Include ~/.ssh/config\n")
	_, err = hostinv.ListSSHHosts(config, "web-1")
	assert.ErrorContains(t, err, "include one another")
}

const iniInventory = `# the shop
loner ansible_host=172.31.0.9 ansible_user="deploy"
[web]
web[01:03].example.com
web-9:2222   ansible_user=root   # the old one
[2001:db8::5]:2200 ansible_user='x'
db-[a:c]x[1:5:2] ansible_port=2022
[web:vars]
ansible_user = app
some = [1, 2]
note = "a b"
[db]
db1 ansible_host=10.0.0.1
web-9
[db:vars]
ansible_user=postgres
ansible_port=2023
[prod:children]
web
db
[prod:vars]
ansible_ssh_private_key_file=~/.ssh/prod
ansible_port=2024
ansible_group_priority=10
[all:vars]
ansible_user=nobody
[late:vars]
ansible_port=9
[late]
web01.example.com
[empty]
`

const yamlInventory = `---
all:
  vars: {ansible_user: nobody, motd: "a {{ b }}"}
  hosts:
    loner: {ansible_host: 172.31.0.9}
  children:
    web:
      hosts:
        web[01:03].example.com:
        web-9:2222: {ansible_user: root}
        "2001:db8::5": &v6
          ansible_port: 2200
      vars:
        ansible_user: app
    prod:
      children: {web: , db: }
      vars: {ansible_ssh_private_key_file: ~/.ssh/prod, ansible_port: 2024}
db:
  hosts:
    db1: {ansible_host: 10.0.0.1}
    web-9:
    v6b: *v6
  vars: {ansible_user: postgres, ansible_port: "2023", secret: !vault "x"}
one:
  hosts: single
`

// ansibleEnv keeps the settings of this machine away from ansible.
func ansibleEnv(t *testing.T) []string {
	home := t.TempDir()
	cfg := filepath.Join(home, "ansible.cfg")
	require.NoError(t, os.WriteFile(cfg, []byte("[inventory]\nunparsed_is_failed = true\nany_unparsed_is_failed = true\n"), 0o600))
	return append(os.Environ(), "ANSIBLE_CONFIG="+cfg, "HOME="+home)
}

// ansible asks ansible-inventory for the hosts of a file and how they are
// reached, in our form.
func ansible(t *testing.T, file string) (map[string]hostinv.FleetHost, error) {
	t.Helper()
	cmd := exec.Command(testenv.Need(t, "ansible-inventory"), "-i", file, "--list")
	cmd.Env = ansibleEnv(t)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, stderr.String())
	}
	var doc map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(out, &doc))
	var meta struct {
		HostVars map[string]map[string]any `json:"hostvars"`
	}
	require.NoError(t, json.Unmarshal(doc["_meta"], &meta))
	got := map[string]hostinv.FleetHost{}
	groups := map[string]struct {
		Hosts, Children []string
	}{}
	for name, raw := range doc {
		if name == "_meta" {
			continue
		}
		g := groups[name]
		require.NoError(t, json.Unmarshal(raw, &g))
		groups[name] = g
	}
	var members func(name string, into map[string]bool)
	members = func(name string, into map[string]bool) {
		for _, h := range groups[name].Hosts {
			into[h] = true
		}
		for _, c := range groups[name].Children {
			members(c, into)
		}
	}
	all := map[string]bool{}
	members("all", all)
	for h := range all {
		v := meta.HostVars[h]
		text := func(names ...string) string {
			for _, n := range names {
				if x, ok := v[n]; ok && x != nil && x != "" {
					return fmt.Sprint(x)
				}
			}
			return ""
		}
		f := hostinv.FleetHost{Name: h, Target: h, Identity: text("ansible_ssh_private_key_file", "ansible_private_key_file")}
		if a := text("ansible_host", "ansible_ssh_host"); a != "" {
			f.Target = a
		}
		if p := text("ansible_port", "ansible_ssh_port"); p != "" {
			if strings.Contains(f.Target, ":") {
				f.Target = "[" + f.Target + "]"
			}
			f.Target += ":" + p
		}
		if u := text("ansible_user", "ansible_ssh_user"); u != "" {
			f.Target = u + "@" + f.Target
		}
		for g := range groups {
			in := map[string]bool{}
			members(g, in)
			if in[h] && g != "all" && g != "ungrouped" {
				f.Groups = append(f.Groups, g)
			}
		}
		slices.Sort(f.Groups)
		got[h] = f
	}
	return got, nil
}

func agree(t *testing.T, file string) {
	t.Helper()
	want, err := ansible(t, file)
	require.NoError(t, err)
	inv, err := hostinv.LoadAnsible(file)
	require.NoError(t, err)
	list, err := inv.Hosts("")
	require.NoError(t, err)
	got := map[string]hostinv.FleetHost{}
	for _, h := range list {
		assert.NotEmpty(t, h.Source)
		h.Source = ""
		got[h.Name] = h
	}
	assert.Len(t, got, len(list), "a host twice")
	assert.Equal(t, want, got)
}

// TestAnsibleJudge holds what we read of an inventory against what
// ansible-inventory reads.
func TestAnsibleJudge(t *testing.T) {
	testenv.Need(t, "ansible-inventory")
	for name, text := range map[string]string{"hosts": iniInventory, "hosts.yml": yamlInventory} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, name)
			require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
			agree(t, file)
			for path, text := range map[string]string{
				"group_vars/all.yml":      "ansible_user: everybody\nansible_port: 7\n",
				"group_vars/prod/a.yml":   "ansible_port: 2025\n",
				"group_vars/prod/b":       "ansible_port: 2026\n",
				"group_vars/prod/c.txt":   "ansible_port: 2027\n",
				"group_vars/prod/sub/a":   "ansible_user: deep\n",
				"group_vars/prod.yml":     "ansible_port: 2028\n",
				"group_vars/db.json":      `{"ansible_host": "10.9.9.9"}`,
				"host_vars/web-9.yaml":    "# nothing\n",
				"host_vars/loner":         "ansible_port: 2029\nansible_user: loner\n",
				"host_vars/loner.yml":     "ansible_port: 2030\n",
				"host_vars/single/x.yaml": "ansible_host: 10.1.1.1\n",
			} {
				path = filepath.Join(dir, path)
				require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
				require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
			}
			agree(t, file)
		})
	}
	t.Run("limit", func(t *testing.T) {
		testenv.Slow(t)
		bin := testenv.Need(t, "ansible")
		file := filepath.Join(t.TempDir(), "hosts")
		require.NoError(t, os.WriteFile(file, []byte(iniInventory), 0o600))
		inv, err := hostinv.LoadAnsible(file)
		require.NoError(t, err)
		for _, limit := range []string{"web", "prod:!db", "web:&db", "w*,!*example*", "!web", "ungrouped", "db-[a]x1", "empty", "nothing"} {
			cmd := exec.Command(bin, "-i", file, "--list-hosts", "all", "--limit", limit)
			cmd.Env = ansibleEnv(t)
			out, failed := cmd.Output()
			var want []string
			for i, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
				if i > 0 {
					want = append(want, strings.TrimSpace(line))
				}
			}
			got, err := inv.Hosts(limit)
			if failed != nil || want == nil {
				assert.Error(t, err, limit)
				continue
			}
			if err != nil {
				assert.ErrorContains(t, err, "not supported", limit)
				continue
			}
			assert.ElementsMatch(t, want, names(got), limit)
		}
	})
	t.Run("random", func(t *testing.T) {
		testenv.Slow(t) // half a second of ansible each
		for seed := range uint64(12) {
			r := rand.New(rand.NewPCG(seed, 5))
			name, text := randomInventory(r)
			file := filepath.Join(t.TempDir(), name)
			require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
			agree(t, file)
			if t.Failed() {
				t.Fatalf("seed %d:\n%s", seed, text)
			}
		}
	})
}

// randomInventory makes an inventory whose groups form no circle.
func randomInventory(r *rand.Rand) (name, text string) {
	value := func() string {
		return []string{"ansible_user=u%d", "ansible_port=%d", "ansible_host=10.0.0.%d", "ansible_ssh_user=s%d", "other=%d", "ansible_group_priority=%d"}[r.IntN(6)]
	}
	vars := func(n int, host bool) [][2]string {
		var l [][2]string
		for range r.IntN(n + 1) {
			k, v, _ := strings.Cut(fmt.Sprintf(value(), r.IntN(200)+2), "=")
			if k == "ansible_ssh_user" || k == "ansible_group_priority" && host || slices.ContainsFunc(l, func(x [2]string) bool { return x[0] == k }) {
				continue
			}
			l = append(l, [2]string{k, v})
		}
		return l
	}
	var b strings.Builder
	groups := 1 + r.IntN(6)
	yaml := r.IntN(2) == 0
	for g := range groups {
		if yaml {
			fmt.Fprintf(&b, "g%d:\n  hosts:\n", g)
			for _, h := range r.Perm(8)[:1+r.IntN(4)] {
				fmt.Fprintf(&b, "    h%d:\n", h)
				for _, v := range vars(2, true) {
					fmt.Fprintf(&b, "      %s: %s\n", v[0], v[1])
				}
			}
			fmt.Fprintf(&b, "  vars:\n")
			for _, v := range vars(3, false) {
				fmt.Fprintf(&b, "    %s: %s\n", v[0], v[1])
			}
			fmt.Fprintf(&b, "  children:\n")
			for c := g + 1; c < groups; c++ {
				if r.IntN(3) == 0 {
					fmt.Fprintf(&b, "    g%d:\n", c)
				}
			}
			continue
		}
		fmt.Fprintf(&b, "[g%d]\n", g)
		for range r.IntN(4) {
			fmt.Fprintf(&b, "h%d", r.IntN(8))
			for _, v := range vars(2, true) {
				fmt.Fprintf(&b, " %s=%s", v[0], v[1])
			}
			b.WriteString("\n")
		}
		if r.IntN(3) == 0 {
			fmt.Fprintf(&b, "r[%d:%d]\n", r.IntN(3), 3+r.IntN(3))
		}
		fmt.Fprintf(&b, "[g%d:vars]\n", g)
		for _, v := range vars(3, false) {
			fmt.Fprintf(&b, "%s = %s\n", v[0], v[1])
		}
		fmt.Fprintf(&b, "[g%d:children]\n", g)
		for c := g + 1; c < groups; c++ {
			if r.IntN(3) == 0 {
				fmt.Fprintf(&b, "g%d\n", c)
			}
		}
	}
	if yaml {
		return "hosts.yml", b.String()
	}
	b.WriteString("[g0]\nlast\n")
	return "hosts", b.String()
}

// TestAnsibleRefused: what is not understood is said with its place. Where
// refused is true ansible-inventory refuses it too.
func TestAnsibleRefused(t *testing.T) {
	long := "h[0:9999][0:9999]"
	for _, tt := range []struct {
		name, file, text, want string
		refused                bool
	}{
		{"undefined child", "hosts", "[a:children]\nb\n", "hosts:2:1: [a:children] names b", true},
		{"undefined group", "hosts", "[a:vars]\nx=1\n", "hosts:1:1: [a:vars]", true},
		{"section", "hosts", "\n[a:hostz]\n", "hosts:2:1: section [a:hostz]", true},
		{"blank in section", "hosts", "[a b]\n", "hosts:1:1: [a b]", true},
		{"no assignment", "hosts", "h x\n", `hosts:1:1: "x" is not KEY=VALUE`, true},
		{"no assignment of a group", "hosts", "[a]\n[a:vars]\n x\n", `hosts:3:2: "x" is not KEY=VALUE`, true},
		{"quote", "hosts", "h x='y\n", "hosts:1:1: quote ' is not closed", true},
		{"circle", "hosts", "[a:children]\nb\n[b:children]\na\n", "hosts:4:1: group a is a child of b", true},
		{"range", "hosts", "h[01:5]\n", "hosts:1:1: host", true},
		{"range backwards", "hosts", "h[c:a]\n", "ends before it begins", true},
		{"range without end", "hosts", "h[1:]\n", "hosts:1:1", true},
		{"range of many", "hosts", long, "more than 10000 hosts", false},
		{"colon at the end", "hosts", "a\nh:\n", "hosts:2:1", true},
		{"port", "hosts", "h:99999\n", "no port number", false},
		{"host and group", "hosts", "[a]\na\n", "name of a host and of a group", false},
		{"vault", "hosts", "$ANSIBLE_VAULT;1.1;AES256\n6162\n", "hosts:1:1: the file is vaulted", true},
		{"yaml list", "hosts.yml", "- a\n", "hosts.yml:1:1: this is a list", true},
		{"yaml empty", "hosts.yml", "# x\n", "hosts.yml:1:1: the file is empty", false}, // ansible tries it as INI, and finds nothing,
		{"yaml syntax", "hosts.yml", "a:\n  b: [\n", "hosts.yml:", true},
		{"plugin", "hosts.yml", "plugin: aws_ec2\n", "hosts.yml:1:1: this is the configuration of an inventory plugin", true},
		{"dynamic output", "hosts.json", `{"_meta": {}}`, "hosts.json:1:2: this is the output", false},
		{"unknown key", "hosts.yml", "a:\n  host:\n    x:\n", "hosts.yml:2:3: group a has host", false},
		{"hosts as list", "hosts.yml", "a:\n  hosts: [x]\n", "hosts.yml:2:3: hosts of a must be a mapping", true},
		{"twice", "hosts.yml", "a:\n  hosts:\n    x:\n    x:\n", "hosts.yml:4:5: x stands in line 3", false},
		{"truth", "hosts.yml", "a:\n  hosts:\n    no:\n", "hosts.yml:3:5: the key no is not a text", true},
		{"octal", "hosts.yml", "a:\n  hosts:\n    x: {ansible_port: 0022}\n", "hosts.yml:3:23: host x", false},
		{"circle in yaml", "hosts.yml", "a:\n  children:\n    b:\n      children:\n        a:\n", "hosts.yml:3:5: group b is a child of a", true},
		{"local", "hosts", "h ansible_connection=local\n", "hosts:1:1: host h is reached by ansible_connection local", false},
		{"password", "hosts", "[a]\nh\n[a:vars]\nansible_password=x\n", "hosts:4:1: host h has ansible_password", false},
		{"arguments", "hosts", "h ansible_ssh_common_args='-o X'\n", "hosts:1:1: host h has ansible_ssh_common_args", false},
		{"template", "hosts", "h ansible_host={{x}}\n", "it is a template", false},
		{"vaulted value", "hosts.yml", "a:\n  hosts:\n    x:\n      ansible_host: !vault |\n        $ANSIBLE_VAULT;1.1;AES256\n        61\n", "hosts.yml:4:21: host x: ansible_host cannot be used: it is vaulted", false},
		{"option as host", "hosts", "h ansible_host=-oProxyCommand=x\n", "is no host name", false},
		{"option as user", "hosts", "h ansible_user=-lroot\n", "is no user name", false},
		{"python number", "hosts", "h ansible_port=0x16\n", "a number that Python writes in another way", false},
		{"two users", "hosts", "h ansible_user=a ansible_ssh_user=b\n", "ansible_ssh_user is \"b\", but ansible_user is \"a\"", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), tt.file)
			require.NoError(t, os.WriteFile(file, []byte(tt.text), 0o600))
			inv, err := hostinv.LoadAnsible(file)
			if err == nil {
				_, err = inv.Hosts("")
			}
			require.Error(t, err)
			assert.Contains(t, strings.ReplaceAll(err.Error(), filepath.Dir(file)+string(filepath.Separator), ""), tt.want)
			if tt.refused && testenv.RunSlow() {
				_, err = ansible(t, file)
				assert.Error(t, err, "ansible reads it")
			}
		})
	}
	dir := t.TempDir()
	_, err := hostinv.LoadAnsible(dir)
	assert.ErrorContains(t, err, "is a directory")
	script := filepath.Join(dir, "inv.py")
	require.NoError(t, os.WriteFile(script, []byte("#!/usr/bin/python3\n"), 0o700))
	_, err = hostinv.LoadAnsible(script)
	assert.ErrorContains(t, err, "it is a program")
	file := filepath.Join(dir, "hosts")
	require.NoError(t, os.WriteFile(file, []byte("[a]\nh\n[b]\ni ansible_connection=local\n"), 0o600))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "group_vars"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "group_vars", "a"), []byte("$ANSIBLE_VAULT;1.1;AES256\n"), 0o600))
	inv, err := hostinv.LoadAnsible(file)
	require.NoError(t, err)
	_, err = inv.Hosts("a")
	assert.ErrorContains(t, err, filepath.Join("group_vars", "a")+":1:1: the file is vaulted")
	_, err = inv.Hosts("c")
	assert.ErrorContains(t, err, `no group "c"; its groups: a all b ungrouped`)
}

func FuzzAnsible(f *testing.F) {
	f.Add("hosts", []byte(iniInventory))
	f.Add("hosts.yml", []byte(yamlInventory))
	f.Add("hosts", []byte("[a]\n[::1]:22 x=\"\\\"\"\nh[a:c][01:03:2]-z:22\n"))
	f.Fuzz(func(t *testing.T, name string, src []byte) {
		// Not in a directory that exists: group_vars are another test's.
		name = "/nonexistent/" + filepath.Base(name)
		inv, err := hostinv.ParseAnsible(name, src)
		if err != nil {
			return
		}
		list, err := inv.Hosts("")
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, h := range list {
			if seen[h.Name] {
				t.Fatalf("host %q twice", h.Name)
			}
			seen[h.Name] = true
			// What we hand on is a target, and never an option of ssh.
			if _, err := hostinv.ArgumentHosts([]string{h.Target}); err != nil {
				t.Fatalf("host %q: %v", h.Name, err)
			}
		}
		again, err := inv.Hosts("all")
		if err != nil && len(list) > 0 || !slices.Equal(names(again), names(list)) {
			t.Fatalf("all is not all: %v", err)
		}
	})
}

// TestAnsibleOrder: the order of the file is kept, whatever the maps do.
func TestAnsibleOrder(t *testing.T) {
	inv, err := hostinv.ParseAnsible("hosts", []byte("[b]\nz\ny\n[a]\nx\nz\n"))
	require.NoError(t, err)
	for range 20 {
		l, err := inv.Hosts("a,b")
		require.NoError(t, err)
		require.Equal(t, []string{"z", "y", "x"}, names(l))
	}
}
