//go:build race

package engine

// raceEnabled thins the crash matrix out: the race detector makes it ten times
// slower, and it runs on one goroutine anyway.
const raceEnabled = true
