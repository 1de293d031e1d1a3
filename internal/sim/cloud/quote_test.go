package cloud

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestDoubleQuoted(t *testing.T) {
	for in, want := range map[string]string{
		`[{'ServerId':'i-1','Weight':'100', 'Type': 'ecs'}]`: `[{"ServerId":"i-1","Weight":"100", "Type": "ecs"}]`,
		`{'a':'say "hi"'}`: `{"a":"say \"hi\""}`,
		`{'a':'it\'s'}`:    `{"a":"it's"}`,
		`{"a":"it's"}`:     `{"a":"it's"}`,
		`{"a":"\"'\\"}`:    `{"a":"\"'\\"}`,
	} {
		assert.Equal(t, want, string(doubleQuoted(in)))
	}
}

// FuzzDoubleQuoted: JSON keeps its meaning.
func FuzzDoubleQuoted(f *testing.F) {
	f.Add(`[{"ServerId":"i-1","Port":80,"Description":"it's \"x\" \\ \u0027"}]`)
	f.Add(`[{'ServerId':'i-1'}]`)
	f.Add(`'`)
	f.Add(`"\`)
	f.Fuzz(func(t *testing.T, in string) {
		out := doubleQuoted(in)
		var want, got any
		if json.Unmarshal([]byte(in), &want) != nil {
			return
		}
		require.NoError(t, json.Unmarshal(out, &got))
		assert.Equal(t, want, got)
	})
}
