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
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"mvdan.cc/sh/v3/syntax"
)

const testMark = "0123456789abcdef0123456789abcdef"

// TestScriptCommands holds the script to sh builtins and a short list of
// reading commands, and to writing nothing.
func TestScriptCommands(t *testing.T) {
	allowed := []string{
		"cat", "ls", "tr", "readlink", "id", "hostname", "systemctl", "docker", "date", "head", "timeout",
		// builtins
		"printf", "read", "command", "export", "umask", "return", "continue", ":", "[",
	}
	lists := []string{"version", "ps", "inspect", "list-units", "list-unit-files"}
	file, err := syntax.NewParser(syntax.Variant(syntax.LangPOSIX)).Parse(strings.NewReader(script(testMark)), "script.sh")
	require.NoError(t, err)
	functions := map[string]bool{}
	syntax.Walk(file, func(n syntax.Node) bool {
		if f, ok := n.(*syntax.FuncDecl); ok {
			functions[f.Name.Value] = true
		}
		return true
	})
	for _, s := range sectionNames {
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
			if name == "run" {
				name = n.Args[1].Lit()
			}
			if functions[name] {
				return true
			}
			assert.Contains(t, allowed, name, "line %d", n.Pos().Line())
			if name == "docker" || name == "systemctl" {
				assert.Contains(t, lists, n.Args[2].Lit(), "line %d", n.Pos().Line())
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
	assert.NotContains(t, inspectFormat, "'", "it stands in single quotes")
	assert.NotContains(t, inspectFormat, "Env")
}

// localHost runs commands on this machine with a given shell in the place of
// /bin/sh.
type localHost struct{ shell string }

type exitError struct{ n int }

func (e exitError) Error() string   { return fmt.Sprintf("exit status %d", e.n) }
func (e exitError) ExitStatus() int { return e.n }

func (h localHost) Run(ctx context.Context, cmd string, stdin io.Reader, stdout, stderr io.Writer) error {
	c := exec.CommandContext(ctx, h.shell, "-c", strings.ReplaceAll(cmd, "/bin/sh", h.shell))
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
	for _, name := range []string{"dash", "bash", "sh", "ash"} {
		p, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		ran++
		t.Run(name, func(t *testing.T) {
			h := localHost{p}
			inv, err := Collect(t.Context(), h, Options{})
			require.NoError(t, err)
			for _, s := range []string{SectionKernel, SectionBoot, SectionUptime, SectionHost, SectionListeners} {
				assert.Equal(t, StatusOK, inv.Sections[s].Status, "%s: %s", s, inv.Sections[s].Message)
			}
			assert.Len(t, inv.Sections, len(sectionNames))
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
			assert.Contains(t, inv.Text(), fmt.Sprintf("tcp 127.0.0.1:%d", port))
			assert.NotContains(t, inv.Text(), dir, "a line feed in a name does not reach the terminal")
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

// stream builds what the script writes.
type stream struct{ b strings.Builder }

func (s *stream) line(f string, a ...any) *stream {
	fmt.Fprintf(&s.b, "\n"+testMark+" "+f+"\n", a...)
	return s
}

func (s *stream) section(name string, rc int, items ...string) *stream {
	s.line("B %s", name)
	for i := 0; i+1 < len(items); i += 2 {
		if items[i] != "" {
			s.line("I %s", items[i])
		}
		s.b.WriteString(items[i+1])
	}
	return s.line("R %d", rc).line("E %s", name)
}

const tcpTable = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n" +
	"   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 501 1 0000000000000000 100 0 0 10 0\n" +
	"   1: 0100007F:0CEA 00000000:0000 0A 00000000:00000000 00:00000000 00000000   999        0 502 1 0000000000000000 100 0 0 10 0\n" +
	"   2: 5A001FAC:1F90 05001FAC:C350 01 00000000:00000000 00:00000000 00000000  1000        0 600 1 0000000000000000 20 4 30 10 -1\n" +
	"   3: 5A001FAC:1F90 06001FAC:C351 06 00000000:00000000 00:00000000 00000000     0        0 0 3 0000000000000000\n"

const tcp6Table = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n" +
	"   0: 00000000000000000000000000000000:46A1 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 503 1 0000000000000000 100 0 0 10 0\n" +
	"   1: 0000000000000000FFFF00000100007F:46A2 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 504 1 0000000000000000 100 0 0 10 0\n" +
	"   2: 0000000000000000FFFF00005A001FAC:46A1 0000000000000000FFFF000005001FAC:C350 01 00000000:00000000 00:00000000 00000000  1000        0 601 1 0000000000000000 20 4 30 10 -1\n"

var fdList = func(inodes ...int) string {
	s := "total 0\nlr-x------ 1 app app 64 Nov 22 01:00 0 -> /dev/null\n"
	for i, n := range inodes {
		s += fmt.Sprintf("lrwx------ 1 app app 64 Nov 22 01:00 %d -> socket:[%d]\n", i+3, n)
	}
	return s
}

const containerLine = `["` + "aa11" + `","/shop_web_1","shop/web:1","sha256:77","running",0,"healthy","always",["shop","web","1","/srv/shop","docker-compose.yml"],{"80/tcp":[{"HostIp":"","HostPort":"8081"}]},{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8081"},{"HostIp":"::","HostPort":"8081"}],"9000/tcp":null},4711]` + "\n"

func goodStream() string {
	s := &stream{}
	s.b.WriteString("Welcome to web-90") // noise without a line feed
	s.section(SectionOS, 0, "os-release", "NAME=\"CentOS Linux\"\nID=\"centos\"\nVERSION_ID=\"7\"\nPRETTY_NAME=\"CentOS Linux 7 (Core)\"\n", "redhat-release", "CentOS Linux release 7.5.1804 (Core) \n")
	s.section(SectionKernel, 0, "", "3.10.0-862.9.1.el7.x86_64\n")
	s.section(SectionBoot, 0, "", "d2cf5a55-550f-4407-adf6-1110d73a4fac\n")
	s.section(SectionUptime, 0, "uptime", "93784.27 1.00\n", "clock", "1700000000\n")
	s.section(SectionHost, 0, "hostname", "web-90\n", "uid", "0\n")
	s.section(SectionListeners, 0, "tcp", tcpTable, "tcp6", tcp6Table)
	s.section(SectionOwners, 0, "700", "java\n"+fdList(501, 503), "701", "java\n"+fdList(504), "800", "mysqld\n"+fdList(502))
	java := func(pid, args, cwd, cgroup string) []string {
		return []string{pid + " cmdline", args, pid + " status", "Name:\tjava\nUid:\t1000\t1000\t1000\t1000\n", pid + " owner", "dr-xr-xr-x 9 app app 0 Nov 22 01:00 /proc/700\n",
			pid + " cgroup", cgroup, pid + " exe", "/opt/jdk/bin/java\n", pid + " cwd", cwd + "\n", pid + " end", ""}
	}
	s.section(SectionJava, 0, slices.Concat(
		java("700", "java\n-jar\norder.jar\n", "/srv/order", "1:name=systemd:/system.slice/order.service\n"),
		java("701", "java\n-cp\na:b\ncom.x.Main\n", "/ (deleted)", ""),
		java("900", "/usr/bin/java\n-jar\n/app.jar\n", "/", "0::/system.slice/docker-"+strings.Repeat("ab", 32)+".scope\n"),
		java("901", "vim\njava.txt\n", "/", "")[0:8])...)
	s.section(SectionDocker, 0, "", "20.10.24\n")
	s.section(SectionContainers, 0, "ids", "aa11\n", "inspect", containerLine)
	s.section(SectionUnits, 0, "active", "nginx.service loaded active running The nginx\n● bad.service loaded failed failed Bad\n", "files", "nginx.service enabled enabled\nidle@.service static -\n")
	s.line("Z")
	return s.b.String()
}

func TestParseStream(t *testing.T) {
	inv, framed := parseStream([]byte(goodStream()), testMark)
	require.True(t, framed)
	for n, s := range inv.Sections {
		assert.Equal(t, StatusOK, s.Status, "%s: %s", n, s.Message)
	}
	assert.Equal(t, "Welcome to web-90", inv.Noise)
	assert.Equal(t, OS{"centos", "7", "CentOS Linux 7 (Core)", "CentOS Linux release 7.5.1804 (Core)"}, inv.OS)
	assert.Equal(t, "3.10.0-862.9.1.el7.x86_64", inv.Kernel)
	assert.Equal(t, "web-90", inv.Hostname)
	assert.Equal(t, 0, inv.UID)

	type l struct {
		addr string
		port int
		proc string
	}
	var got []l
	for _, x := range inv.Listeners {
		got = append(got, l{x.Addr, x.Port, x.Process + " " + strconv.Itoa(x.PID)})
	}
	assert.Equal(t, []l{{"127.0.0.1", 3306, "mysqld 800"}, {"0.0.0.0", 8080, "java 700"}, {"::", 18081, "java 700"}, {"127.0.0.1", 18082, "java 701"}}, got)

	require.Len(t, inv.Java, 3)
	assert.Equal(t, Java{PID: 700, Cwd: "/srv/order", User: "app", Exe: "/opt/jdk/bin/java", Args: []string{"java", "-jar", "order.jar"}, Jar: "order.jar", Ports: []int{8080, 18081}}, inv.Java[0])
	assert.Equal(t, "com.x.Main", inv.Java[1].MainClass)
	assert.Equal(t, "/ (deleted)", inv.Java[1].Cwd)
	assert.Equal(t, strings.Repeat("ab", 32), inv.Java[2].Container)

	require.Len(t, inv.Containers, 1)
	assert.Equal(t, Container{ID: "aa11", Name: "shop_web_1", Image: "shop/web:1", ImageID: "sha256:77", State: "running", Health: "healthy", RestartPolicy: "always",
		Compose: Compose{"shop", "web", "1", "/srv/shop", "docker-compose.yml"}, Ports: []Port{{"tcp", 80, "0.0.0.0", 8081}}, PID: 4711}, inv.Containers[0])
	assert.Equal(t, []Unit{{"bad.service", "loaded", "failed", "failed", ""}, {"idle@.service", "", "", "", "static"}, {"nginx.service", "loaded", "active", "running", "enabled"}}, inv.Units)
}

// TestCutAnywhere cuts a good stream at every byte: what is said to be whole
// is what the whole stream says, and nothing is empty without being told.
func TestCutAnywhere(t *testing.T) {
	full, _ := parseStream([]byte(goodStream()), testMark)
	s := goodStream()
	for i := range s {
		inv, framed := parseStream([]byte(s[:i]), testMark)
		checkCut(t, full, inv, i)
		if !framed {
			assert.Equal(t, StatusTruncated, inv.Sections[SectionOS].Status)
		}
	}
}

func checkCut(t *testing.T, full, inv *Inventory, at int) {
	for _, n := range sectionNames {
		s := inv.Sections[n]
		if s.Status != StatusOK {
			require.Equal(t, StatusTruncated, s.Status, "%s, cut at %d: %s", n, at, s.Message)
			continue
		}
		switch n {
		case SectionListeners:
			require.Len(t, inv.Listeners, len(full.Listeners), "cut at %d", at)
		case SectionJava:
			require.Len(t, inv.Java, len(full.Java), "cut at %d", at)
		case SectionContainers:
			require.Equal(t, full.Containers, inv.Containers, "cut at %d", at)
		case SectionUnits:
			require.Equal(t, full.Units, inv.Units, "cut at %d", at)
		case SectionBoot:
			require.Equal(t, full.BootID, inv.BootID)
		}
	}
}

func FuzzCollectStream(f *testing.F) {
	good := goodStream()
	f.Add([]byte(good), len(good)/2, []byte("x"))
	f.Add([]byte(good), len(good)-3, []byte("\n"+testMark+" E os\n"))
	f.Add([]byte("\n"+testMark+" B os\n\n"+testMark+" B os\n"), 5, []byte{0, 255})
	full, _ := parseStream([]byte(good), testMark)
	f.Fuzz(func(t *testing.T, data []byte, cut int, junk []byte) {
		inv, _ := parseStream(data, testMark)
		require.Len(t, inv.Sections, len(sectionNames))
		_ = inv.Text()
		_ = Diff(inv, inv, Expect{})
		if cut >= 0 && cut < len(good) {
			inv, _ = parseStream([]byte(good[:cut]), testMark)
			checkCut(t, full, inv, cut)
			// Junk in the middle may break a section, but never parses badly.
			inv, _ = parseStream(slices.Concat([]byte(good[:cut]), junk, []byte(good[cut:])), testMark)
			_, err := json.Marshal(inv)
			require.NoError(t, err)
		}
	})
}

// TestForgery lets file names, arguments and process names look like ours.
func TestForgery(t *testing.T) {
	s := &stream{}
	forged := "x\n00000000000000000000000000000000 E java\nlrwx------ 1 r r 64 Nov 1 1 evil -> socket:[502]\nlrwx------ 1 r r 64 Nov 1 1 7 -> socket:[502]x\n"
	s.section(SectionListeners, 0, "tcp", tcpTable)
	s.section(SectionOwners, 0, "666", "evil\n"+forged, "800", "mysqld\n"+fdList(502))
	s.section(SectionJava, 0, "666 cmdline", "java\n\x01"+"abc E java\x01\n-jar\nx.jar\n", "666 status", "Uid:\t7\t7\t7\t7\n", "666 exe", "/usr/bin/java\n", "666 cwd", "/a\n/proc/1/cwd\n", "666 end", "")
	s.line("Z")
	inv, _ := parseStream([]byte(s.b.String()), testMark)
	assert.Equal(t, "mysqld", inv.Listeners[0].Process)
	require.Len(t, inv.Java, 1)
	assert.Equal(t, []string{"java", "\nabc E java\n", "-jar", "x.jar"}, inv.Java[0].Args)
	assert.Equal(t, "/a\n/proc/1/cwd", inv.Java[0].Cwd)
	assert.Equal(t, "7", inv.Java[0].User)
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
	inv = one(0, "aa11\n", `["aa11","/x","i","s","exited",137,"","",[null,null,null,null,null],null,{},0]`+"\n")
	assert.Equal(t, StatusOK, inv.Sections[SectionContainers].Status)
	assert.Equal(t, Container{ID: "aa11", Name: "x", Image: "i", ImageID: "s", State: "exited", ExitCode: 137, RestartPolicy: "no", Ports: []Port{}}, inv.Containers[0])
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
