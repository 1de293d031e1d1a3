package hostinv

import (
	"encoding/json"
	"fmt"
)

// ParseInventory reads an inventory from its JSON. Schema 2 is taken as it is.
// Of schema 1, which had fewer sections, what it has is kept and every other
// section is marked as not collected: a comparison then calls it unknown.
// Anything else is an error.
func ParseInventory(data []byte) (*Inventory, error) {
	var head struct {
		Schema   int                        `json:"schema"`
		Sections map[string]json.RawMessage `json:"sections"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, fmt.Errorf("this is no inventory: %w", err)
	}
	if head.Schema != schema && head.Schema != 1 || head.Sections == nil {
		return nil, fmt.Errorf("this is not an inventory that this version reads: its schema is %d, not 1 or %d", head.Schema, schema)
	}
	docker := ""
	if head.Schema == 1 {
		var err error
		if data, docker, err = fromSchema1(data); err != nil {
			return nil, err
		}
	}
	var inv Inventory
	if err := json.Unmarshal(data, &inv); err != nil {
		return nil, fmt.Errorf("this is no inventory: %w", err)
	}
	inv.Schema = schema
	if docker != "" {
		inv.Docker.Version = docker
	}
	for _, name := range SectionNames() {
		if _, ok := inv.Sections[name]; !ok {
			inv.Sections[name] = Section{Status: StatusError, Message: fmt.Sprintf("not collected: the inventory has schema %d", head.Schema)}
		}
	}
	for name, s := range inv.Sections {
		if !s.Status.valid() {
			return nil, fmt.Errorf("this is no inventory: section %q has the status %q", name, s.Status)
		}
	}
	inv.fillEmpty()
	return &inv, nil
}

func (s Status) valid() bool {
	switch s {
	case StatusOK, StatusPartial, StatusDenied, StatusAbsent, StatusTimeout, StatusTruncated, StatusError:
		return true
	}
	return false
}

// fromSchema1 takes out docker, which was the version alone.
func fromSchema1(data []byte) (rest []byte, docker string, err error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return nil, "", fmt.Errorf("this is no inventory: %w", err)
	}
	if v, ok := fields["docker"]; ok {
		if err := json.Unmarshal(v, &docker); err != nil {
			return nil, "", fmt.Errorf("this is no inventory of schema 1: docker: %w", err)
		}
		delete(fields, "docker")
	}
	rest, err = json.Marshal(fields)
	return rest, docker, err
}
