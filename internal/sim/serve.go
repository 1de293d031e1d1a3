package sim

import (
	"context"
	"errors"
	"time"
)

// Serve runs a world until it is finished through [Remote.Finish], keepFor is
// over or ctx ends. It writes the operator's files and world.json (mode 0600,
// written last: who sees it can attach) into dir.
func Serve(ctx context.Context, dir string, cfg Config, keepFor time.Duration) error {
	return errors.New("internal error: no world")
}

// A Remote is a world that another process serves.
type Remote struct {
	Operator Operator
}

// Attach finds the world that serves dir.
func Attach(dir string) (*Remote, error) { return nil, errors.New("internal error: no world") }

// Figures asks for what the world has counted up to now.
func (r *Remote) Figures(ctx context.Context) (Figures, error) {
	return Figures{}, errors.New("internal error: no world")
}

// Finish stops the traffic, takes the final figures and ends the process that
// serves the world.
func (r *Remote) Finish(ctx context.Context) (Figures, error) {
	return Figures{}, errors.New("internal error: no world")
}
