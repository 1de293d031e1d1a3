package alicloud

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/aliyun/alibaba-cloud-sdk-go/sdk/requests"
	"github.com/aliyun/alibaba-cloud-sdk-go/services/slb"
)

// ForwardingRule has the fields of slb.Rule, in the same order, so that one
// converts into the other.
type ForwardingRule struct {
	ID, Name       string
	Domain, URL    string
	VServerGroupID string
}

// ForwardingRules lists the forwarding rules of a listener with what they match.
func (c *Client) ForwardingRules(ctx context.Context, loadBalancerID string, port int, protocol string) ([]ForwardingRule, error) {
	r, err := callSLB(ctx, c, read("DescribeRules"), slb.CreateDescribeRulesRequest, func(r *slb.DescribeRulesRequest) {
		r.RegionId, r.LoadBalancerId = c.region, loadBalancerID
		r.ListenerPort, r.ListenerProtocol = requests.NewInteger(port), protocol
	}, (*slb.Client).DescribeRules)
	if err != nil {
		return nil, err
	}
	var all []ForwardingRule
	for _, x := range r.Rules.Rule {
		all = append(all, ForwardingRule{ID: x.RuleId, Name: x.RuleName, Domain: x.Domain, URL: x.Url, VServerGroupID: x.VServerGroupId})
	}
	return all, nil
}

// CreateRule makes a forwarding rule. The call takes no token, so it is not
// repeated when its result is open: a look at the rules tells.
func (c *Client) CreateRule(ctx context.Context, loadBalancerID string, port int, protocol string, rule ForwardingRule) error {
	m := map[string]string{"RuleName": rule.Name, "VServerGroupId": rule.VServerGroupID}
	if rule.Domain != "" {
		m["Domain"] = rule.Domain
	}
	if rule.URL != "" {
		m["Url"] = rule.URL
	}
	list, _ := json.Marshal([]map[string]string{m}) // cannot fail for strings
	_, err := callSLB(ctx, c, once("CreateRules"), slb.CreateCreateRulesRequest, func(r *slb.CreateRulesRequest) {
		r.RegionId, r.LoadBalancerId = c.region, loadBalancerID
		r.ListenerPort, r.ListenerProtocol, r.RuleList = requests.NewInteger(port), protocol, string(list)
	}, (*slb.Client).CreateRules)
	return err
}

// AccessLog says where a balancer's access log goes.
type AccessLog struct{ LoadBalancerID, Project, Store string }

// AccessLogs lists where the layer-7 access log of a CLB or ALB goes; none means
// that logging is off.
func (c *Client) AccessLogs(ctx context.Context, loadBalancerID string) ([]AccessLog, error) {
	var all []AccessLog
	if strings.HasPrefix(loadBalancerID, "alb-") {
		var out struct {
			envelope
			LoadBalancers []struct {
				LoadBalancerID  string
				AccessLogConfig struct{ LogProject, LogStore string }
			}
		}
		err := c.sg(ctx, ALB, read("ListLoadBalancers"), map[string]string{"LoadBalancerIds.1": loadBalancerID}, &out)
		for _, b := range out.LoadBalancers {
			if l := b.AccessLogConfig; b.LoadBalancerID == loadBalancerID && l.LogStore != "" {
				all = append(all, AccessLog{LoadBalancerID: loadBalancerID, Project: l.LogProject, Store: l.LogStore})
			}
		}
		return all, err
	}
	for page, seen := 1, 0; ; page++ {
		r, err := callSLB(ctx, c, read("DescribeAccessLogsDownloadAttribute"), slb.CreateDescribeAccessLogsDownloadAttributeRequest, func(r *slb.DescribeAccessLogsDownloadAttributeRequest) {
			r.RegionId, r.LoadBalancerId, r.LogType = c.region, loadBalancerID, "layer7"
			r.PageNumber, r.PageSize = requests.NewInteger(page), requests.NewInteger(pageSize)
		}, (*slb.Client).DescribeAccessLogsDownloadAttribute)
		if err != nil {
			return nil, err
		}
		for _, a := range r.LogsDownloadAttributes.LogsDownloadAttribute {
			if a.LoadBalancerId == loadBalancerID && (a.LogType == "" || strings.EqualFold(a.LogType, "layer7")) {
				all = append(all, AccessLog{LoadBalancerID: a.LoadBalancerId, Project: a.LogProject, Store: a.LogStore})
			}
		}
		seen += len(r.LogsDownloadAttributes.LogsDownloadAttribute)
		if len(r.LogsDownloadAttributes.LogsDownloadAttribute) == 0 || seen >= r.TotalCount {
			return all, nil
		}
	}
}
