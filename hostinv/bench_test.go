package hostinv_test

import (
	"context"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/internal/sim/host"
)

// simHost runs commands on a simulated host without SSH.
type simHost struct{ h *host.Host }

func (s simHost) Run(ctx context.Context, cmd string, stdin io.Reader, stdout, _ io.Writer) error {
	script := cmd
	if cmd == "/bin/sh -s" {
		text, err := io.ReadAll(stdin)
		if err != nil {
			return err
		}
		script = string(text)
	}
	_, out, err := s.h.Run(ctx, script)
	if err != nil {
		return err
	}
	_, err = stdout.Write(out)
	return err
}

// BenchmarkCollectSimulated is a whole collection: the simulated host's shell,
// and reading what it says.
func BenchmarkCollectSimulated(b *testing.B) {
	h, err := host.New(host.Spec{Name: "web-90", Addr: "172.31.0.90", Users: []host.User{{Name: "app", UID: 1000}},
		Containers: []host.Container{{Name: "cache", Image: "redis:6", Restart: "always", Ports: []host.Port{{Host: 8082, Container: 6379}}}},
		Processes:  []host.Process{{Args: []string{"/usr/bin/java", "-jar", "order.jar"}, User: "app", Ports: []int{8080}}},
	}, host.Options{Speed: 60})
	require.NoError(b, err)
	defer h.Close()
	require.NoError(b, h.Start())
	for b.Loop() {
		inv, err := hostinv.Collect(b.Context(), simHost{h}, hostinv.Options{})
		require.NoError(b, err)
		require.Equal(b, hostinv.StatusOK, inv.Sections[hostinv.SectionProcesses].Status)
	}
}
