//go:build !unix

package nginx

import "path/filepath"

// identity names the file behind path.
func identity(path string) (string, error) {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}
