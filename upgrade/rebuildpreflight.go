package upgrade

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/upgradectl/upgradectl/pitrix"
)

// What the firstbox and its network say of a rebuild before it begins. What the
// old and the new hosts say is newHost's; the whole list, with the test of each
// item, is in docs/rebuild.md.

// releaseReady says what the firstbox lacks of the release that new machines
// get: its base image and its repositories.
func (r *rebuild) releaseReady(ctx context.Context, f *RebuildFacts) ([]string, error) {
	var out []string
	fb, version := r.firstbox(), r.c.OSVersion
	if r.c.VIP != "" && (strings.HasPrefix(version, "12.04") || strings.HasPrefix(version, "14.04")) {
		out = append(out, "release "+version+" has no systemd, which alone can hold keepalived down on a new machine until it may have the floating address; choose a later one")
	}
	images, err := fb.BaseImages(ctx)
	if err != nil {
		return nil, fmt.Errorf("firstbox %s: %w", r.cfg.Host, err)
	}
	if !pitrix.HasBaseImage(images, version) {
		out = append(out, fmt.Sprintf("the firstbox has no base image of release %s in /pitrix/kernels (it has %s); prepare one first", version, strings.Join(images, ", ")))
	}
	repos, err := fb.GetRepositories(ctx)
	if err != nil {
		return nil, fmt.Errorf("firstbox %s: %w", r.cfg.Host, err)
	}
	if len(repos) == 0 {
		if f != nil {
			f.Unasked = append(f.Unasked, "whether the firstbox can serve packages of release "+version+": it has no repositories by release")
		}
		return out, nil
	}
	for _, dir := range repos.Missing(version) {
		out = append(out, fmt.Sprintf("the firstbox has no repository %s, from which machines of release %s are installed; prepare it first", dir, version))
	}
	return out, nil
}

// temporaryUsed asks, by ping from the firstbox, who has a temporary address
// already: somebody on another link does not answer the ARP of inUse.
func (r *rebuild) temporaryUsed(ctx context.Context) ([]string, error) {
	var out []string
	for _, n := range r.f.Nodes {
		for _, address := range []string{n.Address, n.EIP} {
			if address == "" || address == n.Final { // in place
				continue
			}
			a, err := netip.ParseAddr(address)
			if err != nil {
				return nil, err
			}
			answers, err := r.firstbox().Ping(ctx, a)
			if err != nil {
				return nil, fmt.Errorf("firstbox %s: %w", r.cfg.Host, err)
			}
			if answers {
				out = append(out, fmt.Sprintf("temporary address %s of %s answers the firstbox's ping: somebody has it; choose another one", a, n.Name))
			}
		}
	}
	return out, nil
}

// siteProblems holds the new settings against what the firstbox's variables say.
func (r *rebuild) siteProblems(ctx context.Context, f *RebuildFacts, old pitrix.Fleet) ([]string, error) {
	site, err := r.firstbox().ReadSite(ctx)
	if err != nil {
		return nil, fmt.Errorf("firstbox %s: %w", r.cfg.Host, err)
	}
	site.Releases = nil // releaseReady says it in the operator's words
	state := -1
	if r.inPlace() { // no new settings but the final ones
		state = len(f.Nodes) - 1
	}
	next, phases, err := r.fleetAt(f, old, state)
	if err != nil {
		return nil, nil // checkFleet says why
	}
	var out []string
	for _, p := range pitrix.CheckSite(next, site) {
		if _, rebuilt := phases[p.File]; rebuilt {
			out = append(out, p.String())
		}
	}
	return out, nil
}

// preflight is all of it.
func (r *rebuild) preflight(ctx context.Context, f *RebuildFacts, fleet pitrix.Fleet) ([]string, error) {
	out, err := r.releaseReady(ctx, f)
	if err != nil {
		return nil, err
	}
	used, err := r.temporaryUsed(ctx)
	if err != nil {
		return nil, err
	}
	out = append(out, used...)
	site, err := r.siteProblems(ctx, f, fleet)
	return append(out, site...), err
}

// minFreeKiB is what a new overlay image may grow to at least.
const minFreeKiB = 10 << 20

// lacks says what a host has too little of for a node of so many MiB of memory
// with these bridges.
func lacks(c pitrix.Capacity, node string, memory int64, bridges ...string) []string {
	var out []string
	for _, bridge := range bridges {
		if bridge != "" && !slices.Contains(c.Bridges, bridge) {
			out = append(out, fmt.Sprintf("there is no bridge %s, only %s", bridge, strings.Join(c.Bridges, ", ")))
		}
	}
	if c.AvailableKiB < memory*1024 {
		out = append(out, fmt.Sprintf("%d MiB of memory are free, %s needs %d", c.AvailableKiB/1024, node, memory))
	}
	if c.FreeKiB < minFreeKiB {
		out = append(out, fmt.Sprintf("%d GiB are free in /pitrix/kernels, a new machine may need %d", c.FreeKiB>>20, int64(minFreeKiB)>>20))
	}
	return out
}
