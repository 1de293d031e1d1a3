package ecs

import (
	"context"
	"fmt"
	"time"
)

// Evidence is what can be seen of an instance from outside, for the case that it
// does not come back. Console is raw: services may have written secrets to it,
// so keep it private.
type Evidence struct {
	InstanceID  string    `json:"instance_id"`
	Time        time.Time `json:"time"`
	Status      string    `json:"status,omitempty"`
	Locks       []string  `json:"locks,omitempty"`
	Console     []byte    `json:"console,omitempty"`     // tail of the serial console
	ConsoleTime time.Time `json:"console_time,omitzero"` // when the cloud collected it
	Screenshot  []byte    `json:"screenshot,omitempty"`  // JPEG
	Agent       Agent     `json:"agent"`
	// Problems are what could not be had, and why.
	Problems []string `json:"problems,omitempty"`
}

// An Agent is the state of an instance's Cloud Assistant agent.
type Agent struct {
	Running   bool      `json:"running"` // it was heard of in the last two minutes
	Heartbeat time.Time `json:"heartbeat,omitzero"`
	Version   string    `json:"version,omitempty"`
}

// CollectEvidence reads an instance's status, console, screen and agent. It
// always returns something; what fails stands in Problems. It takes at most a
// minute.
func (c *Client) CollectEvidence(ctx context.Context, id string) *Evidence {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	e := &Evidence{InstanceID: id, Time: time.Now().UTC()}
	note := func(what string, err error) {
		if err != nil {
			e.Problems = append(e.Problems, fmt.Sprintf("%s: %v", what, wrap(err)))
		}
	}
	i, err := c.GetInstance(ctx, id)
	note("instance", err)
	if i != nil {
		e.Status, e.Locks = i.Status, i.Locks
	}
	e.Console, e.ConsoleTime, err = c.api.ConsoleOutput(ctx, id)
	note("console", err)
	e.Screenshot, err = c.api.Screenshot(ctx, id)
	note("screenshot", err)
	a, err := c.api.Agent(ctx, id)
	e.Agent = Agent(a)
	note("agent", err)
	return e
}
