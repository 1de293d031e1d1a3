package hostinv

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestSchema: an inventory of schema 1 keeps what it has and says what it has
// not; any other is refused.
func TestSchema(t *testing.T) {
	old := `{"schema": 1, "hostname": "web-90", "kernel": "3.10.0", "docker": "1.13.1", "os": {"id": "centos", "release": "CentOS 7.5"},
		"sections": {"os": {"status": "ok"}, "kernel": {"status": "ok"}, "host": {"status": "ok"}, "docker": {"status": "ok"}, "java": {"status": "ok"}, "listeners": {"status": "ok"}, "containers": {"status": "ok"}, "units": {"status": "ok"}},
		"java": [{"pid": 7, "cwd": "/srv/order", "jar": "order.jar"}]}`
	inv, err := ParseInventory([]byte(old))
	require.NoError(t, err)
	assert.Equal(t, schema, inv.Schema)
	assert.Equal(t, "1.13.1", inv.Docker.Version)
	assert.Len(t, inv.Java, 1)
	for _, n := range SectionNames() {
		require.Contains(t, inv.Sections, n)
	}
	assert.Equal(t, StatusError, inv.Sections[SectionPackages].Status)
	assert.Contains(t, inv.Sections[SectionPackages].Message, "schema 1")
	unknown := Diff(inv, inv, Expect{}).Findings
	assert.True(t, slices.ContainsFunc(unknown, func(f Finding) bool { return f.Area == SectionPackages && f.Kind == Unknown }))
	assert.Empty(t, onlyKnown(unknown))
	for _, bad := range []string{
		``, `[]`, `{}`, `{"schema": 3, "sections": {}}`, `{"schema": 2}`, `{"schema": 1, "docker": {}, "sections": {}}`,
		`{"schema": 2, "sections": {"os": {"status": "fine"}}}`, `{"schema": 2, "sections": {"os": {"status": "ok"}}, "java": "no"}`,
	} {
		_, err := ParseInventory([]byte(bad))
		assert.Error(t, err, bad)
	}
	full := web90().inventory(t)
	data, err := json.Marshal(full)
	require.NoError(t, err)
	back, err := ParseInventory(data)
	require.NoError(t, err)
	again, err := json.Marshal(back)
	require.NoError(t, err)
	assert.JSONEq(t, string(data), string(again))
}

func TestParseExpect(t *testing.T) {
	e, err := ParseExpect([]byte(`{"format": "upgradectl-expect/1", "kernel_changed": true, "kernel": "5.10", "packages": ["nginx*"],
		"rules": [{"area": "java", "key": "/srv/order *", "kind": "removed", "why": "moved to web-91"}]}`))
	require.NoError(t, err)
	assert.Equal(t, Expect{KernelChanged: true, Kernel: "5.10", Packages: []string{"nginx*"}, Rules: []ExpectRule{{Area: "java", Key: "/srv/order *", Kind: Removed, Why: "moved to web-91"}}}, e)
	e, err = ParseExpect([]byte(`{"format": "upgradectl-plan/1", "config": {"os": {"strategy": "yum-update", "docker": "upgrade"}, "more": 1}, "facts": {"has_docker": true}}`))
	require.NoError(t, err)
	assert.Equal(t, Expect{KernelChanged: true, ReleaseChanged: true, DockerChanged: true}, e)
	for bad, why := range map[string]string{
		`{`: "cannot read the expectation", `{}`: `its format is ""`, `{"format": "upgradectl-expect/2"}`: "upgradectl-expect/1",
		`{"format": "upgradectl-expect/1", "kernel_change": true}`:                       "kernel_change",
		`{"format": "upgradectl-expect/1", "rules": [{"area": "jav"}]}`:                  `"jav" is no section`,
		`{"format": "upgradectl-expect/1", "rules": [{"area": "java", "kind": "gone"}]}`: `"gone" is none of`,
		`{"format": "upgradectl-expect/1", "packages": [""]}`:                            "a name is empty",
		`{"format": "upgradectl-plan/1", "config": {"os": {}}, "facts": {}}`:             "no config.os.strategy",
	} {
		_, err := ParseExpect([]byte(bad))
		assert.ErrorContains(t, err, why)
	}
}

// TestExpectPackages: an update of the release makes newer packages and more
// kernels expected, and nothing that is lost.
func TestExpectPackages(t *testing.T) {
	before := web90().inventory(t)
	severity := func(old, now string, e Expect) Severity {
		t.Helper()
		for _, f := range Diff(before, web90().with(SectionPackages, old, now).inventory(t), e).Findings {
			if f.Area == SectionPackages {
				return f.Severity
			}
		}
		t.Fatal("no finding")
		return ""
	}
	release := Expect{ReleaseChanged: true}
	assert.Equal(t, Expected, severity("9.9.4-61.el7", "9.9.4-74.el7_6.2", release))
	assert.Equal(t, Lost, severity("9.9.4-61.el7", "9.9.4-51.el7", release))
	assert.Equal(t, Expected, severity("9.9.4-61.el7", "9.9.4-51.el7", Expect{Packages: []string{"bind-*"}}))
	assert.Equal(t, Lost, severity("bind-libs\t32\t9.9.4-61.el7\tx86_64\n", "", Expect{}))
	more := "kernel\t(none)\t3.10.0-862.9.1.el7\tx86_64\nkernel\t(none)\t3.10.0-1160.6.1.el7\tx86_64\n"
	assert.Equal(t, New, severity("kernel\t(none)\t3.10.0-862.9.1.el7\tx86_64\n", more, Expect{}))
	assert.Equal(t, Expected, severity("kernel\t(none)\t3.10.0-862.9.1.el7\tx86_64\n", more, Expect{KernelChanged: true}))
}
