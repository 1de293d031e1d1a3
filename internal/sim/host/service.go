package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// drainLimit is how long a process that was asked to end waits for the
// requests it serves. It is in real time: the requests are real.
const drainLimit = 10 * time.Second

// service is a listening TCP port of the host, served on a loopback port of
// this machine.
type service struct {
	port  int
	inode int
	p     *process
	ln    net.Listener
	srv   *http.Server
}

// listen opens a port for a process.
func (h *Host) listen(p *process, port int, handler http.Handler) error {
	ln, err := h.o.Listen()
	if err != nil {
		return fmt.Errorf("cannot listen for port %d of %s: %w", port, h.Name(), err)
	}
	s := &service{port: port, p: p, ln: ln, srv: &http.Server{Handler: handler, ReadHeaderTimeout: 30 * time.Second}}
	h.mu.Lock()
	if old := h.services[port]; old != nil || p.gone || p.boot.over || port == 22 {
		h.mu.Unlock()
		ln.Close()
		if old == nil && port != 22 {
			return fmt.Errorf("cannot listen on port %d of %s: the process is ending", port, h.Name())
		}
		return fmt.Errorf("cannot listen on port %d of %s: address already in use", port, h.Name())
	}
	h.lastInode++
	s.inode = h.lastInode
	h.services[port] = s
	p.service = append(p.service, s)
	p.boot.wg.Add(1)
	h.mu.Unlock()
	go func() {
		defer p.boot.wg.Done()
		_ = s.srv.Serve(ln) // always the error of closing it
	}()
	h.changed()
	return nil
}

// shutdown stops accepting and waits for open requests up to drainLimit.
func (s *service) shutdown() {
	ctx, cancel := context.WithTimeout(s.p.ctx, drainLimit)
	defer cancel()
	if s.srv.Shutdown(ctx) != nil {
		s.srv.Close()
	}
}

// cut closes the listener and every connection.
func (s *service) cut() { s.srv.Close() }

// Endpoint returns the loopback address on which the service of a port really
// listens. ok is false when nothing listens there: connection refused.
//
// Unless a program brought its own handler, the application behind it answers
// GET of any path with JSON {host, addr, port, service, kernel}, GET
// /stream?seconds=S with a line every 100 ms for S seconds, GET /health with
// 200, and everything with 503 until it is warmed up.
func (h *Host) Endpoint(port int) (addr string, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.services[port]
	if s == nil {
		return "", false
	}
	return s.ln.Addr().String(), true
}

// Listening returns the TCP ports that services listen on, sorted; sshd's
// port 22 is not among them.
func (h *Host) Listening() []int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Sorted(maps.Keys(h.services))
}

// FailEvery makes the built-in application behind a port answer every n-th
// request with 500, as one does whose configuration is half wrong; 0 ends it.
func (h *Host) FailEvery(port, n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failing == nil {
		h.failing = map[int]*failing{}
	}
	h.failing[port] = &failing{every: n}
}

type failing struct{ every, seen int }

func (h *Host) fails(port int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := h.failing[port]
	if f == nil || f.every == 0 {
		return false
	}
	f.seen++
	return f.seen%f.every == 0
}

// app is the built-in application.
func (h *Host) app(name string, port int, warm time.Duration) http.Handler {
	ready := time.Now().Add(warm)
	mux := http.NewServeMux()
	mux.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		seconds, err := strconv.ParseFloat(r.FormValue("seconds"), 64)
		if err != nil || seconds < 0 || seconds > 3600 {
			http.Error(w, "seconds must be a number from 0 to 3600", http.StatusBadRequest)
			return
		}
		stream(r.Context(), w, time.Duration(seconds*float64(time.Second)))
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{
			"host": h.Name(), "addr": h.Addr(), "port": port, "service": name, "kernel": h.Kernel(),
		}) // the client may be gone
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h.fails(port) {
			http.Error(w, "out of order", http.StatusInternalServerError)
			return
		}
		if time.Now().Before(ready) {
			http.Error(w, "starting", http.StatusServiceUnavailable)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// stream writes a line every 100 ms for d, and a last one.
func stream(ctx context.Context, w http.ResponseWriter, d time.Duration) {
	w.Header().Set("Content-Type", "text/plain")
	out := http.NewResponseController(w)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	end := time.NewTimer(d)
	defer end.Stop()
	for i := 0; ; i++ {
		fmt.Fprintf(w, "chunk %d\n", i)
		if err := out.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return
		}
		select {
		case <-tick.C:
		case <-end.C:
			fmt.Fprintln(w, "end")
			return
		case <-ctx.Done():
			return
		}
	}
}

// tracked is a connection in the kernel's table.
type tracked struct {
	conn    Conn
	inode   int
	nat     bool      // translated on its way into a container: not in the host's own table
	expires time.Time // not zero: TIME_WAIT until then
}

// Track enters an established connection into the kernel's table, which
// /proc/net/tcp shows; done moves it to TIME_WAIT for 60 s of the world. A
// reboot empties the table.
func (h *Host) Track(c Conn) (done func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.expireConns()
	h.lastInode++
	t := &tracked{conn: c, inode: h.lastInode}
	if s := h.services[c.LocalPort]; s != nil && c.LocalIP == h.Addr() {
		t.nat = s.p.comm() == "docker-proxy"
	}
	h.conns[t] = struct{}{}
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if t.expires.IsZero() {
			t.expires = time.Now().Add(h.scale(60 * time.Second))
		}
	}
}

// expireConns forgets connections whose TIME_WAIT is over. Host.mu is held.
func (h *Host) expireConns() {
	now := time.Now()
	for t := range h.conns {
		if !t.expires.IsZero() && now.After(t.expires) {
			delete(h.conns, t)
		}
	}
}
