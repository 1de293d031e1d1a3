package pitrix

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/internal/poll"
	"github.com/upgradectl/upgradectl/internal/shellq"
)

// A Hypervisor is a physical host that carries VMs of the installation, seen
// through its virsh.
type Hypervisor struct {
	Host    Host
	Name    string // for errors
	Root    string // where its /pitrix is; "" = /
	Connect string // virsh -c; "" = virsh's own choice
}

// The states of a domain that matter here, as virsh calls them.
const (
	DomainRunning = "running"
	DomainShutOff = "shut off"
)

// A Domain is a VM as libvirt knows it.
type Domain struct {
	Name       string `json:"name"`
	UUID       string `json:"uuid"`
	State      string `json:"state"` // "running", "shut off", "paused", "in shutdown", …
	Autostart  bool   `json:"autostart"`
	Persistent bool   `json:"persistent"` // a domain that is not vanishes when it stops
	XML        []byte `json:"-"`          // its definition, as the next start uses it
	// Definition is what XML says.
	Definition *DomainXML `json:"-"`
}

func (h *Hypervisor) virsh(args ...string) string {
	words := []string{"virsh"}
	if h.Connect != "" {
		words = append(words, "-c", h.Connect)
	}
	return "LC_ALL=C " + shellq.Join(append(words, args...)...) + " </dev/null"
}

var listRow = regexp.MustCompile(`^ *(-|\d+) +(\S+) +(\S.*?) *$`)

// ParseDomainList reads the table of virsh list --all, of old versions with
// columns of fixed width and of new ones. Domains come back with Name and State.
func ParseDomainList(out []byte) ([]Domain, error) {
	domains := []Domain{}
	head := false
	for line := range strings.SplitSeq(string(out), "\n") {
		text := strings.TrimSpace(line)
		switch {
		case text == "" || strings.Trim(text, "-") == "":
			continue
		case !head:
			if w := strings.Fields(text); len(w) != 3 || w[0] != "Id" || w[1] != "Name" || w[2] != "State" {
				return nil, fmt.Errorf("cannot read virsh list: its first line is %q", firstBytes(text, 100))
			}
			head = true
			continue
		}
		m := listRow.FindStringSubmatch(line)
		if m == nil {
			return nil, fmt.Errorf("cannot read the line %q of virsh list", firstBytes(line, 100))
		}
		domains = append(domains, Domain{Name: m[2], State: m[3]})
	}
	if !head {
		return nil, errors.New("cannot read virsh list: it printed nothing")
	}
	return domains, nil
}

// ListDomains returns every domain of the host with name and state.
func (h *Hypervisor) ListDomains(ctx context.Context) ([]Domain, error) {
	out, err := output(ctx, h.Host, h.virsh("list", "--all"))
	if err != nil {
		return nil, fmt.Errorf("cannot list the domains of %s: %w", h.Name, err)
	}
	return ParseDomainList([]byte(out))
}

const xmlFollows = "--upgradectl-xml--"

// GetDomain returns nil for a domain that the host does not have. libvirt
// ends with 1 for that and for a daemon that does not answer alike, so the
// list is read first.
func (h *Hypervisor) GetDomain(ctx context.Context, name string) (*Domain, error) {
	fail := func(err error) (*Domain, error) {
		return nil, fmt.Errorf("cannot read the domain %s of %s: %w", name, h.Name, err)
	}
	if err := checkNode(name); err != nil {
		return fail(err)
	}
	all, err := h.ListDomains(ctx)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(all, func(d Domain) bool { return d.Name == name }) {
		return nil, nil
	}
	out, err := output(ctx, h.Host, h.virsh("dominfo", name)+" && echo "+xmlFollows+" && "+h.virsh("dumpxml", "--inactive", name))
	if err != nil {
		return fail(err)
	}
	d, err := parseDominfo(out)
	if err == nil && d.Name != name {
		err = fmt.Errorf("virsh answered for %q", d.Name)
	}
	if err != nil {
		return fail(err)
	}
	return d, nil
}

// parseDominfo reads the output of virsh dominfo and, after a separator, of
// virsh dumpxml.
func parseDominfo(out string) (*Domain, error) {
	info, src, ok := strings.Cut(out, xmlFollows+"\n")
	if !ok {
		return nil, errors.New("the answer was cut short")
	}
	d := &Domain{XML: []byte(src)}
	seen := map[string]string{}
	for line := range strings.SplitSeq(info, "\n") {
		if key, value, ok := strings.Cut(line, ":"); ok {
			seen[strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
	}
	d.Name, d.UUID, d.State = seen["Name"], seen["UUID"], seen["State"]
	d.Autostart, d.Persistent = seen["Autostart"] == "enable", seen["Persistent"] == "yes"
	if d.Name == "" || d.UUID == "" || d.State == "" || seen["Autostart"] == "" || seen["Persistent"] == "" {
		return nil, fmt.Errorf("virsh dominfo says too little: %q", firstBytes(info, 300))
	}
	var err error
	d.Definition, err = ParseDomainXML(d.XML)
	return d, err
}

// A RunningError says that a domain is not shut off, so that what was asked for
// would lose it or its data.
type RunningError struct{ Host, Domain, State string }

func (e *RunningError) Error() string {
	return fmt.Sprintf("the domain %s on %s is %q, not %q; shut it down first", e.Domain, e.Host, e.State, DomainShutOff)
}

// ErrNoDomain says that the host has no domain of that name.
var ErrNoDomain = errors.New("there is no such domain")

// change runs a virsh command on the domain with that UUID: a name can mean
// the old and the new VM of a node.
func (h *Hypervisor) change(ctx context.Context, name, uuid, verb, check, cmd string) error {
	fail := func(err error) error {
		return fmt.Errorf("cannot %s the domain %s on %s: %w", verb, name, h.Name, err)
	}
	if err := checkNode(name); err != nil {
		return fail(err)
	}
	if uuid == "" {
		return fail(errors.New("internal error: no UUID is given, and the name alone does not say which VM is meant"))
	}
	out, err := output(ctx, h.Host, fmt.Sprintf(`u=$(%s) || exit 1
[ "$u" = %s ] || { echo "$u"; exit %d; }
s=$(%s) || exit 1
%s
%s >&2`, h.virsh("domuuid", name), shellq.Quote(uuid), statusOther, h.virsh("domstate", name), check, cmd))
	if err == nil {
		return nil
	}
	switch status, _ := exitStatus(err); status {
	case statusOther:
		return fail(fmt.Errorf("it is another one now: its UUID is %s, not %s", strings.TrimSpace(out), uuid))
	case statusDrift:
		return &RunningError{Host: h.Name, Domain: name, State: strings.TrimSpace(out)}
	}
	// virsh says it in words alone; so ask in another way.
	if d, gerr := h.GetDomain(ctx, name); gerr == nil && d == nil {
		err = fmt.Errorf("%w: %w", ErrNoDomain, err)
	}
	return fail(err)
}

func unless(state string) string { return `if [ "$s" = ` + shellq.Quote(state) + ` ]; then exit 0; fi` }

// SetAutostart says whether the domain starts with the host.
func (h *Hypervisor) SetAutostart(ctx context.Context, name, uuid string, on bool) error {
	cmd := h.virsh("autostart", name)
	if !on {
		cmd = h.virsh("autostart", "--disable", name)
	}
	if err := h.change(ctx, name, uuid, "set the autostart of", "", cmd); err != nil {
		return err
	}
	d, err := h.GetDomain(ctx, name)
	if err == nil && (d == nil || d.Autostart != on) {
		err = fmt.Errorf("the autostart of %s on %s did not become %t", name, h.Name, on)
	}
	return err
}

// Start starts the domain. One that runs is left alone.
func (h *Hypervisor) Start(ctx context.Context, name, uuid string) error {
	return h.change(ctx, name, uuid, "start", unless(DomainRunning), h.virsh("start", name))
}

// Shutdown presses the domain's power button and does not wait. One that is
// shut off is left alone.
func (h *Hypervisor) Shutdown(ctx context.Context, name, uuid string) error {
	return h.change(ctx, name, uuid, "shut down", unless(DomainShutOff), h.virsh("shutdown", name))
}

// PowerOff cuts the domain's power: what it has not written is lost.
func (h *Hypervisor) PowerOff(ctx context.Context, name, uuid string) error {
	return h.change(ctx, name, uuid, "power off", unless(DomainShutOff), h.virsh("destroy", name))
}

// WaitState waits until the domain is in a state. A domain that is gone ends it
// with ErrNoDomain.
func (h *Hypervisor) WaitState(ctx context.Context, name, state string, interval time.Duration) error {
	p := poll.Poller{Interval: interval, Retryable: func(error) bool { return true }}
	return p.Until(ctx, "domain "+name+" on "+h.Name, func(ctx context.Context) (string, bool, error) {
		all, err := h.ListDomains(ctx)
		if err != nil {
			return "", false, err
		}
		i := slices.IndexFunc(all, func(d Domain) bool { return d.Name == name })
		if i < 0 {
			return "", false, poll.Stop(fmt.Errorf("domain %s on %s: %w", name, h.Name, ErrNoDomain))
		}
		return all[i].State, all[i].State == state, nil
	})
}

// Define defines a VM from /pitrix/kernels/NAME.xml. One of that name that is
// defined with the same MACs already is left alone; with others it is an error.
func (h *Hypervisor) Define(ctx context.Context, name string) error {
	if err := checkNode(name); err != nil {
		return err
	}
	file := kernels(h.Root) + "/" + name + ".xml"
	src, err := readFile(ctx, h.Host, file)
	switch {
	case err != nil:
		return err
	case src == nil:
		return fmt.Errorf("cannot define %s on %s: there is no %s", name, h.Name, file)
	}
	next, err := ParseDomainXML(src)
	if err != nil {
		return fmt.Errorf("cannot define %s on %s: %s: %w", name, h.Name, file, err)
	}
	if next.Name != name {
		return fmt.Errorf("cannot define %s on %s: %s defines %q", name, h.Name, file, next.Name)
	}
	d, err := h.GetDomain(ctx, name)
	if err != nil {
		return err
	}
	if d != nil {
		if slices.Equal(d.Definition.MACs(), next.MACs()) {
			return nil
		}
		return fmt.Errorf("cannot define %s on %s: a domain of that name with the MACs %s is defined already", name, h.Name, macList(d.Definition.MACs()))
	}
	if _, err := output(ctx, h.Host, h.virsh("define", file)); err != nil {
		return fmt.Errorf("cannot define %s on %s: %w", name, h.Name, err)
	}
	return nil
}

// Undefine removes the definition of a domain that is shut off; its files stay.
// libvirt itself accepts it of a running one, which is then gone for good when
// it stops; that gives a *RunningError here. The state is asked in the same
// command. A domain that is gone already is left alone.
func (h *Hypervisor) Undefine(ctx context.Context, name, uuid string) error {
	err := h.change(ctx, name, uuid, "undefine", fmt.Sprintf(`[ "$s" = %s ] || { echo "$s"; exit %d; }`, shellq.Quote(DomainShutOff), statusDrift), h.virsh("undefine", name))
	if errors.Is(err, ErrNoDomain) {
		return nil
	}
	if err != nil {
		return err
	}
	if d, err := h.GetDomain(ctx, name); err != nil || d != nil {
		return errors.Join(err, fmt.Errorf("the domain %s on %s is there after it was undefined", name, h.Name))
	}
	return nil
}

// Capacity is what a host has for another VM.
type Capacity struct {
	Bridges      []string `json:"bridges"`
	FreeKiB      int64    `json:"free_kib"`      // on the file system of /pitrix/kernels
	AvailableKiB int64    `json:"available_kib"` // of memory
	Images       []string `json:"images"`        // in /pitrix/kernels
}

// listBridges prints "bridge NAME" for each bridge of a host.
const listBridges = `for b in /sys/class/net/*/bridge; do if [ -d "$b" ]; then b=${b%/bridge}; echo "bridge ${b##*/}"; fi; done`

// GetCapacity reads it.
func (h *Hypervisor) GetCapacity(ctx context.Context) (Capacity, error) {
	dir := shellq.Quote(kernels(h.Root))
	out, err := output(ctx, h.Host, listBridges+`
for i in `+dir+`/*.img; do if [ -f "$i" ]; then echo "image ${i##*/}"; fi; done
cat /proc/meminfo
df -Pk `+dir)
	if err != nil {
		return Capacity{}, fmt.Errorf("cannot read the capacity of %s: %w", h.Name, err)
	}
	return parseCapacity(h.Name, out)
}

func parseCapacity(name, out string) (Capacity, error) {
	c := Capacity{FreeKiB: -1, AvailableKiB: -1}
	var old int64 // kernels before 3.14 do not say what is available
	for line := range strings.SplitSeq(out, "\n") {
		w := strings.Fields(line)
		if len(w) < 2 {
			continue
		}
		number := func(s string) int64 {
			n, err := strconv.ParseInt(s, 10, 64)
			if err != nil {
				return -1
			}
			return n
		}
		switch {
		case w[0] == "bridge":
			c.Bridges = append(c.Bridges, w[1])
		case w[0] == "image":
			c.Images = append(c.Images, w[1])
		case w[0] == "MemAvailable:":
			c.AvailableKiB = number(w[1])
		case w[0] == "MemFree:" || w[0] == "Cached:":
			old += number(w[1])
		case len(w) == 6 && strings.HasSuffix(w[4], "%"):
			c.FreeKiB = number(w[3])
		}
	}
	if c.AvailableKiB < 0 {
		c.AvailableKiB = old
	}
	if c.FreeKiB < 0 {
		return c, fmt.Errorf("cannot read the free space of %s", name)
	}
	slices.Sort(c.Bridges)
	slices.Sort(c.Images)
	return c, nil
}

// ScanHostKey asks a machine for its host key of one type, from this host,
// whose link it is on: "TYPE BASE64". What is asked over the network proves
// nothing by itself; a host that carries the VM is near enough to believe.
func (h *Hypervisor) ScanHostKey(ctx context.Context, address string) (string, error) {
	out, err := output(ctx, h.Host, shellq.Join("ssh-keyscan", "-T", "5", "-t", "ed25519", "--", address)+" 2>/dev/null </dev/null")
	if err != nil {
		return "", fmt.Errorf("cannot read the host key of %s from %s: %w", address, h.Name, err)
	}
	for line := range strings.SplitSeq(out, "\n") {
		if w := strings.Fields(line); len(w) == 3 && w[1] == "ssh-ed25519" {
			return w[1] + " " + w[2], nil
		}
	}
	return "", fmt.Errorf("cannot read the host key of %s from %s: it gave none of type ed25519", address, h.Name)
}
