package cloud

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The versions of the APIs; a request names one, and so its product.
const (
	ecsVersion = "2014-05-26"
	slbVersion = "2014-05-15"
)

// A product is one RPC API.
type product struct {
	name, version string
	actions       []action
}

// products are the RPC APIs that are simulated: one line each.
func products() []product {
	return []product{
		{"ecs", ecsVersion, slices.Concat(ecsActions(), networkECSActions(), accountActions())},
		{"slb", slbVersion, slices.Concat(slbActions(), slbListenerActions())},
		{"alb", albVersion, albActions()},
		{"nlb", nlbVersion, nlbActions()},
		{"vpc", vpcVersion, networkVPCActions()},
		{"vpc", vpcVersion, vpcPathActions()},
		{"slb", slbVersion, slbLogActions()},
		{"alidns", dnsVersion, dnsActions()},
		{"ess", essVersion, essActions()},
		{"rds", rdsVersion, rdsActions()},
		{"r-kvstore", redisVersion, redisActions()},
		{"dds", mongoVersion, mongoActions()},
		{"polardb", polarVersion, polarActions()},
	}
}

// An action is one call of an API and what it may be given.
//
// served and other hold parameter names, one word each. In a name # stands
// for an index from 1, and a final .* for any member of a structure. ! after
// all else says that the parameter is required (of a list: its first element).
// After the name stands what the value must look like:
//
//	:int    a decimal number
//	:bool   true or false
//	:ids    a JSON array of at most 100 strings (single-quoted or not)
//	:json   any JSON, single-quoted or not; call.json decodes it
//	:words  words separated by commas, at most 100; call.words cuts them
//
// The parameters in other exist in the real API but not here: with a value
// they are refused, because to ignore a filter or a setting would be a lie;
// only a :bool among them may be false, and an :int 0.
type action struct {
	name          string
	served, other string
	do            func(*Cloud, *call) (obj, *apiError)

	product, version string
	params           []param // parsed from served and other
}

// key names an action in Counts and Fault.Action: bare for ECS and CLB,
// alb:ListServerGroups and the like for the other products.
func (a *action) key() string {
	if a.product == "ecs" || a.product == "slb" {
		return a.name
	}
	return a.product + ":" + a.name
}

// A param is one word of an action's served or other.
type param struct {
	name     string
	kind     string // "", int, bool, ids, json, words
	required bool
	served   bool
}

// common are the parameters that every action takes.
var common = map[string]bool{
	"Action": true, "Version": true, "Format": true, "AccessKeyId": true, "Signature": true,
	"SignatureMethod": true, "SignatureVersion": true, "SignatureNonce": true, "SignatureType": true,
	"Timestamp": true, "SecurityToken": true, "RegionId": true,
	"OwnerId": true, "OwnerAccount": true, "ResourceOwnerId": true, "ResourceOwnerAccount": true,
}

// indexed parses the served and other words of all actions.
func indexed() map[string]map[string]*action {
	all := map[string]map[string]*action{}
	for _, p := range products() {
		if all[p.version] == nil {
			all[p.version] = map[string]*action{}
		}
		for _, a := range p.actions {
			if all[p.version][a.name] != nil {
				panic("internal error: the action " + a.name + " of " + p.name + " stands in two lists")
			}
			a.product, a.version = p.name, p.version
			for i, words := range []string{a.served, a.other} {
				for word := range strings.FieldsSeq(words) {
					p := param{served: i == 0}
					word, p.required = strings.CutSuffix(word, "!")
					p.name, p.kind, _ = strings.Cut(word, ":")
					a.params = append(a.params, p)
				}
			}
			all[p.version][a.name] = &a
		}
	}
	return all
}

// Actions returns the actions that are simulated, as ecs:RunInstances, sorted.
func Actions() []string {
	var names []string
	for _, p := range products() {
		for _, a := range p.actions {
			names = append(names, p.name+":"+a.name)
		}
	}
	slices.Sort(names)
	return names
}

// A call is one request after all that can be checked without the state of
// the cloud. Empty parameters are the same as absent ones.
type call struct {
	cloud  *Cloud
	action *action
	params map[string]string
}

// parse finds the action and checks every parameter against its table.
func (c *Cloud) parse(params map[string]string) (*call, *apiError) {
	if f := params["Format"]; f != "" && !strings.EqualFold(f, "JSON") && !strings.EqualFold(f, "XML") {
		return nil, refuse(400, "InvalidParameter.Format", "The Format %q is neither JSON nor XML.", f)
	}
	version, ok := c.actions[params["Version"]]
	if !ok {
		return nil, refuse(400, "InvalidVersion", "Specified version %q is not one of %s.", params["Version"], strings.Join(slices.Sorted(maps.Keys(c.actions)), ", "))
	}
	a, ok := version[params["Action"]]
	if !ok {
		return nil, refuse(403, "InvalidAction", "Specified action %q is not known in version %s.", params["Action"], params["Version"])
	}
	call := &call{cloud: c, action: a, params: map[string]string{}}
	for _, name := range slices.Sorted(maps.Keys(params)) {
		value := params[name]
		if common[name] {
			if name == "RegionId" && value != "" {
				call.params[name] = value
			}
			continue
		}
		p := a.find(name)
		switch {
		case p == nil:
			return nil, refuse(400, "UnsupportedParameter", "%s has no parameter %s.", a.name, name)
		case value == "":
			continue
		case !p.served && (p.kind == "bool" && value == "false" || p.kind == "int" && strings.Trim(value, "0.") == ""):
			continue // some clients send all there is
		case !p.served:
			return nil, refuse(400, "UnsupportedParameter", "The parameter %s of %s is not simulated.", name, a.name)
		}
		if err := p.check(name, value); err != nil {
			return nil, err
		}
		call.params[name] = value
	}
	if err := call.gaps(); err != nil {
		return nil, err
	}
	for _, p := range a.params {
		if p.required && !call.has(p.name) {
			return nil, refuse(400, "MissingParameter", "The input parameter %q that is mandatory for processing this request is not supplied.", strings.ReplaceAll(p.name, "#", "1"))
		}
	}
	if r := call.str("RegionId"); r != "" && r != c.cfg.Region {
		return nil, refuse(404, "InvalidRegionId.NotFound", "The specified RegionId %q does not exist: this is %s.", r, c.cfg.Region)
	}
	return call, nil
}

// gaps refuses lists that do not count 1, 2, 3, …: what stands behind the gap
// would be lost.
func (q *call) gaps() *apiError {
	seen := map[string]bool{} // every list and element, as Tag.1
	for name := range q.params {
		parts := strings.Split(name, ".")
		for i := 1; i < len(parts); i++ {
			seen[strings.Join(parts[:i+1], ".")] = true
		}
	}
	for element := range seen {
		i := strings.LastIndexByte(element, '.')
		if n, err := strconv.Atoi(element[i+1:]); err == nil && n > 1 && !seen[element[:i+1]+strconv.Itoa(n-1)] {
			return refuse(400, "InvalidParameter", "The list %s has a gap before %d.", element[:i], n)
		}
	}
	return nil
}

// find returns the entry of the table that name belongs to; nil if none. An
// exact or indexed name wins over a structure.
func (a *action) find(name string) *param {
	plain := unindexed(name)
	var whole *param
	for i := range a.params {
		p := &a.params[i]
		if p.name == name || p.name == plain { // Filter.1.Key is no list in some contracts
			return p
		}
		if prefix, ok := strings.CutSuffix(p.name, "*"); ok && strings.HasPrefix(plain, prefix) {
			whole = p
		}
	}
	return whole
}

// unindexed replaces the indices in a name with #: Tag.1.Key is Tag.#.Key.
func unindexed(name string) string {
	parts := strings.Split(name, ".")
	for i, part := range parts {
		if n, err := strconv.Atoi(part); i > 0 && err == nil && n >= 1 && strconv.Itoa(n) == part {
			parts[i] = "#"
		}
	}
	return strings.Join(parts, ".")
}

func (p *param) check(name, value string) *apiError {
	switch p.kind {
	case "int":
		if _, err := strconv.Atoi(value); err != nil {
			return refuse(400, "InvalidParameter", "The parameter %s is not a number: %q.", name, value)
		}
	case "bool":
		if value != "true" && value != "false" {
			return refuse(400, "InvalidParameter", "The parameter %s is neither true nor false: %q.", name, value)
		}
	case "ids":
		var ids []string
		if err := json.Unmarshal(doubleQuoted(value), &ids); err != nil {
			return refuse(400, "InvalidParameter", "The parameter %s is not a JSON array of strings.", name)
		}
		if len(ids) > 100 {
			return refuse(400, "InvalidParameter", "The parameter %s holds %d values; 100 are allowed.", name, len(ids))
		}
	case "json":
		if !json.Valid(doubleQuoted(value)) {
			return refuse(400, "InvalidParameter", "The parameter %s is not JSON.", name)
		}
	case "words":
		if n := strings.Count(value, ",") + 1; n > 100 {
			return refuse(400, "InvalidParameter", "The parameter %s holds %d values; 100 are allowed.", name, n)
		}
	}
	return nil
}

// has reports whether a parameter, or for an indexed one its first, is given.
func (q *call) has(name string) bool { return q.params[strings.ReplaceAll(name, "#", "1")] != "" }

func (q *call) str(name string) string { return q.params[name] }

// num returns a number; parse has seen that it is one.
func (q *call) num(name string, otherwise int) int {
	if n, err := strconv.Atoi(q.params[name]); err == nil {
		return n
	}
	return otherwise
}

func (q *call) is(name string) bool { return q.params[name] == "true" }

// ids returns the strings of a JSON array; given is false when there is no
// such parameter, which is not the same as an empty array.
func (q *call) ids(name string) (ids []string, given bool) {
	v := q.params[name]
	if v == "" {
		return nil, false
	}
	_ = json.Unmarshal(doubleQuoted(v), &ids) // parse has seen that it is one
	return ids, true
}

// json decodes a :json parameter into v, members that v does not have
// refused. given is false when there is no such parameter.
func (q *call) json(name string, v any) (given bool, _ *apiError) {
	value := q.params[name]
	if value == "" {
		return false, nil
	}
	dec := json.NewDecoder(bytes.NewReader(doubleQuoted(value)))
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	if err == nil {
		if _, more := dec.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("something follows the value")
		}
	}
	if err != nil {
		return true, refuse(400, "InvalidParameter", "The parameter %s is malformed: %v", name, err)
	}
	return true, nil
}

// words cuts a :words parameter.
func (q *call) words(name string) []string {
	var l []string
	for w := range strings.SplitSeq(q.params[name], ",") {
		if w = strings.TrimSpace(w); w != "" {
			l = append(l, w)
		}
	}
	return l
}

// under returns the parameters below a prefix as a call of their own, so that
// list, group, num and is work inside a structure or an element of a list:
// q.under("Servers.1").str("ServerId"). It is nil when there are none.
func (q *call) under(prefix string) *call {
	sub := &call{cloud: q.cloud, action: q.action, params: map[string]string{}}
	for k, v := range q.params {
		if member, ok := strings.CutPrefix(k, prefix+"."); ok {
			sub.params[member] = v
		}
	}
	if len(sub.params) == 0 {
		return nil
	}
	return sub
}

// each returns Name.1, Name.2, … of a list of structures.
func (q *call) each(name string) []*call {
	var l []*call
	for {
		sub := q.under(name + "." + strconv.Itoa(len(l)+1))
		if sub == nil {
			return l
		}
		l = append(l, sub)
	}
}

// list returns Name.1, Name.2, … up to the first that is missing.
func (q *call) list(name string) []string {
	var l []string
	for i := 1; ; i++ {
		v := q.params[name+"."+strconv.Itoa(i)]
		if v == "" {
			return l
		}
		l = append(l, v)
	}
}

// group returns the members of Name.i, nil when there is none.
func (q *call) group(name string, i int) map[string]string {
	prefix := name + "." + strconv.Itoa(i) + "."
	var g map[string]string
	for k, v := range q.params {
		if member, ok := strings.CutPrefix(k, prefix); ok {
			if g == nil {
				g = map[string]string{}
			}
			g[member] = v
		}
	}
	return g
}

// tags returns the Tag.N pairs to put on a resource.
func (q *call) tags() (map[string]string, *apiError) {
	tags, err := q.tagFilter()
	if err != nil {
		return nil, err
	}
	for k, v := range tags {
		if strings.HasPrefix(k, "acs:") || strings.HasPrefix(k, "aliyun") || strings.Contains(k, "http://") || strings.Contains(k, "https://") || len(k) > 128 {
			return nil, refuse(400, "InvalidTagKey.Malformed", "The specified Tag.n.Key %q is not valid.", k)
		}
		if len(v) > 128 {
			return nil, refuse(400, "InvalidTagValue.Malformed", "The specified Tag.n.Value of %q is not valid.", k)
		}
	}
	return tags, nil
}

// tagFilter returns the Tag.N pairs to look for; an empty value means any.
func (q *call) tagFilter() (map[string]string, *apiError) {
	tags := map[string]string{}
	for i := 1; ; i++ {
		g := q.group("Tag", i)
		if g == nil {
			return tags, nil
		}
		if i > 20 {
			return nil, refuse(400, "InvalidParameter.TagNum", "The tags are more than 20.")
		}
		key, value := g["Key"], g["Value"]
		if key == "" {
			key = g["key"]
		}
		if value == "" {
			value = g["value"]
		}
		if key == "" {
			return nil, refuse(400, "MissingParameter.TagKey", "You must specify Tag.%d.Key.", i)
		}
		if _, twice := tags[key]; twice {
			return nil, refuse(400, "Duplicate.TagKey", "The Tag.n.Key %q is given twice.", key)
		}
		tags[key] = value
	}
}

// tagged reports whether tags meet a filter.
func tagged(tags, filter map[string]string) bool {
	for k, want := range filter {
		if v, ok := tags[k]; !ok || want != "" && v != want {
			return false
		}
	}
	return true
}

// tagList is the Tags of an answer.
func tagList(tags map[string]string) obj {
	l := []obj{}
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		l = append(l, obj{"TagKey": k, "TagValue": tags[k]})
	}
	return obj{"Tag": l}
}

// fingerprint is what must be equal in two requests with one ClientToken.
func (q *call) fingerprint() string {
	b, err := json.Marshal(q.params) // keys come sorted
	if err != nil {
		panic("internal error: " + err.Error())
	}
	return string(b)
}

// stampSeconds is what a moment looks like in most answers and parameters.
const stampSeconds = "2006-01-02T15:04:05Z"

// stampMinutes is what it looks like in DescribeInstances.
const stampMinutes = "2006-01-02T15:04Z"

// stamp renders t, the zero time as nothing.
func stamp(t time.Time, layout string) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(layout)
}

// numbered is an object of the cloud with its place in the order of creation.
type numbered interface{ number() int64 }

// sorted returns the values of m in order of creation.
func sorted[T numbered](m map[string]T) []T {
	return slices.SortedFunc(maps.Values(m), func(a, b T) int { return int(a.number() - b.number()) })
}

// pageOf cuts the part of all that the request's paging parameters ask for and
// returns the paging members of the answer with it: by NextToken and
// MaxResults when one of them is given, else by PageNumber and PageSize.
func pageOf[T numbered](q *call, all []T) ([]T, obj, *apiError) {
	if !q.has("NextToken") && !q.has("MaxResults") {
		number, size := q.num("PageNumber", 1), q.num("PageSize", 10)
		if number < 1 || size < 1 || size > 100 {
			return nil, nil, refuse(400, "InvalidParameter", "PageNumber starts at 1, and PageSize is between 1 and 100.")
		}
		from := min((number-1)*size, len(all))
		part := all[from:min(from+size, len(all))]
		return part, obj{"PageNumber": number, "PageSize": size, "TotalCount": len(all), "NextToken": ""}, nil
	}
	// Below 10 the cloud takes 10, above 100 it takes 100.
	size := min(max(q.num("MaxResults", 10), 10), 100)
	var after int64
	if t := q.str("NextToken"); t != "" {
		plain, err := base64.RawURLEncoding.DecodeString(t)
		seq, action, _ := strings.Cut(string(plain), ":")
		after, _ = strconv.ParseInt(seq, 10, 64)
		if err != nil || action != q.action.key() || after == 0 {
			return nil, nil, refuse(400, "InvalidParameter.NextToken", "The specified NextToken was not given out by %s.", q.action.name)
		}
	}
	var part []T
	next := ""
	for _, v := range all {
		if v.number() <= after {
			continue
		}
		if len(part) == size {
			next = base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%d:%s", part[size-1].number(), q.action.key()))
			break
		}
		part = append(part, v)
	}
	// With tokens TotalCount means nothing, and the cloud says 0.
	return part, obj{"NextToken": next, "MaxResults": size, "PageNumber": 0, "PageSize": 0, "TotalCount": 0}, nil
}

// oneOf reports whether v is in the comma-separated list; an empty list holds
// everything.
func oneOf(v, list string) bool {
	if list == "" {
		return true
	}
	for item := range strings.SplitSeq(list, ",") {
		if strings.TrimSpace(item) == v {
			return true
		}
	}
	return false
}

// like matches a name with the wildcard * at either end.
func like(name, pattern string) bool {
	if pattern == "" {
		return true
	}
	core := strings.Trim(pattern, "*")
	head, tail := strings.HasPrefix(pattern, "*"), strings.HasSuffix(pattern, "*")
	switch {
	case head && tail:
		return strings.Contains(name, core)
	case head:
		return strings.HasSuffix(name, core)
	case tail:
		return strings.HasPrefix(name, core)
	}
	return name == pattern
}
