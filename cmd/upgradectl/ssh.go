package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/nginx"
)

// sshFlags say how a host is reached.
type sshFlags struct{ cfg hostinv.SSHConfig }

func (s *sshFlags) flags(a *app, cmd *cobra.Command) {
	f := cmd.PersistentFlags()
	f.StringVar(&s.cfg.ConfigFile, "ssh-config", "", a.t("ssh_config file (default: none)", "ssh_config 文件（默认不用）"))
	f.StringArrayVar(&s.cfg.KnownHosts, "known-hosts", nil, a.t("known_hosts file (default: the user's); may be repeated", "known_hosts 文件（默认用户的）；可重复"))
	f.StringArrayVar(&s.cfg.Identities, "identity", nil, a.t("private key file; may be repeated", "私钥文件；可重复"))
	f.BoolVar(&s.cfg.Agent, "agent", os.Getenv("SSH_AUTH_SOCK") != "", a.t("offer the keys of the SSH agent", "使用 SSH agent 中的密钥"))
}

// dial connects to target. Host keys are always verified.
func (s *sshFlags) dial(ctx context.Context, a *app, target string) (*hostinv.Conn, error) {
	cfg := s.cfg
	cfg.Warn = func(text string) { a.progress("%s", text) }
	return hostinv.Dial(ctx, target, cfg)
}

// localHost is this machine as a host.
type localHost struct{}

func (localHost) Run(ctx context.Context, cmd string, stdin io.Reader, stdout, stderr io.Writer) error {
	c := exec.CommandContext(ctx, "/bin/sh", "-c", cmd)
	c.Stdin, c.Stdout, c.Stderr = stdin, stdout, stderr
	err := c.Run()
	var ee *exec.ExitError
	if errors.As(err, &ee) && ctx.Err() == nil {
		return localExit{ee}
	}
	return err
}

func (localHost) ReadFile(ctx context.Context, name string) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	// Not os.ReadFile: a device never ends, and a pipe may never begin.
	data, err := nginx.DirFS("").ReadFile(ctx, name)
	if err == nil && len(data) > nginx.MaxFileSize {
		return nil, fmt.Errorf("%s is larger than the %d bytes that are read", name, nginx.MaxFileSize)
	}
	return data, err
}

func (localHost) WriteFile(ctx context.Context, name string, data []byte, perm fs.FileMode) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(perm) // whatever the umask took
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(name))
	}
	return nil
}

func (localHost) ReadDir(ctx context.Context, name string) ([]fs.DirEntry, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return os.ReadDir(name)
}

// localExit gives an exit status the way packages ask for it.
type localExit struct{ *exec.ExitError }

func (e localExit) ExitStatus() int { return e.ExitCode() } // -1: killed by a signal
