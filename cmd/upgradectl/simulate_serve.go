package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"github.com/upgradectl/upgradectl/internal/sim"
	"github.com/upgradectl/upgradectl/internal/sim/cloud"
)

// service is the simulated cloud that `simulate --serve` offers to any client.
type service struct {
	addr, addrFile string
	withHosts      bool
	region         string
	keyID, secret  string
	token          string
	latency, busy  time.Duration
	visible        time.Duration
	throttle       string
	faults, deny   []string

	fl *pflag.FlagSet
}

// ownCloud are the flags that configure a cloud at its birth. The one of
// --with-hosts is born with its hosts.
var ownCloud = []string{"region", "access-key-id", "access-key-secret", "security-token", "latency", "busy", "visible-after", "throttle"}

func (s *service) flags(a *app, fl *pflag.FlagSet) {
	s.fl = fl
	fl.StringVar(&s.addr, "serve", "", a.t("only serve the simulated cloud API on this loopback address (HOST:PORT, port 0 = any), for any client, until interrupted", "只在该回环地址（主机:端口，0 表示任意端口）上提供模拟云 API，供任意客户端使用，直到被中断"))
	fl.StringVar(&s.addrFile, "addr-file", "", a.t("with --serve: write the endpoint to this file", "与 --serve 一起使用：把端点写入该文件"))
	fl.BoolVar(&s.withHosts, "with-hosts", false, a.t("with --serve: the runbook's hosts, nginx and balancer are there too", "与 --serve 一起使用：同时提供手册中的主机、nginx 与负载均衡"))
	fl.StringVar(&s.region, "region", "cn-hangzhou", a.t("with --serve: the region there is", "与 --serve 一起使用：模拟的地域"))
	fl.StringVar(&s.keyID, "access-key-id", "testak", a.t("with --serve: the access key that is accepted", "与 --serve 一起使用：接受的 AccessKey ID"))
	fl.StringVar(&s.secret, "access-key-secret", "testsk", a.t("with --serve: its secret, a test value and never a real one", "与 --serve 一起使用：对应的 Secret（仅测试值，切勿使用真实值）"))
	fl.StringVar(&s.token, "security-token", "", a.t("with --serve: the security token that every request must bring", "与 --serve 一起使用：每个请求必须携带的安全令牌"))
	fl.DurationVar(&s.latency, "latency", 0, a.t("with --serve: what every answer of the real cloud would take (divided by --speed)", "与 --serve 一起使用：真实云中每个应答的耗时（除以 --speed）"))
	fl.DurationVar(&s.busy, "busy", 0, a.t("with --serve: how long a real balancer refuses writes after each write (divided by --speed)", "与 --serve 一起使用：真实负载均衡每次写入后拒绝写入的时长（除以 --speed）"))
	fl.DurationVar(&s.visible, "visible-after", 0, a.t("with --serve: how long what was made is not seen by reads (divided by --speed)", "与 --serve 一起使用：新建对象多久之后才能被查询到（除以 --speed）"))
	fl.StringVar(&s.throttle, "throttle", "", a.t("with --serve: at most CALLS/SPAN of each action, as 20/1s", "与 --serve 一起使用：每个接口的限流，如 20/1s"))
	fl.StringArrayVar(&s.faults, "fault", nil, a.t("with --serve: ACTION=KIND[,code=C][,status=N][,times=N][,skip=N][,delay=D][,applied][,writes] (KIND: error, html, numeric-code, empty, cut, fails-later, stuck; ACTION * = any; times=-1 for ever)", "与 --serve 一起使用：注入故障 ACTION=KIND[,code=C][,status=N][,times=N][,skip=N][,delay=D][,applied][,writes]（KIND：error、html、numeric-code、empty、cut、fails-later、stuck；ACTION 为 * 表示任意；times=-1 表示一直）"))
	fl.StringSliceVar(&s.deny, "deny", nil, a.t("with --serve: actions that the key has no permission for", "与 --serve 一起使用：该密钥无权调用的接口"))
}

// unused names a flag that was given without --serve and means nothing then.
func (s *service) unused() string {
	for _, name := range append([]string{"addr-file", "with-hosts", "fault", "deny"}, ownCloud...) {
		if s.fl.Changed(name) {
			return name
		}
	}
	return ""
}

// A stock is what a client needs to make a first instance.
type stock struct {
	ImageID         string   `json:"image_id"`
	InstanceType    string   `json:"instance_type"`
	ZoneID          string   `json:"zone_id"`
	VpcID           string   `json:"vpc_id"`
	VSwitchID       string   `json:"vswitch_id"`
	SecurityGroupID string   `json:"security_group_id"`
	LogProject      string   `json:"log_project"`
	LogStore        string   `json:"log_store"`
	InstanceIDs     []string `json:"instance_ids"` // with --with-hosts
}

// served is the first line of --serve with --json.
type served struct {
	Endpoint        string `json:"endpoint"`
	Region          string `json:"region"`
	AccessKeyID     string `json:"access_key_id"`
	AccessKeySecret string `json:"access_key_secret"` // of the simulator: a test value
	Stock           stock  `json:"stock"`
}

// tally is the last line: what clients did, what they got wrong, and what they
// made and left.
type tally struct {
	Calls   map[string]int `json:"calls"` // that took effect, by action
	Refused []string       `json:"refused"`
	Created []leftover     `json:"created"`
}

type leftover struct {
	Type string            `json:"type"`
	ID   string            `json:"id"`
	Name string            `json:"name"`
	Tags map[string]string `json:"tags,omitempty"`
}

// run serves until ctx ends, which is no error.
func (s *service) run(ctx context.Context, a *app, speed float64) (err error) {
	faults, err := s.parseFaults()
	if err != nil {
		return err
	}
	throttle, err := s.parseThrottle()
	if err != nil {
		return err
	}
	for _, name := range s.deny {
		if !knownAction(name) {
			return usagef("--deny %s: the simulator has no action %s", name, name)
		}
	}
	if s.withHosts {
		for _, name := range ownCloud {
			if s.fl.Changed(name) {
				return usagef("--with-hosts and --%s cannot be given together", name)
			}
		}
	}
	ln, err := listenLoopback(s.addr)
	if err != nil {
		return err
	}
	defer func() { _ = ln.Close() }()
	out := served{Endpoint: "http://" + ln.Addr().String(), Region: s.region, AccessKeyID: s.keyID, AccessKeySecret: s.secret}
	var c *cloud.Cloud
	if s.withHosts {
		w, err := sim.New(ctx, sim.Config{Speed: speed, Rate: -1, Streams: -1})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, w.Close()) }()
		c = w.Cloud()
		op := w.Operator()
		out.Region, out.AccessKeyID, out.AccessKeySecret = op.Region, op.AccessKeyID, op.AccessKeySecret
	} else {
		c = cloud.New(cloud.Config{
			Region: s.region, AccessKeyID: s.keyID, AccessKeySecret: s.secret, SecurityToken: s.token,
			Speed: speed, Latency: s.latency, Throttle: throttle, VisibleAfter: s.visible,
			BusyTakes: max(s.busy, 1), // 0 would be the real cloud's, which simple clients do not survive
		})
		defer c.Close()
	}
	out.Stock = fill(c, out.Region)
	for _, f := range faults {
		c.InjectFault(f)
	}
	c.Deny(s.deny...)

	srv := &http.Server{Handler: noTunnels(c), ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: 10 * time.Second}
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(ln) })
	defer wg.Wait()
	defer func() { _ = srv.Close() }()
	if s.addrFile != "" {
		if err := os.WriteFile(s.addrFile, []byte(out.Endpoint+"\n"), 0o600); err != nil {
			return err
		}
	}
	if err := a.line(out, out.text); err != nil {
		return err
	}
	<-ctx.Done()
	t := tally{Calls: c.Counts(), Refused: c.Refused(), Created: []leftover{}}
	if t.Refused == nil {
		t.Refused = []string{}
	}
	for _, r := range c.Resources() {
		if r.CreatedByAPI {
			t.Created = append(t.Created, leftover{r.Type, r.ID, r.Name, r.Tags})
		}
	}
	return a.line(t, func(w io.Writer) { t.text(a, w) })
}

// noTunnels keeps requests for tunnels away from the cloud: clients that use
// it as an HTTP proxy may ask for one to a service with TLS (the SDK to the
// location service, for endpoints that it knows without it).
func noTunnels(c http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodConnect {
			http.Error(w, "the simulated cloud speaks plain HTTP and leads nowhere else", http.StatusForbidden)
			return
		}
		c.ServeHTTP(w, r)
	})
}

// listenLoopback listens where nothing but this machine comes in: the API has
// no TLS, and its key is a test value.
func listenLoopback(addr string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, usagef("--serve: %v", err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, &exitError{code: exitRefused, err: fmt.Errorf("cannot serve the simulated cloud on %s: it is not a loopback address", addr)}
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("cannot serve the simulated cloud: %w", err)
	}
	return ln, nil
}

// fill gives an account what it needs to begin: an image of the system, a
// network with a vSwitch, a security group, and a store with three rows of an
// access log.
func fill(c *cloud.Cloud, region string) stock {
	st := stock{
		ImageID: "aliyun_3_x64_20G_alibase_20250117.vhd", InstanceType: "ecs.g6.large", ZoneID: region + "-h",
		VpcID: "vpc-stock", VSwitchID: "vsw-stock", SecurityGroupID: "sg-stock",
		LogProject: "slb-log", LogStore: "access", InstanceIDs: []string{},
	}
	for _, r := range c.Resources() {
		if r.Type == "instance" {
			st.InstanceIDs = append(st.InstanceIDs, r.ID)
		}
	}
	c.AddVPC(cloud.VPC{ID: st.VpcID, Name: "stock", CIDR: "10.0.0.0/8"})
	c.AddVSwitch(cloud.VSwitch{ID: st.VSwitchID, Name: "stock", VPC: st.VpcID, Zone: st.ZoneID, CIDR: "10.0.0.0/20"})
	c.AddSecurityGroup(cloud.SecurityGroup{ID: st.SecurityGroupID, Name: "stock", VPC: st.VpcID})
	c.AddImage(cloud.Image{ID: st.ImageID, Name: st.ImageID, Owner: "system", OSName: "Alibaba Cloud Linux  3.2104 LTS 64位", Platform: "Aliyun", Size: 20})
	// Something to find for a client that reads logs.
	c.SetAccessLog("lb-stock", st.LogProject, st.LogStore)
	for i, status := range []int{200, 200, 502} {
		member := fmt.Sprintf("10.0.0.%d:8080", 10+i/2)
		c.LogAccess(cloud.AccessLog{LoadBalancerID: "lb-stock", Port: 80, VIP: "10.0.0.2", ClientIP: "192.0.2.1", Host: "app.example.com", Method: "GET", URI: "/",
			UserAgent: "sample", Status: status, UpstreamAddr: member, UpstreamStatus: strconv.Itoa(status), Seconds: 0.01})
	}
	return st
}

// line prints a result as one line of JSON or as text. Whoever reads the
// first of two results from a pipe needs to know where it ends.
func (a *app) line(v any, text func(io.Writer)) error {
	if !a.json {
		return a.result(v, text)
	}
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("internal error: %w", err)
	}
	_, err = fmt.Fprintf(a.out, "%s\n", data)
	return err
}

func (o served) text(w io.Writer) {
	fmt.Fprintf(w, "%s\nALIBABA_CLOUD_ACCESS_KEY_ID=%s\nALIBABA_CLOUD_ACCESS_KEY_SECRET=%s\nALIBABA_CLOUD_REGION_ID=%s\n", o.Endpoint, o.AccessKeyID, o.AccessKeySecret, o.Region)
	fmt.Fprintf(w, "image %s\ntype  %s\nzone  %s\nvpc   %s\nvsw   %s\nsg    %s\nlogs  %s/%s\n", o.Stock.ImageID, o.Stock.InstanceType, o.Stock.ZoneID,
		o.Stock.VpcID, o.Stock.VSwitchID, o.Stock.SecurityGroupID, o.Stock.LogProject, o.Stock.LogStore)
	for _, id := range o.Stock.InstanceIDs {
		fmt.Fprintf(w, "host  %s\n", id)
	}
}

func (t tally) text(a *app, w io.Writer) {
	for _, name := range slices.Sorted(maps.Keys(t.Calls)) {
		fmt.Fprintf(w, "%5d %s\n", t.Calls[name], name)
	}
	for _, r := range t.Created {
		fmt.Fprintf(w, a.t("left      %s %s (%s)\n", "遗留      %s %s（%s）\n"), r.Type, r.ID, r.Name)
	}
	for _, r := range t.Refused {
		fmt.Fprintf(w, a.t("REFUSED   %s\n", "已拒绝    %s\n"), r)
	}
}

// parseFaults reads --fault ACTION=KIND[,KEY=VALUE…].
func (s *service) parseFaults() ([]cloud.Fault, error) {
	kinds := []cloud.FaultKind{cloud.FaultError, cloud.FaultHTML, cloud.FaultNumericCode, cloud.FaultEmpty, cloud.FaultCut, cloud.FaultFails, cloud.FaultStuck}
	var all []cloud.Fault
	for _, spec := range s.faults {
		action, rest, ok := strings.Cut(spec, "=")
		words := strings.Split(rest, ",")
		if !ok || action == "" || !slices.Contains(kinds, cloud.FaultKind(words[0])) {
			return nil, usagef("--fault is ACTION=KIND[,KEY=VALUE...] with a KIND of error, html, numeric-code, empty, cut, fails-later or stuck, not %q", spec)
		}
		f := cloud.Fault{Action: action, Kind: cloud.FaultKind(words[0])}
		if action == "*" {
			f.Action = ""
		} else if !knownAction(action) {
			return nil, usagef("--fault %s: the simulator has no action %s", spec, action)
		}
		for _, word := range words[1:] {
			key, value, _ := strings.Cut(word, "=")
			var err error
			switch key {
			case "code":
				f.Code = value
			case "message":
				f.Message = value
			case "status":
				f.Status, err = strconv.Atoi(value)
			case "times":
				f.Times, err = strconv.Atoi(value)
			case "skip":
				f.Skip, err = strconv.Atoi(value)
			case "delay":
				f.Delay, err = time.ParseDuration(value)
			case "applied":
				f.Applied = true
			case "writes":
				f.Writes = true
			default:
				return nil, usagef("--fault %s: %q is not code, message, status, times, skip, delay, applied or writes", spec, key)
			}
			if err != nil {
				return nil, usagef("--fault %s: %v", spec, err)
			}
		}
		all = append(all, f)
	}
	return all, nil
}

// knownAction reports whether the simulator has an action, named with its
// product or without.
func knownAction(name string) bool {
	return slices.ContainsFunc(cloud.Actions(), func(have string) bool {
		product, bare, _ := strings.Cut(have, ":")
		return have == name || bare == name && (product == "ecs" || product == "slb")
	})
}

// parseThrottle reads --throttle CALLS/SPAN.
func (s *service) parseThrottle() (cloud.Throttle, error) {
	if s.throttle == "" {
		return cloud.Throttle{}, nil
	}
	calls, span, _ := strings.Cut(s.throttle, "/")
	n, err1 := strconv.Atoi(calls)
	per, err2 := time.ParseDuration(span)
	if err1 != nil || err2 != nil || n < 1 || per <= 0 {
		return cloud.Throttle{}, usagef("--throttle is CALLS/SPAN, as 20/1s, not %q", s.throttle)
	}
	return cloud.Throttle{Calls: n, Per: per}, nil
}
