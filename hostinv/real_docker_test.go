//go:build linux

package hostinv_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/internal/testenv"
)

// engine is a Docker daemon in network and mount namespaces of its own, so
// that neither its firewall rules nor its files reach this machine.
type engine struct {
	t      *testing.T
	pid    int
	socket string
	client string
}

func startDocker(t *testing.T) *engine {
	testenv.Slow(t) // the daemon and its containers take seconds
	daemon, client := testenv.Need(t, "dockerd"), testenv.Need(t, "docker")
	if os.Getuid() != 0 {
		t.Skip("a Docker daemon needs root")
	}
	dir := t.TempDir()
	e := &engine{t: t, client: client, socket: filepath.Join(dir, "docker.sock")}
	script := fmt.Sprintf("ip link set lo up && mkdir -p /run/docker && mount -t tmpfs none /run/docker && exec %s "+
		"--data-root %s/data --exec-root %s/exec -p %s/pid -H unix://%s --default-ulimit nofile=1024:1024", daemon, dir, dir, dir, e.socket)
	cmd := exec.Command(testenv.Need(t, "unshare"), "-n", "-m", "--propagation", "private", "/bin/sh", "-c", script)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	require.NoError(t, cmd.Start())
	e.pid = cmd.Process.Pid // unshare and the shell have become the daemon
	exited := make(chan struct{})
	go func() { cmd.Wait(); close(exited) }()
	t.Cleanup(func() {
		// The containers first: the daemon would wait for each.
		if ids, err := e.try("ps", "-aq"); err == nil && ids != "" {
			e.try(append([]string{"rm", "-f"}, strings.Fields(ids)...)...)
		}
		cmd.Process.Signal(syscall.SIGTERM)
		<-exited
		if t.Failed() {
			t.Log(lastLine(log.String()))
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := e.try("version"); err == nil {
			return e
		}
		select {
		case <-exited:
			if testenv.Required("dockerd") {
				t.Fatalf("the Docker daemon does not run on this machine: %s", lastLine(log.String()))
			}
			t.Skipf("the Docker daemon does not run on this machine: %s", lastLine(log.String()))
		case <-ctx.Done():
			t.Fatalf("the Docker daemon does not answer: %s", log.String())
		case <-tick.C:
		}
	}
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}

func (e *engine) try(args ...string) (string, error) {
	cmd := exec.Command(e.client, args...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+e.socket)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (e *engine) docker(args ...string) string {
	e.t.Helper()
	out, err := e.try(args...)
	require.NoError(e.t, err, "docker %s: %s", args, out)
	return out
}

// host is a host that has the engine: its namespaces, its socket.
func (e *engine) host() machine {
	return machine{
		shell: []string{"nsenter", "-t", fmt.Sprint(e.pid), "-n", "-m", "/bin/sh", "-s"},
		env:   []string{"DOCKER_HOST=unix://" + e.socket},
	}
}

// importImage makes an image that holds nothing but busybox.
func (e *engine) importImage(name string) {
	root := e.t.TempDir()
	require.NoError(e.t, os.Mkdir(filepath.Join(root, "bin"), 0o755))
	data, err := os.ReadFile(testenv.Need(e.t, "busybox"))
	require.NoError(e.t, err)
	for _, n := range []string{"busybox", "sh", "httpd", "sleep"} {
		require.NoError(e.t, os.WriteFile(filepath.Join(root, "bin", n), data, 0o755))
	}
	tar := filepath.Join(e.t.TempDir(), "image.tar")
	out, err := exec.Command("tar", "-C", root, "-cf", tar, ".").CombinedOutput()
	require.NoError(e.t, err, string(out))
	e.docker("import", tar, name)
}

// TestRealDocker holds the collector against a real engine: published ports,
// restart policies, compose labels, mounts, health, environment that must not
// be seen, a container that has exited, and the loss of one.
func TestRealDocker(t *testing.T) {
	e := startDocker(t)
	e.importImage("registry.internal/web:1.2")
	before, err := hostinv.Collect(t.Context(), e.host(), hostinv.Options{})
	require.NoError(t, err)
	assert.Empty(t, before.Containers, "none is none, not unknown")
	assert.Equal(t, hostinv.StatusOK, before.Sections[hostinv.SectionContainers].Status, before.Sections[hostinv.SectionContainers].Message)

	data := t.TempDir()
	e.docker("run", "-d", "--name", "shop_web_1", "--restart", "always", "-p", "8099:80", "-p", "127.0.0.1:8098:81/udp",
		"-v", data+":/data:ro", "-e", "DB_PASSWORD=hunter2", "-l", "com.docker.compose.project=shop", "-l", "com.docker.compose.service=web",
		"-l", "com.docker.compose.container-number=1", "-l", "com.docker.compose.project.working_dir=/srv/shop",
		"-l", "com.docker.compose.project.config_files=docker-compose.yml", "-l", "note=it's \"quoted\"\nand goes on, a=b",
		"registry.internal/web:1.2", "/bin/httpd", "-f", "-p", "80")
	e.docker("run", "-d", "--name", "well", "--health-cmd", "true", "--health-interval", "1s", "registry.internal/web:1.2", "/bin/sleep", "1000")
	_, err = e.try("run", "--name", "once", "registry.internal/web:1.2", "/bin/sh", "-c", "exit 3; :")
	require.Error(t, err, "it exits with 3")

	inv, err := hostinv.Collect(t.Context(), e.host(), hostinv.Options{})
	require.NoError(t, err)
	byName := map[string]hostinv.Container{}
	for _, c := range inv.Containers {
		byName[c.Name] = c
	}
	require.Len(t, byName, 3, "%+v", inv.Sections[hostinv.SectionContainers])
	web := byName["shop_web_1"]
	assert.Equal(t, e.docker("inspect", "-f", "{{.Id}}", "shop_web_1"), web.ID)
	assert.Equal(t, e.docker("inspect", "-f", "{{.Image}}", "shop_web_1"), web.ImageID)
	assert.Equal(t, "registry.internal/web:1.2", web.Image)
	assert.Equal(t, "running", web.State)
	assert.Equal(t, "always", web.RestartPolicy)
	assert.Equal(t, "shop", web.Compose.Project)
	assert.Equal(t, "/srv/shop", web.Compose.Dir)
	assert.Contains(t, web.Ports, hostinv.Port{Proto: "tcp", ContainerPort: 80, HostPort: 8099, HostIP: "0.0.0.0"})
	assert.Contains(t, web.Ports, hostinv.Port{Proto: "udp", ContainerPort: 81, HostPort: 8098, HostIP: "127.0.0.1"})
	assert.Equal(t, "exited", byName["once"].State)
	assert.Equal(t, 3, byName["once"].ExitCode)
	assert.NotEmpty(t, byName["well"].Health)
	found := false
	for _, l := range inv.Listeners {
		found = found || l.Proto == "tcp" && l.Port == 8099
	}
	assert.True(t, found, "the port that docker-proxy holds is a listener")
	assert.NotContains(t, fmt.Sprintf("%+v", inv), "hunter2")

	e.docker("rm", "-f", "shop_web_1")
	after, err := hostinv.Collect(t.Context(), e.host(), hostinv.Options{})
	require.NoError(t, err)
	areas := map[string]bool{}
	for _, f := range hostinv.Diff(inv, after, hostinv.Expect{}).Losses() {
		areas[f.Area] = true
	}
	assert.True(t, areas[hostinv.SectionContainers], "a container that is gone is a loss")
}
