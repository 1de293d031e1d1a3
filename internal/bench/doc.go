// Package bench holds our parser against nginx-go-crossplane on the same file, and
// our inventory against ansible on the same hosts.
// It is a module of its own, so that nobody who imports upgradectl gets the peer
// among their dependencies:
//
//	cd internal/bench && go test -bench . -benchmem
package bench
