package upgrade

import (
	"crypto/x509"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/hostinv"
)

// The detectors of the first boot: the copy starts with everything enabled that
// production has, under another address.

// ownCron are files of cron that the distribution installs. Never written to.
var ownCron = []string{"/etc/crontab", "/etc/anacrontab", "/etc/cron.d/0hourly", "/etc/cron.d/raid-check", "/etc/cron.d/sysstat", "/etc/cron.d/e2scrub_all", "/etc/cron.d/popularity-contest", "/etc/cron.d/php", "/etc/cron.d/certbot",
	"/etc/cron.d/unbound-anchor"}

// ownScripts are scripts of cron.daily and the like that it installs.
var ownScripts = []string{"logrotate", "man-db", "man-db.cron", "mlocate", "0anacron", "0yum-daily.cron", "0yum-hourly.cron", "0yum.cron", "apt-compat", "dpkg", "rhsmd", "aptitude", "bsdmainutils", "passwd", "popularity-contest", "e2scrub_all",
	"apport", "update-notifier-common", "sysstat", "exim4-base", "apache2", "debsums", "mdadm", "fstrim", "dlocate", "locate", "0certwatch", "tmpwatch", "prelink", "makewhatis.cron", "mcelog.cron", "readahead.cron", "ntpdate", ".placeholder"}

// ownTimers are timers that it installs, by their beginning.
var ownTimers = []string{"systemd-", "apt-daily", "dnf-", "yum-", "logrotate", "man-db", "fstrim", "motd-news", "e2scrub", "mlocate", "plocate", "updatedb", "unbound-anchor", "ua-", "fwupd", "anacron", "dpkg-db-backup", "sysstat-",
	"apport-", "update-notifier", "raid-check", "mdcheck", "mdmonitor", "mdadm", "ntpdate", "snapd", "phpsessionclean", "certbot", "exim4-base", "xfs_scrub", "fedora-", "rhsm", "chrony", "podman-auto-update", "bpftune", "pmlogger", "pmie", "insights-client",
	"secureboot-db", "fake-hwclock", "geoipupdate", "nvmefc", "btrfs"}

// ListJobs lists the jobs of cron and at and the timers of an inventory that the
// distribution did not bring: what would run a second time on a copy. It is pure.
func ListJobs(inv *hostinv.Inventory) (cron []hostinv.Line, timers []string) {
	for _, c := range inv.Cron {
		base := c.Source[strings.LastIndexByte(c.Source, '/')+1:]
		switch {
		case slices.Contains(ownCron, c.Source) && (strings.Contains(c.Text, "run-parts") || !strings.HasPrefix(c.Source, "/etc/crontab")):
		case strings.HasPrefix(c.Source, "/etc/cron.") && slices.Contains(ownScripts, base):
		case setting.MatchString(c.Text):
		default:
			cron = append(cron, c)
		}
	}
	for _, u := range inv.Units {
		if strings.HasSuffix(u.Name, ".timer") && u.Active == "active" && !slices.ContainsFunc(ownTimers, func(p string) bool { return strings.HasPrefix(u.Name, p) }) {
			timers = append(timers, u.Name)
		}
	}
	return cron, timers
}

// setting is a line of a crontab that sets a variable.
var setting = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*\s*=`)

// isHeld tells whether one of the units is held back on the copy.
func isHeld(p QuarantinePlan, names ...string) bool {
	return slices.ContainsFunc(p.Units, func(u HeldUnit) bool {
		return slices.ContainsFunc(names, func(n string) bool { return fullUnit(n) == u.Unit })
	})
}

// quarantined is the severity of what would run twice: a warning, unless it is
// held back.
func quarantined(is bool) string {
	if is {
		return FindingInfo
	}
	return FindingWarning
}

// detectTwice lists what must not run on production and on its copy at once.
func detectTwice(cfg *Config, f *Facts, _ time.Time) []Finding {
	if cfg.Transition.Instance != "" {
		return nil // nothing is copied
	}
	var l found
	inv := f.Inventory
	cron, timers := ListJobs(inv)
	bySource := map[string]int{}
	for _, c := range cron {
		bySource[c.Source]++
	}
	hold := PlanQuarantine(inv, cfg)
	is := isHeld(hold, "crond", "cron")
	for _, src := range sortedKeys(bySource) {
		l.add(quarantined(is), "twice-cron", src, "hold crond (cron on Debian) back (transition.quarantine): else its jobs run on both hosts", "%s has %d jobs%s", src, bySource[src], heldText(is))
	}
	for _, t := range timers {
		is := isHeld(hold, t)
		l.add(quarantined(is), "twice-timer", t, "hold its unit back by transition.quarantine.hold: else it runs on both hosts", "timer %s is active%s", t, heldText(is))
	}
	for _, a := range inv.Agents {
		if a.Name == "cron" || slices.Contains(floating, a.Name) {
			continue
		}
		name := a.Evidence[strings.LastIndexByte(a.Evidence, ' ')+1:]
		units := []string{name}
		for _, p := range inv.Processes {
			if p.Unit != "" && (p.Name == name || p.Program == name) {
				units = append(units, p.Unit)
			}
		}
		is := isHeld(hold, units...)
		l.add(quarantined(is), "twice-agent", a.Name, "hold its unit back by transition.quarantine.hold, or register the copy under a name of its own", "%s (%s): %s%s", a.Name, a.Evidence, a.Why, heldText(is))
	}
	for _, p := range ListTrustPeers(inv, cfg.Address) {
		is := cfg.Transition.Quarantine.SecurityGroup != ""
		at := fmt.Sprintf("%s:%d", p.IP, p.Port)
		switch p.Service {
		case "RocketMQ", "Kafka", "RabbitMQ", "ActiveMQ":
			l.add(quarantined(is), "twice-consumer", at, "see that two consumers are right, or keep the first boot from reaching it (transition.quarantine.security_group)",
				"the host is connected to %s: the copy takes messages as soon as its services start", p)
		case "Nacos", "Eureka", "Consul", "ZooKeeper":
			l.add(quarantined(is), "twice-registry", at, "keep the first boot from reaching it (transition.quarantine.security_group), or switch registration off until 3.9",
				"the host is connected to %s: the copy registers itself and is given traffic before it is upgraded", p)
		}
	}
	return l
}

func heldText(is bool) string {
	if is {
		return "; held back on the copy"
	}
	return ""
}

// identities are arguments that give a host a number or name which only one may
// have, as generators of IDs, brokers and clusters use them.
var identities = regexp.MustCompile(`(?i)[-.]((worker|data-?center|machine|node|broker|server|snowflake)[._-]?id|instance[._-]?(id|name|no))=\S`)

// executors are programs that get jobs from a scheduler, by a word of a Java
// command line, and the port on which an executor waits unless told otherwise.
var executors = []struct {
	name string
	word *regexp.Regexp
	port int
}{
	{"XXL-JOB", regexp.MustCompile(`(?i)xxl-?[.]?job`), 9999},
	{"ElasticJob", regexp.MustCompile(`(?i)elastic-?job`), 0},
	{"PowerJob", regexp.MustCompile(`(?i)power-?job`), 27777},
	{"SchedulerX", regexp.MustCompile(`(?i)schedulerx`), 0},
}

// detectDouble looks for services that are somebody: while the transition host
// serves with production beside it, there are two of them.
func detectDouble(_ *Config, f *Facts, _ time.Time) []Finding {
	var l found
	for _, j := range f.Inventory.Java {
		for _, a := range j.Args {
			if identities.MatchString(a) {
				l.add(FindingWarning, "twice-identity", j.Cwd, "see that two may have it, or let each host have its own (by its host name or address): two generators of one number give the same IDs",
					"the java process in %s has a number of its own in its arguments: %s", j.Cwd, a)
			}
		}
		for _, x := range executors {
			word := slices.ContainsFunc(append(slices.Clone(j.Args), j.Jar, j.MainClass), x.word.MatchString)
			if word || x.port != 0 && slices.Contains(j.Ports, x.port) {
				l.add(FindingWarning, "twice-executor", j.Cwd, "take the transition host out of the scheduler's executors, or see that its jobs may run on either of two hosts: the services of both run from 3.8 to 4.4",
					"the java process in %s looks like an executor of %s%s", j.Cwd, x.name, pick(!word, fmt.Sprintf(" (port %d)", x.port)))
			}
		}
	}
	return l
}

// detectCloudInit sees that the copy holds back what it should: cloud-init does
// that, at its first boot.
func detectCloudInit(cfg *Config, f *Facts, _ time.Time) []Finding {
	var l found
	inv := f.Inventory
	if s := inv.Sections[hostinv.SectionPackages].Status; cfg.Transition.Instance != "" || s != hostinv.StatusOK ||
		slices.ContainsFunc(inv.Packages, func(p hostinv.Package) bool { return p.Name == "cloud-init" }) ||
		slices.ContainsFunc(inv.Units, func(u hostinv.Unit) bool { return strings.HasPrefix(u.Name, "cloud-init") }) {
		return nil
	}
	if p := PlanQuarantine(inv, cfg); len(p.Units) > 0 || len(p.Addresses) > 0 {
		l.add(FindingBlocking, "quarantine-cloud-init", "", "install cloud-init, or keep the first boot from reaching anybody (transition.quarantine.security_group) and allow it to run what it has (transition.quarantine.allow)",
			"cloud-init is not installed: nothing would be held back at the first boot of the copy (%s)", list(p.names(nil)))
	}
	return l
}

// detectNetwork looks for places where production's address or its network card
// is written down: they are wrong on a host with another one.
func detectNetwork(cfg *Config, f *Facts, _ time.Time) []Finding {
	var l found
	inv := f.Inventory
	own := wholeAddress(cfg.Address)
	for _, s := range inv.Listeners {
		if s.Addr == cfg.Address && !s.Ephemeral {
			l.add(FindingWarning, "net-listen", fmt.Sprintf("%s/%d", s.Proto, s.Port), "let it listen on every address (0.0.0.0), or expect that it does not start on the transition host",
				"%s listens on the address %s itself, port %d", orWord(s.Process, "a process"), s.Addr, s.Port)
		}
	}
	for _, j := range inv.Java {
		for _, a := range j.Args {
			if own(a) {
				l.add(FindingWarning, "net-argument", j.Cwd, "see what it is for: announced to others (dubbo, RMI, Kafka, Eureka) it leads them to production from the transition host",
					"the java process in %s has the host's address in its arguments: %s", j.Cwd, a)
			}
		}
	}
	for _, c := range inv.Cron {
		if own(c.Text) {
			l.add(FindingInfo, "net-argument", c.Source, "see what it is for", "%s has a job with the host's address", c.Source)
		}
	}
	for _, r := range inv.Firewall {
		if own(r.Text) {
			l.add(FindingWarning, "net-firewall", r.Tool, "add the transition host's address beside it once it is known (3.4)", "%s has a rule with the host's address: %s", r.Tool, r.Text)
		}
	}
	for _, h := range inv.DNS.Hosts {
		if own(h) {
			l.add(FindingInfo, "net-hosts", strings.TrimSpace(h), "", "/etc/hosts names the host's address: %s; on the transition host that leads to production", strings.TrimSpace(h))
		}
	}
	if f.Extra == nil {
		return l
	}
	for _, n := range f.Extra.Network {
		key, value, _ := strings.Cut(n.Text, "=")
		value = strings.Trim(value, `"' `)
		switch {
		case strings.Contains(n.Source, "persistent-net") && strings.Contains(n.Text, "ATTR{address}"):
			l.add(FindingWarning, "net-hwaddr", n.Source, "remove the file: it is written again", "%s ties a network card to its MAC address: on the copy the card gets another name, and no address", n.Source)
		case key == "HWADDR":
			l.add(FindingWarning, "net-hwaddr", n.Source, "take the line out: the copy has another MAC address, and its interface would not come up", "%s ties the interface to the MAC address %s", n.Source, value)
		case (key == "IPADDR" || key == "IPADDR0") && value == cfg.Address, own(n.Text) && !strings.Contains(n.Source, "/ifcfg-"):
			l.add(FindingBlocking, "net-static", n.Source, "let the interface take its address by DHCP, as the cloud gives it: else the copy comes up with production's address beside it",
				"%s sets the address %s", n.Source, cfg.Address)
		}
	}
	return l
}

// wholeAddress finds an address in a text, not 172.31.0.9 in 172.31.0.90.
func wholeAddress(ip string) func(string) bool {
	if ip == "" {
		return func(string) bool { return false }
	}
	re := regexp.MustCompile(`(^|[^0-9A-Za-z.:])` + regexp.QuoteMeta(ip) + `([^0-9A-Za-z.]|\.?$|\.[^0-9])`)
	return re.MatchString
}

func orWord(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// detectCertificates looks for certificates that clients check against the
// host's address, and for such as end within the window.
func detectCertificates(cfg *Config, f *Facts, now time.Time) []Finding {
	var l found
	if f.Extra == nil {
		return nil
	}
	own := slices.Concat([]string{cfg.Address}, f.Instance.PublicIPs)
	for _, c := range f.Extra.Certificates {
		for _, ip := range c.Addresses {
			if slices.Contains(own, ip) {
				l.add(FindingWarning, "certificate-address", c.Path, "clients that reach the transition host by its address will refuse it: let them use a name", "the certificate %s is for the address %s", c.Path, ip)
			}
		}
		if left := c.NotAfter.Sub(now); !c.NotAfter.IsZero() && left < 7*24*time.Hour {
			l.add(FindingWarning, "certificate-expiry", c.Path, "renew it: its end would look like a fault of the upgrade", "the certificate %s ends at %s", c.Path, c.NotAfter.UTC().Format(time.RFC3339))
		}
	}
	return l
}

// detectTime looks whether the host has the right time, and goes on having it.
func detectTime(_ *Config, f *Facts, _ time.Time) []Finding {
	var l found
	t := f.Inventory.Time
	switch f.Inventory.Sections[hostinv.SectionTime].Status {
	case hostinv.StatusOK:
		switch {
		case len(t.Daemons) == 0 && t.Synced != "yes":
			l.add(FindingWarning, "time-sync", "", "start chronyd: signatures, tokens and tickets of the copy depend on it", "nothing keeps the host's clock (no chronyd, ntpd or systemd-timesyncd runs)")
		case t.Synced == "no":
			l.add(FindingWarning, "time-sync", "", "see why: chronyc sources", "the host's clock is not synchronised, although %s runs", strings.Join(t.Daemons, ", "))
		}
	}
	if s := f.Inventory.ClockSkew; s.Abs() > 5*time.Second {
		l.add(FindingWarning, "time-skew", "", "see which of the two clocks is wrong", "the host's clock differs from this machine's by %s", s.Round(time.Second))
	}
	return l
}

// detectListeners lists the ports that somebody could reach and that no service
// names: nothing proves after the upgrade that they are served again but the
// comparison of inventories.
func detectListeners(cfg *Config, f *Facts, _ time.Time) []Finding {
	var l found
	for _, p := range listUnlisted(f.Inventory, cfg) {
		l.add(FindingInfo, "listener-unlisted", p, "name it in a service if somebody needs it", "%s listens, and no service names it", p)
	}
	return l
}

// systemListeners are processes whose ports are nobody's service. Never written to.
var systemListeners = []string{"sshd", "systemd", "systemd-resolve", "systemd-network", "chronyd", "ntpd", "rpcbind", "rpc.statd", "dhclient", "NetworkManager", "avahi-daemon", "cupsd", "master", "dnsmasq", "containerd", "dockerd", "exim4", "snmpd"}

// listUnlisted lists the TCP ports that other hosts can reach and no service has,
// as "tcp/9090 (prometheus)".
func listUnlisted(inv *hostinv.Inventory, cfg *Config) (out []string) {
	for _, s := range inv.Listeners {
		a, err := netip.ParseAddr(s.Addr)
		if s.Proto != "tcp" || s.Ephemeral || s.Port == 22 || servesPort(cfg, s.Port) || err == nil && a.IsLoopback() || slices.Contains(systemListeners, s.Process) {
			continue
		}
		name := fmt.Sprintf("tcp/%d", s.Port)
		if s.Process != "" {
			name += " (" + s.Process + ")"
		}
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// certificate reads what matters of a certificate in PEM's DER.
func certificate(path string, der []byte) (Certificate, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return Certificate{}, err
	}
	out := Certificate{Path: path, Names: c.DNSNames, NotAfter: c.NotAfter.UTC()}
	for _, ip := range c.IPAddresses {
		out.Addresses = append(out.Addresses, ip.String())
	}
	if _, err := netip.ParseAddr(c.Subject.CommonName); err == nil && len(c.IPAddresses) == 0 {
		out.Addresses = append(out.Addresses, c.Subject.CommonName)
	}
	return out, nil
}
