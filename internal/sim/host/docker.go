package host

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	dockerSocket = "/run/docker.sock"
	dockerPID    = "/run/docker.pid"
	// What a container takes to answer, and to be called healthy, at Speed 1.
	containerWarmup  = 3 * time.Second
	containerHealthy = 5 * time.Second
)

// docker is the container engine of a host. Its lock is taken before the
// tree's and the host's.
type docker struct {
	h *Host

	mu     sync.Mutex
	list   []*container
	daemon *process
	images map[string]map[string][]byte // imported ones: their files
}

// container is one container: what is on disk, and what runs.
type container struct {
	id, image, imageID, name string
	created, started         time.Time
	restart                  string
	labels                   map[string]string
	ports                    []Port
	health                   bool

	running bool // also on disk: the daemon finds out at its next start
	byHand  bool // stopped by a person: unless-stopped stays down
	exit    int
	procs   []*Process // of this boot
}

func newDocker(h *Host) *docker { return &docker{h: h} }

// dockerDisk is /var/lib/docker.
type dockerDisk struct{ list []container }

func (d *docker) freeze() *dockerDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := &dockerDisk{}
	for _, c := range d.list {
		k := *c
		k.procs, k.labels, k.ports = nil, maps.Clone(c.labels), slices.Clone(c.ports)
		out.list = append(out.list, k)
	}
	return out
}

func (d *docker) thaw(disk *dockerDisk) {
	for _, c := range disk.list {
		k := c
		k.labels, k.ports = maps.Clone(c.labels), slices.Clone(c.ports)
		d.list = append(d.list, &k)
	}
}

// create makes a container; running says what it was when the world began.
func (d *docker) create(s Container, running bool) (*container, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.find(s.Name) != nil {
		return nil, fmt.Errorf("cannot create container %q: the name is in use", s.Name)
	}
	switch s.Restart {
	case "":
		s.Restart = "no"
	case "no", "always", "unless-stopped", "on-failure":
	default:
		return nil, fmt.Errorf("cannot create container %q: unknown restart policy %q", s.Name, s.Restart)
	}
	var id [32]byte
	_, _ = rand.Read(id[:]) // never fails
	image := sha256.Sum256([]byte(s.Image))
	c := &container{
		id: hex.EncodeToString(id[:]), name: s.Name, image: s.Image, imageID: "sha256:" + hex.EncodeToString(image[:]),
		created: time.Now().UTC(), restart: s.Restart, labels: maps.Clone(s.Labels), ports: slices.Clone(s.Ports), health: s.Health,
		running: running, byHand: !running,
	}
	if c.labels == nil {
		c.labels = map[string]string{}
	}
	d.list = append(d.list, c)
	return c, nil
}

// find looks a container up by name, id or a prefix of the id. d.mu is held.
func (d *docker) find(name string) *container {
	for _, c := range d.list {
		if c.name == name || c.id == name || len(name) >= 4 && strings.HasPrefix(c.id, name) {
			return c
		}
	}
	return nil
}

// firstLook starts every container that ran when the world began, whatever
// its restart policy.
func (d *docker) firstLook() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.daemon == nil {
		return
	}
	for _, c := range d.list {
		if c.running && len(c.procs) == 0 {
			_ = d.run(c, 0) // a port conflict shows as exited
		}
	}
}

// start is what the daemon does when it starts.
func (d *docker) start(b *boot) error {
	if err := d.h.validJSON("/etc/docker/daemon.json"); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.daemon != nil {
		return nil
	}
	h := d.h
	h.mu.Lock()
	fresh := h.looking
	h.mu.Unlock()
	d.daemon = h.fork(b, b.ctx, &process{args: []string{"/usr/bin/dockerd"}, exe: "/usr/bin/dockerd", unit: "docker.service", ext: true})
	h.tree.mkdirAll("/run", 0o755)
	_ = h.tree.writeFile(cred{}, dockerPID, []byte(strconv.Itoa(d.daemon.pid)), oCreate|oTrunc, 0o644) // as root on our tree
	h.tree.mu.Lock()
	if p, err := h.tree.walk(cred{}, dockerSocket, false); err == nil && p.parent != nil && p.parent.kids != nil {
		p.parent.kids[p.base] = &node{mode: fs.ModeSocket | 0o660, gid: 990, mtime: time.Now()}
	}
	h.tree.mu.Unlock()
	for _, c := range d.list {
		ran := c.running
		c.procs = nil
		if fresh {
			continue
		}
		c.running = false
		if c.restart == "always" || c.restart == "unless-stopped" && !c.byHand || c.restart == "on-failure" && ran {
			_ = d.run(c, h.scale(containerWarmup)) // seen as exited
		} else if ran {
			c.exit = 255
		}
	}
	return nil
}

// run starts the processes of a container. d.mu is held.
func (d *docker) run(c *container, warm time.Duration) error {
	h := d.h
	if n, bad := h.runLimits(); bad {
		c.exit = 126
		return fmt.Errorf("OCI runtime create failed: error setting rlimit type %d: operation not permitted", n)
	}
	b := d.daemon.boot
	c.procs = nil
	add := func(p Process, warm time.Duration) error {
		q, err := h.spawn(b, p, warm)
		if err != nil {
			for _, q := range c.procs {
				q.Exit()
			}
			c.procs, c.running, c.exit = nil, false, 128
			return err
		}
		c.procs = append(c.procs, q)
		return nil
	}
	program := path.Base(strings.SplitN(c.image, ":", 2)[0])
	if err := add(Process{Args: []string{program}, PPID: d.daemon.pid, Unit: "/docker/" + c.id}, 0); err != nil {
		return err
	}
	nat := map[int]int{}
	for i, port := range c.ports {
		if port.Host == 0 {
			continue
		}
		nat[port.Host] = port.Container
		args := []string{"/usr/bin/docker-proxy", "-proto", "tcp", "-host-ip", "0.0.0.0", "-host-port", strconv.Itoa(port.Host),
			"-container-ip", "172.17.0." + strconv.Itoa(i+2), "-container-port", strconv.Itoa(port.Container)}
		if err := add(Process{Args: args, PPID: d.daemon.pid, Unit: "docker.service", Ports: []int{port.Host}, Handler: h.app(c.name, port.Host, warm)}, warm); err != nil {
			return err
		}
	}
	h.mu.Lock()
	c.procs[0].p.nat = nat
	h.mu.Unlock()
	c.running, c.byHand, c.exit, c.started = true, false, 0, time.Now()
	if warm == 0 {
		c.started = c.started.Add(-time.Hour)
	}
	return nil
}

// halt ends the processes of a container after their requests. d.mu is held.
func (d *docker) halt(c *container) {
	var wg sync.WaitGroup
	for _, p := range c.procs {
		wg.Go(func() {
			p.p.drain()
			p.Exit()
		})
	}
	wg.Wait()
	c.procs, c.running, c.exit = nil, false, 0
}

// stop is systemctl stop docker: without live-restore its containers stop too.
func (d *docker) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.daemon == nil {
		return
	}
	var wg sync.WaitGroup
	for _, c := range d.list {
		if c.running {
			wg.Go(func() { d.halt(c) })
		}
	}
	wg.Wait()
	d.daemon.end(0)
	d.daemon = nil
	_ = d.h.tree.remove(cred{}, dockerSocket, false) // the socket goes with the daemon
	_ = d.h.tree.remove(cred{}, dockerPID, false)
}

// powerOff forgets what ran. The disk still says "running" for what was.
func (d *docker) powerOff() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.daemon = nil
	for _, c := range d.list {
		c.procs = nil
	}
}

func (d *docker) version() string {
	if r := d.h.pk.find("docker-ce"); len(r) > 0 {
		return r[0].version
	}
	if r := d.h.pk.find("docker"); len(r) > 0 {
		return r[0].version
	}
	return ""
}

func (c *container) status() string {
	if c.running {
		return "running"
	}
	if c.started.IsZero() {
		return "created"
	}
	return "exited"
}

// inspect is the container as `docker inspect` has it.
func (d *docker) inspect(c *container) map[string]any {
	var health any
	if c.health {
		state := "starting"
		if !c.running {
			state = "unhealthy"
		} else if time.Since(c.started) > d.h.scale(containerHealthy) {
			state = "healthy"
		}
		health = map[string]any{"Status": state, "FailingStreak": 0, "Log": []any{}}
	}
	labels, exposed, bound, shown := map[string]any{}, map[string]any{}, map[string]any{}, map[string]any{}
	for k, v := range c.labels {
		labels[k] = v
	}
	for _, p := range c.ports {
		key := fmt.Sprintf("%d/tcp", p.Container)
		exposed[key] = map[string]any{}
		if p.Host == 0 {
			shown[key] = nil
			continue
		}
		bound[key] = []any{map[string]any{"HostIp": "", "HostPort": strconv.Itoa(p.Host)}}
		if c.running {
			shown[key] = []any{map[string]any{"HostIp": "0.0.0.0", "HostPort": strconv.Itoa(p.Host)}}
		}
	}
	pid := 0
	if len(c.procs) > 0 {
		pid = c.procs[0].PID()
	}
	return map[string]any{
		"Id": c.id, "Name": "/" + c.name, "Image": c.imageID, "Created": c.created.Format(time.RFC3339Nano), "RestartCount": 0, "Driver": "overlay2",
		"State": map[string]any{
			"Status": c.status(), "Running": c.running, "Paused": false, "Restarting": false, "OOMKilled": false, "Dead": false,
			"Pid": pid, "ExitCode": c.exit, "Error": "", "StartedAt": c.started.UTC().Format(time.RFC3339Nano), "Health": health,
		},
		"HostConfig": map[string]any{
			"RestartPolicy": map[string]any{"Name": c.restart, "MaximumRetryCount": 0},
			"PortBindings":  bound, "NetworkMode": "default", "Binds": []any{}, "Privileged": false,
			"AutoRemove": false, "LogConfig": map[string]any{"Type": "json-file", "Config": map[string]any{}},
		},
		"Config": map[string]any{
			"Image": c.image, "Labels": labels, "ExposedPorts": exposed, "Hostname": c.id[:12], "User": "", "Env": []any{"PATH=/usr/bin"},
			"Cmd": []any{}, "WorkingDir": "",
		},
		"NetworkSettings": map[string]any{"Ports": shown, "IPAddress": "172.17.0.2", "Networks": map[string]any{}},
		"Mounts":          []any{},
	}
}

// validJSON checks /etc/docker/daemon.json as the daemon does.
func (h *Host) validJSON(name string) error {
	data, err := h.tree.readFile(cred{}, name)
	if err != nil {
		return nil // the file is optional
	}
	var v map[string]any
	if err := json.Unmarshal(data, &v); err != nil {
		return fmt.Errorf("unable to configure the Docker daemon with file %s: %w", path.Base(name), err)
	}
	return nil
}
