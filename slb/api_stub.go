package slb

import (
	"context"
	"errors"
)

var errStub = errors.New("slb: under construction")

func (c *Client) Discover(ctx context.Context, s Server) ([]Membership, error) { return nil, errStub }
func (c *Client) ListBackends(ctx context.Context, g Group) ([]Backend, error) { return nil, errStub }
func (c *Client) SetWeight(ctx context.Context, g Group, asRead Backend, weight int) error {
	return errStub
}
func (c *Client) AddBackend(ctx context.Context, g Group, b Backend) error    { return errStub }
func (c *Client) RemoveBackend(ctx context.Context, g Group, b Backend) error { return errStub }
func (c *Client) ListHealth(ctx context.Context, loadBalancerID string) ([]Health, error) {
	return nil, errStub
}
