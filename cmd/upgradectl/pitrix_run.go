package main

import "github.com/spf13/cobra"

// newPitrixRuns are the commands that drive the installer's scripts.
func newPitrixRuns(*app, *pitrixFlags) []*cobra.Command { return nil }
