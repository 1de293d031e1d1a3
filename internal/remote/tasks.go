package remote

import "sync"

// tasks counts the goroutines of a connection. Unlike a sync.WaitGroup it may
// be added to while somebody waits: a Run may start while Close runs.
type tasks struct {
	mu   sync.Mutex
	n    int
	zero chan struct{} // of the ones who wait; nil = nobody
}

func (t *tasks) spawn(f func()) {
	t.mu.Lock()
	t.n++
	t.mu.Unlock()
	go func() {
		defer func() {
			t.mu.Lock()
			defer t.mu.Unlock()
			if t.n--; t.n == 0 && t.zero != nil {
				close(t.zero)
				t.zero = nil
			}
		}()
		f()
	}()
}

func (t *tasks) wait() {
	t.mu.Lock()
	if t.n == 0 {
		t.mu.Unlock()
		return
	}
	if t.zero == nil {
		t.zero = make(chan struct{})
	}
	zero := t.zero
	t.mu.Unlock()
	<-zero
}
