package nginx

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"time"
)

// Host is what Server needs of the machine nginx runs on. *hostinv.Conn is one.
// cmd is a POSIX sh command line. An error of a command that ran and failed
// satisfies interface{ ExitStatus() int } through errors.As, with -1 for one
// that a signal killed; any other error means that the result is not known.
// WriteFile makes a new file and fails with fs.ErrExist when it is there.
type Host interface {
	Run(ctx context.Context, cmd string, stdin io.Reader, stdout, stderr io.Writer) error
	ReadFile(ctx context.Context, name string) ([]byte, error)
	WriteFile(ctx context.Context, name string, data []byte, perm fs.FileMode) error
	ReadDir(ctx context.Context, name string) ([]fs.DirEntry, error)
}

// A Server is an nginx on a host. Its methods may be called from several
// goroutines; Apply, Put and Reload of the same server must not overlap.
type Server struct {
	Host   Host
	Binary string // "" = nginx
	Conf   string // the main file, absolute; "" = /etc/nginx/nginx.conf
	// ReloadTimeout bounds the wait for new workers after a reload. 0 = 30 s.
	ReloadTimeout time.Duration
}

// A Worker is a worker process of the running nginx.
type Worker struct {
	PID          int
	Title        string // "nginx: worker process"
	ShuttingDown bool   // it serves what it has and takes nothing new
}

// Applied tells what Apply or Put did.
type Applied struct {
	Files   []FileChange // what was written
	Workers []Worker     // after the reload
}

// Load reads the configuration of the host.
func (s *Server) Load(ctx context.Context) (*Tree, error) { return Load(ctx, s.Host, s.conf()) }

func (s *Server) conf() string {
	if s.Conf == "" {
		return "/etc/nginx/nginx.conf"
	}
	return s.Conf
}
func (s *Server) Test(ctx context.Context) error                { return errors.ErrUnsupported }
func (s *Server) Reload(ctx context.Context) error              { return errors.ErrUnsupported }
func (s *Server) Workers(ctx context.Context) ([]Worker, error) { return nil, errors.ErrUnsupported }
func (s *Server) Apply(ctx context.Context, c *Change) (*Applied, error) {
	return nil, errors.ErrUnsupported
}
func (s *Server) Put(ctx context.Context, files []FileChange) error { return errors.ErrUnsupported }
