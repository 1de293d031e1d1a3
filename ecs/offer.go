package ecs

import (
	"context"
	"errors"
	"fmt"
)

// A Price is what a clone costs. It says nothing about traffic by volume.
type Price struct {
	Hourly   float64 `json:"hourly"` // after discounts
	List     float64 `json:"list"`   // before
	Currency string  `json:"currency"`
	// Unpriced are the source's data disks beyond the four that the cloud prices
	// with an instance.
	Unpriced []string `json:"unpriced,omitempty"`
}

// Price asks what an hour of the clone that in describes costs. It makes
// nothing; in.ImageID may be empty.
func (c *Client) Price(ctx context.Context, in CloneInput) (*Price, error) {
	if in.Source == nil || len(in.Disks) == 0 {
		return nil, errors.New("cannot price a clone without source and disks")
	}
	n := in.request("", nil)
	var unpriced []string
	data := 0
	kept := n.Disks[:0]
	for _, d := range n.Disks {
		if d.Type != "system" {
			if data++; data > 4 {
				unpriced = append(unpriced, d.ID)
				continue
			}
		}
		kept = append(kept, d)
	}
	n.Disks = kept
	p, err := c.api.Price(ctx, n)
	if err != nil {
		return nil, wrap(err)
	}
	return &Price{Hourly: p.Hourly, List: p.List, Currency: p.Currency, Unpriced: unpriced}, nil
}

// A Stock is how many instances of a type a zone has left.
type Stock struct {
	Type      string `json:"type"`
	Zone      string `json:"zone"`
	Category  string `json:"category"`  // "WithStock", "ClosedWithStock" (few), "WithoutStock", "ClosedWithoutStock"; "" if the zone does not have the type
	Available bool   `json:"available"` // for the first two
}

// Stock asks how many instances of a type, paid by use, a zone has left. It is
// no reservation.
func (c *Client) Stock(ctx context.Context, instanceType, zone string) (*Stock, error) {
	if instanceType == "" || zone == "" {
		return nil, errors.New("cannot ask for stock without instance type and zone")
	}
	category, err := c.api.Stock(ctx, instanceType, zone)
	if err != nil {
		return nil, wrap(err)
	}
	return &Stock{Type: instanceType, Zone: zone, Category: category, Available: category == "WithStock" || category == "ClosedWithStock"}, nil
}

// DryRunClone asks whether CreateClone would be let do its work: permissions,
// quotas, addresses, parameters, in most cases stock. It makes nothing and needs
// no Token. Before
// there is an image of the source, leave in.ImageID empty: the image that the
// source was made of stands in, and if that is gone, so that the cloud cannot
// say, the error is ErrNotFound.
func (c *Client) DryRunClone(ctx context.Context, in CloneInput) error {
	if in.ImageID == "" && in.Source != nil {
		in.ImageID = in.Source.ImageID
		// Its mappings need not be those of the disks there are now.
		var system []Disk
		for _, d := range in.Disks {
			if d.Type == "system" {
				system = append(system, d)
			}
		}
		in.Disks = system
	}
	n, err := c.prepare(ctx, in)
	if err != nil {
		return err
	}
	if err := c.api.DryRunInstances(ctx, n); err != nil {
		return fmt.Errorf("instance %s could not be created: %w", in.Name, wrap(err))
	}
	return nil
}
