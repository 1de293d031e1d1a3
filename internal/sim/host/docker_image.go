package host

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"
)

// runLimits gives the first of daemon.json's default limits that a runtime on
// this host may not give, by its number (getrlimit(2)): root may raise that of
// open files up to fs.nr_open, and the others at will.
func (h *Host) runLimits() (rlimit int, bad bool) {
	data, err := h.tree.readFile(cred{}, "/etc/docker/daemon.json")
	if err != nil {
		return 0, false
	}
	var v struct {
		Limits map[string]struct{ Hard int64 } `json:"default-ulimits"`
	}
	if json.Unmarshal(data, &v) != nil {
		return 0, false
	}
	hard := v.Limits["nofile"].Hard
	return 7, hard < 0 || hard > nrOpen
}

// dockerImport is docker import FILE NAME:TAG.
func dockerImport(d *docker, p *Proc, f flags) int {
	data, err := p.tree().readFile(p.p.cred, p.abs(f.rest[0]))
	if err != nil {
		fmt.Fprintf(p.Stderr, "open %s: no such file or directory\n", f.rest[0])
		return 1
	}
	files := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		t, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			files["/"+t.Name], err = io.ReadAll(r)
		}
		if err != nil {
			fmt.Fprintf(p.Stderr, "Error response from daemon: %v\n", err)
			return 1
		}
	}
	if d.images == nil {
		d.images = map[string]map[string][]byte{}
	}
	d.images[f.rest[1]] = files
	fmt.Fprintln(p.Stdout, "sha256:"+strings.Repeat("0", 64))
	return 0
}

// dockerRun is docker run --rm --name N --network none IMAGE PROGRAM ARGS, of an
// image that was imported here, and of a program that ends at once.
func dockerRun(d *docker, p *Proc, f flags) int {
	if err := p.dockerUp(); err != nil {
		fmt.Fprintln(p.Stderr, "docker: "+err.Error())
		return 125
	}
	d.mu.Lock()
	files, has := d.images[f.rest[0]]
	name := d.find(f.val["--name"])
	d.mu.Unlock()
	switch {
	case name != nil:
		fmt.Fprintf(p.Stderr, "docker: Error response from daemon: Conflict. The container name %q is already in use.\n", f.val["--name"])
		return 125
	case !has:
		return p.refusef("an image that was not imported")
	}
	const prefix = "docker: Error response from daemon: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: "
	if n, bad := p.Host.runLimits(); bad {
		fmt.Fprintf(p.Stderr, prefix+"error during container init: error setting rlimits for ready process: error setting rlimit type %d: operation not permitted: unknown.\n", n)
		return 126
	}
	data, has := files[f.rest[1]]
	program, static := strings.CutPrefix(string(data), elf)
	switch {
	case !has || !static:
		fmt.Fprintf(p.Stderr, prefix+"exec: %q: stat %s: no such file or directory: unknown.\n", f.rest[1], f.rest[1])
		return 127
	case strings.TrimSpace(program) != "docker-init" || !slices.Equal(f.rest[2:], []string{"--version"}):
		return p.refusef("a container that runs %s %v", strings.TrimSpace(program), f.rest[2:])
	}
	fmt.Fprintln(p.Stdout, "tini version 0.19.0")
	return 0
}

// dockerRemove is docker rm -f NAME….
func dockerRemove(d *docker, p *Proc, f flags) int {
	return removeAll(p, f, "container", func(name string) bool {
		c := d.find(name)
		if c == nil {
			return false
		}
		if c.running {
			d.halt(c)
		}
		d.list = slices.DeleteFunc(d.list, func(o *container) bool { return o == c })
		return true
	})
}

// dockerRemoveImage is docker rmi IMAGE….
func dockerRemoveImage(d *docker, p *Proc, f flags) int {
	return removeAll(p, f, "image", func(name string) bool {
		_, has := d.images[name]
		delete(d.images, name)
		return has
	})
}

// removeAll removes each operand and says which were not there.
func removeAll(p *Proc, f flags, what string, remove func(name string) bool) int {
	status := 0
	for _, name := range f.rest {
		if !remove(name) {
			fmt.Fprintf(p.Stderr, "Error: No such %s: %s\n", what, name)
			status = 1
			continue
		}
		fmt.Fprintln(p.Stdout, name)
	}
	return status
}

// dockerLogs is docker logs --timestamps --tail N NAME. The built-in
// applications write one line when they start.
func dockerLogs(d *docker, p *Proc, f flags) int {
	c := d.find(f.rest[0])
	if c == nil {
		fmt.Fprintf(p.Stderr, "Error: No such container: %s\n", f.rest[0])
		return 1
	}
	if !c.started.IsZero() {
		fmt.Fprintf(p.Stdout, "%s %s started\n", c.started.UTC().Format(time.RFC3339Nano), path.Base(c.image))
	}
	return 0
}

// cmdDockerd is dockerd --version, and --help of a version without --validate.
func cmdDockerd(_ context.Context, p *Proc) int {
	f, ok := p.flags("--version", "--help")
	switch {
	case !ok:
		return statusUnknownFlag
	case f.is["--version"]:
		fmt.Fprintf(p.Stdout, "Docker version %s, build simulated\n", p.Host.dock.version())
	case f.is["--help"]:
		fmt.Fprint(p.Stdout, "\nUsage:\tdockerd [OPTIONS]\n\nA self-sufficient runtime for containers.\n\nOptions:\n      --config-file string   Daemon configuration file (default \"/etc/docker/daemon.json\")\n")
	default:
		return p.refusef("dockerd by hand")
	}
	return 0
}

// cmdDockerInit is docker-init --version.
func cmdDockerInit(_ context.Context, p *Proc) int {
	if !slices.Equal(p.Args[1:], []string{"--version"}) {
		return p.refusef("only docker-init --version")
	}
	fmt.Fprintln(p.Stdout, "tini version 0.19.0")
	return 0
}
