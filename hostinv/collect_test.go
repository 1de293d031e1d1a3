package hostinv

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"mvdan.cc/sh/v3/syntax"
)

// TestScriptCommands holds the script to sh builtins and a short list of
// reading commands, and to writing nothing.
func TestScriptCommands(t *testing.T) {
	allowed := []string{
		"cat", "ls", "tr", "sed", "grep", "stat", "sha256sum", "readlink", "id", "hostname", "dd", "systemctl", "docker", "date", "head", "timeout", "sleep",
		"true", "grubby", "dpkg-query", "rpm", "apk", "ip", "nft", "supervisorctl", "chronyc", "nginx", "true",
		// builtins
		"printf", "echo", "read", "command", "export", "umask", "return", "continue", ":", "[", "set", "shift", "kill", "trap", "wait", "exit",
	}
	// What these may be asked to do: the words after the command.
	reads := map[string][]string{
		"docker": {"info", "ps", "images", "inspect"}, "systemctl": {"list-units", "list-unit-files"}, "rpm": {"-qa"}, "dpkg-query": {"-W"}, "apk": {"info"},
		"ip": {"-o addr show", "-4 route show", "-6 route show", "-4 rule show", "-6 rule show"}, "nft": {"list ruleset"}, "supervisorctl": {"status"},
		"chronyc": {"-n tracking"}, "nginx": {"-V"}, "grubby": {"--default-kernel"}, "sed": {"-n"}, "dd": {"ibs=32768 obs=65536"}, "stat": {"-f -c"},
	}
	file, err := syntax.NewParser(syntax.Variant(syntax.LangPOSIX)).Parse(strings.NewReader(script(testMark)), "script.sh")
	require.NoError(t, err)
	functions := map[string]bool{}
	syntax.Walk(file, func(n syntax.Node) bool {
		if f, ok := n.(*syntax.FuncDecl); ok {
			functions[f.Name.Value] = true
		}
		return true
	})
	for _, s := range asked {
		assert.True(t, functions["sec_"+s], "section %s has no function", s)
	}
	syntax.Walk(file, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.CallExpr:
			if len(n.Args) == 0 {
				return true
			}
			name := n.Args[0].Lit()
			if name == "" { // "$@" in run, "sec_$1" in section
				var b bytes.Buffer
				syntax.NewPrinter().Print(&b, n.Args[0])
				assert.Contains(t, []string{`"$@"`, `"sec_$1"`}, b.String())
				return true
			}
			args := n.Args[1:]
			if name == "run" {
				if name, args = n.Args[1].Lit(), n.Args[2:]; name == "" { // "$tool" of iptables-save and ip6tables-save
					return true
				}
			}
			if functions[name] {
				return true
			}
			assert.Contains(t, allowed, name, "line %d", n.Pos().Line())
			if want, ok := reads[name]; ok {
				var words []string
				for _, a := range args {
					words = append(words, a.Lit())
				}
				said := strings.Join(words, " ") + " "
				assert.True(t, slices.ContainsFunc(want, func(w string) bool { return strings.HasPrefix(said, w+" ") }), "line %d: %s %s", n.Pos().Line(), name, said)
			}
		case *syntax.Redirect:
			switch n.Op {
			case syntax.RdrIn, syntax.DplOut:
			case syntax.RdrOut:
				assert.Equal(t, "/dev/null", n.Word.Lit(), "line %d", n.Pos().Line())
			default:
				t.Errorf("line %d: redirection %s", n.Pos().Line(), n.Op)
			}
		}
		return true
	})
	last := file.Stmts[len(file.Stmts)-1].Cmd.(*syntax.CallExpr)
	assert.Equal(t, "main", last.Args[0].Lit(), "the last line starts it all")
	for _, s := range file.Stmts[:len(file.Stmts)-1] {
		switch c := s.Cmd.(type) {
		case *syntax.FuncDecl, *syntax.DeclClause:
		case *syntax.CallExpr:
			if len(c.Args) > 0 {
				assert.Contains(t, []string{"umask", "export"}, c.Args[0].Lit(), "a cut-off script runs nothing")
			}
		default:
			t.Errorf("line %d runs before main", s.Pos().Line())
		}
	}
	for _, f := range []string{inspectFormat, infoFormat, imageFormat} {
		assert.NotContains(t, f, "'", "it stands in single quotes")
	}
	assert.NotContains(t, strings.ReplaceAll(inspectFormat, `{{range .Config.Env}}{{json (index (split . "=") 0)}}`, ""), "Env", "only the names leave the host")
}

// localHost runs commands on this machine with a given shell in the place of
// /bin/sh.
type localHost struct{ shell string }

type exitError struct{ n int }

func (e exitError) Error() string   { return fmt.Sprintf("exit status %d", e.n) }
func (e exitError) ExitStatus() int { return e.n }

func (h localHost) Run(ctx context.Context, cmd string, stdin io.Reader, stdout, stderr io.Writer) error {
	sh, inner := strings.Fields(h.shell), h.shell
	if sh[0] == "setpriv" || sh[0] == "nsenter" { // can be done once
		inner = sh[len(sh)-1]
	}
	c := exec.CommandContext(ctx, sh[0], append(sh[1:], "-c", strings.ReplaceAll(cmd, "/bin/sh", inner))...)
	c.Stdin, c.Stdout, c.Stderr = stdin, stdout, stderr
	err := c.Run()
	var x *exec.ExitError
	if errors.As(err, &x) {
		return exitError{x.ExitCode()}
	}
	return err
}

// TestCollectLocal reads this machine's own /proc with the shells there are.
func TestCollectLocal(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("reads /proc of this machine, which only Linux has")
	}
	// A java that listens, in a directory with an awkward name.
	dir := filepath.Join(t.TempDir(), "srv app one\nx")
	require.NoError(t, os.Mkdir(dir, 0o755))
	self, err := os.Executable()
	require.NoError(t, err)
	java := exec.Command(self)
	java.Args = []string{"/opt/jdk/bin/java", "-Xmx1g", "-Ddb.password=hunter2", "-jar", "order 1.jar", "--token", "tok-123", "line\nfeed", "/a/==> /proc/1/cmdline <=="}
	java.Dir = dir
	java.Env = append(os.Environ(), "HOSTINV_TEST_JAVA=1")
	out, err := java.StdoutPipe()
	require.NoError(t, err)
	in, err := java.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, java.Start())
	defer java.Wait()
	defer in.Close()
	var port int
	_, err = fmt.Fscan(out, &port)
	require.NoError(t, err)

	ran := 0
	for _, name := range []string{"dash", "bash", "busybox sh"} {
		first, rest, _ := strings.Cut(name, " ")
		p, err := exec.LookPath(first)
		if err != nil {
			continue
		}
		p = strings.TrimSpace(p + " " + rest)
		ran++
		t.Run(name, func(t *testing.T) {
			h := localHost{p}
			inv, err := Collect(t.Context(), h, Options{})
			require.NoError(t, err)
			for _, s := range []string{SectionKernel, SectionBoot, SectionUptime, SectionHost, SectionListeners} {
				assert.Equal(t, StatusOK, inv.Sections[s].Status, "%s: %s", s, inv.Sections[s].Message)
			}
			assert.Len(t, inv.Sections, len(SectionNames()))
			release, err := os.ReadFile("/proc/sys/kernel/osrelease")
			require.NoError(t, err)
			assert.Equal(t, strings.TrimSpace(string(release)), inv.Kernel)
			id, err := ReadBootID(t.Context(), h)
			require.NoError(t, err)
			assert.Equal(t, id, inv.BootID)
			assert.Equal(t, os.Getuid(), inv.UID)
			assert.Less(t, inv.ClockSkew.Abs().Seconds(), 5.0)

			i := slices.IndexFunc(inv.Java, func(j Java) bool { return j.PID == java.Process.Pid })
			require.GreaterOrEqual(t, i, 0, "the java process is missing")
			j := inv.Java[i]
			assert.Equal(t, dir, j.Cwd)
			assert.Equal(t, "order 1.jar", j.Jar)
			assert.Equal(t, []int{port}, j.Ports)
			assert.Equal(t, []string{"/opt/jdk/bin/java", "-Xmx1g", "-Ddb.password=[hidden]", "-jar", "order 1.jar",
				"--token", "[hidden]", "line\nfeed", "/a/==> /proc/1/cmdline <=="}, j.Args)
			assert.NotEmpty(t, j.User)

			text, err := json.Marshal(inv)
			require.NoError(t, err)
			assert.NotContains(t, string(text), "hunter2")
			assert.NotContains(t, string(text), "tok-123")
			assert.Contains(t, inv.Text(English), fmt.Sprintf("tcp 127.0.0.1:%d", port))
			assert.NotContains(t, inv.Text(English), dir, "a line feed in a name does not reach the terminal")
			var back Inventory
			require.NoError(t, json.Unmarshal(text, &back))
			assert.Empty(t, onlyKnown(Diff(&back, &back, Expect{}).Findings))

			conns, err := ListConnections(t.Context(), h)
			require.NoError(t, err)
			for _, c := range conns {
				assert.NotEqual(t, "LISTEN", c.State)
			}
		})
	}
	require.Positive(t, ran, "no shell on this machine")
}

func onlyKnown(list []Finding) []Finding {
	return slices.DeleteFunc(slices.Clone(list), func(f Finding) bool { return f.Kind == Unknown })
}

// TestMain can be the java of TestCollectLocal.
func TestMain(m *testing.M) {
	if os.Getenv("HOSTINV_TEST_JAVA") != "" {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			os.Exit(1)
		}
		fmt.Println(l.Addr().(*net.TCPAddr).Port)
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func TestSectionStatus(t *testing.T) {
	for _, tc := range []struct {
		name string
		rc   int
		msg  string
		want Status
	}{
		{SectionContainers, 10, "", StatusAbsent},
		{SectionContainers, 0, "", StatusOK},
		{SectionContainers, 12, "", StatusPartial},
		{SectionContainers, 124, "", StatusTimeout},
		{SectionContainers, 1, "Got permission denied while trying to connect to the Docker daemon socket", StatusDenied},
		{SectionContainers, 1, "Cannot connect to the Docker daemon", StatusError},
		{SectionUnits, 1, "System has not been booted with systemd as init system (PID 1). Can't operate.", StatusAbsent},
	} {
		s := &stream{}
		s.section(tc.name, tc.rc, "message", tc.msg)
		inv, _ := parseStream([]byte(s.b.String()), testMark)
		assert.Equal(t, tc.want, inv.Sections[tc.name].Status, "%s %d", tc.name, tc.rc)
		if tc.msg != "" && tc.want != StatusAbsent {
			assert.Equal(t, tc.msg, inv.Sections[tc.name].Message)
		}
	}
}

func TestContainers(t *testing.T) {
	one := func(rc int, ids, inspect string) *Inventory {
		s := &stream{}
		s.section(SectionContainers, rc, "ids", ids, "inspect", inspect)
		inv, _ := parseStream([]byte(s.b.String()), testMark)
		return inv
	}
	inv := one(12, "aa11\nbb22\n", containerLine) // bb22 vanished
	assert.Equal(t, StatusPartial, inv.Sections[SectionContainers].Status)
	assert.Len(t, inv.Containers, 1)
	inv = one(0, "aa11\nbb22\n", containerLine)
	assert.Equal(t, StatusPartial, inv.Sections[SectionContainers].Status)
	inv = one(0, "aa11\n", "[1,2\n")
	assert.Equal(t, StatusError, inv.Sections[SectionContainers].Status)
	inv = one(0, "aa11\n", `["aa11","/x","i","s","exited",137,"","",[null,null,null,null,null],null,{},0,[null],[null],[null]]`+"\n")
	assert.Equal(t, StatusOK, inv.Sections[SectionContainers].Status)
	assert.Equal(t, Container{ID: "aa11", Name: "x", Image: "i", ImageID: "s", State: "exited", ExitCode: 137, RestartPolicy: "no", Ports: []Port{}, Digests: []string{}, Volumes: []Volume{}, Networks: []string{}, Environment: []string{}}, inv.Containers[0])
}

func TestListenersCap(t *testing.T) {
	// A table cut off among the connections lacks no listener; one cut off
	// among the listeners does.
	lines := strings.SplitAfter(tcpTable, "\n")
	table := lines[0] + lines[1]
	for len(table) < maxTable {
		table += lines[3]
	}
	s := &stream{}
	s.section(SectionListeners, 0, "tcp", table[:maxTable])
	inv, _ := parseStream([]byte(s.b.String()), testMark)
	assert.Equal(t, StatusOK, inv.Sections[SectionListeners].Status)
	assert.Len(t, inv.Listeners, 1)

	table = lines[0]
	for len(table) < maxTable {
		table += lines[1]
	}
	s = &stream{}
	s.section(SectionListeners, 0, "tcp", table[:maxTable])
	inv, _ = parseStream([]byte(s.b.String()), testMark)
	assert.Equal(t, StatusTruncated, inv.Sections[SectionListeners].Status)
}

func TestRedactArgs(t *testing.T) {
	for in, want := range map[string]string{
		"-Ddb.password=x":                   "-Ddb.password=[hidden]",
		"--spring.datasource.password=a=b":  "--spring.datasource.password=[hidden]",
		"-DACCESS_KEY_SECRET=k":             "-DACCESS_KEY_SECRET=[hidden]",
		`{"password": "x", "user": "u"}`:    `{"password":[hidden]`,
		"jdbc:mysql://h/db?user=a&pwd=b":    "jdbc:mysql://h/db?user=a&pwd=[hidden]",
		"redis://:pw@h:6379":                "redis://:[hidden]@h:6379",
		"http://user:p:w@h/x":               "http://user:[hidden]@h/x",
		"-Xmx2g":                            "-Xmx2g",
		"-Dspring.profiles.active=prod":     "-Dspring.profiles.active=prod",
		"-Dfile=/srv/auth-service/app.yaml": "-Dfile=/srv/auth-service/app.yaml",
		"com.example.TokenServer":           "com.example.TokenServer",
	} {
		assert.Equal(t, []string{"java", want}, redactArgs([]string{"java", in}))
	}
	assert.Equal(t, []string{"java", "--token", "[hidden]", "-jar", "x"}, redactArgs([]string{"java", "--token", "abc", "-jar", "x"}))
}

// fakeHost answers every command with the same.
type fakeHost struct {
	out, errOut string
	err         error
}

func (h fakeHost) Run(_ context.Context, cmd string, stdin io.Reader, stdout, stderr io.Writer) error {
	if stdin != nil {
		io.Copy(io.Discard, stdin)
	}
	if _, err := io.WriteString(stdout, h.out); err != nil {
		return err
	}
	if stderr != nil {
		io.WriteString(stderr, h.errOut)
	}
	return h.err
}

func TestBrokenShell(t *testing.T) {
	_, err := Collect(t.Context(), fakeHost{out: "This account is currently not available.\n", err: exitError{1}}, Options{})
	assert.ErrorContains(t, err, "This account is currently not available.")
	assert.ErrorContains(t, err, "login shell")
	_, err = Collect(t.Context(), fakeHost{}, Options{})
	assert.ErrorContains(t, err, "login shell", "an empty answer with status 0 is no empty inventory")
	lost := errors.New("lost")
	_, err = Collect(t.Context(), fakeHost{out: "x", err: lost}, Options{})
	assert.ErrorIs(t, err, lost)
	_, err = Collect(t.Context(), fakeHost{out: strings.Repeat("x", 100)}, Options{MaxOutput: 10})
	assert.ErrorContains(t, err, "limit")

	id, err := ReadBootID(t.Context(), fakeHost{out: "motd\nd2cf5a55-550f-4407-adf6-1110d73a4fac\n"})
	require.NoError(t, err)
	assert.Equal(t, "d2cf5a55-550f-4407-adf6-1110d73a4fac", id)
	_, err = ReadBootID(t.Context(), fakeHost{})
	assert.Error(t, err)
}

func TestListConnections(t *testing.T) {
	conns, err := ListConnections(t.Context(), fakeHost{out: "noise\n" + tcpTable + tcp6Table + "upgradectl-pid 77\n" + tcpTable + "upgradectl-end\n"}, 77)
	require.NoError(t, err)
	assert.Equal(t, []Connection{
		{"172.31.0.90", 8080, "172.31.0.5", 50000, "ESTABLISHED", 0},
		{"172.31.0.90", 8080, "172.31.0.6", 50001, "TIME_WAIT", 0},
		{"172.31.0.90", 18081, "172.31.0.5", 50000, "ESTABLISHED", 0},
		{"172.31.0.90", 8080, "172.31.0.5", 50000, "ESTABLISHED", 77},
		{"172.31.0.90", 8080, "172.31.0.6", 50001, "TIME_WAIT", 77},
	}, conns)
	for _, out := range []string{"", "upgradectl-end\n", tcpTable, tcpTable + "garbage\nupgradectl-end\n"} {
		_, err = ListConnections(t.Context(), fakeHost{out: out})
		assert.Error(t, err, "%q must not look like silence", clip(out, 20))
	}
}
