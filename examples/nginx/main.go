// Command nginx shows what refers to an address in a copy of a host's nginx
// configuration, and what taking the address out, or moving its traffic to
// another host, would change. It writes nothing.
//
//	go run ./examples/nginx examples/nginx/testdata 172.31.0.90
//	go run ./examples/nginx examples/nginx/testdata 172.31.0.90 172.31.0.101
package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/upgradectl/upgradectl/nginx"
)

func main() {
	if len(os.Args) < 3 || len(os.Args) > 4 {
		fmt.Fprintln(os.Stderr, "usage: nginx DIRECTORY ADDRESS [NEWHOST]")
		os.Exit(2)
	}
	to := ""
	if len(os.Args) == 4 {
		to = os.Args[3]
	}
	if err := show(context.Background(), os.Stdout, os.Args[1], os.Args[2], to); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// show reads the configuration below root, where /etc/nginx/nginx.conf is
// root/etc/nginx/nginx.conf, so that absolute includes are found as well.
func show(ctx context.Context, w io.Writer, root, address, to string) error {
	tree, err := nginx.Load(ctx, nginx.DirFS(root), "/etc/nginx/nginx.conf")
	if err != nil {
		return err
	}
	query := nginx.Query{Host: address}
	for _, ref := range tree.Refs(query) {
		fmt.Fprintf(w, "%s:%d:%d: %s %s in %s %v\n", ref.File, ref.Line, ref.Col, ref.Kind, ref.Addr, ref.Context, ref.State)
	}
	change, err := edit(tree, query, to)
	if err != nil {
		return err // a *nginx.RefusedError names each place that stands against it
	}
	for _, warning := range change.Warnings {
		fmt.Fprintln(w, "warning:", warning)
	}
	fmt.Fprint(w, change.Diff())
	return nil
}

func edit(tree *nginx.Tree, query nginx.Query, to string) (*nginx.Change, error) {
	if to == "" {
		return tree.Disable(query, "example")
	}
	return tree.Shift(query, to, "example")
}
