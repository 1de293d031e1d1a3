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
	c, known := dockerCommands()[verb]
	if !known {
		return p.refusef("docker %s", verb)
	}
	sub := *p
	sub.Args = append([]string{"docker " + verb}, p.Args[2:]...)
	return c.exec(&sub)
}

// A dockerCommand is a command of the docker client, as far as it is simulated.
type dockerCommand struct {
	options  []string           // as Proc.flags takes them
	form     string             // the command lines that are known, in words
	known    func(f flags) bool // whether a command line is one of them; nil = all are
	operands bool               // it takes one or more
	run      func(d *docker, p *Proc, f flags) int
	alone    bool // run asks for the daemon and locks it itself; otherwise it is up, and d.mu is held
}

func dockerCommands() map[string]dockerCommand {
	formatted := func(f flags) bool { return f.has("--format") && len(f.rest) == 0 }
	format := []string{"--format="}
	return map[string]dockerCommand{
		"ps": {
			options: []string{"-a", "-q", "--no-trunc", "--format="}, form: "-q or --format F",
			known: func(f flags) bool { return len(f.rest) == 0 && (f.is["-q"] || f.has("--format")) }, run: dockerPs,
		},
		"inspect": {options: format, form: "--format F NAME…", known: func(f flags) bool { return f.has("--format") }, operands: true, run: dockerInspect},
		"start":   {operands: true, run: dockerStartStop},
		"stop":    {operands: true, run: dockerStartStop},
		"info":    {options: format, form: "--format F", known: formatted, run: dockerInfo},
		"version": {options: format, form: "--format F", known: formatted, run: dockerVersion, alone: true},
		"images": {
			options: []string{"--digests", "--no-trunc", "--format="}, form: "--no-trunc --format F",
			known: func(f flags) bool { return formatted(f) && f.is["--no-trunc"] }, run: dockerImages,
		},
		"import": {form: "FILE NAME:TAG", known: func(f flags) bool { return len(f.rest) == 2 && strings.Contains(f.rest[1], ":") }, run: dockerImport},
		"run": {
			options: []string{"+", "--rm", "--name=", "--network="}, form: "--rm --name N --network none IMAGE PROGRAM ARGS",
			known: func(f flags) bool {
				return f.is["--rm"] && f.val["--network"] == "none" && f.val["--name"] != "" && len(f.rest) > 1
			}, run: dockerRun, alone: true,
		},
		"rm":  {options: []string{"-f"}, form: "-f NAME…", known: func(f flags) bool { return f.is["-f"] && len(f.rest) > 0 }, run: dockerRemove},
		"rmi": {form: "IMAGE…", known: func(f flags) bool { return len(f.rest) > 0 }, run: dockerRemoveImage},
		"logs": {
			options: []string{"--timestamps", "--tail="}, form: "--timestamps --tail N NAME",
			known: func(f flags) bool {
				n, ok := number(f.val["--tail"])
				return f.is["--timestamps"] && ok && n > 0 && len(f.rest) == 1
			}, run: dockerLogs,
		},
	}
}

func (c dockerCommand) exec(p *Proc) int {
	f, ok := p.flags(c.options...)
	switch {
	case !ok:
		return statusUnknownFlag
	case c.known != nil && !c.known(f):
		return p.refusef("%s other than %s", p.Args[0], c.form)
	case c.operands && len(f.rest) == 0:
		fmt.Fprintf(p.Stderr, "%q requires at least 1 argument.\n", p.Args[0])
		return 1
	}
	d := p.Host.dock
	if c.alone {
		return c.run(d, p, f)
	}
	if err := p.dockerUp(); err != nil {
		fmt.Fprintln(p.Stderr, err)
		return 1
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return c.run(d, p, f)
}

func dockerPs(d *docker, p *Proc, f flags) int {
	format := f.val["--format"]
	if f.is["-q"] {
		format = "{{.ID}}"
	}
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

func dockerInspect(d *docker, p *Proc, f flags) int {
	format := f.val["--format"]
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
		if status := p.printFormat(format, v); status != 0 {
			return status
		}
	}
	return status
}

func dockerStartStop(d *docker, p *Proc, f flags) int {
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

func dockerInfo(d *docker, p *Proc, f flags) int {
	running := 0
	for _, c := range d.list {
		running += boolInt(c.running)
	}
	return p.printFormat(f.val["--format"], map[string]any{
		"ID": "SIMULATED", "Containers": len(d.list), "ContainersRunning": running, "ContainersPaused": 0, "ContainersStopped": len(d.list) - running,
		"Images": len(d.list), "Driver": "overlay2", "LoggingDriver": "json-file", "CgroupDriver": "cgroupfs", "KernelVersion": d.h.Kernel(),
		"OperatingSystem": "CentOS Linux 7 (Core)", "OSType": "linux", "Architecture": "x86_64", "Name": d.h.spec.Hostname,
		"ServerVersion": d.version(), "DockerRootDir": "/var/lib/docker", "LiveRestoreEnabled": false,
	})
}

// dockerImages lists the images of the containers; none of them was pulled by
// digest, as of images that were built or loaded here.
func dockerImages(d *docker, p *Proc, f flags) int {
	seen := map[string]bool{}
	for _, c := range d.list {
		if seen[c.image] {
			continue
		}
		seen[c.image] = true
		repository, tag, _ := strings.Cut(c.image, ":")
		if status := p.printFormat(f.val["--format"], map[string]any{"ID": c.imageID, "Repository": repository, "Tag": tag, "Digest": "<none>"}); status != 0 {
			return status
		}
	}
	return 0
}

// dockerVersion says the client's version also where no daemon runs.
func dockerVersion(d *docker, p *Proc, f flags) int {
	format, version := f.val["--format"], d.version()
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

// printFormat prints a line, or says what is wrong with the format.
func (p *Proc) printFormat(format string, v any) int {
	line, err := p.render(format, v)
	if err != nil {
		fmt.Fprintf(p.Stderr, "template parsing error: %v\n", err)
		return 64
	}
	fmt.Fprintln(p.Stdout, line)
	return 0
}
