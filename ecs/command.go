package ecs

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/internal/alicloud"
	"github.com/upgradectl/upgradectl/internal/poll"
)

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

// A CommandError reports a script that did not run to its end: the agent did not
// take it, or it was ended. A script that ran and failed is no error but an
// ExitCode.
type CommandError struct {
	InstanceID string
	Status     string // the cloud's word, as "Failed", "Timeout" or "Terminated"
	Code       string // as ClientNotRunning or ExecutionTimeout
	Message    string
	Output     []byte // what it wrote until then
	// NotRun: the script surely never began.
	NotRun bool
}

// Error names the instance and what the cloud says.
func (e *CommandError) Error() string {
	s := fmt.Sprintf("command on instance %s did not finish: %s", e.InstanceID, e.Status)
	if e.Code != "" {
		s += " (" + e.Code + ")"
	}
	if e.Message != "" {
		s += ": " + e.Message
	}
	if e.Code == "ClientNotRunning" || e.Code == "ClientNotResponse" {
		s += "; check that the Cloud Assistant agent runs on it"
	}
	return s
}

// gone reports whether there is no such instance any more.
func (e *CommandError) gone() bool {
	return e.Code == "InstanceNotExists" || e.Code == "InstanceReleased"
}

// RunCommand runs a shell script as root on an instance through Cloud Assistant,
// without SSH, and waits for its end. If ctx ends first the script may go on.
func (c *Client) RunCommand(ctx context.Context, in CommandInput) (*CommandResult, error) {
	if in.InstanceID == "" || in.Script == "" {
		return nil, errors.New("cannot run a command without instance and script")
	}
	if in.Timeout <= 0 {
		in.Timeout = time.Minute
	}
	if in.Token == "" {
		in.Token = rand.Text()
	}
	invoke, err := c.api.RunCommand(ctx, alicloud.NewCommand{InstanceID: in.InstanceID, Token: deriveToken(in.Token), Script: in.Script, Timeout: in.Timeout})
	if err != nil {
		return nil, wrap(err)
	}
	// The cloud ends the script; the rest is for the agent's report.
	ctx, cancel := alicloud.WithLimit(ctx, max(c.wait, in.Timeout+time.Minute))
	defer cancel()
	var last alicloud.Invocation
	err = c.poller().Until(ctx, fmt.Sprintf("command %s on instance %s", invoke, in.InstanceID), func(ctx context.Context) (string, bool, error) {
		inv, found, err := c.api.Invocation(ctx, invoke, in.InstanceID)
		if err != nil {
			return "", false, wrap(err)
		}
		if !found {
			return "not shown yet", false, nil
		}
		last = inv
		switch inv.Status {
		case "Pending", "Running", "Stopping", "Scheduled", "":
			return inv.Status, false, nil
		}
		return inv.Status, true, nil
	})
	if err != nil {
		return nil, err
	}
	return outcome(in.InstanceID, last)
}

// outcome sorts the ends that an invocation can have. A script that ran and
// failed has an exit status; with any other code it never had one.
func outcome(instanceID string, last alicloud.Invocation) (*CommandResult, error) {
	if last.Status == "Success" || last.Status == "Failed" && (last.ErrorCode == "" || last.ErrorCode == "ExitCodeNonzero") {
		return &CommandResult{ExitCode: last.ExitCode, Output: last.Output, Dropped: last.Dropped}, nil
	}
	return nil, &CommandError{
		InstanceID: instanceID, Status: last.Status, Code: last.ErrorCode, Message: last.ErrorInfo, Output: last.Output,
		// What the cloud found invalid it did not send.
		NotRun: notRun[last.ErrorCode] || last.Status == "Invalid",
	}
}

// notRun are the codes of scripts that never reached the instance's shell. A
// script that was begun and then ended (ExecutionTimeout, ExecutionInterrupted,
// ExecutionException) is not among them; nor is a
// code that nobody here knows.
var notRun = map[string]bool{
	"ClientNotRunning": true, "ClientNotResponse": true, "ClientIsUpgrading": true, "ClientNeedUpgrade": true, "DeliveryTimeout": true,
	"InstanceNotExists": true, "InstanceReleased": true, "InstanceNotRunning": true, "SecurityGroupRuleDenied": true, "ClientNetworkBlocked": true,
	"CommandNotApplicable": true, "AccountNotExists": true, "DirectoryNotExists": true, "BadCronExpression": true, "TaskConcurrencyLimit": true,
}

// hostKeyScript prints the public SSH host keys. Some hosts have several, some
// have them elsewhere; the usual place is all that is looked at.
const hostKeyScript = "cat /etc/ssh/ssh_host_*_key.pub\n"

// HostKeys reads the public SSH host keys of an instance through Cloud
// Assistant, that is, not over the connection they are to prove. Each is "TYPE
// BASE64" as in authorized_keys. Right after a first boot the agent may not
// answer yet; that is waited for.
//
// A first boot makes new host keys: read them when sshd is up, not before.
func (c *Client) HostKeys(ctx context.Context, instanceID string) ([]string, error) {
	ctx, cancel := alicloud.WithLimit(ctx, c.wait)
	defer cancel()
	var keys []string
	p := c.poller()
	err := p.Until(ctx, "host keys of instance "+instanceID, func(ctx context.Context) (string, bool, error) {
		r, err := c.RunCommand(ctx, CommandInput{InstanceID: instanceID, Script: hostKeyScript, Timeout: 30 * time.Second})
		var ce *CommandError
		switch {
		case errors.As(err, &ce) && ce.NotRun && !ce.gone():
			return "agent: " + ce.Code, false, nil
		case errors.As(err, &ce):
			return "", false, poll.Stop(err)
		case err != nil:
			return "", false, err
		}
		if keys = parseHostKeys(r.Output); len(keys) == 0 {
			return fmt.Sprintf("no host key (exit status %d)", r.ExitCode), false, nil
		}
		return "read", true, nil
	})
	if err != nil {
		return nil, err
	}
	return keys, nil
}

// parseHostKeys picks the public keys out of what a host printed. A line counts
// only if its blob is of the type it claims.
func parseHostKeys(out []byte) []string {
	var keys []string
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		blob, err := base64.StdEncoding.DecodeString(f[1])
		if err != nil || len(blob) < 4 {
			continue
		}
		n := binary.BigEndian.Uint32(blob)
		if uint64(n) > uint64(len(blob)-4) || string(blob[4:4+n]) != f[0] || int(n)+4 == len(blob) {
			continue
		}
		keys = append(keys, f[0]+" "+f[1])
	}
	return keys
}
