package hostinv

import (
	"context"
	"errors"
)

var errSoon = errors.New("being written")

func collect(ctx context.Context, h Host, o Options) (*Inventory, error) { return nil, errSoon }
func readBootID(ctx context.Context, h Host) (string, error)             { return "", errSoon }
func listConnections(ctx context.Context, h Host) ([]Connection, error)  { return nil, errSoon }

// Diff compares two inventories of one host, or of a host and its clone.
func Diff(before, after *Inventory, expect Expect) *Comparison { return nil }

// Losses returns the findings that are critical or high and not expected.
func (c *Comparison) Losses() []Finding { return nil }

// Text renders the comparison for a person.
func (c *Comparison) Text() string { return "" }

// Text renders the inventory for a person.
func (i *Inventory) Text() string { return "" }
