package host_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pkg/sftp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/internal/sim/host"
	"github.com/upgradectl/upgradectl/internal/sim/memnet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	oldKernel  = "3.10.0-862.9.1.el7.x86_64"
	newKernel  = "3.10.0-1160.6.1.el7.x86_64"
	newRelease = "CentOS Linux release 7.9.2009 (Core)"
	compose    = "version: \"2\"\nservices:\n  web:\n    image: shop:1.4\n    restart: always\n    ports: [\"8081:80\"]\n    healthcheck: {test: [\"CMD\", \"true\"]}\n"
	startSh    = "#!/bin/sh\nnohup java -Xmx64m -jar order.jar --server.port=8080 >>log 2>&1 &\necho $! >order.pid\n"
)

// key is a login key of the tests.
func key(t *testing.T) (ssh.Signer, string) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	signer, err := ssh.NewSignerFromKey(private)
	require.NoError(t, err)
	return signer, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
}

func spec(authorized string) host.Spec {
	return host.Spec{
		Name: "web-90", Addr: "172.31.0.90", Kernel: oldKernel, UpdateKernel: newKernel, UpdateRelease: newRelease,
		Users: []host.User{{Name: "root", AuthorizedKeys: []string{authorized}}, {Name: "app", UID: 1001}},
		Files: map[string]host.File{
			"/srv/order/order.jar":         {Data: []byte("jar"), UID: 1001, GID: 1001},
			"/srv/order/start.sh":          {Data: []byte(startSh), Mode: 0o755, UID: 1001, GID: 1001},
			"/srv/order":                   {Mode: os.ModeDir | 0o755, UID: 1001, GID: 1001},
			"/srv/shop/docker-compose.yml": {Data: []byte(compose)},
			"/etc/docker/daemon.json":      {Data: []byte("{}\n")},
			"/etc/nginx/link.conf":         {Link: "../redhat-release"},
			"/srv/data.txt":                {Data: []byte("b\na\na\n"), Mode: 0o640},
		},
		Containers: []host.Container{{Name: "cache", Image: "redis:6", Restart: "unless-stopped", Ports: []host.Port{{Host: 8082, Container: 6379}}}, {Name: "old", Image: "old:1", Stopped: true}},
		Compose:    []string{"/srv/shop"},
		Processes:  []host.Process{{Args: []string{"java", "-jar", "order.jar", "--server.port=8080"}, Cwd: "/srv/order", User: "app"}},
		Packages:   []string{"tree-1.6.0-10.el7.x86_64"},
	}
}

func start(t *testing.T, s host.Spec) *host.Host {
	t.Helper()
	h, err := host.New(s, host.Options{Speed: 200})
	require.NoError(t, err)
	t.Cleanup(h.Close)
	require.NoError(t, h.Start())
	return h
}

func run(t *testing.T, h *host.Host, script string) (string, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	status, out, err := h.Run(ctx, script)
	require.NoError(t, err, "%s\n%s", script, out)
	return string(out), status
}

// TestCommands pins what each command prints and answers.
func TestCommands(t *testing.T) {
	h := start(t, spec(""))
	for _, c := range []struct {
		script, out string
		status      int
	}{
		{`cat /etc/redhat-release`, "CentOS Linux release 7.5.1804 (Core) \n", 0},
		{`cat /etc/nginx/link.conf; cat /nothing`, "CentOS Linux release 7.5.1804 (Core) \ncat: /nothing: No such file or directory\n", 1},
		{`uname -r; uname -n; uname -m; uname -s`, oldKernel + "\nweb-90\nx86_64\nLinux\n", 0},
		{`id -u; id -un; hostname`, "0\nroot\nweb-90\n", 0},
		{`sort /srv/data.txt | uniq`, "a\nb\n", 0},
		{`stat -c '%a %u %U %s %F %h' /srv/data.txt`, "640 0 root 6 regular file 1\n", 0},
		{`readlink /etc/nginx/link.conf; readlink -f /etc/nginx/link.conf`, "../redhat-release\n/etc/redhat-release\n", 0},
		{`cd /tmp; umask 077; echo x >f; stat -c %a f; mkdir -m 750 d; stat -c %a d; chmod 644 f; stat -c %a f; rm -f f; rmdir d; ls -1A`, "600\n750\n644\n", 0},
		{`cd /tmp; echo 1 >a; echo 2 >b; mv -f a b; cat b; cp -p b c; chown app:app c; stat -c '%U %G' c; rm -r b c; ls -1A`, "1\napp app\n", 0},
		{`mkdir /tmp/d; touch /tmp/d/f; touch -d @1000000002 /tmp/d /tmp/d/f; stat -c %Y /tmp/d /tmp/d/f; touch /tmp/d/g; [ $(stat -c %Y /tmp/d) -gt 1000000002 ] && echo later; rm -r /tmp/d`, "1000000002\n1000000002\nlater\n", 0},
		{`cd /tmp; mkdir -p d/e; touch d/e/f; chown -R app:app d; stat -c %U d d/e d/e/f; rm -r d`, "app\napp\napp\n", 0},
		{`cd /tmp; echo 1 >a; chmod 600 a; touch b; chmod --reference=a b; chown --reference=a b; stat -c %a b; rm a b`, "600\n", 0},
		{`printf 'a\000b\n' | tr '\000\n' '\n\001' | wc -c`, "4\n", 0},
		{`printf abcdef | head -c 3; printf 'a\nb\n' | head -n 1`, "abca\n", 0},
		{`printf 'abc' | sha256sum`, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  -\n", 0},
		{`grep -c a /srv/data.txt; grep -q zz /srv/data.txt; echo $?; grep -F -x b /srv/data.txt`, "2\n1\nb\n", 0},
		{`command -v docker; command -v kill; command -v nothing; echo $?`, "/usr/bin/docker\nkill\n127\n", 0},
		{`f() { echo "f $1"; }; command -v f; f 1; for p in /etc/nginx/*; do echo $p; done`, "f\nf 1\n/etc/nginx/link.conf\n", 0},
		{"cat <<EOF | while read -r a b; do echo \"$b,$a\"; done\n1 2\n3 4\nEOF", "2,1\n4,3\n", 0},
		{`sleep 1 & p=$!; kill -0 $p && echo lives; wait $p; echo $?; kill -0 $p`, "lives\n0\nsh: kill: (PID) - No such process\n", 1},
		{`sleep 100 & kill $!; wait $!; echo $?`, "143\n", 0},
		{`( sleep 100; echo no ) & p=$!; kill -KILL $p; wait $p; echo $?`, "137\n", 0},
		{`trap 'echo bye' EXIT; exit 3`, "bye\n", 3},
		{`trap 'echo got; exit 5' TERM; sh -c "kill $$"; echo no`, "got\n", 5},
		{`sh -c 'echo $0 $1' a b; echo 'echo in $1' >/tmp/s; sh /tmp/s x; printf 'echo stdin' | sh -s`, "a b\nin x\nstdin\n", 0},
		{`su -s /bin/sh app -c 'id -un; echo $HOME; cat /root/x'; runuser -u app -- id -u`, "app\n/home/app\ncat: /root/x: Permission denied\n1001\n", 0},
		{`export A="x 'y" B; B=2; env | grep -c '^[AB]='; sh -c 'echo $A'; f() { local v=1; echo $v; }; f; echo "$v"; readonly A`, "2\nx 'y\n1\n\n", 0},
		{`A='$x "q" \ ` + "`" + `w'; export B="$A"; echo "$B"; { (echo 'it'\''s' "$A" &) ; wait; } & wait; sleep 1`, "$x \"q\" \\ `w\nit's $x \"q\" \\ `w\n", 0},
		{`test -r /proc/net/tcp && [ -d /run/systemd/system ] && [ ! -e /nothing ] && echo yes 2>/dev/null`, "yes\n", 0},
		{`cd /tmp; echo a >l1; ln l1 l2; echo b >>l2; ln l1 l2 2>&1; cat l1; stat -c %h l1; rm l1; stat -c %h l2; rm l2`, "ln: failed to create hard link 'l2': File exists\na\nb\n2\n1\n", 0},
		{`echo lost >/dev/null; cat /dev/null; echo $((1+2))`, "3\n", 0},
		{`rpm -q kernel; rpm -q nothing; rpm -qa --qf '%{NAME} %{VERSION}\n' | grep -x 'tree 1.6.0'`, "kernel-3.10.0-862.9.1.el7.x86_64\npackage nothing is not installed\ntree 1.6.0\n", 0},
		{`systemctl is-active docker; systemctl is-enabled docker; systemctl is-active nothing`, "active\nenabled\ninactive\n", 3},
		{`docker ps -a --no-trunc --format '{{.Names}} {{.State}}'`, "shop_web_1 running\nold created\ncache running\n", 0},
		{`docker inspect --format '{{.Name}} {{.State.Status}} {{.HostConfig.RestartPolicy.Name}} {{.Config.Image}} {{json .NetworkSettings.Ports}}' cache nothing`,
			"/cache running unless-stopped redis:6 {\"6379/tcp\":[{\"HostIp\":\"0.0.0.0\",\"HostPort\":\"8082\"}]}\nError: No such object: nothing\n", 1},
		{`docker inspect --format '{{.State.Health.Status}} {{index .Config.Labels "com.docker.compose.project"}}' shop_web_1`, "healthy shop\n", 0},
		{`docker version --format '{{.Server.Version}}'; docker info --format '{{.ContainersRunning}}'`, "1.13.1\n2\n", 0},
		{`yum -y install docker-ce`, "Loaded plugins: fastestmirror\nNo package docker-ce available.\nError: Nothing to do\n", 1},
		{`curl -fsSL -o /etc/yum.repos.d/docker-ce.repo https://mirrors.aliyun.com/docker-ce/linux/centos/docker-ce.repo && head -n 1 /etc/yum.repos.d/docker-ce.repo`, "[docker-ce-stable]\n", 0},
	} {
		out, status := run(t, h, c.script)
		if strings.Contains(c.out, "(PID)") {
			out = pidPattern(out)
		}
		assert.Equal(t, c.out, out, c.script)
		assert.Equal(t, c.status, status, c.script)
	}
	assert.Empty(t, h.Refused())
}

func pidPattern(s string) string {
	at, end := strings.Index(s, "("), strings.Index(s, ")")
	if at < 0 || end < at {
		return s
	}
	return s[:at] + "(PID" + s[end:]
}

// TestRefused holds that nothing unknown answers with success.
func TestRefused(t *testing.T) {
	h := start(t, spec(""))
	for script, status := range map[string]int{
		"awk 1":                    127,
		"ls -Z /":                  64,
		"docker ps":                64,
		"docker run x":             64,
		"systemctl isolate docker": 64,
		"yum update":               64,
		"stat -c %X /":             64,
		"ulimit -n":                64,
		"curl -fsSL -o f http://x": 6,
		"tr -s x":                  64,
		"declare -f":               64,
		"date":                     64,
		"kill -USR2 1":             64,
		"exec 3</dev/null":         1,
		"if then":                  2,
	} {
		before := len(h.Refused())
		out, got := run(t, h, script)
		assert.Equal(t, status, got, "%s: %s", script, out)
		assert.NotEmpty(t, out, script)
		assert.Greater(t, len(h.Refused()), before, script)
	}
}

// client logs in over a real connection.
func client(t *testing.T, h *host.Host, signer ssh.Signer) *ssh.Client {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	served := make(chan struct{})
	go func() {
		defer close(served)
		c, err := ln.Accept()
		if err == nil {
			h.ServeSSH(c)
		}
	}()
	hostKey, _, _, _, err := ssh.ParseAuthorizedKey([]byte(h.HostKey()))
	require.NoError(t, err)
	c, err := ssh.Dial("tcp", ln.Addr().String(), &ssh.ClientConfig{
		User: "root", Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.FixedHostKey(hostKey), Timeout: 10 * time.Second,
	})
	if err != nil {
		<-served
	}
	require.NoError(t, err)
	t.Cleanup(func() { c.Close(); <-served })
	return c
}

func execSSH(c *ssh.Client, cmd, stdin string) (string, error) {
	s, err := c.NewSession()
	if err != nil {
		return "", err
	}
	defer s.Close()
	s.Stdin = strings.NewReader(stdin)
	out, err := s.CombinedOutput(cmd)
	return string(out), err
}

func TestSSH(t *testing.T) {
	signer, authorized := key(t)
	h := start(t, spec(authorized))
	h.Forward = func(ctx context.Context, addr string) (net.Conn, error) {
		if addr != "172.31.0.90:8080" {
			return nil, errors.New("no route to host")
		}
		real, _ := h.Endpoint(8080)
		var d net.Dialer
		return d.DialContext(ctx, "tcp", real)
	}
	c := client(t, h, signer)

	out, err := execSSH(c, "/bin/sh -s", "echo hello; cat /proc/sys/kernel/osrelease\nexit 7\n")
	assert.Equal(t, "hello\n"+oldKernel+"\n", out)
	var exit *ssh.ExitError
	require.ErrorAs(t, err, &exit)
	assert.Equal(t, 7, exit.ExitStatus())

	out, err = execSSH(c, "cat", strings.Repeat("x", 300000))
	require.NoError(t, err)
	assert.Len(t, out, 300000)

	// A signal ends the command, and the client hears of the signal.
	s, err := c.NewSession()
	require.NoError(t, err)
	require.NoError(t, s.Start("sleep 1000"))
	require.NoError(t, s.Signal(ssh.SIGTERM))
	require.ErrorAs(t, s.Wait(), &exit)
	assert.Equal(t, "TERM", exit.Signal())

	// A job keeps the session only while it holds its output.
	_, err = execSSH(c, "sleep 100000 >/dev/null 2>&1 &", "")
	require.NoError(t, err)
	_, _, err = c.SendRequest("keepalive@openssh.com", true, nil)
	require.NoError(t, err)

	f, err := sftp.NewClient(c)
	require.NoError(t, err)
	defer f.Close()
	w, err := f.OpenFile("/srv/new", os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	require.NoError(t, err)
	_, err = w.ReadFrom(strings.NewReader("content"))
	require.NoError(t, err)
	require.NoError(t, w.Chmod(0o600))
	require.NoError(t, w.Close())
	_, err = f.OpenFile("/srv/new", os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	require.Error(t, err)
	_, err = f.Stat("/nothing")
	require.ErrorIs(t, err, os.ErrNotExist)
	i, err := f.Stat("/srv/new")
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), i.Mode())
	require.NoError(t, f.Chmod("/srv/new", 0o640))
	require.NoError(t, f.Chown("/srv/new", 1001, 1001))
	require.Error(t, f.Rename("/srv/new", "/srv/data.txt"))
	require.NoError(t, f.PosixRename("/srv/new", "/srv/data.txt"))
	target, err := f.ReadLink("/etc/nginx/link.conf")
	require.NoError(t, err)
	assert.Equal(t, "../redhat-release", target)
	data, err := h.ReadFile("/srv/data.txt")
	require.NoError(t, err)
	assert.Equal(t, "content", string(data))
	list, err := f.ReadDir("/srv")
	require.NoError(t, err)
	assert.Len(t, list, 3)

	hc := http.Client{Transport: &http.Transport{DialContext: func(_ context.Context, network, addr string) (net.Conn, error) { return c.Dial(network, addr) }, DisableKeepAlives: true}}
	resp, err := hc.Get("http://172.31.0.90:8080/x")
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	require.NoError(t, err)
	assert.JSONEq(t, `{"host":"web-90","addr":"172.31.0.90","port":8080,"service":"java","kernel":"`+oldKernel+`"}`, string(body))
	_, err = c.Dial("tcp", "10.0.0.1:1")
	require.ErrorContains(t, err, "no route to host")
	assert.Empty(t, h.Refused())
}

func TestWrongKeyIsRefused(t *testing.T) {
	_, authorized := key(t)
	wrong, _ := key(t)
	h := start(t, spec(authorized))
	a, b := pipe(t)
	go h.ServeSSH(b)
	_, _, _, err := ssh.NewClientConn(a, "", &ssh.ClientConfig{User: "root", Auth: []ssh.AuthMethod{ssh.PublicKeys(wrong)}, HostKeyCallback: ssh.InsecureIgnoreHostKey()})
	require.ErrorContains(t, err, "unable to authenticate")
}

// pipe is a buffered pair of connections.
func pipe(t *testing.T) (net.Conn, net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	a, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	b, err := ln.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// TestUpdateAndReboot: a new kernel runs only after a reboot, which drops
// connections and changes the boot id.
func TestUpdateAndReboot(t *testing.T) {
	signer, authorized := key(t)
	h := start(t, spec(authorized))
	c := client(t, h, signer)
	boot := h.BootID()
	out, status := run(t, h, "yum -y update; uname -r; cat /etc/redhat-release; rpm -q kernel")
	require.Equal(t, 0, status)
	assert.Contains(t, out, oldKernel+"\n"+newRelease+"\n")
	assert.Contains(t, out, "kernel-3.10.0-1160.6.1.el7.x86_64\n")
	assert.Contains(t, out, "kernel-3.10.0-862.9.1.el7.x86_64\n")

	require.NoError(t, h.WriteFile("/run/gone", []byte("x"), 0o644))
	_, _ = execSSH(c, "shutdown -r now", "") // the host may be faster than its answer
	require.Error(t, c.Wait())
	require.Eventually(t, func() bool { return h.Up() && h.BootID() != boot && h.Kernel() == newKernel }, 10*time.Second, 5*time.Millisecond)
	_, err := h.ReadFile("/run/gone")
	require.ErrorIs(t, err, os.ErrNotExist)
	require.Eventually(t, func() bool {
		_, shop := h.Endpoint(8081)
		_, cache := h.Endpoint(8082)
		return shop && cache
	}, 10*time.Second, 5*time.Millisecond, "the daemon brings containers back")
	_, ok := h.Endpoint(8080)
	assert.False(t, ok, "a Java process started by hand is lost")
	out, _ = run(t, h, "docker ps -a --no-trunc --format '{{.Names}} {{.State}}'; systemctl is-active sshd; yum -y update")
	assert.Contains(t, out, "shop_web_1 running\nold created\ncache running\nactive\n")
	assert.Contains(t, out, "No packages marked for update")
	assert.Empty(t, h.Refused())
}

// TestKilledYum leaves the transaction open; the next run ends it.
func TestKilledYum(t *testing.T) {
	s := spec("")
	h, err := host.New(s, host.Options{Speed: 20})
	require.NoError(t, err)
	t.Cleanup(h.Close)
	require.NoError(t, h.Start())
	_, status := run(t, h, `yum -y update & p=$!; until [ -e /var/lib/yum/transaction-all.simulated ]; do sleep 1; done; kill -KILL $p; wait $p; [ -e /var/lib/yum/transaction-all.simulated ]`)
	assert.Equal(t, 0, status)
	out, status := run(t, h, `yum -y update && [ ! -e /var/lib/yum/transaction-all.simulated ]`)
	assert.Equal(t, 0, status)
	assert.Contains(t, out, "unfinished transactions")
}

// TestClone: a clone has the files, and an identity of its own.
func TestClone(t *testing.T) {
	h := start(t, spec(""))
	run(t, h, "echo kept >/srv/kept; echo volatile >/run/volatile; docker stop old; docker stop cache")
	d := h.Freeze()
	run(t, h, "echo later >/srv/kept")
	c, err := host.FromDisk(d, host.Spec{Name: "web-90-transition", Addr: "172.31.0.91"}, host.Options{Speed: 500})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	assert.False(t, c.Up())
	require.NoError(t, c.Start())
	assert.NotEqual(t, h.HostKey(), c.HostKey())
	assert.NotEqual(t, h.BootID(), c.BootID())
	out, status := run(t, c, "cat /srv/kept; hostname; cat /etc/hostname; cat /run/volatile 2>/dev/null; docker ps -a --no-trunc --format '{{.Names}} {{.State}}'; uname -r; cat /etc/ssh/ssh_host_ed25519_key.pub")
	assert.Equal(t, 0, status)
	assert.Equal(t, "kept\nweb-90-transition\nweb-90-transition\nshop_web_1 running\nold created\ncache exited\n"+oldKernel+"\n"+c.HostKey()+" root@web-90-transition\n", out)
	assert.NotContains(t, c.Listening(), 8080, "processes are not on a disk")
	require.NoError(t, c.Stop())
	_, _, err = c.Run(t.Context(), "true")
	require.ErrorContains(t, err, "off")
}

// TestDockerUpgrade follows runbook 3.5.
func TestDockerUpgrade(t *testing.T) {
	h := start(t, spec(""))
	script := `set -e
systemctl stop docker
curl -fsSL -o /etc/yum.repos.d/docker-ce.repo https://mirrors.aliyun.com/docker-ce/linux/centos/docker-ce.repo
yum -y remove docker docker-client docker-common
command -v docker || echo gone
yum -y install docker-ce
systemctl enable docker`
	out, status := run(t, h, script)
	require.Equal(t, 0, status, out)
	assert.Contains(t, out, "gone\n")
	require.NoError(t, h.WriteFile("/etc/docker/daemon.json", []byte("{broken"), 0o644))
	out, status = run(t, h, "systemctl start docker")
	assert.Equal(t, 1, status)
	assert.Contains(t, out, "Job for docker.service failed")
	out, _ = run(t, h, "systemctl is-active docker; docker ps -aq --no-trunc")
	assert.Equal(t, "failed\nCannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?\n", out)
	require.NoError(t, h.WriteFile("/etc/docker/daemon.json", []byte(`{"debug": false}`), 0o644))
	out, status = run(t, h, "systemctl start docker; docker version --format '{{.Server.Version}}'; cd /srv/shop; docker-compose down; docker-compose up -d; docker-compose ps -q | wc -l; stat -c '%a %G' /var/run/docker.sock; su -s /bin/sh app -c 'docker ps -aq'")
	assert.Equal(t, 1, status)
	assert.Equal(t, "20.10.24\nStopping shop_web_1 ... done\nRemoving shop_web_1 ... done\nCreating shop_web_1 ... done\nStarting shop_web_1 ... done\n1\n660 docker\nGot permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock\n", out)
	assert.Eventually(t, func() bool { return get(h, 8081, "/health") == 200 }, 5*time.Second, 5*time.Millisecond)
	assert.Empty(t, h.Refused())
}

// get answers with the HTTP status, 0 when nothing listens.
func get(h *host.Host, port int, path string) int {
	addr, ok := h.Endpoint(port)
	if !ok {
		return 0
	}
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	resp, err := c.Get("http://" + addr + path)
	if err != nil {
		return -1
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// TestJava: a process that ends gracefully finishes its requests, one that is
// killed cuts them, and a script starts it again.
func TestJava(t *testing.T) {
	h := start(t, spec(""))
	assert.Equal(t, 200, get(h, 8080, "/health"))
	pid := "for p in /proc/[0-9]*; do read -r c <$p/comm; [ \"$c\" = java ] && [ $(stat -c %U $p) = app ] && echo ${p#/proc/}; done; true"
	old, _ := run(t, h, pid)
	addr, _ := h.Endpoint(8080)
	resp, err := http.Get("http://" + addr + "/stream?seconds=0.5")
	require.NoError(t, err)
	defer resp.Body.Close()
	run(t, h, "kill "+strings.TrimSpace(old))
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err, "an open request ends")
	assert.True(t, bytes.HasSuffix(body, []byte("end\n")))
	http.DefaultClient.CloseIdleConnections()
	require.Eventually(t, func() bool { _, status := run(t, h, "kill -0 "+strings.TrimSpace(old)); return status == 1 }, 5*time.Second, 5*time.Millisecond)
	assert.Equal(t, 0, get(h, 8080, "/"))

	// In the runbook's way: in its directory, as its user, detached.
	_, status := run(t, h, `su -s /bin/sh app -c 'cd /srv/order && setsid ./start.sh >/dev/null 2>&1 </dev/null &'`)
	require.Equal(t, 0, status)
	require.Eventually(t, func() bool { return get(h, 8080, "/health") == 200 }, 10*time.Second, time.Millisecond)
	now, _ := run(t, h, pid)
	assert.NotEqual(t, old, now)
	out, status := run(t, h, `p=$(cat /srv/order/order.pid); tr '\000' ' ' </proc/$p/cmdline; echo; readlink /proc/$p/cwd; readlink /proc/$p/exe; stat -c %U /proc/$p; kill -KILL $p; grep Starting /srv/order/log`)
	assert.Equal(t, 0, status)
	assert.Equal(t, "java -Xmx64m -jar order.jar --server.port=8080 \n/srv/order\n/usr/bin/java\napp\nStarting order on web-90 with PID "+strings.TrimSpace(now)+"\n", out)
	require.Eventually(t, func() bool { return get(h, 8080, "/") == 0 }, 5*time.Second, 5*time.Millisecond)
	assert.Empty(t, h.Refused())
}

// TestSystemdRun: a detached unit outlives its session, and leaves no trace
// unless it fails: that, an old systemd cannot help.
func TestSystemdRun(t *testing.T) {
	for release, collect := range map[string]string{"CentOS Linux release 7.5.1804 (Core)": "", "Alibaba Cloud Linux release 3 (OpenAnolis Edition)": "--collect "} {
		s := spec("")
		s.Release = release
		h := start(t, s)
		job := "systemd-run --unit=up1 " + collect + "/bin/sh /srv/job"
		out, status := run(t, h, `echo 'until [ -e /srv/go ]; do sleep 10; done; echo done >/srv/done' >/srv/job; `+job+`; systemctl is-active up1; `+job)
		assert.Equal(t, 1, status)
		run(t, h, "touch /srv/go")
		assert.Equal(t, "Running as unit: up1.service\nactive\nFailed to start transient service unit: Unit up1.service already exists.\n", out)
		require.Eventually(t, func() bool {
			out, _ := run(t, h, "systemctl is-active up1; cat /srv/done")
			return out == "inactive\ndone\n"
		}, 10*time.Second, 10*time.Millisecond)

		ended := map[string]string{"": "failed\n", "--collect ": "inactive\n"}[collect]
		_, status = run(t, h, `echo 'rm /srv/done; exit 7' >/srv/job; `+job)
		assert.Equal(t, 0, status)
		require.Eventually(t, func() bool {
			out, _ := run(t, h, "[ -e /srv/done ] || systemctl is-active up1")
			return out == ended
		}, 10*time.Second, 10*time.Millisecond)

		out, status = run(t, h, "systemctl reset-failed up1; systemctl is-active up1; "+job)
		assert.Equal(t, 0, status)
		if collect == "" {
			assert.Equal(t, "inactive\nRunning as unit: up1.service\n", out, "its name is free again")
		}

		out, status = run(t, h, "systemd-run --help | grep -c -- --collect")
		assert.Equal(t, map[string]string{"": "0\n", "--collect ": "1\n"}[collect], out, status)
		if collect == "" {
			out, status = run(t, h, "systemd-run --unit=up2 --collect /bin/sh /srv/job")
			assert.Equal(t, 1, status)
			assert.Equal(t, "systemd-run: unrecognized option '--collect'\n", out)
		}
		assert.Empty(t, h.Refused())
	}
}

// TestConnections parses the kernel's table back.
func TestConnections(t *testing.T) {
	slow, err := host.New(spec(""), host.Options{}) // its TIME_WAIT is a minute
	require.NoError(t, err)
	t.Cleanup(slow.Close)
	require.NoError(t, slow.Start())
	for _, h := range []*host.Host{slow, start(t, spec(""))} {
		testConnections(t, h, h == slow)
	}
}

func testConnections(t *testing.T, h *host.Host, slow bool) {
	done := h.Track(host.Conn{LocalIP: "172.31.0.90", LocalPort: 8080, RemoteIP: "172.31.0.5", RemotePort: 40000})
	find := func(file, want string) bool {
		data, err := h.ReadFile(file)
		require.NoError(t, err)
		return strings.Contains(string(data), want)
	}
	const pair = "0000000000000000FFFF00005A001FAC:1F90 0000000000000000FFFF000005001FAC:9C40 "
	assert.True(t, find("/proc/net/tcp6", ": "+pair+"01 "))
	assert.True(t, find("/proc/net/tcp", "   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 "))
	assert.True(t, find("/proc/net/tcp6", "00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A "))
	done()
	if slow {
		assert.True(t, find("/proc/net/tcp6", ": "+pair+"06 "))
		return
	}
	require.Eventually(t, func() bool { return !find("/proc/net/tcp6", pair) }, 5*time.Second, 5*time.Millisecond)
	data, err := h.ReadFile("/proc/net/tcp")
	require.NoError(t, err)
	for line := range strings.Lines(string(data)) {
		assert.Len(t, line, 150)
	}
	out, _ := run(t, h, `for p in /proc/[0-9]*; do [ "$(cat $p/comm)" = java ] && ls -l $p/fd; done 2>/dev/null | grep -c socket`)
	assert.Equal(t, "1\n", out)
}

// TestUnits: a daemon that belongs to a program outside this package.
func TestUnits(t *testing.T) {
	s := spec("")
	gone := make(chan struct{}, 2)
	s.Commands = map[string]host.Command{"webd": func(_ context.Context, p *host.Proc) int {
		_, err := p.Spawn(host.Process{Title: "webd: master process", Ports: []int{80}, Handler: http.NotFoundHandler(), OnExit: func() { gone <- struct{}{} }})
		if err != nil {
			fmt.Fprintln(p.Stderr, err)
			return 1
		}
		return 0
	}}
	s.Units = []host.Unit{{Name: "webd", Enabled: true, Forking: true, Start: "webd"}}
	h := start(t, s)
	assert.Equal(t, 404, get(h, 80, "/"))
	out, status := run(t, h, "systemctl is-active webd; webd")
	assert.Equal(t, 1, status)
	assert.Equal(t, "active\ncannot listen on port 80 of web-90: address already in use\n", out)
	run(t, h, "systemctl stop webd")
	<-gone
	_, ok := h.Endpoint(80)
	assert.False(t, ok)
	require.NoError(t, h.Reboot())
	assert.Equal(t, 404, get(h, 80, "/"))
}

// TestWarmup: a Java process listens late and answers 503 first.
func TestWarmup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(memnet.Network)
		h, err := host.New(spec(""), host.Options{Listen: n.Listen})
		require.NoError(t, err)
		defer h.Close()
		require.NoError(t, h.Start())
		began := time.Now()
		run(t, h, "cd /srv/order; nohup java -jar order.jar --server.port=9000 >/dev/null 2>&1 &")
		tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) { return n.Dial(ctx, addr) }}
		for _, c := range []struct {
			at   time.Duration
			want int
		}{{4 * time.Second, 0}, {6 * time.Second, 503}, {9 * time.Second, 200}} {
			<-time.After(time.Until(began.Add(c.at)))
			addr, listens := h.Endpoint(9000)
			if require.Equal(t, c.want != 0, listens, c.at); !listens {
				continue
			}
			resp, err := (&http.Client{Transport: tr}).Get("http://" + addr + "/health")
			require.NoError(t, err)
			resp.Body.Close()
			assert.Equal(t, c.want, resp.StatusCode, c.at)
		}
	})
}

// sshHost is a host for the packages that need one, over a real connection.
type sshHost struct{ c *ssh.Client }

func (s sshHost) Run(ctx context.Context, cmd string, stdin io.Reader, stdout, stderr io.Writer) error {
	session, err := s.c.NewSession()
	if err != nil {
		return err
	}
	defer session.Close()
	defer context.AfterFunc(ctx, func() { session.Close() })()
	session.Stdin, session.Stdout, session.Stderr = stdin, stdout, stderr
	return session.Run(cmd)
}

// TestInventory runs the collector that real hosts get.
func TestInventory(t *testing.T) {
	signer, authorized := key(t)
	h := start(t, spec(authorized))
	before := sshHost{client(t, h, signer)}
	inv, err := hostinv.Collect(t.Context(), before, hostinv.Options{})
	require.NoError(t, err)
	for name, s := range inv.Sections {
		want := hostinv.StatusOK
		if name == hostinv.SectionSupervisor || name == hostinv.SectionNginx { // not on this host
			want = hostinv.StatusAbsent
		}
		assert.Equal(t, want, s.Status, "%s: %+v", name, s)
	}
	assert.Equal(t, oldKernel, inv.Kernel)
	assert.Equal(t, h.BootID(), inv.BootID)
	require.Len(t, inv.Java, 1)
	assert.Equal(t, "/srv/order", inv.Java[0].Cwd)
	assert.Equal(t, "app", inv.Java[0].User)
	assert.Equal(t, []int{8080}, inv.Java[0].Ports)
	require.Len(t, inv.Containers, 3)
	id, err := hostinv.ReadBootID(t.Context(), before)
	require.NoError(t, err)
	assert.Equal(t, h.BootID(), id)
	defer h.Track(host.Conn{LocalIP: "172.31.0.90", LocalPort: 8080, RemoteIP: "172.31.0.5", RemotePort: 40000})()
	conns, err := hostinv.ListConnections(t.Context(), before)
	require.NoError(t, err)
	assert.Equal(t, []hostinv.Connection{{LocalIP: "172.31.0.90", LocalPort: 8080, RemoteIP: "172.31.0.5", RemotePort: 40000, State: conns[0].State}}, conns)

	// A published port shows in its container's namespace alone.
	defer h.Track(host.Conn{LocalIP: "172.31.0.90", LocalPort: 8082, RemoteIP: "100.64.0.10", RemotePort: 40001})()
	conns, err = hostinv.ListConnections(t.Context(), before)
	require.NoError(t, err)
	assert.Len(t, conns, 1)
	i := slices.IndexFunc(inv.Containers, func(c hostinv.Container) bool { return c.Name == "cache" })
	conns, err = hostinv.ListConnections(t.Context(), before, inv.Containers[i].PID)
	require.NoError(t, err)
	require.Len(t, conns, 2)
	assert.Equal(t, hostinv.Connection{LocalIP: "172.17.0.2", LocalPort: 6379, RemoteIP: "100.64.0.10", RemotePort: 40001, State: "ESTABLISHED", PID: inv.Containers[i].PID}, conns[1])
	assert.Empty(t, h.Refused())
}
