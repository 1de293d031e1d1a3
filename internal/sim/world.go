package sim

import (
	"context"
	"errors"
	"net"
	"time"
)

// Config says how a world is built. The zero value is runbook A's world at
// sixty times the speed of a real cloud.
type Config struct {
	Speed     float64       // how much faster clouds, boots and packages are than real ones; 0 = 60
	Rate      float64       // short requests a second, all targets together; 0 = 180, negative = none
	Streams   int           // streams open at a time per target; 0 = 2, negative = none
	StreamMax time.Duration // longest stream; 0 = 5s
	FreeIPs   []string      // addresses for new instances; nil = 172.31.0.101 and on
}

// A World is a cloud, its hosts, their network and the clients that use them.
// Its methods are safe for concurrent use.
type World struct{}

// New builds a world and returns when its services are healthy and traffic
// flows. Close it.
func New(ctx context.Context, cfg Config) (*World, error) {
	return nil, errors.New("internal error: no world")
}

// Close ends everything that the world started.
func (w *World) Close() error { return nil }

// Dial connects from an address of the world ("" = somewhere outside) to
// HOST:PORT in the world. Nothing listening there gives
// syscall.ECONNREFUSED, a host that is down or unknown syscall.EHOSTUNREACH.
func (w *World) Dial(ctx context.Context, from, to string) (net.Conn, error) {
	return nil, errors.New("internal error: no world")
}

// Figures is what was counted up to now.
func (w *World) Figures() Figures { return Figures{} }

// Finish stops the traffic, waits for requests under way and takes the final
// figures. The world goes on; only its clients have stopped.
func (w *World) Finish(ctx context.Context) (Figures, error) { return Figures{}, nil }

// WriteOperatorFiles writes into dir what an operator of this world has:
// upgrade.yaml, ssh_config, known_hosts, id_ed25519 and env.sh.
func (w *World) WriteOperatorFiles(dir string) (Operator, error) { return Operator{}, nil }

// Operator is what a person needs to work in a world: files and credentials.
type Operator struct {
	Dir             string `json:"dir"`
	Config          string `json:"config"`      // upgrade.yaml
	SSHConfig       string `json:"ssh_config"`  // hosts through the bastion
	KnownHosts      string `json:"known_hosts"` // bastion and the hosts there are from the beginning; no clones
	Identity        string `json:"identity"`    // private key, mode 0600
	EnvFile         string `json:"env_file"`    // mode 0600, `export` lines with the credentials
	Endpoint        string `json:"endpoint"`    // of the cloud API, http://127.0.0.1:PORT
	Region          string `json:"region"`
	AccessKeyID     string `json:"access_key_id"`
	AccessKeySecret string `json:"access_key_secret"`
}

// Environ is the environment that gives a program the operator's credentials,
// as NAME=VALUE.
func (o Operator) Environ() []string {
	return []string{
		"ALIBABA_CLOUD_ACCESS_KEY_ID=" + o.AccessKeyID,
		"ALIBABA_CLOUD_ACCESS_KEY_SECRET=" + o.AccessKeySecret,
	}
}
