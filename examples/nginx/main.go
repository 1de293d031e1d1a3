// Command nginx shows what refers to an address in a copy of a host's nginx
// configuration, and what taking the address out would change. It writes
// nothing.
//
//	go run ./examples/nginx examples/nginx/testdata 172.31.0.90
package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/upgradectl/upgradectl/nginx"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: nginx DIRECTORY ADDRESS")
		os.Exit(2)
	}
	if err := show(context.Background(), os.Stdout, os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// show reads the configuration below root, where /etc/nginx/nginx.conf is
// root/etc/nginx/nginx.conf, so that absolute includes are found as well.
func show(ctx context.Context, w io.Writer, root, address string) error {
	tree, err := nginx.Load(ctx, nginx.DirFS(root), "/etc/nginx/nginx.conf")
	if err != nil {
		return err
	}
	query := nginx.Query{Host: address}
	for _, ref := range tree.Refs(query) {
		fmt.Fprintf(w, "%s:%d:%d: %s %s in %s %v\n", ref.File, ref.Line, ref.Col, ref.Kind, ref.Addr, ref.Context, ref.State)
	}
	change, err := tree.Disable(query, "example")
	if err != nil {
		return err
	}
	for _, warning := range change.Warnings {
		fmt.Fprintln(w, "warning:", warning)
	}
	fmt.Fprint(w, change.Diff())
	return nil
}
