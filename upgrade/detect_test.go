package upgrade

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/ecs"
	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/nginx"
	"github.com/upgradectl/upgradectl/slb"
	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

// planted is one thing planted into facts that nothing speaks against, and the
// one finding, besides those that are always there, that it must give.
type planted struct {
	plant    func(cfg *Config, f *Facts)
	severity string
	id       string
	object   string // exactly
	says     string // in Evidence
}

// clonePlant has the facts looked at by ecs.CheckClone.
func clonePlant(change func(in *ecs.Instance, disks []ecs.Disk) []ecs.Disk) func(*Config, *Facts) {
	return func(_ *Config, f *Facts) {
		in := f.Instance
		disks := []ecs.Disk{{ID: "d-1", Type: "system", Category: "cloud_essd", Status: ecs.DiskInUse}, {ID: "d-2", Type: "data", Category: "cloud_essd", Status: ecs.DiskInUse}}
		disks = change(&in, disks)
		f.Blockers = ecs.CheckClone(&in, disks)
	}
}

func peer(dir, process string, local int, ip string, port int) func(*Config, *Facts) {
	return func(_ *Config, f *Facts) {
		f.Inventory.Connections = append(f.Inventory.Connections, hostinv.Peer{Direction: dir, Process: process, LocalPort: local, IP: ip, Port: port, Count: 2})
	}
}

func process(p hostinv.Process) func(*Config, *Facts) {
	return func(_ *Config, f *Facts) { f.Inventory.Processes = append(f.Inventory.Processes, p) }
}

func pathPlant(kind, severity string) func(*Config, *Facts) {
	return func(_ *Config, f *Facts) {
		f.Paths = []slb.PathFinding{{Kind: kind, Severity: severity, ID: "x-1", Evidence: "leads here", Remedy: "do something"}}
	}
}

func inst(change func(in *ecs.Instance)) func(*Config, *Facts) {
	return clonePlant(func(in *ecs.Instance, d []ecs.Disk) []ecs.Disk { change(in); return d })
}

// osPlant is a finding of hostos.Assess.
func osPlant(id, object string, severity hostos.Severity) func(*Config, *Facts) {
	return func(_ *Config, f *Facts) {
		f.OS = &hostos.Assessment{OS: &hostos.OS{}, Findings: []hostos.Finding{{ID: id, Object: object, Severity: severity, Evidence: "seen on the host", Remedy: "do something"}}}
	}
}

// replacedDisk is about a system disk that is to be replaced.
func replacedDisk(change func(f *Facts)) func(*Config, *Facts) {
	return func(cfg *Config, f *Facts) {
		cfg.OS.Production = ProductionReplaceDisk
		f.Disks = []ecs.Disk{{ID: "d-sys", Type: "system", Category: "cloud_essd", Size: 40, Status: ecs.DiskInUse}}
		change(f)
	}
}

func line(to *[]hostinv.Line, source, text string) {
	*to = append(*to, hostinv.Line{Source: source, Text: text})
}

func event(status string, in time.Duration) func(*Config, *Facts) {
	return func(_ *Config, f *Facts) {
		f.Events = []ecs.SystemEvent{{ID: "e-1", Type: "SystemMaintenance.Reboot", Status: status, Reason: "old hardware", NotBefore: planTime.Add(in)}}
	}
}

func quota(kind, object string, left int) func(*Config, *Facts) {
	return func(_ *Config, f *Facts) {
		f.Quotas = []ecs.Quota{{Kind: kind, Object: object, Need: 1, Left: left}}
		if kind == ecs.QuotaVCPU || kind == ecs.QuotaSnapshot {
			f.Quotas[0].Need = 2
		}
	}
}

func trusts(kind, severity string) func(*Config, *Facts) {
	return func(_ *Config, f *Facts) {
		f.Trust = []ecs.TrustFinding{{Kind: kind, Severity: severity, Product: "rds", ID: "rm-1", Evidence: "rds rm-1 lets 172.31.0.90 in (list app) and not 172.31.0.0/20", Remedy: "add it"}}
	}
}

func crypt(d CryptDevice) func(*Config, *Facts) {
	return func(_ *Config, f *Facts) { f.Extra = &HostExtra{Crypt: []CryptDevice{d}} }
}

func plantedFindings() []planted {
	const b, w, i = FindingBlocking, FindingWarning, FindingInfo
	return []planted{
		{func(_ *Config, f *Facts) { f.Instance.Status = "Stopped" }, b, "instance-status", "i-web90", "is Stopped"},
		{func(_ *Config, f *Facts) {
			f.Instance.ChargeType, f.Instance.ExpiredTime = "PrePaid", planTime.Add(30*time.Hour)
		}, b, "instance-expiry", "i-web90", "until 2026-11-23T08:00:00Z only"},
		{func(_ *Config, f *Facts) {
			f.Instance.ChargeType, f.Instance.ExpiredTime = "PrePaid", planTime.Add(200*time.Hour)
		}, w, "instance-expiry", "i-web90", "is paid until"},
		{func(_ *Config, f *Facts) { f.Instance.AutoReleaseTime = planTime.Add(time.Hour) }, b, "instance-release", "i-web90", "released by itself"},
		{event("Scheduled", 4*time.Hour), b, "instance-event", "e-1", "SystemMaintenance.Reboot to instance i-web90 (old hardware) from"},
		{event("Scheduled", 30*time.Hour), b, "instance-event", "e-1", "the run may take until"},
		{event("Scheduled", 40*24*time.Hour), w, "instance-event", "e-1", "SystemMaintenance.Reboot"},
		{event("Inquiring", 40*24*time.Hour), b, "instance-event", "e-1", "waits for an answer"},
		{event("Executing", -time.Hour), b, "instance-event", "e-1", "under way"},
		{quota(ecs.QuotaVCPU, "cn-hangzhou", 1), b, "quota-vcpu", "cn-hangzhou", "1 more vCPUs"},
		{quota(ecs.QuotaSecurityGroup, "sg-web", 0), b, "quota-security-group", "sg-web", "room for 0 more"},
		{quota(ecs.QuotaAddress, "vsw-1", 0), b, "quota-address", "vsw-1", "0 free addresses"},
		{quota(ecs.QuotaAddress, "vsw-1", 2), w, "quota-address", "vsw-1", "2 free addresses"},
		{quota(ecs.QuotaSnapshot, "d-1", 1), b, "quota-snapshot", "d-1", "1 more snapshots, and the run takes 2"},
		{trusts(ecs.TrustAllowList, ecs.SeverityBlock), w, "trust-allow-list", "rm-1", "lets 172.31.0.90 in"},
		{trusts(ecs.TrustSecurityGroup, ecs.SeverityBlock), w, "trust-security-group", "rm-1", "lets 172.31.0.90 in"},
		{trusts(ecs.TrustNotChecked, ecs.SeverityWarn), w, "trust-not-checked", "rm-1", "lets 172.31.0.90 in"},
		{func(_ *Config, f *Facts) { f.Elsewhere = "ssh leads to 172.31.0.91" }, b, "wrong-host", "172.31.0.90", "172.31.0.91"},
		{func(_ *Config, f *Facts) { f.NoClone = "QuotaExceed.ElasticQuota" }, b, "clone-refused", "i-web90", "QuotaExceed"},
		{func(_ *Config, f *Facts) { f.Stock = &ecs.Stock{Type: "ecs.g6.large", Zone: "z-1"} }, b, "clone-stock", "z-1", "has no ecs.g6.large left"},
		{func(_ *Config, f *Facts) { f.Unasked = []string{"what it costs: forbidden"} }, w, "clone-unasked", "1", "what it costs"},
		{func(_ *Config, f *Facts) { f.Snapshotting = []string{"s-1 of d-1 (40%)"} }, w, "snapshot-running", "s-1 of d-1 (40%)", "by somebody else"},

		{inst(func(in *ecs.Instance) { in.Status = "Starting" }), b, "clone-status", "i-web90", "Starting"},
		{inst(func(in *ecs.Instance) { in.Locks = []string{"financial"} }), b, "clone-locked", "i-web90", "financial"},
		{inst(func(in *ecs.Instance) { in.OSType = "windows" }), b, "clone-windows", "i-web90", "Windows"},
		{clonePlant(func(_ *ecs.Instance, d []ecs.Disk) []ecs.Disk { d[1].Category = "local_ssd_pro"; return d }), b, "clone-local-disk", "d-2", "local_ssd_pro"},
		{clonePlant(func(_ *ecs.Instance, d []ecs.Disk) []ecs.Disk { d[1].MultiAttach = true; return d }), b, "clone-multi-attach", "d-2", "several instances"},
		{clonePlant(func(_ *ecs.Instance, d []ecs.Disk) []ecs.Disk { d[1].Status = "Detaching"; return d }), b, "clone-disk-status", "d-2", "Detaching"},
		{clonePlant(func(_ *ecs.Instance, d []ecs.Disk) []ecs.Disk { return d[1:] }), b, "clone-system-disk", "i-web90", "0 system disks"},
		{clonePlant(func(_ *ecs.Instance, d []ecs.Disk) []ecs.Disk {
			return append(d, slices.Repeat([]ecs.Disk{d[1]}, 16)...)
		}), b, "clone-disks", "i-web90", "17 data disks"},
		{inst(func(in *ecs.Instance) { in.SecondaryENIs = []string{"eni-2"} }), b, "clone-secondary-eni", "eni-2", "primary interface only"},
		{inst(func(in *ecs.Instance) { in.SecondaryIPs = []string{"172.31.0.190"} }), b, "clone-secondary-ip", "i-web90", "172.31.0.190"},
		{inst(func(in *ecs.Instance) { in.IPv6 = []string{"2408::1"} }), b, "clone-ipv6", "i-web90", "2408::1"},
		{inst(func(in *ecs.Instance) { in.HPCClusterID = "hpc-1" }), b, "clone-hpc-cluster", "i-web90", "hpc-1"},
		{clonePlant(func(_ *ecs.Instance, d []ecs.Disk) []ecs.Disk { d[1].Encrypted = true; return d }), i, "clone-encrypted-disk", "d-2", "encrypted"},
		{inst(func(in *ecs.Instance) { in.ChargeType = "PrePaid" }), i, "clone-prepaid", "i-web90", "paid in advance"},
		{inst(func(in *ecs.Instance) { in.SpotStrategy = "SpotAsPriceGo" }), i, "clone-spot", "i-web90", "spot"},
		{inst(func(in *ecs.Instance) { in.EIP = "192.0.2.9" }), i, "clone-eip", "i-web90", "192.0.2.9"},
		{inst(func(in *ecs.Instance) { in.PublicIPs = []string{"192.0.2.8"} }), i, "clone-public-ip", "i-web90", "192.0.2.8"},
		{inst(func(in *ecs.Instance) { in.UserDataBytes = 77 }), i, "clone-user-data", "i-web90", "77 bytes"},
		{inst(func(in *ecs.Instance) { in.DedicatedHostID = "dh-1" }), i, "clone-dedicated-host", "i-web90", "dh-1"},
		{inst(func(in *ecs.Instance) { in.DeploymentSetID = "ds-1" }), i, "clone-deployment-set", "i-web90", "ds-1"},
		{inst(func(in *ecs.Instance) { in.KeyPair = "ops" }), i, "clone-key-pair", "i-web90", "ops"},

		{func(_ *Config, f *Facts) { f.Adopted = &ecs.Instance{ID: "i-other", Status: "Stopped"} }, b, "adopted-unfit", "i-other", "is Stopped"},
		{func(_ *Config, f *Facts) { f.Unhealthy = "GET /health answered 404" }, b, "service-down", "172.31.0.90", "answered 404"},
		{func(_ *Config, f *Facts) { f.Inventory.Java = nil }, b, "service-missing", "order", "no java process runs in /srv/order"},
		{func(cfg *Config, _ *Facts) {
			again := cfg.Services[0]
			again.Name = "order2"
			cfg.Services = append(cfg.Services, again)
		}, b, "service-twice", "order2", "same directory"},
		{func(_ *Config, f *Facts) {
			f.Inventory.Containers = append(f.Inventory.Containers, hostinv.Container{Name: "extra", State: "running"})
		}, b, "service-unlisted", "extra", "container extra runs"},
		{func(_ *Config, f *Facts) {
			f.Inventory.Java = append(f.Inventory.Java, hostinv.Java{PID: 90, Cwd: "/srv/pay", User: "app", Jar: "pay.jar", Args: []string{"java", "-Dpw=[hidden]", "-jar", "pay.jar"}})
		}, b, "service-unowned", "/srv/pay", "process 90: java pay.jar of app in /srv/pay (java -Dpw=[hidden] -jar pay.jar)"},
		{func(_ *Config, f *Facts) {
			process(hostinv.Process{PID: 91, Program: "node gate.js", Name: "node", Exe: "/usr/bin/node", Cwd: "/srv/gate", User: "app"})(nil, f)
			f.Inventory.Listeners = append(f.Inventory.Listeners, hostinv.Listener{Proto: "tcp", Addr: "127.0.0.1", Port: 7001, PID: 91})
			line(&f.Inventory.Cron, "/etc/cron.d/e2scrub_all", "* * * * * app cd /srv/gate/ && node gate.js")
		}, w, "service-unowned", "/srv/gate", "/etc/cron.d/e2scrub_all: * * * * * app cd /srv/gate/ && node gate.js may"},
		{func(_ *Config, f *Facts) {
			f.Restart = []hostos.Kept{{Service: "order", PID: 71, Problem: "it rewrote its command line"}}
		}, b, "service-restart", "order", "process 71 could not be started again from what is known of it: it rewrote"},
		{func(_ *Config, f *Facts) {
			f.Restart = []hostos.Kept{{Service: "order", PID: 71, Notes: []string{"descriptor 1 was a socket"}}}
		}, i, "service-restart", "order", "descriptor 1 was a socket"},
		{func(cfg *Config, f *Facts) {
			cfg.Transition.Quarantine.Allow = []string{"*"}
			on := hostinv.Unit{Active: "active", Sub: "running", Enabled: "disabled", SHA256: "ab"}
			for _, n := range []string{"report.service", "by-socket.service", "sshd.service"} {
				on.Name = n
				f.Inventory.Units = append(f.Inventory.Units, on)
			}
			f.Inventory.Units = append(f.Inventory.Units, hostinv.Unit{Name: "by-socket.socket", Active: "active", Enabled: "enabled"})
		}, b, "unit-disabled", "report.service", "runs and is not enabled"},
		{func(cfg *Config, f *Facts) {
			cfg.Transition.Quarantine.Allow = []string{"*"}
			f.Inventory.Units = []hostinv.Unit{{Name: "report.service", Active: "active", Sub: "running", Enabled: "disabled"}, {Name: "off.service", Active: "inactive", Enabled: "disabled"}}
		}, w, "unit-disabled", "report.service", "runs and is not enabled"},
		{func(_ *Config, f *Facts) {
			process(hostinv.Process{PID: 71, Program: "java", Name: "java", Exe: "/usr/bin/java", Cwd: "/srv/order", User: "app"})(nil, f)
			peer("out", "java", 0, "127.0.0.1", 8082)(nil, f)
		}, w, "service-order", "order:8082", "port 8082 of service cache"},
		{func(_ *Config, f *Facts) {
			f.Docker = &hostos.Docker{Command: "/usr/bin/docker", Trouble: "no daemon"}
		}, b, "docker-refused", "dockerd", "no daemon"},
		{func(_ *Config, f *Facts) {
			f.Docker = &hostos.Docker{Command: "/usr/bin/docker", Manager: "rpm", Owner: "docker", ServerVersion: "1.13.1", StorageDriver: "overlay2", LiveRestore: true, Kernel: "3.10.0"}
		}, w, "docker-warning", "live-restore", "outlive the daemon"},
		{func(_ *Config, f *Facts) {
			f.Inventory.Sections[hostinv.SectionDocker] = hostinv.Section{Status: hostinv.StatusError, Message: "no daemon"}
		}, b, "inventory-gap", "docker", "no daemon"},

		{func(_ *Config, f *Facts) { f.Nginx[1].Refusal = "the last active server" }, b, "nginx-edit", "172.31.0.6", "the last active server"},
		{func(_ *Config, f *Facts) { f.Nginx[0].Refs[0].Kind, f.Nginx[0].Refs[0].Tag = nginx.KindOff, "uabc" }, b, "nginx-mark", "172.31.0.5:/etc/nginx/conf.d/app.conf:2", "uabc"},
		{func(_ *Config, f *Facts) { f.Nginx[0].Refs[0].Port = 9001 }, b, "nginx-port", "172.31.0.5:/etc/nginx/conf.d/app.conf:2", "port 9001"},
		{func(_ *Config, f *Facts) { f.Nginx[0].Refs[0].Certain = false }, b, "nginx-uncertain", "172.31.0.5:/etc/nginx/conf.d/app.conf:2", "cannot be decided"},

		{func(_ *Config, f *Facts) { f.Memberships[0].Managed = true }, b, "balancer-managed", "the default group of lb-shop", "owns it"},
		{func(_ *Config, f *Facts) { f.Memberships[0].Protected = true }, b, "balancer-protected", "the default group of lb-shop", "protected"},
		{func(_ *Config, f *Facts) { f.Memberships[0].LoadBalancerStatus = "locked" }, b, "balancer-locked", "the default group of lb-shop", "locked"},
		{func(_ *Config, f *Facts) { f.Memberships[0].MasterSlaveGroupID = "rsp-1" }, b, "balancer-primary-secondary", "primary/secondary group rsp-1 of lb-shop", "cannot change"},
		{func(_ *Config, f *Facts) { f.Memberships[0].Listeners[1].Scheduler = "rr" }, b, "balancer-scheduler", "the default group of lb-shop, tcp 81", "rr"},
		{func(_ *Config, f *Facts) { f.Memberships[0].Listeners[0].Sticky = true }, w, "balancer-sticky", "the default group of lb-shop, http 80", "stick"},
		{func(_ *Config, f *Facts) { f.Memberships[0].Listeners[1].Protocol = "udp" }, i, "balancer-udp-lag", "the default group of lb-shop, udp 81", "5 min"},
		{func(_ *Config, f *Facts) { f.Memberships[0].Listeners[1].HealthCheck = false }, w, "balancer-no-health-check", "the default group of lb-shop, tcp 81", "nobody checks"},
		{func(_ *Config, f *Facts) {
			f.Memberships[0].Backend.Port, f.Memberships[0].Listeners = 9001, f.Memberships[0].Listeners[:1]
			f.Memberships[0].Backends[0].Port = 9001
		}, b, "balancer-port", "lb-shop:80", "port 9001"},
		{func(_ *Config, f *Facts) { f.Memberships[0].Backends = f.Memberships[0].Backends[:1] }, w, "balancer-alone", "lb-shop default group port 8080", "nobody but production"},
		{func(_ *Config, f *Facts) {
			m := &f.Memberships[0]
			for n := range 199 {
				b := m.Backend
				b.ServerID = fmt.Sprint("i-", n)
				m.Backends = append(m.Backends, b)
			}
		}, b, "balancer-full", "lb-shop default group port 8080", "has 201 members"},
		{func(_ *Config, f *Facts) {
			m := &f.Memberships[0]
			third := m.Backends[1]
			third.ServerID = "i-app87"
			m.Backends = append(m.Backends, third)
			f.Sick = []SickMember{{Group: "lb-shop default group port 8080", Backend: third, Why: "http 80: abnormal"}}
		}, w, "balancer-sick", "lb-shop default group port 8080, i-app87 (172.31.0.88):8080", "weight 100 that is not healthy: http 80: abnormal"},
		// The only other member is sick: production is alone.
		{func(_ *Config, f *Facts) {
			f.Sick = []SickMember{{Group: "lb-shop default group port 8080", Backend: f.Memberships[0].Backends[1], Why: "http 80: abnormal"}}
		}, w, "balancer-alone", "lb-shop default group port 8080", "nobody but production has a weight and is healthy"},

		{pathPlant(slb.PathPublicIP, slb.SeverityWarn), w, "path-public-ip", "x-1", "leads here"},
		{pathPlant(slb.PathEIP, slb.SeverityBlock), b, "path-eip", "x-1", "leads here"},
		{pathPlant(slb.PathDNAT, slb.SeverityBlock), b, "path-dnat", "x-1", "leads here"},
		{pathPlant(slb.PathHaVip, slb.SeverityBlock), b, "path-havip", "x-1", "leads here"},
		{pathPlant(slb.PathRoute, slb.SeverityBlock), b, "path-route", "x-1", "leads here"},
		{pathPlant(slb.PathScalingGroup, slb.SeverityInfo), i, "path-scaling-group", "x-1", "leads here"},
		{pathPlant(slb.PathClusterNode, slb.SeverityBlock), b, "path-cluster-node", "x-1", "leads here"},
		{pathPlant(slb.PathNotChecked, slb.SeverityWarn), w, "path-not-checked", "x-1", "leads here"},
		{pathPlant(slb.PathDomain, slb.SeverityBlock), b, "path-domain", "x-1", "leads here"},
		// One that 2.7-domains waits for does not refuse the plan.
		{func(cfg *Config, f *Facts) {
			pathPlant(slb.PathDomain, slb.SeverityBlock)(cfg, f)
			f.Forwarding = []slb.ForwardingItem{{Domain: "www.shop.example", RecordID: "x-1"}}
		}, w, "path-domain", "x-1", "leads here"},

		{func(_ *Config, f *Facts) { f.Direct = []string{"172.31.9.9 uses port 8080"} }, w, "inbound-direct", "172.31.9.9 uses port 8080", "172.31.9.9"},
		{peer("in", "java", 9090, "172.31.9.9", 0), w, "inbound-other-port", "tcp/9090 (java)", "172.31.9.9 uses"},
		{process(hostinv.Process{PID: 7, Name: "keepalived", Program: "keepalived"}), b, "floating-daemon", "keepalived", "fight for it"},
		{process(hostinv.Process{PID: 7, Name: "kubelet", Program: "kubelet"}), b, "cluster-member", "kubelet", "under the same name"},
		{func(_ *Config, f *Facts) {
			f.Inventory.Interfaces = []hostinv.Interface{{Name: "lo", Addresses: []string{"127.0.0.1/8"}}, {Name: "docker0", Addresses: []string{"172.17.0.1/16"}}, {Name: "eth0", Addresses: []string{"172.31.0.90/24", "172.31.0.180/32", "fe80::1/64"}}}
		}, b, "floating-address", "172.31.0.180", "eth0 has the address 172.31.0.180"},
		{peer("out", "java", 0, "172.31.3.7", 3306), w, "outbound-trust", "172.31.3.7:3306", "MySQL"},
		{peer("out", "java", 0, "192.0.2.7", 443), w, "outbound-trust", "192.0.2.7:443", "outside of private networks"},
		{peer("out", "java", 0, "172.31.3.7", 8080), i, "outbound-other", "", "172.31.3.7:8080"},

		{func(_ *Config, f *Facts) {
			f.Disks[1].Category = "cloud_efficiency"
			f.Inventory.Mounts = []hostinv.Mount{{Target: "/data", Type: "xfs", Source: "/dev/mapper/vg-data"}}
		}, b, "disk-spread", "/data", "may lie on several disks"},
		{func(_ *Config, f *Facts) { f.Disks[1].Category = "cloud_efficiency" }, w, "disk-moments", "i-web90", "one after another"},
		{func(_ *Config, f *Facts) {
			f.Inventory.Mounts = []hostinv.Mount{{Target: "/share", Type: "nfs4", Source: "nas.example:/a", Options: []string{"rw"}}}
		}, b, "mount-network", "/share", "the very same files"},
		{func(_ *Config, f *Facts) {
			f.Inventory.Mounts = []hostinv.Mount{{Target: "/oss", Type: "fuse.ossfs", Source: "ossfs", Options: []string{"ro"}}}
		}, i, "mount-network", "/oss", "read-only"},
		{func(_ *Config, f *Facts) {
			f.Disks = append(f.Disks, ecs.Disk{ID: "d-3", Type: "data", Category: "cloud_essd"})
			f.Inventory.Fstab = []hostinv.Mount{{Target: "/data", Type: "ext4", Source: "/dev/vdb1", Options: []string{"nofail"}}}
		}, w, "mount-device", "/data", "/dev/vdb1"},
		{func(_ *Config, f *Facts) {
			f.Inventory.Fstab = []hostinv.Mount{{Target: "/", Type: "ext4", Source: "/dev/vda1"}}
		}, i, "mount-device", "/", "/dev/vda1"},
		{func(_ *Config, f *Facts) {
			f.Inventory.Fstab = []hostinv.Mount{{Target: "/data", Type: "ext4", Source: "UUID=1-2"}}
		}, w, "mount-no-fail", "/data", "without nofail"},
		{func(_ *Config, f *Facts) {
			f.Inventory.Fstab = []hostinv.Mount{{Type: "swap", Target: "none", Source: "/dev/vdb2"}}
		}, w, "swap-device", "/dev/vdb2", "the swap /dev/vdb2"},
		{func(_ *Config, f *Facts) {
			f.Inventory.Filesystems = []hostinv.Filesystem{{Target: "/", Bytes: 100 << 30, Available: 3 << 30}}
		}, w, "disk-full", "/", "3% left (3072 MiB)"},
		{crypt(CryptDevice{Name: "data", Source: "/dev/vdb1", Open: true}), b, "disk-crypt", "data", "asks for its passphrase"},
		{crypt(CryptDevice{Name: "data", Open: true}), b, "disk-crypt", "data", "opened by hand"},
		{crypt(CryptDevice{Name: "data", Source: "/dev/vdb1", Options: []string{"tpm2-device=auto"}}), b, "disk-crypt", "data", "production's machine"},
		{crypt(CryptDevice{Name: "data", Source: "/dev/vdb1", Options: []string{"noauto"}}), w, "disk-crypt", "data", "nobody opens it at boot"},
		{crypt(CryptDevice{Name: "data", Source: "/dev/vdb1", Key: "/etc/keys/data"}), i, "disk-crypt", "data", "opened with /etc/keys/data"},
		{crypt(CryptDevice{Name: "swap", Source: "/dev/vdb2", Key: "/dev/urandom", Options: []string{"swap"}}), i, "disk-crypt", "swap", "a new key at each boot"},
		{process(hostinv.Process{PID: 8, Name: "mysqld", Program: "mysqld"}), b, "state-process", "mysql", "MySQL keeps its data on the host: mysqld (process 8)"},
		{func(_ *Config, f *Facts) {
			f.Inventory.Containers[1].ID = "c0ffee"
			process(hostinv.Process{PID: 9, Name: "redis-server", Program: "redis-server", Container: "c0ffee"})(nil, f)
		}, b, "state-process", "redis", "in container cache"},
		{func(_ *Config, f *Facts) { f.Inventory.Java[0].Jar = "/opt/jenkins.war" }, b, "state-process", "jenkins", "Jenkins"},
		{func(_ *Config, f *Facts) {
			f.Inventory.Containers[1].Volumes = []hostinv.Volume{{Type: "volume", Source: "uploads", Target: "/data"}, {Type: "volume", Source: strings.Repeat("a1", 32), Target: "/tmp"}, {Type: "bind", Source: "/srv/x", Target: "/x"}}
		}, b, "state-volume", "uploads", "container cache keeps data in the volume uploads"},
		{func(_ *Config, f *Facts) {
			f.Inventory.Docker.RootDir = "/data/docker"
			f.Inventory.Processes = []hostinv.Process{{PID: 38, Name: "dockerd-current"}, {PID: 39, Name: "containerd"}}
			f.Extra = &HostExtra{Databases: []OpenFile{{Path: "/srv/order/app.sqlite", By: "process 71"}, {Path: "/data/docker/volumes/metadata.db", By: "process 38"}, {Path: "/var/lib/containerd/x/meta.db", By: "process 39"}}}
		}, b, "state-file", "/srv/order/app.sqlite", "process 71 has the database file"},

		{func(cfg *Config, f *Facts) {
			cfg.Transition.Quarantine.Allow = []string{"crond"}
			line(&f.Inventory.Cron, "/var/spool/cron/root", "*/5 * * * * /srv/job.sh")
			line(&f.Inventory.Cron, "/var/spool/cron/root", "MAILTO=ops")
			line(&f.Inventory.Cron, "/etc/cron.d/0hourly", "01 * * * * root run-parts /etc/cron.hourly")
			line(&f.Inventory.Cron, "/etc/cron.daily/logrotate", "")
		}, w, "twice-cron", "/var/spool/cron/root", "has 1 jobs"},
		{func(cfg *Config, f *Facts) {
			line(&f.Inventory.Cron, "/var/spool/cron/root", "*/5 * * * * /srv/job.sh")
			cfg.Transition.Quarantine.Hold = []string{"crond"}
		}, i, "twice-cron", "/var/spool/cron/root", "held back"},
		{func(cfg *Config, f *Facts) {
			cfg.Transition.Quarantine.Allow = []string{"settle.timer"}
			f.Inventory.Units = []hostinv.Unit{{Name: "settle.timer", Active: "active"}, {Name: "fstrim.timer", Active: "active"}, {Name: "old.timer", Active: "inactive"}}
		}, w, "twice-timer", "settle.timer", "settle.timer is active"},
		{func(_ *Config, f *Facts) {
			f.Inventory.Agents = []hostinv.Agent{{Name: "salt", Evidence: "process salt-minion", Why: "it has the same minion ID"}}
		}, w, "twice-agent", "salt", "same minion ID"},
		{func(cfg *Config, f *Facts) {
			peer("out", "java", 0, "172.31.3.9", 9876)(cfg, f)
		}, w, "twice-consumer", "172.31.3.9:9876", "takes messages"},
		{func(cfg *Config, f *Facts) {
			peer("out", "java", 0, "172.31.3.9", 8848)(cfg, f)
			cfg.Transition.Quarantine.SecurityGroup = "sg-iso"
		}, i, "twice-registry", "172.31.3.9:8848", "registers itself"},
		{func(_ *Config, f *Facts) {
			f.Inventory.Java[0].Args = []string{"java", "-Dsnowflake.workerId=7", "--instance-name=", "-Dnode.identity=x"}
		}, w, "twice-identity", "/srv/order", "-Dsnowflake.workerId=7"},
		{func(_ *Config, f *Facts) {
			f.Inventory.Java[0].Args = []string{"java", "-Dxxl.job.executor.appname=order"}
		}, w, "twice-executor", "/srv/order", "XXL-JOB"},
		{func(_ *Config, f *Facts) { f.Inventory.Java[0].Ports = []int{8080, 27777} }, w, "twice-executor", "/srv/order", "PowerJob (port 27777)"},
		{func(_ *Config, f *Facts) {
			f.Inventory.Sections[hostinv.SectionPackages] = hostinv.Section{Status: hostinv.StatusOK}
			f.Inventory.Units = []hostinv.Unit{{Name: "crond.service", Active: "active", Sub: "running", Enabled: "enabled"}}
		}, b, "quarantine-cloud-init", "", "nothing would be held back at the first boot of the copy (crond.service)"},
		{func(_ *Config, f *Facts) { f.Inventory.Listeners[0].Addr = "172.31.0.90" }, w, "net-listen", "tcp/8080", "the address 172.31.0.90 itself"},
		{func(_ *Config, f *Facts) {
			f.Inventory.Java[0].Args = []string{"java", "-Ddubbo.ip=172.31.0.90", "-Dx=172.31.0.9"}
		}, w, "net-argument", "/srv/order", "-Ddubbo.ip=172.31.0.90"},
		{func(_ *Config, f *Facts) {
			f.Inventory.Firewall = []hostinv.Rule{{Tool: "iptables", Table: "filter", Text: "-A INPUT -d 172.31.0.90/32 -j ACCEPT"}, {Tool: "iptables", Text: "-A INPUT -d 172.31.0.9/32 -j DROP"}}
		}, w, "net-firewall", "iptables", "172.31.0.90/32"},
		{func(_ *Config, f *Facts) {
			f.Inventory.DNS.Hosts = []string{"127.0.0.1 localhost", "172.31.0.90 web-90"}
		}, i, "net-hosts", "172.31.0.90 web-90", "172.31.0.90 web-90"},
		{func(_ *Config, f *Facts) {
			f.Extra = &HostExtra{Network: []hostinv.Line{{Source: "/etc/sysconfig/network-scripts/ifcfg-eth0", Text: `HWADDR="00:16:3e:00:00:01"`}}}
		}, w, "net-hwaddr", "/etc/sysconfig/network-scripts/ifcfg-eth0", "00:16:3e:00:00:01"},
		{func(_ *Config, f *Facts) {
			f.Extra = &HostExtra{Network: []hostinv.Line{{Source: "/etc/sysconfig/network-scripts/ifcfg-eth0", Text: "IPADDR=172.31.0.90"}, {Source: "/etc/sysconfig/network-scripts/ifcfg-lo", Text: "IPADDR=127.0.0.1"}}}
		}, b, "net-static", "/etc/sysconfig/network-scripts/ifcfg-eth0", "sets the address 172.31.0.90"},
		{func(_ *Config, f *Facts) {
			f.Extra = &HostExtra{Certificates: []Certificate{{Path: "/etc/nginx/x.pem", Addresses: []string{"172.31.0.90"}, NotAfter: planTime.Add(9000 * time.Hour)}}}
		}, w, "certificate-address", "/etc/nginx/x.pem", "for the address 172.31.0.90"},
		{func(_ *Config, f *Facts) {
			f.Extra = &HostExtra{Certificates: []Certificate{{Path: "/etc/nginx/x.pem", NotAfter: planTime.Add(90 * time.Hour)}}}
		}, w, "certificate-expiry", "/etc/nginx/x.pem", "2026-11-25T20:00:00Z"},
		{func(_ *Config, f *Facts) {
			f.Inventory.Sections[hostinv.SectionTime] = hostinv.Section{Status: hostinv.StatusOK}
		}, w, "time-sync", "", "nothing keeps the host's clock"},
		{func(_ *Config, f *Facts) { f.Inventory.ClockSkew = -time.Minute }, w, "time-skew", "", "1m0s"},
		{func(_ *Config, f *Facts) {
			f.Inventory.Listeners = append(f.Inventory.Listeners, hostinv.Listener{Proto: "tcp", Addr: "0.0.0.0", Port: 9100, Process: "node_exporter"}, hostinv.Listener{Proto: "tcp", Addr: "127.0.0.1", Port: 9101}, hostinv.Listener{Proto: "tcp", Addr: "::", Port: 22, Process: "sshd"})
		}, i, "listener-unlisted", "tcp/9100 (node_exporter)", "tcp/9100"},

		{func(_ *Config, f *Facts) {
			f.OS = &hostos.Assessment{OS: &hostos.OS{}, Refused: []string{"strategy apt needs apt-get"}}
		}, b, "os-strategy", "", "needs apt-get"},
		{osPlant("unfinished-transaction", "", hostos.Block), b, "os-unfinished-transaction", "", "seen on the host"},
		{osPlant("broken-dependency", "", hostos.Block), b, "os-broken-dependency", "", "seen on the host"},
		{osPlant("unavailable", "", hostos.Block), b, "os-unavailable", "", "seen on the host"},
		{osPlant("skipped-kernel", "", hostos.Block), b, "os-skipped-kernel", "", "seen on the host"},
		{osPlant("dead-mirror", "", hostos.Block), b, "os-dead-mirror", "", "seen on the host"},
		{osPlant("ignored-repository", "epel", hostos.Block), b, "os-ignored-repository", "epel", "seen on the host"},
		{osPlant("skipped-packages", "", hostos.Warn), w, "os-skipped-packages", "", "seen on the host"},
		{osPlant("no-security-updates", "", hostos.Block), b, "os-no-security-updates", "", "seen on the host"},
		{osPlant("nothing-to-do", "", hostos.Warn), w, "os-nothing-to-do", "", "seen on the host"},
		{osPlant("no-kernel", "", hostos.Warn), w, "os-no-kernel", "", "seen on the host"},
		{osPlant("exclude", "kernel*", hostos.Block), b, "os-exclude", "kernel*", "seen on the host"},
		{osPlant("space", "/boot", hostos.Block), b, "os-space", "/boot", "seen on the host"},
		{osPlant("grub-default", "", hostos.Block), b, "os-grub-default", "", "seen on the host"},
		{osPlant("module", "nvidia", hostos.Warn), w, "os-module", "nvidia", "seen on the host"},
		{osPlant("fstab", "/dev/sdb1", hostos.Block), b, "os-fstab", "/dev/sdb1", "seen on the host"},
		{replacedDisk(func(f *Facts) { f.Disks[0].Type = "data" }), b, "disk-replace", "i-web90", "no system disk"},
		{replacedDisk(func(f *Facts) { f.Disks[0].Category = "ephemeral_ssd" }), b, "disk-replace", "d-sys", "only cloud disks"},
		{replacedDisk(func(f *Facts) { f.Disks[0].Encrypted = true }), b, "disk-replace", "d-sys", "is encrypted"},
		{replacedDisk(func(f *Facts) { f.Disks[0].Status = "ReIniting" }), b, "disk-replace", "d-sys", "not in use"},
		{replacedDisk(func(f *Facts) { f.Instance.Type = "ecs.s2.large" }), b, "disk-replace", "i-web90", "ran on Xen"},
		{replacedDisk(func(f *Facts) { f.Disks[0].AutoSnapshotPolicyID = "sp-1" }), w, "disk-policy", "sp-1", "will not have"},
		{replacedDisk(func(f *Facts) {
			f.Written = []Written{{Dir: "/srv/order/data", Files: 2, Some: []string{"/srv/order/data/a"}}}
		}), b, "disk-written", "/srv/order/data", "2 files in /srv/order/data"},
		{replacedDisk(func(f *Facts) { f.Logs = 7 }), i, "disk-logs", "", "7 logs"},
		{func(cfg *Config, _ *Facts) {
			cfg.Windows = WindowsConfig{Timezone: "Asia/Shanghai", Allow: []string{"Sat 01:00-01:30"}, Traffic: 10 * time.Minute}
		}, b, "window-none", "", "is 50m long"},
		{func(cfg *Config, _ *Facts) {
			cfg.Windows = WindowsConfig{Timezone: "Asia/Shanghai", Allow: []string{"Sat 01:00-05:00"}, Traffic: 10 * time.Minute}
		}, i, "window-next", "", "of Sat 2026-11-28 01:00 CST, which is open for 4h"},
	}
}

// quiet makes the facts of planInputs such that only what is always said is.
func quietInputs(t *testing.T) (*Config, *Facts) {
	cfg, f := planInputs(t)
	for i := range f.Disks {
		f.Disks[i].Category = "cloud_essd"
	}
	m := &f.Memberships[0]
	for i := range m.Listeners {
		m.Listeners[i].HealthCheck = true
	}
	other := m.Backend
	other.ServerID, other.ServerIP = "i-app88", "172.31.0.88"
	m.Backends = append(slices.Clone(m.Backends), other)
	return cfg, f
}

// Each detector finds what is planted, says it of the right object and with the
// right weight, and nobody else speaks up; and every ID has such a case.
func TestDetectPlanted(t *testing.T) {
	cfg, f := quietInputs(t)
	always := Detect(cfg, f, planTime)
	require.Len(t, always, 1)
	assert.Equal(t, "disk-crash-consistent", always[0].ID)
	seen := map[string]bool{"disk-crash-consistent": true}
	for _, p := range plantedFindings() {
		t.Run(p.id+" "+p.severity, func(t *testing.T) {
			cfg, f := quietInputs(t)
			p.plant(cfg, f)
			var mine, others []Finding
			for _, x := range Detect(cfg, f, planTime) {
				switch {
				case x.ID == p.id && x.Object == p.object && x.Severity == p.severity:
					mine = append(mine, x)
				case x.ID != "disk-crash-consistent":
					others = append(others, x)
				}
			}
			require.Len(t, mine, 1, "others: %+v", others)
			assert.Contains(t, mine[0].Evidence, p.says)
			if p.severity != FindingInfo && !slices.Contains([]string{"instance-status", "wrong-host", "clone-refused", "clone-unasked", "adopted-unfit", "service-down", "service-missing", "service-twice", "service-unlisted", "docker-warning", "inventory-gap", "nginx-edit", "nginx-port", "balancer-port"}, p.id) {
				assert.NotEmpty(t, mine[0].Remedy)
			}
			// A message queue is a trusting peer as well; nothing else may echo.
			for _, x := range others {
				assert.True(t, x.ID == "outbound-trust" && strings.HasPrefix(p.id, "twice-") || p.id == "balancer-alone" && x.ID == "balancer-sick" || strings.HasPrefix(p.id, "clone-") && strings.HasPrefix(x.ID, "clone-") || strings.HasPrefix(p.id, "docker-") && strings.HasPrefix(x.ID, "docker-"), "%+v", x)
			}
			seen[p.id] = true
		})
	}
	for _, id := range FindingIDs() {
		assert.True(t, seen[id], "no case plants %s", id)
	}
}

// What looks like trouble and is none: no detector says a word.
func TestDetectNothing(t *testing.T) {
	order := hostinv.Process{PID: 71, Program: "java", Name: "java", Exe: "/usr/bin/java", Cwd: "/srv/order", User: "app"}
	for name, plant := range map[string]func(*Config, *Facts){
		"quotas with just enough room": func(_ *Config, f *Facts) {
			f.Quotas = []ecs.Quota{{Kind: ecs.QuotaVCPU, Need: 2, Left: 2}, {Kind: ecs.QuotaAddress, Need: 1, Left: 3}, {Kind: ecs.QuotaSnapshot, Need: 2, Left: 2}, {Kind: ecs.QuotaSecurityGroup, Need: 1, Left: 1}}
		},
		"what a restart needs is known": func(_ *Config, f *Facts) { f.Restart = []hostos.Kept{{Service: "order", PID: 71, Args: 3}} },
		"a second process of a service": func(_ *Config, f *Facts) {
			f.Inventory.Java = append(f.Inventory.Java, hostinv.Java{PID: 72, Cwd: "/srv/order"})
		},
		"java in a unit of its own": func(_ *Config, f *Facts) {
			f.Inventory.Java = append(f.Inventory.Java, hostinv.Java{PID: 72, Cwd: "/srv/pay", Unit: "pay.service"})
		},
		"a process that does not listen": process(hostinv.Process{PID: 90, Program: "sleep", Name: "sleep", Cwd: "/home/ops"}),
		"a program below supervisord": func(_ *Config, f *Facts) {
			process(hostinv.Process{PID: 40, Program: "python3 supervisord", Exe: "/usr/bin/python3"})(nil, f)
			process(hostinv.Process{PID: 41, PPID: 40, Program: "java", Name: "java", Exe: "/usr/bin/java", Cwd: "/srv/worker"})(nil, f)
			f.Inventory.Java = append(f.Inventory.Java, hostinv.Java{PID: 41, Cwd: "/srv/worker"})
		},
		"a disabled unit of the plan": func(cfg *Config, f *Facts) {
			cfg.Services = append(cfg.Services, Service{Name: "report", Kind: KindUnit, Unit: "report"})
			f.Inventory.Units = []hostinv.Unit{{Name: "report.service", Active: "active", Sub: "running", Enabled: "disabled"}}
		},
		"a service that says what it comes after": func(cfg *Config, f *Facts) {
			process(order)(nil, f)
			peer("out", "java", 0, "127.0.0.1", 8082)(nil, f)
			cfg.Services[0].After, cfg.Services[1].After = []string{"shop"}, []string{"cache"}
		},
		"a service that uses itself": func(_ *Config, f *Facts) {
			process(order)(nil, f)
			peer("out", "java", 0, "172.31.0.90", 8080)(nil, f)
		},
		"a member of weight 0": func(_ *Config, f *Facts) {
			b := f.Memberships[0].Backend
			b.ServerID, b.Weight = "i-spare", 0
			f.Memberships[0].Backends = append(f.Memberships[0].Backends, b)
		},
		"no encrypted device": func(_ *Config, f *Facts) {
			f.Extra = parseExtra([]byte("== crypttab\n# <target name> <source device>\n\n== crypt\n== end\n"))
		},
		"an argument with an ID": func(_ *Config, f *Facts) {
			f.Inventory.Java[0].Args = []string{"java", "-Dclient.idle=3", "--node-identity", "-Dworker.id="}
		},
		"ports near an executor's": func(_ *Config, f *Facts) { f.Inventory.Java[0].Ports = []int{8080, 9998} },
		"cloud-init is a package": func(_ *Config, f *Facts) {
			f.Inventory.Sections[hostinv.SectionPackages] = hostinv.Section{Status: hostinv.StatusOK}
			f.Inventory.Packages = []hostinv.Package{{Name: "cloud-init"}}
			f.Inventory.Units = []hostinv.Unit{{Name: "crond.service", Active: "active", Sub: "running", Enabled: "enabled"}}
		},
		"no list of packages": func(_ *Config, f *Facts) {
			f.Inventory.Units = []hostinv.Unit{{Name: "crond.service", Active: "active", Sub: "running", Enabled: "enabled"}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, f := quietInputs(t)
			plant(cfg, f)
			all := Detect(cfg, f, planTime)
			require.Len(t, all, 1, "%+v", all)
			assert.Equal(t, "disk-crash-consistent", all[0].ID)
		})
	}
}

// What a person may take on, a plan is made with; it is recorded how. The rest
// refuses, whatever the configuration says.
func TestAccept(t *testing.T) {
	for _, p := range plantedFindings() {
		if p.severity != FindingBlocking {
			continue
		}
		t.Run(p.id, func(t *testing.T) {
			cfg, f := quietInputs(t)
			p.plant(cfg, f)
			_, err := BuildPlan(cfg, f, planTime, "1.0")
			var refused *RefusedError
			require.ErrorAs(t, err, &refused)
			assert.Equal(t, ExitRefused, ErrorStatus(err))
			assert.True(t, slices.ContainsFunc(refused.Findings, func(x Finding) bool { return x.ID == p.id && x.open() }))
			exact := Finding{ID: p.id, Object: p.object}.entry()
			assert.Equal(t, acceptable(p.id), strings.Contains(err.Error(), "accept: ["+quoteYAML(exact)+"]"))
			for _, entry := range []string{p.id, exact} {
				cfg.Accept = []string{entry}
				plan, err := BuildPlan(cfg, f, planTime, "1.0")
				if !acceptable(p.id) {
					require.ErrorAs(t, err, &refused)
					continue
				}
				require.NoError(t, err)
				i := slices.IndexFunc(plan.Findings, func(x Finding) bool { return x.ID == p.id })
				assert.Equal(t, entry, plan.Findings[i].Accepted)
				assert.Contains(t, plan.Text(), "accepted  "+exact)
				stored, err := plan.JSON()
				require.NoError(t, err)
				back, err := ParsePlan(stored)
				require.NoError(t, err)
				assert.Equal(t, plan.Findings, back.Findings)
			}
			if acceptable(p.id) && p.object != "" {
				cfg.Accept = []string{p.id + ":" + p.object + "x"}
				_, err := BuildPlan(cfg, f, planTime, "1.0")
				require.ErrorAs(t, err, &refused, "of another object")
			}
		})
	}
}

func TestAcceptState(t *testing.T) {
	cfg, f := quietInputs(t)
	f.Inventory.Processes = []hostinv.Process{{PID: 8, Name: "mysqld", Program: "mysqld"}}
	for _, s := range []string{StateExternal, StateAccepted} {
		cfg.State = s
		p, err := BuildPlan(cfg, f, planTime, "1.0")
		require.NoError(t, err)
		assert.Equal(t, "state: "+s, p.Findings[0].Accepted)
	}
	// It says nothing about anything else.
	f.Inventory.Mounts = []hostinv.Mount{{Target: "/share", Type: "nfs", Source: "nas:/a"}}
	_, err := BuildPlan(cfg, f, planTime, "1.0")
	require.ErrorContains(t, err, "/share is nas:/a (nfs)")
	assert.NotContains(t, err.Error(), "MySQL")
}

func TestAcceptInConfig(t *testing.T) {
	src, err := os.ReadFile(filepath.Join("testdata", "config", "full.yaml"))
	require.NoError(t, err)
	add := func(s string) []byte { return append(slices.Clone(src), s...) }
	c, err := ParseConfig("u.yaml", add("state: external\naccept: [mount-network, \"path-dnat:fwd-1\"]\n"))
	require.NoError(t, err)
	assert.Equal(t, StateExternal, c.State)
	assert.Equal(t, []string{"mount-network", "path-dnat:fwd-1"}, c.Accept)
	for text, want := range map[string]string{
		"accept: [mount-netwrok]\n":      `begins with no ID of a finding; did you mean "mount-network"?`,
		"accept: [\"wrong-host:x\"]\n":   "cannot be accepted: the procedure would not get to its end",
		"accept: [path-eip, path-eip]\n": "is listed twice",
		"accept: path-eip\n":             "must be a list",
		"state: extern\n":                `is not one of external, accepted; did you mean "external"?`,
	} {
		_, err := ParseConfig("u.yaml", add(text))
		assert.ErrorContains(t, err, want, text)
	}
}

// docs/preflight.md has every ID once, with what, why and remedy, and no other.
func TestPreflightDoc(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "docs", "preflight.md"))
	require.NoError(t, err)
	var ids []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z0-9-]+)` \\| ([^|]+) \\| ([^|]+) \\| ([^|]+) \\| ([^|]+) \\|\\r?$").FindAllStringSubmatch(string(doc), -1) {
		ids = append(ids, m[1])
		for i, cell := range m[2:] {
			assert.NotEmpty(t, strings.TrimSpace(cell), "%s, column %d", m[1], i+2)
		}
		assert.Equal(t, acceptable(m[1]), !strings.Contains(m[2], "never accepted"), m[1])
	}
	assert.Equal(t, FindingIDs(), ids, "the IDs of the code and of docs/preflight.md, in their order")

	// The checklist names findings and tests that there are.
	_, list, ok := strings.Cut(string(doc), "## The checklist")
	list, _, ok2 := strings.Cut(list, "\n## ")
	require.True(t, ok && ok2)
	for _, m := range regexp.MustCompile("`([a-z0-9]+-[a-z0-9-]+)`").FindAllStringSubmatch(list, -1) {
		assert.Contains(t, ids, m[1])
	}
	sources := map[string]string{}
	for _, dir := range []string{".", "hostos", "../ecs", "../slb", "../cmd/upgradectl"} {
		files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		require.NoError(t, err)
		for _, f := range files {
			b, err := os.ReadFile(f)
			require.NoError(t, err)
			sources[f] = string(b)
		}
	}
	for _, name := range regexp.MustCompile(`\bTest[A-Z]\w+`).FindAllString(list, -1) {
		found := false
		for _, b := range sources {
			found = found || strings.Contains(b, "func "+name+"(")
		}
		assert.True(t, found, "docs/preflight.md names %s, which is no test", name)
	}
}

// Nothing that a host holds makes a detector panic, and order does not depend on
// chance.
func FuzzDetect(f *testing.F) {
	f.Add("172.31.0.90", "/etc/cron.d/x", "HWADDR=00", 3306, "in")
	f.Add("", "", "", 0, "")
	f.Add("::1", "process", "IPADDR=172.31.0.90", 70000, "out")
	src, err := os.ReadFile(filepath.Join("testdata", "config", "full.yaml"))
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, ip, name, text string, port int, dir string) {
		cfg, err := ParseConfig("u.yaml", src)
		require.NoError(t, err)
		facts := func() *Facts {
			inv := &hostinv.Inventory{Sections: map[string]hostinv.Section{},
				Connections: []hostinv.Peer{{Direction: dir, Process: name, LocalPort: port, IP: ip, Port: port}, {Direction: "out", IP: ip, Port: port}},
				Interfaces:  []hostinv.Interface{{Name: name, Addresses: []string{ip + "/24", text}}},
				Listeners:   []hostinv.Listener{{Proto: "tcp", Addr: ip, Port: port, Process: name}},
				Processes:   []hostinv.Process{{Name: name, Program: text}},
				Java:        []hostinv.Java{{Cwd: name, Args: []string{text}, Jar: text, MainClass: name}},
				Mounts:      []hostinv.Mount{{Target: name, Type: text, Source: name}}, Fstab: []hostinv.Mount{{Target: name, Type: text, Source: name}},
				Agents: []hostinv.Agent{{Name: name, Evidence: text}}, Cron: []hostinv.Line{{Source: name, Text: text}}, DNS: hostinv.DNS{Hosts: []string{text}}}
			return &Facts{Inventory: inv, Extra: parseExtra([]byte("== network\n" + name + ":" + text + "\n== databases\n" + text + "\n== certificates\n" + text))}
		}
		a, b := Detect(cfg, facts(), planTime), Detect(cfg, facts(), planTime)
		assert.Equal(t, a, b)
		for _, x := range a {
			_, known := findKind(x.ID)
			assert.True(t, known, x.ID)
		}
	})
}

// The script runs in a real shell, on files as hosts have them.
func TestExtraScript(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the script is for hosts with a POSIX shell; there is none here")
	}
	root := t.TempDir()
	put := func(name, text string) {
		p := filepath.Join(root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o755))
		require.NoError(t, os.WriteFile(p, []byte(text), 0o644))
	}
	put("etc/sysconfig/network-scripts/ifcfg-eth0", "DEVICE=eth0\nHWADDR=00:16:3e:01:02:03\n#IPADDR=1.2.3.4\nIPADDR=172.31.0.90\n")
	put("etc/udev/rules.d/70-persistent-net.rules", `SUBSYSTEM=="net", ATTR{address}=="00:16:3e:01:02:03", NAME="eth0"`+"\n")
	put("etc/netplan/50-cloud-init.yaml", "network:\n  ethernets:\n    eth0:\n      addresses: [172.31.0.90/24]\n")
	put("etc/nginx/conf.d/a.conf", "server {\n    ssl_certificate     cert/a b.pem;\n    ssl_certificate_key cert/a.key;\n  ssl_certificate "+"/etc/pki/self.pem;\n ssl_certificate $var;\n}\n")
	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotAfter: planTime, IPAddresses: []net.IP{net.ParseIP("172.31.0.90")}, DNSNames: []string{"a.example"}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	require.NoError(t, err)
	put("etc/pki/self.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	put("etc/nginx/cert/a b.pem", "not a certificate\n")
	put("etc/crypttab", "# name source key options\ndata\t/dev/vdb1 none luks,discard\nlogs UUID=1-2 /etc/keys/logs\nswap /dev/vdb2 /dev/urandom swap,cipher=aes-xts-plain64\nshort\n")
	put("sys/block/dm-0/dm/uuid", "CRYPT-LUKS2-0123456789abcdef0123456789abcdef-data\n")
	put("sys/block/dm-1/dm/uuid", "LVM-abc\n")
	put("sys/block/dm-2/dm/uuid", "CRYPT-LUKS1-0123456789abcdef0123456789abcdef-by-hand\n")
	put("sys/block/dm-3/dm/uuid", "CRYPT-PLAIN-swap\n")
	c := exec.Command("/bin/sh", "-s", root)
	c.Stdin = strings.NewReader(extraScript)
	out, err := c.Output()
	require.NoError(t, err)
	e := parseExtra(bytes.ReplaceAll(out, []byte(root), nil))
	assert.Equal(t, []hostinv.Line{
		{Source: "/etc/sysconfig/network-scripts/ifcfg-eth0", Text: "HWADDR=00:16:3e:01:02:03"},
		{Source: "/etc/sysconfig/network-scripts/ifcfg-eth0", Text: "IPADDR=172.31.0.90"},
		{Source: "/etc/udev/rules.d/70-persistent-net.rules", Text: `SUBSYSTEM=="net", ATTR{address}=="00:16:3e:01:02:03", NAME="eth0"`},
		{Source: "/etc/netplan/50-cloud-init.yaml", Text: "addresses: [172.31.0.90/24]"},
	}, e.Network)
	assert.Equal(t, []CryptDevice{
		{Name: "data", Source: "/dev/vdb1", Options: []string{"luks", "discard"}, Open: true},
		{Name: "logs", Source: "UUID=1-2", Key: "/etc/keys/logs"},
		{Name: "swap", Source: "/dev/vdb2", Key: "/dev/urandom", Options: []string{"swap", "cipher=aes-xts-plain64"}, Open: true},
		{Name: "by-hand", Open: true},
	}, e.Crypt)
	assert.Equal(t, []Certificate{{Path: "/etc/pki/self.pem", Names: []string{"a.example"}, Addresses: []string{"172.31.0.90"}, NotAfter: planTime}}, e.Certificates)

	// A process of ours with a database open shows on a real /proc.
	if runtime.GOOS != "linux" {
		return
	}
	db, err := os.Create(filepath.Join(root, "app data.sqlite3"))
	require.NoError(t, err)
	defer db.Close()
	c = exec.Command("/bin/sh", "-s", "")
	c.Stdin = strings.NewReader(extraScript)
	out, err = c.Output()
	require.NoError(t, err)
	e = parseExtra(out)
	i := slices.IndexFunc(e.Databases, func(o OpenFile) bool { return o.Path == db.Name() })
	require.GreaterOrEqual(t, i, 0, "%+v", e.Databases)
	assert.Regexp(t, `^process [0-9]+$`, e.Databases[i].By)
}
