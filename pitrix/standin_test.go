package pitrix

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/testenv"
)

// localHost is this machine as a Host. Env is added to what commands get, and
// Prefix stands before them, as "ip netns exec NAME".
type localHost struct {
	env    []string
	prefix []string
	key    string // of HostKey
}

func (h *localHost) Run(ctx context.Context, cmd string, stdin io.Reader, stdout, stderr io.Writer) error {
	args := append(append([]string{}, h.prefix...), "/bin/sh", "-c", cmd)
	c := exec.CommandContext(ctx, args[0], args[1:]...)
	c.Env = append(os.Environ(), h.env...)
	c.Stdin, c.Stdout, c.Stderr = stdin, stdout, stderr
	err := c.Run()
	var ee *exec.ExitError
	if errors.As(err, &ee) && ctx.Err() == nil {
		return exited{ee}
	}
	return err
}

type exited struct{ *exec.ExitError }

func (e exited) ExitStatus() int { return e.ExitCode() }

func (h *localHost) ReadFile(_ context.Context, name string) ([]byte, error) {
	return os.ReadFile(name)
}

func (h *localHost) WriteFile(_ context.Context, name string, data []byte, perm fs.FileMode) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// keyHost is a localHost that proves a host key, as an SSH connection does.
type keyHost struct{ localHost }

func (h *keyHost) HostKey() string { return h.key }

// box is a firstbox of stand-in scripts in a directory of its own.
type box struct {
	t    *testing.T
	root string
	*Firstbox
	scripts Scripts
}

func (b *box) path(name string) string { return filepath.Join(b.root, name) }

func (b *box) write(name, text string) {
	b.t.Helper()
	require.NoError(b.t, os.MkdirAll(filepath.Dir(b.path(name)), 0o755))
	require.NoError(b.t, os.WriteFile(b.path(name), []byte(text), 0o644))
}

func (b *box) read(name string) string {
	b.t.Helper()
	data, err := os.ReadFile(b.path(name))
	require.NoError(b.t, err)
	return string(data)
}

// run runs a command line of Scripts and returns what it wrote.
func (b *box) run(line string, err error) ([]byte, int) {
	b.t.Helper()
	require.NoError(b.t, err)
	out, status, err := both(b.t.Context(), b.Host, line)
	require.NoError(b.t, err)
	return out, status
}

// newBox makes a firstbox with proxy0, proxy1 and webservice0, of which every
// machine answers.
func newBox(t *testing.T) *box {
	t.Helper()
	testenv.Need(t, "bash")
	b := &box{t: t, root: t.TempDir()}
	b.Firstbox = &Firstbox{Host: &localHost{}, Root: b.root}
	for script, to := range map[string]string{
		"exec_nodes.sh": "pitrix/upgrade", "update.sh": "pitrix/upgrade", "build_global_conf.sh": "pitrix/upgrade",
		"launch_vms.sh": "pitrix/install", "install_nodes.sh": "pitrix/install", "gen_node_list.py": "pitrix/bin",
		"gen_mac.py": "pitrix/bin", "dump_hosts.py": "pitrix/bin", "build_pkgs_allinone.py": "pitrix/build",
		"ssh": "bin", "ping": "bin", "common.sh": ".",
	} {
		src, err := os.ReadFile(filepath.Join("testdata", "standin", script))
		require.NoError(t, err)
		b.write(filepath.Join(to, script), string(src))
		require.NoError(t, os.Chmod(b.path(filepath.Join(to, script)), 0o755))
	}
	b.write("pitrix/version.json", `{"current": {"installer": "4.3.1"}}`)
	for name, host := range map[string]string{"proxy0": "192.0.2.102", "proxy1": "192.0.2.101", "webservice0": "192.0.2.103"} {
		role := strings.TrimRight(name, "01")
		address := map[string]string{"proxy0": "192.0.2.61", "proxy1": "192.0.2.62", "webservice0": "192.0.2.65"}[name]
		b.write("pitrix/conf/settings/"+name, "role=\""+role+"\"\nhostname=\""+name+"\"\nmgmt_network_address=\""+address+"\"\nphysical_host=\""+host+"\"\nphysical_host_network_interface=\"br0\"\n")
		require.NoError(t, os.MkdirAll(b.path("machines/"+name), 0o755))
		b.write("hosts/"+host+"/kernels/base.img", "base")
	}
	b.write("pitrix/conf/nodes/proxy", "nodes=( proxy0 proxy1 );\n")
	b.write("pitrix/conf/nodes/webservice", "nodes=( webservice0 );\n")
	b.write("pitrix/conf/nodes/all", "nodes=( proxy0 proxy1 webservice0 );\n")
	b.write("pitrix/conf/nodes/empty", "nodes=(  );\n")
	b.write("pitrix/conf/variables/is_region", "0\n")
	b.write("pitrix/conf/variables/variables.yaml", "common:\n  is_region: 0\n  zone_ids: [lab1a]\n")
	b.write("pitrix/conf/variables/global/server.yaml.lab1a", "today: first\n")
	for _, p := range []string{"pitrix-ks-proxy_1_all.deb", "pitrix-hosts_1_all.deb", "pitrix-ks-proxy-boss2_1_all.deb"} {
		b.write("pitrix/repo/indep/"+p, "")
	}
	var err error
	b.scripts, err = b.GetScripts(t.Context())
	require.NoError(t, err)
	return b
}

// proxies is the scope of both proxies.
func (b *box) proxies() Scope { return b.scope("proxy", Allow{Role: "proxy"}) }

func (b *box) scope(words string, allow Allow) Scope {
	b.t.Helper()
	fleet, err := b.ReadFleet(b.t.Context())
	require.NoError(b.t, err)
	groups, err := b.ReadGroups(b.t.Context())
	require.NoError(b.t, err)
	s, err := NewScope(fleet, groups, words, allow)
	require.NoError(b.t, err)
	return s
}

// needIdentity skips a test on a machine that has nothing to be known by.
func needIdentity(t *testing.T) {
	t.Helper()
	testenv.Need(t, "ip")
	if cards, _ := filepath.Glob("/sys/class/net/e*/address"); len(cards) == 0 {
		t.Skip("this machine has no network interface with a MAC address in /sys")
	}
}
