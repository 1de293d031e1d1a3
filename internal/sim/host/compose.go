package host

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	yaml "go.yaml.in/yaml/v4"
)

// composeFile is the part of docker-compose.yml that matters here; other keys
// that compose knows are accepted and have no effect.
type composeFile struct {
	Services map[string]struct {
		Image         string   `yaml:"image"`
		ContainerName string   `yaml:"container_name"`
		Ports         []string `yaml:"ports"`
		Restart       string   `yaml:"restart"`
		Healthcheck   any      `yaml:"healthcheck"`
	} `yaml:"services"`
}

// composePlugin is where a package puts Compose 2: a plugin of the docker
// command. A host whose description has the file has it.
const composePlugin = "/usr/libexec/docker/cli-plugins/docker-compose"

// The versions that are simulated. Version 2 puts hyphens into the names of
// containers, names its files by absolute paths, computes other hashes, and ps
// leaves out what does not run unless it is asked for all. Source: "Migrate to
// Compose V2" and "docker compose ps" of Docker's manual.
const (
	composeV1 = "1.29.2"
	composeV2 = "2.21.0"
)

// composeProject reads the project of a directory: its containers by service, as
// a version of Compose would make them.
func (h *Host) composeProject(dir, file, version string) (project string, services []string, out map[string]Container, err error) {
	name := file
	if name == "" {
		name = "docker-compose.yml"
	}
	full := absPath(dir, name)
	data, err := h.tree.readFile(cred{}, full)
	if err != nil {
		return "", nil, nil, fmt.Errorf("cannot find %s in %s: %w", name, dir, err)
	}
	var f composeFile
	if err := yaml.Unmarshal(data, &f); err != nil {
		return "", nil, nil, fmt.Errorf("cannot read %s: %w", full, err)
	}
	dir = path.Dir(full)
	project = regexp.MustCompile("[^-_a-z0-9]").ReplaceAllString(strings.ToLower(path.Base(dir)), "")
	out = map[string]Container{}
	for _, service := range slices.Sorted(maps.Keys(f.Services)) {
		s := f.Services[service]
		if s.Image == "" {
			return "", nil, nil, fmt.Errorf("service %s of %s has no image", service, full)
		}
		hash := sha256.Sum256(fmt.Appendf(nil, "%s %+v", version, s))
		files, sep := path.Base(full), "_"
		if version == composeV2 {
			files, sep = full, "-"
		}
		c := Container{
			Name: s.ContainerName, Image: s.Image, Restart: s.Restart, Health: s.Healthcheck != nil,
			Labels: map[string]string{
				"com.docker.compose.project": project, "com.docker.compose.service": service, "com.docker.compose.container-number": "1",
				"com.docker.compose.oneoff": "False", "com.docker.compose.project.working_dir": dir, "com.docker.compose.project.config_files": files,
				"com.docker.compose.config-hash": hex.EncodeToString(hash[:]), "com.docker.compose.version": version,
			},
		}
		if c.Name == "" {
			c.Name = project + sep + service + sep + "1"
		}
		for _, p := range s.Ports {
			port, err := parsePort(p)
			if err != nil {
				return "", nil, nil, fmt.Errorf("service %s of %s: %w", service, full, err)
			}
			c.Ports = append(c.Ports, port)
		}
		services = append(services, service)
		out[service] = c
	}
	return project, services, out, nil
}

// parsePort reads "8081:80", "127.0.0.1:8081:80", "80", each with "/tcp".
func parsePort(s string) (Port, error) {
	f := strings.Split(strings.TrimSuffix(s, "/tcp"), ":")
	inside, err := strconv.Atoi(f[len(f)-1])
	if err != nil {
		return Port{}, fmt.Errorf("port %q is not simulated", s)
	}
	if len(f) == 1 {
		return Port{Container: inside}, nil
	}
	outside, err := strconv.Atoi(f[len(f)-2])
	if err != nil {
		return Port{}, fmt.Errorf("port %q is not simulated", s)
	}
	return Port{Host: outside, Container: inside}, nil
}

// composeCreate makes the containers of a directory as if it had been brought
// up before the world began.
func (d *docker) composeCreate(dir string) error {
	_, services, all, err := d.h.composeProject(dir, "", composeV1)
	if err != nil {
		return err
	}
	for _, s := range services {
		if _, err := d.create(all[s], true); err != nil {
			return err
		}
	}
	return nil
}

// cmdCompose is docker-compose, which is Compose 1.
func cmdCompose(ctx context.Context, p *Proc) int { return p.compose(ctx, composeV1, p.Args[1:]) }

// compose is Compose with [-p PROJECT] [-f FILE] up -d | up -d --no-recreate |
// stop | start | down | ps -q, and up -d --no-recreate --no-deps SERVICE….
// Version 2 has version and ps -a -q besides.
func (p *Proc) compose(ctx context.Context, version string, args []string) int {
	file, name := "", ""
	for len(args) > 1 && (args[0] == "-f" || args[0] == "-p") {
		if args[0] == "-f" {
			file = args[1]
		} else {
			name = args[1]
		}
		args = args[2:]
	}
	line := strings.Join(args, " ")
	const keep, up = "up -d --no-recreate", "up -d --no-recreate --no-deps "
	var only []string // services that are meant; nil = all
	if strings.HasPrefix(line, up) {
		only, line = strings.Fields(strings.TrimPrefix(line, up)), keep
		if slices.ContainsFunc(only, func(s string) bool { return strings.HasPrefix(s, "-") }) {
			return p.refusef("compose %s", strings.Join(args, " "))
		}
	}
	second := version == composeV2
	switch line {
	case "up -d", keep, "stop", "start", "down", "ps -q":
	case "version", "ps -a -q":
		if !second {
			return p.refusef("compose %s", line)
		}
	default:
		return p.refusef("compose %s", line)
	}
	if line == "version" {
		fmt.Fprintln(p.Stdout, "Docker Compose version v"+version)
		return 0
	}
	if err := p.dockerUp(); err != nil {
		fmt.Fprintln(p.Stderr, err)
		return 1
	}
	project, services, all, err := p.Host.composeProject(p.Dir, file, version)
	if err != nil && second {
		fmt.Fprintf(p.Stderr, "no configuration file provided: not found (%v)\n", err)
		return 14
	}
	if err != nil {
		fmt.Fprintf(p.Stderr, "ERROR: %v\n", err)
		return 1
	}
	if name != "" && name != project {
		return p.refusef("a project that is not called as its directory")
	}
	for _, s := range only {
		if !slices.Contains(services, s) {
			fmt.Fprintf(p.Stderr, "ERROR: No such service: %s\n", s)
			return 1
		}
	}
	if only != nil {
		services = only
	}
	if p.Host.sleep(ctx, time.Second) != nil {
		return 143
	}
	say := func(what string, c *container) {
		if second {
			fmt.Fprintf(p.Stderr, " Container %s  %s\n", c.name, map[string]string{"Creating": "Created", "Starting": "Started", "Stopping": "Stopped", "Removing": "Removed", "Recreating": "Recreated"}[what])
			return
		}
		fmt.Fprintf(p.Stderr, "%s %s ... done\n", what, c.name)
	}
	d := p.Host.dock
	member := func(c *container) bool {
		return c.labels["com.docker.compose.project"] == project && slices.Contains(services, c.labels["com.docker.compose.service"])
	}
	if line == "up -d" || line == keep {
		for _, s := range services {
			d.mu.Lock()
			i := slices.IndexFunc(d.list, func(c *container) bool { return member(c) && c.labels["com.docker.compose.service"] == s })
			what := "Creating"
			if i >= 0 && line == "up -d" && d.list[i].labels["com.docker.compose.config-hash"] != all[s].Labels["com.docker.compose.config-hash"] {
				// Another file, or another Compose: a new container, without what was
				// written into the old one.
				if d.list[i].running {
					d.halt(d.list[i])
				}
				d.list = slices.Delete(d.list, i, i+1)
				i, what = -1, "Recreating"
			}
			d.mu.Unlock()
			if i >= 0 {
				continue
			}
			c, err := d.create(all[s], false)
			if err != nil {
				fmt.Fprintf(p.Stderr, "ERROR: %v\n", err)
				return 1
			}
			say(what, c)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	status := 0
	for _, c := range slices.Clone(d.list) {
		if !member(c) {
			continue
		}
		switch line {
		case "ps -q", "ps -a -q":
			if !second || c.running || line == "ps -a -q" {
				fmt.Fprintln(p.Stdout, c.id)
			}
		case "up -d", keep, "start":
			if c.running {
				continue
			}
			if err := d.run(c, d.h.scale(containerWarmup)); err != nil {
				fmt.Fprintf(p.Stderr, "ERROR: for %s  %v\n", c.name, err)
				status = 1
				continue
			}
			say("Starting", c)
		case "stop", "down":
			if c.running {
				d.halt(c)
				c.byHand = true
				say("Stopping", c)
			}
			if line == "down" {
				d.list = slices.DeleteFunc(d.list, func(o *container) bool { return o == c })
				say("Removing", c)
			}
		}
	}
	return status
}
