package archtest

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/shellq"
)

// reservedStatuses are the exit statuses of scripts on hosts that are read
// wherever some other command may run within the script, each with the one
// package that may end with it. What only the script's own package reads, it may
// choose as it likes.
var reservedStatuses = map[int]string{
	97:                  "internal/remote", // the command did not begin
	shellq.StatusFenced: "internal/shellq", // another process holds the host
}

// ownStatus tells statuses that programs and shells end with for reasons of
// their own: sysexits.h, a package manager with updates, timeout, the shell.
func ownStatus(status int) bool {
	return status <= 78 || status == 100 || status >= 124
}

func TestExitStatuses(t *testing.T) {
	const root = "../.."
	found := map[int]map[string]bool{}
	ends := regexp.MustCompile(`\b(?:exit|upg_no) (\d+)\b|\b[sS]tatus[A-Z]\w* *= (\d+)`)
	err := filepath.WalkDir(root, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return err
		}
		dir := filepath.ToSlash(strings.TrimPrefix(filepath.Dir(name), root+string(filepath.Separator)))
		for _, judge := range []string{"cmd/", "internal/sim/", "internal/lab", "internal/bench", "internal/foreign"} {
			if strings.HasPrefix(dir+"/", judge) {
				return nil // no host is sent what stands there
			}
		}
		text, err := os.ReadFile(name)
		for _, m := range ends.FindAllSubmatch(text, -1) {
			if n, err := strconv.Atoi(string(m[1]) + string(m[2])); err == nil {
				if found[n] == nil {
					found[n] = map[string]bool{}
				}
				found[n][dir] = true
			}
		}
		return err
	})
	require.NoError(t, err)
	require.Contains(t, found, 74, "no script was found: the test looks in the wrong place")
	for status, owner := range reservedStatuses {
		assert.Equal(t, map[string]bool{owner: true}, found[status], "exit status %d belongs to scripts of %s", status, owner)
		assert.False(t, ownStatus(status), "programs end with %d too", status)
	}
}
