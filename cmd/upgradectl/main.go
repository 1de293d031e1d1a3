package main

import (
	"context"
	"os"
)

func main() { os.Exit(run()) }

// run is main with an exit status: test scripts call it too.
func run() int {
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr, lang: language(os.Args[1:], os.Getenv)}
	ctx, stop := a.signals(context.Background())
	defer stop()
	return a.main(ctx, os.Args[1:])
}
