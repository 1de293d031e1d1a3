package ecs

import "time"

// CommandInput is the input of RunCommand.
type CommandInput struct {
	InstanceID string
	Script     string        // a shell script, run as root by the Cloud Assistant agent; up to 18 KiB
	Token      string        // makes the call idempotent; empty: a fresh one
	Timeout    time.Duration // how long the script may run; whole seconds, 0 means 60 s
}

// A CommandResult is the end of a script that ran.
type CommandResult struct {
	ExitCode int
	Output   []byte // stdout and stderr, the last 24 KiB
	Dropped  int    // bytes of output that were cut off
}
