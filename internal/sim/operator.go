package sim

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/internal/sim/host"
)

// Operator is what a person needs to work in a world: files and credentials.
type Operator struct {
	Dir             string `json:"dir"`
	Config          string `json:"config"`      // upgrade.yaml
	SSHConfig       string `json:"ssh_config"`  // hosts through the bastion
	KnownHosts      string `json:"known_hosts"` // bastion and the hosts there are now; not those of clones to come
	Identity        string `json:"identity"`    // private key, mode 0600
	EnvFile         string `json:"env_file"`    // mode 0600, `export` lines with the credentials
	Endpoint        string `json:"endpoint"`    // of the cloud's API, http://127.0.0.1:PORT
	Region          string `json:"region"`
	AccessKeyID     string `json:"access_key_id"`
	AccessKeySecret string `json:"-"` // a printed Operator does not hold it
}

// Operator is the operator of the world, without files; WriteOperatorFiles
// makes them.
func (w *World) Operator() Operator { return w.op }

// Environ is the environment that gives a program the operator's credentials
// and region, as NAME=VALUE.
func (o Operator) Environ() []string {
	return []string{
		"ALIBABA_CLOUD_ACCESS_KEY_ID=" + o.AccessKeyID,
		"ALIBABA_CLOUD_ACCESS_KEY_SECRET=" + o.AccessKeySecret,
		"ALIBABA_CLOUD_REGION_ID=" + o.Region,
	}
}

// WriteOperatorFiles writes into dir, which it makes, what an operator of
// this world has: upgrade.yaml, ssh_config, known_hosts, id_ed25519 and
// env.sh. There is no simulator's setting in them: ordinary addresses,
// ordinary keys, the endpoint of the cloud.
func (w *World) WriteOperatorFiles(dir string) (Operator, error) {
	return w.op.write(dir, w, w.key)
}

// write writes the files of an operator of a world, whose private key is key's.
// env.sh is of one who has credentials.
func (o Operator) write(dir string, w interface {
	upgradeYAML() string
	sshConfig(o Operator) string
	knownHosts() string
}, key keyPair) (Operator, error) {
	fail := func(err error) (Operator, error) {
		return Operator{}, fmt.Errorf("cannot write the operator's files: %w", err)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fail(err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fail(err)
	}
	o.Dir = dir
	o.Config = filepath.Join(dir, "upgrade.yaml")
	o.SSHConfig = filepath.Join(dir, "ssh_config")
	o.KnownHosts = filepath.Join(dir, "known_hosts")
	o.Identity = filepath.Join(dir, "id_ed25519")
	type file struct {
		name, text string
		perm       os.FileMode
	}
	files := []file{
		{o.Config, w.upgradeYAML(), 0o644},
		{o.SSHConfig, w.sshConfig(o), 0o644},
		{o.KnownHosts, w.knownHosts(), 0o644},
		{o.Identity, string(key.private), 0o600},
	}
	if o.AccessKeyID != "" {
		o.EnvFile = filepath.Join(dir, "env.sh")
		var env strings.Builder
		for _, e := range o.Environ() {
			fmt.Fprintf(&env, "export %s\n", e)
		}
		files = append(files, file{o.EnvFile, env.String(), 0o600})
	}
	for _, f := range files {
		if err := writeFile(f.name, []byte(f.text), f.perm); err != nil {
			return fail(err)
		}
	}
	return o, nil
}

// writeFile puts a file in place in one go: who sees it sees all of it.
func writeFile(name string, data []byte, perm os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Chmod(f.Name(), perm)
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// sshConfig is the operator's ssh_config. Paths are absolute: OpenSSH reads
// relative ones from where it was started.
func (w *World) sshConfig(o Operator) string {
	quoted := func(p string) string { return `"` + filepath.ToSlash(p) + `"` }
	return fmt.Sprintf(`Host bastion
    HostName 127.0.0.1
    Port %d
    User root
    IdentityFile %s
    IdentitiesOnly yes
    UserKnownHostsFile %s
    StrictHostKeyChecking yes

Host 172.31.0.*
    ProxyJump bastion
    User root
    IdentityFile %s
    IdentitiesOnly yes
    UserKnownHostsFile %s
    StrictHostKeyChecking yes
`, w.bastion.port(), quoted(o.Identity), quoted(o.KnownHosts), quoted(o.Identity), quoted(o.KnownHosts))
}

func (w *World) knownHosts() string {
	w.mu.Lock()
	var hosts []*host.Host
	for _, h := range w.byAddr {
		hosts = append(hosts, h)
	}
	w.mu.Unlock()
	lines := []string{fmt.Sprintf("[127.0.0.1]:%d %s", w.bastion.port(), strings.TrimSpace(w.bastion.key.authorized))}
	for _, h := range hosts {
		lines = append(lines, h.Addr()+" "+h.HostKey())
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
}

// upgradeYAML is the configuration of the upgrade of web-90 in this world.
func (w *World) upgradeYAML() string {
	return fmt.Sprintf(`version: 1
procedure: transition
host: %s
instance: %s
cloud:
  region: %s
  endpoint: %s
ssh:
  config: ssh_config
  known_hosts: [known_hosts]
nginx:
  - host: %s
  - host: %s
balancers: auto
services:
  - name: order
    kind: java
    dir: /srv/order
    user: app
    ports: [8080]
    health: /health
    start: ./start.sh
  - name: pay
    kind: java
    dir: /srv/pay
    user: app
    ports: [8083]
    health: /health
    start: ./start.sh
  - name: shop
    kind: compose
    dir: /srv/shop
    ports: [8081]
    health: /health
  - name: cache
    kind: container
    container: cache
    ports: [8082]
  - name: worker
    kind: supervisor
    program: worker
transition:
  name: web-90-transition
  public_ip: false
  auto_release: 24h
  ssh: "{address}"
os:
  strategy: yum-update
  docker: upgrade
  reboot: true
snapshots:
  retention_days: 7
pace:
  poll: 100ms
  sample: 100ms
  observe: 10
  timeout: %s
  cloud_timeout: %s
`, production, instanceID, region, w.op.Endpoint, proxyA, proxyB,
		max(w.scaled(30*time.Minute), time.Minute), max(w.scaled(2*time.Hour), 2*time.Minute))
}
