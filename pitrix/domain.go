package pitrix

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
)

// A DomainXML is what counts of a VM's definition, as virsh dumpxml prints it.
type DomainXML struct {
	Name       string
	UUID       string // empty in a template that was never defined
	Interfaces []DomainInterface
	Disks      []DomainDisk
}

// A DomainInterface is one network card. A definition without a MAC has the
// zero one: qemu would give every such VM the same.
type DomainInterface struct {
	MAC    MAC
	Bridge string // on the host
	Target string // the host's side of the card, while it runs
}

// A DomainDisk is one disk or CD drive.
type DomainDisk struct {
	File    string // the image; empty for what is no file
	Format  string // "qcow2", "raw"
	Target  string // "vda"
	Backing string // the image below File, if the definition names it
}

// MACs returns the addresses of the cards that have one.
func (d *DomainXML) MACs() []MAC {
	var out []MAC
	for _, i := range d.Interfaces {
		if i.MAC != (MAC{}) {
			out = append(out, i.MAC)
		}
	}
	return out
}

// ParseDomainXML reads one definition. What it does not know it passes over,
// but the name must be there, exactly one domain, and every MAC valid.
func ParseDomainXML(src []byte) (*DomainXML, error) {
	var doc struct {
		XMLName xml.Name `xml:"domain"`
		Name    string   `xml:"name"`
		UUID    string   `xml:"uuid"`
		Devices struct {
			Interfaces []struct {
				MAC struct {
					Address string `xml:"address,attr"`
				} `xml:"mac"`
				Source struct {
					Bridge string `xml:"bridge,attr"`
				} `xml:"source"`
				Target struct {
					Dev string `xml:"dev,attr"`
				} `xml:"target"`
			} `xml:"interface"`
			Disks []struct {
				Driver struct {
					Type string `xml:"type,attr"`
				} `xml:"driver"`
				Source struct {
					File string `xml:"file,attr"`
				} `xml:"source"`
				Target struct {
					Dev string `xml:"dev,attr"`
				} `xml:"target"`
				Backing struct {
					Source struct {
						File string `xml:"file,attr"`
					} `xml:"source"`
				} `xml:"backingStore"`
			} `xml:"disk"`
		} `xml:"devices"`
	}
	refuse := func(err error) (*DomainXML, error) {
		return nil, fmt.Errorf("cannot read a VM's definition: %w", err)
	}
	dec := xml.NewDecoder(bytes.NewReader(src))
	if err := dec.Decode(&doc); err != nil {
		return refuse(err)
	}
	// A second document would be a second VM that nobody looks at.
	for {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return refuse(err)
		}
		if start, ok := token.(xml.StartElement); ok {
			return refuse(fmt.Errorf("<%s> follows the first domain; give one definition at a time", start.Name.Local))
		}
	}
	if doc.Name == "" {
		return refuse(errors.New("it has no name; is it the output of virsh dumpxml?"))
	}
	d := &DomainXML{Name: doc.Name, UUID: doc.UUID}
	for _, i := range doc.Devices.Interfaces {
		card := DomainInterface{Bridge: i.Source.Bridge, Target: i.Target.Dev}
		if i.MAC.Address != "" {
			m, err := ParseMAC(i.MAC.Address)
			if err != nil {
				return nil, fmt.Errorf("cannot read the definition of %s: %w", d.Name, err)
			}
			card.MAC = m
		}
		d.Interfaces = append(d.Interfaces, card)
	}
	for _, k := range doc.Devices.Disks {
		d.Disks = append(d.Disks, DomainDisk{File: k.Source.File, Format: k.Driver.Type, Target: k.Target.Dev, Backing: k.Backing.Source.File})
	}
	return d, nil
}
