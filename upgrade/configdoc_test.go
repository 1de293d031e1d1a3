package upgrade

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Every key of upgrade.yaml stands in docs/config.md or, of a rebuild, in
// docs/rebuild.md: in a table or as the name of a section.
func TestConfigDocument(t *testing.T) {
	var docs string
	for _, name := range []string{"config.md", "rebuild.md"} {
		b, err := os.ReadFile(filepath.Join("..", "docs", name))
		require.NoError(t, err)
		docs += string(b)
	}
	described := map[string]bool{}
	for _, l := range strings.Split(docs, "\n") {
		if !strings.HasPrefix(l, "|") && !strings.HasPrefix(l, "#") {
			continue
		}
		for _, k := range regexp.MustCompile("[a-z][a-z0-9_]*").FindAllString(l, -1) {
			described[k] = true
		}
	}
	keys := map[string]bool{}
	configKeys(reflect.TypeFor[Config](), keys)
	require.Greater(t, len(keys), 80)
	for k := range keys {
		assert.True(t, described[k], "the key %s is in no table of docs/config.md or docs/rebuild.md", k)
	}
}

// configKeys collects the keys of t's fields, all the way down.
func configKeys(t reflect.Type, keys map[string]bool) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || t.PkgPath() != reflect.TypeFor[Config]().PkgPath() {
		return
	}
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || name == "" || name == "-" || f.Name == "Signers" {
			continue // Signers is what the file of approvals holds
		}
		keys[name] = true
		configKeys(f.Type, keys)
	}
}
