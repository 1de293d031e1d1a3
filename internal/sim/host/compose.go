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

// composeProject reads the project of a directory: its containers by service.
func (h *Host) composeProject(dir, file string) (project string, services []string, out map[string]Container, err error) {
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
		hash := sha256.Sum256(fmt.Appendf(nil, "%+v", s))
		c := Container{
			Name: s.ContainerName, Image: s.Image, Restart: s.Restart, Health: s.Healthcheck != nil,
			Labels: map[string]string{
				"com.docker.compose.project": project, "com.docker.compose.service": service, "com.docker.compose.container-number": "1",
				"com.docker.compose.oneoff": "False", "com.docker.compose.project.working_dir": dir, "com.docker.compose.project.config_files": path.Base(full),
				"com.docker.compose.config-hash": hex.EncodeToString(hash[:]), "com.docker.compose.version": "1.29.2",
			},
		}
		if c.Name == "" {
			c.Name = project + "_" + service + "_1"
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
	_, services, all, err := d.h.composeProject(dir, "")
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

// cmdCompose is docker-compose [-p PROJECT] [-f FILE] up -d | stop | start |
// down | ps -q, and up -d --no-recreate --no-deps SERVICE….
func cmdCompose(ctx context.Context, p *Proc) int {
	file, name, args := "", "", p.Args[1:]
	for len(args) > 1 && (args[0] == "-f" || args[0] == "-p") {
		if args[0] == "-f" {
			file = args[1]
		} else {
			name = args[1]
		}
		args = args[2:]
	}
	line := strings.Join(args, " ")
	const up = "up -d --no-recreate --no-deps "
	var only []string // services that are meant; nil = all
	if strings.HasPrefix(line, up) {
		only, line = strings.Fields(strings.TrimPrefix(line, up)), "up -d"
		if slices.ContainsFunc(only, func(s string) bool { return strings.HasPrefix(s, "-") }) {
			return p.refusef("docker-compose %s", strings.Join(args, " "))
		}
	}
	switch line {
	case "up -d", "stop", "start", "down", "ps -q":
	default:
		return p.refusef("docker-compose %s", line)
	}
	if err := p.dockerUp(); err != nil {
		fmt.Fprintln(p.Stderr, err)
		return 1
	}
	project, services, all, err := p.Host.composeProject(p.Dir, file)
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
	d := p.Host.dock
	if line == "up -d" {
		for _, s := range services {
			c := all[s]
			d.mu.Lock()
			exists := d.find(c.Name) != nil
			d.mu.Unlock()
			if exists {
				continue
			}
			if _, err := d.create(c, false); err != nil {
				fmt.Fprintf(p.Stderr, "ERROR: %v\n", err)
				return 1
			}
			fmt.Fprintf(p.Stderr, "Creating %s ... done\n", c.Name)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	status := 0
	for _, c := range slices.Clone(d.list) {
		if c.labels["com.docker.compose.project"] != project || !slices.Contains(services, c.labels["com.docker.compose.service"]) {
			continue
		}
		switch line {
		case "ps -q":
			fmt.Fprintln(p.Stdout, c.id)
		case "up -d", "start":
			if c.running {
				continue
			}
			if err := d.run(c, d.h.scale(containerWarmup)); err != nil {
				fmt.Fprintf(p.Stderr, "ERROR: for %s  %v\n", c.name, err)
				status = 1
				continue
			}
			fmt.Fprintf(p.Stderr, "Starting %s ... done\n", c.name)
		case "stop", "down":
			if c.running {
				d.halt(c)
				c.byHand = true
				fmt.Fprintf(p.Stderr, "Stopping %s ... done\n", c.name)
			}
			if line == "down" {
				d.list = slices.DeleteFunc(d.list, func(o *container) bool { return o == c })
				fmt.Fprintf(p.Stderr, "Removing %s ... done\n", c.name)
			}
		}
	}
	return status
}
