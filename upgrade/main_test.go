package upgrade_test

import (
	"os"
	"testing"

	"github.com/upgradectl/upgradectl/internal/lab"
)

func TestMain(m *testing.M) {
	lab.Main()
	os.Exit(m.Run())
}
