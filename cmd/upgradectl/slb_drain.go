package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/upgradectl/upgradectl/hostinv"
	"github.com/upgradectl/upgradectl/slb"
)

// membershipView is a membership for machines.
type membershipView struct {
	Product            string         `json:"product"`
	LoadBalancer       string         `json:"load_balancer"`
	LoadBalancerName   string         `json:"load_balancer_name"`
	LoadBalancerStatus string         `json:"load_balancer_status"`
	Address            string         `json:"address"`
	Group              string         `json:"group"` // "default", rsp-…, sgp-…
	GroupName          string         `json:"group_name"`
	PrimarySecondary   bool           `json:"primary_secondary"`
	Managed            bool           `json:"managed"`
	Protected          bool           `json:"protected"`
	Member             backendView    `json:"member"`
	Listeners          []listenerView `json:"listeners"`
	Members            []backendView  `json:"members"`
	Findings           []slb.Finding  `json:"findings"`
}

// These have the fields of slb.Backend, slb.Listener and slb.Health in the same
// order, so that those convert.
type (
	backendView struct {
		ServerID    string `json:"server_id"`
		Type        string `json:"type"`
		ServerIP    string `json:"server_ip"`
		Description string `json:"description"`
		Port        int    `json:"port"`
		Weight      int    `json:"weight"`
	}
	listenerView struct {
		LoadBalancerID string `json:"load_balancer"`
		ID             string `json:"id"`
		Port           int    `json:"port"`
		Protocol       string `json:"protocol"`
		Scheduler      string `json:"scheduler"`
		Status         string `json:"status"`
		BackendPort    int    `json:"backend_port"`
		HealthCheck    bool   `json:"health_check"`
		Sticky         bool   `json:"sticky"`
		StickySeconds  int    `json:"sticky_seconds"`
		DrainSeconds   int    `json:"drain_seconds"`
		Rule           string `json:"rule"`
		Domain         string `json:"domain"`
		URL            string `json:"url"`
	}
	healthView struct {
		ListenerPort int    `json:"listener_port"`
		Port         int    `json:"port"`
		Protocol     string `json:"protocol"`
		ServerID     string `json:"server_id"`
		ServerIP     string `json:"server_ip"`
		Status       string `json:"status"`
	}
)

func viewOf(m slb.Membership) membershipView {
	v := membershipView{
		Product: string(cmp.Or(m.Product, slb.CLB)), LoadBalancer: m.LoadBalancerID, LoadBalancerName: m.LoadBalancerName, LoadBalancerStatus: m.LoadBalancerStatus,
		Address: m.Address, Group: groupName(m), GroupName: m.VServerGroupName, PrimarySecondary: m.MasterSlaveGroupID != "", Managed: m.Managed, Protected: m.Protected,
		Member: backendView(m.Backend), Listeners: []listenerView{}, Members: []backendView{}, Findings: nonNil(m.Findings()),
	}
	for _, l := range m.Listeners {
		v.Listeners = append(v.Listeners, listenerView(l))
	}
	for _, b := range m.Backends {
		v.Members = append(v.Members, backendView(b))
	}
	return v
}

// A savedWeight is one element of the file that drain writes and weight
// --restore reads.
type savedWeight struct {
	Group   slb.Group   `json:"group"`
	Backend slb.Backend `json:"backend"` // as it was, with the weight to give back
	Set     int         `json:"set"`     // what it was set to
}

// saveWeights writes a new file and has it on disk before it returns. A file that
// an earlier attempt at the same drain wrote stays: what it holds is from before.
func saveWeights(name string, targets []slb.Target) error {
	var all []savedWeight
	for _, t := range targets {
		all = append(all, savedWeight{Group: t.Membership.Group(), Backend: t.Backend})
	}
	data, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		data, err := os.ReadFile(name)
		if err != nil {
			return fmt.Errorf("cannot keep the weights: %w", err)
		}
		if before, err := parseWeights(data); err != nil || !sameMembers(before, all) {
			return fmt.Errorf("cannot keep the weights: %s exists and is not of an earlier attempt at this drain; name another file", name)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot keep the weights: %w", err)
	}
	_, err = f.Write(append(data, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		// Half of it would stand in the way of the next attempt.
		return fmt.Errorf("cannot keep the weights: %w", errors.Join(err, os.Remove(name)))
	}
	return nil
}

// sameMembers reports whether before is of an earlier attempt: the same members,
// none of which had less weight then than now.
func sameMembers(before, now []savedWeight) bool {
	return len(before) == len(now) && !slices.ContainsFunc(now, func(n savedWeight) bool {
		return !slices.ContainsFunc(before, func(b savedWeight) bool {
			was, is := b.Backend, n.Backend
			return b.Group == n.Group && was.ServerID == is.ServerID && was.ServerIP == is.ServerIP && was.Port == is.Port && was.Weight >= is.Weight
		})
	})
}

// parseWeights reads what saveWeights wrote. It is strict: a weight that a typing
// error hides would be given back as 0.
func parseWeights(data []byte) ([]savedWeight, error) {
	var all []struct {
		Group   *slb.Group `json:"group"`
		Backend *struct {
			slb.Backend
			Weight *int `json:"weight"`
		} `json:"backend"`
		Set int `json:"set"`
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&all); err != nil {
		return nil, err
	}
	var out []savedWeight
	for n, x := range all {
		switch {
		case x.Group == nil || x.Backend == nil || x.Backend.ServerID == "":
			return nil, fmt.Errorf("element %d names no group or no server", n+1)
		case x.Backend.Weight == nil || *x.Backend.Weight < 0 || *x.Backend.Weight > 100:
			return nil, fmt.Errorf("element %d (%s) has no weight of 0 to 100", n+1, x.Backend.Backend)
		}
		b := x.Backend.Backend
		b.Weight = *x.Backend.Weight
		out = append(out, savedWeight{Group: *x.Group, Backend: b, Set: x.Set})
	}
	return out, nil
}

// restoreWeights is weight --restore FILE. A weight that is neither what drain
// set nor what it was is left to whoever changed it.
func restoreWeights(ctx context.Context, a *app, c *cloudFlags, x *execution, name string) error {
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	all, err := parseWeights(data)
	if err != nil {
		return fmt.Errorf("cannot read %s: %w", name, err)
	}
	client, err := c.slb()
	if err != nil {
		return err
	}
	var what []string
	var todo []slb.Change
	for _, s := range all {
		members, err := client.ListBackends(ctx, s.Group)
		if err != nil {
			return err
		}
		n := slices.IndexFunc(members, func(b slb.Backend) bool {
			return b.ServerID == s.Backend.ServerID && b.Port == s.Backend.Port && (s.Backend.ServerIP == "" || b.ServerIP == "" || b.ServerIP == s.Backend.ServerIP)
		})
		switch {
		case n >= 0 && members[n].Weight == s.Backend.Weight:
			continue
		case n < 0 || members[n].Weight != s.Set:
			// Steps on the way down may have been left by an interrupted drain.
			if n < 0 || members[n].Weight > s.Backend.Weight {
				ours := s.Backend
				ours.Weight = s.Set
				e := &slb.ConflictError{Group: s.Group, Was: ours, Want: s.Backend.Weight}
				if n >= 0 {
					e.Now = &members[n]
				}
				return e
			}
		}
		what = append(what, fmt.Sprintf("weight of %s in %s: %d -> %d", members[n], s.Group, members[n].Weight, s.Backend.Weight))
		todo = append(todo, slb.Change{Group: s.Group, Backend: members[n], Weight: s.Backend.Weight})
	}
	return x.change(a, what, func() error { return client.SetWeights(ctx, todo) })
}

// l7Peers is where CLB's HTTP proxies and all its health checks come from.
var l7Peers = netip.MustParsePrefix("100.64.0.0/10")

// connectionProof counts established connections to the members' ports on the
// host that they are. Behind an HTTP listener of CLB only its proxies count;
// elsewhere every peer does, because it cannot be told from a client.
func connectionProof(h hostinv.Host, name string, targets []slb.Target) slb.Proof {
	anyPeer := map[int]bool{} // by port
	var udp []int
	for _, t := range targets {
		for _, l := range t.Membership.Listeners {
			port := cmp.Or(t.Backend.Port, l.BackendPort)
			if l.Protocol == "udp" {
				if !slices.Contains(udp, port) {
					udp = append(udp, port)
				}
				continue
			}
			l7 := cmp.Or(t.Membership.Product, slb.CLB) == slb.CLB && (l.Protocol == "http" || l.Protocol == "https")
			anyPeer[port] = anyPeer[port] || !l7
		}
	}
	return func(ctx context.Context) (slb.Evidence, error) {
		e := slb.Evidence{Source: "connections on " + name}
		conns, err := hostinv.ListConnections(ctx, h)
		if err != nil {
			return e, err
		}
		n := map[int]int{}
		total := 0
		for _, c := range conns {
			wide, ours := anyPeer[c.LocalPort]
			peer, err := netip.ParseAddr(c.RemoteIP)
			if !ours || c.State != "ESTABLISHED" || err != nil || peer.Unmap().IsLoopback() || !wide && !l7Peers.Contains(peer.Unmap()) {
				continue
			}
			n[c.LocalPort]++
			total++
		}
		var ports []string
		for _, p := range slices.Sorted(func(yield func(int) bool) {
			for p := range anyPeer {
				if !yield(p) {
					return
				}
			}
		}) {
			ports = append(ports, fmt.Sprintf("%d on port %d", n[p], p))
		}
		for _, p := range udp {
			ports = append(ports, fmt.Sprintf("UDP port %d has none to count", p))
		}
		e.Silent, e.Detail = total == 0, strings.Join(ports, ", ")
		return e, nil
	}
}

func newSLBDrain(a *app, c *cloudFlags) *cobra.Command {
	x, s, ssh := &execution{}, &selection{}, &sshFlags{}
	var save, host, policy string
	var steps []int
	var deadline, quiet time.Duration
	var empty bool
	cmd := &cobra.Command{
		Use:   "drain SERVER --host TARGET --save FILE",
		Short: a.t("weight 0 everywhere, then wait until the host itself says that nothing is connected any more", "所有组权重置 0，并等到主机上确认不再有连接"),
		Long: a.t(`Drain refuses what weight 0 cannot drain (managed or protected balancers,
schedulers without weights, primary/secondary groups, a group in which nobody
else is healthy). The weights of before are on disk before the first one
changes; "slb weight --restore FILE" gives them back. Ports that a container
publishes by address translation alone do not show on the host: check those there.`,
			`以下情况拒绝执行：由其他服务托管或受保护的实例、不按权重调度的监听、主备服务器组、组内没有其他健康后端。
修改之前先把原权重写入文件；slb weight --restore 文件 可恢复。仅由地址转换发布的容器端口不会出现在主机连接表里，请另行确认。`),
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if !slices.Contains([]string{"hold", "ask", "force"}, policy) {
				return usagef("--policy is hold, ask or force, not %q", policy)
			}
			if x.execute && (save == "" || host == "") {
				return usagef("drain --execute needs --save FILE for the weights of before, and --host TARGET (an SSH destination, or local) to see the connections on")
			}
			client, list, err := memberships(ctx, c, args[0], *s)
			if err != nil {
				return err
			}
			if len(list) == 0 {
				return s.none(args[0])
			}
			var targets []slb.Target
			var what []string
			for _, m := range list {
				targets = append(targets, slb.Target{Membership: m, Backend: m.Backend, Weight: m.Backend.Weight})
				if m.Backend.Weight > 0 {
					what = append(what, fmt.Sprintf("weight of %s in %s: %d -> 0", m.Backend, m.Group(), m.Backend.Weight))
				}
			}
			// Also where every weight is 0 already: that alone is not silence.
			what = append(what, fmt.Sprintf("wait until %s is silent, for %s at most", args[0], deadline))
			findings, err := client.CheckDrain(ctx, targets)
			if err != nil {
				return err
			}
			refused := &slb.RefusedError{}
			for _, f := range findings {
				if f.Blocking && !(empty && f.Kind == slb.KindLast) {
					refused.Findings = append(refused.Findings, f)
				} else {
					a.progress("%s", f)
				}
			}
			if len(refused.Findings) > 0 {
				return &exitError{exitRefused, refused}
			}
			var report *slb.DrainReport
			drain := func() error {
				var h hostinv.Host = localHost{}
				if host != "local" {
					conn, err := ssh.dial(ctx, a, host)
					if err != nil {
						return err
					}
					defer conn.Close()
					h = conn
				}
				proof := connectionProof(h, host, targets)
				if _, err := proof(ctx); err != nil { // before anything changes
					return err
				}
				if err := saveWeights(save, targets); err != nil {
					return err
				}
				done, err := client.Drain(ctx, targets, slb.DrainOptions{
					Steps: steps, Proofs: []slb.Proof{proof}, Quiet: quiet, Deadline: deadline, Policy: slb.Policy(policy), AllowEmpty: empty,
					Progress: func(line string) { a.progress("%s", line) },
					Ask: func(_ context.Context, last []slb.Evidence) (bool, error) {
						for _, e := range last {
							a.progress("%s: %s", e.Source, e.Detail)
						}
						a.progress("%s", a.t("not silent yet: go on by force? [y/N] (N waits on)", "仍有连接：强制继续？[y/N]（N 为继续等待）"))
						line, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
						if err != nil && !errors.Is(err, io.EOF) {
							return false, err
						}
						if errors.Is(err, io.EOF) && line == "" {
							return false, &slb.NotSilentError{Evidence: last}
						}
						return strings.EqualFold(strings.TrimSpace(line), "y"), nil
					},
				})
				if as[*slb.RefusedError](err) { // the world changed since it was looked at
					return &exitError{exitRefused, err}
				}
				if err != nil {
					err = fmt.Errorf("%w (the weights of before are in %s: upgradectl slb weight --restore %s)", err, save, save)
					if as[*slb.NotSilentError](err) {
						return &exitError{exitFailed, err} // the same again goes on
					}
					return err
				}
				report = &done
				return nil
			}
			if x.execute {
				if err := drain(); err != nil {
					return err
				}
			}
			return a.result(struct {
				Executed bool             `json:"executed"`
				Changes  []string         `json:"changes"`
				Report   *slb.DrainReport `json:"report,omitempty"`
			}{x.execute, what, report}, func(w io.Writer) {
				for _, line := range what {
					fmt.Fprintln(w, line)
				}
				switch {
				case report == nil:
					fmt.Fprintln(w, a.unchanged())
				case report.Forced:
					fmt.Fprintln(w, a.t("forced: connections were left", "已强制继续：仍有连接"))
				default:
					fmt.Fprintln(w, a.t("done", "已执行"))
				}
				if report != nil {
					for _, e := range report.Evidence {
						fmt.Fprintf(w, "%s: %s\n", e.Source, e.Detail)
					}
				}
			})
		},
	}
	s.flags(a, cmd)
	ssh.flags(a, cmd)
	f := cmd.Flags()
	f.StringVar(&host, "host", "", a.t("where the server's connections are seen: an SSH destination, or local", "查看连接的主机：SSH 目标，或 local"))
	f.StringVar(&save, "save", "", a.t("new file for the weights of before", "保存原权重的新文件"))
	f.StringVar(&policy, "policy", "hold", a.t("at the deadline: hold (stop, weights stay 0), ask or force", "到期后：hold（停止并保持 0）、ask 或 force"))
	f.DurationVar(&deadline, "deadline", 10*time.Minute, a.t("how long to wait for silence", "等待静默的最长时间"))
	f.DurationVar(&quiet, "quiet", 10*time.Second, a.t("how long silence must last", "静默须持续的时间"))
	f.IntSliceVar(&steps, "steps", nil, a.t("weights on the way down, as 50,10,1", "逐级下降的权重，如 50,10,1"))
	f.BoolVar(&empty, "allow-empty", false, a.t("allow that a group is left without a serving member", "允许组内不再有可用后端"))
	x.flag(a, cmd)
	return cmd
}
