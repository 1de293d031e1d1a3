package upgrade

// A profile is what a rebuild needs to know of a role: everything in which
// proxies, webservices and DNS masters differ is here, as data.
type profile struct {
	role string
	// floating: the nodes always share an address that keepalived moves. Others
	// may.
	floating bool
	// answers is what clients ask for at the floating address.
	answers answers
	// packages are installed on a new machine in this order, each with one
	// update. In a sub region or sub zone it is subPackages, if there are any.
	packages, subPackages []string
	// optional are prefixes of packages that are installed too where the old
	// machine carries them.
	optional []string
	// haproxy: /etc/haproxy/haproxy.cfg is compared and carried over.
	haproxy bool
	// rclocal: rc.local, rc.local.head and rc.local.tail are.
	rclocal bool
	// configs are other files that people edit on the machines: the new one's
	// must have every line of the old one's.
	configs []string
	// restore is copied from the old machine to the new one.
	restore []restored
}

// answers is how the floating address is seen to be served.
type answers string

const (
	// answersListed: by the names that dump_hosts.py lists at the address.
	answersListed answers = "listed pages"
	// answersPages: by those names of dump_hosts.py that answer there when the
	// plan is made; they are listed at the proxies' address.
	answersPages answers = "pages"
	// answersZones: by the zones of the old machines' name servers.
	answersZones answers = "zones"
)

// A restored tree of files comes from the old machine.
type restored struct {
	path  string // a file or a directory
	owner string // chown -R
	// skip is a pattern of names that do not travel.
	skip string
	// absent: carried over only where the new machine has none, and the old one
	// need not have one.
	absent bool
	// flush is run on the old machine before: what programs have in memory is on
	// disk then. Its success does not matter: the program may be stopped.
	flush string
	// before makes the new machine's programs let go of the files.
	before string
	test   string // succeeds when the programs accept them
	after  string // makes them use it
	// reader says what the programs make of the files, which is compared; "" =
	// nobody does.
	reader reader
	// changes: programs write to it while the old machine serves, so it is
	// carried over once more when the old one no longer does.
	changes bool
}

// profiles lists the roles. The packages and the extra work are those of the
// installer's guides (webservice: nginx.conf is copied, keepalived's files where
// there is a floating address; dnsmaster: /etc/bind with owner bind:bind, or
// bind9 does not start, and ns_restore, which enters the routers' names anew).
// Never written to.
var profiles = []profile{
	{
		role: "proxy", floating: true, answers: answersListed,
		packages: []string{"pitrix-ks-proxy"}, optional: []string{"pitrix-ks-proxy-", "pitrix-wanctl-", "pitrix-wan-gate-"},
		haproxy: true, rclocal: true, configs: []string{"/etc/cronus-api/config.yaml"},
	},
	{
		role: "webservice", answers: answersPages,
		packages: []string{"global-webservice", "global-website"}, subPackages: []string{"pitrix-ks-api", "pitrix-ks-cli", "zone-webservice"},
		optional: []string{"pitrix-ks-webservice-"},
		rclocal:  true,
		restore: []restored{
			{path: "/etc/keepalived", owner: "root:root", absent: true},
			{path: "/etc/nginx/nginx.conf", owner: "root:root", test: "nginx -t", after: "service nginx restart", reader: readsNginx},
		},
	},
	{
		role: "dnsmaster", floating: true, answers: answersZones,
		packages: []string{"pitrix-ks-dnsmaster"}, optional: []string{"pitrix-ks-dnsmaster-"},
		rclocal: true,
		restore: []restored{
			{path: "/etc/keepalived", owner: "root:root", absent: true},
			{
				path: "/etc/bind", owner: "bind:bind", skip: "*.jnl", flush: "rndc sync", before: "service bind9 stop", test: "named-checkconf -z",
				after:  "service bind9 start && if command -v ns_restore >/dev/null; then ns_restore rebuild && rndc sync -clean && service bind9 restart; fi",
				reader: readsBind, changes: true,
			},
		},
	},
}

func roleProfile(role string) (profile, bool) {
	for _, p := range profiles {
		if p.role == role {
			return p, true
		}
	}
	return profile{}, false
}

func roleNames() []string {
	var out []string
	for _, p := range profiles {
		out = append(out, p.role)
	}
	return out
}
