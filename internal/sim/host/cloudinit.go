package host

import (
	"bytes"
	"io"

	yaml "go.yaml.in/yaml/v4"
)

// cloudInit runs the bootcmd of the user data, as cloud-init does at each boot:
// beside the units that start, and here after them, so that what user data is
// to hold back has run by then once.
func (h *Host) cloudInit(b *boot) {
	data := h.spec.UserData
	if len(data) == 0 {
		return
	}
	if !bytes.HasPrefix(data, []byte("#cloud-config\n")) {
		h.refuse("user data", "is no #cloud-config")
		return
	}
	var config struct {
		Bootcmd []yaml.Node `yaml:"bootcmd"`
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&config); err != nil {
		h.refuse("user data", err.Error())
		return
	}
	for _, n := range config.Bootcmd {
		var args []string
		if n.Kind == yaml.ScalarNode { // a string is for the shell, a list is not
			args = []string{"/bin/sh", "-c", n.Value}
		} else if err := n.Decode(&args); err != nil || len(args) == 0 {
			h.refuse("user data", "a bootcmd that is neither a string nor a list of strings")
			return
		}
		p := h.fork(b, b.ctx, &process{args: args, unit: "cloud-init-local.service"})
		q := h.rootProc(p, args, io.Discard)
		p.end(p.statusAfter(h.execute(p.ctx, q, args)))
	}
}
