package upgrade

// A profile is what a rebuild needs to know of a role: everything in which
// proxies, webservices and DNS masters differ is here, as data.
type profile struct {
	role string
	// floating: the nodes share an address that keepalived moves.
	floating bool
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

// A restored tree of files comes from the old machine.
type restored struct {
	path  string // a file or a directory
	owner string // chown -R
	test  string // succeeds when the programs accept it
	after string // makes them use it
}

// profiles lists the roles. The packages and the extra work are those of the
// installer's guides (webservice: nginx.conf is copied; dnsmaster: /etc/bind
// with owner bind:bind, or bind9 does not start). Never written to.
var profiles = []profile{
	{
		role: "proxy", floating: true,
		packages: []string{"pitrix-ks-proxy"}, optional: []string{"pitrix-ks-proxy-", "pitrix-wanctl-", "pitrix-wan-gate-"},
		haproxy: true, rclocal: true, configs: []string{"/etc/cronus-api/config.yaml"},
	},
	{
		role:     "webservice",
		packages: []string{"global-webservice", "global-website"}, subPackages: []string{"pitrix-ks-api", "pitrix-ks-cli", "zone-webservice"},
		optional: []string{"pitrix-ks-webservice-"},
		rclocal:  true,
		restore:  []restored{{path: "/etc/nginx/nginx.conf", owner: "root:root", test: "nginx -t", after: "service nginx restart"}},
	},
	{
		role: "dnsmaster", floating: true,
		packages: []string{"pitrix-ks-dnsmaster"}, optional: []string{"pitrix-ks-dns"},
		rclocal: true,
		restore: []restored{{path: "/etc/bind", owner: "bind:bind", test: "named-checkconf", after: "rndc sync -clean; service bind9 restart"}},
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
