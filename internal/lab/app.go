package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Main is for TestMain: where this program was started under the name java,
// it is a service on a host of the lab, or with --call URL a client of one, and
// Main does not return. A host has no JVM; it has this, as /opt/java/bin/java.
func Main() {
	if filepath.Base(os.Args[0]) != "java" {
		return
	}
	run := serve
	if len(os.Args) == 3 && os.Args[1] == "--call" {
		run = call
	}
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "java:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// serve answers HTTP on the port that --server.port=N names, until SIGTERM:
// then it ends what is under way, as a well-behaved service does.
func serve(args []string) error {
	var port, name string
	for i, a := range args {
		if v, ok := strings.CutPrefix(a, "--server.port="); ok {
			port = v
		}
		if a == "-jar" && i+1 < len(args) {
			name = strings.TrimSuffix(args[i+1], ".jar")
		}
	}
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
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{ // the client may be gone
			"addr": ip, "port": p, "service": name, "kernel": strings.TrimSpace(string(kernel)),
		})
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	term, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	done := make(chan error, 1)
	go func() {
		<-term.Done()
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		done <- srv.Shutdown(ctx)
	}()
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-done
}

// call sends short requests to the URL args[1], each on a connection of its
// own, until SIGTERM: a monitor, or a program that knows the address of a
// service by heart. Answers do not matter to it.
func call(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	tick := time.NewTicker(30 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, args[1], nil)
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
