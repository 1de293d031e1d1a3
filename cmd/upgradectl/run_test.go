package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// What apply and status say at their end is what an operator types next.
func TestWaysOn(t *testing.T) {
	for name, c := range map[string]struct {
		state, want  string
		gate, signed bool
	}{
		"asked to pause":           {state: "paused", want: "  go on with: upgradectl resume --run d\n"},
		"at a gate":                {state: "paused", gate: true, want: "  go on with: upgradectl resume --run d --approve 4.1\n"},
		"at a gate of signatures":  {state: "paused", gate: true, signed: true, want: "  approve with: upgradectl approve d 4.1 --key FILE\n  go on with: upgradectl resume --run d\n"},
		"the process was killed":   {state: "interrupted", want: "  go on with: upgradectl resume --run d  |  upgradectl rollback --run d\n"},
		"there is nothing to do":   {state: "succeeded"},
		"there is nothing to do 2": {state: "rolled-back"},
	} {
		t.Run(name, func(t *testing.T) {
			var b strings.Builder
			(&app{lang: "en"}).printWays(&b, "d", c.state, "4.1-slb", c.gate, c.signed)
			assert.Equal(t, c.want, b.String())
		})
	}
}
