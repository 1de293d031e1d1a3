package upgrade_test

import (
	"os"
	"runtime/debug"
	"testing"

	"github.com/upgradectl/upgradectl/internal/lab"
)

func TestMain(m *testing.M) {
	lab.Main()
	debug.SetGCPercent(1600) // a simulated world is garbage after a second, and there are a thousand
	os.Exit(m.Run())
}
