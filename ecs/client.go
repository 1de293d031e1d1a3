package ecs

import (
	"net/http"
	"time"

	"github.com/upgradectl/upgradectl/internal/alicloud"
	"github.com/upgradectl/upgradectl/internal/poll"
)

// Config says which account and region a Client works on. The zero value takes
// everything from the environment.
type Config struct {
	// Region is the region's ID, as cn-hangzhou. Empty: ALIBABA_CLOUD_REGION_ID,
	// ALICLOUD_REGION, then the region of the profile the credentials come from.
	Region string
	// Endpoint replaces the public endpoint: "https://HOST[:PORT]" or a bare
	// host. Plain "http://" is accepted for loopback addresses only.
	Endpoint string

	// AccessKeyID and AccessKeySecret (with SecurityToken for temporary keys)
	// are used as given. If both are empty the credentials are looked up once,
	// in New: Profile if it is set, then the variables ALIBABA_CLOUD_ACCESS_KEY_ID,
	// _ACCESS_KEY_SECRET and _SECURITY_TOKEN, then ALICLOUD_ACCESS_KEY,
	// ALICLOUD_SECRET_KEY and ALICLOUD_SECURITY_TOKEN, then the current profile
	// of ~/.aliyun/config.json (modes AK, StsToken, RamRoleArn,
	// ChainableRamRoleArn and EcsRamRole), then the role of the ECS instance this
	// runs on. Keys of a role are fetched with the first call and renewed before
	// they end.
	AccessKeyID, AccessKeySecret, SecurityToken string
	// Profile names a profile of ~/.aliyun/config.json. It wins over the
	// environment.
	Profile string

	// Poll is the first interval between two looks of a wait; it grows to five
	// times that. 0 means 3 s.
	Poll time.Duration
	// Timeout is the longest wait for a snapshot or an image; 0 means 2 h. Waits
	// for an instance or a command end after 15 min or Timeout, whichever is
	// shorter. A deadline of the context may end any of them earlier.
	Timeout time.Duration
	// RetryBudget is how long one call may go on being retried when the cloud
	// cannot be reached or answers with an error of its own; 0 means 2 min.
	RetryBudget time.Duration
	// ThrottleLimit is how long one call may wait for the cloud's flow control to
	// let it through; 0 means 30 min. While it waits the limits above stand
	// still; a deadline of the context ends it at once.
	ThrottleLimit time.Duration
}

// An Option changes how a Client reaches the cloud.
type Option func(*options)

type options struct {
	endpoint  string
	transport http.RoundTripper
	held      func(Held)
}

// WithEndpoint overrides Config.Endpoint.
func WithEndpoint(url string) Option { return func(o *options) { o.endpoint = url } }

// WithTransport makes the client send its requests through rt instead of a
// connection pool of its own. It is how a program that uses this package is
// tested without a network; see examples/ecs.
func WithTransport(rt http.RoundTripper) Option { return func(o *options) { o.transport = rt } }

// A Held says that the cloud's flow control holds calls of an action back: they
// are sent again until they pass, and meanwhile nothing else is to be seen.
type Held struct {
	Action string    // with its product, as ecs:CreateImage
	Code   string    // of the cloud's last refusal, as Throttling.User
	Since  time.Time // when the call that waits began to
}

// WithHeld makes the client call f when a call has been held back for ten
// seconds (or ten times Config.Poll, if that is less): once for an action until
// it flows freely again, and again every ten minutes. Calls of f may come from
// several goroutines at once; the call that waits does not return before f does.
func WithHeld(f func(Held)) Option { return func(o *options) { o.held = f } }

// A Client calls the ECS API of one region. It is safe for concurrent use.
type Client struct {
	api  *alicloud.Client
	poll time.Duration
	long time.Duration // snapshots and images
	wait time.Duration // everything else

	// Waits of one kind share their looks.
	instances poll.Group[Instance]
	snapshots poll.Group[Snapshot]
	images    poll.Group[Image]
}

// New returns a client for cfg. It resolves credentials and region, and sends
// nothing. The error wraps ErrCredentials if there are none, and names every
// place that was looked at.
func New(cfg Config, opts ...Option) (*Client, error) {
	o := options{endpoint: cfg.Endpoint}
	for _, opt := range opts {
		opt(&o)
	}
	var onHeld func(alicloud.Held)
	if o.held != nil {
		onHeld = func(h alicloud.Held) { o.held(Held(h)) }
	}
	api, err := alicloud.New(alicloud.Config{
		Region:          cfg.Region,
		Endpoint:        o.endpoint,
		AccessKeyID:     cfg.AccessKeyID,
		AccessKeySecret: cfg.AccessKeySecret,
		SecurityToken:   cfg.SecurityToken,
		Profile:         cfg.Profile,
		RetryBudget:     cfg.RetryBudget,
		ThrottleLimit:   cfg.ThrottleLimit,
		FirstPause:      min(time.Second, cfg.Poll/3),
		Pace:            min(time.Second, cfg.Poll),
		Transport:       o.transport,
		OnHeld:          onHeld,
	})
	if err != nil {
		return nil, wrap(err)
	}
	c := &Client{api: api, poll: cfg.Poll, long: cfg.Timeout, wait: 15 * time.Minute}
	if c.poll <= 0 {
		c.poll = 3 * time.Second
	}
	if c.long <= 0 {
		c.long = 2 * time.Hour
	}
	c.wait = min(c.wait, c.long)
	c.share()
	return c, nil
}

// Region returns the region the client works on.
func (c *Client) Region() string { return c.api.Region() }

// CredentialSource says where the credentials came from, as
// `environment (ALIBABA_CLOUD_ACCESS_KEY_ID)`. It never holds their value.
func (c *Client) CredentialSource() string { return c.api.CredentialSource() }

// CloseIdleConnections closes connections that are kept for later calls. The
// client can be used afterwards.
func (c *Client) CloseIdleConnections() { c.api.CloseIdle() }
