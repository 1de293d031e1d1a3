package host

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/template"
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

// psRow is what `docker ps --format` offers.
type psRow struct {
	ID, Image, Command, CreatedAt, RunningFor, Ports, State, Status, Size, Names, Labels, Mounts, Networks, LocalVolumes string

	labels map[string]string
}

// Label gives one label.
func (r psRow) Label(name string) string { return r.labels[name] }

func (d *docker) row(c *container, full bool) psRow {
	id := c.id
	if !full {
		id = id[:12]
	}
	status := "Created"
	switch c.status() {
	case "running":
		status = "Up Less than a second"
		if c.health {
			status += " (healthy)"
		}
	case "exited":
		status = fmt.Sprintf("Exited (%d) Less than a second ago", c.exit)
	}
	var ports, labels []string
	for _, p := range c.ports {
		if p.Host != 0 && c.running {
			ports = append(ports, fmt.Sprintf("0.0.0.0:%d->%d/tcp", p.Host, p.Container))
		} else if c.running {
			ports = append(ports, fmt.Sprintf("%d/tcp", p.Container))
		}
	}
	for _, k := range slices.Sorted(maps.Keys(c.labels)) {
		labels = append(labels, k+"="+c.labels[k])
	}
	return psRow{
		ID: id, Image: c.image, Command: `"` + path.Base(c.image) + `"`, CreatedAt: c.created.Format("2006-01-02 15:04:05 -0700 MST"),
		RunningFor: "2 weeks ago", Ports: strings.Join(ports, ", "), State: c.status(), Status: status, Size: "0B", Names: c.name,
		Labels: strings.Join(labels, ","), Networks: "bridge", LocalVolumes: "0", labels: c.labels,
	}
}

// render evaluates a format string over v.
func (p *Proc) render(format string, v any) (string, error) {
	t, err := template.New("").Funcs(template.FuncMap{
		"json": func(v any) (string, error) {
			var b bytes.Buffer
			e := json.NewEncoder(&b)
			e.SetEscapeHTML(false)
			err := e.Encode(v)
			return strings.TrimSpace(b.String()), err
		},
		"join": func(list []any, sep string) string {
			var out []string
			for _, v := range list {
				out = append(out, fmt.Sprint(v))
			}
			return strings.Join(out, sep)
		},
		"split": strings.Split, "lower": strings.ToLower, "upper": strings.ToUpper,
	}).Option("missingkey=error").Parse(format)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	err = t.Execute(&b, v)
	return b.String(), err
}

var errNoDaemon = errors.New("Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?") //lint:ignore ST1005 docker's own words

// dockerUp says why the daemon cannot be asked.
func (p *Proc) dockerUp() error {
	d := p.Host.dock
	d.mu.Lock()
	up := d.daemon != nil
	d.mu.Unlock()
	if !up {
		return errNoDaemon
	}
	if i, err := p.tree().stat(p.p.cred, dockerSocket, true); err == nil && p.p.cred.uid != 0 && i.mode&0o006 != 0o006 {
		return errors.New("Got permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock") //lint:ignore ST1005 docker's own words
	}
	return nil
}

func cmdDocker(ctx context.Context, p *Proc) int {
	if len(p.Args) < 2 {
		return p.refusef("docker without a command")
	}
	verb := p.Args[1]
	if verb == "compose" {
		if _, err := p.tree().stat(p.p.cred, composePlugin, true); err == nil {
			return p.compose(ctx, composeV2, p.Args[2:])
		}
		fmt.Fprintln(p.Stderr, "docker: 'compose' is not a docker command.\nSee 'docker --help'")
		return 1
	}
	sub := *p
	sub.Args = append([]string{"docker " + verb}, p.Args[2:]...)
	todo := map[string]func(*Proc) int{
		"import": dockerImport, "run": dockerRun, "rm": dockerRemove, "rmi": dockerRemove, "logs": dockerLogs,
		"ps": dockerPs, "inspect": dockerInspect, "start": dockerStartStop, "stop": dockerStartStop, "info": dockerInfo, "version": dockerVersion, "images": dockerImages,
	}[verb]
	if todo == nil {
		return p.refusef("docker %s", verb)
	}
	return todo(&sub)
}

func dockerPs(p *Proc) int {
	f, ok := p.flags("-a", "-q", "--no-trunc", "--format=")
	if !ok {
		return statusUnknownFlag
	}
	format, has := f.val["--format"]
	if len(f.rest) > 0 || !has && !f.is["-q"] {
		return p.refusef("docker ps without -q or --format")
	}
	if err := p.dockerUp(); err != nil {
		fmt.Fprintln(p.Stderr, err)
		return 1
	}
	if f.is["-q"] {
		format = "{{.ID}}"
	}
	d := p.Host.dock
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range slices.Backward(d.list) { // newest first
		if !c.running && !f.is["-a"] {
			continue
		}
		line, err := p.render(format, d.row(c, f.is["--no-trunc"]))
		if err != nil {
			fmt.Fprintf(p.Stderr, "%v\n", err)
			return 1
		}
		fmt.Fprintln(p.Stdout, line)
	}
	return 0
}

func dockerInspect(p *Proc) int {
	f, ok := p.flags("--format=")
	if !ok {
		return statusUnknownFlag
	}
	format, has := f.val["--format"]
	if !has {
		return p.refusef("docker inspect without --format")
	}
	if len(f.rest) == 0 {
		fmt.Fprintln(p.Stderr, `"docker inspect" requires at least 1 argument.`)
		return 1
	}
	if err := p.dockerUp(); err != nil {
		fmt.Fprintln(p.Stderr, err)
		return 1
	}
	d := p.Host.dock
	d.mu.Lock()
	defer d.mu.Unlock()
	status := 0
	for _, name := range f.rest {
		c := d.find(name)
		if c == nil {
			fmt.Fprintf(p.Stderr, "Error: No such object: %s\n", name)
			status = 1
			continue
		}
		v := d.inspect(c)
		if strings.Contains(format, ".Id") {
			// Only docker's JSON has this name, and no Health where there is none.
			if state, ok := v["State"].(map[string]any); ok && state["Health"] == nil {
				delete(state, "Health")
			}
		} else {
			v["ID"] = v["Id"]
			delete(v, "Id")
		}
		line, err := p.render(format, v)
		if err != nil {
			fmt.Fprintf(p.Stderr, "template parsing error: %v\n", err)
			return 64
		}
		fmt.Fprintln(p.Stdout, line)
	}
	return status
}

func dockerStartStop(p *Proc) int {
	f, ok := p.flags()
	if !ok {
		return statusUnknownFlag
	}
	if err := p.dockerUp(); err != nil {
		fmt.Fprintln(p.Stderr, err)
		return 1
	}
	d := p.Host.dock
	d.mu.Lock()
	defer d.mu.Unlock()
	status := 0
	for _, name := range f.rest {
		c := d.find(name)
		var err error
		switch {
		case c == nil:
			//lint:ignore ST1005 docker's own words
			err = fmt.Errorf("No such container: %s", name)
		case p.Args[0] == "docker start" && !c.running:
			err = d.run(c, d.h.scale(containerWarmup))
		case p.Args[0] == "docker stop" && c.running:
			d.halt(c)
			c.byHand = true
		}
		if err != nil {
			fmt.Fprintf(p.Stderr, "Error response from daemon: %v\n", err)
			status = 1
			continue
		}
		fmt.Fprintln(p.Stdout, name)
	}
	return status
}

func dockerInfo(p *Proc) int {
	f, ok := p.flags("--format=")
	if !ok {
		return statusUnknownFlag
	}
	format, has := f.val["--format"]
	if !has || len(f.rest) > 0 {
		return p.refusef("docker info without --format")
	}
	if err := p.dockerUp(); err != nil {
		fmt.Fprintln(p.Stderr, err)
		return 1
	}
	d := p.Host.dock
	d.mu.Lock()
	running := 0
	for _, c := range d.list {
		running += boolInt(c.running)
	}
	v := map[string]any{
		"ID": "SIMULATED", "Containers": len(d.list), "ContainersRunning": running, "ContainersPaused": 0, "ContainersStopped": len(d.list) - running,
		"Images": len(d.list), "Driver": "overlay2", "LoggingDriver": "json-file", "CgroupDriver": "cgroupfs", "KernelVersion": d.h.Kernel(),
		"OperatingSystem": "CentOS Linux 7 (Core)", "OSType": "linux", "Architecture": "x86_64", "Name": d.h.spec.Hostname,
		"ServerVersion": d.version(), "DockerRootDir": "/var/lib/docker", "LiveRestoreEnabled": false,
	}
	d.mu.Unlock()
	return p.printFormat(format, v)
}

// dockerImages lists the images of the containers; none of them was pulled by
// digest, as of images that were built or loaded here.
func dockerImages(p *Proc) int {
	f, ok := p.flags("--digests", "--no-trunc", "--format=")
	if !ok {
		return statusUnknownFlag
	}
	format, has := f.val["--format"]
	if !has || !f.is["--no-trunc"] || len(f.rest) > 0 {
		return p.refusef("docker images without --no-trunc and --format")
	}
	if err := p.dockerUp(); err != nil {
		fmt.Fprintln(p.Stderr, err)
		return 1
	}
	d := p.Host.dock
	d.mu.Lock()
	defer d.mu.Unlock()
	seen := map[string]bool{}
	for _, c := range d.list {
		if seen[c.image] {
			continue
		}
		seen[c.image] = true
		repository, tag, _ := strings.Cut(c.image, ":")
		line, err := p.render(format, map[string]any{"ID": c.imageID, "Repository": repository, "Tag": tag, "Digest": "<none>"})
		if err != nil {
			fmt.Fprintf(p.Stderr, "template parsing error: %v\n", err)
			return 64
		}
		fmt.Fprintln(p.Stdout, line)
	}
	return 0
}

func dockerVersion(p *Proc) int {
	f, ok := p.flags("--format=")
	if !ok {
		return statusUnknownFlag
	}
	format, has := f.val["--format"]
	if !has || len(f.rest) > 0 {
		return p.refusef("docker version without --format")
	}
	version := p.Host.dock.version()
	part := func() map[string]any {
		return map[string]any{"Version": version, "Os": "linux", "Arch": "amd64", "KernelVersion": p.Host.Kernel()}
	}
	v := map[string]any{"Client": part(), "Server": part()}
	err := p.dockerUp()
	if err != nil {
		v["Server"] = nil
	}
	status := 0
	if err == nil || !strings.Contains(format, ".Server") {
		status = p.printFormat(format, v)
	}
	if err != nil {
		fmt.Fprintln(p.Stderr, err)
		return 1
	}
	return status
}

func (p *Proc) printFormat(format string, v any) int {
	line, err := p.render(format, v)
	if err != nil {
		fmt.Fprintf(p.Stderr, "template parsing error: %v\n", err)
		return 64
	}
	fmt.Fprintln(p.Stdout, line)
	return 0
}
