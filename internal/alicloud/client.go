package alicloud

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/aliyun/alibaba-cloud-sdk-go/sdk"
	"github.com/aliyun/alibaba-cloud-sdk-go/sdk/auth"
	"github.com/aliyun/alibaba-cloud-sdk-go/sdk/auth/credentials"
	"github.com/aliyun/alibaba-cloud-sdk-go/sdk/requests"
	"github.com/aliyun/alibaba-cloud-sdk-go/services/ecs"
	"github.com/aliyun/alibaba-cloud-sdk-go/services/slb"
)

// Config is the input of New. Packages ecs and slb document the fields.
type Config struct {
	Region, Endpoint                            string
	AccessKeyID, AccessKeySecret, SecurityToken string
	Profile                                     string
	RetryBudget                                 time.Duration
	FirstPause                                  time.Duration // before the first repetition, at most; 0 = 1 s
	ThrottleLimit                               time.Duration // of one call that flow control refuses; 0 = 30 min
	Pace                                        time.Duration // between two calls of an action after its first refusals; 0 = 1 s
	Transport                                   http.RoundTripper
	OnHeld                                      func(Held) // told once when flow control holds calls of an action back for long; nil = nobody

	imds string // of tests: base address of the metadata service
	dmi  string // of tests: file that says what machine this is
}

// A Client calls the API of one region. It is safe for concurrent use: every
// call gets an SDK client value of its own, over one shared transport.
type Client struct {
	region    string
	scheme    string // "HTTP" or "HTTPS", as the SDK spells it
	host      string // of all products; "" = the public endpoint of each
	cred      Credentials
	ring      *keyring
	transport http.RoundTripper
	budget    time.Duration
	pause     time.Duration
	patience  time.Duration
	gates     *gates
	onHeld    func(Held)
}

// The SDK fills these maps on first use without a lock, so do it once here.
var publicEndpoints = sync.OnceValue(func() map[string]map[string]string {
	return map[string]map[string]string{"ecs": ecs.GetEndpointMap(), "slb": slb.GetEndpointMap()}
})

// New resolves region, endpoint and credentials. It sends nothing.
func New(cfg Config) (*Client, error) {
	cred, err := Resolve(cfg)
	if err != nil {
		return nil, err
	}
	c := &Client{region: cred.Region, scheme: "HTTPS", cred: cred, transport: cfg.Transport, budget: cfg.RetryBudget, pause: cfg.FirstPause, patience: cfg.ThrottleLimit}
	if c.region == "" {
		return nil, fmt.Errorf("cannot tell the %w: set it in the configuration (as cn-hangzhou) or in ALIBABA_CLOUD_REGION_ID", ErrRegion)
	}
	if strings.Trim(c.region, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return nil, fmt.Errorf("%w %q is not a region ID as cn-hangzhou", ErrRegion, c.region)
	}
	if cfg.Endpoint != "" {
		if c.scheme, c.host, err = parseEndpoint(cfg.Endpoint); err != nil {
			return nil, err
		}
	}
	if c.transport == nil {
		c.transport = &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:   10 * time.Second,
			ForceAttemptHTTP2:     true,
			MaxIdleConnsPerHost:   8,
			IdleConnTimeout:       30 * time.Second,
			ExpectContinueTimeout: time.Second,
		}
	}
	if c.budget <= 0 {
		c.budget = 2 * time.Minute
	}
	if c.pause <= 0 {
		c.pause = time.Second
	}
	if c.patience <= 0 {
		c.patience = 30 * time.Minute
	}
	if cfg.Pace <= 0 {
		cfg.Pace = time.Second
	}
	c.gates = &gates{unit: cfg.Pace, of: map[string]*gate{}}
	c.onHeld = cfg.OnHeld
	c.ring = c.newKeyring(cred, cfg)
	publicEndpoints()
	return c, nil
}

// Region returns the region.
func (c *Client) Region() string { return c.region }

// CredentialSource says where the credentials came from, never their value.
func (c *Client) CredentialSource() string { return c.cred.Source }

// CloseIdle closes connections that are not in use.
func (c *Client) CloseIdle() {
	if t, ok := c.transport.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

// parseEndpoint splits an endpoint into the SDK's scheme and host.
func parseEndpoint(s string) (scheme, host string, err error) {
	if !strings.Contains(s, "://") {
		s = "https://" + s
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || (u.Path != "" && u.Path != "/") || u.RawQuery != "" || u.User != nil || u.Fragment != "" {
		return "", "", fmt.Errorf(`endpoint is not of the form "https://HOST[:PORT]"`)
	}
	switch {
	case u.Scheme == "https":
		return "HTTPS", u.Host, nil
	case u.Scheme == "http" && isLoopback(u.Hostname()):
		return "HTTP", u.Host, nil
	case u.Scheme == "http":
		return "", "", fmt.Errorf("endpoint http://%s: plain HTTP would send keys in clear and is allowed to loopback addresses only; use https://", u.Host)
	}
	return "", "", fmt.Errorf("endpoint %s://%s: the scheme must be https", u.Scheme, u.Host)
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// domain returns the host that serves a product ("ecs" or "slb").
func (c *Client) domain(product string) string {
	if c.host != "" {
		return c.host
	}
	if h := publicEndpoints()[product][c.region]; h != "" {
		return h
	}
	return product + "." + c.region + ".aliyuncs.com"
}

// credential is for the SDK; attempt has made sure that there is one.
func (c *Client) credential() auth.Credential {
	cr := c.current()
	if cr.SecurityToken != "" {
		return credentials.NewStsTokenCredential(cr.AccessKeyID, cr.AccessKeySecret, cr.SecurityToken)
	}
	return credentials.NewAccessKeyCredential(cr.AccessKeyID, cr.AccessKeySecret)
}

// An op is what the caller of do knows about an action.
type op struct {
	product string // as policies name it, if it is known
	action  string
	timeout time.Duration // of one attempt
	repeat  bool          // doing it twice is the same as doing it once
	secrets []string      // what errors must not show besides the credentials
}

func read(action string) op { return op{action: action, timeout: 30 * time.Second, repeat: true} }

// once is a write of which a second execution could differ from the first.
func once(action string) op { return op{action: action, timeout: 60 * time.Second} }

// again is a write that may be repeated: it carries a token or sets a state.
func again(action string) op { return op{action: action, timeout: 90 * time.Second, repeat: true} }

// callECS and callSLB make a fresh SDK client and a fresh request for each
// attempt: the SDK's clients are not safe for sharing, and its requests keep
// list parameters and signatures of earlier uses.
func callECS[Q, R any](ctx context.Context, c *Client, o op, create func() *Q, fill func(*Q), send func(*ecs.Client, *Q) (*R, error)) (*R, error) {
	o.product = "ecs"
	return call(ctx, c, o, create, fill, func(cfg *sdk.Config, q *Q) (*R, error) {
		cl, err := ecs.NewClientWithOptions(c.region, cfg, c.credential())
		if err != nil {
			return nil, err
		}
		cl.Domain = c.domain("ecs")
		return send(cl, q)
	})
}

func callSLB[Q, R any](ctx context.Context, c *Client, o op, create func() *Q, fill func(*Q), send func(*slb.Client, *Q) (*R, error)) (*R, error) {
	o.product = "slb"
	return call(ctx, c, o, create, fill, func(cfg *sdk.Config, q *Q) (*R, error) {
		cl, err := slb.NewClientWithOptions(c.region, cfg, c.credential())
		if err != nil {
			return nil, err
		}
		cl.Domain = c.domain("slb")
		return send(cl, q)
	})
}

func call[Q, R any](ctx context.Context, c *Client, o op, create func() *Q, fill func(*Q), send func(*sdk.Config, *Q) (*R, error)) (*R, error) {
	var answer *R
	err := c.retry(ctx, o, func() *Error {
		var e *Error
		// On a stack of its own: the SDK makes the nonce of a signature out of its
		// own printed stack, which under a deep caller takes longer than the rest
		// of the request.
		done := make(chan struct{})
		go func() {
			defer close(done)
			answer, e = attempt(ctx, c, o, create, fill, send)
		}()
		<-done
		return e
	})
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// attempt sends one request.
func attempt[Q, R any](ctx context.Context, c *Client, o op, create func() *Q, fill func(*Q), send func(*sdk.Config, *Q) (*R, error)) (answer *R, failed *Error) {
	tryCtx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	w := &wire{ctx: tryCtx, next: c.transport, plain: c.scheme == "HTTP"}
	defer func() {
		// The SDK panics on answers that it does not expect. What it was must
		// not matter to our callers.
		if r := recover(); r != nil {
			answer, failed = nil, &Error{Action: o.action, Code: CodeBadAnswer, Message: "the answer cannot be understood", HTTPStatus: w.status, RequestID: w.requestID, Class: Ambiguous}
		}
	}()

	if e := c.ready(ctx, o); e != nil {
		return nil, e
	}
	q := create()
	fill(q)
	if r, ok := any(q).(requests.AcsRequest); ok {
		r.SetReadTimeout(o.timeout + 5*time.Second) // ours ends first
		r.SetScheme(c.scheme)
	}
	cfg := sdk.NewConfig().WithScheme(c.scheme).WithAutoRetry(false)
	cfg.Transport = w
	cfg.UserAgent = "upgradectl"
	answer, err := send(cfg, q)
	if err == nil && w.answered && w.status/100 == 2 {
		return answer, nil
	}
	return nil, c.explain(ctx, o, w, err)
}
