package firstbox

import (
	"context"
	"encoding/xml"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/internal/sim/host"
)

const kernels = "/pitrix/kernels"

// bootTakes is from virsh start to an sshd that answers.
const bootTakes = 20 * time.Second

// domain is a VM as libvirt of a physical host knows it.
type domain struct {
	name, uuid string
	text       string // of its XML, with the uuid
	image      string // path of its disk
	nics       []domainNIC
	persistent bool
	autostart  bool
	running    *Machine // nil: shut off
}

type domainNIC struct{ mac, bridge string }

// domainXML is what counts of a definition.
type domainXML struct {
	XMLName xml.Name `xml:"domain"`
	Name    string   `xml:"name"`
	UUID    string   `xml:"uuid"`
	Devices struct {
		Disks []struct {
			Device string `xml:"device,attr"`
			Source struct {
				File string `xml:"file,attr"`
			} `xml:"source"`
		} `xml:"disk"`
		Interfaces []struct {
			Type string `xml:"type,attr"`
			MAC  struct {
				Address string `xml:"address,attr"`
			} `xml:"mac"`
			Source struct {
				Bridge string `xml:"bridge,attr"`
			} `xml:"source"`
		} `xml:"interface"`
	} `xml:"devices"`
}

// xmlOf is the definition that launch_vms writes: without a uuid, with a MAC
// for each interface.
func xmlOf(name, memory, cpus, image string, nics []domainNIC) string {
	var b strings.Builder
	fmt.Fprintf(&b, "<domain type='kvm'>\n  <name>%s</name>\n  <memory unit='MiB'>%s</memory>\n  <vcpu>%s</vcpu>\n  <os>\n    <type arch='x86_64'>hvm</type>\n    <boot dev='hd'/>\n  </os>\n  <devices>\n", name, memory, cpus)
	fmt.Fprintf(&b, "    <disk type='file' device='disk'>\n      <driver name='qemu' type='qcow2' cache='none'/>\n      <source file='%s'/>\n      <target dev='vda' bus='virtio'/>\n    </disk>\n", image)
	for _, n := range nics {
		fmt.Fprintf(&b, "    <interface type='bridge'>\n      <mac address='%s'/>\n      <source bridge='%s'/>\n      <model type='virtio'/>\n    </interface>\n", n.mac, n.bridge)
	}
	b.WriteString("  </devices>\n</domain>\n")
	return b.String()
}

func parseDomain(text string) (*domain, error) {
	var x domainXML
	if err := xml.Unmarshal([]byte(text), &x); err != nil {
		return nil, fmt.Errorf("(domain_definition): %w", err)
	}
	d := &domain{name: x.Name, uuid: x.UUID}
	for _, disk := range x.Devices.Disks {
		if disk.Device == "disk" || disk.Device == "" {
			d.image = disk.Source.File
		}
	}
	for _, i := range x.Devices.Interfaces {
		if i.Type != "bridge" || i.MAC.Address == "" {
			return nil, fmt.Errorf("unsupported configuration: an interface that is no bridge with a MAC")
		}
		d.nics = append(d.nics, domainNIC{strings.ToLower(i.MAC.Address), i.Source.Bridge})
	}
	if d.name == "" || d.image == "" {
		return nil, fmt.Errorf("XML error: the definition has no name or no disk")
	}
	d.text = text
	if d.uuid == "" {
		d.uuid = uuid()
		d.text = strings.Replace(text, "</name>", "</name>\n  <uuid>"+d.uuid+"</uuid>", 1)
	}
	return d, nil
}

func (d *domain) state() string {
	if d.running != nil {
		return "running"
	}
	return "shut off"
}

// cmdVirsh is virsh, with the messages of libvirt 1.3 and the status 1 of what
// it cannot do.
func (s *Site) cmdVirsh(_ context.Context, p *host.Proc) int {
	m := s.of(p)
	args := p.Args[1:]
	for len(args) > 0 {
		switch {
		case args[0] == "-c" && len(args) > 1:
			if args[1] != "qemu:///system" {
				return p.Refusef("connection %s", args[1])
			}
			args = args[2:]
			continue
		case args[0] == "-q" || args[0] == "-r":
			args = args[1:]
			continue
		}
		break
	}
	if len(args) == 0 {
		return p.Refusef("the interactive shell")
	}
	verb := args[0]
	is := map[string]bool{}
	var rest []string
	for _, a := range args[1:] {
		switch {
		case a == "--domain":
		case strings.HasPrefix(a, "--"):
			is[a] = true
		default:
			rest = append(rest, a)
		}
	}
	allowed := map[string][]string{
		"list": {"--all", "--name", "--inactive", "--autostart", "--no-autostart", "--uuid"}, "dumpxml": {"--inactive", "--security-info"},
		"autostart": {"--disable"}, "undefine": {}, "shutdown": {"--mode"}, "destroy": {}, "start": {}, "define": {},
		"domstate": {}, "dominfo": {}, "domuuid": {}, "domiflist": {"--inactive"}, "domblklist": {"--inactive", "--details"}, "version": {},
	}
	known, ok := allowed[verb]
	for f := range is {
		ok = ok && slices.Contains(known, f)
	}
	if !ok {
		return p.Refusef("virsh %s", strings.Join(args, " "))
	}
	fail := func(format string, a ...any) int {
		fmt.Fprintf(p.Stderr, "error: "+format+"\n", a...)
		return 1
	}
	if verb == "list" {
		return s.listDomains(m, p, is)
	}
	if verb == "version" {
		fmt.Fprint(p.Stdout, "Compiled against library: libvirt 1.3.1\nUsing library: libvirt 1.3.1\nUsing API: QEMU 1.3.1\nRunning hypervisor: QEMU 2.5.0\n")
		return 0
	}
	if len(rest) != 1 {
		return fail("command '%s' requires <domain> option", verb)
	}
	if verb == "define" {
		data, err := p.Host.ReadFile(p.Path(rest[0]))
		if err != nil {
			return fail("Failed to open file '%s': No such file or directory", rest[0])
		}
		name, err := s.define(m, string(data))
		if err != nil {
			return fail("Failed to define domain from %s\nerror: %v", rest[0], err)
		}
		fmt.Fprintf(p.Stdout, "Domain %s defined from %s\n\n", name, rest[0])
		return 0
	}
	s.mu.Lock()
	d := m.domain(rest[0])
	var v domain
	if d != nil {
		v = *d
	}
	s.mu.Unlock()
	if d == nil {
		return fail("failed to get domain '%s'\nerror: Domain not found: no domain with matching name '%s'", rest[0], rest[0])
	}
	switch verb {
	case "domstate":
		fmt.Fprintf(p.Stdout, "%s\n\n", v.state())
	case "domuuid":
		fmt.Fprintf(p.Stdout, "%s\n\n", v.uuid)
	case "dumpxml":
		fmt.Fprintf(p.Stdout, "%s\n", v.text)
	case "dominfo":
		on := map[bool]string{true: "enable", false: "disable"}[v.autostart]
		yes := map[bool]string{true: "yes", false: "no"}[v.persistent]
		id := "-"
		if v.running != nil {
			id = "1"
		}
		fmt.Fprintf(p.Stdout, "Id:             %s\nName:           %s\nUUID:           %s\nOS Type:        hvm\nState:          %s\nCPU(s):         4\nMax memory:     8192000 KiB\nUsed memory:    8192000 KiB\nPersistent:     %s\nAutostart:      %s\nManaged save:   no\n\n", id, v.name, v.uuid, v.state(), yes, on)
	case "domiflist":
		fmt.Fprintf(p.Stdout, "Interface  Type       Source     Model       MAC\n-------------------------------------------------------\n")
		for i, n := range v.nics {
			fmt.Fprintf(p.Stdout, "vnet%d      bridge     %-10s virtio      %s\n", i, n.bridge, n.mac)
		}
		fmt.Fprintln(p.Stdout)
	case "domblklist":
		fmt.Fprintf(p.Stdout, "Target     Source\n------------------------------------------------\nvda        %s\n\n", v.image)
	case "autostart":
		if !v.persistent {
			return fail("Failed to mark domain %s as autostarted\nerror: Requested operation is not valid: cannot set autostart for transient domain", v.name)
		}
		s.mu.Lock()
		d.autostart = !is["--disable"]
		s.mu.Unlock()
		s.autostartLink(m, v.name, !is["--disable"])
		if is["--disable"] {
			fmt.Fprintf(p.Stdout, "Domain %s unmarked as autostarted\n\n", v.name)
		} else {
			fmt.Fprintf(p.Stdout, "Domain %s marked as autostarted\n\n", v.name)
		}
	case "start":
		if v.running != nil {
			return fail("Domain is already active")
		}
		if err := s.startDomain(m, d); err != nil {
			return fail("Failed to start domain %s\nerror: %v", v.name, err)
		}
		fmt.Fprintf(p.Stdout, "Domain %s started\n\n", v.name)
	case "shutdown", "destroy":
		if v.running == nil {
			return fail("Failed to %s domain %s\nerror: Requested operation is not valid: domain is not running", verb, v.name)
		}
		if verb == "destroy" {
			s.powerOff(v.running)
			fmt.Fprintf(p.Stdout, "Domain %s destroyed\n\n", v.name)
			return 0
		}
		vm := v.running
		boot := vm.Host.BootID()
		s.spawn(func() {
			if s.wait(2*time.Second) && vm.Host.BootID() == boot && vm.Host.Up() {
				_ = vm.Host.Stop()
				s.halted(vm)
			}
		})
		fmt.Fprintf(p.Stdout, "Domain %s is being shutdown\n\n", v.name)
	case "undefine":
		if !v.persistent {
			return fail("Failed to undefine domain %s\nerror: Requested operation is not valid: cannot undefine transient domain", v.name)
		}
		s.undefine(m, d)
		fmt.Fprintf(p.Stdout, "Domain %s has been undefined\n\n", v.name)
	}
	return 0
}

// domain finds a domain by name or uuid. Site.mu is held.
func (m *Machine) domain(id string) *domain {
	for _, d := range m.domains {
		if d.name == id || d.uuid == id {
			return d
		}
	}
	return nil
}

func (s *Site) listDomains(m *Machine, p *host.Proc, is map[string]bool) int {
	s.mu.Lock()
	var list []domain
	for _, d := range m.domains {
		if is["--autostart"] && !d.autostart || is["--no-autostart"] && d.autostart {
			continue
		}
		if is["--all"] || is["--inactive"] == (d.running == nil) {
			list = append(list, *d)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(list, func(a, b domain) int {
		if r := b2i(a.running == nil) - b2i(b.running == nil); r != 0 {
			return r
		}
		return strings.Compare(a.name, b.name)
	})
	if is["--name"] || is["--uuid"] {
		for _, d := range list {
			if is["--uuid"] {
				fmt.Fprintln(p.Stdout, d.uuid)
			} else {
				fmt.Fprintln(p.Stdout, d.name)
			}
		}
		fmt.Fprintln(p.Stdout)
		return 0
	}
	fmt.Fprintf(p.Stdout, " %-5s %-30s %s\n%s\n", "Id", "Name", "State", strings.Repeat("-", 52))
	for i, d := range list {
		id := "-"
		if d.running != nil {
			id = fmt.Sprint(i + 1)
		}
		fmt.Fprintf(p.Stdout, " %-5s %-30s %s\n", id, d.name, d.state())
	}
	fmt.Fprintln(p.Stdout)
	return 0
}

// define makes a domain persistent, or changes the one with the same name and
// uuid. A definition without a uuid, whose name exists, is refused.
func (s *Site) define(m *Machine, text string) (string, error) {
	d, err := parseDomain(text)
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	if old := m.domains[d.name]; old != nil {
		if !strings.Contains(text, old.uuid) {
			s.mu.Unlock()
			return "", fmt.Errorf("operation failed: domain '%s' already exists with uuid %s", d.name, old.uuid)
		}
		d.running, d.autostart = old.running, old.autostart
	}
	for _, o := range m.domains {
		if o.uuid == d.uuid && o.name != d.name {
			s.mu.Unlock()
			return "", fmt.Errorf("operation failed: domain '%s' is already defined with uuid %s", o.name, o.uuid)
		}
	}
	d.persistent = true
	m.domains[d.name] = d
	s.mu.Unlock()
	return d.name, m.Host.WriteFile("/etc/libvirt/qemu/"+d.name+".xml", []byte(d.text), 0o600)
}

// undefine forgets a definition; a domain that runs goes on as a transient one.
func (s *Site) undefine(m *Machine, d *domain) {
	s.mu.Lock()
	d.persistent, d.autostart = false, false
	if d.running == nil {
		delete(m.domains, d.name)
	}
	s.mu.Unlock()
	_ = m.Host.Remove("/etc/libvirt/qemu/" + d.name + ".xml") // gone with the definition
	s.autostartLink(m, d.name, false)
}

func (s *Site) autostartLink(m *Machine, name string, on bool) {
	file := "/etc/libvirt/qemu/autostart/" + name + ".xml"
	if on {
		_ = m.Host.WriteFile(file, []byte("link to ../"+name+".xml\n"), 0o600)
		return
	}
	_ = m.Host.Remove(file) // may be missing
}

// imageText is an image file of this world: an overlay that names its base.
func imageText(id, base string) []byte {
	return fmt.Appendf(nil, "QFI\xfb simulated\nimage: %s\nbacking file: %s\n", id, base)
}

func parseImage(data []byte) (id, base string) {
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if v, ok := strings.CutPrefix(line, "image: "); ok {
			id = v
		}
		if v, ok := strings.CutPrefix(line, "backing file: "); ok {
			base = v
		}
	}
	return id, base
}

// startDomain boots the machine on the domain's disk, which takes a while.
func (s *Site) startDomain(m *Machine, d *domain) error {
	data, err := m.Host.ReadFile(d.image)
	if err != nil {
		return fmt.Errorf("Cannot access storage file '%s' (as uid:64055, gid:117): No such file or directory", d.image) //lint:ignore ST1005 libvirt's words
	}
	id, base := parseImage(data)
	if base != "" {
		if _, err := m.Host.Stat(base); err != nil {
			return fmt.Errorf("Cannot access backing file '%s' of storage file '%s': No such file or directory", base, d.image) //lint:ignore ST1005 libvirt's words
		}
	}
	s.mu.Lock()
	vm := s.images[id]
	switch {
	case vm == nil:
		s.mu.Unlock()
		return fmt.Errorf("internal error: process exited while connecting to monitor: %s: Image is not in qcow2 format", d.image)
	case vm.runsOn != nil:
		s.mu.Unlock()
		return fmt.Errorf("internal error: %s: Failed to get \"write\" lock", d.image)
	}
	var nics []*nic
	for i, n := range d.nics {
		segment, ok := m.bridges[n.bridge]
		if !ok {
			s.mu.Unlock()
			return fmt.Errorf("Cannot get interface MTU on '%s': No such device", n.bridge) //lint:ignore ST1005 libvirt's words
		}
		nics = append(nics, &nic{name: fmt.Sprintf("eth%d", i), mac: n.mac, segment: segment})
	}
	d.running, vm.runsOn, vm.nics = vm, m, nics
	s.mu.Unlock()
	for _, n := range nics {
		_ = vm.Host.WriteFile("/sys/class/net/"+n.name+"/address", []byte(n.mac+"\n"), 0o444)
	}
	s.spawn(func() {
		if !s.wait(bootTakes) {
			return
		}
		s.mu.Lock()
		still := vm.runsOn == m && d.running == vm
		s.mu.Unlock()
		if still {
			_ = vm.Host.Start() // fails when the site is closed
		}
	})
	return nil
}

// halted is what becomes of a domain whose machine has switched itself off.
func (s *Site) halted(vm *Machine) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := vm.runsOn
	if m == nil || vm.Host.Up() {
		return
	}
	vm.runsOn = nil
	for name, d := range m.domains {
		if d.running == vm {
			d.running = nil
			if !d.persistent {
				delete(m.domains, name)
			}
		}
	}
}

// powerOff pulls the plug of a VM.
func (s *Site) powerOff(vm *Machine) {
	vm.Host.PowerOff()
	s.halted(vm)
}

// autostart starts the domains of a physical host that has booted.
func (s *Site) autostart(m *Machine) {
	s.mu.Lock()
	var list []*domain
	for _, d := range m.domains {
		if d.persistent && d.autostart && d.running == nil {
			list = append(list, d)
		}
	}
	s.mu.Unlock()
	for _, d := range list {
		_ = s.startDomain(m, d) // one without a disk does not start, and nobody is told
	}
}

// cmdQemuImg is qemu-img info [-U] FILE.
func (s *Site) cmdQemuImg(_ context.Context, p *host.Proc) int {
	args := slices.DeleteFunc(slices.Clone(p.Args[1:]), func(a string) bool { return a == "-U" || a == "--force-share" })
	if len(args) != 2 || args[0] != "info" {
		return p.Refusef("only qemu-img info [-U] FILE")
	}
	data, err := p.Host.ReadFile(p.Path(args[1]))
	if err != nil {
		fmt.Fprintf(p.Stderr, "qemu-img: Could not open '%s': No such file or directory\n", args[1])
		return 1
	}
	_, base := parseImage(data)
	fmt.Fprintf(p.Stdout, "image: %s\nfile format: qcow2\nvirtual size: 100G (107374182400 bytes)\ndisk size: 4.2G\ncluster_size: 65536\n", args[1])
	if base != "" {
		fmt.Fprintf(p.Stdout, "backing file: %s\n", base)
	}
	return 0
}

// cmdBrctl is brctl show.
func (s *Site) cmdBrctl(_ context.Context, p *host.Proc) int {
	if len(p.Args) != 2 || p.Args[1] != "show" {
		return p.Refusef("only brctl show")
	}
	m := s.of(p)
	fmt.Fprintln(p.Stdout, "bridge name\tbridge id\t\tSTP enabled\tinterfaces")
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for n := range m.bridges {
		names = append(names, n)
	}
	slices.Sort(names)
	for i, n := range names {
		fmt.Fprintf(p.Stdout, "%s\t\t8000.0cc47a6b0%03d\tno\t\tbond%d\n", n, i, i)
	}
	return 0
}

// deleteImages removes NAME* below /pitrix/kernels of a physical host, as rm
// -f does.
func (s *Site) deleteImages(m *Machine, name string) {
	entries, _ := m.Host.ReadDir(kernels)
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), name) {
			continue
		}
		file := path.Join(kernels, e.Name())
		data, _ := m.Host.ReadFile(file)
		if id, _ := parseImage(data); id != "" {
			s.mu.Lock()
			if vm := s.images[id]; vm != nil && vm.Name != "" {
				s.hurtLocked("rm -f %s* on %s deleted %s, the disk of %s", name, m.Name, e.Name(), vm.label)
			}
			s.mu.Unlock()
		}
		_ = m.Host.Remove(file)
	}
}
