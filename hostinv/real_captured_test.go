package hostinv_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/internal/testenv"
)

// capturedHost makes a root directory out of what was captured on a host: its
// files, commands that print what they printed there, and busybox for
// everything else. The collector runs in it, so that nothing of this machine
// can be mistaken for that host's.
func capturedHost(t *testing.T, file string) machine {
	t.Helper()
	busybox := testenv.Need(t, "busybox")
	chroot := testenv.Need(t, "chroot")
	if os.Getuid() != 0 {
		t.Skip("a root directory of its own needs root")
	}
	a, err := txtar.ParseFile(file)
	require.NoError(t, err)
	root := t.TempDir()
	write := func(name, text string, perm os.FileMode) {
		name = filepath.Join(root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
		require.NoError(t, os.WriteFile(name, []byte(text), perm))
	}
	data, err := os.ReadFile(busybox)
	require.NoError(t, err)
	write("bin/busybox", string(data), 0o755)
	write("dev/null", "", 0o666) // swallows what is written, which is all that is asked of it
	commands := map[string]*strings.Builder{}
	for i, f := range a.Files {
		call, ok := strings.CutPrefix(f.Name, "commands/")
		if !ok {
			write(f.Name, string(f.Data), 0o644)
			continue
		}
		name, _, _ := strings.Cut(call, " ")
		if commands[name] == nil {
			commands[name] = &strings.Builder{}
		}
		write(fmt.Sprintf("captured/%d", i), string(f.Data), 0o644)
		fmt.Fprintf(commands[name], "'%s'*) cat /captured/%d ;;\n", call, i)
	}
	for name, cases := range commands {
		write("bin/"+name, fmt.Sprintf("#!/bin/sh\ncase \"%s $*\" in\n%s*) echo \"not captured: %s $*\" >&2; exit 1 ;;\nesac\n", name, cases, name), 0o755)
	}
	list, err := exec.Command(busybox, "--list").Output()
	require.NoError(t, err)
	for _, applet := range strings.Fields(string(list)) {
		// Package managers and services are the captured host's, or absent.
		if commands[applet] == nil && !slices.Contains([]string{"busybox", "rpm", "dpkg", "dpkg-deb", "rpm2cpio", "ip", "hostname", "hostid"}, applet) {
			require.NoError(t, os.Symlink("busybox", filepath.Join(root, "bin", applet)))
		}
	}
	return machine{shell: []string{chroot, root, "/bin/sh", "-s"}}
}

// TestCaptured: outputs of the distributions that upgrades begin and end with
// are understood, by a busybox shell with nothing but busybox around it.
func TestCaptured(t *testing.T) {
	files, err := filepath.Glob("testdata/captured/*.txtar")
	require.NoError(t, err)
	require.Len(t, files, 7)
	want := map[string]hostinv.OS{
		"centos7":    {ID: "centos", Version: "7", Pretty: "CentOS Linux 7 (Core)", Release: "CentOS Linux release 7.5.1804 (Core)"},
		"alinux2":    {ID: "alinux", Version: "2.1903", Pretty: "Alibaba Cloud Linux (Aliyun Linux) 2.1903 LTS (Hunting Beagle)", Release: "Alibaba Cloud Linux (Aliyun Linux) release 2.1903 LTS (Hunting Beagle)"},
		"alinux3":    {ID: "alinux", Version: "3", Pretty: "Alibaba Cloud Linux 3 (Soaring Falcon)", Release: "Alibaba Cloud Linux release 3 (Soaring Falcon)"},
		"alinux3u10": {ID: "alinux", Version: "3", Pretty: "Alibaba Cloud Linux 3.2104 U10 (OpenAnolis Edition)"},
		"ubuntu1604": {ID: "ubuntu", Version: "16.04", Pretty: "Ubuntu 16.04 LTS"},
		"ubuntu2204": {ID: "ubuntu", Version: "22.04", Pretty: "Ubuntu 22.04.3 LTS"},
		"debian12":   {ID: "debian", Version: "12", Pretty: "Debian GNU/Linux 12 (bookworm)", Release: "Debian 12.11"},
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txtar")
		t.Run(name, func(t *testing.T) {
			inv, err := hostinv.Collect(t.Context(), capturedHost(t, file), hostinv.Options{})
			require.NoError(t, err)
			w := want[name]
			assert.Equal(t, []string{w.ID, w.Version, w.Pretty, w.Release}, []string{inv.OS.ID, inv.OS.Version, inv.OS.Pretty, inv.OS.Release})
			assert.Equal(t, hostinv.StatusOK, inv.Sections[hostinv.SectionOS].Status)
			assert.Empty(t, inv.Noise)
			units := map[string]hostinv.Unit{}
			for _, u := range inv.Units {
				units[u.Name] = u
			}
			switch name {
			case "centos7":
				assert.Len(t, units, 19)
				assert.Equal(t, "running", units["mariadb.service"].Sub)
				assert.Equal(t, "exited", units["lvm2-pvscan@8:10.service"].Sub)
				assert.Equal(t, "not-found", units["named.service"].Load)
				assert.Equal(t, hostinv.StatusPartial, inv.Sections[hostinv.SectionUnits].Status, "what was not captured is not known")
			case "alinux3":
				assert.Equal(t, "5.10.134-15.1.al8.x86_64", inv.Kernel)
				assert.Equal(t, hostinv.StatusAbsent, inv.Sections[hostinv.SectionUnits].Status)
			case "debian12":
				assert.False(t, inv.Sections[hostinv.SectionUnits].Status.Known(), "list-units was not captured")
			default:
				assert.Equal(t, hostinv.StatusAbsent, inv.Sections[hostinv.SectionUnits].Status)
			}
			// What is not there is never taken for empty, and an inventory
			// differs in nothing known from itself.
			for _, f := range hostinv.Diff(inv, inv, hostinv.Expect{}).Findings {
				assert.Equal(t, hostinv.Unknown, f.Kind, "%+v", f)
			}
		})
	}
}

// TestRealShells: dash, bash and busybox read the same of this machine; the
// last one also with its own tools before those of this machine.
func TestRealShells(t *testing.T) {
	h := thisMachine(t)
	testenv.Slow(t) // five inventories of this machine
	applets := t.TempDir()
	busybox := testenv.Need(t, "busybox")
	list, err := exec.Command(busybox, "--list").Output()
	require.NoError(t, err)
	for _, a := range strings.Fields(string(list)) {
		if !slices.Contains([]string{"rpm", "dpkg", "ip", "hostname"}, a) {
			require.NoError(t, os.Symlink(busybox, filepath.Join(applets, a)))
		}
	}
	inventories := map[string]*hostinv.Inventory{}
	for name, m := range map[string]machine{
		"dash":    {shell: []string{"dash", "-s"}},
		"bash":    {shell: []string{testenv.Need(t, "bash"), "--posix", "-s"}},
		"busybox": {shell: []string{busybox, "sh", "-s"}},
		"applets": {shell: []string{busybox, "sh", "-s"}, env: []string{"PATH=" + applets + ":" + os.Getenv("PATH")}},
	} {
		inv, err := hostinv.Collect(t.Context(), m, hostinv.Options{})
		require.NoError(t, err, name)
		assert.Empty(t, inv.Noise, name)
		inventories[name] = inv
	}
	want, err := hostinv.Collect(t.Context(), h, hostinv.Options{})
	require.NoError(t, err)
	// Others use this machine meanwhile: what runs may change, what it is may
	// not.
	moving := []string{"agents", "java", "listeners", "owners", "processes", "connections", "uptime"}
	for name, inv := range inventories {
		for _, f := range hostinv.Diff(want, inv, hostinv.Expect{}).Findings {
			// busybox takes its own ip, which leaves "proto kernel" out.
			if f.Area == hostinv.SectionRoutes && (name == "busybox" || name == "applets") {
				continue
			}
			if f.Kind != hostinv.Unknown && !slices.Contains(moving, f.Area) {
				t.Errorf("%s: %+v", name, f)
			}
		}
		for s, section := range want.Sections {
			if !slices.Contains(moving, s) {
				assert.Equal(t, section.Status, inv.Sections[s].Status, "%s: section %s: %s", name, s, inv.Sections[s].Message)
			}
		}
	}
}
