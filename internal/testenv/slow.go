package testenv

import (
	"os"
	"testing"
)

// SlowVariable names the environment variable that lets the tests run that
// take more time than somebody who waits for `go test` should spend: "1" runs
// them. `make test` sets it.
const SlowVariable = "UPGRADECTL_SLOW"

// Slow skips the test unless slow tests are asked for. Call it first in a test
// that costs many seconds.
func Slow(t testing.TB) {
	t.Helper()
	if !RunSlow() {
		t.Skipf("takes long: set %s=1, as make test does, to run it", SlowVariable)
	}
}

// RunSlow reports whether slow tests are asked for, for a test that has a
// short form too.
func RunSlow() bool { return os.Getenv(SlowVariable) == "1" }
