package pitrix_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/pitrix"
)

// 4.10 is younger than 4.9, and a version may have two parts.
func TestTrapVersionNumeric(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{
		{"4.2.1", "4.10.0", -1}, {"3.7", "3.7.0", 0}, {"4.3", "4.2.99", 1}, {"10.0", "9.9.9", 1}, {"4.2.5", "4.2.5", 0},
	} {
		a, err := pitrix.ParseVersion(tt.a)
		require.NoError(t, err)
		b, err := pitrix.ParseVersion(tt.b)
		require.NoError(t, err)
		assert.Equal(t, tt.want, a.Compare(b), "%s %s", tt.a, tt.b)
		assert.Equal(t, -tt.want, b.Compare(a), "%s %s", tt.a, tt.b)
	}
	for text, python := range map[string]bool{"3.7": false, "4.2.9": false, "4.3": true, "4.3.0": true, "4.10.2": true, "5.0": true} {
		v, err := pitrix.ParseVersion(text)
		require.NoError(t, err)
		assert.Equal(t, python, v.Python(), text)
	}
	for _, bad := range []string{"", "4", "4.", ".4", "4.2.1.0", "4.x", "-4.2", "+4.2", "4.2 ", "v4.2", "4.99999999"} {
		_, err := pitrix.ParseVersion(bad)
		assert.ErrorContains(t, err, "as in 4.2.1", "%q", bad)
	}
}

func TestParseVersionFile(t *testing.T) {
	for src, want := range map[string]string{
		`{"current": {"installer": "4.2.1", "patch": "20190410"}, "old": [{"installer": "4.0"}]}`:   "4.2.1",
		"{\n  \"old\": [],\n  \"current\": {\"installer\": \"4.6\"}}\n":                             "4.6.0",
		"=== current ===\ninstaller: 3.7.0\nqingcloud: 20180101\n\n=== old ===\ninstaller: 3.5.0\n": "3.7.0",
		"=== old ===\ninstaller: 3.5.0\n=== current ===\nqingcloud: 20180101\ninstaller:   3.7\n":   "3.7.0",
	} {
		v, err := pitrix.ParseVersionFile([]byte(src))
		if assert.NoError(t, err, "%q", src) {
			assert.Equal(t, want, v.String())
		}
	}
	for src, text := range map[string]string{
		"":                                  "no installer: line",
		"=== old ===\ninstaller: 3.5.0\n":   "no installer: line",
		"installer: 3.5.0\n":                "no installer: line",
		`{"current": {}}`:                   "no current.installer",
		`{"current": {"installer": "new"}}`: "not an installer version",
		`{"current": `:                      "cannot read",
	} {
		_, err := pitrix.ParseVersionFile([]byte(src))
		assert.ErrorContains(t, err, text, "%q", src)
	}
}
