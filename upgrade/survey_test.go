package upgrade_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/internal/sim/cloud"
	"github.com/upgradectl/upgradectl/internal/sim/host"
	"github.com/upgradectl/upgradectl/upgrade"
)

// From an instance ID, from an address, and from a name of ssh_config the walk
// finds the same: balancers, nginx hosts, domains, allow lists, disks, services;
// and the table says which ports nobody leads to and which places lead to
// nothing.
func TestSurvey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, err := sim.New(t.Context(), sim.Config{Memory: true, Rate: 20, Streams: 1, Speed: 60})
		require.NoError(t, err)
		defer func() { assert.NoError(t, w.Close()) }()
		orders(w)
		c := w.Cloud()
		c.AddDNSRecord(cloud.DNSRecord{ID: "rec-www", Domain: "shop.example", RR: "www", Value: "172.31.0.90"})
		c.AddLoadBalancer(cloud.LoadBalancer{ID: "lb-old", Name: "old", Address: "172.31.0.222",
			Listeners: []cloud.Listener{{Port: 99, Protocol: "tcp", Scheduler: "wrr", BackendPort: 9009}}, Default: []cloud.Backend{{ServerID: "i-web90", Weight: 10}}})
		require.NoError(t, w.Host("172.31.0.5").WriteFile("/etc/nginx/conf.d/dead.conf", []byte("upstream dead { server 172.31.0.90:9010; server 172.31.0.88:9010; }\n"), 0o644))
		_, err = w.Host("172.31.0.90").Spawn(host.Process{Args: []string{"node", "metrics.js"}, Cwd: "/srv/order", User: "app", Ports: []int{7777}})
		require.NoError(t, err)
		op, err := w.WriteOperatorFiles(t.TempDir())
		require.NoError(t, err)
		f, err := os.OpenFile(op.SSHConfig, os.O_APPEND|os.O_WRONLY, 0)
		require.NoError(t, err)
		_, err = f.WriteString("\nHost web-90\n    HostName 172.31.0.90\n    HostKeyAlias 172.31.0.90\n    ProxyJump bastion\n    User root\n    IdentityFile \"" + filepath.ToSlash(op.Identity) + "\"\n    UserKnownHostsFile \"" + filepath.ToSlash(op.KnownHosts) + "\"\n")
		require.NoError(t, err)
		require.NoError(t, f.Close())

		var tables []string
		for _, from := range []upgrade.Config{{Instance: "i-web90"}, {Host: "172.31.0.90"}, {Host: "web-90"}} {
			cfg := from
			cfg.Version, cfg.Procedure, cfg.Balancers = 1, upgrade.ProcedureTransition, upgrade.BalancersAuto
			cfg.Cloud = upgrade.CloudConfig{Region: op.Region, Endpoint: op.Endpoint}
			cfg.SSH = upgrade.SSHConfig{Config: op.SSHConfig, KnownHosts: []string{op.KnownHosts}}
			cfg.Paths, cfg.Pace = upgrade.PathsConfig{Check: upgrade.PathsAuto}, upgrade.Pace{Poll: 3 * time.Second}
			e, err := upgrade.NewEnv(&cfg, &upgrade.Access{AccessKeyID: op.AccessKeyID, AccessKeySecret: op.AccessKeySecret, NetDial: w.DialOperator})
			require.NoError(t, err)
			s, err := upgrade.Survey(t.Context(), &cfg, e, nil)
			e.Close()
			require.NoError(t, err, "%+v", from)
			assert.Equal(t, "i-web90", cfg.Instance)
			assert.Equal(t, "172.31.0.90", cfg.Address)

			require.Len(t, cfg.Nginx, 2, "the hosts whose nginx names it: %+v", s.Looked)
			assert.NotEmpty(t, s.Domains)
			assert.NotEmpty(t, s.Facts.Disks)
			assert.NotEmpty(t, s.Facts.Quotas, "snapshots of its disks")
			require.Len(t, s.Facts.Trust, 1)
			var names []string
			for _, sv := range cfg.Services {
				names = append(names, sv.Kind+" "+sv.Name)
			}
			for _, want := range []string{"java order", "java pay", "compose shop", "container cache", "supervisor worker"} {
				assert.Contains(t, names, want)
			}
			p := upgrade.ListProjects(s)
			assert.ElementsMatch(t, []string{
				"lb-old (old) default group, tcp 99: leads to port 9009, where nothing listens",
				"172.31.0.5 upstream dead (dead.conf:1): leads to port 9010, where nothing listens",
			}, p.Dead)
			unreferenced := strings.Join(p.Unreferenced, "\n")
			assert.Contains(t, unreferenced, "tcp/7777 (")
			assert.Contains(t, unreferenced, "tcp/8082 (cache)")
			assert.NotContains(t, unreferenced, "tcp/8080")
			for _, x := range p.Projects {
				if x.Name == "order" {
					require.Len(t, x.Ports, 1)
					assert.Equal(t, []any{"/srv/order", "order.jar", 8080}, []any{x.Dir, x.Jar, x.Ports[0].Port})
					assert.NotEmpty(t, x.Ports[0].Balancers)
					assert.NotEmpty(t, x.Ports[0].Nginx)
				}
			}
			text, err := s.YAML("en", time.Now())
			require.NoError(t, err)
			for _, want := range []string{"rds rm-orders lets 172.31.0.90 in (list app) and not 172.31.0.0/20", "path-domain", "kind: supervisor"} {
				assert.Contains(t, string(text), want)
			}
			tables = append(tables, strings.Join(p.Dead, "\n")+"\n"+unreferenced)
		}
		assert.Equal(t, tables[0], tables[1])
		assert.Equal(t, tables[0], tables[2])
		for action, n := range c.Counts() {
			verb := action[strings.IndexByte(action, ':')+1:]
			assert.True(t, n == 0 || strings.HasPrefix(verb, "Describe") || strings.HasPrefix(verb, "List") || strings.HasPrefix(verb, "Get"), "the cloud carried out %s", action)
		}
	})
}
