package hostos

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// daemonJSON is where the Docker daemon reads its settings.
const daemonJSON = "/etc/docker/daemon.json"

// DockerInstalled tells whether the host has a docker command.
func DockerInstalled(ctx context.Context, h Host) (bool, error) { return has(ctx, h, "docker") }

// Docker is what a host has of a container engine, and what runs in it. It
// holds no value of an environment variable and no content of daemon.json, so
// it may stand in a plan.
type Docker struct {
	Command  string   `json:"command"`            // path of the docker command; "" = none
	Manager  string   `json:"manager"`            // "rpm", "apt", or "" when the host has neither yum, dnf nor apt-get
	Owner    string   `json:"owner,omitempty"`    // package that owns Command
	Packages []string `json:"packages,omitempty"` // installed ones that have to do with an engine: NAME-EPOCH:VERSION-RELEASE.ARCH, of apt NAME=VERSION
	Enabled  string   `json:"enabled,omitempty"`  // what systemctl is-enabled docker says
	Active   string   `json:"active,omitempty"`   // what systemctl is-active docker says

	// What the daemon says; all empty when it cannot be asked, and Trouble says
	// why then.
	ServerVersion string `json:"server_version,omitempty"`
	StorageDriver string `json:"storage_driver,omitempty"`
	DataRoot      string `json:"data_root,omitempty"`
	CgroupDriver  string `json:"cgroup_driver,omitempty"`
	LogDriver     string `json:"log_driver,omitempty"`
	LiveRestore   bool   `json:"live_restore,omitempty"`
	Trouble       string `json:"trouble,omitempty"`

	// Flags are what the running daemon was started with. The distribution's
	// unit takes them from files that the unit of docker-ce does not read. Kept
	// are those that the administrator's own unit file or drop-in in
	// /etc/systemd/system gives it: they stay when the package goes.
	Flags []string `json:"flags,omitempty"`
	Kept  []string `json:"kept,omitempty"`

	DaemonJSON   []byte `json:"-"`                            // content of daemon.json; nil = there is none. It may hold passwords of proxies and registries
	DaemonSHA256 string `json:"daemon_json_sha256,omitempty"` // of DaemonJSON, hex; "" = there is none

	// Limits are the highest hard limits that the daemon can give to a container,
	// by the names of default-ulimits; -1 = no limit. What is not listed was not
	// found out.
	Limits map[string]int64 `json:"limits,omitempty"`
	Kernel string           `json:"kernel"` // uname -r

	ComposeV1 bool `json:"compose_v1,omitempty"` // there is a docker-compose command
	ComposeV2 bool `json:"compose_v2,omitempty"` // docker compose works

	Containers []DockerContainer `json:"containers,omitempty"` // in the order of their names
	Projects   []ComposeProject  `json:"projects,omitempty"`   // in the order of their names
}

// A DockerContainer is one container, running or not.
type DockerContainer struct {
	Name      string   `json:"name"`
	ID        string   `json:"id"`
	Image     string   `json:"image"`    // as it was asked for
	ImageID   string   `json:"image_id"` // digest of what it is
	State     string   `json:"state"`    // "running", "exited", …
	ExitCode  int      `json:"exit_code,omitempty"`
	Restart   string   `json:"restart"`           // restart policy: "no", "always", "unless-stopped", "on-failure"
	Remove    bool     `json:"remove,omitempty"`  // --rm: it is gone when it stops
	Ports     []string `json:"ports,omitempty"`   // published: "8080/tcp 0.0.0.0:80", sorted
	Mounts    []string `json:"mounts,omitempty"`  // "bind /srv/data /data rw", sorted; an anonymous volume's source is "-"
	Project   string   `json:"project,omitempty"` // of Compose
	Service   string   `json:"service,omitempty"` // of Compose
	Number    string   `json:"number,omitempty"`  // of Compose: which of the service's
	OneOff    bool     `json:"one_off,omitempty"` // made by compose run: nobody starts it again
	Compose   string   `json:"compose,omitempty"` // version of Compose that made it
	LogDriver string   `json:"log_driver,omitempty"`
}

// A ComposeProject is what the labels of containers say of the Compose project
// they belong to.
type ComposeProject struct {
	Name  string   `json:"name"`
	Dir   string   `json:"dir,omitempty"`   // where it was started; "" = a Compose older than 1.25, which does not say
	Files []string `json:"files,omitempty"` // its files; empty = the usual name
	User  string   `json:"user,omitempty"`  // owner of Dir; "" = unknown
}

// Running are the names of the containers that run.
func (d *Docker) Running() []string {
	var out []string
	for _, c := range d.Containers {
		if c.State == "running" {
			out = append(out, c.Name)
		}
	}
	return out
}

func (d *Docker) container(name string) (DockerContainer, bool) {
	i := slices.IndexFunc(d.Containers, func(c DockerContainer) bool { return c.Name == name })
	if i < 0 {
		return DockerContainer{}, false
	}
	return d.Containers[i], true
}

// enginePackages are the packages that distributions and Docker have made the
// engine of, and those that stand in its place.
var enginePackages = []string{
	"docker", "docker-client", "docker-client-latest", "docker-common", "docker-latest", "docker-latest-logrotate", "docker-logrotate",
	"docker-selinux", "docker-engine", "docker-engine-selinux", "docker.io", "docker-doc", "podman-docker", "moby-engine", "moby-cli",
	"docker-ce", "docker-ce-cli", "docker-ce-rootless-extras", "docker-buildx-plugin", "docker-compose-plugin", "containerd.io", "containerd", "runc", "docker-compose",
}

// getDocker reads everything in one go and changes nothing. Sections begin
// with a line "@NAME"; daemon.json comes last, as it is.
const getDocker = `PATH=$PATH:/usr/local/bin:/usr/sbin:/sbin
export PATH
echo @client
c=$(command -v docker) && echo "$c"
echo @packages
if [ -s /var/lib/dpkg/status ] && command -v apt-get >/dev/null; then
	echo apt
	dpkg-query -W -f '${db:Status-Abbrev} ${Package}=${Version}\n' @NAMES@ 2>/dev/null
	echo @owner
	[ -z "$c" ] || dpkg -S "$c" 2>/dev/null
elif command -v rpm >/dev/null && { command -v yum >/dev/null || command -v dnf >/dev/null; }; then
	echo rpm
	rpm -q --qf 'ii  %{NAME}-%{EPOCHNUM}:%{VERSION}-%{RELEASE}.%{ARCH}\n' @NAMES@
	echo @owner
	[ -z "$c" ] || rpm -qf --qf '%{NAME}\n' "$c"
fi
echo @units
systemctl is-enabled docker 2>/dev/null
echo .
systemctl is-active docker 2>/dev/null
echo @override
cat /etc/systemd/system/docker.service /etc/systemd/system/docker.service.d/*.conf 2>/dev/null
p=$(cat /run/docker.pid 2>/dev/null || cat /var/run/docker.pid 2>/dev/null)
case "$p" in ''|*[!0-9]*) p=;; *) [ -e "/proc/$p/limits" ] || p=;; esac
echo
echo @flags
[ -z "$p" ] || tr '\000' '\n' <"/proc/$p/cmdline"
echo
echo @limits
cat "/proc/${p:-1}/limits" 2>/dev/null
grep CapEff "/proc/${p:-1}/status" 2>/dev/null
echo "nr_open $(cat /proc/sys/fs/nr_open 2>/dev/null)"
echo @kernel
uname -r
if [ -n "$c" ]; then
	echo @compose
	command -v docker-compose >/dev/null && echo v1
	docker compose version >/dev/null 2>&1 && echo v2
	echo @info
	timeout 30 docker info --format '@INFO@' 2>&1
	echo @containers
	ids=$(timeout 30 docker ps -aq --no-trunc 2>/dev/null)
	if [ -n "$ids" ]; then
		set -- $ids
		echo "@of $#"
		timeout 60 docker inspect --format '@INSPECT@' $ids 2>/dev/null
		echo @owners
		timeout 60 docker inspect --format '{{with .Config.Labels}}{{with index . "com.docker.compose.project.working_dir"}}{{.}}{{end}}{{end}}' $ids 2>/dev/null |
			sort -u | while IFS= read -r d; do u=$(stat -c %U -- "$d" 2>/dev/null) && echo "$u $d"; done
	fi
fi
echo @daemon
cat /etc/docker/daemon.json 2>/dev/null
:
`

// Fields have the names that they have in docker's own program, not those of
// its JSON: there a field that is empty is missing, which ends the template.
const (
	dockerInfoFormat    = `[{{json .ServerVersion}},{{json .Driver}},{{json .DockerRootDir}},{{json .CgroupDriver}},{{json .LoggingDriver}},{{json .LiveRestoreEnabled}}]`
	dockerInspectFormat = `[{{json .Name}},{{json .ID}},{{json .Config.Image}},{{json .Image}},{{json .State.Status}},{{json .State.ExitCode}},` +
		`{{json .HostConfig.RestartPolicy.Name}},{{json .HostConfig.AutoRemove}},{{json .HostConfig.PortBindings}},` +
		`[{{range .Mounts}}[{{json .Type}},{{json .Source}},{{json .Name}},{{json .Destination}},{{json .RW}}],{{end}}null],` +
		`{{with .Config.Labels}}[{{json (index . "com.docker.compose.project")}},{{json (index . "com.docker.compose.service")}},` +
		`{{json (index . "com.docker.compose.container-number")}},{{json (index . "com.docker.compose.oneoff")}},{{json (index . "com.docker.compose.version")}},` +
		`{{json (index . "com.docker.compose.project.working_dir")}},{{json (index . "com.docker.compose.project.config_files")}}]{{else}}[]{{end}},` +
		`{{json .HostConfig.LogConfig.Type}}]`
)

// GetDocker reads what the host has of Docker with one command, and changes
// nothing. A host without Docker is no error: Command is empty then. A daemon
// that cannot be asked is none either: Trouble says why.
func GetDocker(ctx context.Context, h Host) (*Docker, error) {
	cmd := strings.NewReplacer("@NAMES@", strings.Join(enginePackages, " "), "@INFO@", dockerInfoFormat, "@INSPECT@", dockerInspectFormat).Replace(getDocker)
	for try := 1; ; try++ {
		out, err := output(ctx, h, cmd, nil)
		if err != nil {
			return nil, fmt.Errorf("cannot read the state of Docker: %w", err)
		}
		d, err := parseDocker(out)
		if err == nil {
			return d, nil
		}
		// A container may go between the list and its description.
		if !errors.Is(err, errInPart) || try == 3 {
			return nil, fmt.Errorf("cannot read the state of Docker: %w", err)
		}
	}
}

var errInPart = errors.New("docker inspect does not describe all containers")

// parseDocker reads the answer of getDocker.
func parseDocker(out string) (*Docker, error) {
	head, daemon, ok := strings.Cut(out, "\n@daemon\n")
	if !ok {
		return nil, fmt.Errorf("the answer is cut off after %d bytes", len(out))
	}
	sections := map[string][]string{}
	name, want := "", 0
	for line := range strings.SplitSeq(head, "\n") {
		if n, ok := strings.CutPrefix(line, "@"); ok {
			if of, ok := strings.CutPrefix(n, "of "); ok {
				want, _ = strconv.Atoi(of)
				continue
			}
			name = n
			sections[name] = []string{}
			continue
		}
		if line != "" {
			sections[name] = append(sections[name], line)
		}
	}
	first := func(name string) string {
		if s := sections[name]; len(s) > 0 {
			return strings.TrimSpace(s[0])
		}
		return ""
	}
	d := &Docker{Command: first("client"), Manager: first("packages"), Kernel: first("kernel"), Limits: map[string]int64{}}
	if daemon != "" {
		sum := sha256.Sum256([]byte(daemon))
		d.DaemonJSON, d.DaemonSHA256 = []byte(daemon), hex.EncodeToString(sum[:])
	}
	for _, line := range sections["packages"] {
		// "ii": wanted and installed; everything else is a rest of a removed one.
		if p, ok := strings.CutPrefix(line, "ii  "); ok {
			d.Packages = append(d.Packages, strings.TrimSpace(p))
		}
	}
	slices.Sort(d.Packages)
	d.Owner, _, _ = strings.Cut(first("owner"), ":") // dpkg: "docker.io: /usr/bin/docker"
	if strings.Contains(d.Owner, " ") {
		d.Owner = "" // "file … is not owned by any package"
	}
	units := strings.Join(sections["units"], "\n")
	enabled, active, _ := strings.Cut("\n"+units, "\n.")
	d.Enabled, d.Active = strings.TrimSpace(enabled), strings.TrimSpace(active)
	d.Kept = execStart(sections["override"])
	if f := sections["flags"]; len(f) > 1 {
		d.Flags = f[1:]
	}
	d.readLimits(sections["limits"])
	d.ComposeV1 = slices.Contains(sections["compose"], "v1")
	d.ComposeV2 = slices.Contains(sections["compose"], "v2")
	d.readInfo(sections["info"])
	owner := map[string]string{}
	for _, line := range sections["owners"] {
		if user, dir, ok := strings.Cut(line, " "); ok && user != "UNKNOWN" {
			owner[dir] = user
		}
	}
	for _, line := range sections["containers"] {
		if err := d.readContainer(line, owner); err != nil {
			return nil, err
		}
	}
	if len(d.Containers) != want {
		return nil, fmt.Errorf("%w: %d of %d", errInPart, len(d.Containers), want)
	}
	slices.SortFunc(d.Containers, func(a, b DockerContainer) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(d.Projects, func(a, b ComposeProject) int { return strings.Compare(a.Name, b.Name) })
	return d, nil
}

// execStart gives the daemon's flags of a unit and its drop-ins: those of the
// last ExecStart line, continued over several.
func execStart(lines []string) []string {
	var cmd string
	for i := 0; i < len(lines); i++ {
		v, ok := strings.CutPrefix(strings.TrimSpace(lines[i]), "ExecStart=")
		if !ok {
			continue
		}
		for strings.HasSuffix(v, `\`) && i+1 < len(lines) {
			i++
			v = strings.TrimSuffix(v, `\`) + " " + strings.TrimSpace(lines[i])
		}
		cmd = v
	}
	f := strings.Fields(cmd)
	if len(f) < 2 {
		return nil
	}
	return f[1:]
}

// ulimitTitles are the lines of /proc/PID/limits behind the names that
// default-ulimits uses.
var ulimitTitles = map[string]string{
	"Max open files": "nofile", "Max processes": "nproc", "Max core file size": "core", "Max locked memory": "memlock", "Max stack size": "stack",
}

// capSysResource is the bit of CapEff that lets a process raise its limits.
const capSysResource = 1 << 24

// readLimits fills in what the daemon can give. With CAP_SYS_RESOURCE a
// process may raise any hard limit, that of open files up to fs.nr_open
// (setrlimit(2), proc(5)); without it the hard limit it has is the end.
func (d *Docker) readLimits(lines []string) {
	raises, nrOpen := false, int64(0)
	for _, line := range lines {
		if v, ok := strings.CutPrefix(line, "CapEff:"); ok {
			caps, err := strconv.ParseUint(strings.TrimSpace(v), 16, 64)
			raises = err == nil && caps&capSysResource != 0
		}
		if v, ok := strings.CutPrefix(line, "nr_open "); ok {
			nrOpen, _ = strconv.ParseInt(strings.TrimSpace(v), 10, 64) // 0 = unknown
		}
	}
	for _, line := range lines {
		for title, name := range ulimitTitles {
			v, ok := strings.CutPrefix(line, title+" ")
			if !ok {
				continue
			}
			f := strings.Fields(v) // soft, hard, unit
			if len(f) < 2 {
				continue
			}
			hard, err := strconv.ParseInt(f[1], 10, 64)
			switch {
			case raises && name == "nofile":
				if nrOpen > 0 {
					d.Limits[name] = nrOpen
				}
			case raises || f[1] == "unlimited":
				d.Limits[name] = -1
			case err == nil:
				d.Limits[name] = hard
			}
		}
	}
}

func (d *Docker) readInfo(lines []string) {
	for _, line := range lines {
		var v [6]any
		if !strings.HasPrefix(line, "[") || json.Unmarshal([]byte(line), &v) != nil {
			continue
		}
		text := func(i int) string { s, _ := v[i].(string); return s }
		if text(0) == "" {
			continue // the client's half of an answer
		}
		d.ServerVersion, d.StorageDriver, d.DataRoot, d.CgroupDriver, d.LogDriver = text(0), text(1), text(2), text(3), text(4)
		d.LiveRestore, _ = v[5].(bool)
		return
	}
	if d.Command != "" {
		var why []string
		for _, line := range lines {
			if !strings.HasPrefix(line, "[") {
				why = append(why, strings.TrimSpace(line))
			}
		}
		d.Trouble = firstBytes(strings.Join(why, " "), 300)
		if d.Trouble == "" {
			d.Trouble = "docker info answered nothing"
		}
	}
}

// readContainer reads a line of dockerInspectFormat.
func (d *Docker) readContainer(line string, owner map[string]string) error {
	var c DockerContainer
	var ports map[string][]struct{ HostIp, HostPort string }
	var mounts [][]any
	var labels []*string
	fields := []any{&c.Name, &c.ID, &c.Image, &c.ImageID, &c.State, &c.ExitCode, &c.Restart, &c.Remove, &ports, &mounts, &labels, &c.LogDriver}
	var raw []json.RawMessage
	err := json.Unmarshal([]byte(line), &raw)
	if err == nil && len(raw) != len(fields) {
		err = fmt.Errorf("%d fields", len(raw))
	}
	for i := 0; err == nil && i < len(fields); i++ {
		err = json.Unmarshal(raw[i], fields[i])
	}
	if err != nil {
		return fmt.Errorf("unexpected description of a container %q: %w", firstBytes(line, 80), err)
	}
	c.Name = strings.TrimPrefix(c.Name, "/")
	if c.Restart == "" {
		c.Restart = "no"
	}
	for port, hosts := range ports {
		for _, b := range hosts {
			c.Ports = append(c.Ports, strings.TrimSpace(port+" "+b.HostIp+":"+b.HostPort))
		}
	}
	slices.Sort(c.Ports)
	for _, m := range mounts {
		if len(m) != 5 {
			continue // the null at the end
		}
		kind, source, mode := fmt.Sprint(m[0]), fmt.Sprint(m[1]), "ro"
		if name, _ := m[2].(string); name != "" {
			if source = name; len(name) == 64 {
				source = "-" // an anonymous volume
			}
		}
		if m[4] == true {
			mode = "rw"
		}
		c.Mounts = append(c.Mounts, fmt.Sprintf("%s %s %v %s", kind, source, m[3], mode))
	}
	slices.Sort(c.Mounts)
	label := func(i int) string {
		if i < len(labels) && labels[i] != nil {
			return *labels[i]
		}
		return ""
	}
	c.Project, c.Service, c.Number, c.Compose = label(0), label(1), label(2), label(4)
	c.OneOff = strings.EqualFold(label(3), "true")
	d.Containers = append(d.Containers, c)
	if c.Project == "" || slices.ContainsFunc(d.Projects, func(p ComposeProject) bool { return p.Name == c.Project }) {
		return nil
	}
	p := ComposeProject{Name: c.Project, Dir: label(5), User: owner[label(5)]}
	for f := range strings.SplitSeq(label(6), ",") {
		if f = strings.TrimSpace(f); f != "" {
			p.Files = append(p.Files, f)
		}
	}
	if p.Dir != "" && !path.IsAbs(p.Dir) {
		p.Dir = ""
	}
	d.Projects = append(d.Projects, p)
	return nil
}
