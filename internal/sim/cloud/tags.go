package cloud

import (
	"maps"
	"slices"
	"strings"
)

// tagsOf returns the tags of a resource to read or to change, nil when there
// is none. c.mu is held.
func (c *Cloud) tagsOf(kind, id string) map[string]string {
	of := func(t *map[string]string) map[string]string {
		if *t == nil {
			*t = map[string]string{}
		}
		return *t
	}
	switch kind {
	case "instance":
		if i := c.instances[id]; i != nil {
			return of(&i.Tags)
		}
	case "disk":
		if d := c.disks[id]; d != nil {
			return of(&d.Tags)
		}
	case "snapshot":
		if s := c.snapshots[id]; s != nil {
			return of(&s.tags)
		}
	case "image":
		if i := c.images[id]; i != nil {
			return of(&i.tags)
		}
	case "snapshotgroup":
		if g := c.groups[id]; g != nil {
			return of(&g.tags)
		}
	default:
		return c.netTags(kind, id)
	}
	return nil
}

// taggable are the kinds of resources whose tags can be changed.
const taggable = "instance,disk,snapshot,image,snapshotgroup,securitygroup,keypair,vpc,vswitch"

// retag changes the tags of resources, all or none.
func (c *Cloud) retag(kind string, ids []string, change func(map[string]string)) *apiError {
	if !oneOf(kind, taggable) {
		return refuse(400, "InvalidResourceType.NotFound", "The ResourceType %q is not one of %s.", kind, taggable)
	}
	if len(ids) > 50 {
		return refuse(400, "NumberExceed.ResourceIds", "The ResourceIds are more than 50.")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []map[string]string
	for _, id := range ids {
		t := c.tagsOf(kind, id)
		if t == nil {
			return fail(404, "InvalidResourceId.NotFound", "The specified ResourceId %q is not found.", id)
		}
		after := maps.Clone(t)
		change(after)
		if len(after) > 20 {
			return fail(403, "QuotaExceeded.TagNum", "A resource cannot have more than 20 tags.")
		}
		all = append(all, t)
	}
	for _, t := range all {
		change(t)
	}
	return nil
}

func (c *Cloud) tagResources(q *call) (obj, *apiError) {
	tags, err := q.tags()
	if err != nil {
		return nil, err
	}
	return obj{}, c.retag(q.str("ResourceType"), q.list("ResourceId"), func(t map[string]string) { maps.Copy(t, tags) })
}

func (c *Cloud) untagResources(q *call) (obj, *apiError) {
	keys := q.list("TagKey")
	if len(keys) == 0 && !q.is("All") {
		return nil, refuse(400, "MissingParameter.TagKey", "TagKey.N or All=true must be given.")
	}
	return obj{}, c.retag(q.str("ResourceType"), q.list("ResourceId"), func(t map[string]string) {
		maps.DeleteFunc(t, func(k, _ string) bool { return q.is("All") && len(keys) == 0 || slices.Contains(keys, k) })
	})
}

// addTags and removeTags are the old spelling: one resource a call.
func (c *Cloud) addTags(q *call) (obj, *apiError) {
	tags, err := q.tags()
	if err != nil {
		return nil, err
	}
	return obj{}, c.retag(q.str("ResourceType"), []string{q.str("ResourceId")}, func(t map[string]string) { maps.Copy(t, tags) })
}

func (c *Cloud) removeTags(q *call) (obj, *apiError) {
	tags, err := q.tagFilter()
	if err != nil {
		return nil, err
	}
	return obj{}, c.retag(q.str("ResourceType"), []string{q.str("ResourceId")}, func(t map[string]string) {
		maps.DeleteFunc(t, func(k, v string) bool { want, named := tags[k]; return named && (want == "" || want == v) })
	})
}

// A tagRow is one tag of one resource.
type tagRow struct {
	seq                  int64
	kind, id, key, value string
}

func (r tagRow) number() int64 { return r.seq }

// tagRows lists every tag of a kind of resources, "" for all kinds. c.mu is
// held.
func (c *Cloud) tagRows(kind string) []tagRow {
	var rows []tagRow
	ids := map[string][]string{
		"instance": slices.Sorted(maps.Keys(c.instances)), "disk": slices.Sorted(maps.Keys(c.disks)),
		"snapshot": slices.Sorted(maps.Keys(c.snapshots)), "image": slices.Sorted(maps.Keys(c.images)),
		"snapshotgroup": slices.Sorted(maps.Keys(c.groups)), "securitygroup": slices.Sorted(maps.Keys(c.securityGroups)),
		"keypair": slices.Sorted(maps.Keys(c.keyPairs)), "vpc": slices.Sorted(maps.Keys(c.vpcs)), "vswitch": slices.Sorted(maps.Keys(c.vswitches)),
	}
	for k := range strings.SplitSeq(taggable, ",") {
		if kind != "" && k != kind {
			continue
		}
		for _, id := range ids[k] {
			tags := c.tagsOf(k, id)
			for _, key := range slices.Sorted(maps.Keys(tags)) {
				rows = append(rows, tagRow{int64(len(rows) + 1), k, id, key, tags[key]})
			}
		}
	}
	return rows
}

func (c *Cloud) listTagResources(q *call) (obj, *apiError) {
	filter, err := q.tagFilter()
	if err != nil {
		return nil, err
	}
	if !oneOf(q.str("ResourceType"), taggable) {
		return nil, refuse(400, "InvalidResourceType.NotFound", "The ResourceType %q is not one of %s.", q.str("ResourceType"), taggable)
	}
	ids := q.list("ResourceId")
	if len(ids) == 0 && len(filter) == 0 {
		return nil, refuse(400, "MissingParameter", "ResourceId.N or Tag.N must be given.")
	}
	q.params["MaxResults"] = "50" // it has no such parameter; pages are of 50
	c.mu.Lock()
	defer c.mu.Unlock()
	rows := slices.DeleteFunc(c.tagRows(q.str("ResourceType")), func(r tagRow) bool {
		return len(ids) > 0 && !slices.Contains(ids, r.id) || !tagged(c.tagsOf(r.kind, r.id), filter)
	})
	part, reply, err := pageOf(q, rows)
	if err != nil {
		return nil, err
	}
	list := []obj{}
	for _, r := range part {
		list = append(list, obj{"ResourceType": r.kind, "ResourceId": r.id, "TagKey": r.key, "TagValue": r.value})
	}
	return obj{"NextToken": reply["NextToken"], "TagResources": obj{"TagResource": list}}, nil
}

func (c *Cloud) describeTags(q *call) (obj, *apiError) {
	filter, err := q.tagFilter()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	type pair struct{ key, value string }
	counts := map[pair]map[string]int{}
	for _, r := range c.tagRows(q.str("ResourceType")) {
		want, named := filter[r.key]
		if !oneOf(r.id, q.str("ResourceId")) || len(filter) > 0 && (!named || want != "" && want != r.value) {
			continue
		}
		p := pair{r.key, r.value}
		if counts[p] == nil {
			counts[p] = map[string]int{}
		}
		counts[p][r.kind]++
	}
	var rows []tagRow
	for p := range counts {
		rows = append(rows, tagRow{key: p.key, value: p.value})
	}
	slices.SortFunc(rows, func(a, b tagRow) int { return strings.Compare(a.key+"\x00"+a.value, b.key+"\x00"+b.value) })
	for n := range rows {
		rows[n].seq = int64(n + 1)
	}
	part, reply, err := pageOf(q, rows)
	if err != nil {
		return nil, err
	}
	list := []obj{}
	for _, r := range part {
		n := counts[pair{r.key, r.value}]
		list = append(list, obj{"TagKey": r.key, "TagValue": r.value, "ResourceTypeCount": obj{
			"Instance": n["instance"], "Disk": n["disk"], "Image": n["image"], "Snapshot": n["snapshot"], "Securitygroup": n["securitygroup"], "KeyPair": n["keypair"],
		}})
	}
	return obj{"PageNumber": reply["PageNumber"], "PageSize": reply["PageSize"], "TotalCount": reply["TotalCount"], "Tags": obj{"Tag": list}}, nil
}

// keyList is tagList in the spelling of the newer actions.
func keyList(tags map[string]string) obj {
	l := []obj{}
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		l = append(l, obj{"Key": k, "Value": tags[k]})
	}
	return obj{"Tag": l}
}
