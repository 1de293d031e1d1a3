package sim

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/upgradectl/upgradectl/internal/sim/cloud"
	"github.com/upgradectl/upgradectl/internal/sim/traffic"
)

// The balancers of the world: the settings are the cloud's, and the data plane
// follows them.

const (
	balancerAddr = "172.31.0.200"
	secondAddr   = "172.31.0.201"
	albAddr      = "172.31.0.210"
	nlbAddr      = "172.31.0.211"
)

var balancerAddrs = []string{balancerAddr, secondAddr, albAddr, nlbAddr}

// names is the world's DNS.
var names = map[string]string{
	"alb-site.cn-hangzhou.alb.aliyuncs.com": albAddr,
	"nlb-site.cn-hangzhou.nlb.aliyuncs.com": nlbAddr,
	"pay.shop.example":                      balancerAddr,
}

// addBalancers gives the cloud its balancers.
func (w *World) addBalancers() {
	lb := balancers()
	if !w.cfg.Wide {
		w.cloud.AddLoadBalancer(lb)
		return
	}
	pay := slices.IndexFunc(lb.Groups, func(g cloud.VServerGroup) bool { return g.ID == "rsp-pay" })
	byRule := cloud.VServerGroup{ID: "rsp-pay-rule", Name: "pay-rule", Backends: slices.Clone(lb.Groups[pay].Backends)}
	for i := range byRule.Backends {
		byRule.Backends[i].Weight = 40
	}
	lb.Groups = append(lb.Groups, byRule, cloud.VServerGroup{ID: "rsp-shop", Name: "shop", Backends: []cloud.Backend{
		{ServerID: instanceID, Port: 8081, Weight: 7}, {ServerID: "i-app88", Port: 8081, Weight: 20},
	}})
	lb.Listeners[0].Rules = []cloud.Rule{{ID: "rule-pay", Name: "pay", Domain: "pay.shop.example", VServerGroup: byRule.ID}}
	lb.Listeners = append(lb.Listeners, cloud.Listener{Port: 83, Protocol: "http", Scheduler: "wlc", VServerGroup: "rsp-shop", HealthCheck: true, HealthCheckURI: "/health"})
	w.cloud.AddLoadBalancer(lb)
	w.cloud.AddLoadBalancer(cloud.LoadBalancer{
		ID: "lb-second", Name: "second", Address: secondAddr,
		Listeners: []cloud.Listener{{Port: 80, Protocol: "http", Scheduler: "wrr", BackendPort: 8080, HealthCheck: true, HealthCheckURI: "/health"}},
		Default:   []cloud.Backend{{ServerID: "i-app89", Weight: 100}, {ServerID: instanceID, Weight: 33}, {ServerID: "i-app88", Weight: 100}},
	})
	w.cloud.AddServerGroup(cloud.ALB, cloud.ServerGroup{ID: "sgp-order", Name: "order", HealthCheck: true, HealthPath: "/health", Servers: []cloud.Backend{
		{ServerID: instanceID, ServerIP: production, Port: 8080, Weight: 80, Description: "order on web-90"},
		{ServerID: "i-app88", ServerIP: "172.31.0.88", Port: 8080, Weight: 100},
	}})
	w.cloud.AddGroupBalancer(cloud.GroupBalancer{Product: cloud.ALB, ID: "alb-site", Name: "site", DNSName: "alb-site.cn-hangzhou.alb.aliyuncs.com", Address: albAddr,
		Listeners: []cloud.GroupListener{{ID: "lsn-site", Port: 80, Group: "sgp-order"}}})
	w.cloud.AddServerGroup(cloud.NLB, cloud.ServerGroup{ID: "sgp-pay", Name: "pay", HealthCheck: true, Servers: []cloud.Backend{
		{ServerID: instanceID, ServerIP: production, Port: 8083, Weight: 50},
		{ServerID: "i-app89", ServerIP: "172.31.0.89", Port: 8083, Weight: 50},
	}})
	w.cloud.AddGroupBalancer(cloud.GroupBalancer{Product: cloud.NLB, ID: "nlb-site", Name: "site", DNSName: "nlb-site.cn-hangzhou.nlb.aliyuncs.com", Address: nlbAddr,
		Listeners: []cloud.GroupListener{{ID: "lsn-pay", Port: 82, Group: "sgp-pay"}}})
	w.cloud.AddLogStore("site", "access")
	w.cloud.SetAccessLog(lb.ID, "site", "access")
	w.cloud.SetAccessLog("alb-site", "site", "access")
}

// logAccess writes a row of a balancer's access log.
func (w *World) logAccess(e traffic.AccessEntry) {
	vip, port, err := net.SplitHostPort(e.Addr)
	n, err2 := strconv.Atoi(port)
	if _, _, ok := w.cloud.AccessLogOf(e.LoadBalancerID); !ok || err != nil || err2 != nil {
		return // logging is off
	}
	w.cloud.LogAccess(cloud.AccessLog{
		Time: e.Time, LoadBalancerID: e.LoadBalancerID, ALB: e.ALB, Port: n, VIP: vip, ClientIP: e.ClientIP, Host: e.Host, Method: e.Method, URI: e.URI,
		UserAgent: e.UserAgent, Status: e.Status, UpstreamAddr: e.UpstreamAddr, UpstreamStatus: e.UpstreamStatus, Seconds: e.Duration.Seconds(),
	})
}

// services is the data plane that the cloud's settings ask for.
func (w *World) services() []traffic.Service {
	var out []traffic.Service
	for _, lb := range w.cloud.LoadBalancers() {
		groups := map[string]cloud.VServerGroup{}
		for _, g := range lb.Groups {
			groups[g.ID] = g
		}
		for _, l := range lb.Listeners {
			if l.Status == "stopped" {
				continue
			}
			members := func(bs []cloud.Backend) (ms []traffic.Member) {
				for _, b := range bs {
					ms = append(ms, traffic.Member{Addr: w.backendAddr(b.ServerID, b.ServerIP, b.Port, l.BackendPort), Weight: b.Weight})
				}
				return ms
			}
			s := traffic.Service{
				Addr:     net.JoinHostPort(lb.Address, strconv.Itoa(l.Port)),
				Protocol: l.Protocol, Scheduler: l.Scheduler, HealthCheck: l.HealthCheck,
				Group: lb.ID + "/default", Members: members(lb.Default), LoadBalancerID: lb.ID,
			}
			if l.VServerGroup != "" {
				g := groups[l.VServerGroup]
				s.Members, s.Group = members(g.Backends), lb.ID+"/"+g.Name
			}
			for _, r := range l.Rules {
				g := groups[r.VServerGroup]
				x := traffic.Rule{Group: lb.ID + "/" + g.Name, Scheduler: l.Scheduler, HealthCheck: l.HealthCheck, Members: members(g.Backends)}
				if r.ListenerSync == "off" {
					x.Scheduler, x.HealthCheck = r.Scheduler, r.HealthCheck
				}
				if r.Domain != "" {
					x.Domains = []string{r.Domain}
				}
				if r.URL != "" {
					x.Paths = []string{r.URL + "*"}
				}
				s.Rules = append(s.Rules, x)
			}
			s.Rules = traffic.CLBRules(s.Rules)
			out = append(out, s)
		}
	}
	for _, b := range w.cloud.GroupBalancers() {
		groups := map[string]cloud.ServerGroup{}
		for _, g := range w.cloud.ServerGroups(b.Product) {
			groups[g.ID] = g
		}
		members := func(g cloud.ServerGroup) (ms []traffic.Member) {
			for _, m := range g.Servers {
				ms = append(ms, traffic.Member{Addr: net.JoinHostPort(m.ServerIP, strconv.Itoa(m.Port)), Weight: m.Weight})
			}
			return ms
		}
		for _, l := range b.Listeners {
			if l.Status != "Running" {
				continue
			}
			g := groups[l.Group]
			s := traffic.Service{
				Addr:     net.JoinHostPort(b.Address, strconv.Itoa(l.Port)),
				Protocol: map[string]string{"HTTP": "http", "TCP": "tcp"}[l.Protocol], Scheduler: strings.ToLower(g.Scheduler), HealthCheck: g.HealthCheck,
				Group: b.ID + "/" + g.Name, Members: members(g), LoadBalancerID: b.ID, ALB: b.Product == cloud.ALB,
			}
			if s.ALB {
				s.From = "172.31.0.212" // an ALB has addresses of the vSwitch
			}
			for _, r := range l.Rules {
				rg := groups[r.Group]
				s.Rules = append(s.Rules, traffic.Rule{Domains: r.Hosts, Paths: r.Paths, Group: b.ID + "/" + rg.Name, Scheduler: strings.ToLower(rg.Scheduler), HealthCheck: rg.HealthCheck, Members: members(rg)})
			}
			out = append(out, s)
		}
	}
	return out
}

func (w *World) backendAddr(id, ip string, port, listenerPort int) string {
	if ip == "" {
		ip = w.cloud.InstanceIP(id)
	}
	if port == 0 {
		port = listenerPort
	}
	return net.JoinHostPort(ip, strconv.Itoa(port))
}

// rebalance makes the data plane follow the cloud's settings.
func (w *World) rebalance() {
	w.setting.Lock()
	defer w.setting.Unlock()
	if err := w.balancer.Set(w.services()); err != nil && w.ctx.Err() == nil {
		w.mu.Lock()
		w.problem = append(w.problem, "balancer: "+err.Error())
		w.mu.Unlock()
	}
}

// health answers the cloud's question after a member from what the data
// plane's own checks have found.
func (w *World) health(q cloud.HealthQuery) string {
	address := ""
	for _, lb := range w.cloud.LoadBalancers() {
		if lb.ID == q.LoadBalancerID {
			address = lb.Address
		}
	}
	for _, b := range w.cloud.GroupBalancers() {
		if b.ID == q.LoadBalancerID {
			address = b.Address
		}
	}
	at := net.JoinHostPort(address, strconv.Itoa(q.ListenerPort))
	if h := w.balancer.Health(at, w.backendAddr(q.ServerID, q.ServerIP, q.Port, q.Port)); h != "" {
		return h
	}
	return traffic.Unavailable
}

func (w *World) weightsNow() map[string]int {
	m := map[string]int{}
	put := func(group string, bs []cloud.Backend) {
		for _, b := range bs {
			m[fmt.Sprintf("%s/%s:%d", group, b.ServerID, b.Port)] = b.Weight
		}
	}
	for _, lb := range w.cloud.LoadBalancers() {
		put(lb.ID+"/default", lb.Default)
		for _, g := range lb.Groups {
			put(lb.ID+"/"+g.Name, g.Backends)
		}
	}
	for _, product := range []string{cloud.ALB, cloud.NLB} {
		for _, g := range w.cloud.ServerGroups(product) {
			put(g.ID, g.Servers)
		}
	}
	return m
}
