package cloud

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1" // version 1.0 of the signature is defined with it
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// maxSkew is how far a request's Timestamp may be from our clock.
const maxSkew = 15 * time.Minute

// maxBody bounds the form of a POST; the cloud's own limit on user data makes
// longer requests impossible.
const maxBody = 1 << 20

type obj = map[string]any

// An apiError is an answer other than success.
type apiError struct {
	status        int
	code, message string
	refused       bool // what was asked for does not exist: a fault of the client's code
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

// ServeHTTP answers one request of the RPC APIs ECS (2014-05-26) and SLB
// (2014-05-15), chosen by the Version and Action in the request; the host and
// port that it came to mean nothing. Parameters may stand in the query, in the
// form, or in both.
func (c *Cloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	requestID := fmt.Sprintf("5C1D0000-0000-4000-8000-%012X", c.next())
	closed := c.closed
	c.mu.Unlock()
	if closed {
		writeError(w, r, requestID, fail(503, "ServiceUnavailable", "The simulated cloud is closed."))
		return
	}

	params, err := parameters(r)
	name := "request"
	if err == nil {
		name = params["Action"]
		err = c.authenticate(r.Method, params)
	}
	var call *call
	if err == nil {
		call, err = c.parse(params)
	}
	var reply obj
	var fault *Fault
	if err == nil {
		fault = c.takeFault(call.action.name, false)
		if fault == nil {
			reply, err = c.perform(call)
			if err == nil {
				fault = c.takeFault(call.action.name, true)
			}
		}
	}
	if fault != nil {
		c.answerFault(w, r, requestID, *fault)
		return
	}
	if err != nil {
		if err.refused {
			c.record(fmt.Sprintf("%s: %s: %s", name, err.code, err.message))
		}
		writeError(w, r, requestID, err)
		return
	}
	reply = maps.Clone(reply)
	if reply == nil {
		reply = obj{}
	}
	reply["RequestId"] = requestID
	writeJSON(w, requestID, 200, reply)
}

// perform carries an action out, once for each ClientToken.
func (c *Cloud) perform(call *call) (obj, *apiError) {
	reply, err := c.once(call, func() (obj, *apiError) { return call.action.do(c, call) })
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.counts[call.action.name]++
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
	key := call.action.name + "\x00" + token
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

// parameters merges query and form.
func parameters(r *http.Request) (map[string]string, *apiError) {
	if r.Method != http.MethodGet && r.Method != http.MethodPost {
		return nil, refuse(403, "UnsupportedHTTPMethod", "The method %s is not supported: GET or POST.", r.Method)
	}
	if r.URL.Path != "/" && r.URL.Path != "" {
		return nil, refuse(404, "InvalidAction.NotFound", "RPC requests go to /, not to %s.", r.URL.Path)
	}
	if strings.HasPrefix(r.Header.Get("Authorization"), "ACS3-") {
		return nil, refuse(400, "IncompleteSignature", "Version 3 signatures are not simulated: sign with HMAC-SHA1, SignatureVersion 1.0.")
	}
	params := map[string]string{}
	add := func(where, encoded string) *apiError {
		values, err := url.ParseQuery(encoded)
		if err != nil {
			return refuse(400, "InvalidParameter", "The %s cannot be parsed: %v", where, err)
		}
		for k, v := range values {
			if _, twice := params[k]; twice || len(v) > 1 {
				return refuse(400, "InvalidParameter", "The parameter %s is given more than once.", k)
			}
			params[k] = v[0]
		}
		return nil
	}
	if err := add("query", r.URL.RawQuery); err != nil {
		return nil, err
	}
	if r.Method == http.MethodPost && r.Body != nil {
		body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
		switch {
		case err != nil:
			return nil, fail(400, "InvalidParameter", "The body cannot be read.")
		case len(body) > maxBody:
			return nil, refuse(413, "InvalidParameter", "The body is longer than %d bytes.", maxBody)
		case len(body) > 0:
			if ct, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); !strings.EqualFold(strings.TrimSpace(ct), "application/x-www-form-urlencoded") {
				return nil, refuse(415, "InvalidParameter", "The body is %q, not application/x-www-form-urlencoded.", ct)
			}
			if err := add("form", string(body)); err != nil {
				return nil, err
			}
		}
	}
	return params, nil
}

// authenticate checks who signed the request, when, and that it is new. What
// it says about a wrong signature never holds the secret.
func (c *Cloud) authenticate(method string, p map[string]string) *apiError {
	for _, name := range []string{"AccessKeyId", "Signature", "SignatureMethod", "SignatureVersion", "SignatureNonce", "Timestamp"} {
		if p[name] == "" {
			return refuse(400, "IncompleteSignature", "The request has no %s.", name)
		}
	}
	if p["SignatureMethod"] != "HMAC-SHA1" || p["SignatureVersion"] != "1.0" || p["SignatureType"] != "" {
		return refuse(400, "IncompleteSignature", "Only SignatureMethod HMAC-SHA1 with SignatureVersion 1.0 and no SignatureType is simulated.")
	}
	if p["AccessKeyId"] != c.cfg.AccessKeyID {
		return fail(404, "InvalidAccessKeyId.NotFound", "Specified access key is not found.")
	}
	if p["SecurityToken"] != c.cfg.SecurityToken {
		return refuse(400, "InvalidSecurityToken.MismatchWithAccessKey", "The security token does not belong to the access key.")
	}
	want := signature(method, p, c.cfg.AccessKeySecret)
	if subtle.ConstantTimeCompare([]byte(want), []byte(p["Signature"])) != 1 {
		return fail(400, "SignatureDoesNotMatch", "Specified signature is not matched with our calculation. server string to sign is:%s", redacted(stringToSign(method, p)))
	}
	stamp, err := time.Parse("2006-01-02T15:04:05Z", p["Timestamp"])
	if err != nil {
		return refuse(400, "InvalidTimeStamp.Format", "Specified time stamp or date value is not well formatted.")
	}
	now := time.Now()
	if skew := now.Sub(stamp); skew > maxSkew || skew < -maxSkew {
		return refuse(400, "InvalidTimeStamp.Expired", "Specified time stamp or date value is expired.")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// A nonce may be forgotten when every timestamp it can stand beside is too old.
	if now.Sub(c.noncesSwept) > time.Minute {
		maps.DeleteFunc(c.nonces, func(_ string, seen time.Time) bool { return now.Sub(seen) > 2*maxSkew })
		c.noncesSwept = now
	}
	if _, used := c.nonces[p["SignatureNonce"]]; used {
		return refuse(400, "SignatureNonceUsed", "Specified signature nonce was used already.")
	}
	c.nonces[p["SignatureNonce"]] = now
	return nil
}

// redacted cuts what follows the business parameters out of a string to sign:
// passwords and user data stand in there.
func redacted(s string) string {
	const shown = 60
	if len(s) > shown {
		return s[:shown] + "..."
	}
	return s
}

func signature(method string, params map[string]string, secret string) string {
	mac := hmac.New(sha1.New, []byte(secret+"&"))
	mac.Write([]byte(stringToSign(method, params)))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// stringToSign is made of all parameters but Signature, empty ones included.
func stringToSign(method string, params map[string]string) string {
	pairs := make([]string, 0, len(params))
	for _, k := range slices.Sorted(maps.Keys(params)) {
		if k != "Signature" {
			pairs = append(pairs, percent(k)+"="+percent(params[k]))
		}
	}
	return method + "&%2F&" + percent(strings.Join(pairs, "&"))
}

// percent encodes every byte but the unreserved ones of RFC 3986.
func percent(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		ch := s[i]
		switch {
		case 'a' <= ch && ch <= 'z', 'A' <= ch && ch <= 'Z', '0' <= ch && ch <= '9', strings.IndexByte("-_.~", ch) >= 0:
			b.WriteByte(ch)
		default:
			b.WriteByte('%')
			b.WriteByte(hex[ch>>4])
			b.WriteByte(hex[ch&15])
		}
	}
	return b.String()
}

// record remembers something that was refused.
func (c *Cloud) record(line string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused = append(c.refused, line)
}

func writeError(w http.ResponseWriter, r *http.Request, requestID string, e *apiError) {
	host := r.Host
	if host == "" {
		host = r.URL.Host
	}
	writeJSON(w, requestID, e.status, obj{
		"RequestId": requestID,
		"HostId":    host,
		"Code":      e.code,
		"Message":   e.message,
		"Recommend": "https://api.aliyun.com/troubleshoot?q=" + url.QueryEscape(e.code),
	})
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
