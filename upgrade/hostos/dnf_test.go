package hostos

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/testenv"
)

// rooted is a system of RPM packages in a directory of its own, worked on by the
// real dnf and rpm of this machine. Its kernel and boot files are those of this
// machine; only packages are looked at here.
type rooted struct {
	local
	t         *testing.T
	dir, root string
}

func (r rooted) Run(ctx context.Context, cmd string, stdin io.Reader, stdout, stderr io.Writer) error {
	return r.local.Run(ctx, "PATH="+r.dir+"/bin:$PATH\nexport PATH\n"+cmd, stdin, stdout, stderr)
}

func (r rooted) must(name string, args ...string) {
	r.t.Helper()
	out, err := exec.CommandContext(r.t.Context(), name, args...).CombinedOutput()
	require.NoError(r.t, err, "%s %v: %s", name, args, out)
}

// build makes a package and puts it into the repository. more are tags, and
// from the first line with % on sections.
func (r rooted) build(name, version, release, more string) {
	r.t.Helper()
	spec := filepath.Join(r.dir, name+version+release+".spec")
	more, sections, has := strings.Cut(more, "\n%")
	if has {
		sections = "%" + sections + "\n"
	}
	require.NoError(r.t, os.WriteFile(spec, []byte(fmt.Sprintf("Name: %s\nVersion: %s\nRelease: %s\nSummary: x\nLicense: MIT\n%s\n%%description\nx\n%s%%files\n", name, version, release, more, sections)), 0o600))
	r.must("rpmbuild", "-bb", "--quiet", "--target", "x86_64", "--define", "_topdir "+r.dir+"/build", "--define", "_rpmdir "+r.dir+"/repo", spec)
}

func (r rooted) index() {
	r.t.Helper()
	r.must("createrepo_c", "-q", r.dir+"/repo")
	r.forget()
}

// forget makes dnf read its repository again: it takes metadata of the same
// second for new, whatever metadata_expire says.
func (r rooted) forget() {
	r.t.Helper()
	require.NoError(r.t, os.RemoveAll(r.root+"/var/cache/dnf"))
}

func newRooted(t *testing.T) rooted {
	t.Helper()
	for _, program := range []string{"dnf-3", "rpm", "rpmbuild", "createrepo_c"} {
		testenv.Need(t, program)
	}
	dir := t.TempDir()
	r := rooted{local{[]string{"/bin/sh"}}, t, dir, dir + "/root"}
	for _, d := range []string{"/bin", "/root", "/repo", "/none"} {
		require.NoError(t, os.Mkdir(dir+d, 0o755))
	}
	for name, text := range map[string]string{
		"dnf.conf":  "[main]\ngpgcheck=0\nplugins=0\nbest=False\nmetadata_expire=0\nreposdir=" + dir + "/none\n[base]\nname=base\nbaseurl=file://" + dir + "/repo\n",
		"bin/dnf":   "#!/bin/sh\nexec " + lookPath(t, "dnf-3") + " -c " + dir + "/dnf.conf --installroot=" + dir + "/root --releasever=7 --forcearch=x86_64 \"$@\"\n",
		"bin/rpmdb": "#!/bin/sh\nexec " + lookPath(t, "rpmdb") + " --root=" + dir + "/root \"$@\"\n",
		"bin/rpm":   "#!/bin/sh\nexec " + lookPath(t, "rpm") + " --root=" + dir + "/root \"$@\"\n",
	} {
		writeProgram(t, filepath.Join(dir, name), text)
	}
	return r
}

func lookPath(t *testing.T, name string) string {
	t.Helper()
	p, err := exec.LookPath(name)
	require.NoError(t, err)
	return p
}

// copyTo makes a copy of a system as it is now, with the same repository.
func (r rooted) copyTo(other rooted) {
	r.t.Helper()
	for _, d := range []string{"root", "repo"} {
		r.must("cp", "-a", r.dir+"/"+d+"/.", other.dir+"/"+d)
	}
}

func (r rooted) run(script string) {
	r.t.Helper()
	_, err := output(r.t.Context(), r, script, nil)
	require.NoError(r.t, err)
}

// What dnf resolves is what it does; what it did on one system is what another
// one gets, to the NEVRA, although the repository has moved on; and a kernel that
// it leaves out with exit status 0 is seen before and after.
func TestDNF(t *testing.T) {
	if !testenv.RunSlow() {
		t.Skip("builds packages and runs dnf a dozen times: with UPGRADECTL_SLOW=1")
	}
	r, twin := newRooted(t), newRooted(t)
	r.build("kernel", "3.10.0", "862.9.1.el7", "Provides: installonlypkg(kernel)")
	r.build("centos-release", "7", "5.1804.el7.centos", "Epoch: 1")
	r.build("oldname", "1.0", "1", "")
	r.index()
	r.run("dnf -y -q install kernel centos-release oldname")
	r.build("kernel", "3.10.0", "1160.6.1.el7", "Provides: installonlypkg(kernel)")
	r.build("centos-release", "7", "9.2009.1.el7.centos", "Epoch: 1\nRequires: a-name-that-is-so-long-that-it-does-not-fit-into-a-table")
	r.build("a-name-that-is-so-long-that-it-does-not-fit-into-a-table", "1.0", "1.el7", "")
	r.build("newname", "2.0", "1", "Obsoletes: oldname < 2")
	r.index()
	r.copyTo(twin)

	conf := StrategyConfig{Strategy: YumUpdate}
	a, err := Assess(t.Context(), r, conf)
	require.NoError(t, err)
	require.Empty(t, a.Refused)
	assert.Equal(t, "dnf", a.OS.Manager)
	assert.Equal(t, newKernel, a.Kernel)
	assert.Equal(t, "a-name-that-is-so-long-that-it-does-not-fit-into-a-table-1.0-1.el7.x86_64 centos-release-1:7-9.2009.1.el7.centos.x86_64 kernel-3.10.0-1160.6.1.el7.x86_64 newname-2.0-1.x86_64", names(a.Transaction.Incoming()))
	assert.Equal(t, "oldname-1.0-1.x86_64", names(a.Transaction.Remove))
	assert.Positive(t, a.Transaction.Bytes)
	script, err := UpgradeScript(conf, a.OS, nil)
	require.NoError(t, err)
	r.run(script)
	u, err := CheckUpgraded(t.Context(), r, conf, a, a.OS.Packages)
	require.NoError(t, err)
	assert.Empty(t, DiffPackages("resolved", a.Transaction.Apply(a.OS.Packages), "done", u.Packages))
	assert.Equal(t, newKernel, u.Kernel)

	// The twin's mirror has moved on meanwhile.
	twin.build("centos-release", "7", "9.2009.99.el7.centos", "Epoch: 1")
	twin.build("kernel", "3.10.0", "1160.119.1.el7", "Provides: installonlypkg(kernel)")
	twin.index()
	before, err := GetPackages(t.Context(), twin)
	require.NoError(t, err)
	replay := u.Packages.Minus(before)
	b, err := AssessReplay(t.Context(), twin, conf, replay)
	require.NoError(t, err)
	require.Empty(t, b.Blocking())
	assert.Empty(t, DiffPackages("there", u.Packages, "here", b.Transaction.Apply(before)))
	script, err = UpgradeScript(conf, b.OS, replay)
	require.NoError(t, err)
	twin.run(script)
	after, err := GetPackages(t.Context(), twin)
	require.NoError(t, err)
	assert.Empty(t, DiffPackages("there", u.Packages, "here", after))

	// A version that the repository does not have any more.
	gone, err := ParsePackage("kernel-3.10.0-1.el7.x86_64")
	require.NoError(t, err)
	b, err = AssessReplay(t.Context(), twin, conf, []Package{gone})
	require.NoError(t, err)
	assert.NotEmpty(t, b.Blocking())

	// A kernel that cannot be installed: dnf goes on without it.
	r.build("kernel", "3.10.0", "1160.200.1.el7", "Provides: installonlypkg(kernel)\nRequires: nosuchthing")
	r.build("newname", "3.0", "1", "")
	r.index()
	a, err = Assess(t.Context(), r, conf)
	require.NoError(t, err)
	require.Len(t, a.Transaction.Skipped, 1)
	assert.Contains(t, strings.Join(a.Blocking(), "\n"), "skipped-kernel")
	r.run("dnf -y update") // exit status 0
	want := conf
	want.Kernel = a.Transaction.Skipped[0].KernelRelease()
	u, err = CheckUpgraded(t.Context(), r, want, a, a.OS.Packages)
	require.NoError(t, err)
	o := &OS{Packages: u.Packages, Kernels: []Kernel{{want.Kernel, 1, 1}}, DefaultKernel: want.Kernel}
	assert.Contains(t, strings.Join(Failed(o.preReboot(want.Kernel, initramfs{})), "\n"), "no installed package holds kernel "+want.Kernel)

	// A mirror that is gone.
	require.NoError(t, os.RemoveAll(r.dir+"/repo"))
	r.forget()
	a, err = Assess(t.Context(), r, conf)
	require.NoError(t, err)
	assert.Contains(t, strings.Join(a.Blocking(), "\n"), "dead-mirror")
}

// A dnf that is killed in the middle of a transaction is seen by its history and
// by what is there twice, nothing is begun on top of it, and what the error
// says to do puts it right.
func TestDNFKilled(t *testing.T) {
	if !testenv.RunSlow() {
		t.Skip("builds packages and runs dnf a dozen times: with UPGRADECTL_SLOW=1")
	}
	r := newRooted(t)
	const waits = `
%%%s -p <lua>
local f = io.open("/waiting", "w") f:close()
while not io.open("/go") do posix.sleep(1) end`
	r.build("kernel", "3.10.0", "862.9.1.el7", "Provides: installonlypkg(kernel)")
	r.build("kernel-modules", "3.10.0", "862.9.1.el7", "Provides: installonlypkg(kernel-module)")
	for _, name := range []string{"first", "second", "third"} {
		r.build(name, "1.0", "1", "")
	}
	r.index()
	assert.NoError(t, CheckTransactions(t.Context(), r), "dnf has no history yet")
	r.run("dnf -y -q install kernel kernel-modules first second third")
	r.build("kernel", "3.10.0", "1160.6.1.el7", "Provides: installonlypkg(kernel)")
	r.build("kernel-modules", "3.10.0", "1160.6.1.el7", "Provides: installonlypkg(kernel-module)")
	r.index()
	r.run("dnf -y -q update")
	require.NoError(t, CheckTransactions(t.Context(), r), "kernels are there twice because that is meant")

	conf := StrategyConfig{Strategy: YumUpdate}
	for i, c := range []struct{ section, found, remedy string }{
		{"post", `^dnf history: transaction 3 has no end, dnf: second\.x86_64 is installed twice`, "dnf -y remove --duplicates"},
		{"pretrans", `^dnf history: transaction \d has no end$`, "dnf -y history redo last"},
	} {
		t.Run(c.section, func(t *testing.T) {
			r := r
			r.t = t
			version := fmt.Sprint(i+2) + ".0"
			r.build("first", version, "1", "")
			r.build("second", version, "1", fmt.Sprintf(waits, c.section))
			r.build("third", version, "1", "Requires: second = "+version)
			r.index()
			a, err := Assess(t.Context(), r, conf)
			require.NoError(t, err)
			require.Empty(t, a.Blocking())
			require.Len(t, a.Transaction.Upgrade, 3)
			script, err := UpgradeScript(conf, a.OS, nil)
			require.NoError(t, err)
			ended := make(chan error, 1)
			go func() {
				_, err := output(t.Context(), r, script, nil)
				ended <- err
			}()
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for {
				if _, err := os.Stat(r.root + "/waiting"); err == nil {
					break
				}
				select {
				case err := <-ended:
					t.Fatal("dnf ended before: ", err)
				case <-tick.C:
				}
			}
			pid, err := os.ReadFile(r.root + "/var/lib/dnf/rpmdb_lock.pid")
			require.NoError(t, err)
			n, err := strconv.Atoi(string(pid))
			require.NoError(t, err)
			dnf, err := os.FindProcess(n)
			require.NoError(t, err)
			require.NoError(t, dnf.Kill())
			status, ran := exitStatus(<-ended)
			require.True(t, ran)
			require.Equal(t, 137, status)

			err = CheckTransactions(t.Context(), r)
			var open *TransactionError
			require.ErrorAs(t, err, &open)
			t.Log(err)
			assert.Regexp(t, c.found, strings.Join(open.Found, ", "))
			assert.Contains(t, err.Error(), strings.Replace(c.remedy, "-y ", "", 1))
			before, err := GetPackages(t.Context(), r)
			require.NoError(t, err)
			b, err := Assess(t.Context(), r, conf)
			require.NoError(t, err)
			require.Len(t, b.Blocking(), 1)
			assert.Contains(t, b.Blocking()[0], "unfinished-transaction")
			assert.True(t, b.Transaction.Empty(), "nothing is resolved on top of half a transaction")
			_, err = CheckUpgraded(t.Context(), r, conf, a, a.OS.Packages)
			require.ErrorAs(t, err, &open)
			now, err := GetPackages(t.Context(), r)
			require.NoError(t, err)
			assert.Equal(t, before, now)

			require.NoError(t, os.WriteFile(r.root+"/go", nil, 0o600))
			r.run(c.remedy)
			require.NoError(t, CheckTransactions(t.Context(), r))
			r.run(script)
			_, err = CheckUpgraded(t.Context(), r, conf, a, a.OS.Packages)
			require.NoError(t, err)
			require.NoError(t, os.Remove(r.root+"/go"))
			require.NoError(t, os.Remove(r.root+"/waiting"))
		})
	}
}
