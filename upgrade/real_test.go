package upgrade_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"github.com/upgradectl/upgradectl/internal/lab"
	"github.com/upgradectl/upgradectl/internal/sim/cloud"
	"github.com/upgradectl/upgradectl/internal/sim/traffic"
	"github.com/upgradectl/upgradectl/internal/testenv"
	"github.com/upgradectl/upgradectl/upgrade"
)

// The same procedure as in transition_test.go, but nothing is simulated save
// the cloud: OpenSSH servers, nginx with Debian's packaged files, real TCP,
// the program itself as a process of its own that is killed and resumed.

func TestMain(m *testing.M) {
	lab.Main()
	os.Exit(m.Run())
}

const (
	realProd   = "172.31.0.90"
	realOther  = "172.31.0.88"
	realProxyA = "172.31.0.5"
	realProxyB = "172.31.0.6"
	realCLB    = "172.31.0.20"

	realKernel = "3.10.0-862.14.4.el7.x86_64"
	realUpdate = "3.10.0-1160.el7.x86_64"

	// realBinary names the environment variable with the program's path.
	realBinary = "UPGRADECTL_REAL_BINARY"
)

// realSites are the files that the operators of the two nginx hosts wrote
// beside the packaged ones.
var realSites = map[string]map[string]string{
	realProxyA: {
		"/etc/nginx/sites-available/shop": "# orders\nupstream order {\n\t# web-90 takes two of three\n\tserver\t172.31.0.90:8080\tweight=2  max_fails=3;\t# since 2019; was 172.31.0.70:8080\n\tserver 172.31.0.88:8080;\n\t#server 172.31.0.87:8080;\n\tkeepalive 4;\n}\n\nserver {\n\tlisten 80 default_server;\n\tlisten [::]:80 default_server;\n\tserver_name _;\n\n\tlocation / {\n\t\tproxy_pass http://order;\n\t\tproxy_http_version 1.1;\n\t\tproxy_set_header Connection \"\";\n\t\tproxy_set_header Host $host;\n\t}\n}\n",
		"/etc/nginx/sites-available/pay":  "server { listen 8083; location / { proxy_pass http://172.31.0.90:8083; } } # alone on web-90",
	},
	realProxyB: {
		"/etc/nginx/conf.d/upstreams.conf": "upstream pay {\n    server 172.31.0.90:8083;\n    server 172.31.0.88:8083;\n}\nupstream order { server 172.31.0.88:8080; server 172.31.0.90:8080; }\n",
		"/etc/nginx/sites-available/all":   "server {\r\n    listen 80;\r\n    location / { proxy_pass http://order; }\r\n    location /pay/ { proxy_pass http://pay/; }\r\n}\r\n",
	},
}

func TestRealTransition(t *testing.T) {
	testenv.Need(t, "nginx")
	lab.Need(t)
	if !testenv.Required("sshd") { // CI runs it in any case
		testenv.Slow(t)
	}
	var env []string
	if !lab.Inside() {
		testenv.Need(t, "go")
		program := filepath.Join(t.TempDir(), "upgradectl")
		out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../cmd/upgradectl").CombinedOutput()
		require.NoError(t, err, "%s", out)
		env = []string{realBinary + "=" + program}
	}
	if !lab.Isolated(t, env...) {
		return
	}
	w := newRealWorld(t)
	run := filepath.Join(w.dir, "run")
	plan := filepath.Join(w.dir, "plan.json")

	w.tool("plan", "-c", filepath.Join(w.dir, "upgrade.yaml"), "-o", plan).mustEnd()

	// Killed before the transition host joins the balancer, between the two
	// nginx hosts, and in production's reboot.
	began := func(step string) func() bool { return func() bool { return begun(run, step) } }
	w.tool("apply", "--yes", "--run", run, plan).killWhen("3.10-slb is to begin", began("3.10-slb"))
	w.tool("resume", "--yes", "--run", run).killWhen("nginx has lost production on one host", func() bool {
		if !begun(run, "4.2-nginx") {
			return false
		}
		exit, _, err := w.lab.At(realProxyA).Run(t.Context(), "grep -q '#upgradectl:off' /etc/nginx/sites-available/shop")
		return err == nil && exit == 0
	})
	// Somebody on an nginx host calls production past nginx, in short requests:
	// there is no silence until that ends.
	caller := w.callFrom(realProxyB, "http://"+realProd+":8083/health")
	third := w.tool("resume", "--yes", "--run", run)
	third.waitSaid(realProd + " still gets traffic: " + realProxyB)
	caller()
	third.killWhen("production boots again", func() bool { return w.lab.At(realProd).Boots() == 2 })
	w.tool("resume", "--yes", "--run", run).mustEnd()

	var rep upgrade.Report
	require.NoError(t, json.Unmarshal(w.tool("report", "--json", "--run", run).mustEnd(), &rep))
	assert.Equal(t, "succeeded", rep.State)
	assert.Equal(t, realKernel, rep.KernelBefore)
	assert.Equal(t, realUpdate, rep.KernelAfter)

	w.judge()
}

// A realWorld is the lab with everything that runbook A needs in it, and an
// operator's directory.
type realWorld struct {
	t        *testing.T
	dir      string
	program  string
	environ  []string
	lab      *lab.Lab
	cloud    *cloud.Cloud
	balancer *traffic.Balancer
	clients  *traffic.Clients
	began    time.Time

	files   map[string]map[string][]byte // of nginx, at the beginning
	weights map[string]int
}

func newRealWorld(t *testing.T) *realWorld {
	t.Helper()
	ctx := t.Context()
	w := &realWorld{t: t, program: os.Getenv(realBinary), lab: lab.New(t), began: time.Now()}
	var err error
	w.dir, err = w.lab.Dir("operator")
	require.NoError(t, err)

	authorized := w.writeIdentity()
	w.startCloud()
	w.addHosts(ctx, authorized)
	w.startBalancer(ctx)
	w.waitServed(ctx)
	w.files, w.weights = w.nginxFiles(), w.weightsNow()
	w.clients = traffic.StartClients(traffic.Load{
		Dial: w.dial, From: lab.ClientsFrom, Rate: 60, Streams: 1, StreamMax: 3 * time.Second,
		Targets: []traffic.Target{
			{Name: "order by nginx 5", URL: "http://" + realProxyA + ":80"},
			{Name: "pay by nginx 5", URL: "http://" + realProxyA + ":8083"},
			{Name: "order by nginx 6", URL: "http://" + realProxyB + ":80"},
			{Name: "pay by nginx 6", URL: "http://" + realProxyB + ":80/pay"},
			{Name: "order by CLB", URL: "http://" + realCLB + ":80"},
		},
		BootOf: func(addr string) string {
			if h := w.lab.At(addr); h != nil {
				return h.BootID()
			}
			return ""
		},
	})
	t.Cleanup(w.clients.Close)
	return w
}

// writeIdentity makes the operator's key and gives its authorized_keys line.
func (w *realWorld) writeIdentity() string {
	pub, key, err := ed25519.GenerateKey(nil)
	require.NoError(w.t, err)
	block, err := ssh.MarshalPrivateKey(key, "operator")
	require.NoError(w.t, err)
	w.write("id_ed25519", string(pem.EncodeToMemory(block)))
	sshPub, err := ssh.NewPublicKey(pub)
	require.NoError(w.t, err)
	return string(ssh.MarshalAuthorizedKey(sshPub))
}

func (w *realWorld) write(name, text string) {
	w.t.Helper()
	require.NoError(w.t, os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o600))
}

// startCloud starts the simulated cloud; its hosts are the lab's.
func (w *realWorld) startCloud() {
	const id, secret = "LTAIrealinput", "a secret of the lab"
	w.cloud = cloud.New(cloud.Config{
		AccessKeyID: id, AccessKeySecret: secret, Speed: 240, Machines: w.lab.Machines(),
		FreeIPs: []string{"172.31.0.91", "172.31.0.92"}, Health: w.health,
	})
	w.t.Cleanup(w.cloud.Close)
	w.lab.PoweredOff = func(id string) { w.cloud.PoweredOff(id) }
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(w.t, err)
	srv := &http.Server{Handler: w.cloud, ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: 10 * time.Second}
	var done sync.WaitGroup
	done.Go(func() { _ = srv.Serve(ln) })
	w.t.Cleanup(func() { _ = srv.Close(); done.Wait() })
	w.environ = append(os.Environ(),
		"ALIBABA_CLOUD_ACCESS_KEY_ID="+id, "ALIBABA_CLOUD_ACCESS_KEY_SECRET="+secret,
		"HOME="+w.dir, "XDG_STATE_HOME="+w.dir)
	w.write("upgrade.yaml", `version: 1
procedure: transition
host: `+realProd+`
cloud:
  region: cn-hangzhou
  endpoint: http://`+ln.Addr().String()+`
ssh:
  config: ssh_config
  known_hosts: [known_hosts]
nginx:
  - host: `+realProxyA+`
  - host: `+realProxyB+`
services:
  - name: order
    kind: java
    dir: /srv/order
    user: app
    ports: [8080]
    health: /health
    start: ./start.sh
  - name: pay
    kind: java
    dir: /srv/pay
    user: app
    ports: [8083]
    health: /health
    start: ./start.sh
transition:
  name: web-90-transition
os:
  strategy: script
  script: update.sh
  docker: keep
pace:
  poll: 200ms
  sample: 200ms
  observe: 5
  timeout: 3m
  cloud_timeout: 3m
`)
	w.write("update.sh", "set -eu\n# What a package manager leaves for the boot loader.\necho "+realUpdate+" >/boot/next-kernel.new\nmv -f /boot/next-kernel.new /boot/next-kernel\nsync\n")
	w.write("ssh_config", "Host 172.31.0.*\n    User root\n    IdentityFile "+filepath.Join(w.dir, "id_ed25519")+"\n    IdentitiesOnly yes\n    ConnectTimeout 5\n")
}

// addHosts switches the hosts on and starts by hand what runs by hand.
func (w *realWorld) addHosts(ctx context.Context, authorized string) {
	app := func(jar string, port int) string {
		return fmt.Sprintf("#!/bin/sh\nexec /opt/java/bin/java -jar %s.jar --server.port=%d\n", jar, port)
	}
	type machine struct {
		id, name, addr string
		setup          lab.Setup
	}
	var all []machine
	for _, m := range []machine{{id: "i-web90", name: "web-90", addr: realProd}, {id: "i-web88", name: "web-88", addr: realOther}} {
		m.setup = lab.Setup{
			Kernel: realKernel,
			Files:  map[string]string{"/srv/order/start.sh": app("order", 8080), "/srv/pay/start.sh": app("pay", 8083)},
			Script: "echo 'app:x:1500:1500::/srv:/bin/sh' >>/etc/passwd\necho 'app:x:1500:' >>/etc/group\necho 'app:*:19000:0:99999:7:::' >>/etc/shadow\nchown -R app:app /srv/order /srv/pay\n",
		}
		all = append(all, m)
	}
	for _, m := range []machine{{id: "i-ng5", name: "ng-5", addr: realProxyA}, {id: "i-ng6", name: "ng-6", addr: realProxyB}} {
		m.setup = lab.Setup{Kernel: realKernel, Enable: []string{"nginx"}, Files: realSites[m.addr],
			Script: "cd /etc/nginx/sites-enabled\nrm -f ./*\nfor f in shop pay all; do [ ! -e ../sites-available/$f ] || ln -s /etc/nginx/sites-available/$f .; done\n"}
		all = append(all, m)
	}
	var known strings.Builder
	for _, m := range all {
		w.cloud.AddInstance(cloud.Instance{ID: m.id, Name: m.name, HostName: m.name, PrivateIP: m.addr, KeyPair: "operator"})
		h, err := w.lab.Add(ctx, m.id, m.name, m.addr, authorized, m.setup)
		require.NoError(w.t, err)
		keys, err := h.Must(ctx, "cat /etc/ssh/ssh_host_*_key.pub")
		require.NoError(w.t, err)
		for line := range strings.Lines(keys) {
			f := strings.Fields(line)
			fmt.Fprintf(&known, "%s %s %s\n", m.addr, f[0], f[1])
		}
		if len(m.setup.Enable) > 0 {
			continue
		}
		for _, dir := range []string{"/srv/order", "/srv/pay"} {
			_, err := h.Must(ctx, "su -s /bin/sh app -c 'cd "+dir+" && setsid ./start.sh >/dev/null 2>&1 </dev/null &'")
			require.NoError(w.t, err)
		}
	}
	w.write("known_hosts", known.String())
}

// startBalancer starts the data plane of the cloud's balancer and returns
// when its members are healthy.
func (w *realWorld) startBalancer(ctx context.Context) {
	w.balancer = traffic.NewBalancer(traffic.BalancerConfig{Dial: w.lab.Dial, Interval: 300 * time.Millisecond, HealthFrom: lab.HealthFrom, ProxyFrom: lab.BalancerFrom})
	w.t.Cleanup(w.balancer.Close)
	w.cloud.AddLoadBalancer(cloud.LoadBalancer{
		ID: "lb-front", Name: "front", Address: realCLB,
		Listeners: []cloud.Listener{{Port: 80, Protocol: "http", BackendPort: 8080, HealthCheck: true, HealthCheckURI: "/health"}},
		Default:   []cloud.Backend{{ServerID: "i-web90", Weight: 100}, {ServerID: "i-web88", Weight: 50}},
	})
	var one sync.Mutex
	follow := func() {
		one.Lock()
		defer one.Unlock()
		if err := w.balancer.Set(w.services()); err != nil && w.t.Context().Err() == nil {
			w.t.Errorf("balancer: %v", err)
		}
	}
	w.cloud.OnChange(follow)
	follow()
	w.until(ctx, "the balancer's members are healthy", func() bool {
		return w.balancer.Health(realCLB+":80", realProd+":8080") == traffic.Normal && w.balancer.Health(realCLB+":80", realOther+":8080") == traffic.Normal
	})
}

// waitServed waits until nginx answers on every way.
func (w *realWorld) waitServed(ctx context.Context) {
	for _, addr := range []string{realProxyA + ":80", realProxyA + ":8083", realProxyB + ":80"} {
		w.until(ctx, addr+" answers", func() bool {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/health", nil)
			require.NoError(w.t, err)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				return false
			}
			_ = resp.Body.Close()
			return resp.StatusCode == http.StatusOK
		})
	}
	http.DefaultClient.CloseIdleConnections()
}

// until asks ready every 20 ms for up to a minute.
func (w *realWorld) until(ctx context.Context, what string, ready func() bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ready() {
		select {
		case <-ctx.Done():
			w.t.Fatalf("not within a minute: %s", what)
		case <-tick.C:
		}
	}
}

// dial is how the clients connect: the balancer's address is not a host's.
func (w *realWorld) dial(ctx context.Context, from, to string) (net.Conn, error) {
	if real, ok := w.balancer.Endpoint(to); ok {
		return w.lab.Dial(ctx, "127.0.0.1", real)
	}
	return w.lab.Dial(ctx, from, to)
}

func (w *realWorld) services() []traffic.Service {
	var out []traffic.Service
	for _, lb := range w.cloud.LoadBalancers() {
		for _, l := range lb.Listeners {
			s := traffic.Service{Addr: net.JoinHostPort(lb.Address, strconv.Itoa(l.Port)), Group: lb.ID, Protocol: l.Protocol, Scheduler: l.Scheduler, HealthCheck: l.HealthCheck}
			for _, b := range lb.Default {
				s.Members = append(s.Members, traffic.Member{Addr: net.JoinHostPort(b.ServerIP, strconv.Itoa(l.BackendPort)), Weight: b.Weight})
			}
			out = append(out, s)
		}
	}
	return out
}

func (w *realWorld) health(q cloud.HealthQuery) string {
	return w.balancer.Health(net.JoinHostPort(realCLB, strconv.Itoa(q.ListenerPort)), net.JoinHostPort(w.cloud.InstanceIP(q.ServerID), strconv.Itoa(q.Port)))
}

func (w *realWorld) weightsNow() map[string]int {
	m := map[string]int{}
	for _, lb := range w.cloud.LoadBalancers() {
		for _, b := range lb.Default {
			m[b.ServerID] = b.Weight
		}
	}
	return m
}

// nginxFiles is every file below /etc/nginx of both nginx hosts: name, owner,
// mode, where a link leads, and the content.
func (w *realWorld) nginxFiles() map[string]map[string][]byte {
	w.t.Helper()
	out := map[string]map[string][]byte{}
	for _, addr := range []string{realProxyA, realProxyB} {
		text, err := w.lab.At(addr).Must(w.t.Context(), "cd /etc/nginx; find . | sort | while read -r f; do stat -c '%N %U %a' \"$f\"; [ ! -f \"$f\" ] || sha256sum \"$f\"; done")
		require.NoError(w.t, err)
		files := map[string][]byte{"listing": []byte(text)}
		for name := range realSites[addr] {
			b, err := w.lab.At(addr).Must(w.t.Context(), "cat "+name)
			require.NoError(w.t, err)
			require.Equal(w.t, realSites[addr][name], b)
			files[name] = []byte(b)
		}
		out[addr] = files
	}
	return out
}

// judge stops the traffic and looks at what is left.
func (w *realWorld) judge() {
	t := w.t
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, w.clients.Stop(ctx))
	s := w.clients.Summary()
	by := s.ByAddr()
	t.Logf("%d requests, %d failed, p50 %v, p99 %v, in %v; by backend: %v; fewest healthy: %v; set-up and run %v",
		s.Requests, s.Failed, s.P50, s.P99, s.Elapsed.Round(time.Millisecond), by, w.balancer.MinHealthy(), time.Since(w.began).Round(time.Millisecond))
	assert.Zero(t, s.Failed, "%v", s.Failures)
	assert.Greater(t, s.Requests, int64(500))
	assert.Positive(t, by["172.31.0.91:8080"], "the transition host served")
	assert.Positive(t, by["172.31.0.91:8083"], "the transition host served")
	for g, n := range w.balancer.MinHealthy() {
		assert.Positive(t, n, g)
	}

	assert.Equal(t, w.files, w.nginxFiles())
	assert.Equal(t, w.weights, w.weightsNow())

	h := w.lab.At(realProd)
	assert.Equal(t, 2, h.Boots(), "one reboot, though the tool was killed in it")
	assert.Equal(t, realUpdate, h.Kernel())
	assert.Equal(t, 1, w.lab.At(realOther).Boots())
	// What answers on production now was started in the new boot.
	i := slices.IndexFunc(s.Backends, func(b traffic.Backend) bool {
		return b.Addr == realProd+":8080" && b.BootID == h.BootID() && b.Kernel == realUpdate
	})
	assert.GreaterOrEqual(t, i, 0, "%v", s.Backends)

	assert.Nil(t, w.lab.At("172.31.0.91"), "the transition host is gone")
	counts := w.cloud.Counts()
	assert.Equal(t, 1, counts["RunInstances"])
	assert.Equal(t, 1, counts["CreateImage"])
	assert.Equal(t, 2, counts["CreateSnapshot"])
	for _, r := range w.cloud.Resources() {
		assert.True(t, !r.CreatedByAPI || r.Type == "snapshot", "left behind: %+v", r)
	}
	assert.Empty(t, w.cloud.Refused())
}

// A toolRun is one process of the program under test.
type toolRun struct {
	w    *realWorld
	args []string
	cmd  *exec.Cmd
	out  bytes.Buffer
	done chan struct{} // closed when the process has ended; err is set then
	err  error

	mu   sync.Mutex
	said strings.Builder // its progress
}

// tool starts the program. Its progress goes into the test's log.
func (w *realWorld) tool(args ...string) *toolRun {
	w.t.Helper()
	r := &toolRun{w: w, args: args, done: make(chan struct{})}
	r.cmd = exec.CommandContext(w.t.Context(), w.program, args...)
	r.cmd.Dir, r.cmd.Env, r.cmd.Stdout = w.dir, w.environ, &r.out
	progress, err := r.cmd.StderrPipe()
	require.NoError(w.t, err)
	require.NoError(w.t, r.cmd.Start())
	w.t.Logf("%s upgradectl %s (process %d)", w.since(), strings.Join(args, " "), r.cmd.Process.Pid)
	go func() {
		defer close(r.done)
		lines := bufio.NewScanner(progress)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			w.t.Logf("%s %s", w.since(), lines.Text())
			r.mu.Lock()
			r.said.WriteString(lines.Text() + "\n")
			r.mu.Unlock()
		}
		r.err = r.cmd.Wait()
	}()
	return r
}

func (w *realWorld) since() string { return fmt.Sprintf("%6.2fs", time.Since(w.began).Seconds()) }

// mustEnd waits for a good end and gives what the program printed.
func (r *toolRun) mustEnd() []byte {
	r.w.t.Helper()
	<-r.done
	require.NoError(r.w.t, r.err, "upgradectl %s: %s", strings.Join(r.args, " "), r.out.String())
	return r.out.Bytes()
}

// callFrom has a host call a URL again and again. The result ends it.
func (w *realWorld) callFrom(addr, url string) (stop func()) {
	w.t.Helper()
	h := w.lab.At(addr)
	pid, err := h.Must(w.t.Context(), "setsid /opt/java/bin/java --call "+url+" >/dev/null 2>&1 </dev/null & echo $!")
	require.NoError(w.t, err)
	return func() {
		_, err := h.Must(w.t.Context(), "kill "+pid)
		require.NoError(w.t, err)
	}
}

// waitSaid blocks until the program's progress has a line with text.
func (r *toolRun) waitSaid(text string) {
	r.w.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		r.mu.Lock()
		said := strings.Contains(r.said.String(), text)
		r.mu.Unlock()
		if said {
			return
		}
		select {
		case <-r.done:
			r.w.t.Fatalf("upgradectl %s ended and never said %q", strings.Join(r.args, " "), text)
		case <-tick.C:
		}
	}
}

// killWhen kills the program as soon as something holds.
func (r *toolRun) killWhen(what string, holds func() bool) {
	t := r.w.t
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-r.done:
			t.Fatalf("upgradectl %s ended before: %s: %v: %s", strings.Join(r.args, " "), what, r.err, r.out.String())
		case <-tick.C:
		}
	}
	require.NoError(t, r.cmd.Process.Kill())
	<-r.done
	require.Error(t, r.err)
	assert.Equal(t, -1, r.cmd.ProcessState.ExitCode(), "it was killed")
	t.Logf("%s killed: %s", r.w.since(), what)
}

// begun says whether a run's journal holds the intent of a step and not its
// end.
func begun(run, step string) bool {
	b, err := os.ReadFile(filepath.Join(run, "journal.jsonl"))
	if err != nil {
		return false
	}
	open := false
	for line := range bytes.Lines(b) {
		var rec struct{ Kind, Step string }
		if json.Unmarshal(line, &rec) == nil && rec.Step == step {
			open = rec.Kind == "intent"
		}
	}
	return open
}
