package pitrix

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/testenv"
)

// edited is a node in a directory of its own, with two files to edit and
// programs cron and shutdown to be seen by.
type edited struct {
	t    *testing.T
	root string
	*Node
	id   Identity
	edit NetworkEdit
}

const (
	oldInterfaces = "auto eth0\niface eth0 inet static\n  address 192.0.2.161\n"
	newInterfaces = "auto eth0\niface eth0 inet static\n  address 192.0.2.61\n"
)

func newEdited(t *testing.T, cron string) *edited {
	t.Helper()
	needIdentity(t)
	e := &edited{t: t, root: t.TempDir()}
	bin := filepath.Join(e.root, "bin")
	e.write("etc/network/interfaces", oldInterfaces)
	e.write("etc/rc.local.tail", "ip route add 10.80.0.0/16 src 192.0.2.161 via 192.0.2.254\n")
	e.write("bin/pgrep", "#!/bin/sh\n[ \"$2\" = "+cron+" ]\n")
	e.write("bin/shutdown", "#!/bin/sh\necho \"$@\" >>"+e.root+"/shutdowns\n")
	for _, p := range []string{"pgrep", "shutdown"} {
		require.NoError(t, os.Chmod(filepath.Join(bin, p), 0o755))
	}
	e.Node = &Node{Host: &localHost{env: []string{"PATH=" + bin + ":" + os.Getenv("PATH")}}, Name: "proxy0", Root: e.root}
	var err error
	e.id, err = e.GetIdentity(t.Context())
	require.NoError(t, err)
	e.edit = NetworkEdit{Key: "run-1-proxy0", Minutes: 3, Files: []FileEdit{
		{"/etc/network/interfaces", []byte(oldInterfaces), []byte(newInterfaces)},
		{"/etc/rc.local.tail", []byte("ip route add 10.80.0.0/16 src 192.0.2.161 via 192.0.2.254\n"), []byte("ip route add 10.80.0.0/16 src 192.0.2.61 via 192.0.2.254\n")},
	}}
	return e
}

func (e *edited) write(name, text string) {
	e.t.Helper()
	name = filepath.Join(e.root, name)
	require.NoError(e.t, os.MkdirAll(filepath.Dir(name), 0o755))
	require.NoError(e.t, os.WriteFile(name, []byte(text), 0o644))
}

func (e *edited) read(name string) string {
	data, err := os.ReadFile(filepath.Join(e.root, name))
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// job is the edit's file in cron's directory; "" = none.
func (e *edited) job() string {
	e.t.Helper()
	found, err := filepath.Glob(filepath.Join(e.root, "etc/cron.d/upgradectl-"+e.edit.Key+"-*"))
	require.NoError(e.t, err)
	require.LessOrEqual(e.t, len(found), 1, "%v", found)
	return strings.Join(found, "")
}

// minute does what cron does every minute.
func (e *edited) minute() {
	e.t.Helper()
	if e.job() == "" {
		return
	}
	_, err := output(e.t.Context(), e.Host, "/bin/sh "+e.editDir(e.edit.Key)+"/tick")
	require.NoError(e.t, err)
}

// rebooted makes the node one that has booted since.
func (e *edited) rebooted() {
	e.t.Helper()
	e.write("var/lib/upgradectl/net-"+e.edit.Key+"/boot", "another-boot\n")
}

func (e *edited) phase() EditState {
	e.t.Helper()
	st, err := e.GetEdit(e.t.Context(), e.edit.Key)
	require.NoError(e.t, err)
	return st
}

func (e *edited) isOld() bool { return e.read("etc/network/interfaces") == oldInterfaces }

func TestEditConfirmed(t *testing.T) {
	e := newEdited(t, "cron")
	assert.Equal(t, EditState{Phase: EditNone}, e.phase())
	for range 2 {
		require.NoError(t, e.BeginEdit(t.Context(), e.edit, e.id))
		assert.Equal(t, EditState{EditPending, 3}, e.phase())
		assert.Equal(t, newInterfaces, e.read("etc/network/interfaces"))
	}
	line, err := os.ReadFile(e.job())
	require.NoError(t, err)
	assert.Equal(t, "* * * * * root /bin/sh "+e.editDir(e.edit.Key)+"/tick\n", string(line))
	info, err := os.Stat(e.job())
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o644), info.Mode(), "cron ignores files that others may write")
	dir, err := os.Stat(filepath.Join(e.root, "etc/cron.d"))
	require.NoError(t, err)
	assert.GreaterOrEqual(t, dir.ModTime().Unix(), info.ModTime().Unix()+2, "cron looks again, also if it looked in the second the file came")

	e.minute()
	e.rebooted()
	e.minute()
	assert.Equal(t, EditState{EditPending, 1}, e.phase())
	for range 2 {
		require.NoError(t, e.ConfirmEdit(t.Context(), e.edit.Key))
	}
	for range 5 {
		e.minute()
	}
	assert.Equal(t, EditState{Phase: EditConfirmed}, e.phase())
	assert.Equal(t, newInterfaces, e.read("etc/network/interfaces"))
	assert.NoFileExists(t, filepath.Join(e.root, "shutdowns"))
	assert.ErrorContains(t, e.RevertEdit(t.Context(), e.edit.Key), "confirmed")
	assert.ErrorContains(t, e.BeginEdit(t.Context(), e.edit, e.id), "another key")
	for range 2 {
		require.NoError(t, e.RemoveEdit(t.Context(), e.edit.Key))
		assert.Equal(t, EditState{Phase: EditNone}, e.phase())
	}
	assert.Empty(t, e.job())
}

func TestEditTakenBack(t *testing.T) {
	for _, rebooted := range []bool{true, false} {
		t.Run("rebooted "+strconv.FormatBool(rebooted), func(t *testing.T) {
			e := newEdited(t, "crond")
			require.NoError(t, e.BeginEdit(t.Context(), e.edit, e.id))
			e.minute()
			if rebooted {
				e.rebooted()
			}
			e.minute()
			require.False(t, e.isOld())
			e.minute()
			assert.True(t, e.isOld())
			assert.Contains(t, e.read("etc/rc.local.tail"), "src 192.0.2.161")
			assert.Equal(t, EditState{Phase: EditReverted}, e.phase())
			if rebooted {
				assert.Equal(t, "-r now\n", e.read("shutdowns"), "the old addresses count after another boot")
				e.minute()
				assert.Equal(t, "-r now\n-r now\n", e.read("shutdowns"), "it is in the same boot still")
				// It booted.
				e.write("var/lib/upgradectl/net-"+e.edit.Key+"/ends", "another-boot\n")
				e.minute()
				assert.Equal(t, "-r now\n-r now\n", e.read("shutdowns"))
			} else {
				assert.NoFileExists(t, filepath.Join(e.root, "shutdowns"), "nothing but files had changed")
			}
			assert.ErrorContains(t, e.ConfirmEdit(t.Context(), e.edit.Key), "reverted")
			assert.Empty(t, e.job())
			require.NoError(t, e.RevertEdit(t.Context(), e.edit.Key))
			require.NoError(t, e.RemoveEdit(t.Context(), e.edit.Key))
		})
	}
}

// A reboot that is refused is asked for again every minute, and not for ever.
func TestEditRebootRefused(t *testing.T) {
	e := newEdited(t, "cron")
	require.NoError(t, e.BeginEdit(t.Context(), e.edit, e.id))
	e.rebooted()
	e.write("bin/shutdown", "#!/bin/sh\necho \"$@\" >>"+e.root+"/shutdowns\necho 'Failed to talk to init daemon.' >&2\nexit 1\n")
	dir := "var/lib/upgradectl/net-" + e.edit.Key
	e.write(dir+"/left", "1\n")
	for range 3 {
		_, err := output(t.Context(), e.Host, "/bin/sh "+e.editDir(e.edit.Key)+"/tick")
		assert.Error(t, err, "cron writes it down")
	}
	assert.True(t, e.isOld())
	assert.Equal(t, EditReverted, e.phase().Phase)
	assert.Equal(t, "-r now\n-r now\n-r now\n", e.read("shutdowns"))
	e.write(dir+"/asked", "59\n")
	e.minute()
	assert.Equal(t, "-r now\n-r now\n-r now\n", e.read("shutdowns"))
	assert.Empty(t, e.job())
}

// A job of cron can stand still before any of its commands, while somebody takes
// the edit back or confirms it, removes it and begins another one. Whatever it does
// when it goes on, one of the two has decided about the old edit, the new one is
// taken back by a job of its own, and the node is not rebooted behind the back of
// whoever has removed the old one.
func TestTrapCronJobStandsStill(t *testing.T) {
	testenv.Slow(t)
	for _, tt := range []struct {
		name           string
		left           int
		rebooted, back bool
	}{{"due, taken back", 1, false, true}, {"due after a reboot, confirmed", 1, true, false}, {"not due, confirmed", 3, true, false}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for k := 1; standsStill(t, k, tt.left, tt.rebooted, tt.back); k++ {
			}
		})
	}
}

// standsStill lets the k-th command of a job wait for the other side; false: it
// has not so many.
func standsStill(t *testing.T, k, left int, rebooted, back bool) bool {
	e := newEdited(t, "cron")
	e.edit.Files = e.edit.Files[:1]
	for _, c := range []string{"cat", "cp", "grep", "mkdir", "mv", "rm", "sha256sum", "sync"} {
		real, err := exec.LookPath(c)
		require.NoError(t, err)
		e.write("slow/"+c, fmt.Sprintf("#!/bin/sh\nread n <%[1]s/count; echo $((n + 1)) >%[1]s/count\nif [ $n = %[2]d ]; then echo waits >%[1]s/here; read x <%[1]s/go; fi\nexec %[3]s \"$@\"\n", e.root, k, real))
		require.NoError(t, os.Chmod(filepath.Join(e.root, "slow", c), 0o755))
	}
	e.write("count", "1\n")
	pipes := map[string]*os.File{}
	for _, name := range []string{"here", "go"} {
		require.NoError(t, exec.Command("mkfifo", filepath.Join(e.root, name)).Run())
		f, err := os.OpenFile(filepath.Join(e.root, name), os.O_RDWR, 0) // waits for nobody
		require.NoError(t, err)
		defer func() { _ = f.Close() }()
		pipes[name] = f
	}
	require.NoError(t, e.BeginEdit(t.Context(), e.edit, e.id))
	e.write("var/lib/upgradectl/net-"+e.edit.Key+"/left", strconv.Itoa(left)+"\n")
	if rebooted {
		e.rebooted()
	}
	job := exec.Command("/bin/sh", e.editDir(e.edit.Key)+"/tick")
	job.Env = append(os.Environ(), "PATH="+filepath.Join(e.root, "slow")+":"+filepath.Join(e.root, "bin")+":"+os.Getenv("PATH"))
	require.NoError(t, job.Start())
	ended := make(chan struct{})
	go func() {
		_ = job.Wait() // its status is for cron alone
		_, _ = pipes["here"].WriteString("ended\n")
		close(ended)
	}()
	word, err := bufio.NewReader(pipes["here"]).ReadString('\n')
	require.NoError(t, err)
	if word == "ended\n" {
		<-ended
		assert.Greater(t, k, 5)
		return false
	}

	at := fmt.Sprintf("command %d", k)
	decide := e.ConfirmEdit
	if back {
		decide = e.RevertEdit
	}
	decided := decide(t.Context(), e.edit.Key)
	if decided == nil {
		require.NoError(t, e.RemoveEdit(t.Context(), e.edit.Key), at)
		if !back { // the new edit leads back
			e.edit.Files[0].Old, e.edit.Files[0].New = e.edit.Files[0].New, e.edit.Files[0].Old
		}
		require.NoError(t, e.BeginEdit(t.Context(), e.edit, e.id), at)
	}
	_, err = pipes["go"].WriteString("on\n")
	require.NoError(t, err)
	<-ended

	if decided != nil {
		require.False(t, back, at)
		assert.True(t, e.isOld(), at)
		assert.Equal(t, EditReverted, e.phase().Phase, at)
		assert.Equal(t, "-r now\n", e.read("shutdowns"), at)
		return true
	}
	assert.Equal(t, EditState{EditPending, 3}, e.phase(), at)
	assert.NotEmpty(t, e.job(), "%s: nobody would take the new edit back", at)
	assert.NoFileExists(t, filepath.Join(e.root, "shutdowns"), at)
	if f := e.edit.Files[0]; e.read(f.Path) != string(f.New) {
		// It was about to put the old file in place, which is that of both edits.
		assert.True(t, back && e.isOld(), at)
	}
	return true
}

func TestEditRevertedByHand(t *testing.T) {
	e := newEdited(t, "cron")
	require.NoError(t, e.RevertEdit(t.Context(), e.edit.Key), "of an edit that never was")
	require.NoError(t, e.BeginEdit(t.Context(), e.edit, e.id))
	e.rebooted()
	// What somebody has made of a file meanwhile is kept.
	e.write("etc/rc.local.tail", "by hand\n")
	for range 2 {
		require.NoError(t, e.RevertEdit(t.Context(), e.edit.Key))
		assert.True(t, e.isOld())
	}
	assert.Equal(t, "by hand\n", e.read("var/lib/upgradectl/net-run-1-proxy0/1.found"))
	assert.NoFileExists(t, filepath.Join(e.root, "shutdowns"))
}

// A way back that was cut off anywhere is gone on with in the next minute.
func TestEditRevertCutOff(t *testing.T) {
	e := newEdited(t, "cron")
	require.NoError(t, e.BeginEdit(t.Context(), e.edit, e.id))
	dir := "var/lib/upgradectl/net-run-1-proxy0"
	e.write(dir+"/decided/word", "reverting\n")
	e.rebooted()
	assert.Equal(t, EditReverting, e.phase().Phase)
	assert.ErrorContains(t, e.ConfirmEdit(t.Context(), e.edit.Key), "reverting")
	e.minute()
	assert.True(t, e.isOld())
	assert.Equal(t, EditReverted, e.phase().Phase)
}

func TestEditRefused(t *testing.T) {
	e := newEdited(t, "nothing")
	err := e.BeginEdit(t.Context(), e.edit, e.id)
	assert.ErrorContains(t, err, "cron does not run")
	assert.True(t, e.isOld())

	e = newEdited(t, "cron")
	wrong := e.id
	wrong.MACs = []MAC{{0, 0x16, 0x3e, 1, 2, 3}}
	var other *IdentityError
	require.ErrorAs(t, e.BeginEdit(t.Context(), e.edit, wrong), &other)
	assert.Equal(t, EditNone, e.phase().Phase)

	e.write("etc/rc.local.tail", "by hand\n")
	var drift *DriftError
	require.ErrorAs(t, e.BeginEdit(t.Context(), e.edit, e.id), &drift)
	assert.Equal(t, filepath.Join(e.root, "etc/rc.local.tail"), drift.Path)
	assert.True(t, e.isOld())
	assert.Equal(t, EditBegun, e.phase().Phase)
	require.NoError(t, e.RevertEdit(t.Context(), e.edit.Key))
	assert.Equal(t, EditNone, e.phase().Phase)

	for _, bad := range []NetworkEdit{{}, {Key: "k", Minutes: 1, Files: e.edit.Files}, {Key: "k", Minutes: 5}, {Key: "../k", Minutes: 5, Files: e.edit.Files},
		{Key: "k", Minutes: 5, Files: []FileEdit{{Path: "relative", Old: []byte("a"), New: []byte("b")}}}} {
		assert.Error(t, e.BeginEdit(t.Context(), bad, e.id), "%+v", bad)
	}
}
