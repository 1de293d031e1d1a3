package host

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"text/template"
)

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
