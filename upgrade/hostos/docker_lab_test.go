package hostos

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/internal/lab"
	"github.com/upgradectl/upgradectl/internal/testenv"
)

// labDocker is a host of the lab with a real engine, and the way to log in.
type labDocker struct {
	*hostinv.Conn
	host *lab.Host
	t    *testing.T
}

func newLabDocker(t *testing.T, script string) labDocker {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	signer, err := ssh.NewSignerFromKey(private)
	require.NoError(t, err)
	block, err := ssh.MarshalPrivateKey(private, "")
	require.NoError(t, err)
	id := filepath.Join(t.TempDir(), "id")
	require.NoError(t, os.WriteFile(id, pem.EncodeToMemory(block), 0o600))
	h, err := lab.New(t).Add(t.Context(), "i-1", "web-90", "172.31.0.90", strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))), lab.Setup{
		Kernel: "3.10.0-862.el7.x86_64", Docker: true, Enable: []string{"docker.service", "docker.socket", "containerd.service"},
	})
	require.NoError(t, err)
	require.NoError(t, h.WaitReady(t.Context()))
	_, err = h.Must(t.Context(), script)
	require.NoError(t, err)
	key, err := h.Must(t.Context(), "cat /etc/ssh/ssh_host_ed25519_key.pub")
	require.NoError(t, err)
	d, err := hostinv.NewDialer(hostinv.SSHConfig{User: "root", Identities: []string{id}, KnownHosts: []string{}})
	require.NoError(t, err)
	require.NoError(t, d.Pin("172.31.0.90", []string{strings.TrimSpace(key)}))
	c, err := d.Dial(t.Context(), "172.31.0.90")
	require.NoError(t, err)
	t.Cleanup(func() { c.Close(); assert.NoError(t, d.Close()) })
	return labDocker{c, h, t}
}

// say runs a command on the host that has to succeed.
func (l labDocker) say(cmd string) string {
	l.t.Helper()
	out, err := l.host.Must(l.t.Context(), cmd)
	require.NoError(l.t, err, "%s: %s", cmd, out)
	return out
}

// labContainers makes images of busybox and brings up what a host has: a
// project of its owner's with a replica and a service that a person has
// stopped, a container with a restart policy, one without, and one that ended.
const labContainers = `useradd -m app
usermod -p '*' app
mkdir -p /srv/image /srv/shop /srv/data
cp /bin/busybox /srv/image
tar -c -C /srv/image . | docker import -c 'ENTRYPOINT ["/busybox"]' - registry.internal/web:1.4
cat >/srv/shop/docker-compose.yml <<'END'
version: "2.4"
services:
  web:
    image: registry.internal/web:1.4
    command: sleep 1000
    restart: unless-stopped
    stop_signal: KILL
    environment: {DB_PASSWORD: hunter2}
    depends_on: [idle]
  idle:
    image: registry.internal/web:1.4
    command: sleep 1000
    stop_signal: KILL
END
chown -R app /srv/shop
cd /srv/shop
docker-compose up -d --scale web=2
docker stop shop_idle_1
docker run -d --stop-signal=KILL --restart=always --name cache -v /srv/data:/data:ro -p 8082:80 registry.internal/web:1.4 httpd -f -p 80
docker run -d --stop-signal=KILL --name lone registry.internal/web:1.4 sleep 1000
docker run --name once registry.internal/web:1.4 sh -c 'exec 1>&2; while :; do n=$((n+1)); echo 0123456789abcdef0123456789abcdef; [ "$n" != 3000 ] || exit 0; done' 2>/dev/null`

// installedEngine is the engine that the machine has: nothing is fetched.
func installedEngine(d *Docker) DockerOptions {
	o := DockerOptions{Package: "docker.io"}
	for _, p := range d.Packages {
		if v, ok := strings.CutPrefix(p, "docker.io="); ok {
			o.Version = v
		}
	}
	return o
}

// replace runs the whole of a replacement.
func (l labDocker) replace(key string, before *Docker, o DockerOptions) (*Docker, error) {
	l.t.Helper()
	ctx := l.t.Context()
	now, err := GetDocker(ctx, l)
	require.NoError(l.t, err)
	p, err := PlanDocker(now, before, o)
	require.NoError(l.t, err)
	l.t.Log(strings.Join(p.Lines(), "\n"))
	script, err := p.Script(key)
	require.NoError(l.t, err)
	res, err := UpgradeDocker(ctx, l, key, script, 100*time.Millisecond)
	require.NoError(l.t, err)
	require.NoError(l.t, res.Check(p))
	if now, err = StartDocker(ctx, l, key, before, o.ChmodSocket); err != nil {
		return nil, err
	}
	soon, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	return StartContainers(soon, l, before, now, o, 100*time.Millisecond)
}

// TestLabDockerComponent holds the Docker component against a real engine
// under a real systemd: what it reads, the runbook's own daemon.json with which
// no container starts on this machine, a daemon that does not start, and the
// containers that come back.
func TestLabDockerComponent(t *testing.T) {
	testenv.Lab(t)
	for _, program := range []string{"dockerd", "docker", "docker-compose", "busybox", "sshd"} {
		testenv.Need(t, program)
	}
	if !lab.Isolated(t) {
		return
	}
	l := newLabDocker(t, labContainers)
	ctx := t.Context()
	began := time.Now()
	before, err := GetDocker(ctx, l)
	require.NoError(t, err)
	t.Logf("GetDocker took %v", time.Since(began))
	assert.Equal(t, "apt", before.Manager)
	assert.Equal(t, "overlay2", before.StorageDriver)
	assert.Equal(t, "/var/lib/docker", before.DataRoot)
	assert.Equal(t, "enabled", before.Enabled)
	assert.Equal(t, "active", before.Active)
	assert.Empty(t, before.DaemonSHA256)
	assert.True(t, before.ComposeV1)
	assert.Equal(t, []string{"cache", "lone", "shop_web_1", "shop_web_2"}, before.Running())
	assert.Equal(t, []ComposeProject{{Name: "shop", Dir: "/srv/shop", Files: []string{"docker-compose.yml"}, User: "app"}}, before.Projects)
	cache, _ := before.container("cache")
	assert.Equal(t, []string{"80/tcp :8082"}, cache.Ports)
	assert.Equal(t, []string{"bind /srv/data /data ro"}, cache.Mounts)
	assert.Equal(t, "always", cache.Restart)
	most := before.Limits["nofile"]
	assert.Positive(t, most)
	ids := l.say("docker ps -aq --no-trunc | sort")

	o := installedEngine(before)
	o.ChmodSocket = true // user app is not in the group docker
	require.NotEmpty(t, o.Version, before.Packages)

	t.Run("no container starts", func(t *testing.T) {
		l := labDocker{l.Conn, l.host, t}
		if most < 0 || most >= 1024000 {
			t.Skipf("this machine allows %d open files: the runbook's daemon.json works on it", most)
		}
		o := o
		o.Uncapped = true
		_, err := l.replace("k-uncapped", before, o)
		var none *ContainerStartError
		require.ErrorAs(t, err, &none)
		t.Log(err)
		assert.Contains(t, []string{"nofile", "nproc"}, none.Limit, "which of them is tried first is the runtime's choice")
		assert.Contains(t, none.TooHigh, fmt.Sprintf("nofile 1024000 > %d", most))
		assert.Contains(t, none.Message, "rlimit")
		assert.Contains(t, err.Error(), "the daemon.json from before is back in place, docker is active with it")
		assert.Equal(t, "absent", strings.TrimSpace(l.say("[ -e /etc/docker/daemon.json ] || echo absent")))
		assert.Equal(t, ids, l.say("docker ps -aq --no-trunc | sort"), "nothing is left of the probe")
	})
	t.Run("the daemon does not start", func(t *testing.T) {
		l := labDocker{l.Conn, l.host, t}
		o := o
		o.Profile = []byte(`{"no-such-setting": 1}`)
		_, err := l.replace("k-broken", before, o)
		require.ErrorIs(t, err, ErrDaemon)
		t.Log(err)
		assert.Contains(t, err.Error(), "no-such-setting")
		assert.Contains(t, err.Error(), "docker is active with it")
		assert.Equal(t, "absent", strings.TrimSpace(l.say("[ -e /etc/docker/daemon.json ] || echo absent")))
	})
	t.Run("capped", func(t *testing.T) {
		l := labDocker{l.Conn, l.host, t}
		now, err := l.replace("k-capped", before, o)
		require.NoError(t, err)
		assert.Empty(t, CompareContainers(before, now))
		assert.Equal(t, before.Running(), now.Running(), "the one that a person had stopped stays stopped")
		assert.Equal(t, ids, l.say("docker ps -aq --no-trunc | sort"), "none was made anew")
		assert.Equal(t, "enabled\nactive\n", l.say("systemctl is-enabled docker; systemctl is-active docker"))
		assert.Equal(t, "666\n", l.say("stat -L -c %a /var/run/docker.sock"))
		assert.NotContains(t, l.say("docker images --format '{{.Repository}}'"), "probe")
		assert.Equal(t, "20\n", l.say("jq '.[\"max-concurrent-downloads\"]' /etc/docker/daemon.json"))
		p, err := PlanDocker(now, before, o)
		require.NoError(t, err)
		assert.Equal(t, p.Config.OldSum, p.Config.NewSum, "nothing is left to merge")
	})
	t.Run("lost containers", func(t *testing.T) {
		l := labDocker{l.Conn, l.host, t}
		l.say("docker stop cache lone; docker rm -f shop_web_2; docker stop shop_web_1")
		soon, cancel := context.WithTimeout(ctx, 5*time.Minute)
		defer cancel()
		now, err := StartContainers(soon, l, before, nil, o, 100*time.Millisecond)
		require.NoError(t, err)
		assert.Equal(t, before.Running(), now.Running())
		again, _ := now.container("shop_web_1")
		was, _ := before.container("shop_web_1")
		assert.Equal(t, was.ID, again.ID, "not made anew")
		l.say("docker rm -f lone")
		_, err = StartContainers(soon, l, before, nil, o, 100*time.Millisecond)
		require.ErrorContains(t, err, "lone")
		t.Log(err)
		for lines, most := range map[int]int{10: 1 << 10, 1000000: maxLogBytes} {
			logs, err := GetContainerLogs(ctx, l, []string{"cache", "once"}, lines)
			require.NoError(t, err)
			rest, ok := strings.CutPrefix(string(logs), "== cache\n== once\n")
			assert.True(t, ok, "%.100s", logs)
			assert.LessOrEqual(t, len(rest), most)
			assert.Contains(t, rest, "Z 0123456789abcdef0123456789abcdef\n", "with the time")
			assert.Equal(t, lines == 10, strings.Count(rest, "\n") == 10)
		}
	})
	// down is only for those who ask: what was written into a container is lost.
	t.Run("down", func(t *testing.T) {
		l := labDocker{l.Conn, l.host, t}
		l.say("docker exec shop_web_1 /busybox touch /written; docker stop shop_web_2")
		was, err := GetDocker(ctx, l)
		require.NoError(t, err)
		for i := range was.Containers {
			if was.Containers[i].Name == "shop_web_2" {
				was.Containers[i].State = "running" // as it did before
			}
		}
		written := "docker exec shop_web_1 /busybox ls /written >/dev/null 2>&1 && echo there || echo lost"
		soon, cancel := context.WithTimeout(ctx, 5*time.Minute)
		defer cancel()
		require.Equal(t, "there\n", l.say(written))
		o := o
		o.Down = true
		now, err := StartContainers(soon, l, was, nil, o, 100*time.Millisecond)
		require.NoError(t, err)
		assert.Equal(t, was.Running(), now.Running())
		assert.Equal(t, "lost\n", l.say(written))
		web, _ := was.container("shop_web_1")
		again, _ := now.container("shop_web_1")
		assert.NotEqual(t, web.ID, again.ID)
		cache, _ := was.container("cache")
		same, _ := now.container("cache")
		assert.Equal(t, cache.ID, same.ID, "no project's")
	})
}
