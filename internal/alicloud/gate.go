package alicloud

import (
	"context"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The cloud counts the calls of one action in one region for the account as a
// whole, mostly by the minute, and refuses what is above the quota without
// carrying it out (Alibaba Cloud, ECS, "API throttling"). Other processes, the
// console and other tools use up the same quota, so what is left for this one
// has to be found out.

const (
	// slowest is the longest mean distance of two calls of an action, in units
	// of Config.Pace: with the default of a second it is a minute, which is how
	// long most quotas count.
	slowest = 60
	// raise is what one unit of slowest without a refusal adds to the pace; the
	// next adds twice as much, and so on. That it goes by time and not by calls
	// makes clients alike in the end, whatever pace they had. The less is raised
	// the less is refused while many share a quota, and the longer it takes to
	// find back when they have gone: TestGateShares and TestGateOpensAgain show
	// both.
	raise = 0.25
	// longHold is how long a call is held back, in units of Config.Pace, before
	// somebody is told; and tellAgain when he is told again if it goes on.
	longHold  = 10
	tellAgain = 10 * slowest
)

// A Held says that flow control holds calls of an action back.
type Held struct {
	Action string    // with its product, as ecs:CreateImage
	Code   string    // of the cloud's last refusal
	Since  time.Time // when the call that waits began to
}

// A gate paces the calls of one action of one client. It is open until the
// cloud refuses a call for its flow control. From then on calls leave one after
// the other, in the order in which they came. A refusal halves the pace, once in
// the time of a quota: those that follow are for the same excess, and double the
// time to the next call only, until one is let through. Calls that are let
// through raise the pace, until the gate is open again.
type gate struct {
	unit time.Duration
	turn chan struct{} // the caller who is next to leave holds its value

	mu     sync.Mutex
	pace   float64   // calls in slowest units; 0: open
	next   time.Time // when the next call may leave
	cut    time.Time // when the pace was halved last
	row    int       // calls refused in a row
	since  time.Time // when the first of them was sent
	code   string    // of the answer to the last of them
	quota  quota     // and what that said besides
	last   time.Time // when a call was refused last
	told   time.Time // when somebody was told that calls are held back; zero: not in this hold
	raised time.Time // up to when the pace was raised
	span   time.Time // begin of the present count
	sent   int       // calls in it
	before int       // and in the one before
}

// gates are those of one client.
type gates struct {
	unit time.Duration
	mu   sync.Mutex
	of   map[string]*gate
}

// gate returns that of an action.
func (s *gates) gate(o op) *gate {
	key := o.product + ":" + o.action
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.of[key]
	if g == nil {
		g = &gate{unit: s.unit, turn: make(chan struct{}, 1)}
		s.of[key] = g
	}
	return g
}

// enter blocks until the caller may send one call, and returns when it left.
func (g *gate) enter(ctx context.Context) (time.Time, error) {
	if err := ctx.Err(); err != nil {
		return time.Time{}, err
	}
	select {
	case g.turn <- struct{}{}:
		defer func() { <-g.turn }()
	case <-ctx.Done():
		return time.Time{}, ctx.Err()
	}
	for {
		now, wait := g.take()
		if wait <= 0 {
			return now, nil
		}
		// A refusal may move the time while somebody sleeps: look again.
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return time.Time{}, ctx.Err()
		}
	}
}

// take lets a call leave now, or says how long it has to wait.
func (g *gate) take() (now time.Time, wait time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now = time.Now()
	if wait = g.next.Sub(now); wait > 0 {
		return now, wait
	}
	if full := slowest * g.unit; now.Sub(g.span) >= full {
		if g.before = g.sent; now.Sub(g.span) >= 2*full {
			g.before = 0
		}
		g.span, g.sent = now, 0
	}
	g.sent++
	if g.pace > 0 {
		g.next = now.Add(g.distance())
	}
	return now, 0
}

// distance is that of the next two calls: the pace's, give or take a half, so
// that processes that were refused together do not come back together.
func (g *gate) distance() time.Duration {
	mean := time.Duration(slowest / g.pace * float64(g.unit))
	return mean/2 + rand.N(mean+1)
}

// refused notes that the call that left at sent was refused by flow control.
func (g *gate) refused(sent time.Time, code string, q quota) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !sent.After(g.last) {
		return // it left with one that was refused before
	}
	now := time.Now()
	if g.row == 0 {
		g.since = sent
	}
	g.last, g.raised, g.code, g.quota = now, now, code, q
	g.row++
	full := slowest * g.unit
	if g.pace == 0 || now.Sub(g.cut) >= full {
		if g.pace == 0 {
			g.pace = max(slowest, float64(g.sent), float64(g.before))
		}
		g.pace = max(g.pace/2, 1)
		g.cut = now
	}
	wait := g.distance()
	for n := 1; n < g.row && wait < full; n++ {
		wait *= 2
	}
	longest := full + rand.N(full/2)
	if code == "ServiceUnavailable" {
		longest = full / 2 // no quota to wait for, and a budget to stay within
	}
	if next := now.Add(q.left + min(wait, longest)); next.After(g.next) {
		g.next = next
	}
}

// passed notes that a call was let through, whatever came of it.
func (g *gate) passed() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.row = 0
	if g.pace == 0 {
		return
	}
	now, full := time.Now(), slowest*g.unit
	clean := min(now.Sub(g.cut)/full, 20)
	g.pace += raise * float64(int(1)<<clean) * min(float64(now.Sub(g.raised))/float64(full), 1)
	if g.raised = now; g.pace >= 10*slowest {
		g.pace, g.next, g.told = 0, time.Time{}, time.Time{}
	}
}

// left is how long it is until the next call may leave.
func (g *gate) left() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return time.Until(g.next)
}

// throttled reports whether calls are being held back because of flow control:
// an outage closes the gate as well.
func (g *gate) throttled() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.pace > 0 && g.code != "ServiceUnavailable"
}

// tell reports whether it is time to say that calls are held back, and why they
// are. A hold lasts until the gate is open again.
func (g *gate) tell() (code string, now bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.pace == 0 || !g.told.IsZero() && time.Since(g.told) < tellAgain*g.unit {
		return "", false
	}
	g.told = time.Now()
	return g.code, true
}

// HeldBack says that flow control lets no call of an action through now, since
// when, and what to do; "" if it does not.
func (c *Client) HeldBack(product, action string) string {
	o := op{product: product, action: action}
	g := c.gates.gate(o)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.row == 0 || g.code == "ServiceUnavailable" {
		return ""
	}
	return g.code + ": " + c.advice(o, g.quota, time.Since(g.since), g.row)
}

// A quota is what an answer says about flow control. Some products send it, in
// headers as "Limit:100,Remain:0,TimeLeft:2000" with the time in milliseconds
// (the SDKs of the second generation read it so).
type quota struct {
	limit int           // calls in the period, of the whole account; 0: not said
	left  time.Duration // to the period's end
}

// readQuota reads the two headers there are: of the action and of the user.
func readQuota(header func(string) string) (q quota) {
	for _, name := range []string{"X-Ratelimit-User-Api", "X-Ratelimit-User"} {
		for pair := range strings.SplitSeq(header(name), ",") {
			key, value, _ := strings.Cut(pair, ":")
			n, err := strconv.Atoi(strings.TrimSpace(value))
			if err != nil || n < 0 {
				continue
			}
			switch strings.TrimSpace(key) {
			case "TimeLeft":
				// No quota counts longer than an hour; what says more is no time.
				if d := time.Duration(n) * time.Millisecond; n < 3_600_000 && d > q.left {
					q.left = d
				}
			case "Limit":
				if q.limit == 0 {
					q.limit = n
				}
			}
		}
	}
	return q
}
