package testenv

import (
	"os"
	"testing"
)

// LabVariable names the environment variable that lets the tests run that need
// whole hosts on this machine (internal/lab) and take minutes together: "1"
// runs them. `make lab` sets it.
const LabVariable = "UPGRADECTL_LAB"

// Lab skips the test unless tests on hosts of the lab are asked for. Call it
// first.
func Lab(t testing.TB) {
	t.Helper()
	if !RunLab() {
		t.Skipf("needs hosts of the lab: set %s=1, as make lab does, to run it", LabVariable)
	}
}

// RunLab reports whether tests on hosts of the lab are asked for.
func RunLab() bool { return os.Getenv(LabVariable) == "1" }
