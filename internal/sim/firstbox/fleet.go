package firstbox

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"

	"github.com/upgradectl/upgradectl/internal/sim/host"
)

// The addresses of the site.
const (
	FirstboxAddr = "192.0.2.2"
	ProxyVIP     = "192.0.2.60"
	WebVIP       = "192.0.2.64"
	DNSVIP       = "192.0.2.40"

	gateway     = "192.0.2.254"
	eipGateway  = "203.0.113.1"
	vmNetwork   = "10.80.0.0/16"
	vmService   = "10.80.0.9"     // what the metadata front end of the proxies leads to
	globalSite  = "198.51.100.65" // webservice of the global site, of a sub zone
	handNetwork = "10.90.0.0/16"  // reached by a route that somebody added by hand
)

// member is a node of the site at the beginning.
type member struct {
	name, role, addr, host string // host: of the physical one
	eip                    string
	priority               int
}

// finalAddress are the addresses that nodes keep, whatever happens.
var finalAddress = func() map[string]netip.Addr {
	out := map[string]netip.Addr{}
	for _, n := range members {
		out[n.name] = netip.MustParseAddr(n.addr)
	}
	return out
}()

var members = []member{
	{"proxy0", "proxy", "192.0.2.61", "192.0.2.101", "203.0.113.61", 100},
	{"proxy1", "proxy", "192.0.2.62", "192.0.2.102", "203.0.113.62", 90},
	{"webservice0", "webservice", "192.0.2.65", "192.0.2.103", "", 100},
	{"webservice1", "webservice", "192.0.2.66", "192.0.2.104", "", 90},
	{"dnsmaster0", "dnsmaster", "192.0.2.41", "192.0.2.103", "", 100},
	{"dnsmaster1", "dnsmaster", "192.0.2.42", "192.0.2.104", "", 90},
}

var hostNames = []string{"lab1ar01n01", "lab1ar01n02", "lab1ar01n03", "lab1ar01n04"}

// kernelOf and their names are what the releases run.
var kernelOf = map[string]string{"14.04.5": "3.13.0-32-generic", "16.04.5": "4.4.0-131-generic"}

func osRelease(version string) string {
	v := version[:5]
	name := map[string]string{"14.04": "Trusty Tahr", "16.04": "Xenial Xerus"}[v]
	return fmt.Sprintf("NAME=\"Ubuntu\"\nVERSION=\"%[1]s LTS (%[2]s)\"\nID=ubuntu\nID_LIKE=debian\nPRETTY_NAME=\"Ubuntu %[1]s LTS\"\nVERSION_ID=\"%[3]s\"\n", version, name, v)
}

// machine makes a host with an Ubuntu release.
func (s *Site) machine(kind Kind, name, addr, version string, files map[string]string, commands map[string]host.Command) (*Machine, error) {
	s.count[name]++
	label := name
	if n := s.count[name]; n > 1 {
		label = fmt.Sprintf("%s#%d", name, n)
	}
	all := map[string]host.File{
		"/etc/os-release":                  {Data: []byte(osRelease(version))},
		"/etc/lsb-release":                 {Data: fmt.Appendf(nil, "DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE=%s\n", version[:5])},
		"/etc/hosts":                       {Data: []byte("127.0.0.1 localhost\n")},
		"/etc/cron.d":                      {Mode: 0o755 | dirMode},
		dpkgStatus:                         {Data: []byte(statusEntry("openssh-server", "1:6.6p1") + statusEntry("linux-image-"+kernelOf[version], "1") + statusEntry("supervisor", "3.0b2"))},
		"/etc/supervisor/supervisord.conf": {Data: []byte("[supervisord]\n[include]\nfiles = /etc/supervisor/conf.d/*.conf\n")},
		"/root/.ssh/authorized_keys":       {Data: []byte(s.authorizedKeys()), Mode: 0o600},
		"/root/.ssh/config":                {Data: []byte("StrictHostKeyChecking no\n"), Mode: 0o600},
	}
	for file, text := range files {
		f := host.File{Data: []byte(text)}
		if strings.HasPrefix(file, "/etc/rc.local") {
			f.Mode = 0o755
		}
		if dir := path.Dir(file); dir == bindDirectory || dir == "/var/lib/bind" {
			f.UID, f.GID = bindUID, bindUID
			all[dir] = host.File{Mode: 0o755 | dirMode, UID: bindUID, GID: bindUID}
		}
		all[file] = f
	}
	units := []host.Unit{{Name: "rc-local", Description: "/etc/rc.local Compatibility", Enabled: true, Start: "/etc/rc.local", Forking: true}}
	h, err := host.New(host.Spec{
		Name: label, Addr: addr, Hostname: name, Kernel: kernelOf[version], Files: all, Units: units, Commands: commands,
		Users: []host.User{{Name: "root", AuthorizedKeys: s.cfg.Keys}, {Name: bindUser, UID: bindUID}},
		Proc:  map[string]string{"meminfo": meminfo(kind)},
	}, s.options())
	if err != nil {
		return nil, err
	}
	for _, file := range []string{"/etc/redhat-release", "/etc/centos-release", "/usr/bin/yum", "/usr/bin/rpm"} {
		_ = h.Remove(file) // what an Ubuntu has not; some may be missing
	}
	if strings.HasPrefix(version, "14.04") {
		_ = h.Remove("/usr/bin/systemctl")
		_ = h.Remove("/usr/bin/systemd-run")
	}
	m := &Machine{Host: h, Name: name, Kind: kind, label: label}
	s.enter(m)
	return m, nil
}

// meminfo is /proc/meminfo: of a physical host 256 GB, of which 60 are free.
func meminfo(kind Kind) string {
	total, free := 8009300, 6009300
	if kind == Physical {
		total, free = 263192592, 62914560
	}
	return fmt.Sprintf("MemTotal:       %d kB\nMemFree:        %d kB\nMemAvailable:   %d kB\nSwapTotal:             0 kB\nSwapFree:              0 kB\n", total, free, free)
}

// authorizedKeys are who may log in as root: the operators, and the firstbox.
func (s *Site) authorizedKeys() string {
	text := strings.Join(s.cfg.Keys, "\n") + "\n"
	if s.firstbox != nil {
		data, _ := s.firstbox.Host.ReadFile("/root/.ssh/id_rsa.pub")
		text += string(data)
	}
	return text
}

// newVM makes the machine of a new image, switched off.
func (s *Site) newVM(name string, v values) (*Machine, error) {
	m, err := s.machine(VM, name, v["mgmt_network_address"], v["os_version"], map[string]string{
		interfacesFile: interfacesText(v, false),
	}, s.nodePrograms())
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m.image, m.role = newID(), v["role"]
	s.images[m.image] = m
	return m, nil
}

// build makes everything there is at the beginning.
func (s *Site) build() error {
	if err := s.buildFirstbox(); err != nil {
		return err
	}
	if err := s.buildHosts(); err != nil {
		return err
	}
	s.buildStrangers()
	s.writeSettings()
	s.generate()
	for _, name := range allPackages {
		s.place(name, s.cfg.Version+"-20190101000000.0000")
	}
	hosts, _ := s.newestDeb("pitrix-hosts")
	for _, n := range members {
		if err := s.buildNode(n, hosts); err != nil {
			return err
		}
	}
	for _, m := range s.Machines() {
		if m.Kind != VM {
			_ = s.configure(m, hosts) // writes a file of ours
		}
	}
	s.knowEachOther()
	ready := s.settle(func() bool {
		n := 0
		for _, m := range s.machines {
			if m.vrrp != nil {
				n++
			}
		}
		return n == len(members)
	})
	if !ready {
		return errors.New("keepalived of some nodes does not come up")
	}
	s.mu.Lock()
	for _, list := range s.routers { // who holds the addresses, since long ago
		best := list[0]
		for _, v := range list {
			if v.priority > best.priority {
				best = v
			}
		}
		best.become()
	}
	s.gaps = nil
	s.mu.Unlock()
	return nil
}

func (s *Site) buildFirstbox() error {
	commands := s.common()
	scripts := map[string]host.Command{
		"/pitrix/upgrade/exec_nodes.sh": s.cmdExecNodes, "/pitrix/upgrade/update.sh": s.cmdUpdate, "/pitrix/upgrade/update_nodes.sh": s.cmdUpdate,
		"/pitrix/upgrade/build_global_conf.sh": s.cmdBuildGlobal, "/pitrix/install/launch_vms.sh": s.cmdLaunchVMs,
		"/pitrix/install/install_nodes.sh": s.cmdInstallNodes, "/pitrix/bin/gen_mac.py": s.cmdGenMAC, "/pitrix/bin/dump_hosts.py": s.cmdDumpHosts,
		"dpkg-deb": s.cmdDpkgDeb, "tar": s.cmdTar,
	}
	ext := ".sh"
	if s.python() {
		ext = ".py"
	}
	scripts["/pitrix/bin/gen_node_list"+ext] = s.cmdGenNodeList
	scripts["/pitrix/build/build_pkgs_allinone"+ext] = s.cmdBuildAll
	for name, c := range scripts {
		commands[name] = c
	}
	version, err := json.Marshal(map[string]any{"current": map[string]string{"installer": s.cfg.Version, "qingcloud": s.cfg.Version, "patch": "", "upgrade": ""}, "old": []string{}})
	if err != nil {
		return err
	}
	files := map[string]string{
		interfacesFile:                         "auto lo\niface lo inet loopback\n\n# mgmt network\nauto eth0\niface eth0 inet static\n    address " + FirstboxAddr + "\n    netmask 255.255.255.0\n    gateway " + gateway + "\n",
		"/etc/rc.local":                        "#!/bin/bash\nexit 0\n",
		"/pitrix/version.json":                 string(version) + "\n",
		"/pitrix/conf/templates/empty_setting": "role=\"\"\nhostname=\"\"\n",
		variablesDir + "/global/server.yaml":   "zone: lab1a\n",
		variablesDir + "/hosts":                "\n",
		"/var/www/repo/16.04.5/Packages":       "\n", "/pitrix/repo/16.04.5/Packages": "\n",
		"/var/www/repo/14.04.5/Packages": "\n", "/pitrix/repo/14.04.5/Packages": "\n",
	}
	for name, list := range packagesOf {
		files["/pitrix/upgrade/packages/"+name] = "packages=('" + strings.Join(list, "' '") + "');\n"
	}
	if s.python() {
		text := "common:\n  ssh_port: 22\n  firstbox_address: " + FirstboxAddr + "\n  is_region: 0\n  region_id: \"\"\n  zone_ids: lab1a\n  domain: lab.example\n  site_protocol: http\nlab1a:\n  cloud_type: public\n"
		if s.cfg.VG {
			text += "  vg_mgmt_network_gateway: " + gateway + "\n"
		}
		files[variablesDir+"/variables.yaml"] = text
	} else {
		for name, text := range map[string]string{"firstbox_address": FirstboxAddr, "ssh_port": "22", "zone_ids": "lab1a", "is_region": "0", "cloud_type.lab1a": "public", "webservice_floating_ip.lab1a": WebVIP} {
			files[variablesDir+"/"+name] = text + "\n"
		}
	}
	for version, image := range images {
		if version != "16.04.5" || !s.cfg.Faults.NoBaseImage {
			files[kernels+"/"+image] = "QFI\xfb simulated\nimage: base-" + version + "\n"
		}
	}
	m, err := s.machine(Firstbox, "firstbox", FirstboxAddr, "16.04.5", files, commands)
	if err != nil {
		return err
	}
	s.firstbox = m
	if err := m.Host.WriteFile("/root/.ssh/id_rsa.pub", []byte(m.Host.HostKey()+" root@firstbox\n"), 0o644); err != nil {
		return err
	}
	m.nics = []*nic{{name: "eth0", mac: newMAC(), segment: "mgmt"}}
	return m.Host.Start()
}

func (s *Site) buildHosts() error {
	for i, name := range hostNames {
		addr := fmt.Sprintf("192.0.2.%d", 101+i)
		commands := s.common()
		commands["virsh"], commands["qemu-img"], commands["brctl"] = s.cmdVirsh, s.cmdQemuImg, s.cmdBrctl
		files := map[string]string{
			interfacesFile:                        "auto lo\niface lo inet loopback\n\n# mgmt network\nauto br0\niface br0 inet static\n    address " + addr + "\n    netmask 255.255.255.0\n    gateway " + gateway + "\n    bridge_ports bond0\n",
			"/etc/rc.local":                       "#!/bin/bash\nexit 0\n",
			"/sys/class/net/br0/bridge/bridge_id": "8000.000000000000\n", "/sys/class/net/br1/bridge/bridge_id": "8000.000000000000\n",
		}
		for _, version := range []string{"14.04.5"} {
			files[kernels+"/"+images[version]] = "QFI\xfb simulated\nimage: base-" + version + "\n"
		}
		m, err := s.machine(Physical, name, addr, "16.04.5", files, commands)
		if err != nil {
			return err
		}
		m.domains = map[string]*domain{}
		m.bridges = map[string]string{"br0": "mgmt", "br1": "eip"}
		m.nics = []*nic{{name: "br0", mac: newMAC(), segment: "mgmt"}, {name: "br1", mac: newMAC(), segment: "eip"}}
		for _, n := range m.nics {
			_ = m.Host.WriteFile("/sys/class/net/"+n.name+"/address", []byte(n.mac+"\n"), 0o444)
		}
		if err := m.Host.Start(); err != nil {
			return err
		}
		if s.cfg.Faults.WrongBridge {
			m.bridges["br0"] = "nowhere" // VMs that run are on the old cable
		}
	}
	return nil
}

// buildStrangers makes what only has addresses: the router, what lies behind
// it, and who has an address that nobody knows of.
func (s *Site) buildStrangers() {
	add := func(label string, ports map[int]bool, nics ...*nic) *Machine {
		m := &Machine{Name: label, label: label, Kind: Stranger, nics: nics, ports: ports}
		s.enter(m)
		return m
	}
	net := func(segment, addr string) *nic {
		return &nic{name: segment, mac: newMAC(), segment: segment, addrs: []netip.Prefix{netip.MustParsePrefix(addr)}}
	}
	s.router = add("router", nil, net("mgmt", gateway+"/24"), net("eip", eipGateway+"/24"))
	add("metadata service", map[int]bool{9611: true}, net("vm network", vmService+"/16"))
	add("webservice of the global site", map[int]bool{7777: true, 8565: true, 8000: true}, net("beyond", globalSite+"/24"))
	for _, addr := range s.cfg.Faults.Conflict {
		add("a machine that nobody knows of", nil, net("mgmt", addr+"/24"))
	}
}

// ofTrusty are the versions of the system's packages on old nodes.
var ofTrusty = map[string]string{
	"haproxy": "1.5.14-1ubuntu0.14.04.1", "keepalived": "1:1.2.7-1ubuntu1", "nginx": "1.4.6-1ubuntu3.9", "bind9": "1:9.9.5.dfsg-3ubuntu0.19",
}

// buildNode makes a VM that has run since long ago.
func (s *Site) buildNode(n member, hosts deb) error {
	v, _ := s.setting(n.name)
	data, _ := s.firstbox.Host.ReadFile(settingsDir + "/" + n.name)
	files := networkFiles(v)
	files["/opt/install/os/setting"] = string(data)
	files["/etc/rc.local.tail"] += "# made by hand: the operations network\nip route add " + handNetwork + " via " + gateway + "\n\n"
	role := roles[n.role]
	for name, text := range role.aged(s) {
		files[name] = text
	}
	files[keepalivedFile] = keepalivedText(n.role, role.router, n.priority, role.vip)
	m, err := s.machine(VM, n.name, n.addr, v["os_version"], files, s.nodePrograms())
	if err != nil {
		return err
	}
	m.image, m.role = newID(), n.role
	s.images[m.image] = m
	list := m.installed()
	for _, pkg := range role.packages(s) {
		list[pkg] = cmp.Or(ofTrusty[pkg], "4.1.2-20180301000000.0000")
		s.writeProgram(m, pkg)
	}
	m.record(list)
	m.placeServices(append(slices.Clone(role.services), "keepalived")...)
	_ = s.configure(m, hosts) // writes a file of ours
	phys := s.Machine(n.host)
	image := kernels + "/" + n.name + ".img"
	nics := []domainNIC{{v["mgmt_network_mac_address"], "br0"}}
	if v["eip_network_interface"] != "" {
		nics = append(nics, domainNIC{v["eip_network_mac_address"], "br1"})
	}
	text := xmlOf(n.name, v["memory_size"], v["cpu_cores"], image, nics)
	for file, data := range map[string][]byte{
		image: imageText(m.image, kernels+"/"+images["14.04.5"]), kernels + "/" + n.name + ".xml": []byte(text), kernels + "/" + n.name + ".Done": nil,
	} {
		if err := phys.Host.WriteFile(file, data, 0o644); err != nil {
			return err
		}
	}
	if _, err := s.define(phys, text); err != nil {
		return err
	}
	s.mu.Lock()
	d := phys.domains[n.name]
	d.autostart, d.running, m.runsOn = true, m, phys
	for i, x := range nics {
		segment := map[string]string{"br0": "mgmt", "br1": "eip"}[x.bridge]
		m.nics = append(m.nics, &nic{name: fmt.Sprintf("eth%d", i), mac: x.mac, segment: segment})
	}
	s.mu.Unlock()
	s.autostartLink(phys, n.name, true)
	for _, x := range m.nics {
		_ = m.Host.WriteFile("/sys/class/net/"+x.name+"/address", []byte(x.mac+"\n"), 0o444)
	}
	return m.Host.Start()
}

// knowEachOther gives every machine the host keys of all, as ssh has gathered
// them over the years.
func (s *Site) knowEachOther() {
	var b strings.Builder
	all := s.Machines()
	for _, m := range all {
		if a := m.Addresses(); len(a) > 0 {
			addr := a[0]
			if want, ok := finalAddress[m.Name]; ok {
				addr = want.String()
			}
			fmt.Fprintf(&b, "%s,%s %s\n", m.Name, addr, m.Host.HostKey())
		}
	}
	for _, m := range all {
		_ = m.Host.WriteFile(knownHostsFile, []byte(b.String()), 0o600)
	}
}
