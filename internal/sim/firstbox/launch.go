package firstbox

import (
	"context"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/upgradectl/upgradectl/internal/sim/host"
)

// What the steps of a launch take, at Speed 1.
const (
	copyTakes = 20 * time.Second
	stepTakes = 2 * time.Second
)

// images are the base images of the releases, in /pitrix/kernels.
var images = map[string]string{"14.04.5": "ksnode14045a.img", "16.04.5": "ksnode16045a.img"}

// stepper prints the lines of the install scripts.
type stepper struct {
	s    *Site
	p    *host.Proc
	mu   *sync.Mutex
	file string
}

func (t stepper) line(text string, err error) bool {
	word := "OK."
	if err != nil {
		word = "Error!"
		t.s.logs(t.file, err.Error()+"\n")
	}
	line := fmt.Sprintf("%s %s ... %s\n", time.Now().Format(stamp), text, word)
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprint(t.p.Stdout, line)
	t.s.logs(t.file, line)
	return err == nil
}

// cmdLaunchVMs is launch_vms.sh [-f] <nodes>, after the model of launch_fb.sh:
// the source of the real one is not public.
func (s *Site) cmdLaunchVMs(ctx context.Context, p *host.Proc) int {
	force, args := splitForce(p.Args[1:])
	if len(args) == 2 && args[1] == "-f" { // once described like that
		return p.Refusef("-f behind the nodes")
	}
	if len(args) != 1 || strings.HasPrefix(args[0], "-") {
		fmt.Fprintln(p.Stdout, "Usage: launch_vms.sh [-f] <nodes>")
		return 1
	}
	nodes, bad := s.scope(args[0])
	if bad != "" {
		fmt.Fprintf(p.Stdout, "Error: The node [%s] is invalid, can not find it in /pitrix/conf/settings!\n", bad)
		return 1
	}
	var mu sync.Mutex
	for _, name := range nodes {
		v, _ := s.setting(name)
		if !isVM(v) {
			fmt.Fprintf(p.Stdout, "Error: The node [%s] is not a VM!\n", name)
			return 1
		}
		if status := s.launch(ctx, p, &mu, name, v, force); status != 0 {
			return status
		}
	}
	return 0
}

func (s *Site) launch(ctx context.Context, p *host.Proc, mu *sync.Mutex, name string, v values, force bool) int {
	t := stepper{s, p, mu, "/pitrix/log/launch_vms/launch_vm_" + name + ".log"}
	phys := s.Machine(v["physical_host"])
	if phys == nil || phys.Kind != Physical {
		t.line(fmt.Sprintf("Connecting to the host [%s] of [%s]", v["physical_host"], name), fmt.Errorf("no such host"))
		return 1
	}
	done := kernels + "/" + name + ".Done"
	_, err := phys.Host.Stat(done)
	if err == nil && !force {
		fmt.Fprintf(p.Stdout, "The VM [%s] has been launched.\n", name)
		return 1
	}
	step := func(text string, takes time.Duration, do func() error) bool {
		if p.Host.Sleep(ctx, takes) != nil {
			return false
		}
		return t.line(text, do())
	}
	if force {
		ok := step(fmt.Sprintf("Destroying the VM [%s]", name), stepTakes, func() error {
			s.mu.Lock()
			d := phys.domains[name]
			var vm *Machine
			if d != nil {
				vm = d.running
			}
			s.mu.Unlock()
			if vm != nil {
				s.hurt("launch_vms -f destroyed %s, which ran on %s", vm.label, phys.Name)
				s.powerOff(vm)
			}
			if d != nil {
				s.undefine(phys, d)
			}
			s.deleteImages(phys, name)
			return nil
		})
		if !ok {
			return 1
		}
	}
	base := images[v["os_version"]]
	image := kernels + "/" + name + ".img"
	var vm *Machine
	nics := []domainNIC{{v["mgmt_network_mac_address"], v["physical_host_network_interface"]}}
	if v["eip_network_interface"] != "" {
		nics = append(nics, domainNIC{v["eip_network_mac_address"], v["physical_host_eip_network_interface"]})
	}
	ok := step(fmt.Sprintf("Copying the base image of [%s]", name), copyTakes, func() error {
		if _, err := s.firstbox.Host.Stat(kernels + "/" + base); base == "" || err != nil {
			return fmt.Errorf("no base image of os_version %q in %s", v["os_version"], kernels)
		}
		data, err := s.firstbox.Host.ReadFile(kernels + "/" + base)
		if err != nil {
			return err
		}
		return phys.Host.WriteFile(kernels+"/"+base, data, 0o644)
	}) && step(fmt.Sprintf("Creating the image of [%s]", name), stepTakes, func() error {
		if old, err := phys.Host.ReadFile(image); err == nil {
			id, _ := parseImage(old)
			s.mu.Lock()
			if m := s.images[id]; m != nil {
				s.hurtLocked("launch_vms wrote a new image over the disk of %s on %s", m.label, phys.Name)
			}
			s.mu.Unlock()
		}
		var err error
		vm, err = s.newVM(name, v)
		if err != nil {
			return err
		}
		return phys.Host.WriteFile(image, imageText(vm.image, kernels+"/"+base), 0o644)
	}) && step(fmt.Sprintf("Configuring the system of [%s]", name), stepTakes, func() error {
		for _, n := range nics {
			s.mu.Lock()
			_, found := phys.bridges[n.bridge]
			s.mu.Unlock()
			if !found {
				return fmt.Errorf("bridge %q does not exist on %s", n.bridge, phys.Name)
			}
		}
		return phys.Host.WriteFile(kernels+"/"+name+".xml", []byte(xmlOf(name, v["memory_size"], v["cpu_cores"], image, nics)), 0o644)
	}) && step(fmt.Sprintf("Defining the VM [%s]", name), stepTakes, func() error {
		data, err := phys.Host.ReadFile(kernels + "/" + name + ".xml")
		if err != nil {
			return err
		}
		_, err = s.define(phys, string(data))
		return err
	}) && step(fmt.Sprintf("Starting the VM [%s]", name), stepTakes, func() error {
		s.mu.Lock()
		d := phys.domains[name]
		s.mu.Unlock()
		if d == nil {
			return fmt.Errorf("domain %s not found", name)
		}
		if err := s.startDomain(phys, d); err != nil {
			return err
		}
		s.mu.Lock()
		d.autostart = true
		s.mu.Unlock()
		s.autostartLink(phys, name, true)
		return phys.Host.WriteFile(done, nil, 0o644)
	}) && step(fmt.Sprintf("Setting up the ssh channel of [%s]", name), bootTakes+stepTakes, func() error {
		return s.channel(ctx, name, v["mgmt_network_address"])
	})
	if !ok {
		return 1
	}
	return 0
}

// channel makes the firstbox know the key of a new VM, by its name and its
// address: the entries of the old one go.
func (s *Site) channel(ctx context.Context, name, addr string) error {
	ip, err := netip.ParseAddr(addr)
	if err != nil {
		return err
	}
	var far *Machine
	for began := time.Now(); s.within(began, time.Minute); {
		s.mu.Lock()
		far, err = s.reach(s.firstbox, ip)
		s.mu.Unlock()
		if err == nil && far.Host != nil && far.Host.Up() {
			break
		}
		far = nil
		if s.firstbox.Host.Sleep(ctx, time.Second) != nil {
			return ctx.Err()
		}
	}
	if far == nil {
		return fmt.Errorf("%s does not answer on %s", name, addr)
	}
	s.log.Lock()
	defer s.log.Unlock()
	data, _ := s.firstbox.Host.ReadFile(knownHostsFile)
	var b strings.Builder
	for line := range strings.Lines(string(data)) {
		ids, _, _ := strings.Cut(line, " ")
		list := strings.Split(ids, ",")
		if !slices.Contains(list, name) && !slices.Contains(list, addr) {
			b.WriteString(line)
		}
	}
	fmt.Fprintf(&b, "%s,%s %s\n", name, addr, far.Host.HostKey())
	return s.firstbox.Host.WriteFile(knownHostsFile, []byte(b.String()), 0o600)
}

// components are what install_nodes runs one after the other, with how often
// each reboots the node.
var components = []struct {
	name    string
	reboots int
}{{"os", 1}, {"network", 2}, {"disk", 1}, {"post", 1}}

// cmdInstallNodes is install_nodes.sh <nodes>; its source is not public.
func (s *Site) cmdInstallNodes(ctx context.Context, p *host.Proc) int {
	if len(p.Args) != 2 || strings.HasPrefix(p.Args[1], "-") {
		fmt.Fprintln(p.Stdout, "Usage: install_nodes.sh <nodes>")
		return 1
	}
	nodes, bad := s.scope(p.Args[1])
	if bad != "" {
		fmt.Fprintf(p.Stdout, "Error: The node [%s] is invalid, can not find it in /pitrix/conf/settings!\n", bad)
		return 1
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	failed := false
	for _, name := range nodes {
		wg.Go(func() {
			if !s.install(ctx, p, &mu, name) {
				mu.Lock()
				defer mu.Unlock()
				failed = true
			}
		})
	}
	wg.Wait()
	return b2i(failed)
}

// install runs the components on whatever machine answers to the name.
func (s *Site) install(ctx context.Context, p *host.Proc, mu *sync.Mutex, name string) bool {
	t := stepper{s, p, mu, "/pitrix/log/install_nodes/install_" + name + ".log"}
	v, _ := s.setting(name)
	for _, c := range components {
		text := fmt.Sprintf("Installing [%s] of [%s]", c.name, name)
		far, err := s.await(ctx, name, v)
		if err == nil {
			if !far.isNew() {
				s.hurt("install_nodes installed %s on %s, which was in service", name, far.label)
			}
			err = s.component(ctx, far, c.name, name, v)
		}
		for range c.reboots {
			if err != nil {
				break
			}
			if err = far.Host.Reboot(); err == nil {
				_, err = s.await(ctx, name, v)
			}
			if err == nil {
				err = p.Host.Sleep(ctx, stepTakes)
			}
		}
		if !t.line(text, err) {
			return false
		}
	}
	return true
}

// await logs in to a node by its name, after its address in the settings has
// answered; it waits a minute for that.
func (s *Site) await(ctx context.Context, name string, v values) (*Machine, error) {
	said := fmt.Sprintf("the node [%s] is unreachable", name)
	for began := time.Now(); s.within(began, time.Minute); {
		if s.pingSettings(v) {
			far, text, err := s.login(s.firstbox, name)
			if err == nil {
				return far, nil
			}
			said = text
		}
		if s.firstbox.Host.Sleep(ctx, time.Second) != nil {
			return nil, ctx.Err()
		}
	}
	return nil, fmt.Errorf("%s", strings.TrimSpace(said))
}

// component writes what a component leaves on the node.
func (s *Site) component(ctx context.Context, m *Machine, component, name string, v values) error {
	if err := m.Host.Sleep(ctx, 5*time.Second); err != nil {
		return err
	}
	files := map[string]string{"/opt/install/" + component + "/install_" + component + ".log": "Done.\n"}
	switch component {
	case "os":
		data, _ := s.firstbox.Host.ReadFile(settingsDir + "/" + name)
		files["/opt/install/os/setting"] = string(data)
		files["/etc/hostname"] = v["hostname"] + "\n"
	case "network":
		for file, text := range networkFiles(v) {
			files[file] = text
		}
	}
	for file, text := range files {
		perm := fs.FileMode(0o644)
		if strings.HasPrefix(file, "/etc/rc.local") {
			perm = 0o755
		}
		if err := m.Host.WriteFile(file, []byte(text), perm); err != nil {
			return err
		}
	}
	return nil
}

// networkFiles is what the network component makes of settings.
func networkFiles(v values) map[string]string {
	tail := "#!/bin/bash\n\n"
	for _, prefix := range []string{"mgmt", "vm"} {
		if r := v[prefix+"_network_routing_rule"]; r != "" {
			tail += fmt.Sprintf("# %s network routing rule\n%s\n\n", prefix, r)
		}
	}
	return map[string]string{
		interfacesFile:       interfacesText(v, true),
		"/etc/rc.local.head": "#!/bin/bash\n\n# links and offloading\n",
		"/etc/rc.local.tail": tail,
		"/etc/rc.local": `#!/bin/bash

# network
[ -x /etc/rc.local.head ] && /etc/rc.local.head
[ -x /etc/rc.local.tail ] && /etc/rc.local.tail

# supervisord
/usr/bin/supervisord -c /etc/supervisor/supervisord.conf

exit 0
`,
	}
}

// interfacesText is /etc/network/interfaces of a node; with eip, its second
// network as well.
func interfacesText(v values, eip bool) string {
	text := "auto lo\niface lo inet loopback\n"
	for _, prefix := range []string{"mgmt", "eip"} {
		name, addr := v[prefix+"_network_interface"], v[prefix+"_network_address"]
		if name == "" || addr == "" || prefix == "eip" && !eip {
			continue
		}
		text += fmt.Sprintf("\n# %s network\nauto %s\niface %s inet static\n    address %s\n    netmask %s\n", prefix, name, name, addr, v[prefix+"_network_netmask"])
		if gw := v[prefix+"_network_gateway"]; gw != "" {
			text += "    gateway " + gw + "\n"
		}
		if dns := v[prefix+"_network_dns_servers"]; dns != "" {
			text += "    dns-nameservers " + dns + "\n"
		}
	}
	return text
}
