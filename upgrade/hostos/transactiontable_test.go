package hostos

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What yum 3.4.3 of CentOS 7 prints: it breaks a row that does not fit into 80
// columns, and names what a package replaces below it.
const yum3Table = `Loaded plugins: fastestmirror
Loading mirror speeds from cached hostfile
Resolving Dependencies
--> Running transaction check
---> Package kernel.x86_64 0:3.10.0-1160.6.1.el7 will be installed
--> Finished Dependency Resolution

Dependencies Resolved

================================================================================
 Package                 Arch       Version                   Repository   Size
================================================================================
Installing:
 iptables-services-and-more
                         x86_64     1.4.21-35.el7             base         52 k
     replacing  iptables-old.x86_64 1:1.4.7-16.el7
 kernel                  x86_64     3.10.0-1160.6.1.el7       updates      50 M
Updating:
 NetworkManager          x86_64     1:1.18.8-2.el7_9          updates     1.9 M
 centos-release          x86_64     7-9.2009.1.el7.centos     updates      27 k
Removing:
 kernel                  x86_64     3.10.0-693.el7            @anaconda    59 M
Installing for dependencies:
 linux-firmware-with-a-name-that-is-long
                         noarch     20200421-80.git78c0348.el7_9
                                                              updates      80 M
Skipped (dependency problems):
 broken                  noarch     2.0-1                     base        512  

Transaction Summary
================================================================================
Install  2 Packages (+1 Dependent package)
Upgrade  2 Packages
Remove   1 Package

Total download size: 132 M
Exiting on user command
Your transaction was saved, rerun it with:
 yum load-transaction /tmp/yum_save_tx.2020-12-01.10-00.abc.yumtx
`

func names(p []Package) string {
	var out []string
	for _, x := range p {
		out = append(out, x.String())
	}
	return strings.Join(out, " ")
}

func TestYum3Table(t *testing.T) {
	tr, err := parseTable(yum3Table, 1)
	require.NoError(t, err)
	assert.Equal(t, "iptables-services-and-more-1.4.21-35.el7.x86_64 kernel-3.10.0-1160.6.1.el7.x86_64 linux-firmware-with-a-name-that-is-long-20200421-80.git78c0348.el7_9.noarch", names(tr.Install))
	assert.Equal(t, "NetworkManager-1:1.18.8-2.el7_9.x86_64 centos-release-7-9.2009.1.el7.centos.x86_64", names(tr.Upgrade))
	assert.Equal(t, "iptables-old-1:1.4.7-16.el7.x86_64 kernel-3.10.0-693.el7.x86_64", names(tr.Remove))
	assert.Equal(t, "broken-2.0-1.noarch", names(tr.Skipped))
	assert.Equal(t, int64(132<<20), tr.Bytes)
	assert.Equal(t, newKernel, tr.Kernel())

	for _, c := range []struct {
		name, text string
		status     int
		dead       bool
		says       string
	}{
		{"no base", "Cannot find a valid baseurl for repo: base/7/x86_64\n", 1, true, "does not answer"},
		{"mirror list", "Could not retrieve mirrorlist http://mirrorlist.centos.org/?release=7 error was\n14: curl#6 - \"Could not resolve host\"\n", 1, true, "mirrorlist.centos.org"},
		{"dnf metadata", "Error: Failed to download metadata for repo 'base': Cannot download repomd.xml\n", 1, true, "does not answer"},
		{"dependency", "Error: Package: a-2-1.x86_64 (base)\n           Requires: b\n You could try using --skip-broken to work around the problem\n", 1, false, "Requires: b"},
		{"a table, and then it broke", strings.Replace(yum3Table, "Exiting on user command", "Disk Requirements: At least 12MB more space needed", 1), 1, false, "cannot resolve"},
		{"cut off", yum3Table[:strings.Index(yum3Table, "Transaction Summary")], 1, false, "cannot resolve"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := parseTable(c.text, c.status)
			var re *ResolveError
			require.ErrorAs(t, err, &re)
			assert.Equal(t, c.dead, re.Dead)
			assert.Contains(t, err.Error(), c.says)
		})
	}
	for _, nothing := range []string{"No packages marked for update\n", "Dependencies resolved.\nNothing to do.\nComplete!\n", "No packages needed for security; 3 packages available\n"} {
		tr, err := parseTable(nothing, 0)
		require.NoError(t, err)
		assert.True(t, tr.Empty())
	}
	_, err = parseTable(strings.Replace(yum3Table, "Updating:", "Conjuring:", 1), 1)
	assert.ErrorContains(t, err, `unknown section "Conjuring:"`)
}

// What comes out of the table can be read back, and is applied as it says.
func TestTransactionApply(t *testing.T) {
	tr, err := parseTable(yum3Table, 1)
	require.NoError(t, err)
	parse := func(list ...string) PackageSet {
		var out []Package
		for _, s := range list {
			p, err := ParsePackage(s)
			require.NoError(t, err)
			out = append(out, p)
		}
		return NewPackageSet(out...)
	}
	before := parse("kernel-3.10.0-693.el7.x86_64", "kernel-3.10.0-862.9.1.el7.x86_64", "NetworkManager-1:1.10.2-13.el7.x86_64", "centos-release-7-5.1804.el7.centos.x86_64", "iptables-old-1:1.4.7-16.el7.x86_64", "bash-0:4.2.46-30.el7.x86_64")
	after := tr.Apply(before)
	assert.Equal(t, "NetworkManager-1:1.18.8-2.el7_9.x86_64 bash-4.2.46-30.el7.x86_64 centos-release-7-9.2009.1.el7.centos.x86_64 iptables-services-and-more-1.4.21-35.el7.x86_64 kernel-3.10.0-1160.6.1.el7.x86_64 kernel-3.10.0-862.9.1.el7.x86_64 linux-firmware-with-a-name-that-is-long-20200421-80.git78c0348.el7_9.noarch", names(after))
	assert.Equal(t, []string{"bash.x86_64: 4.2.46-30.el7 on a, nothing on b"}, DiffPackages("a", before, "b", slices.DeleteFunc(slices.Clone(before), func(p Package) bool { return p.Name == "bash" })))
	assert.Empty(t, DiffPackages("a", after, "b", NewPackageSet(after...)))
}

const aptTable = `Reading package lists...
Building dependency tree...
The following NEW packages will be installed:
  linux-image-6.1.0-56-amd64
Inst libc6 [2.36-9+deb12u8] (2.36-9+deb12u9 Debian:12.8/stable [amd64])
Inst linux-image-6.1.0-56-amd64 (6.1.176-1 Debian:12/stable [amd64])
Inst libssl3:i386 [3.0.1] (3.0.2 Debian:12/stable [i386]) []
Remv old-tool [1.0-1]
Conf libc6 (2.36-9+deb12u9 Debian:12.8/stable [amd64])
Need to get 12.5 MB of archives.
`

func TestAptTable(t *testing.T) {
	tr, err := parseApt(aptTable, 0, PackageSet{{Name: "old-tool", Version: "1.0-1", Arch: "all"}})
	require.NoError(t, err)
	assert.Equal(t, "linux-image-6.1.0-56-amd64:amd64=6.1.176-1", names(tr.Install))
	assert.Equal(t, "libc6:amd64=2.36-9+deb12u9 libssl3:i386=3.0.2", names(tr.Upgrade))
	assert.Equal(t, "old-tool:all=1.0-1", names(tr.Remove))
	assert.Equal(t, int64(12_500_000), tr.Bytes)
	assert.Equal(t, "6.1.0-56-amd64", tr.Kernel())
	_, err = parseApt(aptTable, 0, nil)
	assert.ErrorContains(t, err, "dpkg does not list")
	_, err = parseApt("E: Failed to fetch http://deb.example.com/ Could not resolve host\n", 100, nil)
	var re *ResolveError
	require.ErrorAs(t, err, &re)
	assert.True(t, re.Dead)
}

// Whatever a package manager prints: no panic, and every package can be given
// back to it and read again.
func FuzzTable(f *testing.F) {
	f.Add(yum3Table, 1)
	f.Add(aptTable, 0)
	f.Fuzz(func(t *testing.T, text string, status int) {
		apt, err := parseApt(text, status, nil)
		if err == nil {
			apt.Apply(nil)
		}
		tr, err := parseTable(text, status)
		if err != nil {
			return
		}
		for _, p := range slices.Concat(tr.Install, tr.Upgrade, tr.Remove, tr.Skipped) {
			back, err := ParsePackage(p.String())
			if err != nil || strings.ContainsAny(p.String(), " \t\n") {
				t.Fatalf("%q: %v", p.String(), err)
			}
			// A name may hold what a version may too: the text is what counts.
			if back.String() != p.String() {
				t.Fatalf("%q became %q", p, back)
			}
		}
		set := tr.Apply(nil)
		if !slices.Equal(set, tr.Incoming()) {
			t.Fatalf("applied to nothing it gives %v", set)
		}
	})
}
