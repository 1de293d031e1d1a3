package cloud

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1" // version 1.0 of the signature is defined with it
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxSkew is how far a request's time may be from our clock.
const maxSkew = 15 * time.Minute

// maxBody bounds the body of a request; the cloud's own limit on user data
// makes longer ones impossible.
const maxBody = 1 << 20

// algorithm3 is the signature of version 3 that is simulated.
const algorithm3 = "ACS3-HMAC-SHA256"

// A request is what came over the wire, its parameters merged.
type request struct {
	params map[string]string // with Action and Version, wherever they stood
	body   []byte
	v3     bool      // signed in the Authorization header
	err    *apiError // why it cannot be read
}

// read merges the parameters of query, form and JSON body.
func (c *Cloud) read(r *http.Request) *request {
	in := &request{params: map[string]string{}, v3: r.Header.Get("Authorization") != ""}
	in.err = in.merge(r)
	return in
}

func (in *request) merge(r *http.Request) *apiError {
	if r.Method != http.MethodGet && r.Method != http.MethodPost {
		return refuse(403, "UnsupportedHTTPMethod", "The method %s is not supported: GET or POST.", r.Method)
	}
	if r.URL.Path != "/" && r.URL.Path != "" {
		return refuse(404, "InvalidAction.NotFound", "RPC requests go to /, not to %s.", r.URL.Path)
	}
	if err := in.add("query", r.URL.RawQuery); err != nil {
		return err
	}
	if in.v3 {
		for name, header := range map[string]string{"Action": "X-Acs-Action", "Version": "X-Acs-Version"} {
			v := r.Header.Get(header)
			if given, twice := in.params[name]; twice && given != v {
				return refuse(400, "InvalidParameter", "The parameter %s differs from the header %s.", name, strings.ToLower(header))
			}
			in.params[name] = v
		}
	}
	if r.Body == nil {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	switch {
	case err != nil:
		return fail(400, "InvalidParameter", "The body cannot be read.")
	case len(body) > maxBody:
		return refuse(413, "InvalidParameter", "The body is longer than %d bytes.", maxBody)
	case len(body) == 0:
		return nil
	case r.Method == http.MethodGet:
		return refuse(400, "InvalidParameter", "A GET has no body.")
	}
	in.body = body
	kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	switch kind = strings.ToLower(strings.TrimSpace(kind)); {
	case kind == "application/x-www-form-urlencoded":
		return in.add("form", string(body))
	case kind == "application/json" && in.v3:
		return in.addJSON(body)
	}
	return refuse(415, "InvalidParameter", "The body is %q, not application/x-www-form-urlencoded (or, with %s, application/json).", kind, algorithm3)
}

// add merges what is encoded as a query.
func (in *request) add(where, encoded string) *apiError {
	values, err := url.ParseQuery(encoded)
	if err != nil {
		return refuse(400, "InvalidParameter", "The %s cannot be parsed: %v", where, err)
	}
	for k, v := range values {
		if len(v) > 1 {
			return refuse(400, "InvalidParameter", "The parameter %s is given more than once.", k)
		}
		if err := in.put(k, v[0]); err != nil {
			return err
		}
	}
	return nil
}

func (in *request) put(name, value string) *apiError {
	if _, twice := in.params[name]; twice {
		return refuse(400, "InvalidParameter", "The parameter %s is given more than once.", name)
	}
	in.params[name] = value
	return nil
}

// addJSON merges an object: its members by name, what is in them as Name.Member
// and Name.1.
func (in *request) addJSON(body []byte) *apiError {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	var tree map[string]any
	if err := dec.Decode(&tree); err != nil {
		return refuse(400, "InvalidParameter", "The body is not a JSON object: %v", err)
	}
	var walk func(name string, v any) *apiError
	walk = func(name string, v any) *apiError {
		switch x := v.(type) {
		case map[string]any:
			for _, k := range slices.Sorted(maps.Keys(x)) {
				if err := walk(strings.TrimPrefix(name+"."+k, "."), x[k]); err != nil {
					return err
				}
			}
		case []any:
			for n, item := range x {
				if err := walk(name+"."+strconv.Itoa(n+1), item); err != nil {
					return err
				}
			}
		case string:
			return in.put(name, x)
		case json.Number:
			return in.put(name, x.String())
		case bool:
			return in.put(name, strconv.FormatBool(x))
		}
		return nil
	}
	return walk("", tree)
}

// authenticate checks who signed the request, when, and that it is new. What
// it says about a wrong signature never holds the secret.
func (c *Cloud) authenticate(r *http.Request, in *request) *apiError {
	if in.v3 {
		return c.authenticate3(r, in)
	}
	p := in.params
	for _, name := range []string{"AccessKeyId", "Signature", "SignatureMethod", "SignatureVersion", "SignatureNonce", "Timestamp"} {
		if p[name] == "" {
			return refuse(400, "IncompleteSignature", "The request has no %s.", name)
		}
	}
	if p["SignatureMethod"] != "HMAC-SHA1" || p["SignatureVersion"] != "1.0" || p["SignatureType"] != "" {
		return refuse(400, "IncompleteSignature", "Only SignatureMethod HMAC-SHA1 with SignatureVersion 1.0 and no SignatureType is simulated, and %s in the header Authorization.", algorithm3)
	}
	if err := c.principal(p["AccessKeyId"], p["SecurityToken"]); err != nil {
		return err
	}
	want := signature(r.Method, p, c.secret())
	if subtle.ConstantTimeCompare([]byte(want), []byte(p["Signature"])) != 1 {
		return fail(400, "SignatureDoesNotMatch", "Specified signature is not matched with our calculation. server string to sign is:%s", redacted(stringToSign(r.Method, p)))
	}
	return c.fresh(p["Timestamp"], p["SignatureNonce"])
}

// An identity is what requests are signed with.
type identity struct {
	id, secret, token string
	until             time.Time // of token; zero: never
}

// SetCredentials replaces what requests have to be signed with from now on, as
// a role that is assumed anew does. Requests with the temporary keys of before
// are answered as expired, with an access key of before as unknown. An empty
// token means the access key of a user; expires zero: never.
func (c *Cloud) SetCredentials(id, secret, token string, expires time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.identity.token != "" {
		c.former[[2]string{c.identity.id, c.identity.token}] = true
	}
	c.identity = identity{id, secret, token, expires}
	delete(c.former, [2]string{id, token})
}

// secret is that of the account's key.
func (c *Cloud) secret() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.identity.secret
}

// principal checks the credentials' names.
func (c *Cloud) principal(key, token string) *apiError {
	c.mu.Lock()
	now, former := c.identity, c.former[[2]string{key, token}]
	c.mu.Unlock()
	switch {
	case former:
		return fail(400, "InvalidSecurityToken.Expired", "Specified SecurityToken is expired.")
	case key != now.id:
		return fail(404, "InvalidAccessKeyId.NotFound", "Specified access key is not found.")
	case token != now.token:
		return refuse(400, "InvalidSecurityToken.MismatchWithAccessKey", "The security token does not belong to the access key.")
	case token != "" && !now.until.IsZero() && !time.Now().Before(now.until):
		return fail(400, "InvalidSecurityToken.Expired", "Specified SecurityToken is expired.")
	}
	return nil
}

// fresh checks a request's time, and that its nonce was not used before.
func (c *Cloud) fresh(when, nonce string) *apiError {
	stamp, err := time.Parse(stampSeconds, when)
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
	if _, used := c.nonces[nonce]; used {
		return refuse(400, "SignatureNonceUsed", "Specified signature nonce was used already.")
	}
	c.nonces[nonce] = now
	return nil
}

// authenticate3 is authenticate for the header
//
//	Authorization: ACS3-HMAC-SHA256 Credential=ID,SignedHeaders=a;b,Signature=HEX
//
// (the page "V3 request structure and signature" of the cloud's documentation).
func (c *Cloud) authenticate3(r *http.Request, in *request) *apiError {
	name, fields, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if name != algorithm3 {
		return refuse(400, "IncompleteSignature", "The Authorization %q is not simulated: %s.", name, algorithm3)
	}
	given := map[string]string{}
	for field := range strings.SplitSeq(fields, ",") {
		k, v, _ := strings.Cut(strings.TrimSpace(field), "=")
		given[k] = v
	}
	signed := strings.Split(given["SignedHeaders"], ";")
	for _, h := range []string{"x-acs-action", "x-acs-version", "x-acs-date", "x-acs-signature-nonce", "x-acs-content-sha256"} {
		if r.Header.Get(h) == "" {
			return refuse(400, "IncompleteSignature", "The request has no header %s.", h)
		}
	}
	for h := range r.Header {
		h = strings.ToLower(h)
		if strings.HasPrefix(h, "x-acs-") && !slices.Contains(signed, h) {
			return refuse(400, "IncompleteSignature", "The header %s is not signed.", h)
		}
	}
	if !slices.Contains(signed, "host") || !slices.IsSorted(signed) {
		return refuse(400, "IncompleteSignature", "The header host is not signed, or the signed headers are not in order.")
	}
	if err := c.principal(given["Credential"], r.Header.Get("X-Acs-Security-Token")); err != nil {
		return err
	}
	sum := sha256.Sum256(in.body)
	body := hex.EncodeToString(sum[:])
	canonical := canonical3(r, signed, body)
	want := signature3(canonical, c.secret())
	if r.Header.Get("X-Acs-Content-Sha256") != body || subtle.ConstantTimeCompare([]byte(want), []byte(given["Signature"])) != 1 {
		return fail(400, "SignatureDoesNotMatch", "Specified signature is not matched with our calculation. server canonical request is:%s", redacted(canonical))
	}
	return c.fresh(r.Header.Get("X-Acs-Date"), r.Header.Get("X-Acs-Signature-Nonce"))
}

// canonical3 is what a version 3 signature is made over.
func canonical3(r *http.Request, signed []string, body string) string {
	query := r.URL.Query()
	pairs := make([]string, 0, len(query))
	for _, k := range slices.Sorted(maps.Keys(query)) {
		pairs = append(pairs, percent(k)+"="+percent(query.Get(k)))
	}
	var b strings.Builder
	b.WriteString(r.Method + "\n/\n" + strings.Join(pairs, "&") + "\n")
	for _, h := range signed {
		v := r.Header.Get(h)
		if h == "host" {
			v = r.Host
		}
		b.WriteString(h + ":" + strings.TrimSpace(v) + "\n")
	}
	b.WriteString("\n" + strings.Join(signed, ";") + "\n" + body)
	return b.String()
}

func signature3(canonical, secret string) string {
	sum := sha256.Sum256([]byte(canonical))
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(algorithm3 + "\n" + hex.EncodeToString(sum[:])))
	return hex.EncodeToString(mac.Sum(nil))
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
