package sim

import (
	"fmt"
	"time"

	"github.com/upgradectl/upgradectl/internal/sim/firstbox"
)

// upgradeYAML is the configuration of the rebuild of both proxies.
func (w *Rebuild) upgradeYAML() string {
	scaled := func(d time.Duration) time.Duration { return max(time.Duration(float64(d)/w.cfg.Speed), time.Minute) }
	return fmt.Sprintf(`version: 1
procedure: rebuild
host: %s
ssh:
  config: ssh_config
  known_hosts: [known_hosts]
rebuild:
  strategy: side-by-side
  role: proxy
  os_name: xenial
  os_version: 16.04.5
  vip: %s
  nodes:
    - {name: proxy0, address: 192.0.2.71, physical_host: 192.0.2.102}
    - {name: proxy1, address: 192.0.2.72, physical_host: 192.0.2.101}
gates: []
pace:
  poll: 100ms
  sample: 100ms
  observe: 10
  timeout: %s
  job_timeout: %s
`, firstbox.FirstboxAddr, firstbox.ProxyVIP, scaled(30*time.Minute), scaled(2*time.Hour))
}
