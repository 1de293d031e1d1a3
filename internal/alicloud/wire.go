package alicloud

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"
)

// maxAnswer bounds what is read of one answer; pages have at most 100 objects.
const maxAnswer = 32 << 20

// errAnswered tells the SDK to give up: the answer is no success, and this
// package reads it better than the SDK would.
var errAnswered = errors.New("answered")

// A wire is the RoundTripper of one attempt. It binds the request to the
// context, which the SDK does not know about, and keeps what came back. Being a
// type of our own it also keeps the SDK's hands off the shared *http.Transport.
type wire struct {
	ctx   context.Context
	next  http.RoundTripper
	plain bool // plain HTTP is meant

	answered  bool // a whole answer arrived
	status    int
	date      time.Time
	code      string
	message   string
	requestID string
	denied    denial
	quota     quota
	host      string // that was asked
	err       error  // of the transport
}

// A denial is what the cloud says about a refusal of its access control. The
// rest of it is an encoded dump of the request and no business of a message.
type denial struct{ AuthAction, NoPermissionType string }

// RoundTrip implements http.RoundTripper.
func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !w.plain {
		w.err = errors.New("internal error: refusing to send a request in clear")
		return nil, w.err
	}
	w.host = r.URL.Host
	resp, err := w.next.RoundTrip(r.WithContext(w.ctx))
	if err != nil {
		w.err = err
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	resp.Body.Close()
	if err != nil {
		w.err = err
		return nil, err
	}
	w.answered, w.status = true, resp.StatusCode
	w.date, _ = http.ParseTime(resp.Header.Get("Date"))
	w.quota = readQuota(resp.Header.Get)

	// The members are read one by one: a code that is a number must not keep us
	// from the request ID.
	var envelope map[string]json.RawMessage
	bad := len(body) > maxAnswer || json.Unmarshal(body, &envelope) != nil || len(envelope) == 0
	w.code, w.message, w.requestID = text(envelope["Code"]), text(envelope["Message"]), text(envelope["RequestId"])
	_ = json.Unmarshal(envelope["AccessDeniedDetail"], &w.denied) // not all have it, and some have a text there
	switch {
	case resp.StatusCode/100 == 2 && !bad:
		resp.Body = io.NopCloser(bytes.NewReader(body))
		return resp, nil
	case resp.StatusCode/100 == 2 || bad || w.code == "":
		w.code = CodeBadAnswer
		if w.message == "" {
			w.message = describe(resp, body)
		}
	}
	// Also for 3xx: following a redirect would hand a signed request to somebody
	// else.
	return nil, errAnswered
}

// describe says what an answer is that is none.
func describe(resp *http.Response, body []byte) string {
	what := "an answer that is not JSON"
	trimmed := bytes.TrimSpace(body)
	switch {
	case resp.StatusCode/100 == 3:
		what = "a redirect, which is not followed"
	case len(trimmed) == 0:
		what = "an empty answer"
	case trimmed[0] == '<':
		what = "an HTML page; is there a proxy in between?"
	case trimmed[0] == '{':
		what = "an answer without a code"
	}
	return "HTTP status " + resp.Status + " with " + what
}

// text is a JSON string, number or bool as text.
func text(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	if len(raw) > 0 && raw[0] != '{' && raw[0] != '[' && string(raw) != "null" {
		return string(raw)
	}
	return ""
}
