package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/nginx"
)

// sshFlags say how a host is reached.
type sshFlags struct {
	cfg hostinv.SSHConfig

	sudoFile, passwordFile, passphraseFile string
	askSudo, askPassword, askPassphrase    bool
}

func (s *sshFlags) flags(a *app, cmd *cobra.Command) {
	f := cmd.PersistentFlags()
	f.StringVar(&s.cfg.ConfigFile, "ssh-config", "", a.t("ssh_config file, or none (default: your own, as your ssh reads it)", "ssh_config 文件，none 表示不用（默认用您自己的，与 ssh 的读法一致）"))
	f.StringArrayVar(&s.cfg.KnownHosts, "known-hosts", nil, a.t("known_hosts file (default: the user's); may be repeated", "known_hosts 文件（默认用户的）；可重复"))
	f.StringArrayVar(&s.cfg.Identities, "identity", nil, a.t("private key file; may be repeated", "私钥文件；可重复"))
	f.BoolVar(&s.cfg.Agent, "agent", os.Getenv("SSH_AUTH_SOCK") != "", a.t("offer the keys of the SSH agent", "使用 SSH agent 中的密钥"))
	f.BoolVar(&s.cfg.AllowProxyCommand, "allow-proxy-command", false, a.t("run ProxyCommand programs of ssh_config", "允许执行 ssh_config 中的 ProxyCommand"))
	f.BoolVar(&s.cfg.AllowSHA1, "allow-sha1", false, a.t("accept SHA-1 from SSH servers that know nothing better", "允许只支持 SHA-1 的旧 SSH 服务器"))
	f.BoolVar(&s.cfg.Sudo, "sudo", false, a.t("become root with sudo", "通过 sudo 成为 root"))
	f.StringVar(&s.sudoFile, "sudo-password-file", "", a.t("file (mode 0600) with the sudo password", "存放 sudo 密码的文件（权限 0600）"))
	f.BoolVar(&s.askSudo, "ask-sudo-password", false, a.t("ask for the sudo password", "提示输入 sudo 密码"))
	f.StringVar(&s.passwordFile, "password-file", "", a.t("file (mode 0600) with the login password", "存放登录密码的文件（权限 0600）"))
	f.BoolVar(&s.askPassword, "ask-password", false, a.t("ask for the login password", "提示输入登录密码"))
	f.StringVar(&s.passphraseFile, "passphrase-file", "", a.t("file (mode 0600) with the passphrase of the private key", "存放私钥口令的文件（权限 0600）"))
	f.BoolVar(&s.askPassphrase, "ask-passphrase", false, a.t("ask for the passphrase of the private key", "提示输入私钥口令"))
	cmd.MarkFlagsMutuallyExclusive("sudo-password-file", "ask-sudo-password")
	cmd.MarkFlagsMutuallyExclusive("password-file", "ask-password")
	cmd.MarkFlagsMutuallyExclusive("passphrase-file", "ask-passphrase")
}

// config gives the settings. What is to be asked is asked here, once, before
// anything is connected: the time a person takes must not be a host's.
func (s *sshFlags) config(ctx context.Context, a *app) (hostinv.SSHConfig, error) {
	cfg := s.cfg
	cfg.Warn = func(text string) { a.progress("%s", text) }
	if (s.sudoFile != "" || s.askSudo) && !cfg.Sudo {
		return cfg, &usageError{errors.New(a.t("a sudo password without --sudo", "给出了 sudo 密码，却没有 --sudo"))}
	}
	for _, x := range []struct {
		file string
		ask  bool
		what string
		to   *func(context.Context, string) (string, error)
	}{
		{s.sudoFile, s.askSudo, a.t("sudo password", "sudo 密码"), &cfg.SudoPassword},
		{s.passwordFile, s.askPassword, a.t("login password", "登录密码"), &cfg.Password},
		{s.passphraseFile, s.askPassphrase, a.t("passphrase", "私钥口令"), &cfg.Passphrase},
	} {
		get := hostinv.SecretFile(x.file)
		switch {
		case x.ask:
			text, err := readSecret(ctx, x.what)
			if err != nil {
				return cfg, fmt.Errorf("cannot ask for the %s: %w", x.what, err)
			}
			*x.to = func(context.Context, string) (string, error) { return text, nil }
		case x.file != "":
			if _, err := get(ctx, ""); err != nil {
				return cfg, fmt.Errorf("cannot read the %s: %w", x.what, err)
			}
			*x.to = get
		}
	}
	return cfg, nil
}

// dial connects to target. Host keys are always verified.
func (s *sshFlags) dial(ctx context.Context, a *app, target string) (*hostinv.Conn, error) {
	cfg, err := s.config(ctx, a)
	if err != nil {
		return nil, err
	}
	return hostinv.Dial(ctx, target, cfg)
}

// readSecret asks at the terminal, without echo, whatever standard input is.
func readSecret(ctx context.Context, what string) (string, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return "", errors.New("there is no terminal; use a file")
	}
	defer tty.Close()
	stty := func(arg string) error {
		c := exec.Command("stty", arg)
		c.Stdin = tty
		return c.Run()
	}
	if err := stty("-echo"); err != nil {
		return "", fmt.Errorf("cannot hide what is typed (stty): %w", err)
	}
	restore := func() { _ = stty("echo") } // nothing else is left to try
	defer restore()
	stop := context.AfterFunc(ctx, func() { restore(); tty.Close() })
	defer stop()
	fmt.Fprintf(tty, "%s: ", what)
	line, err := bufio.NewReader(tty).ReadString('\n')
	fmt.Fprintln(tty)
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if err != nil {
		return "", err
	}
	return strings.TrimRight(line, "\r\n"), nil
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
