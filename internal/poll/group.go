package poll

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// A Group lets many waits share their looks: however many goroutines wait for
// objects of one kind, an interval sees one Look for each Size objects. Set the
// fields before the first Until and leave them alone. It may be used by many
// goroutines. A look is under way only while somebody waits, and the goroutine
// that makes them ends with the last wait.
//
// The first look of a wait comes after a tenth of Interval, at most 100 ms, so
// that waits that begin together share it. The interval of each wait grows from
// Interval to Max as a Poller's does; a look takes along waits that are due soon
// and, while there is room, any others.
type Group[T any] struct {
	Interval  time.Duration // first interval of a wait; 0 means 3 s
	Max       time.Duration // longest; 0 means five times Interval
	Size      int           // objects in one look; 0 means 100
	Retryable func(error) bool
	Tolerate  int // failed looks in a row that a wait bears; 0 means 3
	// Look reads objects; those that do not exist are left out of the map. Its
	// context ends when nobody waits any more; Waiters gives those who wait.
	Look func(ctx context.Context, ids []string) (map[string]T, error)

	mu      sync.Mutex
	waiters map[*waiter[T]]struct{}
	wake    chan struct{} // tells the loop that somebody came; nil: no loop runs
	cancel  context.CancelFunc
}

type waitersKey struct{}

// Waiters returns the contexts of those who wait for a look of a Group, given
// the context of the look; nil if ctx is none.
func Waiters(ctx context.Context) []context.Context {
	list, ok := ctx.Value(waitersKey{}).(func() []context.Context)
	if !ok {
		return nil
	}
	return list()
}

// contexts are those of all who wait now.
func (g *Group[T]) contexts() []context.Context {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := make([]context.Context, 0, len(g.waiters))
	for w := range g.waiters {
		all = append(all, w.ctx)
	}
	return all
}

// A waiter is one Until.
type waiter[T any] struct {
	ctx      context.Context
	ids      []string
	due      time.Time
	interval time.Duration
	news     chan glimpse[T] // holds one; a newer one replaces it
}

// A glimpse is what one look saw of a waiter's objects.
type glimpse[T any] struct {
	seen map[string]T
	err  error
}

func (g *Group[T]) interval() time.Duration {
	if g.Interval > 0 {
		return g.Interval
	}
	return 3 * time.Second
}

// Until waits as Poller.Until does, with looks that are shared. check gets what
// one look saw of ids; objects that are not in it do not exist (yet).
func (g *Group[T]) Until(ctx context.Context, what string, ids []string, check func(seen map[string]T) (state string, done bool, err error)) error {
	start := time.Now()
	last, failed := "", 0
	fail := func(err error) error {
		return &Error{What: what, State: last, After: time.Since(start), Err: err}
	}
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	tolerate := g.Tolerate
	if tolerate <= 0 {
		tolerate = 3
	}
	w := g.join(ctx, ids)
	defer g.leave(w)
	for {
		var news glimpse[T]
		select {
		case <-ctx.Done():
			return fail(ctx.Err())
		case news = <-w.news:
		}
		if news.err != nil {
			failed++
			if g.Retryable == nil || !g.Retryable(news.err) || failed > tolerate {
				return fail(news.err)
			}
			continue
		}
		state, done, err := check(news.seen)
		var s stop
		switch {
		case errors.As(err, &s):
			return s.err
		case err != nil:
			return fail(err)
		case done:
			return nil
		}
		last, failed = state, 0
	}
}

// join adds a waiter and sees to it that a loop runs.
func (g *Group[T]) join(ctx context.Context, ids []string) *waiter[T] {
	w := &waiter[T]{
		ctx: ctx, ids: slices.Clone(ids), interval: g.interval(), news: make(chan glimpse[T], 1),
		due: time.Now().Add(min(g.interval()/10, 100*time.Millisecond)),
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.waiters == nil {
		g.waiters = map[*waiter[T]]struct{}{}
	}
	g.waiters[w] = struct{}{}
	if g.wake == nil {
		ctx, cancel := context.WithCancel(context.WithValue(context.Background(), waitersKey{}, g.contexts))
		g.wake, g.cancel = make(chan struct{}, 1), cancel
		go g.loop(ctx, g.wake)
	} else {
		select {
		case g.wake <- struct{}{}:
		default:
		}
	}
	return w
}

// leave takes a waiter away, and ends the loop with the last one.
func (g *Group[T]) leave(w *waiter[T]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.waiters, w)
	if len(g.waiters) == 0 && g.cancel != nil {
		g.cancel()
		g.wake, g.cancel = nil, nil
	}
}

// loop looks whenever a waiter is due.
func (g *Group[T]) loop(ctx context.Context, wake <-chan struct{}) {
	for {
		next, any := g.next()
		if !any {
			return // leave has cancelled ctx, or is about to
		}
		timer := time.NewTimer(time.Until(next))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-wake:
			timer.Stop()
			continue
		case <-timer.C:
		}
		g.round(ctx)
	}
}

// next is when the first waiter is due.
func (g *Group[T]) next() (first time.Time, any bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for w := range g.waiters {
		if !any || w.due.Before(first) {
			first, any = w.due, true
		}
	}
	return first, any
}

// round looks once for everybody who is due, and tells them.
func (g *Group[T]) round(ctx context.Context) {
	size := g.Size
	if size <= 0 {
		size = 100
	}
	party, ids := g.gather(size)
	seen := map[string]T{}
	errs := map[string]error{}
	for chunk := range slices.Chunk(ids, size) {
		got, err := g.Look(ctx, chunk)
		if ctx.Err() != nil {
			return
		}
		for _, id := range chunk {
			if err != nil {
				errs[id] = err
			} else if v, ok := got[id]; ok {
				seen[id] = v
			}
		}
	}
	longest := g.Max
	if longest <= 0 {
		longest = 5 * g.interval()
	}
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, w := range party {
		news := glimpse[T]{seen: make(map[string]T, len(w.ids))}
		for _, id := range w.ids {
			if err := errs[id]; err != nil {
				news.err = err
			}
			if v, ok := seen[id]; ok {
				news.seen[id] = v
			}
		}
		select {
		case <-w.news: // a slow waiter wants the newest only
		default:
		}
		w.news <- news
		// Processes that were started together must not stay together.
		w.due = now.Add(w.interval - rand.N(w.interval/10+1))
		w.interval = min(w.interval+w.interval/2, longest)
	}
}

// gather picks who is looked for now: those who are due within half of their
// interval, and others while the last look has room for all their objects.
func (g *Group[T]) gather(size int) (party []*waiter[T], ids []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	listed := map[string]bool{}
	add := func(w *waiter[T]) {
		party = append(party, w)
		for _, id := range w.ids {
			if !listed[id] {
				listed[id] = true
				ids = append(ids, id)
			}
		}
	}
	var later []*waiter[T]
	for w := range g.waiters {
		if w.due.After(now.Add(w.interval / 2)) {
			later = append(later, w)
		} else {
			add(w)
		}
	}
	slices.SortFunc(later, func(a, b *waiter[T]) int { return a.due.Compare(b.due) })
	for _, w := range later {
		if room := (size - len(ids)%size) % size; len(w.ids) <= room {
			add(w)
		}
	}
	return party, ids
}
