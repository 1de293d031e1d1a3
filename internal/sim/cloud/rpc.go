package cloud

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"time"
)

type obj = map[string]any

// An apiError is an answer other than success.
type apiError struct {
	status        int
	code, message string
	refused       bool // what was asked for does not exist: a fault of the client's code
	denied        obj  // AccessDeniedDetail
}

func (e *apiError) Error() string { return e.code + ": " + e.message }

func fail(status int, code, format string, args ...any) *apiError {
	return &apiError{status: status, code: code, message: fmt.Sprintf(format, args...)}
}

// refuse is fail for requests that a correct client never sends.
func refuse(status int, code, format string, args ...any) *apiError {
	e := fail(status, code, format, args...)
	e.refused = true
	return e
}

// A tokenUse is what one ClientToken of one action was used for.
type tokenUse struct {
	params string
	done   bool
	reply  obj
}

// ServeHTTP answers one request. The RPC APIs are told apart by the Version
// and Action in the request; the host and port that it came to mean nothing,
// so that a client may take the server for a proxy. Parameters may stand in
// the query, in the form, or in both, and with a version 3 signature in a JSON
// body. Requests for /logstores and for hosts below log.aliyuncs.com go to the
// log service.
func (c *Cloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	requestID := fmt.Sprintf("5C1D0000-0000-4000-8000-%012X", c.next())
	closed := c.closed
	c.mu.Unlock()
	if isLog(r) && !closed {
		c.serveSLS(w, r, requestID)
		return
	}
	in := c.read(r)
	env := envelope{requestID: requestID, host: cmp.Or(r.Host, r.URL.Host), xml: xmlAnswer(in.params, in.v3), action: in.params["Action"]}
	if closed {
		env.fail(w, fail(503, "ServiceUnavailable", "The simulated cloud is closed."))
		return
	}
	call, reply, fault, err := c.answer(r, in)
	if c.wait(r.Context(), c.scaled(c.cfg.Latency)); fault != nil {
		c.answerFault(w, r, env, *fault)
		return
	}
	if err != nil {
		if err.refused {
			name := "request"
			if call != nil || in.params["Action"] != "" {
				name = in.params["Action"]
			}
			c.record(fmt.Sprintf("%s: %s: %s", name, err.code, err.message))
		}
		env.fail(w, err)
		return
	}
	reply = maps.Clone(reply)
	if reply == nil {
		reply = obj{}
	}
	reply["RequestId"] = requestID
	env.write(w, 200, reply)
}

// answer does what a request asks for.
func (c *Cloud) answer(r *http.Request, in *request) (*call, obj, *Fault, *apiError) {
	if in.err != nil {
		return nil, nil, nil, in.err
	}
	if err := c.authenticate(r, in); err != nil {
		return nil, nil, nil, err
	}
	call, err := c.parse(in.params)
	if err != nil {
		return nil, nil, nil, err
	}
	if err := c.admitted(call.action); err != nil {
		return call, nil, nil, err
	}
	if fault := c.takeFault(call.action, false); fault != nil {
		return call, nil, fault, nil
	}
	reply, err := c.perform(call)
	if err != nil {
		return call, nil, nil, err
	}
	return call, reply, c.takeFault(call.action, true), nil
}

// wait lets d pass, or less when the client or the cloud does not wait.
func (c *Cloud) wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	case <-c.ctx.Done():
	}
}

// isLog reports whether a request is for the Simple Log Service, which is not
// RPC: its paths and host names tell.
func isLog(r *http.Request) bool {
	host, _, _ := strings.Cut(r.Host, ":")
	return strings.HasSuffix(host, ".log.aliyuncs.com") || strings.HasPrefix(r.URL.Path, "/logstores")
}

// perform carries an action out, once for each ClientToken.
func (c *Cloud) perform(call *call) (obj, *apiError) {
	reply, err := c.once(call, func() (obj, *apiError) { return call.action.do(c, call) })
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.counts[call.action.key()]++
	c.mu.Unlock()
	return reply, nil
}

// once runs f unless the call's ClientToken was used before: the same
// parameters then get the same answer, others an error. An attempt that failed
// leaves the token unused.
func (c *Cloud) once(call *call, f func() (obj, *apiError)) (obj, *apiError) {
	token := call.str("ClientToken")
	if token == "" || call.is("DryRun") {
		return f()
	}
	if len(token) > 64 || strings.ContainsFunc(token, func(r rune) bool { return r < 0x20 || r > 0x7e }) {
		return nil, refuse(400, "InvalidClientToken.ValueNotSupported", "The ClientToken is longer than 64 characters or not ASCII.")
	}
	params := call.fingerprint()
	key := call.action.key() + "\x00" + token
	c.mu.Lock()
	if use := c.tokens[key]; use != nil {
		defer c.mu.Unlock()
		switch {
		case use.params != params && call.action.name == "CreateImage":
			return nil, fail(400, "IdempotenceParamNotMatch", "The request uses the ClientToken of an earlier request with other parameters.")
		case use.params != params:
			return nil, fail(403, "IdempotentParameterMismatch", "The request uses the ClientToken of an earlier request with other parameters.")
		case !use.done:
			return nil, fail(403, "IdempotentProcessing", "The previous request with this ClientToken is still processing.")
		}
		return use.reply, nil
	}
	use := &tokenUse{params: params}
	c.tokens[key] = use
	c.mu.Unlock()

	reply, err := f()

	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		delete(c.tokens, key)
		return nil, err
	}
	use.done, use.reply = true, reply
	return reply, nil
}

// maxRefused is how many refusals are remembered.
const maxRefused = 1000

// record remembers something that was refused.
func (c *Cloud) record(line string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.refused) < maxRefused {
		c.refused = append(c.refused, line)
	}
}

func writeJSON(w http.ResponseWriter, requestID string, status int, v any) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic("internal error: an answer that is not JSON: " + err.Error())
	}
	w.Header().Set("Content-Type", "application/json;charset=utf-8")
	w.Header().Set("X-Acs-Request-Id", requestID)
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes())
}

// transport serves requests in process.
type transport struct{ cloud *Cloud }

// RoundTrip implements http.RoundTripper.
func (t transport) RoundTrip(r *http.Request) (_ *http.Response, err error) {
	if r.Body != nil {
		defer r.Body.Close()
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	in := r.Clone(r.Context())
	in.RequestURI = r.URL.RequestURI()
	if in.Host == "" {
		in.Host = r.URL.Host
	}
	a := &answer{header: http.Header{}}
	defer func() {
		if p := recover(); p != nil {
			if p != http.ErrAbortHandler {
				panic(p)
			}
			err = io.ErrUnexpectedEOF // what a client sees of a connection that ends
		}
	}()
	t.cloud.ServeHTTP(a, in)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return &http.Response{
		Status:        fmt.Sprintf("%d %s", a.status, http.StatusText(a.status)),
		StatusCode:    a.status,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        a.header,
		Body:          io.NopCloser(bytes.NewReader(a.body.Bytes())),
		ContentLength: int64(a.body.Len()),
		Request:       r,
	}, nil
}

// answer collects what a handler writes.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(200)
	return a.body.Write(p)
}
