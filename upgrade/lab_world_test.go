package upgrade_test

import (
	"context"
	"crypto/ed25519"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"github.com/upgradectl/upgradectl/internal/lab"
	"github.com/upgradectl/upgradectl/internal/sim/cloud"
	"github.com/upgradectl/upgradectl/internal/sim/traffic"
	"github.com/upgradectl/upgradectl/internal/testenv"
)

// Addresses of the lab's hosts, and the ports of what production runs.
const (
	labProd   = "172.31.0.90"
	labOther  = "172.31.0.88"
	labProxyA = "172.31.0.5"
	labProxyB = "172.31.0.6"
	labClone  = "172.31.0.91"
	labCLB    = "172.31.0.20"

	// labBinary names the environment variable with the program's path.
	labBinary = "UPGRADECTL_LAB_BINARY"
)

// labSites are the files that the operators of the two nginx hosts wrote
// beside the packaged ones. order is a Java process started by hand, pay a
// Compose project, cache a single container, stock a program of supervisor.
var labSites = map[string]map[string]string{
	labProxyA: {
		"/etc/nginx/sites-available/shop":  "# orders\nupstream order {\n\t# web-90 takes two of three\n\tserver\t172.31.0.90:8080\tweight=2  max_fails=3;\t# since 2019; was 172.31.0.70:8080\n\tserver 172.31.0.88:8080;\n\t#server 172.31.0.87:8080;\n\tkeepalive 4;\n}\n\nserver {\n\tlisten 80 default_server;\n\tlisten [::]:80 default_server;\n\tserver_name _;\n\n\tlocation / {\n\t\tproxy_pass http://order;\n\t\tproxy_http_version 1.1;\n\t\tproxy_set_header Connection \"\";\n\t\tproxy_set_header Host $host;\n\t}\n}\n",
		"/etc/nginx/sites-available/pay":   "server { listen 8083; location / { proxy_pass http://172.31.0.90:8083; } } # alone on web-90",
		"/etc/nginx/sites-available/stock": "upstream stock { server 172.31.0.90:8085; server 172.31.0.88:8085; }\nserver { listen 8085; location / { proxy_pass http://stock; } }\n",
	},
	labProxyB: {
		"/etc/nginx/conf.d/upstreams.conf": "upstream pay {\n    server 172.31.0.90:8083;\n    server 172.31.0.88:8083;\n}\nupstream order { server 172.31.0.88:8080; server 172.31.0.90:8080; }\nupstream cache { server 172.31.0.90:8084; server 172.31.0.88:8084; }\n",
		"/etc/nginx/sites-available/all":   "server {\r\n    listen 80;\r\n    location / { proxy_pass http://order; }\r\n    location /pay/ { proxy_pass http://pay/; }\r\n    location /cache/ { proxy_pass http://cache/; }\r\n}\r\n",
	},
}

// labTargets are the ways that clients take.
var labTargets = []traffic.Target{
	{Name: "order by nginx 5", URL: "http://" + labProxyA + ":80"},
	{Name: "pay by nginx 5", URL: "http://" + labProxyA + ":8083"},
	{Name: "stock by nginx 5", URL: "http://" + labProxyA + ":8085"},
	{Name: "order by nginx 6", URL: "http://" + labProxyB + ":80"},
	{Name: "pay by nginx 6", URL: "http://" + labProxyB + ":80/pay"},
	{Name: "cache by nginx 6", URL: "http://" + labProxyB + ":80/cache"},
	{Name: "order by CLB", URL: "http://" + labCLB + ":80"},
}

// labParallel lets a test run beside another one, each in a lab of its own: one
// waits most of the time where the other computes.
func labParallel(t *testing.T) {
	if !lab.Inside() {
		t.Parallel()
	}
}

// labIsolated runs the test inside the lab, with the program under test built.
// It gives true there.
func labIsolated(t *testing.T) bool {
	t.Helper()
	if lab.Inside() {
		return lab.Isolated(t)
	}
	testenv.Lab(t)
	lab.Need(t)
	for _, p := range []string{"go", "nginx", "javac", "dockerd", "docker-compose", "supervisord", "cron", "rpmbuild", "createrepo_c", "modifyrepo_c", "dnf-3", "dpkg-deb", "dpkg-scanpackages"} {
		testenv.Need(t, p)
	}
	program := filepath.Join(t.TempDir(), "upgradectl")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../cmd/upgradectl").CombinedOutput()
	require.NoError(t, err, "%s", out)
	return lab.Isolated(t, labBinary+"="+program)
}

// A labWorld is the lab with the hosts of a transition in it, a cloud whose
// instances they are, clients that never stop, and an operator's directory.
type labWorld struct {
	t       *testing.T
	dir     string
	program string
	environ []string
	known   strings.Builder // known_hosts
	began   time.Time

	lab      *lab.Lab
	mirror   *lab.Mirror
	apps     *lab.Apps
	layer    string
	auth     string // authorized_keys
	cloud    *cloud.Cloud
	endpoint string
	balancer *traffic.Balancer
	clients  *traffic.Clients

	files   map[string]map[string][]byte // of nginx, at the beginning
	weights map[string]int
}

// newLabWorld builds what hosts are made of: packages, applications, the
// distribution, the cloud. It starts no host.
func newLabWorld(t *testing.T) *labWorld {
	t.Helper()
	ctx := t.Context()
	w := &labWorld{t: t, program: os.Getenv(labBinary), lab: lab.New(t), began: time.Now()}
	dir := func(name string) string {
		d, err := w.lab.Dir(name)
		require.NoError(t, err)
		return d
	}
	w.dir = dir("operator")
	mirror, apps := dir("mirror"), dir("apps")
	w.layer = filepath.Join(filepath.Dir(mirror), "distribution")

	var both sync.WaitGroup
	var mirrorErr, appsErr error
	both.Go(func() { w.apps, appsErr = lab.BuildApps(ctx, apps) })
	both.Go(func() {
		if w.mirror, mirrorErr = lab.NewMirror(ctx, mirror); mirrorErr == nil {
			mirrorErr = w.mirror.Layer(ctx, w.layer)
		}
	})
	both.Wait()
	require.NoError(t, mirrorErr)
	require.NoError(t, appsErr)
	require.NoError(t, w.apps.Install(w.layer))
	stop, err := w.mirror.Serve(ctx)
	require.NoError(t, err)
	t.Cleanup(func() { _ = stop() })
	w.auth = w.writeIdentity()
	w.startCloud()
	w.write("ssh_config", "Host 172.31.0.*\n    User root\n    IdentityFile "+filepath.Join(w.dir, "id_ed25519")+"\n    IdentitiesOnly yes\n    ConnectTimeout 5\n")
	w.logf("packages, applications and cloud are there")
	return w
}

func (w *labWorld) logf(format string, args ...any) {
	w.t.Logf("%s %s", w.since(), fmt.Sprintf(format, args...))
}

func (w *labWorld) since() string { return fmt.Sprintf("%6.2fs", time.Since(w.began).Seconds()) }

func (w *labWorld) write(name, text string) {
	w.t.Helper()
	require.NoError(w.t, os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o600))
}

// writeIdentity makes the operator's key and gives its authorized_keys line.
func (w *labWorld) writeIdentity() string {
	pub, key, err := ed25519.GenerateKey(nil)
	require.NoError(w.t, err)
	block, err := ssh.MarshalPrivateKey(key, "operator")
	require.NoError(w.t, err)
	w.write("id_ed25519", string(pem.EncodeToMemory(block)))
	sshPub, err := ssh.NewPublicKey(pub)
	require.NoError(w.t, err)
	return string(ssh.MarshalAuthorizedKey(sshPub))
}

// startCloud starts the simulated cloud; its hosts are the lab's.
func (w *labWorld) startCloud() {
	const id, secret = "LTAIlabinput", "a secret of the lab"
	w.cloud = cloud.New(cloud.Config{
		AccessKeyID: id, AccessKeySecret: secret, Speed: 240, Machines: w.lab.Machines(),
		FreeIPs: []string{labClone, "172.31.0.92"}, Health: w.health,
	})
	w.t.Cleanup(w.cloud.Close)
	w.lab.PoweredOff = func(id string) { w.cloud.PoweredOff(id) }
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(w.t, err)
	srv := &http.Server{Handler: w.cloud, ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: 10 * time.Second}
	var done sync.WaitGroup
	done.Go(func() { _ = srv.Serve(ln) })
	w.t.Cleanup(func() { _ = srv.Close(); done.Wait() })
	w.endpoint = "http://" + ln.Addr().String()
	w.environ = append(os.Environ(),
		"ALIBABA_CLOUD_ACCESS_KEY_ID="+id, "ALIBABA_CLOUD_ACCESS_KEY_SECRET="+secret,
		"HOME="+w.dir, "XDG_STATE_HOME="+w.dir)
}

// add switches a host on that is an instance of the cloud.
func (w *labWorld) add(id, name, addr string, s lab.Setup) *lab.Host {
	w.t.Helper()
	ctx := w.t.Context()
	w.cloud.AddInstance(cloud.Instance{ID: id, Name: name, HostName: name, PrivateIP: addr, KeyPair: "operator"})
	s.Base = w.layer
	h, err := w.lab.Add(ctx, id, name, addr, w.auth, s)
	require.NoError(w.t, err)
	w.t.Cleanup(func() {
		if w.t.Failed() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			_, out, err := h.Run(ctx, "systemctl --no-legend --plain --failed; docker ps -a 2>&1 | cut -c1-120; tail -n 100 /var/lib/upgradectl/*/log; journalctl -p warning -n 12 --no-pager")
			w.t.Logf("%s: %v\n%s", name, err, out)
		}
	})
	for line := range strings.Lines(w.must(h, "cat /etc/ssh/ssh_host_*_key.pub")) {
		f := strings.Fields(line)
		fmt.Fprintf(&w.known, "%s %s %s\n", addr, f[0], f[1])
	}
	w.write("known_hosts", w.known.String())
	return h
}

// must runs a script on a host as root and gives what it printed.
func (w *labWorld) must(h *lab.Host, script string) string {
	w.t.Helper()
	out, err := h.Must(w.t.Context(), script)
	require.NoError(w.t, err)
	return out
}

// startBalancer starts the data plane of the cloud's balancer and returns
// when its members are healthy.
func (w *labWorld) startBalancer() {
	w.balancer = traffic.NewBalancer(traffic.BalancerConfig{Dial: w.lab.Dial, Interval: 300 * time.Millisecond, HealthFrom: lab.HealthFrom, ProxyFrom: lab.BalancerFrom})
	w.t.Cleanup(w.balancer.Close)
	w.cloud.AddLoadBalancer(cloud.LoadBalancer{
		ID: "lb-front", Name: "front", Address: labCLB,
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
	w.until("the balancer's members are healthy", func() bool {
		return w.balancer.Health(labCLB+":80", labProd+":8080") == traffic.Normal && w.balancer.Health(labCLB+":80", labOther+":8080") == traffic.Normal
	})
}

// startClients waits until every way answers and starts the clients.
func (w *labWorld) startClients() {
	for _, target := range labTargets {
		w.until(target.Name+" answers", func() bool {
			tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
				return w.dial(ctx, lab.ClientsFrom, addr)
			}}
			req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, target.URL+"/health", nil)
			require.NoError(w.t, err)
			resp, err := tr.RoundTrip(req)
			if err != nil {
				return false
			}
			_ = resp.Body.Close()
			return resp.StatusCode == http.StatusOK
		})
	}
	w.clients = traffic.StartClients(traffic.Load{
		Dial: w.dial, From: lab.ClientsFrom, Rate: 60, Streams: 1, StreamMax: 3 * time.Second, Targets: labTargets,
		BootOf: func(addr string) string {
			if h := w.lab.At(addr); h != nil {
				return h.BootID()
			}
			return ""
		},
	})
	w.t.Cleanup(w.clients.Close)
}

// until asks ready every 20 ms for up to five minutes: where it is one of a
// procedure that is waited for, that is what a slow machine takes.
func (w *labWorld) until(what string, ready func() bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 5*time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ready() {
		select {
		case <-ctx.Done():
			w.t.Fatalf("not within five minutes: %s", what)
		case <-tick.C:
		}
	}
}

// listens says whether somebody takes a connection there.
func (w *labWorld) listens(addr string) bool {
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
	defer cancel()
	c, err := w.dial(ctx, lab.ClientsFrom, addr)
	if err == nil {
		_ = c.Close()
	}
	return err == nil
}

// dial is how the clients connect: the balancer's address is not a host's.
func (w *labWorld) dial(ctx context.Context, from, to string) (net.Conn, error) {
	if real, ok := w.balancer.Endpoint(to); ok {
		return w.lab.Dial(ctx, "127.0.0.1", real)
	}
	return w.lab.Dial(ctx, from, to)
}

func (w *labWorld) services() []traffic.Service {
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

func (w *labWorld) health(q cloud.HealthQuery) string {
	return w.balancer.Health(net.JoinHostPort(labCLB, strconv.Itoa(q.ListenerPort)), net.JoinHostPort(w.cloud.InstanceIP(q.ServerID), strconv.Itoa(q.Port)))
}

func (w *labWorld) weightsNow() map[string]int {
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
func (w *labWorld) nginxFiles() map[string]map[string][]byte {
	w.t.Helper()
	out := map[string]map[string][]byte{}
	for _, addr := range []string{labProxyA, labProxyB} {
		h := w.lab.At(addr)
		files := map[string][]byte{"listing": []byte(w.must(h, "cd /etc/nginx; find . | sort | while read -r f; do stat -c '%N %U %a' \"$f\"; [ ! -f \"$f\" ] || sha256sum \"$f\"; done"))}
		for name := range labSites[addr] {
			b := w.must(h, "cat "+name)
			require.Equal(w.t, labSites[addr][name], b)
			files[name] = []byte(b)
		}
		out[addr] = files
	}
	return out
}
