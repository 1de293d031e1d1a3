package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/upgradectl/upgradectl/internal/shellq"
	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/upgrade"
)

// simulation is what `upgradectl simulate` was told.
type simulation struct {
	procedure string
	strategy  string // of a rebuild
	role      string // of the nodes of a rebuild
	speed     float64
	keep      string
	keepFor   time.Duration
	killAt    string
	finish    string
	served    service
	world     string // hidden: serve the world of --keep in this process
}

func newSimulate(a *app) *cobra.Command {
	var s simulation
	cmd := &cobra.Command{
		Use:   "simulate",
		Short: a.t("run a whole upgrade in a simulated world: no account, no root, nothing installed", "在模拟环境中完整演练一次升级：无需账号、root 或安装任何软件"),
		Long: a.t(`simulate builds a world (a cloud, a production host with containers and Java
processes, two nginx hosts, a load balancer, clients that never stop), runs the
whole procedure in it through the real client code, and ends with the figures.
It exits 0 only if no request failed and nothing was lost or left behind.

With --procedure rebuild the world is a firstbox with its scripts, physical
hosts and pairs of management nodes; the pair of --role (proxies, unless told
otherwise) is replaced by new virtual machines. Only requests that overlap the
moment in which the floating address moves may fail; they are counted apart
(gap_ms, gap_failed).`,
			`simulate 构建一个模拟环境（云、带容器与 Java 进程的生产主机、两台 nginx、负载均衡、
持续不断的客户端），用真实的客户端代码执行完整流程，最后给出统计。
只有没有任何请求失败、没有任何丢失或遗留时才返回 0。

使用 --procedure rebuild 时，模拟环境为 firstbox 及其脚本、物理机和成对的管理节点，
--role 指定的一对（默认 proxy）会被新的虚拟机替换。只有与 VIP 漂移窗口重叠的请求允许失败，并单独统计（gap_ms、gap_failed）。`),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			switch {
			case s.procedure != upgrade.ProcedureTransition && s.procedure != upgrade.ProcedureRebuild:
				return usagef(a.t("--procedure is transition or rebuild, not %q", "--procedure 必须是 transition 或 rebuild，而不是 %q"), s.procedure)
			case s.strategy != "" && s.procedure != upgrade.ProcedureRebuild:
				return usagef(a.t("--strategy needs --procedure rebuild", "--strategy 需要与 --procedure rebuild 一起使用"))
			case s.strategy != "" && s.strategy != upgrade.StrategySideBySide && s.strategy != upgrade.StrategyInPlace:
				return usagef(a.t("--strategy is side-by-side or in-place, not %q", "--strategy 必须是 side-by-side 或 in-place，而不是 %q"), s.strategy)
			case s.role != "" && s.procedure != upgrade.ProcedureRebuild:
				return usagef(a.t("--role needs --procedure rebuild", "--role 需要与 --procedure rebuild 一起使用"))
			case s.role != "" && !slices.Contains(sim.Roles(), s.role):
				return usagef(a.t("--role is one of %s, not %q", "--role 必须是 %s 之一，而不是 %q"), strings.Join(sim.Roles(), ", "), s.role)
			case !(s.speed > 0) || math.IsInf(s.speed, 1): // NaN neither
				return usagef(a.t("--speed is a number greater than 0", "--speed 必须大于 0"))
			case s.world != "" && s.procedure == upgrade.ProcedureRebuild:
				return sim.ServeRebuild(ctx, s.world, sim.RebuildConfig{Role: s.role, Strategy: s.strategy, Speed: s.speed}, s.keepFor)
			case s.world != "":
				return sim.Serve(ctx, s.world, sim.Config{Speed: s.speed}, s.keepFor)
			case s.finish != "":
				return s.finishWorld(ctx, a)
			case s.served.addr != "":
				return s.served.run(ctx, a, s.speed)
			case s.served.unused() != "":
				return usagef(a.t("--%s needs --serve", "--%s 需要与 --serve 一起使用"), s.served.unused())
			case s.keep != "":
				return s.kept(ctx, a)
			case s.killAt != "":
				return usagef(a.t("--kill-at needs --keep DIR: a world that outlives the command", "--kill-at 需要与 --keep DIR 一起使用"))
			}
			return s.once(ctx, a)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&s.procedure, "procedure", upgrade.ProcedureTransition, a.t("which procedure: transition or rebuild", "演练的流程：transition 或 rebuild"))
	fl.StringVar(&s.strategy, "strategy", "", a.t("of a rebuild: side-by-side (new machines beside the old ones) or in-place (each at its old one's place)", "rebuild 的策略：side-by-side（新旧并存）或 in-place（原地逐台替换）"))
	fl.StringVar(&s.role, "role", "", a.t("with --procedure rebuild: which nodes, proxy (the default), webservice or dnsmaster", "与 --procedure rebuild 一起使用：替换哪类节点，proxy（默认）、webservice 或 dnsmaster"))
	fl.Float64Var(&s.speed, "speed", 100, a.t("how much faster than a real cloud the world's clock runs", "模拟时钟相对真实云的倍速"))
	fl.StringVar(&s.keep, "keep", "", a.t("leave the world running in a process of its own, with an operator's files in this directory", "让模拟环境在独立进程中继续运行，并把运维文件写入该目录"))
	fl.DurationVar(&s.keepFor, "keep-for", time.Hour, a.t("when a kept world stops by itself", "保留的模拟环境自动停止的时间"))
	fl.StringVar(&s.killAt, "kill-at", "", a.t("with --keep: end this process by SIGKILL at STEP[:intent|effect|done]", "与 --keep 一起使用：在 步骤[:intent|effect|done] 处用 SIGKILL 结束本进程"))
	fl.StringVar(&s.finish, "finish", "", a.t("check the world kept in this directory, print the figures, and stop it", "检查该目录中保留的模拟环境，输出统计并停止它"))
	s.served.flags(a, fl)
	fl.StringVar(&s.world, "world", "", "")
	_ = fl.MarkHidden("world")
	return cmd
}

// killPoint splits --kill-at. The step is checked by the run itself: an
// unknown one would never be reached.
func (s *simulation) killPoint() (step, at string, err error) {
	step, at, found := strings.Cut(s.killAt, ":")
	if !found {
		at = "effect"
	}
	if step == "" || at != "intent" && at != "effect" && at != "done" {
		return "", "", usagef("--kill-at is STEP[:intent|effect|done], not %q", s.killAt)
	}
	return step, at, nil
}

// observer passes events on and, at the point of --kill-at, ends this process
// as kill -9 would: no deferred call, no last record.
func (s *simulation) observer(a *app) (func(upgrade.Event), error) {
	if s.killAt == "" {
		return a.observe, nil
	}
	step, at, err := s.killPoint()
	if err != nil {
		return nil, err
	}
	return func(e upgrade.Event) {
		a.observe(e)
		if e.Step == step && e.Kind == at {
			a.progress("%s", a.t("killed at "+s.killAt, "在 "+s.killAt+" 处被终止"))
			if p, err := os.FindProcess(os.Getpid()); err == nil {
				_ = p.Kill()
			}
			select {} // the signal ends the process; nothing may happen meanwhile
		}
	}, nil
}

// apply plans and runs the upgrade as an operator would, from the files.
func (s *simulation) apply(ctx context.Context, a *app, op sim.Operator) (*upgrade.Result, error) {
	observe, err := s.observer(a)
	if err != nil {
		return nil, err
	}
	cfg, err := upgrade.LoadConfig(op.Config)
	if err != nil {
		return nil, err
	}
	access := &upgrade.Access{AccessKeyID: op.AccessKeyID, AccessKeySecret: op.AccessKeySecret, Held: a.held}
	e, err := upgrade.NewEnv(cfg, access)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	facts, err := upgrade.Discover(ctx, cfg, e)
	if err != nil {
		return nil, err
	}
	p, err := upgrade.BuildPlan(cfg, facts, time.Now(), version())
	if err != nil {
		return nil, err
	}
	stored, err := p.JSON()
	if err != nil {
		return nil, err
	}
	if s.killAt != "" {
		if step, _, _ := s.killPoint(); !p.HasStep(step) {
			return nil, usagef("--kill-at: the plan has no step %q", step)
		}
	}
	o := (&runFlags{by: "simulate", yes: true}).options(a)
	o.Observer, o.Access = observe, access
	defer a.moves()()
	return upgrade.Apply(ctx, filepath.Join(op.Dir, "run"), upgrade.NewRunID(time.Now()), stored, o)
}

// once runs everything in this process and leaves nothing.
func (s *simulation) once(ctx context.Context, a *app) error {
	if s.procedure == upgrade.ProcedureRebuild {
		w, err := sim.NewRebuild(ctx, sim.RebuildConfig{Role: s.role, Strategy: s.strategy, Speed: s.speed})
		if err != nil {
			return err
		}
		return runOnce(ctx, a, s, w, a.rebuildFigures)
	}
	w, err := sim.New(ctx, sim.Config{Speed: s.speed})
	if err != nil {
		return err
	}
	return runOnce(ctx, a, s, w, a.figures)
}

// A world is what the simulated worlds have in common; F is what it counts.
type world[F any] interface {
	WriteOperatorFiles(dir string) (sim.Operator, error)
	Finish(context.Context) (F, error)
	Close() error
}

// runOnce closes w.
func runOnce[F any](ctx context.Context, a *app, s *simulation, w world[F], judge func(F, string, time.Time) error) (err error) {
	began := time.Now()
	defer func() { err = errors.Join(err, w.Close()) }()
	dir, err := os.MkdirTemp("", "upgradectl-simulate-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	op, err := w.WriteOperatorFiles(dir)
	if err != nil {
		return err
	}
	switch r, err := s.apply(ctx, a, op); {
	case err != nil:
		return runError(err)
	case r.State == "interrupted":
		a.progress(a.t("interrupted at %s; this world is gone with its process, one of --keep DIR stays and can be resumed", "中断于 %s；该模拟环境已随进程消失，用 --keep DIR 可保留环境并续跑"), r.Step)
		return &exitError{code: r.ExitStatus()}
	}
	figures, err := w.Finish(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	return judge(figures, filepath.Join(dir, "run"), began)
}

// A keptWorld is a world that another process serves.
type keptWorld[F any] interface {
	Figures(context.Context) (F, error)
	Finish(context.Context) (F, error)
}

// kept runs the upgrade against a world in a process of its own.
func (s *simulation) kept(ctx context.Context, a *app) error {
	if _, _, err := s.killPoint(); s.killAt != "" && err != nil {
		return err
	}
	if s.procedure == upgrade.ProcedureRebuild {
		return runKept(ctx, a, s, attachRebuild, a.rebuildFigures)
	}
	return runKept(ctx, a, s, attachTransition, a.figures)
}

func attachTransition(dir string) (keptWorld[sim.Figures], sim.Operator, error) {
	r, err := sim.Attach(dir)
	if err != nil {
		return nil, sim.Operator{}, err
	}
	return r, r.Operator, nil
}

func attachRebuild(dir string) (keptWorld[sim.RebuildFigures], sim.Operator, error) {
	r, err := sim.AttachRebuild(dir)
	if err != nil {
		return nil, sim.Operator{}, err
	}
	return r, r.Operator, nil
}

func runKept[F any](ctx context.Context, a *app, s *simulation, attach func(string) (keptWorld[F], sim.Operator, error), judge func(F, string, time.Time) error) error {
	dir, err := filepath.Abs(s.keep)
	if err != nil {
		return err
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return &exitError{code: exitRefused, err: fmt.Errorf("cannot keep a world in %s: it is not empty", dir)}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(dir, "world.log"), os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	began := time.Now()
	world := exec.Command(self, "simulate", "--world", dir, "--procedure", s.procedure, "--role", s.role, "--strategy", s.strategy, "--speed", strconv.FormatFloat(s.speed, 'g', -1, 64), "--keep-for", s.keepFor.String())
	world.Stdout, world.Stderr = log, log
	detach(world)
	if err := world.Start(); err != nil {
		return err
	}
	// The world is not our child for long: it outlives us, and its end is
	// its own business. Only a death before it is ready is ours to report.
	died := make(chan error, 1)
	go func() { died <- world.Wait() }()
	remote, op, err := waitKept(ctx, dir, died, attach)
	if err != nil {
		return fmt.Errorf("%w (see %s)", err, log.Name())
	}
	a.progress(a.t("the world runs in process %d for %s; its files are in %s", "模拟环境运行于进程 %d，保留 %s；文件位于 %s"), world.Process.Pid, s.keepFor, dir)
	enter := "cd " + shellq.Quote(dir)
	if op.EnvFile != "" {
		enter += " && . ./env.sh"
	}
	a.progress(a.t("from another terminal: %s && upgradectl status run; in the end: upgradectl simulate --finish %s", "在其他终端：%s && upgradectl status run；最后：upgradectl simulate --finish %s"), enter, shellq.Quote(dir))
	r, err := s.apply(ctx, a, op)
	switch {
	case err != nil:
		if as[*usageError](err) { // a mistyped step is no reason to keep a world
			_, end := remote.Finish(ctx)
			err = errors.Join(err, end)
		}
		return runError(err)
	case r.State == "interrupted":
		return a.finish(r, nil)
	}
	figures, err := remote.Figures(ctx)
	if err != nil {
		return err
	}
	return judge(figures, filepath.Join(dir, "run"), began)
}

// waitKept waits until the world in dir is ready.
func waitKept[F any](ctx context.Context, dir string, died <-chan error, attach func(string) (keptWorld[F], sim.Operator, error)) (keptWorld[F], sim.Operator, error) {
	t := time.NewTicker(50 * time.Millisecond)
	defer t.Stop()
	for {
		r, op, err := attach(dir)
		if err == nil {
			return r, op, nil
		}
		select {
		case <-ctx.Done():
			return nil, op, ctx.Err()
		case err := <-died:
			return nil, op, fmt.Errorf("the world's process ended: %v", err)
		case <-t.C:
		}
	}
}

// finishWorld ends a kept world. Which one it is, its operator's file says.
func (s *simulation) finishWorld(ctx context.Context, a *app) error {
	run := filepath.Join(s.finish, "run")
	if cfg, err := upgrade.LoadConfig(filepath.Join(s.finish, "upgrade.yaml")); err == nil && cfg.Procedure == upgrade.ProcedureRebuild {
		r, err := sim.AttachRebuild(s.finish)
		if err != nil {
			return err
		}
		figures, err := r.Finish(ctx)
		if err != nil {
			return err
		}
		return a.rebuildFigures(figures, run, figures.Since)
	}
	r, err := sim.Attach(s.finish)
	if err != nil {
		return err
	}
	figures, err := r.Finish(ctx)
	if err != nil {
		return err
	}
	return a.figures(figures, run, figures.Since)
}

// simulated is the result of a simulation.
type simulated struct {
	Outcome         string   `json:"outcome"`
	Requests        int64    `json:"requests"`
	Failed          int64    `json:"failed"`
	P50             float64  `json:"p50_ms"`
	P99             float64  `json:"p99_ms"`
	MinHealthy      int      `json:"min_healthy"`
	Steps           int      `json:"steps"` // done
	Created         int      `json:"created"`
	Leaked          int      `json:"leaked"`
	KeptSnapshots   int      `json:"kept_snapshots"`
	WeightsRestored bool     `json:"weights_restored"`
	NginxRestored   bool     `json:"nginx_restored"`
	KernelBefore    string   `json:"kernel_before"`
	KernelAfter     string   `json:"kernel_after"`
	Duration        float64  `json:"duration_s"`
	Problems        []string `json:"problems"`
}

// figures prints what the world counted and judges it by how the run ended.
func (a *app) figures(f sim.Figures, run string, began time.Time) error {
	rep, err := upgrade.ReadReport(run)
	if err != nil {
		return runError(err)
	}
	res := simulated{
		Outcome: rep.State, Requests: f.Requests, Failed: f.Failed, P50: f.P50, P99: f.P99, MinHealthy: f.MinHealthy, Steps: rep.Counts()["done"],
		Created: f.Created, Leaked: f.Leaked, KeptSnapshots: f.KeptSnapshots, WeightsRestored: f.WeightsRestored, NginxRestored: f.NginxRestored,
		KernelBefore: f.KernelBefore, KernelAfter: f.KernelAfter, Duration: time.Since(began).Seconds(), Problems: f.CheckEnd(rep.State),
	}
	if res.Problems == nil {
		res.Problems = []string{}
	}
	if err := a.result(res, func(w io.Writer) {
		fmt.Fprintf(w, "\n%s: %s → %s, %s\n", rep.Host, f.KernelBefore, f.KernelAfter, rep.State)
		if rep.Reason != "" && rep.State != "succeeded" {
			fmt.Fprintf(w, "  %s: %s\n", rep.Step, rep.Reason)
		}
		fmt.Fprintf(w, a.t("  requests   %d sent, %d failed; latency p50 %.1f ms, p99 %.1f ms\n", "  请求       共 %d，失败 %d；延迟 p50 %.1f ms，p99 %.1f ms\n"), f.Requests, f.Failed, f.P50, f.P99)
		fmt.Fprintf(w, a.t("  backends   never fewer than %d healthy in a group\n", "  后端       每组健康后端最少时为 %d\n"), f.MinHealthy)
		fmt.Fprintf(w, a.t("  steps      %d done\n", "  步骤       完成 %d\n"), res.Steps)
		fmt.Fprintf(w, a.t("  resources  %d made, %d left behind, %d snapshots kept until their retention ends\n", "  资源       创建 %d，遗留 %d，按保留期保留快照 %d\n"), f.Created, f.Leaked, f.KeptSnapshots)
		fmt.Fprintf(w, a.t("  restored   nginx files %t, weights %t\n", "  恢复       nginx 文件 %t，权重 %t\n"), f.NginxRestored, f.WeightsRestored)
		fmt.Fprintf(w, a.t("  took       %.1f s\n", "  用时       %.1f 秒\n"), res.Duration)
		for _, p := range res.Problems {
			fmt.Fprintf(w, a.t("  PROBLEM    %s\n", "  问题       %s\n"), p)
		}
	}); err != nil {
		return err
	}
	return simulationStatus(rep.State, res.Problems)
}

// simulationStatus is the exit status of a simulation whose run ended so.
func simulationStatus(state string, problems []string) error {
	switch {
	case len(problems) > 0:
		return &exitError{code: exitFailed}
	case state == "parked":
		return &exitError{code: exitParked}
	case state == "interrupted":
		return &exitError{code: exitInterrupted}
	case state != "succeeded" && state != "rolled-back":
		return &exitError{code: exitFailed}
	}
	return nil
}
