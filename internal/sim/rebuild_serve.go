package sim

import (
	"context"
	"net/http"
	"time"
)

// ServeRebuild is [Serve] for a world of procedure B; [AttachRebuild] finds it.
func ServeRebuild(ctx context.Context, dir string, cfg RebuildConfig, keepFor time.Duration) error {
	w, err := NewRebuild(ctx, cfg)
	if err != nil {
		return err
	}
	return serve(ctx, dir, w, w.ctx, keepFor)
}

// A RemoteRebuild is a world of procedure B that another process serves.
type RemoteRebuild struct {
	Operator Operator
	PID      int // of the process
	contact  contact
}

// AttachRebuild finds the world that serves dir.
func AttachRebuild(dir string) (*RemoteRebuild, error) {
	c, err := readContact(dir)
	if err != nil {
		return nil, err
	}
	return &RemoteRebuild{Operator: c.Operator, PID: c.PID, contact: c}, nil
}

// Figures asks for what the world has counted up to now.
func (r *RemoteRebuild) Figures(ctx context.Context) (RebuildFigures, error) {
	return call[RebuildFigures](ctx, r.contact, http.MethodGet, "/figures")
}

// Finish stops the traffic, takes the final figures and ends the process that
// serves the world.
func (r *RemoteRebuild) Finish(ctx context.Context) (RebuildFigures, error) {
	return call[RebuildFigures](ctx, r.contact, http.MethodPost, "/finish")
}
