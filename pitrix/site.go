package pitrix

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/upgradectl/upgradectl/internal/shellq"
)

// ReadSite reads what the firstbox says besides the settings: its version; of the
// variables is_region, zone_ids, the NTP servers and, of each zone, mgmt_network,
// vm_base_network and vg_mgmt_network_gateway, as far as they are there; and the
// releases that have repositories in /var/www/repo and /pitrix/repo and a base
// image. Bridges are the hosts' to tell: see ReadBridges.
func (f *Firstbox) ReadSite(ctx context.Context) (Site, error) {
	v, err := f.GetVersion(ctx)
	if err != nil {
		return Site{}, err
	}
	files, err := f.readDir(ctx, f.at(variablesDir))
	if err != nil {
		return Site{}, err
	}
	site := Site{Version: v}
	vars := map[string]string{}
	ofZone := func(zone, key string) string { return vars[key+"."+zone] }
	if src, ok := files["variables.yaml"]; ok && v.Python() {
		vars = yamlSection(string(src), "common")
		if len(vars) == 0 {
			return Site{}, fmt.Errorf("%s/variables.yaml has no section common", variablesDir)
		}
		zones := map[string]map[string]string{}
		ofZone = func(zone, key string) string {
			if zones[zone] == nil {
				zones[zone] = yamlSection(string(src), zone)
			}
			return zones[zone][key]
		}
	} else {
		for name, src := range files {
			vars[name] = strings.TrimSpace(string(src))
		}
	}
	switch region := vars["is_region"]; region {
	case "1", "true":
		site.Region = true
	case "", "0", "false":
	default:
		return Site{}, fmt.Errorf("is_region in %s is %q; it is 0 or 1", variablesDir, region)
	}
	site.ZoneIDs = strings.FieldsFunc(vars["zone_ids"], func(r rune) bool { return r == ' ' || r == ',' || r == '\n' })
	for _, zone := range site.ZoneIDs {
		z, err := parseZone(func(key string) string { return ofZone(zone, key) })
		if err != nil {
			return Site{}, fmt.Errorf("zone %s in %s: %w", zone, variablesDir, err)
		}
		if z != (ZoneSite{}) {
			if site.Zones == nil {
				site.Zones = map[string]ZoneSite{}
			}
			site.Zones[zone] = z
		}
	}
	for name, value := range vars {
		if strings.HasPrefix(name, "ntp_") && strings.Contains(name, "_address") && value != "" {
			site.NTP = append(site.NTP, value)
		}
	}
	slices.Sort(site.NTP)
	site.NTP = slices.Compact(site.NTP)
	site.Releases, err = f.releases(ctx)
	return site, err
}

// parseZone reads the variables of a zone; one that is not set is not known.
func parseZone(get func(key string) string) (ZoneSite, error) {
	var z ZoneSite
	for key, to := range map[string]*netip.Prefix{"mgmt_network": &z.ManagementNetwork, "vm_base_network": &z.VMBaseNetwork} {
		text := get(key)
		if text == "" {
			continue
		}
		p, err := netip.ParsePrefix(text)
		if err != nil || !p.Addr().Is4() || p != p.Masked() {
			return z, fmt.Errorf("%s is %q; it is a network, as in 192.0.2.0/24", key, text)
		}
		*to = p
	}
	if text := get("vg_mgmt_network_gateway"); text != "" {
		a, err := netip.ParseAddr(text)
		if err != nil || !a.Is4() {
			return z, fmt.Errorf("vg_mgmt_network_gateway is %q; it is an IPv4 address", text)
		}
		z.VGManagementGateway = a
	}
	return z, nil
}

// The directories that hold a repository for each release.
const (
	mirrorRepos = "/var/www/repo" // the distribution's packages
	ownRepos    = "/pitrix/repo"  // the installer's
)

// Repositories are those that a firstbox has by release: the release, and below
// which of /var/www/repo and /pitrix/repo there is a directory of its name.
type Repositories map[string][]string

// Missing lists the directories that a release would need and has not.
func (r Repositories) Missing(release string) []string {
	var out []string
	for _, dir := range []string{mirrorRepos, ownRepos} {
		if !slices.Contains(r[release], dir) {
			out = append(out, dir+"/"+release)
		}
	}
	return out
}

// GetRepositories lists them. None: the firstbox has no repositories by
// release, so nothing is known of them.
func (f *Firstbox) GetRepositories(ctx context.Context) (Repositories, error) {
	out, err := output(ctx, f.Host, fmt.Sprintf(`for r in %s %s; do
	for d in %s"$r"/[0-9]*/; do
		if [ -d "$d" ]; then v=${d%%/}; echo "$r ${v##*/}"; fi
	done
done`, mirrorRepos, ownRepos, shellq.Quote(f.Root)))
	if err != nil {
		return nil, fmt.Errorf("cannot list the repositories of the firstbox: %w", err)
	}
	repos := Repositories{}
	for line := range strings.Lines(out) {
		if w := strings.Fields(line); len(w) == 2 {
			repos[w[1]] = append(repos[w[1]], w[0])
		}
	}
	return repos, nil
}

// releases lists the releases that a node can be installed with. None: nothing
// is known of them.
func (f *Firstbox) releases(ctx context.Context) ([]string, error) {
	repos, err := f.GetRepositories(ctx)
	if err != nil || len(repos) == 0 {
		return nil, err
	}
	images, err := f.BaseImages(ctx)
	if err != nil {
		return nil, err
	}
	var releases []string
	for v := range repos {
		if len(repos.Missing(v)) == 0 && HasBaseImage(images, v) {
			releases = append(releases, v)
		}
	}
	slices.Sort(releases)
	return releases, nil
}

// Ping asks from the firstbox whether an address answers an echo request, three
// times a second apart.
func (f *Firstbox) Ping(ctx context.Context, a netip.Addr) (bool, error) {
	_, status, err := both(ctx, f.Host, "ping -n -c 1 -w 3 "+a.String()+" </dev/null")
	if err == nil && status > 1 && status != 2 {
		err = fmt.Errorf("status %d", status)
	}
	if err != nil {
		return false, fmt.Errorf("cannot ping %s: %w", a, err)
	}
	return status == 0, nil
}

// HasBaseImage tells whether one of the images is for a release. Their names
// hold its first three numbers without dots, as ksnode16045a.img does; what
// follows (16.04.5.2, 16.04.3-arm) they do not name.
func HasBaseImage(images []string, release string) bool {
	release, _, _ = strings.Cut(release, "-")
	parts := strings.Split(release, ".")
	digits := strings.Join(parts[:min(3, len(parts))], "")
	return slices.ContainsFunc(images, func(name string) bool { return digits != "" && strings.Contains(name, digits) })
}

// ReadBridges asks every physical host of the fleet that carries VMs for its
// bridges, by the firstbox's own ssh and one after the other: what Site.Bridges
// holds. A host that cannot be asked, or that is another one than the settings
// mean, is left out and named in the error, which comes with the rest.
func (f *Firstbox) ReadBridges(ctx context.Context, fleet Fleet) (map[string][]string, error) {
	names := map[string]string{} // by management address
	for _, name := range slices.Sorted(maps.Keys(fleet)) {
		if v, _ := fleet[name].Get("physical_host_network_interface"); v == "" {
			addr, _ := fleet[name].Get("mgmt_network_address")
			names[addr] = name
		}
	}
	carry := map[string]bool{}
	for _, s := range fleet {
		if v, _ := s.Get("physical_host_network_interface"); v != "" {
			host, _ := s.Get("physical_host")
			carry[host] = names[host] != ""
		}
	}
	bridges := map[string][]string{}
	var errs []error
	for _, addr := range slices.Sorted(maps.Keys(carry)) {
		name := names[addr]
		if !carry[addr] || checkNode(name) != nil {
			continue // CheckFleet says it
		}
		found, err := f.bridges(ctx, name, addr)
		if err != nil {
			errs = append(errs, err)
			if ctx.Err() != nil {
				break
			}
			continue
		}
		bridges[addr] = found
	}
	return bridges, errors.Join(errs...)
}

func (f *Firstbox) bridges(ctx context.Context, name, addr string) ([]string, error) {
	out, err := output(ctx, f.Host, sshLine(name, "ip -o -4 addr show && "+listBridges))
	if err != nil {
		return nil, fmt.Errorf("cannot read the bridges of %s: %w", name, err)
	}
	is, found := false, []string{}
	for line := range strings.SplitSeq(out, "\n") {
		if i, ok := ipLine(line); ok {
			is = is || i.addr.Addr().String() == addr
		} else if b, ok := strings.CutPrefix(line, "bridge "); ok {
			found = append(found, b)
		}
	}
	if !is {
		return nil, fmt.Errorf("cannot read the bridges of %s: ssh %s of the firstbox ends on a machine without its address %s", name, name, addr)
	}
	slices.Sort(found)
	return found, nil
}

// yamlSection reads the simple values of one map at the top of a YAML text:
// words, quoted words, and lists of them in either form, which come back with
// blanks between them. Anything deeper is left out. It is no YAML parser; the
// file is one of the installer's own, of which three keys matter.
func yamlSection(src, section string) map[string]string {
	out := map[string]string{}
	in, indent, last := false, -1, ""
	for line := range strings.SplitSeq(src, "\n") {
		line = strings.TrimRight(line, " \r")
		text := strings.TrimLeft(line, " ")
		depth := len(line) - len(text)
		switch {
		case text == "" || text[0] == '#':
			continue
		case depth == 0 && !strings.HasPrefix(text, "- "):
			in, indent, last = text == section+":", -1, ""
			continue
		case !in:
			continue
		case strings.HasPrefix(text, "- "):
			if last != "" {
				out[last] = strings.TrimSpace(out[last] + " " + yamlWord(text[2:]))
			}
			continue
		}
		if indent < 0 {
			indent = depth
		}
		key, value, ok := strings.Cut(text, ":")
		if !ok || depth != indent {
			last = ""
			continue
		}
		value = strings.TrimSpace(value)
		if list, ok := strings.CutPrefix(value, "["); ok {
			var words []string
			for w := range strings.SplitSeq(strings.TrimSuffix(list, "]"), ",") {
				words = append(words, yamlWord(w))
			}
			value = strings.TrimSpace(strings.Join(words, " "))
		} else {
			value = yamlWord(value)
		}
		out[key], last = value, key
	}
	return out
}

func yamlWord(s string) string {
	s = strings.TrimSpace(s)
	if len(s) >= 2 && (s[0] == '"' || s[0] == '\'') {
		if end := strings.IndexByte(s[1:], s[0]); end >= 0 {
			return s[1 : 1+end]
		}
	}
	if at := strings.Index(s, " #"); at >= 0 {
		s = s[:at]
	}
	return strings.TrimSpace(s)
}
