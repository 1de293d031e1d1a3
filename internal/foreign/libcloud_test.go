package foreign

import (
	"fmt"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// debianPython is the interpreter that Debian's own modules belong to.
const debianPython = "/usr/bin/python3"

// TestLibcloud runs Libcloud's drivers, which read answers in XML.
func TestLibcloud(t *testing.T) {
	out, err := exec.Command(debianPython, "-c", "import libcloud").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	need(t, "python3-libcloud", err)
	t.Parallel()
	// The drivers read an image back at once, and know no more of one that is
	// still being made.
	s := serve(t, "--speed", "1000000")
	told, err := s.client(nil, debianPython, "testdata/libcloud_drivers.py")
	require.NoErrorf(t, err, "%s", told)
	end := s.end()
	assert.Empty(t, end.left())
	assert.GreaterOrEqual(t, len(end.Calls), 23)

	wrong := serve(t)
	wrong.Secret = "another"
	told, err = wrong.client(nil, debianPython, "testdata/libcloud_drivers.py", "wrong")
	require.NoErrorf(t, err, "%s", told)
	wrong.stop()
	assert.Empty(t, wrong.last.Calls)
}
