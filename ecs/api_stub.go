package ecs

import (
	"context"
	"errors"
	"time"
)

var errStub = errors.New("ecs: under construction")

func (c *Client) GetInstance(ctx context.Context, id string) (*Instance, error) { return nil, errStub }
func (c *Client) FindInstance(ctx context.Context, l Lookup) (*Instance, error) { return nil, errStub }
func (c *Client) ListInstances(ctx context.Context, f Filter) ([]Instance, error) {
	return nil, errStub
}
func (c *Client) ListDisks(ctx context.Context, instanceID string) ([]Disk, error) {
	return nil, errStub
}
func (c *Client) CreateSnapshots(ctx context.Context, in SnapshotInput) ([]Snapshot, error) {
	return nil, errStub
}
func (c *Client) ListSnapshots(ctx context.Context, f SnapshotFilter) ([]Snapshot, error) {
	return nil, errStub
}
func (c *Client) WaitSnapshots(ctx context.Context, ids []string, progress func(Progress)) ([]Snapshot, error) {
	return nil, errStub
}
func (c *Client) DeleteSnapshot(ctx context.Context, id string) error            { return errStub }
func (c *Client) CreateImage(ctx context.Context, in ImageInput) (string, error) { return "", errStub }
func (c *Client) ListImages(ctx context.Context, f ImageFilter) ([]Image, error) { return nil, errStub }
func (c *Client) WaitImage(ctx context.Context, id string, progress func(Progress)) (*Image, error) {
	return nil, errStub
}
func (c *Client) DeleteImage(ctx context.Context, id string) error               { return errStub }
func (c *Client) CreateClone(ctx context.Context, in CloneInput) (string, error) { return "", errStub }
func (c *Client) WaitInstance(ctx context.Context, id, status string, progress func(Progress)) (*Instance, error) {
	return nil, errStub
}
func (c *Client) StartInstance(ctx context.Context, id string) error                { return errStub }
func (c *Client) StopInstance(ctx context.Context, id string) error                 { return errStub }
func (c *Client) RebootInstance(ctx context.Context, id string) error               { return errStub }
func (c *Client) DeleteInstance(ctx context.Context, id string, g Guard) error      { return errStub }
func (c *Client) SetAutoRelease(ctx context.Context, id string, at time.Time) error { return errStub }
func (c *Client) RunCommand(ctx context.Context, in CommandInput) (*CommandResult, error) {
	return nil, errStub
}
func (c *Client) HostKeys(ctx context.Context, instanceID string) ([]string, error) {
	return nil, errStub
}
