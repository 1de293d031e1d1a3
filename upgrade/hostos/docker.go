package hostos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"

	"github.com/upgradectl/upgradectl/internal/shellq"
)

// daemonJSON is where the Docker daemon reads its settings.
const daemonJSON = "/etc/docker/daemon.json"

// DockerInstalled tells whether the host has a docker command.
func DockerInstalled(ctx context.Context, h Host) (bool, error) { return has(ctx, h, "docker") }

// DockerScript is the package transaction of section 3.5 of the transition
// runbook, to be run with StartJob: stop, repository, remove the old
// packages, install docker-ce. Every line's failure ends it, and the removal
// is answered with -y: at a prompt it would wait for ever. It may be run again
// where it ended half-way: when there is no Docker to stop any more, that is
// no failure.
func DockerScript() string {
	return `set -eu
systemctl stop docker || [ "$(systemctl is-active docker)" != active ]
curl -fsSL -o /etc/yum.repos.d/docker-ce.repo https://mirrors.aliyun.com/docker-ce/linux/centos/docker-ce.repo
yum -y remove docker docker-client docker-common
yum -y install docker-ce
`
}

// dockerProfile is the runbook's daemon.json.
const dockerProfile = `{
  "max-concurrent-downloads": 20,
  "log-driver": "json-file",
  "oom-score-adjust": -1000,
  "debug": false,
  "log-opts": {"max-size": "100M", "max-file": "10"},
  "default-ulimits": {
    "nofile": {"Name": "nofile", "Hard": 1024000, "Soft": 1024000},
    "nproc": {"Name": "nproc", "Hard": 1024000, "Soft": 1024000},
    "core": {"Name": "core", "Hard": -1, "Soft": -1}
  }
}`

// MergeDaemonJSON adds the runbook's Docker daemon settings to old, the
// present content of daemon.json (nil: there is none). What the host has set
// stays as it is: a data root or a registry mirror that disappears takes the
// images with it. Log options go with a log driver: a host that chose another
// one than json-file keeps its own, since dockerd refuses options that the
// driver does not know. The result ends with a newline; it is old itself when
// nothing is missing. It is pure.
func MergeDaemonJSON(old []byte) ([]byte, error) {
	var have, want map[string]json.RawMessage
	if len(bytes.TrimSpace(old)) > 0 {
		if err := json.Unmarshal(old, &have); err != nil {
			return nil, fmt.Errorf("cannot merge %s: it is not a JSON object: %w", daemonJSON, err)
		}
	}
	if err := json.Unmarshal([]byte(dockerProfile), &want); err != nil {
		return nil, fmt.Errorf("internal error: docker profile: %w", err)
	}
	if driver, ok := have["log-driver"]; ok && string(driver) != `"json-file"` {
		delete(want, "log-opts")
	}
	missing := false
	for k := range want {
		if _, ok := have[k]; !ok {
			missing = true
		}
	}
	if !missing {
		return old, nil
	}
	maps.Copy(want, have)
	out, err := json.MarshalIndent(want, "", "    ")
	if err != nil {
		return nil, fmt.Errorf("internal error: %s: %w", daemonJSON, err)
	}
	return append(out, '\n'), nil
}

// WriteDaemonJSON puts the merged daemon.json in place (see MergeDaemonJSON)
// and reports whether the file changed. The old file stays complete until
// the new one has taken its name.
func WriteDaemonJSON(ctx context.Context, h Host, key string) (changed bool, err error) {
	if !validKey.MatchString(key) {
		return false, fmt.Errorf("cannot write %s: bad key %q", daemonJSON, key)
	}
	old, err := h.ReadFile(ctx, daemonJSON)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("cannot read %s: %w", daemonJSON, err)
	}
	merged, err := MergeDaemonJSON(old)
	if err != nil {
		return false, err
	}
	if bytes.Equal(merged, old) {
		return false, nil
	}
	tmp := daemonJSON + "." + key
	q := shellq.Quote(tmp)
	if _, err := output(ctx, h, "mkdir -p /etc/docker && rm -f "+q, nil); err != nil {
		return false, fmt.Errorf("cannot write %s: %w", daemonJSON, err)
	}
	if err := h.WriteFile(ctx, tmp, merged, 0o644); err != nil {
		return false, fmt.Errorf("cannot write %s: %w", daemonJSON, err)
	}
	if _, err := output(ctx, h, "sync && mv -f -T "+q+" "+daemonJSON, nil); err != nil {
		return false, fmt.Errorf("cannot write %s: %w", daemonJSON, err)
	}
	return true, nil
}

// EnableDocker has the daemon started now and at every boot, and reads both
// back: "systemctl enable" of the runbook is a wish until is-enabled says so.
func EnableDocker(ctx context.Context, h Host) error {
	if _, err := output(ctx, h, "systemctl enable docker && systemctl start docker && systemctl is-enabled docker && systemctl is-active docker", nil); err != nil {
		return fmt.Errorf("cannot enable and start docker: %w", err)
	}
	return nil
}
