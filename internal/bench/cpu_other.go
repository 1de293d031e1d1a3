//go:build !unix

package bench

import "time"

// cpuTime falls back to the time on the wall.
func cpuTime() time.Duration { return time.Duration(time.Now().UnixNano()) }
