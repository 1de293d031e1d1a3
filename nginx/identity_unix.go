//go:build unix

package nginx

import (
	"fmt"
	"os"
	"syscall"
)

// identity names the file behind path.
func identity(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return fmt.Sprintf("%d:%d", st.Dev, st.Ino), nil
	}
	return "", nil
}
