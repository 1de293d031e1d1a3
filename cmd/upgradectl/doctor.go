package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/upgradectl/upgradectl/ecs"
	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/upgrade"
)

// The states of a check of doctor.
const (
	checkOK   = "ok"
	checkWarn = "warn" // works, but somebody should look
	checkFail = "fail" // what needs it will not work
)

// A check is one line of doctor.
type check struct {
	Name   string `json:"name"`
	State  string `json:"state"`
	Detail string `json:"detail"`
	Remedy string `json:"remedy,omitempty"`
}

// doctor looks at this machine and the account.
type doctor struct {
	a      *app
	cfg    *upgrade.Config // nil without -c
	where  upgrade.CloudConfig
	getenv func(string) string
	state  func() (string, error)
	free   func(dir string) (int64, error)
	checks []check
}

func newDoctor(a *app) *cobra.Command {
	var (
		file  string
		cloud upgrade.CloudConfig
	)
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: a.t("see whether this machine and the account are ready, before anything else", "开始之前检查本机与账号是否就绪"),
		Long: a.t(`Looks at the SSH settings, the credentials (which are never printed), the cloud's API and
its clock, the directory of runs, and runs that nobody finished. It works without a
configuration; with -c it looks at what that names. Nothing is changed.
Exit status 0: ready, perhaps with warnings; 4: something would fail.`,
			`检查 SSH 设置、凭证（绝不打印）、云 API 及其时钟、运行目录，以及无人收尾的运行。
无需配置文件；用 -c 时按该文件检查。不作任何更改。退出码 0：就绪（可能有警告）；4：有问题。`),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d := &doctor{a: a, getenv: os.Getenv, state: upgrade.StateDir, free: freeBytes}
			if file != "" {
				var err error
				if d.cfg, err = upgrade.LoadConfig(file); err != nil {
					return err
				}
			}
			if d.cfg != nil {
				cloud = upgrade.CloudConfig{Region: cmp.Or(cloud.Region, d.cfg.Cloud.Region), Endpoint: cmp.Or(cloud.Endpoint, d.cfg.Cloud.Endpoint), Profile: cmp.Or(cloud.Profile, d.cfg.Cloud.Profile)}
			}
			d.where = cloud
			d.run(cmd.Context())
			if err := cmd.Context().Err(); err != nil {
				return err
			}
			return d.print()
		},
	}
	cmd.Flags().StringVar(&cloud.Region, "region", "", a.t("region (default: the environment's or the profile's)", "地域（默认取环境变量或配置）"))
	cmd.Flags().StringVar(&cloud.Endpoint, "endpoint", "", a.t("API endpoint; http:// on loopback only", "API 地址；http:// 仅限本机回环"))
	cmd.Flags().StringVar(&cloud.Profile, "profile", "", a.t("profile of ~/.aliyun/config.json", "~/.aliyun/config.json 中的配置名"))
	cmd.Flags().StringVarP(&file, "config", "c", "", a.t("configuration file, for its region, profile and hosts", "配置文件，取其地域、配置名与主机"))
	return cmd
}

func (d *doctor) add(name, state, remedy, format string, args ...any) {
	d.checks = append(d.checks, check{name, state, fmt.Sprintf(format, args...), remedy})
}

func (d *doctor) print() error {
	ready := !slices.ContainsFunc(d.checks, func(c check) bool { return c.State == checkFail })
	err := d.a.result(struct {
		Ready  bool    `json:"ready"`
		Checks []check `json:"checks"`
	}{ready, d.checks}, func(w io.Writer) {
		for _, c := range d.checks {
			fmt.Fprintf(w, "%-4s  %-12s %s\n", c.State, c.Name, c.Detail)
			if c.Remedy != "" {
				fmt.Fprintf(w, "%-4s  %-12s → %s\n", "", "", c.Remedy)
			}
		}
	})
	if err == nil && !ready {
		return &exitError{code: exitRefused}
	}
	return err
}

func (d *doctor) run(ctx context.Context) {
	d.add("version", checkOK, "", "upgradectl %s, %s/%s", version(), runtime.GOOS, runtime.GOARCH)
	d.stateDir()
	d.runs(ctx)
	d.ssh()
	if d.cfg == nil || d.cfg.Procedure != upgrade.ProcedureRebuild { // that one knows no cloud
		d.cloud(ctx)
	}
	if d.cfg != nil {
		d.hosts(ctx)
	}
}

// minFree is what the directory of runs needs: plans, journals, before-images.
const minFree = 100 << 20

// stateDir sees that a run could be written down. The directory itself is made
// by the first run.
func (d *doctor) stateDir() {
	t := d.a.t
	dir, err := d.state()
	if err != nil {
		d.add("state", checkFail, t("set XDG_STATE_HOME, or use --run DIR", "设置 XDG_STATE_HOME，或使用 --run 目录"), "%v", err)
		return
	}
	at := dir
	for {
		if _, err := os.Stat(at); err == nil || !errors.Is(err, os.ErrNotExist) || filepath.Dir(at) == at {
			break
		}
		at = filepath.Dir(at)
	}
	f, err := os.CreateTemp(at, ".upgradectl-doctor-*")
	if err == nil {
		_, err = f.WriteString("x")
		err = cmp.Or(err, f.Sync())
		err = errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	if err != nil {
		d.add("state", checkFail, t("make it writable, or set XDG_STATE_HOME: a run that cannot write its journal changes nothing", "使其可写，或设置 XDG_STATE_HOME：日志写不进去时不会作任何更改"), "%s: %v", dir, err)
		return
	}
	free, err := d.free(at)
	switch {
	case err != nil:
		d.add("state", checkWarn, "", t("%s is writable; its free space is not known: %v", "%s 可写；剩余空间未知：%v"), dir, err)
	case free < minFree:
		d.add("state", checkFail, t("make room: a full disk stops a run", "请腾出空间：磁盘写满会使运行停止"), t("%s has %d MiB left", "%s 仅剩 %d MiB"), dir, free>>20)
	default:
		d.add("state", checkOK, "", t("%s is writable, %d MiB free", "%s 可写，剩余 %d MiB"), dir, free>>20)
	}
}

// runs looks for runs that are not at their end, and whether a process works on
// them.
func (d *doctor) runs(ctx context.Context) {
	t := d.a.t
	dir, err := d.state()
	if err != nil {
		return // stateDir says so
	}
	journals, err := filepath.Glob(filepath.Join(dir, "*", "journal.jsonl"))
	if err != nil || len(journals) == 0 {
		d.add("runs", checkOK, "", "%s", t("none yet", "尚无运行"))
		return
	}
	open := 0
	for _, j := range journals {
		if ctx.Err() != nil {
			return
		}
		run := filepath.Dir(j)
		r, err := upgrade.ReadReport(run)
		switch {
		case err != nil:
			open++
			d.add("runs", checkWarn, t("look at it: upgradectl audit "+run, "请查看：upgradectl audit "+run), "%s: %v", filepath.Base(run), err)
		case r.Live:
			open++
			d.add("runs", checkWarn, t("wait for it, or: upgradectl pause "+r.Run, "等待其结束，或：upgradectl pause "+r.Run), t("%s on %s: a process is at work", "%s（%s）：有进程正在执行"), r.Run, r.Host)
		case r.State != "succeeded" && r.State != "rolled-back":
			open++
			d.add("runs", checkWarn, t("go on with resume or rollback; what is left in the cloud shows: upgradectl gc", "用 resume 或 rollback 继续；云上遗留资源见：upgradectl gc"), t("%s on %s is %s at %s", "%s（%s）：%s，停在 %s"), r.Run, r.Host, r.State, cmp.Or(r.Step, "-"))
		}
	}
	if open == 0 {
		d.add("runs", checkOK, "", t("%d, all at their end", "共 %d 个，均已结束"), len(journals))
	}
}

// ssh looks at what connections would be made with. None is made.
func (d *doctor) ssh() {
	t := d.a.t
	if p, err := exec.LookPath("ssh"); err != nil {
		d.add("ssh", checkWarn, t("only needed to ask it for its settings (ssh -G); ssh_config is read without it", "仅用于读取其设置（ssh -G）；没有它也会读取 ssh_config"), "%s", t("there is no ssh program", "没有 ssh 程序"))
	} else {
		d.add("ssh", checkOK, "", "%s", p)
	}
	cfg := hostinv.SSHConfig{}
	if d.cfg != nil {
		cfg.ConfigFile, cfg.KnownHosts = d.cfg.SSH.Config, d.cfg.SSH.KnownHosts
	}
	dialer, err := hostinv.NewDialer(cfg)
	if err != nil {
		d.add("ssh-config", checkFail, t("put the file right", "请修正该文件"), "%v", err)
	} else {
		_ = dialer.Close() // it has no connection
		d.add("ssh-config", checkOK, "", "%s", cmp.Or(cfg.ConfigFile, t("your own", "您自己的")))
	}
	d.knownHosts(cfg.KnownHosts)
	d.agent()
}

func (d *doctor) knownHosts(files []string) {
	t := d.a.t
	if len(files) == 0 {
		home, err := os.UserHomeDir()
		if err != nil {
			d.add("known-hosts", checkWarn, "", "%v", err)
			return
		}
		files = []string{filepath.Join(home, ".ssh", "known_hosts")}
	}
	lines := 0
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			d.add("known-hosts", checkFail, t("make it readable", "使其可读"), "%v", err)
			return
		}
		for l := range strings.SplitSeq(string(data), "\n") {
			if l = strings.TrimSpace(l); l != "" && !strings.HasPrefix(l, "#") {
				lines++
			}
		}
	}
	if lines == 0 {
		d.add("known-hosts", checkWarn, t("compare the host's fingerprint with one you trust, then add it; an unknown host key is never accepted", "核对主机指纹后加入；未知主机密钥绝不会被接受"), t("%s has no host keys", "%s 中没有主机密钥"), strings.Join(files, ", "))
		return
	}
	d.add("known-hosts", checkOK, "", t("%d keys in %s", "%d 个密钥，位于 %s"), lines, strings.Join(files, ", "))
}

func (d *doctor) agent() {
	t := d.a.t
	sock := d.getenv("SSH_AUTH_SOCK")
	if sock == "" {
		d.add("ssh-agent", checkOK, "", "%s", t("none (SSH_AUTH_SOCK is not set): key files are used", "无（未设置 SSH_AUTH_SOCK）：使用密钥文件"))
		return
	}
	c, err := net.DialTimeout("unix", sock, 3*time.Second)
	if err != nil {
		d.add("ssh-agent", checkWarn, t("start it again, or unset SSH_AUTH_SOCK", "重新启动它，或取消 SSH_AUTH_SOCK"), "%v", err)
		return
	}
	_ = c.Close()
	d.add("ssh-agent", checkOK, "", "%s", sock)
}

// cloud resolves the credentials and asks the API for one instance: that shows
// in one call whether it is reached, lets us in, and agrees about the time.
func (d *doctor) cloud(ctx context.Context) {
	t := d.a.t
	cfg := ecs.Config{Timeout: 30 * time.Second, Region: d.where.Region, Endpoint: d.where.Endpoint, Profile: d.where.Profile}
	c, err := ecs.New(cfg)
	if err != nil {
		d.add("credentials", checkFail, t("set them in the environment or in ~/.aliyun/config.json, and a region", "在环境变量或 ~/.aliyun/config.json 中设置凭证与地域"), "%s", oneLine(err))
		return
	}
	defer c.CloseIdleConnections()
	d.add("credentials", checkOK, "", t("from %s", "来自 %s"), c.CredentialSource())
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	_, err = c.GetInstance(ctx, "i-upgradectl-doctor")
	switch {
	case err == nil, errors.Is(err, ecs.ErrNotFound):
		d.add("api", checkOK, "", "%s", t("answers, and lets the credentials read instances", "可访问，且凭证可读取实例"))
		d.add("clock", checkOK, "", "%s", t("within what the cloud's signatures allow (15 minutes)", "在云端签名允许的误差之内（15 分钟）"))
	case errors.Is(err, ecs.ErrClock):
		d.add("clock", checkFail, t("set this machine's clock (NTP)", "请校准本机时钟（NTP）"), "%s", oneLine(err))
	case errors.Is(err, ecs.ErrRegion):
		d.add("api", checkFail, t("correct the region", "请更正地域"), "%s", oneLine(err))
	case errors.Is(err, ecs.ErrPermission):
		d.add("api", checkFail, t("grant what upgradectl policy prints", "请授予 upgradectl policy 输出的权限"), "%s", oneLine(err))
	case errors.Is(err, ecs.ErrCredentials):
		d.add("credentials", checkFail, t("use other credentials", "请更换凭证"), "%s", oneLine(err))
	default:
		d.add("api", checkFail, t("see whether this machine reaches it (proxy, firewall)", "请确认本机可访问（代理、防火墙）"), "%s", oneLine(err))
	}
}

// hosts connects to the hosts of the configuration, one after another.
func (d *doctor) hosts(ctx context.Context) {
	t := d.a.t
	cfg := *d.cfg
	targets := []string{cfg.Host}
	for _, n := range cfg.Nginx {
		targets = append(targets, n.Host)
	}
	for _, h := range targets {
		err := upgrade.CheckLogin(ctx, &cfg, h, 30*time.Second)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			d.add("host", checkFail, t("the message says what is missing; ssh "+h+" should work without a question", "消息说明了缺什么；应能直接 ssh "+h+" 登录"), "%s: %s", h, oneLine(err))
			continue
		}
		d.add("host", checkOK, "", t("%s lets us in", "%s 可登录"), h)
	}
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }
