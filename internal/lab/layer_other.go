//go:build !linux

package lab

import "errors"

func whiteout(string) error { return errors.ErrUnsupported }

func opaque(string) error { return errors.ErrUnsupported }
