// Command app is a service of the lab's hosts: it answers HTTP requests and
// says which host answered. Built without cgo it is also the one file of a
// container image.
//
//	app NAME PORT [HOSTS]   serves; HOSTS is a file in the form of /etc/hosts
//	                        whose last address is the host's (in a container)
//	app --call URL          requests URL, each time on a new connection
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var err error
	switch args := os.Args[1:]; {
	case len(args) == 2 && args[0] == "--call":
		err = call(ctx, args[1])
	case len(args) == 2:
		err = serve(ctx, args[0], args[1], "")
	case len(args) == 3:
		err = serve(ctx, args[0], args[1], args[2])
	default:
		err = errors.New("usage: app NAME PORT [HOSTS] | app --call URL")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "app:", err)
		os.Exit(1)
	}
}

// serve answers until ctx ends: then it ends what is under way, as a
// well-behaved service does.
func serve(ctx context.Context, name, port, hosts string) error {
	ln, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return err
	}
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/stream", stream)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		ip, p := "", 0
		if a, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr); ok {
			ip, p = a.IP.String(), a.Port
		}
		if hosts != "" {
			if ip, err = lastAddress(hosts); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{ // the client may be gone
			"addr": ip, "port": p, "service": name, "kernel": strings.TrimSpace(string(kernel)),
		})
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan error, 1)
	go func() {
		<-ctx.Done()
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		done <- srv.Shutdown(ctx)
	}()
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-done
}

// lastAddress is the address of the last line of a hosts file.
func lastAddress(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	last := ""
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if w := strings.Fields(lines.Text()); len(w) > 1 {
			last = w[0]
		}
	}
	return last, lines.Err()
}

// call sends short requests to url, each on a connection of its own, until ctx
// ends: a monitor, or a program that knows the address of a service by heart.
// Answers do not matter to it.
func call(ctx context.Context, url string) error {
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	tick := time.NewTicker(30 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		if resp, err := c.Do(req); err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
	}
}

// stream writes a line every 100 ms for as many seconds as it was asked for,
// and one that says that it was the last.
func stream(w http.ResponseWriter, r *http.Request) {
	seconds, err := strconv.ParseFloat(r.FormValue("seconds"), 64)
	if err != nil || seconds < 0 || seconds > 60 {
		http.Error(w, "seconds must be a number from 0 to 60", http.StatusBadRequest)
		return
	}
	out := http.NewResponseController(w)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	end := time.NewTimer(time.Duration(seconds * float64(time.Second)))
	defer end.Stop()
	for i := 0; ; i++ {
		fmt.Fprintf(w, "chunk %d\n", i)
		if out.Flush() != nil {
			return
		}
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		case <-end.C:
			fmt.Fprintln(w, "end")
			return
		}
	}
}
