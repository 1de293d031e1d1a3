package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/upgradectl/upgradectl/internal/atomicfile"
)

// writeOutput puts data in place as a file that the user named: whole, or with
// what was there before untouched. A symbolic link is followed. What is no
// regular file, such as /dev/stdout or a pipe, is written to and never replaced.
func writeOutput(name string, data []byte, perm fs.FileMode) error {
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return atomicfile.Write(name, data, perm)
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.Write(data)
		return errors.Join(err, f.Close())
	}
	if _, err := os.Readlink(name); err == nil {
		if name, err = filepath.EvalSymlinks(name); err != nil {
			return err
		}
	}
	return atomicfile.Write(name, data, perm)
}
