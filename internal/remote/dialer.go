package remote

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"time"
)

type Options struct {
	ConfigFile     string
	KnownHosts     []string
	User           string
	Identities     []string
	Agent          bool
	ConnectTimeout time.Duration
	KeepAlive      time.Duration
	NetDial        func(ctx context.Context, network, addr string) (net.Conn, error)
	Warn           func(text string)
}
type Dialer struct{}
type Conn struct{}
type ConfigError struct{ Problems []string }

var e = errors.New("x")

func (c *ConfigError) Error() string                                     { return "" }
func NewDialer(Options) (*Dialer, error)                                 { return nil, e }
func (d *Dialer) Dial(ctx context.Context, target string) (*Conn, error) { return nil, e }
func (d *Dialer) Pin(string, []string) error                             { return e }
func (d *Dialer) Close() error                                           { return e }
func (c *Conn) Run(ctx context.Context, cmd string, stdin io.Reader, stdout, stderr io.Writer) error {
	return e
}
func (c *Conn) ReadFile(ctx context.Context, name string) ([]byte, error) { return nil, e }
func (c *Conn) WriteFile(ctx context.Context, name string, data []byte, perm fs.FileMode) error {
	return e
}
func (c *Conn) ReadDir(ctx context.Context, name string) ([]fs.DirEntry, error) { return nil, e }
func (c *Conn) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	return nil, e
}
func (c *Conn) Target() string        { return "" }
func (c *Conn) HostKey() string       { return "" }
func (c *Conn) Done() <-chan struct{} { return nil }
func (c *Conn) Close() error          { return e }
