package cloud

import (
	"slices"
	"strings"
	"time"
)

func slbLogActions() []action {
	return []action{
		{name: "CreateRules", do: (*Cloud).createRules,
			served: `
				ListenerPort:int! ListenerProtocol LoadBalancerId! RegionId! RuleList:json!`,
			other: `
				DryRun`,
		},
		{name: "DeleteRules", do: (*Cloud).deleteRules,
			served: `
				RegionId! RuleIds:json!`,
		},
		{name: "DescribeAccessLogsDownloadAttribute", do: (*Cloud).describeAccessLogs,
			served: `
				LoadBalancerId LogType PageNumber:int PageSize:int RegionId!`,
			other: `
				Tags`,
		},
		{name: "SetAccessLogsDownloadAttribute", do: (*Cloud).setAccessLogs,
			served: `
				LoadBalancerId LogsDownloadAttributes:json! RegionId!`,
			other: `
				Tags`,
		},
		{name: "DeleteAccessLogsDownloadAttribute", do: (*Cloud).deleteAccessLogs,
			served: `
				LoadBalancerId LogsDownloadAttributes:json! RegionId!`,
			other: `
				Tags`,
		},
	}
}

// maxRules is how many forwarding rules a listener may have.
const maxRules = 50

// createRules adds forwarding rules to a listener; all of them or none. Two
// rules of a listener may not match the same domain and URL.
func (c *Cloud) createRules(q *call) (obj, *apiError) {
	var want []struct{ RuleName, Domain, Url, VServerGroupId string }
	if _, err := q.json("RuleList", &want); err != nil {
		return nil, err
	}
	if len(want) == 0 || len(want) > 10 {
		return nil, refuse(400, "InvalidParameter", "RuleList holds 1 to 10 rules, not %d.", len(want))
	}
	reply, err := func() (obj, *apiError) {
		c.mu.Lock()
		defer c.mu.Unlock()
		b, err := c.balancer(q.str("LoadBalancerId"))
		if err != nil {
			return nil, err
		}
		if err := b.writable("ServiceIsConfiguring"); err != nil {
			return nil, err
		}
		at := slices.IndexFunc(b.Listeners, func(l Listener) bool {
			return l.Port == q.num("ListenerPort", 0) && oneOf(l.Protocol, q.str("ListenerProtocol")) && (l.Protocol == "http" || l.Protocol == "https")
		})
		if at < 0 {
			return nil, fail(400, "ListenerNotExist", "The HTTP or HTTPS listener %d of %s does not exist.", q.num("ListenerPort", 0), b.ID)
		}
		rules := slices.Clone(b.Listeners[at].Rules)
		list := []obj{}
		for _, w := range want {
			switch {
			case w.RuleName == "" || w.VServerGroupId == "":
				return nil, refuse(400, "MissingParameter", "A rule needs RuleName and VServerGroupId.")
			case w.Domain == "" && w.Url == "":
				return nil, refuse(400, "MissingParameter", "A rule needs Domain or Url.")
			case w.Url != "" && (!strings.HasPrefix(w.Url, "/") || len(w.Url) < 2 && w.Domain == ""):
				return nil, fail(400, "InvalidParameter.Url", "The Url %q must begin with / and have more than that.", w.Url)
			case b.group(w.VServerGroupId) == nil:
				return nil, fail(404, "InvalidParameter", "The specified VServerGroupId does not exist.")
			case slices.ContainsFunc(rules, func(r Rule) bool { return r.Domain == w.Domain && r.URL == w.Url }):
				return nil, fail(400, "DomainExist", "A rule for the domain %q and the URL %q exists already.", w.Domain, w.Url)
			case len(rules) >= maxRules:
				return nil, fail(400, "QuotaExceeded.Rule", "The listener has %d rules.", maxRules)
			}
			r := Rule{ID: c.newID("rule"), Name: w.RuleName, Domain: w.Domain, URL: w.Url, VServerGroup: w.VServerGroupId}
			rules = append(rules, r)
			list = append(list, obj{"RuleId": r.ID, "RuleName": r.Name})
		}
		b.Listeners[at].Rules = rules
		b.busyUntil = time.Now().Add(c.scaled(c.cfg.BusyTakes))
		return obj{"Rules": obj{"Rule": list}}, nil
	}()
	if err == nil {
		c.changed()
	}
	return reply, err
}

func (c *Cloud) deleteRules(q *call) (obj, *apiError) {
	var ids []string
	if _, err := q.json("RuleIds", &ids); err != nil {
		return nil, err
	}
	err := func() *apiError {
		c.mu.Lock()
		defer c.mu.Unlock()
		owner := map[string]*balancer{}
		for _, b := range c.balancers {
			for _, l := range b.Listeners {
				for _, r := range l.Rules {
					owner[r.ID] = b
				}
			}
		}
		for _, id := range ids {
			if owner[id] == nil {
				return fail(404, "InvalidRuleId.NotFound", "The specified rule %q does not exist.", id)
			}
			if err := owner[id].writable("ServiceIsConfiguring"); err != nil {
				return err
			}
		}
		for _, id := range ids {
			b := owner[id]
			for n := range b.Listeners {
				b.Listeners[n].Rules = slices.DeleteFunc(b.Listeners[n].Rules, func(r Rule) bool { return r.ID == id })
			}
			b.busyUntil = time.Now().Add(c.scaled(c.cfg.BusyTakes))
		}
		return nil
	}()
	if err != nil {
		return nil, err
	}
	c.changed()
	return obj{}, nil
}

// A logSetting is an element of LogsDownloadAttributes.
type logSetting struct{ LogType, LogProject, LogStore, RoleName, RoleArn, Region, LoadBalancerId string }

func (c *Cloud) describeAccessLogs(q *call) (obj, *apiError) {
	if t := q.str("LogType"); t != "" && t != "layer7" {
		return nil, refuse(400, "InvalidParameter", "The LogType %q is not simulated: layer7.", t)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	type setting struct {
		id string
		logTarget
	}
	var found []setting
	for _, b := range sorted(c.balancers) {
		if t, ok := c.logs.of[b.ID]; ok && oneOf(b.ID, q.str("LoadBalancerId")) {
			found = append(found, setting{b.ID, t})
		}
	}
	reply, err := page(q, found, 50, 100, "LogsDownloadAttributes", "LogsDownloadAttribute", func(s setting) obj {
		return obj{"LoadBalancerId": s.id, "LogProject": s.project, "LogStore": s.store, "LogType": "layer7", "Region": c.cfg.Region, "RoleArn": ""}
	})
	if err != nil {
		return nil, err
	}
	reply["Count"] = len(reply["LogsDownloadAttributes"].(obj)["LogsDownloadAttribute"].([]obj))
	return reply, nil
}

// setLogs applies one setting to a balancer.
func (c *Cloud) setLogs(q *call, apply func(id string, s logSetting) *apiError) (obj, *apiError) {
	var want []logSetting
	if _, err := q.json("LogsDownloadAttributes", &want); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range want {
		id := s.LoadBalancerId
		if id == "" {
			id = q.str("LoadBalancerId")
		}
		if _, err := c.balancer(id); err != nil {
			return nil, err
		}
		if s.LogType != "layer7" {
			return nil, refuse(400, "InvalidParameter", "The LogType %q is not simulated: layer7.", s.LogType)
		}
		if err := apply(id, s); err != nil {
			return nil, err
		}
	}
	return obj{}, nil
}

func (c *Cloud) setAccessLogs(q *call) (obj, *apiError) {
	return c.setLogs(q, func(id string, s logSetting) *apiError {
		if c.logs.projects[s.LogProject][s.LogStore] == nil {
			return fail(404, "InvalidParameter.LogStore", "The log store %q of project %q does not exist.", s.LogStore, s.LogProject)
		}
		c.logs.of[id] = logTarget{s.LogProject, s.LogStore}
		return nil
	})
}

func (c *Cloud) deleteAccessLogs(q *call) (obj, *apiError) {
	return c.setLogs(q, func(id string, _ logSetting) *apiError {
		delete(c.logs.of, id)
		return nil
	})
}
