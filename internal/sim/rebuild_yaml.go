package sim

import (
	"fmt"
	"time"

	"github.com/upgradectl/upgradectl/internal/sim/firstbox"
)

// upgradeYAML is the configuration of the rebuild of both nodes.
func (w *Rebuild) upgradeYAML() string {
	// In a world of sockets this machine can be slow, and what waits is bounded for
	// the worst only. A new machine waits to be reached for as long as timeout says,
	// by its own clock: that has to be a minute of ours.
	least, leastJob := time.Minute, time.Minute
	if !w.cfg.Memory {
		least, leastJob = time.Duration(float64(time.Minute)*w.cfg.Speed), 10*time.Minute
	}
	scaled := func(d, least time.Duration) time.Duration { return max(time.Duration(float64(d)/w.cfg.Speed), least) }
	nodes := ""
	for _, n := range firstbox.Nodes(w.cfg.Role) {
		if w.cfg.Strategy == inPlace {
			nodes += fmt.Sprintf("    - {name: %s}\n", n.Name)
			continue
		}
		nodes += fmt.Sprintf("    - {name: %s, address: %s, physical_host: %s}\n", n.Name, n.Temporary, n.NewHost)
	}
	return fmt.Sprintf(`version: 1
procedure: rebuild
host: %s
ssh:
  config: ssh_config
  known_hosts: [known_hosts]
rebuild:
  strategy: %s
  role: %s
  os_name: xenial
  os_version: 16.04.5
  vip: %s
  nodes:
%sgates: []
pace:
  poll: 100ms
  sample: 100ms
  observe: 10
  timeout: %s
  job_timeout: %s
`, firstbox.FirstboxAddr, w.cfg.Strategy, w.cfg.Role, firstbox.VIP(w.cfg.Role), nodes, scaled(30*time.Minute, least), scaled(2*time.Hour, leastJob))
}
