package hostos

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/internal/shellq"
)

// comesBack are the lines of a plan about the containers that run.
func comesBack(before *Docker, o DockerOptions) []string {
	var out []string
	for _, g := range groups(before, o.Dirs) {
		names := strings.Join(g.names(), ", ")
		switch {
		case g.project.Name == "":
			out = append(out, "start again what does not come back by itself: "+names)
		case g.project.Dir == "":
			out = append(out, "project "+g.project.Name+", started one by one: "+names)
		default:
			user := g.project.User
			if user == "" {
				user = "root"
			}
			out = append(out, fmt.Sprintf("project %s in %s as %s: up -d without making anything anew: %s", g.project.Name, g.project.Dir, user, names))
		}
	}
	return out
}

// A group is what is started together: the containers of a Compose project,
// or, with no project, all others.
type group struct {
	project    ComposeProject
	containers []DockerContainer
}

func (g group) names() []string {
	var out []string
	for _, c := range g.containers {
		out = append(out, c.Name)
	}
	return out
}

// groups sorts the containers that ran into groups; dirs name the directories
// of projects that do not say theirs.
func groups(before *Docker, dirs []string) []group {
	var out []group
	for _, p := range before.Projects {
		g := group{project: p}
		for _, dir := range dirs {
			if g.project.Dir == "" && composeName(dir) == p.Name {
				g.project.Dir = path.Clean(dir)
			}
		}
		for _, c := range before.Containers {
			if c.State == "running" && c.Project == p.Name && !c.OneOff {
				g.containers = append(g.containers, c)
			}
		}
		if len(g.containers) > 0 {
			out = append(out, g)
		}
	}
	rest := group{}
	for _, c := range before.Containers {
		if c.State == "running" && (c.Project == "" || c.OneOff) {
			rest.containers = append(rest.containers, c)
		}
	}
	if len(rest.containers) > 0 {
		out = append(out, rest)
	}
	return out
}

// match finds the container that c is now: by its name, or, where another
// Compose has given it another, by its place in the project.
func (d *Docker) match(c DockerContainer) (DockerContainer, bool) {
	if now, ok := d.container(c.Name); ok {
		return now, true
	}
	i := slices.IndexFunc(d.Containers, func(n DockerContainer) bool {
		return c.Project != "" && !c.OneOff && !n.OneOff && n.Project == c.Project && n.Service == c.Service && n.Number == c.Number
	})
	if i < 0 {
		return DockerContainer{}, false
	}
	return d.Containers[i], true
}

// CompareContainers says what of before is not as it was: a container that
// ran and does not, or has another image, other ports or other mounts. What
// did not run before does not count. It is pure.
func CompareContainers(before, now *Docker) []string {
	var out []string
	for _, c := range before.Containers {
		if c.State != "running" {
			continue
		}
		n, ok := now.match(c)
		switch {
		case !ok:
			out = append(out, "container "+c.Name+" is gone")
			continue
		case n.State != "running":
			out = append(out, fmt.Sprintf("container %s is %s (exit status %d)", c.Name, n.State, n.ExitCode))
		}
		if n.ImageID != c.ImageID {
			out = append(out, fmt.Sprintf("container %s had the image %s and has %s", c.Name, c.ImageID, n.ImageID))
		}
		if !slices.Equal(n.Ports, c.Ports) {
			out = append(out, fmt.Sprintf("container %s published %s and publishes %s", c.Name, list(c.Ports), list(n.Ports)))
		}
		if !slices.Equal(n.Mounts, c.Mounts) {
			out = append(out, fmt.Sprintf("container %s had the mounts %s and has %s", c.Name, list(c.Mounts), list(n.Mounts)))
		}
		if n.Restart != c.Restart {
			out = append(out, fmt.Sprintf("container %s had the restart policy %s and has %s", c.Name, c.Restart, n.Restart))
		}
	}
	return out
}

func list(s []string) string {
	if len(s) == 0 {
		return "none"
	}
	return strings.Join(s, ", ")
}

// StartContainers brings back every container that ran when before was taken,
// and waits until all of them run, asking every poll (0: 3 seconds), seen twice
// in a row. What came back by itself is left alone. Projects of Compose are
// brought up in the directory they were started in, as the user who owns it
// where that user may use the daemon's socket, and with nothing made anew that
// is there (up -d --no-recreate), for the services that ran and no others.
// With o.Down they are taken down first: what containers wrote outside volumes
// is lost then. All others are started by their names.
//
// now is the present state; nil: it is asked for. The error names every
// container that is not as it was.
func StartContainers(ctx context.Context, h Host, before, now *Docker, o DockerOptions, poll time.Duration) (*Docker, error) {
	if now == nil {
		var err error
		if now, err = GetDocker(ctx, h); err != nil {
			return nil, err
		}
	}
	if now.ServerVersion == "" && len(before.Running()) > 0 {
		return now, fmt.Errorf("cannot start the containers: docker cannot be asked: %s", now.Trouble)
	}
	did := false
	for _, g := range groups(before, o.Dirs) {
		cmd := g.start(now, o.Down)
		if cmd == "" {
			continue
		}
		did = true
		if _, err := output(ctx, h, cmd, nil); err != nil {
			what := "the containers " + strings.Join(g.missing(now), ", ")
			if g.project.Name != "" {
				what = "the Compose project " + g.project.Name
			}
			return now, fmt.Errorf("cannot start %s: %w", what, err)
		}
	}
	wrong := CompareContainers(before, now)
	if !did && len(wrong) == 0 {
		return now, nil
	}
	t := newTicker(poll)
	defer t.Stop()
	for ok := 0; ; {
		d, err := GetDocker(ctx, h)
		switch {
		case err == nil:
			now, wrong = d, CompareContainers(before, d)
			if ok++; len(wrong) > 0 {
				ok = 0
			}
			if ok == 2 {
				return now, nil
			}
		case ctx.Err() == nil:
			return now, err
		}
		select {
		case <-ctx.Done():
			if len(wrong) == 0 {
				wrong = []string{"they had just begun to run"}
			}
			return now, fmt.Errorf("the containers are not as before: %w (%s)", ctx.Err(), strings.Join(wrong, "; "))
		case <-t.C:
		}
	}
}

// start is the command that starts what of a group does not run; "" = all of
// it does.
func (g group) start(now *Docker, down bool) string {
	missing := g.missing(now)
	if len(missing) == 0 {
		return ""
	}
	if g.project.Dir == "" {
		return "docker start -- " + words(missing)
	}
	services := map[string]int{}
	for _, c := range g.containers {
		services[c.Service]++
	}
	return g.up(now, services, down)
}

// missing are the names of those that do not run.
func (g group) missing(now *Docker) []string {
	var out []string
	for _, c := range g.containers {
		if n, ok := now.match(c); !ok {
			out = append(out, c.Name)
		} else if n.State != "running" {
			out = append(out, n.Name)
		}
	}
	return out
}

// up brings a project up. Its replicas are counted out: up without a number
// takes those away that the file does not have.
func (g group) up(now *Docker, services map[string]int, down bool) string {
	compose := []string{"docker-compose"}
	second := slices.ContainsFunc(g.containers, func(c DockerContainer) bool { return strings.HasPrefix(strings.TrimPrefix(c.Compose, "v"), "2") })
	if now.ComposeV2 && (second || !now.ComposeV1) {
		compose = []string{"docker", "compose"}
	}
	compose = append(compose, "-p", g.project.Name)
	for _, f := range g.project.Files {
		compose = append(compose, "-f", f)
	}
	args := append(slices.Clone(compose), "up", "-d", "--no-recreate", "--no-deps")
	names := make([]string, 0, len(services))
	for s := range services {
		names = append(names, s)
	}
	slices.Sort(names)
	for _, s := range names {
		if services[s] > 1 {
			args = append(args, "--scale", s+"="+strconv.Itoa(services[s]))
		}
	}
	cmd := "cd " + shellq.Quote(g.project.Dir) + " || exit\n"
	if down {
		cmd += shellq.Join(append(slices.Clone(compose), "down")...) + " || exit\n"
	}
	cmd += shellq.Join(append(args, names...)...)
	if g.project.User == "" || g.project.User == "root" {
		return cmd
	}
	// Only root and the socket's group may use it: a user who is in neither
	// started the project through sudo, or when the socket was open to all.
	user := shellq.Quote(g.project.User)
	return "if su -s /bin/sh " + user + " -c '[ -w /var/run/docker.sock ]'; then\nsu -s /bin/sh " + user + " -c " + shellq.Quote(cmd) + "\nelse\n" + cmd + "\nfi"
}

// maxLogBytes bounds what GetContainerLogs keeps of one container.
const maxLogBytes = 32 << 10

// GetContainerLogs reads the last lines (at most lines, and 32 KiB) of what
// each of the containers wrote, one after the other under a heading: evidence,
// where the runbook watches "logs -f". It may hold anything that programs
// write, also what is secret: keep it in a private file.
func GetContainerLogs(ctx context.Context, h Host, names []string, lines int) ([]byte, error) {
	if len(names) == 0 {
		return nil, nil
	}
	out, err := output(ctx, h, "for n in "+words(names)+"; do\necho \"== $n\"\ntimeout 30 docker logs --timestamps --tail "+strconv.Itoa(lines)+` "$n" 2>&1 | tail -c `+strconv.Itoa(maxLogBytes)+"\ndone", nil)
	if err != nil {
		return nil, fmt.Errorf("cannot read the logs of the containers: %w", err)
	}
	return []byte(out), nil
}
