package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// worldFile is where the process that serves a world says how to reach it.
const worldFile = "world.json"

// contact is the content of worldFile.
type contact struct {
	PID      int      `json:"pid"`
	URL      string   `json:"url"`
	Token    string   `json:"token"`
	Operator Operator `json:"operator"`
	Secret   string   `json:"secret"` // of the operator; this file is as private as env.sh
}

// reply is an answer of the control server.
type reply[F any] struct {
	Figures F      `json:"figures"`
	Error   string `json:"error,omitempty"`
}

// finishLimit bounds how long Finish waits for requests under way; it is
// longer than any of them may take.
const finishLimit = 20 * time.Second

// Serve runs a world until it is finished through [Remote.Finish], keepFor is
// over (counted from when it is built; 0 = no limit) or ctx ends; then it
// returns nil. It writes the operator's files and world.json (mode 0600,
// written last: who sees it can attach) into dir, and removes world.json when
// it ends.
func Serve(ctx context.Context, dir string, cfg Config, keepFor time.Duration) (err error) {
	w, err := New(ctx, cfg)
	if err != nil {
		return err
	}
	return serve(ctx, dir, w, w.ctx, keepFor)
}

// served is a world that Serve can run; F are its figures.
type served[F any] interface {
	WriteOperatorFiles(dir string) (Operator, error)
	Figures() F
	Finish(ctx context.Context) (F, error)
	Close() error
}

// serve is Serve for every kind of world. Life ends with the world.
func serve[F any](ctx context.Context, dir string, w served[F], life context.Context, keepFor time.Duration) (err error) {
	defer func() { err = errors.Join(err, w.Close()) }()
	if keepFor > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, keepFor)
		defer cancel()
	}
	op, err := w.WriteOperatorFiles(dir)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("cannot listen for the control of the world: %w", err)
	}
	c := contact{PID: os.Getpid(), URL: "http://" + ln.Addr().String(), Token: random(40), Operator: op, Secret: op.AccessKeySecret}
	finished := make(chan struct{})
	srv := &http.Server{Handler: control(w, life, c.Token, finished), ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: 10 * time.Second}
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(ln) })
	defer wg.Wait()
	defer func() { _ = srv.Close() }()
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return fmt.Errorf("internal error: %w", err)
	}
	name := filepath.Join(op.Dir, worldFile)
	if err := writeFile(name, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("cannot say how to reach the world: %w", err)
	}
	defer func() { err = errors.Join(err, os.Remove(name)) }()
	select {
	case <-ctx.Done():
	case <-finished:
		// The answer with the figures is still on its way.
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = srv.Shutdown(last)
	}
	return nil
}

// control answers the requests of [Remote].
func control[F any](w served[F], life context.Context, token string, finished chan<- struct{}) http.Handler {
	answer := func(rw http.ResponseWriter, f F, err error) {
		a := reply[F]{Figures: f}
		if err != nil {
			a.Error = err.Error()
		}
		rw.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(rw).Encode(a)
	}
	var once sync.Once
	mux := http.NewServeMux()
	mux.HandleFunc("GET /figures", func(rw http.ResponseWriter, _ *http.Request) { answer(rw, w.Figures(), nil) })
	mux.HandleFunc("POST /finish", func(rw http.ResponseWriter, _ *http.Request) {
		// A caller that hangs up has still said that the world is to end.
		ctx, cancel := context.WithTimeout(life, finishLimit)
		defer cancel()
		f, err := w.Finish(ctx)
		answer(rw, f, err)
		once.Do(func() { close(finished) })
	})
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+token {
			http.Error(rw, "wrong token", http.StatusForbidden)
			return
		}
		mux.ServeHTTP(rw, r)
	})
}

// ErrNoWorld is returned by [Attach] for a directory that no world serves:
// none was started there, or its time is over.
var ErrNoWorld = errors.New("no simulated world is kept there")

// A Remote is a world that another process serves.
type Remote struct {
	Operator Operator
	PID      int // of the process
	contact  contact
}

// Attach finds the world that serves dir.
func Attach(dir string) (*Remote, error) {
	c, err := readContact(dir)
	if err != nil {
		return nil, err
	}
	return &Remote{Operator: c.Operator, PID: c.PID, contact: c}, nil
}

func readContact(dir string) (contact, error) {
	var c contact
	data, err := os.ReadFile(filepath.Join(dir, worldFile))
	if errors.Is(err, os.ErrNotExist) {
		return c, fmt.Errorf("cannot attach to %s: %w", dir, ErrNoWorld)
	}
	if err != nil {
		return c, fmt.Errorf("cannot attach to %s: %w", dir, err)
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return c, fmt.Errorf("cannot attach to %s: %s: %w", dir, worldFile, err)
	}
	c.Operator.AccessKeySecret = c.Secret
	return c, nil
}

// Figures asks for what the world has counted up to now.
func (r *Remote) Figures(ctx context.Context) (Figures, error) {
	return call[Figures](ctx, r.contact, http.MethodGet, "/figures")
}

// Finish stops the traffic, takes the final figures and ends the process that
// serves the world.
func (r *Remote) Finish(ctx context.Context) (Figures, error) {
	return call[Figures](ctx, r.contact, http.MethodPost, "/finish")
}

func call[F any](ctx context.Context, c contact, method, path string) (F, error) {
	var none F
	fail := func(err error) (F, error) {
		return none, fmt.Errorf("cannot ask the simulated world (process %d): %w", c.PID, err)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.URL+path, bytes.NewReader(nil))
	if err != nil {
		return fail(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.Token)
	tr := &http.Transport{DisableKeepAlives: true}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return fail(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fail(fmt.Errorf("status %s", resp.Status))
	}
	var a reply[F]
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
		return fail(err)
	}
	if a.Error != "" {
		return a.Figures, errors.New(a.Error)
	}
	return a.Figures, nil
}
