package slb_test

import (
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/upgradectl/upgradectl/slb"
)

// TestJSONNames holds what plans, journals and outputs are made of: names in
// snake_case, everywhere, and times that say their unit.
func TestJSONNames(t *testing.T) {
	snake := regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)
	seen := map[reflect.Type]bool{}
	var walk func(typ reflect.Type)
	walk = func(typ reflect.Type) {
		switch typ.Kind() {
		case reflect.Slice, reflect.Pointer:
			walk(typ.Elem())
			return
		case reflect.Struct:
		default:
			return
		}
		if seen[typ] || typ == reflect.TypeFor[time.Time]() {
			return
		}
		seen[typ] = true
		for i := range typ.NumField() {
			f := typ.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			assert.Regexp(t, snake, name, "%s.%s", typ.Name(), f.Name)
			if f.Type == reflect.TypeFor[time.Duration]() {
				assert.True(t, strings.HasSuffix(name, "_ns"), "%s.%s is a number of nanoseconds", typ.Name(), f.Name)
			}
			walk(f.Type)
		}
	}
	for _, v := range []any{
		slb.Server{}, slb.Membership{}, slb.Group{}, slb.Target{}, slb.Change{}, slb.Health{}, slb.Rule{}, slb.Finding{}, slb.PathFinding{},
		slb.DrainReport{}, slb.Traffic{}, slb.Silence{}, slb.DNSRecord{}, slb.ResolvedDomain{}, slb.ForwardingItem{},
	} {
		walk(reflect.TypeOf(v))
	}
	assert.Greater(t, len(seen), 15)
}
