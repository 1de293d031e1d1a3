package alicloud

import (
	"context"
	"strconv"
	"strings"
	"time"
)

const (
	albVersion = "2020-06-16"
	nlbVersion = "2022-04-30"
)

// Which of the two products with server groups of their own is meant: their
// calls have the same names and nearly the same shape. What differs for NLB is
// in nlb.go.
const (
	ALB = "alb"
	NLB = "nlb"
)

func sgVersion(product string) string {
	if product == NLB {
		return nlbVersion
	}
	return albVersion
}

// envelope is what every answer has. NLB says in Success and Code that a
// request failed although the HTTP status is 200.
type envelope struct {
	RequestID string
	Success   *bool
	Code      string
	Message   string
	NextToken string
	JobID     string
}

func (e *envelope) head() *envelope { return e }

// sg calls an action of ALB or NLB. Lists of these products take at most 100
// objects a page.
func (c *Client) sg(ctx context.Context, product string, o op, params map[string]string, out interface{ head() *envelope }) error {
	if err := c.rpc(ctx, product, sgVersion(product), o, params, out); err != nil {
		return err
	}
	h := out.head()
	if h.Success != nil && !*h.Success {
		return &Error{Action: o.action, Code: h.Code, Message: c.masked(h.Message), HTTPStatus: 200, RequestID: h.RequestID, Class: classify(400, h.Code)}
	}
	// An answer of another shape would look like an empty list, which is a
	// statement that people act on.
	_, err := id(o.action, h.RequestID, h.RequestID)
	return err
}

// listParams spreads values over Name.1, Name.2, ….
func listParams(params map[string]string, name string, values []string) map[string]string {
	for i, v := range values {
		params[name+"."+strconv.Itoa(i+1)] = v
	}
	return params
}

// A ServerGroup is a server group of ALB or NLB as a list shows it.
type ServerGroup struct {
	ID, Name, Status string
	Protocol         string // of the members, small letters
	Scheduler        string // small letters
	Managed          bool
	HealthCheck      bool
	Sticky           bool
	StickySeconds    int
	DrainSeconds     int // 0 = off
	LoadBalancers    []string
}

// ServerGroups lists the groups with these IDs.
func (c *Client) ServerGroups(ctx context.Context, product string, ids []string) ([]ServerGroup, error) {
	var all []ServerGroup
	err := batchesOf(20, ids, func(ids []string) error {
		return pages(func(token string) (string, error) {
			var out struct {
				envelope
				ServerGroups []struct {
					ServerGroupID, ServerGroupName, ServerGroupStatus, Protocol, Scheduler, ServiceManagedMode string
					HealthCheckConfig, HealthCheck                                                             struct{ HealthCheckEnabled bool }
					StickySessionConfig                                                                        struct {
						StickySessionEnabled bool
						CookieTimeout        int
					}
					ConnectionDrainConfig struct {
						ConnectionDrainEnabled bool
						ConnectionDrainTimeout int
					}
					PersistenceEnabled, ConnectionDrainEnabled bool
					PersistenceTimeout, ConnectionDrainTimeout int
					RelatedLoadBalancerIDs                     []string `json:"RelatedLoadBalancerIds"`
				}
			}
			p := listParams(map[string]string{"MaxResults": strconv.Itoa(pageSize), "NextToken": token}, "ServerGroupIds", ids)
			if err := c.sg(ctx, product, read("ListServerGroups"), p, &out); err != nil {
				return "", err
			}
			for _, g := range out.ServerGroups {
				x := ServerGroup{
					ID: g.ServerGroupID, Name: g.ServerGroupName, Status: g.ServerGroupStatus, Protocol: strings.ToLower(g.Protocol),
					Scheduler: strings.ToLower(g.Scheduler), Managed: managed(g.ServiceManagedMode), LoadBalancers: g.RelatedLoadBalancerIDs,
					HealthCheck: g.HealthCheckConfig.HealthCheckEnabled || g.HealthCheck.HealthCheckEnabled,
					Sticky:      g.StickySessionConfig.StickySessionEnabled || g.PersistenceEnabled,
				}
				if x.Sticky {
					x.StickySeconds = max(g.StickySessionConfig.CookieTimeout, g.PersistenceTimeout)
				}
				if g.ConnectionDrainConfig.ConnectionDrainEnabled || g.ConnectionDrainEnabled {
					x.DrainSeconds = max(g.ConnectionDrainConfig.ConnectionDrainTimeout, g.ConnectionDrainTimeout)
				}
				all = append(all, x)
			}
			return out.NextToken, nil
		})
	})
	return all, err
}

// batchesOf calls f with at most n IDs at a time, never with none.
func batchesOf(n int, ids []string, f func([]string) error) error {
	for len(ids) > 0 {
		k := min(n, len(ids))
		if err := f(ids[:k]); err != nil {
			return err
		}
		ids = ids[k:]
	}
	return nil
}

// A GroupMember is a member of a group, and what the product does with it.
type GroupMember struct {
	GroupID string
	Status  string // "Available", or "Adding", "Configuring", "Removing", "Replacing", "Draining" while a job runs
	Backend
}

// ServerGroupMembers lists the members of a group, or with groupID "" those of
// every group of the region.
func (c *Client) ServerGroupMembers(ctx context.Context, product, groupID string) ([]GroupMember, error) {
	var all []GroupMember
	err := pages(func(token string) (string, error) {
		var out struct {
			envelope
			Servers []struct {
				ServerGroupID, ServerID, ServerType, Description, Status string
				ServerIP                                                 string `json:"ServerIp"`
				Port, Weight                                             int
			}
		}
		p := map[string]string{"MaxResults": strconv.Itoa(pageSize), "NextToken": token}
		if groupID != "" {
			p["ServerGroupId"] = groupID
		}
		if err := c.sg(ctx, product, read("ListServerGroupServers"), p, &out); err != nil {
			return "", err
		}
		for _, s := range out.Servers {
			m := GroupMember{GroupID: s.ServerGroupID, Status: s.Status, Backend: Backend{
				ServerID: s.ServerID, Type: strings.ToLower(s.ServerType), ServerIP: s.ServerIP, Description: s.Description, Port: s.Port, Weight: s.Weight,
			}}
			if m.GroupID == "" {
				m.GroupID = groupID
			}
			all = append(all, m)
		}
		return out.NextToken, nil
	})
	return all, err
}

// A Forward is a listener of ALB or NLB, or a rule of an ALB listener, that
// sends requests to a group.
type Forward struct {
	LoadBalancerID, ListenerID string
	Port                       int
	Protocol, Status           string // small letters
	RuleID                     string
	Domain, URL                string
	GroupID                    string
}

type forwardConfig struct {
	ServerGroupTuples []struct{ ServerGroupID string }
}

// Forwards lists what balancers of ALB or NLB forward to groups. A rule can
// name several.
func (c *Client) Forwards(ctx context.Context, product string, balancers []string) ([]Forward, error) {
	var all []Forward
	byListener := map[string]Forward{}
	err := batchesOf(20, balancers, func(ids []string) error {
		err := pages(func(token string) (string, error) {
			var out struct {
				envelope
				Listeners []struct {
					LoadBalancerID, ListenerID, ListenerProtocol, ListenerStatus, ServerGroupID string
					ListenerPort                                                                int
					DefaultActions                                                              []struct{ ForwardGroupConfig forwardConfig }
				}
			}
			p := listParams(map[string]string{"MaxResults": strconv.Itoa(pageSize), "NextToken": token}, "LoadBalancerIds", ids)
			if err := c.sg(ctx, product, read("ListListeners"), p, &out); err != nil {
				return "", err
			}
			for _, l := range out.Listeners {
				f := Forward{LoadBalancerID: l.LoadBalancerID, ListenerID: l.ListenerID, Port: l.ListenerPort, Protocol: strings.ToLower(l.ListenerProtocol), Status: strings.ToLower(l.ListenerStatus)}
				byListener[l.ListenerID] = f
				if l.ServerGroupID != "" {
					f.GroupID = l.ServerGroupID
					all = append(all, f)
				}
				for _, a := range l.DefaultActions {
					for _, g := range a.ForwardGroupConfig.ServerGroupTuples {
						f.GroupID = g.ServerGroupID
						all = append(all, f)
					}
				}
			}
			return out.NextToken, nil
		})
		if err != nil || product == NLB {
			return err
		}
		return pages(func(token string) (string, error) {
			var out struct {
				envelope
				Rules []struct {
					LoadBalancerID, ListenerID, RuleID string
					RuleActions                        []struct{ ForwardGroupConfig forwardConfig }
					RuleConditions                     []struct{ HostConfig, PathConfig struct{ Values []string } }
				}
			}
			p := listParams(map[string]string{"MaxResults": strconv.Itoa(pageSize), "NextToken": token}, "LoadBalancerIds", ids)
			if err := c.sg(ctx, product, read("ListRules"), p, &out); err != nil {
				return "", err
			}
			for _, r := range out.Rules {
				f := byListener[r.ListenerID]
				f.LoadBalancerID, f.ListenerID, f.RuleID = r.LoadBalancerID, r.ListenerID, r.RuleID
				var hosts, paths []string
				for _, x := range r.RuleConditions {
					hosts, paths = append(hosts, x.HostConfig.Values...), append(paths, x.PathConfig.Values...)
				}
				f.Domain, f.URL = strings.Join(hosts, ","), strings.Join(paths, ",")
				for _, a := range r.RuleActions {
					for _, g := range a.ForwardGroupConfig.ServerGroupTuples {
						f.GroupID = g.ServerGroupID
						all = append(all, f)
					}
				}
			}
			return out.NextToken, nil
		})
	})
	return all, err
}

// ServerGroupBalancers lists the balancers of ALB or NLB with these IDs.
func (c *Client) ServerGroupBalancers(ctx context.Context, product string, ids []string) ([]LoadBalancer, error) {
	var all []LoadBalancer
	err := batchesOf(20, ids, func(ids []string) error {
		return pages(func(token string) (string, error) {
			var out struct {
				envelope
				LoadBalancers []struct {
					LoadBalancerID, LoadBalancerName, LoadBalancerStatus, ServiceManagedMode string
					DNSName                                                                  string `json:"DNSName"`
					ModificationProtectionConfig                                             struct{ Status, Reason string }
				}
			}
			p := listParams(map[string]string{"MaxResults": strconv.Itoa(pageSize), "NextToken": token}, "LoadBalancerIds", ids)
			if err := c.sg(ctx, product, read("ListLoadBalancers"), p, &out); err != nil {
				return "", err
			}
			for _, b := range out.LoadBalancers {
				all = append(all, LoadBalancer{
					ID: b.LoadBalancerID, Name: b.LoadBalancerName, Address: b.DNSName, Status: strings.ToLower(b.LoadBalancerStatus),
					Managed: managed(b.ServiceManagedMode), Protected: b.ModificationProtectionConfig.Status == consoleProtection, ProtectedWhy: b.ModificationProtectionConfig.Reason,
				})
			}
			return out.NextToken, nil
		})
	})
	return all, err
}

// GroupHealth is what a listener, or a rule of it, thinks of a group. A member
// that is in none of the maps is well, if the group is checked.
type GroupHealth struct {
	GroupID string
	Checked bool
	Ill     map[string]string // by MemberKey: "Unhealthy", or another word while it is not known
}

// MemberKey names a member in GroupHealth.
func MemberKey(serverID, serverIP string, port int) string {
	return serverID + "|" + serverIP + "|" + strconv.Itoa(port)
}

// ListenerHealth asks a listener of ALB or NLB about its groups.
func (c *Client) ListenerHealth(ctx context.Context, product, listenerID string) ([]GroupHealth, error) {
	type info struct {
		ServerGroupID, HealthCheckEnabled, HeathCheckEnabled string // the latter is NLB's spelling
		NonNormalServers                                     []struct {
			ServerID, Status string
			ServerIP         string `json:"ServerIp"`
			Port             int
		}
	}
	var all []GroupHealth
	err := pages(func(token string) (string, error) {
		var out struct {
			envelope
			ListenerHealthStatus, RuleHealthStatus []struct{ ServerGroupInfos []info }
		}
		p := map[string]string{"ListenerId": listenerID}
		if product == ALB {
			p["IncludeRule"], p["MaxResults"], p["NextToken"] = "true", "30", token // 30 is the action's limit
		}
		if err := c.sg(ctx, product, read("GetListenerHealthStatus"), p, &out); err != nil {
			return "", err
		}
		for _, s := range append(out.ListenerHealthStatus, out.RuleHealthStatus...) {
			for _, g := range s.ServerGroupInfos {
				on := strings.ToLower(g.HealthCheckEnabled + g.HeathCheckEnabled)
				h := GroupHealth{GroupID: g.ServerGroupID, Checked: on == "on" || on == "true", Ill: map[string]string{}}
				for _, n := range g.NonNormalServers {
					h.Ill[MemberKey(n.ServerID, n.ServerIP, n.Port)] = n.Status
				}
				all = append(all, h)
			}
		}
		return out.NextToken, nil
	})
	return all, err
}

// groupWrite sends a write to a group and returns the ID of the job that
// carries it out. The token makes its repetition harmless.
func (c *Client) groupWrite(ctx context.Context, product, action, groupID, token string, members []Backend, full bool) (string, error) {
	p := map[string]string{"ServerGroupId": groupID, "ClientToken": token}
	for i, b := range members {
		set := func(name, v string) {
			if v != "" {
				p["Servers."+strconv.Itoa(i+1)+"."+name] = v
			}
		}
		set("ServerId", b.ServerID)
		set("ServerType", serverType(b.Type))
		set("Port", strconv.Itoa(b.Port))
		if b.Type != "ecs" && b.Type != "" {
			set("ServerIp", b.ServerIP)
		}
		if full {
			set("Weight", strconv.Itoa(b.Weight))
			set("Description", b.Description)
		}
	}
	var out struct{ envelope }
	o := op{action: action, timeout: 60 * time.Second, repeat: true}
	if err := c.sg(ctx, product, o, p, &out); err != nil {
		return "", err
	}
	return id(action, out.RequestID, out.JobID)
}

// serverType is the wire form of a member's type: Ecs, Eni, Eci, Ip.
func serverType(t string) string {
	if t == "" {
		t = "ecs"
	}
	return strings.ToUpper(t[:1]) + t[1:]
}

// SetMembers sets weights and descriptions of members. The others stay as they
// are.
func (c *Client) SetMembers(ctx context.Context, product, groupID, token string, members []Backend) (job string, err error) {
	return c.groupWrite(ctx, product, "UpdateServerGroupServersAttribute", groupID, token, members, true)
}

// AddMembers adds members.
func (c *Client) AddMembers(ctx context.Context, product, groupID, token string, members []Backend) (job string, err error) {
	return c.groupWrite(ctx, product, "AddServersToServerGroup", groupID, token, members, true)
}

// RemoveMembers removes members.
func (c *Client) RemoveMembers(ctx context.Context, product, groupID, token string, members []Backend) (job string, err error) {
	return c.groupWrite(ctx, product, "RemoveServersFromServerGroup", groupID, token, members, false)
}

// A Job is a write that goes on after its answer.
type Job struct {
	Status        string // "Processing", "Succeeded" or "Failed"; "" if the cloud does not show it (yet)
	Code, Message string // of a failed one
}

// GetJob returns how far a job is.
func (c *Client) GetJob(ctx context.Context, product, jobID string) (Job, error) {
	if product == NLB {
		return c.nlbJob(ctx, jobID)
	}
	var out struct {
		envelope
		Jobs []struct{ ID, Status, ErrorCode, ErrorMessage string }
	}
	if err := c.sg(ctx, product, read("ListAsynJobs"), listParams(map[string]string{}, "JobIds", []string{jobID}), &out); err != nil {
		return Job{}, err
	}
	for _, j := range out.Jobs {
		if j.ID == jobID {
			return Job{Status: j.Status, Code: j.ErrorCode, Message: c.masked(j.ErrorMessage)}, nil
		}
	}
	return Job{}, nil
}
