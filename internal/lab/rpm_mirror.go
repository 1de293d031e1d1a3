package lab

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// MirrorURL is where [Mirror.Serve] offers the repositories, to all hosts.
const MirrorURL = "http://" + Gateway + ":8090"

const mirrorConf = `daemon off;
worker_processes 1;
pid %[1]s/pid;
error_log %[1]s/error.log;
events {}
http {
	access_log %[1]s/access.log;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	server {
		listen %[2]s:8090;
		root %[3]s;
	}
}
`

// Serve starts a web server for the mirror, a real nginx with a configuration
// of its own, and returns when it answers. It ends with stop, or with the lab;
// then connections are refused.
func (m *Mirror) Serve(ctx context.Context) (stop func() error, err error) {
	dir := m.Dir + ".nginx"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, mirrorConf, dir, Gateway, m.Dir), 0o644); err != nil {
		return nil, err
	}
	// Its workers are another user; the lab's directory is root's alone.
	cmd := exec.Command("nginx", "-c", conf, "-p", dir, "-g", "user root;")
	log, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stop = func() error {
		_ = cmd.Process.Signal(os.Interrupt) // a fast end; one that has ended is no error
		return <-ended
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err = poll(ctx, "the mirror does not answer", func() error {
		c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", Gateway+":8090")
		if err == nil {
			_ = c.Close()
		}
		return err
	})
	if err != nil {
		text, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("%w: %s", err, text)
	}
	return stop, nil
}
