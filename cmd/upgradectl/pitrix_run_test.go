package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/testenv"
)

// pitrixBoxDir makes a firstbox of package pitrix's stand-in scripts.
func pitrixBoxDir(t *testing.T) string {
	t.Helper()
	testenv.Need(t, "bash")
	root := t.TempDir()
	write := func(name, text string, perm os.FileMode) {
		name = filepath.Join(root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
		require.NoError(t, os.WriteFile(name, []byte(text), perm))
	}
	for script, dir := range map[string]string{
		"exec_nodes.sh": "pitrix/upgrade", "update.sh": "pitrix/upgrade", "build_global_conf.sh": "pitrix/upgrade",
		"launch_vms.sh": "pitrix/install", "install_nodes.sh": "pitrix/install", "gen_node_list.py": "pitrix/bin",
		"gen_mac.py": "pitrix/bin", "dump_hosts.py": "pitrix/bin", "build_pkgs_allinone.py": "pitrix/build",
		"ssh": "bin", "ping": "bin", "common.sh": ".",
	} {
		src, err := os.ReadFile(filepath.Join("..", "..", "pitrix", "testdata", "standin", script))
		require.NoError(t, err)
		write(filepath.Join(dir, script), string(src), 0o755)
	}
	write("pitrix/version.json", `{"current": {"installer": "4.3.1"}}`, 0o644)
	for name, address := range map[string]string{"proxy0": "192.0.2.61", "proxy1": "192.0.2.62", "webservice0": "192.0.2.65"} {
		role := strings.TrimRight(name, "01")
		write("pitrix/conf/settings/"+name, "role=\""+role+"\"\nhostname=\""+name+"\"\nzone_id=\"lab1a\"\nmgmt_network_address=\""+address+"\"\nphysical_host=\"h\"\nphysical_host_network_interface=\"br0\"\n", 0o644)
		write("machines/"+name+"/installed", "", 0o644)
	}
	write("hosts/h/kernels/base.img", "", 0o644)
	write("pitrix/conf/nodes/proxy", "nodes=( proxy0 proxy1 );\n", 0o644)
	write("pitrix/conf/nodes/webservice", "nodes=( webservice0 );\n", 0o644)
	write("pitrix/conf/nodes/all", "nodes=( proxy0 proxy1 webservice0 );\n", 0o644)
	write("pitrix/conf/variables/variables.yaml", "common:\n  is_region: 0\n  zone_ids: [lab1a]\n", 0o644)
	write("pitrix/conf/variables/global/x.yaml", "x: 1\n", 0o644)
	write("pitrix/repo/indep/pitrix-hosts_1_all.deb", "", 0o644)
	return root
}

// pitrixRun runs upgradectl pitrix ARGS on that firstbox.
func pitrixRun(t *testing.T, root string, args ...string) (status int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	a := &app{in: strings.NewReader(""), out: &stdout, err: &stderr, lang: "en"}
	status = a.main(t.Context(), append([]string{"pitrix", "--root", root}, args...))
	return status, stdout.String(), stderr.String()
}

func TestPitrixRuns(t *testing.T) {
	root := pitrixBoxDir(t)
	installed := filepath.Join(root, "machines/proxy0/installed")

	status, out, errs := pitrixRun(t, root, "update", "proxy", "pitrix-hosts")
	require.Equal(t, exitOK, status, errs)
	assert.Contains(t, out, "update.sh -f proxy0,proxy1 pitrix-hosts </dev/null")
	assert.Contains(t, out, "nothing was changed")
	data, err := os.ReadFile(installed)
	require.NoError(t, err)
	assert.Empty(t, data)
	status, out, errs = pitrixRun(t, root, "update", "proxy", "pitrix-hosts", "--execute", "--json")
	require.Equal(t, exitOK, status, errs)
	assert.Contains(t, out, `"executed": true`)
	data, err = os.ReadFile(installed)
	require.NoError(t, err)
	assert.Equal(t, "pitrix-hosts\n", string(data))

	for _, tt := range []struct {
		status int
		stderr string
		args   []string
	}{
		{exitRefused, "never the scope", []string{"update", "all", "pitrix-hosts", "--role", "proxy"}},
		{exitRefused, "outside", []string{"exec", "proxy0,webservice0", "true", "--role", "proxy"}},
		{exitRefused, "is not a role", []string{"exec", "proxy0", "true"}},
		{exitUsage, "cut off", []string{"exec", "proxy", "echo # x"}},
		{exitUsage, "groups of packages", []string{"update", "proxy", "hyper"}},
		{exitFailure, "no package pitrix-host;", []string{"update", "proxy", "pitrix-host"}},
		{exitUsage, "may be the nodes that serve", []string{"launch", "proxy", "--force"}},
		{exitUsage, "", []string{"build", "some"}},
		{exitUsage, "neither a host name nor an address", []string{"known-hosts", "a;b"}},
		{exitFailure, "the command failed on proxy0: status 3", []string{"exec", "proxy", "exit 3", "--execute"}},
	} {
		status, _, errs := pitrixRun(t, root, tt.args...)
		assert.Equal(t, tt.status, status, "%v: %s", tt.args, errs)
		assert.Contains(t, errs, tt.stderr, "%v", tt.args)
	}

	status, out, errs = pitrixRun(t, root, "exec", "proxy0", "echo here", "--role", "proxy", "--execute")
	require.Equal(t, exitOK, status, errs)
	assert.Equal(t, "proxy0: status 0\n  here\n", out)

	for _, args := range [][]string{{"nodes"}, {"build", "all"}, {"build", "global"}, {"launch", "proxy"}, {"install", "proxy"}, {"known-hosts", "proxy0", "--all", "--port", "2222"}} {
		status, out, errs := pitrixRun(t, root, args...)
		require.Equal(t, exitOK, status, "%v: %s", args, errs)
		assert.Contains(t, out, "nothing was changed", "%v", args)
		if args[0] == "nodes" || args[0] == "known-hosts" {
			continue // the stand-in writes no lists, and known_hosts is this machine's
		}
		status, _, errs = pitrixRun(t, root, append(args, "--execute")...)
		assert.Equal(t, exitOK, status, "%v: %s", args, errs)
	}
	status, _, errs = pitrixRun(t, root, "launch", "proxy", "--execute")
	assert.Equal(t, exitRefused, status, "launched already")
	assert.Contains(t, errs, "proxy0.Done stands on the host")
}

// Between build and switch of a rebuild nothing goes to other nodes.
func TestPitrixMarked(t *testing.T) {
	root := pitrixBoxDir(t)
	dir := filepath.Join(root, "pitrix/conf/.upgradectl-rebuild")
	require.NoError(t, os.Mkdir(dir, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "marker.json"), []byte(`{"run":"r1","role":"proxy","nodes":["proxy0","proxy1"],"since":"2026-11-22T03:00:00Z"}`), 0o644))
	for _, args := range [][]string{{"update", "webservice", "pitrix-hosts"}, {"exec", "webservice", "true"}} {
		status, _, errs := pitrixRun(t, root, append(args, "--execute")...)
		assert.Equal(t, exitRefused, status, errs)
		assert.Contains(t, errs, "its temporary addresses would reach webservice0")
	}
	status, _, errs := pitrixRun(t, root, "update", "proxy", "pitrix-hosts", "--execute")
	assert.Equal(t, exitOK, status, errs)
	data, err := os.ReadFile(filepath.Join(root, "machines/webservice0/installed"))
	require.NoError(t, err)
	assert.Empty(t, data)
}

func TestPitrixStatus(t *testing.T) {
	root := pitrixBoxDir(t)
	write := func(node, text string) {
		name := filepath.Join(root, "bin", "supervisorctl")
		require.NoError(t, os.WriteFile(name, []byte("#!/bin/sh\ncat programs\n"), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(root, "machines", node, "programs"), []byte(text), 0o644))
	}
	write("proxy0", "cb_server   RUNNING   pid 12, uptime 0:04:59\n")
	write("proxy1", "cb_server   RUNNING   pid 12, uptime 0:04:59\n")
	status, out, errs := pitrixRun(t, root, "status", "proxy")
	require.Equal(t, exitOK, status, errs)
	assert.Equal(t, "proxy0: running: 1 of 1 programs run\nproxy1: running: 1 of 1 programs run\n", out)
	write("proxy1", "cb_server   FATAL   Exited too quickly (process log may have details)\n")
	status, out, _ = pitrixRun(t, root, "status", "proxy")
	assert.Equal(t, exitRefused, status)
	assert.Contains(t, out, "proxy1: broken: 0 of 1 programs run; cb_server FATAL")
	require.NoError(t, os.RemoveAll(filepath.Join(root, "machines/proxy1")))
	status, out, _ = pitrixRun(t, root, "status", "proxy", "--json")
	assert.Equal(t, exitRefused, status)
	assert.Contains(t, out, "Connection refused")
}
