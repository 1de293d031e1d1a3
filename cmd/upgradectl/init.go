package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/upgradectl/upgradectl/upgrade"
)

// initFlags say where a discovery begins and how the world is reached: nothing
// that upgrade.yaml could not say.
type initFlags struct {
	instance, host, output   string
	force                    bool
	nginx                    []string
	region, endpoint, prof   string
	sshConfig                string
	knownHosts               []string
	sudo, allowSHA1          bool
	sudoFile, password, pass string
}

func newInit(a *app) *cobra.Command {
	var f initFlags
	cmd := &cobra.Command{
		Use:   "init (--instance ID | --host HOST)",
		Short: a.t("look at everything around a host and write upgrade.yaml", "查看主机周边的一切，生成 upgrade.yaml"),
		Long: a.t(`Finds the instance and its disks, what runs on the host, the balancers and nginx that
lead to it, their domains, and whom it connects to; writes a commented upgrade.yaml and
prints one table a project. Nothing is changed anywhere.`,
			`查找实例及其磁盘、主机上运行的工程与容器、指向它的负载均衡与 nginx、相关域名以及它的对外连接；
生成带注释的 upgrade.yaml，并按工程打印对照表。不作任何更改。`),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context(), a) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.instance, "instance", "", a.t("ECS instance, i-…", "ECS 实例，i-…"))
	fl.StringVar(&f.host, "host", "", a.t("SSH target of the host (default: the instance's private address)", "主机的 SSH 目标（默认取实例的私网地址）"))
	fl.StringVarP(&f.output, "output", "o", "upgrade.yaml", a.t("file to write; - for standard output, without the table", "写入的文件；- 表示标准输出（不打印对照表）"))
	fl.BoolVar(&f.force, "force", false, a.t("write over a file that exists", "覆盖已存在的文件"))
	fl.StringArrayVar(&f.nginx, "nginx", nil, a.t("SSH target of a host that runs an nginx, HOST or HOST=CONF; may be repeated; peers that use the host's ports are looked at as well", "运行 nginx 的主机的 SSH 目标，主机 或 主机=配置文件；可重复；正在使用该主机端口的对端也会被查看"))
	fl.StringVar(&f.region, "region", "", a.t("region (default: the environment's or the profile's)", "地域（默认取环境变量或配置）"))
	fl.StringVar(&f.endpoint, "endpoint", "", a.t("API endpoint; http:// on loopback only", "API 地址；http:// 仅限本机回环"))
	fl.StringVar(&f.prof, "profile", "", a.t("profile of ~/.aliyun/config.json", "~/.aliyun/config.json 中的配置名"))
	fl.StringVar(&f.sshConfig, "ssh-config", "", a.t("ssh_config file, or none (default: your own, as your ssh reads it)", "ssh_config 文件，none 表示不用（默认用您自己的，与 ssh 的读法一致）"))
	fl.StringArrayVar(&f.knownHosts, "known-hosts", nil, a.t("known_hosts file (default: the user's); may be repeated", "known_hosts 文件（默认用户的）；可重复"))
	fl.BoolVar(&f.sudo, "sudo", false, a.t("become root with sudo", "通过 sudo 成为 root"))
	fl.StringVar(&f.sudoFile, "sudo-password-file", "", a.t("file (mode 0600) with the sudo password", "存放 sudo 密码的文件（权限 0600）"))
	fl.StringVar(&f.password, "password-file", "", a.t("file (mode 0600) with the login password", "存放登录密码的文件（权限 0600）"))
	fl.StringVar(&f.pass, "passphrase-file", "", a.t("file (mode 0600) with the passphrase of the private key", "存放私钥口令的文件（权限 0600）"))
	fl.BoolVar(&f.allowSHA1, "allow-sha1", false, a.t("accept SHA-1 from SSH servers that know nothing better", "允许只支持 SHA-1 的旧 SSH 服务器"))
	return cmd
}

// config is the beginning of the configuration: what the flags say.
func (f *initFlags) config(a *app) (*upgrade.Config, error) {
	if f.instance == "" && f.host == "" {
		return nil, usagef(a.t("which host? give --instance ID or --host HOST", "请用 --instance 或 --host 指定主机"))
	}
	abs := func(name string) (string, error) {
		if name == "" || name == "none" {
			return name, nil
		}
		return filepath.Abs(name)
	}
	cfg := &upgrade.Config{
		Version: 1, Procedure: upgrade.ProcedureTransition, Host: f.host, Instance: f.instance, Balancers: upgrade.BalancersAuto,
		Cloud: upgrade.CloudConfig{Region: f.region, Endpoint: f.endpoint, Profile: f.prof},
		SSH:   upgrade.SSHConfig{Sudo: f.sudo, AllowSHA1: f.allowSHA1, KnownHosts: f.knownHosts},
		Paths: upgrade.PathsConfig{Check: upgrade.PathsAuto}, Pace: upgrade.Pace{Poll: 3 * time.Second},
	}
	for _, x := range []struct {
		from string
		to   *string
	}{{f.sshConfig, &cfg.SSH.Config}, {f.sudoFile, &cfg.SSH.SudoPasswordFile}, {f.password, &cfg.SSH.PasswordFile}, {f.pass, &cfg.SSH.PassphraseFile}} {
		var err error
		if *x.to, err = abs(x.from); err != nil {
			return nil, err
		}
	}
	for i, k := range cfg.SSH.KnownHosts {
		var err error
		if cfg.SSH.KnownHosts[i], err = abs(k); err != nil {
			return nil, err
		}
	}
	for _, n := range f.nginx {
		host, conf, ok := strings.Cut(n, "=")
		if !ok {
			conf = "/etc/nginx/nginx.conf"
		}
		cfg.Nginx = append(cfg.Nginx, upgrade.NginxHost{Host: host, Conf: conf})
	}
	// What upgrade.yaml would not take is wrong here already.
	if err := cfg.CheckTargets(); err != nil {
		return nil, usagef("%v", err)
	}
	return cfg, nil
}

func (f *initFlags) run(ctx context.Context, a *app) error {
	cfg, err := f.config(a)
	if err != nil {
		return err
	}
	if f.output != "-" && !f.force {
		if _, err := os.Lstat(f.output); err == nil {
			return &exitError{code: exitRefused, err: fmt.Errorf(a.t("%s exists; write over it with --force, or name another file with -o", "%s 已存在；用 --force 覆盖，或用 -o 指定其他文件"), f.output)}
		} else if !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	e, err := upgrade.NewEnv(cfg, &upgrade.Access{Held: a.held})
	if err != nil {
		return err
	}
	defer e.Close()
	now := time.Now()
	s, err := upgrade.Survey(ctx, cfg, e, func(what string) { a.progress(a.t("looking at: %s", "正在查看：%s"), what) })
	if err != nil {
		return err
	}
	if f.output != "-" {
		f.relative(cfg)
	}
	text, err := s.YAML(a.lang, now)
	if err != nil {
		return err
	}
	if _, err := upgrade.ParseConfig(f.output, text); err != nil {
		return fmt.Errorf("internal error: the file that was to be written is not valid: %w", err)
	}
	if f.output == "-" {
		_, err := a.out.Write(text)
		return err
	}
	// It names hosts and addresses: nobody else's business.
	if err := writeOutput(f.output, text, 0o600); err != nil {
		return fmt.Errorf("cannot write %s: %w", f.output, err)
	}
	t := upgrade.ListProjects(s)
	res := struct {
		File     string `json:"file"`
		Host     string `json:"host"`
		Instance string `json:"instance"`
		Address  string `json:"address"`
		*upgrade.Projects
		*upgrade.Surroundings
		Findings []upgrade.Finding `json:"findings"`
	}{f.output, cfg.Host, cfg.Instance, cfg.Address, t, s, upgrade.Detect(cfg, s.Facts, now)}
	if err := a.result(res, func(w io.Writer) { a.projects(w, t, s) }); err != nil {
		return err
	}
	a.progress(a.t("%s written; next: upgradectl validate %s, upgradectl plan -c %s", "已写入 %s；下一步：upgradectl validate %s，upgradectl plan -c %s"), f.output, f.output, f.output)
	return nil
}

// relative makes paths of files beside the configuration relative to it, so that
// the directory can be moved.
func (f *initFlags) relative(cfg *upgrade.Config) {
	dir, err := filepath.Abs(filepath.Dir(f.output))
	if err != nil {
		return
	}
	short := func(p *string) {
		if r, err := filepath.Rel(dir, *p); err == nil && filepath.IsAbs(*p) && filepath.IsLocal(r) {
			*p = filepath.ToSlash(r)
		}
	}
	for _, p := range []*string{&cfg.SSH.Config, &cfg.SSH.SudoPasswordFile, &cfg.SSH.PasswordFile, &cfg.SSH.PassphraseFile} {
		short(p)
	}
	for i := range cfg.SSH.KnownHosts {
		short(&cfg.SSH.KnownHosts[i])
	}
}

// projects prints one table a project.
func (a *app) projects(w io.Writer, t *upgrade.Projects, s *upgrade.Surroundings) {
	for _, p := range t.Projects {
		what := p.Kind
		for _, x := range []string{p.Dir, p.Jar, p.Unit, strings.Join(p.Containers, ", ")} {
			if x != "" {
				what += "  " + x
			}
		}
		fmt.Fprintf(w, "%s  %s\n", p.Name, what)
		var rows [][]string
		for _, port := range p.Ports {
			leads := max(len(port.Balancers), len(port.Nginx), len(port.Domains), len(port.Peers), 1)
			at := func(l []string, i int) string {
				if i < len(l) {
					return l[i]
				}
				if i == 0 {
					return "-"
				}
				return ""
			}
			for i := range leads {
				n := ""
				if i == 0 {
					n = fmt.Sprint(port.Port)
				}
				rows = append(rows, []string{"  " + n, at(port.Balancers, i), at(port.Nginx, i), at(port.Domains, i), at(port.Peers, i)})
			}
		}
		if len(rows) > 0 {
			table(w, []string{a.t("  PORT", "  端口"), a.t("BALANCER GROUP, LISTENER, RULE", "SLB 服务器组、监听与规则"), a.t("NGINX UPSTREAM", "NGINX 上游"), a.t("DOMAIN", "域名"), a.t("DIRECT PEERS", "直连对端")}, rows)
		}
		fmt.Fprintln(w)
	}
	if len(t.Projects) == 0 {
		fmt.Fprintln(w, a.t("nothing that upgrade.yaml could name runs on the host", "主机上没有可写入 upgrade.yaml 的服务"))
	}
	for _, x := range t.Unreferenced {
		fmt.Fprintf(w, a.t("nothing leads to %s\n", "没有入口指向 %s\n"), x)
	}
	for _, x := range t.Dead {
		fmt.Fprintf(w, a.t("dead: %s\n", "失效：%s\n"), x)
	}
	for _, p := range s.Trust {
		fmt.Fprintf(w, a.t("connects to %s: does it let the transition host in?\n", "对外连接 %s：是否放行过渡机？\n"), p)
	}
	for _, n := range s.Todo {
		fmt.Fprintf(w, "TODO  %s\n", n.In(a.lang))
	}
}
