package traffic

import (
	"fmt"
	"math"
	"sync"
	"time"
)

// A Failure is one request that a client counts as failed.
type Failure struct {
	At     time.Time `json:"at"`
	Target string    `json:"target"`
	Kind   string    `json:"kind"` // "new", "keep-alive", "stream"
	Reason string    `json:"reason"`
}

// String is a failure in one line.
func (f Failure) String() string {
	return fmt.Sprintf("%s %s (%s): %s", f.At.Format("15:04:05.000"), f.Target, f.Kind, f.Reason)
}

// A Backend says how often one boot of one host answered on one port: the
// ground truth of who got the traffic, read from the answers themselves.
type Backend struct {
	Addr     string    `json:"addr"`    // host:port inside the world
	BootID   string    `json:"boot_id"` // empty when the answer named none
	Kernel   string    `json:"kernel"`
	Requests int64     `json:"requests"`
	First    time.Time `json:"first"`
	Last     time.Time `json:"last"`
}

// Target counts what one address under load was asked and how it went.
type Target struct {
	Name     string `json:"name"`
	URL      string `json:"url"`
	Requests int64  `json:"requests"`
	Failed   int64  `json:"failed"`
	Streams  int64  `json:"streams"` // of the requests
}

// A Summary is what the clients have counted up to now.
type Summary struct {
	Requests, Failed int64
	P50, P99         time.Duration // of short requests
	Targets          []Target
	Backends         []Backend
	Failures         []Failure // the first maxFailures
	Since            time.Time
	Elapsed          time.Duration
}

// maxFailures bounds the failures that are kept with time and reason; all
// are counted.
const maxFailures = 100

// A histogram counts durations in buckets that grow by 5 %, from 10 µs to
// over ten minutes, so its memory does not depend on the number of requests
// and a percentile is never off by more than one bucket. It is safe for
// concurrent use.
type histogram struct {
	mu     sync.Mutex
	counts [buckets]int64
	n      int64
}

const (
	buckets   = 380
	lowest    = 10 * time.Microsecond
	bucketGap = 1.05
)

func (h *histogram) add(d time.Duration) {
	i := 0
	if d > lowest {
		i = int(math.Ceil(math.Log(float64(d)/float64(lowest)) / math.Log(bucketGap)))
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counts[min(i, buckets-1)]++
	h.n++
}

// quantile is the upper edge of the bucket that holds quantile q of what was
// added; 0 when nothing was.
func (h *histogram) quantile(q float64) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.n == 0 {
		return 0
	}
	rank := int64(math.Ceil(q * float64(h.n)))
	var seen int64
	for i, c := range h.counts {
		if seen += c; seen >= rank {
			return time.Duration(float64(lowest) * math.Pow(bucketGap, float64(i)))
		}
	}
	return time.Duration(float64(lowest) * math.Pow(bucketGap, buckets-1))
}
