package firstbox

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/upgradectl/upgradectl/internal/sim/host"
)

// The addresses of the site.
const (
	FirstboxAddr = "192.0.2.2"
	ProxyVIP     = "192.0.2.60"
	WebVIP       = "192.0.2.64"

	gateway     = "192.0.2.254"
	eipGateway  = "203.0.113.1"
	vmNetwork   = "10.80.0.0/16"
	vmService   = "10.80.0.9"     // what the metadata front end of the proxies leads to
	globalSite  = "198.51.100.65" // webservice of the global site, of a sub zone
	handNetwork = "10.90.0.0/16"  // reached by a route that somebody added by hand
)

// A Front is a port of the proxies' VIP that clients use.
type Front struct {
	Name   string
	Port   int
	Stream bool // connections live long
}

// Fronts are what clients ask for through the proxies' VIP: the generated front
// ends, one that somebody made by hand, and one behind the VM network.
func Fronts() []Front {
	return []Front{
		{"console-front", 80, false}, {"api-front", 7777, false}, {"ws-front", 8565, false},
		{"lab1b-fg-front", 8666, false}, {"lab1a-metad", 9611, false}, {"io-front", 8000, true},
	}
}

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
		all[file] = f
	}
	units := []host.Unit{{Name: "rc-local", Description: "/etc/rc.local Compatibility", Enabled: true, Start: "/etc/rc.local", Forking: true}}
	h, err := host.New(host.Spec{
		Name: label, Addr: addr, Hostname: name, Kernel: kernelOf[version], Files: all, Units: units, Commands: commands,
		Users: []host.User{{Name: "root", AuthorizedKeys: s.cfg.Keys}},
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
	s.settle(func() bool {
		n := 0
		for _, m := range s.machines {
			if m.vrrp != nil {
				n++
			}
		}
		return n == 4
	})
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
	s.wg.Go(s.cron)
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
		"/pitrix/upgrade/packages/proxy":       "packages=('pitrix-ks-proxy');\n",
		variablesDir + "/global/server.yaml":   "zone: lab1a\n",
		variablesDir + "/hosts":                "\n",
		"/var/www/repo/16.04.5/Packages":       "\n", "/pitrix/repo/16.04.5/Packages": "\n",
		"/var/www/repo/14.04.5/Packages": "\n", "/pitrix/repo/14.04.5/Packages": "\n",
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

// setting is the text of a VM's settings file at the beginning.
func (s *Site) settingText(n member) string {
	vg := s.cfg.VG
	gw, rule := gateway, ""
	switch {
	case vg && n.role == "proxy":
		gw = ""
	case vg && n.role == "dnsmaster":
		gw = n.host
	}
	text := fmt.Sprintf(`## Role
role="%s"

## Region
is_region="0"
region_id=""
zone_id="lab1a"

## Feature
feature_vmnode="on"
feature_ksnode="on"
feature_vgnode="off"
feature_hypernode="off"
feature_conntrack="off"

## Firstbox
firstbox_address="%s"

## General
cpu_arch="x86_64"
cpu_cores="4"
memory_size="8000"
os_name="trusty"
os_version="14.04.5"
hostname="%s"

## Mgmt Network
mgmt_network_interface="eth0"
mgmt_network_address="%s"
mgmt_network_netmask="255.255.255.0"
mgmt_network_gateway="%s"
mgmt_network_dns_servers="192.0.2.41 192.0.2.42"
mgmt_network_mac_address="%s"
mgmt_network_routing_rule="%s"
`, n.role, FirstboxAddr, n.name, n.addr, gw, newMAC(), rule)
	if n.role != "webservice" {
		text += fmt.Sprintf("\n## VM Network\nvm_network_routing_rule=\"ip route add %s src %s via %s\"\n", vmNetwork, n.addr, gateway)
	}
	eipBridge := ""
	if vg && n.role == "proxy" {
		eipBridge = "br1"
		text += fmt.Sprintf("\n## Eip Network\neip_network_interface=\"eth1\"\neip_network_address=\"%s\"\neip_network_netmask=\"255.255.255.0\"\neip_network_gateway=\"%s\"\neip_network_mac_address=\"%s\"\n", n.eip, eipGateway, newMAC())
	}
	text += fmt.Sprintf("\n## Host\nphysical_host=\"%s\"\nphysical_host_network_interface=\"br0\"\nphysical_host_eip_network_interface=\"%s\"\n", n.host, eipBridge)
	if n.role == "proxy" {
		text += "\n## made by hand, ask the network team\nproxy_maxconn=\"65536\"\n"
	}
	return text
}

func (s *Site) writeSettings() {
	for i, name := range hostNames {
		role, vg := "TBD", "off"
		if s.cfg.VG {
			role, vg = "vgateway", "on"
		}
		text := fmt.Sprintf(`## Role
role="%s"

## Region
is_region="0"
region_id=""
zone_id="lab1a"

## Feature
feature_vmnode="off"
feature_ksnode="on"
feature_vgnode="%s"
feature_hypernode="off"
feature_conntrack="off"

## Firstbox
firstbox_address="%s"

## General
cpu_arch="x86_64"
os_name="xenial"
os_version="16.04.5"
hostname="%s"

## Mgmt Network
mgmt_network_interface="br0"
mgmt_network_address="192.0.2.%d"
mgmt_network_netmask="255.255.255.0"
mgmt_network_gateway="%s"
mgmt_network_bond_interface="bond0"
mgmt_network_bond_mode="4"
mgmt_network_bond_slaves="eth0,eth1"
mgmt_network_bridge_ports="bond0"

## Host
physical_host=""
physical_host_network_interface=""
`, role, vg, FirstboxAddr, name, 101+i, gateway)
		_ = s.firstbox.Host.WriteFile(settingsDir+"/"+name, []byte(text), 0o644)
	}
	for _, n := range members {
		_ = s.firstbox.Host.WriteFile(settingsDir+"/"+n.name, []byte(s.settingText(n)), 0o644)
	}
}

// buildNode makes a VM that has run since long ago.
func (s *Site) buildNode(n member, hosts deb) error {
	v, _ := s.setting(n.name)
	data, _ := s.firstbox.Host.ReadFile(settingsDir + "/" + n.name)
	files := networkFiles(v)
	files["/opt/install/os/setting"] = string(data)
	if n.role == "proxy" {
		files["/etc/rc.local.tail"] += "# made by hand: the operations network\nip route add " + handNetwork + " via " + gateway + "\n\n"
	}
	m, err := s.machine(VM, n.name, n.addr, v["os_version"], files, s.nodePrograms())
	if err != nil {
		return err
	}
	m.image, m.role = newID(), n.role
	s.images[m.image] = m
	for _, pkg := range s.oldPackages(n.role) {
		list := m.installed()
		list[pkg] = "4.1.2-20180301000000.0000"
		m.record(list)
		s.writeProgram(m, pkg)
	}
	list := m.installed()
	for pkg, v := range map[string]string{"haproxy": "1.5.14-1ubuntu0.14.04.1", "keepalived": "1:1.2.7-1ubuntu1"} { // of trusty
		if list[pkg] != "" {
			list[pkg] = v
		}
	}
	m.record(list)
	switch n.role {
	case "proxy":
		_ = m.Host.WriteFile(haproxyFile, []byte(s.oldHAProxy()), 0o644)
		_ = m.Host.WriteFile("/etc/keepalived/keepalived.conf", []byte(keepalivedText("proxy", 51, n.priority, ProxyVIP)), 0o644)
		m.placeServices("haproxy", "keepalived")
	case "webservice":
		_ = m.Host.WriteFile("/etc/keepalived/keepalived.conf", []byte(keepalivedText("webservice", 52, n.priority, WebVIP)), 0o644)
		m.placeServices("keepalived")
	case "dnsmaster":
		_ = m.Host.WriteFile("/etc/bind/named.conf", []byte("options { directory \"/var/cache/bind\"; };\n"), 0o644)
		m.placeServices("bind9")
	}
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

// oldPackages are what a node of a role carries at the beginning.
func (s *Site) oldPackages(role string) []string {
	switch role {
	case "proxy":
		list := []string{"pitrix-ks-proxy", "haproxy", "keepalived"}
		for _, o := range []struct {
			on   bool
			name string
		}{{s.cfg.Boss, "pitrix-ks-proxy-boss"}, {s.cfg.Boss2, "pitrix-ks-proxy-boss2"}, {s.cfg.Warehouse, "pitrix-ks-proxy-warehouse"}} {
			if o.on {
				list = append(list, o.name)
			}
		}
		return list
	case "webservice":
		return []string{"pitrix-ks-webservice", "keepalived"}
	case "dnsmaster":
		return []string{"pitrix-ks-dnsmaster", "bind9"}
	}
	return nil
}

// placeServices puts the units of services on a node, enabled.
func (m *Machine) placeServices(names ...string) {
	for _, name := range names {
		start := map[string]string{
			"haproxy": "/usr/sbin/haproxy -db -f " + haproxyFile, "keepalived": "/usr/sbin/keepalived -n", "bind9": "/usr/sbin/named",
		}[name]
		m.Host.PlaceUnit(host.Unit{Name: name, Description: name, Enabled: true, Start: start})
	}
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

// cfgLine is a front end of haproxy.cfg.
type cfgLine struct {
	name, balance, server string
	port, to              int
	addrs                 []string
}

// frontEnds are those that the package generates: local ones, whatever the
// site is.
func (s *Site) frontEnds(packages []string) []cfgLine {
	web := []string{"192.0.2.65", "192.0.2.66"}
	list := []cfgLine{
		{"website", "roundrobin", "website", 8081, 8081, web},
		{"console-front", "roundrobin", "webconsole", 80, 80, web},
		{"api-front", "roundrobin", "apiserver", 7777, 7777, web},
		{"ws-front", "roundrobin", "ws_server", 8565, 8565, web},
		{"io-front", "roundrobin", "io_server", 8000, 8000, web},
		{"lab1a-metad", "roundrobin", "metad", 9611, 9611, []string{vmService}},
	}
	if slices.Contains(packages, "pitrix-ks-proxy-warehouse") {
		list = append(list, cfgLine{"warehouse-front", "roundrobin", "warehouse", 8856, 7756, web})
	}
	if slices.Contains(packages, "pitrix-ks-proxy-boss2") {
		list = append(list, cfgLine{"boss2-warehouse-front", "roundrobin", "boss2_warehouse", 8857, 7757, web})
	}
	if slices.Contains(packages, "pitrix-ks-proxy-boss") {
		list = append(list, cfgLine{"boss-front", "roundrobin", "boss", 8858, 7758, web})
	}
	return list
}

const haproxyHead = `global
    log 127.0.0.1 local0
    maxconn 65536
    user haproxy
    group haproxy
    daemon

defaults
    log global
    mode tcp
    option redispatch
    retries 3
    timeout connect 5s
    timeout client 1h
    timeout server 1h
`

// oldHAProxy is the file of the old proxies: in the old spelling, with what
// people changed by hand.
func (s *Site) oldHAProxy() string {
	list := s.frontEnds(s.oldPackages("proxy"))
	if s.cfg.Sub {
		for i, l := range list {
			if slices.Contains([]string{"api-front", "ws-front", "io-front"}, l.name) {
				list[i].addrs = []string{globalSite}
			}
		}
	}
	text := haproxyHead
	for _, l := range list {
		text += fmt.Sprintf("\nlisten %s 0.0.0.0:%d\n    mode tcp\n    balance %s\n", l.name, l.port, l.balance)
		text += l.servers()
	}
	hand := cfgLine{"lab1b-fg-front", "source", "fg_server", 8666, 8665, []string{"192.0.2.65", "192.0.2.66"}}
	return text + fmt.Sprintf("\n# made by hand: front end of the sub zone\nlisten %s 0.0.0.0:%d\n    mode tcp\n    balance %s\n", hand.name, hand.port, hand.balance) + hand.servers()
}

func (l cfgLine) servers() string {
	text := ""
	for i, a := range l.addrs {
		text += fmt.Sprintf("    server %s_%d %s:%d check\n", l.server, i, a, l.to)
	}
	return text
}

// newHAProxy is what the package writes today.
func (s *Site) newHAProxy(packages []string) string {
	text := haproxyHead
	for _, l := range s.frontEnds(packages) {
		text += fmt.Sprintf("\nlisten %s\n    bind 0.0.0.0:%d\n    mode tcp\n    balance %s\n", l.name, l.port, l.balance) + l.servers()
	}
	return text
}

func keepalivedText(role string, id, priority int, vip string) string {
	return fmt.Sprintf(`vrrp_instance %s {
    state BACKUP
    interface eth0
    virtual_router_id %d
    priority %d
    advert_int 1
    authentication {
        auth_type PASS
        auth_pass simulated
    }
    virtual_ipaddress {
        %s/24
    }
}
`, role, id, priority, vip)
}

// programsOf are what the packages run below supervisor, with their ports.
func (s *Site) programsOf(pkg string) map[string][]int {
	switch pkg {
	case "pitrix-ks-proxy":
		return map[string][]int{"cb_server": {}, "cronus-api": {}}
	case "pitrix-ks-proxy-boss":
		return map[string][]int{"boss_proxy": {}}
	case "pitrix-ks-proxy-boss2":
		return map[string][]int{"boss2_proxy": {}}
	case "pitrix-ks-proxy-warehouse":
		return map[string][]int{"warehouse_proxy": {}}
	case "pitrix-ks-webservice":
		all := map[string][]int{"webconsole": {80, 8081}, "fg_server": {8665}, "billing_resource": {}}
		if !s.cfg.Sub { // a sub zone has no api, ws and io of its own
			all["apiserver"], all["ws_server"], all["io_server"] = []int{7777}, []int{8565}, []int{8000}
		}
		return all
	}
	return nil
}

func (s *Site) writeProgram(m *Machine, pkg string) {
	for name, ports := range s.programsOf(pkg) {
		text := "[program:" + name + "]\ncommand=/pitrix/bin/" + name + "\nautostart=true\nautorestart=true\n"
		for _, p := range ports {
			text += fmt.Sprintf("; port %d\n", p)
		}
		_ = m.Host.WriteFile(programsDir+"/"+name+".conf", []byte(text), 0o644)
	}
}

// configureProxy is the post-installation of the proxy packages: it writes
// the files anew, whatever stands in them, and starts everything.
func (s *Site) configureProxy(m *Machine, pkg string) error {
	var packages []string
	for name := range m.installed() {
		packages = append(packages, name)
	}
	list := m.installed()
	list["haproxy"], list["keepalived"] = "1.6.3-1ubuntu0.1", "1:1.2.19-1ubuntu0.2"
	m.record(list)
	s.writeProgram(m, pkg)
	if err := m.Host.WriteFile(haproxyFile, []byte(s.newHAProxy(packages)), 0o644); err != nil {
		return err
	}
	first := false
	if pkg == "pitrix-ks-proxy" {
		if _, err := m.Host.Stat("/usr/lib/systemd/system/keepalived.service"); err != nil {
			m.placeServices("haproxy", "keepalived")
			first = true
		}
		priority := 100
		if m.Name == "proxy0" {
			priority = 110
		}
		if err := m.Host.WriteFile("/etc/keepalived/keepalived.conf", []byte(keepalivedText("proxy", 51, priority, ProxyVIP)), 0o644); err != nil {
			return err
		}
	}
	for _, name := range []string{"haproxy", "keepalived"} {
		if !m.policy(name) || name == "keepalived" && pkg != "pitrix-ks-proxy" || m.masked(name) {
			continue
		}
		if name == "haproxy" && !first {
			if err := s.reloadHAProxy(m); err != nil {
				return err
			}
			continue
		}
		s.restart(m, name)
	}
	s.mu.Lock()
	v := m.super
	s.mu.Unlock()
	if v != nil {
		s.updatePrograms(m, v)
	}
	return nil
}

// masked reports whether somebody has forbidden a unit to start.
func (m *Machine) masked(name string) bool {
	_, err := m.Host.Stat("/etc/systemd/system/" + name + ".service")
	return err == nil // a link to /dev/null; nobody puts units there otherwise
}
