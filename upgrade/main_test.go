package upgrade_test

import (
	"os"
	"runtime/debug"
	"testing"
)

func TestMain(m *testing.M) {
	debug.SetGCPercent(1600) // a simulated world is garbage after a second, and there are a thousand
	os.Exit(m.Run())
}
