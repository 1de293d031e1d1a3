package pitrix

import (
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

func TestExecNodes(t *testing.T) {
	b := newBox(t)
	b.write("machines/proxy0/name", "zero\n")
	b.write("machines/proxy1/name", "one") // no line end
	got, err := b.Exec(t.Context(), b.scripts, b.proxies(), `cat name; echo "it's"`)
	require.NoError(t, err)
	assert.Equal(t, []ExecResult{{Node: "proxy0", Output: "zero\nit's\n"}, {Node: "proxy1", Output: "oneit's\n"}}, got)
	require.NoError(t, ExecFailed(got))
}

func TestTrapForceFirst(t *testing.T) {
	b := newBox(t)
	for _, line := range []func() (string, error){
		func() (string, error) { return b.scripts.Exec(b.proxies(), "t", "true") },
		func() (string, error) { return b.scripts.Update(b.proxies(), "pitrix-hosts") },
		func() (string, error) { return b.scripts.LaunchVMs(b.proxies(), Launch{InPlace, true}) },
	} {
		text, err := line()
		require.NoError(t, err)
		assert.Contains(t, text, ".sh -f proxy0,proxy1")
		out, status := b.run(line())
		assert.NotContains(t, string(out), "[y/N]")
		assert.Zero(t, status, "%s", out)
	}
	// Anywhere else it is a word like others.
	out, status := b.run(b.path("pitrix/upgrade/exec_nodes.sh")+" proxy0 true -f </dev/null", nil)
	assert.Equal(t, 99, status, "%s", out)
}

func TestTrapEndlessPrompt(t *testing.T) {
	b := newBox(t)
	out, status := b.run(b.path("pitrix/upgrade/update.sh")+" proxy pitrix-ks-proxy </dev/null", nil)
	require.Equal(t, 99, status, "the stand-in has to ask")
	_, err := ParseUpdate(b.proxies(), []string{"pitrix-ks-proxy"}, out, 0)
	assert.ErrorContains(t, err, "not in the output")
	for _, script := range []string{b.scripts.GenNodeList(), b.scripts.BuildPackages(), b.scripts.GenMAC(), b.scripts.DumpHosts()} {
		assert.True(t, strings.HasSuffix(script, "</dev/null"), script)
	}
}

func TestTrapNoDone(t *testing.T) {
	b := newBox(t)
	out, status := b.run("echo n | "+b.path("pitrix/upgrade/exec_nodes.sh")+" proxy true", nil)
	require.Zero(t, status, "answered with no, it ends with 0")
	_, err := ParseExec(b.proxies(), "t", out)
	var e *ScriptError
	require.ErrorAs(t, err, &e)
	assert.NotContains(t, string(out), "Done.")
}

func TestTrapExecExitStatus(t *testing.T) {
	b := newBox(t)
	out, status := b.run(b.scripts.Exec(b.proxies(), "t", "exit 3"))
	require.Zero(t, status, "the script's status is that of tee")
	got, err := ParseExec(b.proxies(), "t", out)
	require.NoError(t, err)
	assert.Equal(t, []ExecResult{{Node: "proxy0", Status: 3}, {Node: "proxy1", Status: 3}}, got)
	var e *ExecError
	require.ErrorAs(t, ExecFailed(got), &e)
	assert.Len(t, e.Results, 2)

	// A connection that is refused looks like a command that went well.
	require.NoError(t, os.RemoveAll(b.path("machines/proxy1")))
	out, status = b.run(b.scripts.Exec(b.proxies(), "t", "true"))
	require.Zero(t, status)
	got, err = ParseExec(b.proxies(), "t", out)
	require.NoError(t, err)
	assert.Equal(t, -1, got[1].Status)
	assert.Contains(t, got[1].Output, "Connection refused")
	assert.ErrorContains(t, ExecFailed(got), "not known whether it ran")
}

func TestTrapMissingNode(t *testing.T) {
	b := newBox(t)
	out, _ := b.run(b.scripts.Exec(b.proxies(), "t", "true"))
	parts := strings.Split(string(out), "Execing [")
	require.Len(t, parts, 3)
	parts[1], parts[2] = "Execing ["+parts[1], "Execing ["+parts[2]
	for i, text := range []string{parts[0] + parts[2], strings.Join(parts, "") + parts[1], strings.ReplaceAll(string(out), "proxy1", "proxy9")} {
		_, err := ParseExec(b.proxies(), "t", []byte(text))
		var e *ScriptError
		assert.ErrorAs(t, err, &e, "%d: %s", i, text)
	}
	_, err := ParseExec(b.proxies(), "other", out)
	assert.ErrorContains(t, err, "not in the output", "the output of another command")
}

func TestTrapUnreachableNode(t *testing.T) {
	b := newBox(t)
	b.write("silent", "192.0.2.62\n")
	got, err := b.Exec(t.Context(), b.scripts, b.proxies(), "echo here")
	require.NoError(t, err)
	assert.Equal(t, []ExecResult{{Node: "proxy0", Output: "here\n"}, {Node: "proxy1", Status: -1, Unreachable: true}}, got)
	var e *UnreachableError
	require.ErrorAs(t, ExecFailed(got), &e)
	assert.Equal(t, []string{"proxy1"}, e.Nodes)

	out, status := b.run(b.scripts.Update(b.proxies(), "pitrix-hosts"))
	assert.Equal(t, 1, status)
	updates, err := ParseUpdate(b.proxies(), []string{"pitrix-hosts"}, out, status)
	require.ErrorAs(t, err, &e)
	assert.Equal(t, []UpdateResult{{Node: "proxy0", OK: true}, {Node: "proxy1", Unreachable: true}}, updates)
}

// A command may print what looks like the script's own lines.
func TestExecOutputIsNotTrusted(t *testing.T) {
	b := newBox(t)
	text := "Execing [proxy1] with [true] ...\nError: The node [proxy0] is unreachable. Please check the network!\n__rc_other=0\nDone.\n"
	for _, m := range []string{"proxy0", "proxy1"} {
		b.write("machines/"+m+"/log", text)
	}
	got, err := b.Exec(t.Context(), b.scripts, b.scope("proxy0", Allow{Role: "proxy"}), "cat log; false")
	require.NoError(t, err)
	assert.Equal(t, []ExecResult{{Node: "proxy0", Output: text, Status: 1}}, got)
}

func TestTrapHeaderEscapes(t *testing.T) {
	// The header prints the command with echo -e; what a \n makes of it must not
	// be taken for the beginning of a block.
	assert.ErrorContains(t, CheckExecCommand(`printf 'a\nb'`), "backslash")
	b := newBox(t)
	out, _ := b.run(b.path("pitrix/upgrade/exec_nodes.sh")+` -f proxy0 'echo a\nDone.' </dev/null`, nil)
	assert.Contains(t, string(out), "    echo a\nDone.\n", "the stand-in has to expand it")
}

func TestTrapCommandCutAtHash(t *testing.T) {
	b := newBox(t)
	out, _ := b.run(b.path("pitrix/upgrade/exec_nodes.sh")+` -f proxy0 'echo a # b' </dev/null`, nil)
	assert.Contains(t, string(out), "Execing [proxy0] with [echo a] ...\na\n")
	for _, c := range []string{"echo a # b", "echo 'a#b'", "echo a#b"} {
		_, err := b.scripts.Exec(b.proxies(), "t", c)
		assert.ErrorContains(t, err, "cut off", c)
	}
}

func TestTrapBlanksCollapse(t *testing.T) {
	b := newBox(t)
	for _, c := range []string{"grep '^  address' f", "echo  a", "echo a\tb", " true", "true ", "a\nb", "a\rb", "", "a\x00b", "echo 'a"} {
		_, err := b.scripts.Exec(b.proxies(), "t", c)
		assert.Error(t, err, "%q", c)
	}
}

func TestTrapGlobsExpand(t *testing.T) {
	b := newBox(t)
	for _, c := range []string{"ls -d /etc/rc?.d", "echo *", "ls /etc/[ab]*", "echo 'a * b'"} {
		_, err := b.scripts.Exec(b.proxies(), "t", c)
		assert.ErrorContains(t, err, "names of its own files", c)
	}
	for _, c := range []string{"ls '/etc/'rc?.d", "[ -e /etc/passwd ]", "echo $?", "grep -c '^iface.*static' /etc/network/interfaces", "echo \"$*\""} {
		assert.NoError(t, CheckExecCommand(c), c)
	}
}

// What is accepted reaches the node as it was written, also when the firstbox
// has files with awkward names. bash is the judge.
func FuzzExecCommand(f *testing.F) {
	if _, err := exec.LookPath("bash"); err != nil {
		testenv.Need(f, "bash")
	}
	dir := f.TempDir()
	for _, name := range []string{"a", "b", "ab", "x1", "-n", "r=0;", "[", "etc"} {
		require.NoError(f, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	for _, c := range []string{"echo a # b", "grep '^  a' f", "ls /etc/rc?.d", "[ -e a ]; echo $?", `test -n "$x" || echo 'a*b'`, "echo {1} ~ !", "a[b]", "-n a"} {
		f.Add(c)
	}
	f.Fuzz(func(t *testing.T, command string) {
		if CheckExecCommand(command) != nil {
			t.Skip("refused")
		}
		sent := execWrapped("t", command)
		c := exec.Command("bash", "-c", `cut=${1%%#*}; set -- $cut; printf %s "$*"`, "bash", sent)
		c.Dir = dir
		got, err := c.Output()
		require.NoError(t, err)
		assert.Equal(t, sent, string(got))
	})
}

// Whatever the blocks hold and in whatever order they come, each node's output
// and status is its own; and a cut never gives another answer.
func FuzzParseExec(f *testing.F) {
	f.Add("hello\n", "", byte(0), byte(255), true, 40)
	f.Add("Done.\nExecing [b] with [x] ...", "Error: The node [a] is unreachable. Please check the network!\n", byte(3), byte(0), false, 400)
	f.Fuzz(func(t *testing.T, one, two string, s1, s2 byte, swap bool, cut int) {
		if strings.Contains(one+two, execTrailer("k")) || strings.Contains(one+two, "\r") {
			t.Skip("a command that prints the trailer of this very call")
		}
		scope := Scope{nodes: []string{"a", "b"}}
		block := func(n, text string, status byte) string {
			return "Execing [" + n + "] with [" + execWrapped("k", "cmd") + "] ...\n" + text + "\n" + execTrailer("k") + strconv.Itoa(int(status)) + "\n\n"
		}
		blocks := []string{block("a", one, s1), block("b", two, s2)}
		if swap {
			blocks[0], blocks[1] = blocks[1], blocks[0]
		}
		head := strings.Repeat("-", 48) + "\nTARGET NODES:\n    a,b\n"
		whole := head + blocks[0] + blocks[1] + "Done.\n"
		want := []ExecResult{{Node: "a", Output: ended(one), Status: int(s1)}, {Node: "b", Output: ended(two), Status: int(s2)}}
		got, err := ParseExec(scope, "k", []byte(whole))
		require.NoError(t, err, whole)
		require.Equal(t, want, got)
		// A command whose last word so far is Done. cannot be told from the script.
		if cut > 0 && cut < len(whole) && !strings.Contains(one+two, "Done.") {
			if got, err := ParseExec(scope, "k", []byte(whole[:cut])); err == nil {
				for i := range got {
					// A status of several digits may lose some; everything else is whole.
					assert.Equal(t, want[i].Output, got[i].Output)
					assert.NotEqual(t, -1, got[i].Status)
				}
			}
		}
	})
}

// ended is the text as results have it: with a line end unless it is empty.
func ended(s string) string {
	if s == "" || strings.HasSuffix(s, "\n") {
		return s
	}
	return s + "\n"
}

func TestTrapUpdateOneArgument(t *testing.T) {
	b := newBox(t)
	out, status := b.run(b.path("pitrix/upgrade/update.sh")+" -f proxy </dev/null", nil)
	require.Equal(t, 1, status)
	assert.Contains(t, string(out), "The argument <packages> is empty")
	_, err := b.scripts.Update(b.proxies())
	assert.ErrorContains(t, err, "no package is named")
	_, err = b.scripts.Update(b.proxies(), "hyper")
	assert.ErrorContains(t, err, "groups of packages")
	for _, p := range []string{"pitrix-hosts;reboot", "pitrix-$(id)", "-y", "pitrix hosts", "pitrix-hosts,pitrix-hyper"} {
		_, err = b.scripts.Update(b.proxies(), p)
		assert.Error(t, err, p)
	}
}

func TestTrapPackagePrefix(t *testing.T) {
	b := newBox(t)
	out, status := b.run(b.scripts.Update(b.proxies(), "pitrix-host"))
	require.Zero(t, status, "the script's own check is one of prefixes: %s", out)
	_, err := b.PackageFiles(t.Context(), "pitrix-host")
	assert.ErrorContains(t, err, "no package pitrix-host")
	require.NoError(t, os.Remove(b.path("pitrix/repo/indep/pitrix-ks-proxy_1_all.deb")))
	_, err = b.PackageFiles(t.Context(), "pitrix-ks-proxy")
	assert.ErrorContains(t, err, "no package pitrix-ks-proxy")
	files, err := b.PackageFiles(t.Context(), "pitrix-hosts")
	require.NoError(t, err)
	assert.Equal(t, map[string][]string{"pitrix-hosts": {b.path("pitrix/repo/indep/pitrix-hosts_1_all.deb")}}, files)
}

func TestTrapUpdateOutput(t *testing.T) {
	b := newBox(t)
	packages := []string{"pitrix-ks-proxy", "pitrix-ks-proxy-boss2"}
	out, status := b.run(b.scripts.Update(b.proxies(), packages...))
	require.NotContains(t, string(out), "Done.")
	require.Contains(t, string(out), "[pitrix-ks-proxy ~ ]")
	got, err := ParseUpdate(b.proxies(), packages, out, status)
	require.NoError(t, err)
	assert.Equal(t, []UpdateResult{{Node: "proxy0", OK: true}, {Node: "proxy1", OK: true}}, got)

	b.write("machines/proxy1/broken", "")
	out, status = b.run(b.scripts.Update(b.proxies(), packages...))
	got, err = ParseUpdate(b.proxies(), packages, out, status)
	assert.ErrorContains(t, err, "update_proxy1.log")
	assert.Equal(t, []UpdateResult{{Node: "proxy0", OK: true}, {Node: "proxy1"}}, got)

	for name, text := range map[string]string{
		"a node too many":   string(out) + "  Updating [webservice0] with [pitrix-ks-proxy] ... OK.\n",
		"twice":             string(out) + "  Updating [proxy0] with [pitrix-ks-proxy] ... OK.\n",
		"another package":   strings.ReplaceAll(string(out), "pitrix-ks-proxy ~", "pitrix-hyper ~"),
		"one is missing":    strings.Replace(string(out), "Updating [proxy0]", "Upgrading [proxy0]", 1),
		"asked and refused": "Are you sure to continue? [y/N]? ",
		"nothing":           "",
	} {
		_, err := ParseUpdate(b.proxies(), packages, []byte(text), 0)
		assert.Error(t, err, name)
	}
}

func TestTrapDoneMarker(t *testing.T) {
	b := newBox(t)
	out, status := b.run(b.scripts.LaunchVMs(b.proxies(), Launch{Strategy: SideBySide}))
	r, err := ParseLaunch(b.proxies(), out, status)
	require.NoError(t, err, "%s", out)
	require.Len(t, r.Steps, 2)
	out, status = b.run(b.scripts.LaunchVMs(b.proxies(), Launch{Strategy: SideBySide}))
	require.Equal(t, 1, status)
	_, err = ParseLaunch(b.proxies(), out, status)
	var e *LaunchedError
	require.ErrorAs(t, err, &e)
	assert.Equal(t, "proxy0", e.VM)
}

func TestTrapForceRemovesPrefix(t *testing.T) {
	b := newBox(t)
	kernels := "hosts/192.0.2.102/kernels/"
	for _, name := range []string{"proxy0.img", "proxy0.Done", "proxy0.img.bak", "old-proxy0.img"} {
		b.write(kernels+name, "data")
	}
	_, status := b.run(b.scripts.LaunchVMs(b.scope("proxy0", Allow{Role: "proxy"}), Launch{InPlace, true}))
	require.Zero(t, status)
	assert.NoFileExists(t, b.path(kernels+"proxy0.img.bak"), "a backup whose name begins with the VM's is removed")
	assert.Equal(t, "data", b.read(kernels+"old-proxy0.img"), "the names of Park are not")
}

func TestTrapSameHost(t *testing.T) {
	b := newBox(t)
	_, err := b.scripts.LaunchVMs(b.proxies(), Launch{SideBySide, true})
	assert.ErrorContains(t, err, "may be the nodes that serve")
	_, err = b.scripts.LaunchVMs(b.proxies(), Launch{})
	assert.ErrorContains(t, err, "strategy")
}

func TestLaunchFails(t *testing.T) {
	b := newBox(t)
	require.NoError(t, os.Remove(b.path("hosts/192.0.2.101/kernels/base.img")))
	out, status := b.run(b.scripts.LaunchVMs(b.proxies(), Launch{Strategy: SideBySide}))
	_, err := ParseLaunch(b.proxies(), out, status)
	assert.ErrorContains(t, err, "Copying the base image of [proxy1]")
}

func TestTrapInstallReboots(t *testing.T) {
	// A component that fails ends the script, with status 0 here.
	b := newBox(t)
	out, status := b.run(b.scripts.InstallNodes(b.proxies()))
	r, err := ParseInstall(b.proxies(), out, status)
	require.NoError(t, err)
	assert.Len(t, r.Steps, 8)
	b.write("broken-network", "")
	out, status = b.run(b.scripts.InstallNodes(b.proxies()))
	require.Zero(t, status)
	_, err = ParseInstall(b.proxies(), out, status)
	assert.ErrorContains(t, err, "Installing [network] of [proxy0]")
}

func TestTrapGlobalConfBackup(t *testing.T) {
	b := newBox(t)
	today := "pitrix/conf/variables/global_" + time.Now().Format("20060102")
	out, status := b.run(b.scripts.BuildGlobalConf("run-1"))
	_, err := ParseBuild(out, status)
	require.NoError(t, err, "%s", out)
	assert.Equal(t, "today: first\n", b.read(today+"/server.yaml.lab1a"))

	b.write("pitrix/conf/variables/global/server.yaml.lab1a", "today: second\n")
	for range 2 { // again under the same key: the copy stays the first one
		out, status = b.run(b.scripts.BuildGlobalConf("run-2"))
		require.Zero(t, status, "%s", out)
	}
	assert.Equal(t, "today: second\n", b.read(today+"/server.yaml.lab1a"), "the script has eaten its own backup")
	saved := "pitrix/conf/variables/.upgradectl-run-2/" + filepath.Base(today) + "/server.yaml.lab1a"
	assert.Equal(t, "today: first\n", b.read(saved))
	_, err = b.scripts.BuildGlobalConf("../x")
	assert.Error(t, err)
}

func TestTrapGlobalConfStatus(t *testing.T) {
	b := newBox(t)
	b.write("broken-pitrix-hosts", "")
	out, status := b.run(b.scripts.BuildGlobalConf("k"))
	require.Zero(t, status, "its status is that of the last package")
	r, err := ParseBuild(out, status)
	assert.ErrorContains(t, err, "pitrix-hosts")
	assert.Contains(t, r.Packages, PackageResult{"pitrix-hosts", false})
	// -f is no option of it.
	line, err := b.scripts.BuildGlobalConf("k")
	require.NoError(t, err)
	assert.NotContains(t, line, "build_global_conf.sh -")
}

func TestParseBuild(t *testing.T) {
	b := newBox(t)
	out, status := b.run(b.scripts.BuildPackages(), nil)
	r, err := ParseBuild(out, status)
	require.NoError(t, err)
	assert.Equal(t, &BuildResult{Packages: []PackageResult{{"pitrix-hosts", true}, {"pitrix-ks-proxy", true}}, Done: true}, r)
	for name, bad := range map[string]string{
		"cut short": strings.Split(string(out), "Build the")[0], "nothing": "", "scan": strings.ReplaceAll(string(out), "indep] ... OK.", "indep] ... Error!"),
	} {
		_, err := ParseBuild([]byte(bad), 0)
		assert.Error(t, err, name)
	}
	_, err = ParseBuild(out, 1)
	assert.Error(t, err)
	require.NoError(t, ParseGenNodeList(b.run(b.scripts.GenNodeList(), nil)))
	assert.Error(t, ParseGenNodeList(nil, 0))
	mac, err := ParseGenMAC(b.run(b.scripts.GenMAC(), nil))
	require.NoError(t, err)
	assert.Equal(t, "00:16:3e:96:1c:10", mac.String())
	for _, bad := range []string{"", "ff:ff:ff:ff:ff:ff", "error"} {
		_, err := ParseGenMAC([]byte(bad), 0)
		assert.Error(t, err, bad)
	}
}

func TestTrapScriptSpelling(t *testing.T) {
	b := newBox(t)
	b.write("pitrix/version.json", `{"current": {"installer": "4.2.5"}}`)
	_, err := b.GetScripts(t.Context())
	var e *MissingScriptError
	require.ErrorAs(t, err, &e)
	assert.Equal(t, ScriptGenNodeList, e.Script)
	assert.Equal(t, []string{b.path("pitrix/bin/gen_node_list.py")}, e.Found)
	assert.Equal(t, "/pitrix/build/build_pkgs_allinone.sh", Scripts{Version: Version{4, 2, 5}}.Path(ScriptBuildPackages))
	assert.Equal(t, "/pitrix/build/build_pkgs_allinone.py", Scripts{Version: Version{4, 3, 0}}.Path(ScriptBuildPackages))
	// A file that cannot be executed is none.
	b.write("pitrix/version.json", `{"current": {"installer": "4.3.0"}}`)
	require.NoError(t, os.Chmod(b.path("pitrix/install/launch_vms.sh"), 0o644))
	_, err = b.GetScripts(t.Context())
	require.ErrorAs(t, err, &e)
	assert.Equal(t, ScriptLaunchVMs, e.Script)
}

func TestScopes(t *testing.T) {
	b := newBox(t)
	_, err := b.scripts.Exec(Scope{}, "t", "true")
	assert.ErrorContains(t, err, "NewScope")
	fleet, err := b.ReadFleet(t.Context())
	require.NoError(t, err)
	groups, err := b.ReadGroups(t.Context())
	require.NoError(t, err)
	for _, words := range []string{"all", "webservice0", "proxy,webservice0", "empty", "proxy0/1", "proxy9", ""} {
		_, err := NewScope(fleet, groups, words, Allow{Role: "proxy"})
		var e *ScopeError
		assert.ErrorAs(t, err, &e, words)
	}
	all, err := NewScope(fleet, groups, "all", Allow{KnownHosts: true})
	require.NoError(t, err)
	assert.Equal(t, "all", all.String())
	_, err = b.scripts.Exec(all, "t", "reboot")
	var e *ScopeError
	assert.ErrorAs(t, err, &e, "all is for known_hosts alone")
	_, err = b.scripts.Update(all, "pitrix-hosts")
	assert.ErrorAs(t, err, &e)
}
