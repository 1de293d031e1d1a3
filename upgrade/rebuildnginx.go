package upgrade

import (
	"context"
	"fmt"
	"iter"
	"path"
	"slices"
	"strings"

	"github.com/upgradectl/upgradectl/nginx"
)

// What nginx makes of its files: package nginx reads them, includes resolved.

const nginxConf = "/etc/nginx/nginx.conf"

// readNginx gives the directives, each with the blocks it stands in; a server
// is known by what it listens on and is called. Where the order of directives
// decides, it is a line of its own.
func readNginx(ctx context.Context, l *link) ([]string, error) {
	t, err := nginx.Load(ctx, l, nginxConf)
	if err != nil {
		return nil, fmt.Errorf("cannot read the configuration of nginx: %w", err)
	}
	return nginxLines(t), nil
}

// ordered are the directives whose order among each other decides.
var ordered = []string{"if", "rewrite", "return", "break", "set"}

func nginxLines(t *nginx.Tree) []string {
	var out []string
	var walk func(place string, ds iter.Seq[nginx.Directive])
	walk = func(place string, ds iter.Seq[nginx.Directive]) {
		var order []string
		for d := range expanded(t, ds) {
			words := append([]string{d.Name()}, d.Args()...)
			head := strings.Join(words, " ")
			if d.Name() == "server" && d.IsBlock() {
				head += serverName(t, d)
			}
			if slices.Contains(ordered, d.Name()) || d.Name() == "location" && len(d.Args()) == 2 && strings.HasPrefix(d.Arg(1), "~") {
				order = append(order, head)
			}
			out = append(out, place+head)
			switch {
			case d.IsLua():
				body := d.Body()
				out = append(out, place+head+" > "+strings.Join(strings.Fields(string(d.File().Bytes()[body.Start:body.End])), " "))
			case d.IsBlock():
				walk(place+head+" > ", d.Children())
			}
		}
		if len(order) > 1 {
			out = append(out, place+"in this order: "+strings.Join(order, ", "))
		}
	}
	walk("", t.Main().Directives())
	return out
}

// expanded yields directives with those of included files in the place of the
// include.
func expanded(t *nginx.Tree, ds iter.Seq[nginx.Directive]) iter.Seq[nginx.Directive] {
	return func(yield func(nginx.Directive) bool) {
		for d := range ds {
			if d.Name() != "include" {
				if !yield(d) {
					return
				}
				continue
			}
			for _, f := range t.Included(d) {
				for in := range expanded(t, f.Directives()) {
					if !yield(in) {
						return
					}
				}
			}
		}
	}
}

// serverName is what tells a server from others.
func serverName(t *nginx.Tree, server nginx.Directive) string {
	var listens, names []string
	for d := range expanded(t, server.Children()) {
		switch d.Name() {
		case "listen":
			listens = append(listens, "listen "+strings.Join(d.Args(), " "))
		case "server_name":
			names = append(names, d.Args()...)
		}
	}
	slices.Sort(listens)
	slices.Sort(names)
	out := strings.Join(listens, " ")
	if len(names) > 0 {
		out += " server_name " + strings.Join(names, " ")
	}
	if out == "" {
		return ""
	}
	return " (" + strings.TrimSpace(out) + ")"
}

// namesFile are directives whose first word is a file that nginx reads.
var namesFile = []string{"ssl_certificate", "ssl_certificate_key", "ssl_client_certificate", "ssl_trusted_certificate", "ssl_dhparam", "ssl_crl", "ssl_password_file", "auth_basic_user_file"}

// nginxBesides are the files that the configuration includes or names.
func nginxBesides(ctx context.Context, l *link) ([]string, error) {
	t, err := nginx.Load(ctx, l, nginxConf)
	if err != nil {
		return nil, fmt.Errorf("cannot read the configuration of nginx: %w", err)
	}
	return nginxFiles(t), nil
}

func nginxFiles(t *nginx.Tree) []string {
	var out []string
	for _, f := range t.Files() {
		out = append(out, f.Name())
		for d := range f.All() {
			if !slices.Contains(namesFile, d.Name()) || len(d.Args()) == 0 || strings.Contains(d.Arg(1), "$") {
				continue
			}
			name := d.Arg(1)
			if !path.IsAbs(name) {
				name = path.Join(path.Dir(nginxConf), name)
			}
			out = append(out, name)
		}
	}
	return out
}
