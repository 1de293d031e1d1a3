package alicloud

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// renewBefore is how long before their end temporary keys are replaced: longer
// than any single attempt takes, so that none goes stale on the way.
const renewBefore = 5 * time.Minute

const (
	renewFor   = 20 * time.Second // at most, while the old keys are good
	renewAgain = 20 * time.Second // after a renewal that failed, while they are
)

// A keyring holds the keys that requests are signed with now.
type keyring struct {
	fetch func(context.Context) (temporary, error) // nil: the keys never change
	turn  chan struct{}                            // who fetches holds its value
	now   atomic.Pointer[temporary]

	failed time.Time // when a renewal did last; of whoever holds turn
}

// temporary are keys that end.
type temporary struct {
	id, secret, token string
	until             time.Time
}

// keys returns what to sign a request with. Keys of a role are fetched when
// there are none, and renewed before they end; one caller does that. While the
// old ones are good the others go on with them, and so does that one if the
// renewal takes long: with five minutes left a stall would be worse than the
// keys.
func (c *Client) keys(ctx context.Context) (Credentials, error) {
	r := c.ring
	if r.fetch == nil {
		return c.cred, nil
	}
	old := r.now.Load()
	switch {
	case old != nil && time.Until(old.until) > renewBefore:
		return c.with(old), nil
	case old != nil && time.Until(old.until) > 0:
		select {
		case r.turn <- struct{}{}:
			defer func() { <-r.turn }()
		default:
			return c.with(old), nil
		}
	default:
		select {
		case r.turn <- struct{}{}:
			defer func() { <-r.turn }()
		case <-ctx.Done():
			return Credentials{}, ctx.Err()
		}
	}
	// Somebody may have fetched them meanwhile.
	old = r.now.Load()
	good := old != nil && time.Until(old.until) > 0
	if good && (time.Until(old.until) > renewBefore || time.Since(r.failed) < renewAgain) {
		return c.with(old), nil
	}
	fetching := ctx
	if good {
		var cancel context.CancelFunc
		fetching, cancel = context.WithTimeout(ctx, renewFor)
		defer cancel()
	}
	got, err := r.fetch(fetching)
	switch {
	case err == nil:
		r.now.Store(&got)
		return c.with(&got), nil
	case good && time.Until(old.until) > 0 && ctx.Err() == nil:
		r.failed = time.Now()
		return c.with(old), nil
	}
	return Credentials{}, err
}

func (c *Client) with(t *temporary) Credentials {
	cr := c.cred
	cr.AccessKeyID, cr.AccessKeySecret, cr.SecurityToken = t.id, t.secret, t.token
	return cr
}

// current are the keys without fetching any: those of the attempt under way.
func (c *Client) current() Credentials {
	if t := c.ring.now.Load(); t != nil {
		return c.with(t)
	}
	return c.cred
}

// ready has the keys at hand, or says why there are none.
func (c *Client) ready(ctx context.Context, o op) *Error {
	_, err := c.keys(ctx)
	if err == nil {
		return nil
	}
	e := &Error{Action: o.action, Code: CodeNoCredentials, Message: "cannot get keys from " + c.cred.Source + ": " + err.Error(), Class: Definitive}
	var inner *Error
	switch {
	case ctx.Err() != nil:
		e.Code, e.Message, e.err = CodeNoAnswer, ctx.Err().Error()+" before the request was sent", ctx.Err()
	case errors.As(err, &inner) && inner.Class != Definitive && inner.Class != Precondition:
		e.Class = Transient // this request was not sent
	}
	return e
}

// newKeyring says how the keys of cr are got.
func (c *Client) newKeyring(cr Credentials, cfg Config) *keyring {
	r := &keyring{turn: make(chan struct{}, 1)}
	switch {
	case cr.role == nil:
	case cr.role.ecs:
		m := &metadata{base: cfg.imds}
		if m.base == "" {
			m.base = "http://100.100.100.200"
		}
		r.fetch = func(ctx context.Context) (temporary, error) { return m.keys(ctx, cr.role.name) }
	default:
		base := &Client{region: c.region, scheme: c.scheme, host: c.host, cred: *cr.role.base, transport: c.transport, budget: min(c.budget, 30*time.Second), pause: c.pause, patience: c.patience, gates: c.gates, onHeld: c.onHeld}
		base.ring = base.newKeyring(*cr.role.base, cfg)
		r.fetch = func(ctx context.Context) (temporary, error) { return base.assume(ctx, cr.role) }
	}
	return r
}

// assume gets the keys of a role from the security token service.
func (c *Client) assume(ctx context.Context, r *role) (temporary, error) {
	params := map[string]string{"RoleArn": r.arn, "RoleSessionName": r.session, "DurationSeconds": strconv.Itoa(r.seconds)}
	if r.external != "" {
		params["ExternalId"] = r.external
	}
	var out struct {
		Credentials struct{ AccessKeyID, AccessKeySecret, SecurityToken, Expiration string }
	}
	if err := c.rpc(ctx, "sts", "2015-04-01", again("AssumeRole"), params, &out); err != nil {
		return temporary{}, err
	}
	k := out.Credentials
	until, err := time.Parse(time.RFC3339, k.Expiration)
	if err != nil || k.AccessKeyID == "" || k.AccessKeySecret == "" || k.SecurityToken == "" {
		return temporary{}, credErr("AssumeRole of %s gave no keys", r.arn)
	}
	return temporary{k.AccessKeyID, k.AccessKeySecret, k.SecurityToken, until}, nil
}

// metadata is the service that tells an ECS instance about itself. It is on the
// link, in clear by its nature, and never behind a proxy.
type metadata struct{ base string }

// keys gets those of the instance's role.
func (m *metadata) keys(ctx context.Context, name string) (temporary, error) {
	var t temporary
	var err error
	for n := range 3 {
		if n > 0 {
			timer := time.NewTimer(time.Duration(n) * 500 * time.Millisecond)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return t, ctx.Err()
			}
		}
		if t, err = m.try(ctx, name); err == nil || ctx.Err() != nil || errors.Is(err, ErrCredentials) {
			return t, err
		}
	}
	return t, err
}

func (m *metadata) try(ctx context.Context, name string) (temporary, error) {
	transport := &http.Transport{DialContext: (&net.Dialer{Timeout: 2 * time.Second}).DialContext, DisableKeepAlives: true}
	ask := func(method, path string, header map[string]string) (int, string, error) {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, method, m.base+path, nil)
		if err != nil {
			return 0, "", err
		}
		for k, v := range header {
			req.Header.Set(k, v)
		}
		resp, err := transport.RoundTrip(req) // no redirects
		if err != nil {
			return 0, "", fmt.Errorf("metadata service: %w", err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		return resp.StatusCode, strings.TrimSpace(string(body)), err
	}
	// The second version wants a token; instances may allow the first as well.
	header := map[string]string{}
	status, token, err := ask(http.MethodPut, "/latest/api/token", map[string]string{"X-aliyun-ecs-metadata-token-ttl-seconds": "60"})
	switch {
	case err != nil:
		return temporary{}, err
	case status == http.StatusOK && token != "":
		header["X-aliyun-ecs-metadata-token"] = token
	case os.Getenv("ALIBABA_CLOUD_IMDSV1_DISABLED") == "true":
		return temporary{}, credErr("the metadata service gave no token (HTTP status %d) and ALIBABA_CLOUD_IMDSV1_DISABLED forbids to go on without", status)
	}
	const list = "/latest/meta-data/ram/security-credentials/"
	if name == "" {
		status, body, err := ask(http.MethodGet, list, header)
		name, _, _ = strings.Cut(body, "\n")
		switch {
		case err != nil:
			return temporary{}, err
		case status == http.StatusNotFound, status == http.StatusOK && name == "":
			return temporary{}, credErr("this instance has no RAM role: attach one to it, or set ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET")
		case status != http.StatusOK:
			return temporary{}, fmt.Errorf("metadata service: HTTP status %d for the name of the role", status)
		}
		name = strings.TrimSpace(name)
	}
	status, body, err := ask(http.MethodGet, list+url.PathEscape(name), header)
	switch {
	case err != nil:
		return temporary{}, err
	case status == http.StatusNotFound:
		return temporary{}, credErr("this instance has no RAM role %q", name)
	case status != http.StatusOK:
		return temporary{}, fmt.Errorf("metadata service: HTTP status %d for the keys of role %q", status, name)
	}
	var k struct{ Code, AccessKeyId, AccessKeySecret, SecurityToken, Expiration string } //nolint:revive // as the service spells them
	if json.Unmarshal([]byte(body), &k) != nil || k.Code != "Success" || k.AccessKeyId == "" || k.AccessKeySecret == "" || k.SecurityToken == "" {
		return temporary{}, errors.New("metadata service: the answer holds no keys")
	}
	until, err := time.Parse(time.RFC3339, k.Expiration)
	if err != nil {
		return temporary{}, errors.New("metadata service: the answer does not say when the keys end")
	}
	return temporary{k.AccessKeyId, k.AccessKeySecret, k.SecurityToken, until}, nil
}
