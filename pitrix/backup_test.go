package pitrix_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/pitrix"
)

// The runbook copies /pitric, which is not there, and a second cp -arf of a day
// puts the copy inside the first; a copy inside settings/ is a node.
func TestTrapBackupPath(t *testing.T) {
	at := time.Date(2026, 11, 22, 3, 15, 0, 0, time.FixedZone("CST", 8*3600))
	present := []string{"nodes", "settings", "settings.20261122", "variables"}
	var made []string
	for _, want := range []string{"settings.20261122-031500", "settings.20261122-031500-2", "settings.20261122-031500-3"} {
		got, err := pitrix.BackupPath("/pitrix/conf/settings/", at, present)
		require.NoError(t, err)
		assert.Equal(t, "/pitrix/conf/"+want, got)
		present = append(present, want)
		made = append(made, got)
	}
	// build_global_conf deletes variables/global_YYYYMMDD; ours is none of that form.
	got, err := pitrix.BackupPath("/pitrix/conf/variables/global", at, []string{"global"})
	require.NoError(t, err)
	assert.Equal(t, "/pitrix/conf/variables/global.20261122-031500", got)
	got, err = pitrix.BackupPath("/settings", at, []string{"settings"})
	require.NoError(t, err)
	assert.Equal(t, "/settings.20261122-031500", got)
	assert.Len(t, made, 3)

	for _, tt := range []struct {
		dir  string
		at   time.Time
		text string
	}{
		{"/pitrix/conf/settings/proxy0", at, "taken for nodes"},
		{"/pitrix/conf/settings/x/../proxy0", at, "taken for nodes"},
		{"/pitrix/conf/nodes/proxy", at, "taken for nodes or groups"},
		{"pitrix/conf/settings", at, "not absolute"},
		{"", at, "not absolute"},
		{"/", at, "no place beside it"},
		{"/pitrix/conf/settings", time.Time{}, "no time"},
		{"/pitrix/conf/settings", time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC), "four digits"},
		{"/pitric/conf/setting", at, "not among the entries"},
	} {
		got, err := pitrix.BackupPath(tt.dir, tt.at, []string{"settings", "proxy0", "proxy"})
		assert.ErrorContains(t, err, tt.text, "%q", tt.dir)
		assert.Empty(t, got)
	}
}
