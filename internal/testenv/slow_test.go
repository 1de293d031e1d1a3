package testenv

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestSlow(t *testing.T) {
	for value, runs := range map[string]bool{"1": true, "": false, "0": false, "yes": false} {
		t.Run("value "+value, func(t *testing.T) {
			t.Setenv(SlowVariable, value)
			assert.Equal(t, runs, RunSlow())
			defer func() { assert.Equal(t, !runs, t.Skipped()) }()
			Slow(t)
		})
	}
}

func TestLab(t *testing.T) {
	for value, runs := range map[string]bool{"1": true, "": false, "0": false, "yes": false} {
		t.Run("value "+value, func(t *testing.T) {
			t.Setenv(LabVariable, value)
			assert.Equal(t, runs, RunLab())
			defer func() { assert.Equal(t, !runs, t.Skipped()) }()
			Lab(t)
		})
	}
}
