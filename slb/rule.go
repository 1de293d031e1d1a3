package slb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/upgradectl/upgradectl/internal/alicloud"
	"github.com/upgradectl/upgradectl/internal/poll"
)

// A Rule is a forwarding rule of an HTTP or HTTPS listener of a CLB: requests
// for a domain, or for addresses below a URL, or both, go to a VServer group.
type Rule struct {
	ID             string `json:"id"`
	Name           string `json:"name"`
	Domain         string `json:"domain"` // "www.example.com" or "*.example.com"
	URL            string `json:"url"`    // "/path"
	VServerGroupID string `json:"vserver_group_id"`
}

// String is what the rule matches.
func (r Rule) String() string { return r.Domain + r.URL }

// ListRules lists the forwarding rules of a listener. Protocol is "http" or
// "https"; "" is the one that the port has.
func (c *Client) ListRules(ctx context.Context, loadBalancerID string, port int, protocol string) ([]Rule, error) {
	protocol, err := c.ruleListener(ctx, loadBalancerID, port, protocol)
	if err != nil {
		return nil, err
	}
	return c.listRules(ctx, loadBalancerID, port, protocol)
}

func (c *Client) listRules(ctx context.Context, loadBalancerID string, port int, protocol string) ([]Rule, error) {
	got, err := c.api.ForwardingRules(ctx, loadBalancerID, port, protocol)
	if err != nil {
		return nil, fmt.Errorf("cannot list the rules of %s listener %d: %w", loadBalancerID, port, wrap(err))
	}
	var all []Rule
	for _, r := range got {
		all = append(all, Rule(r))
	}
	return all, nil
}

// ruleListener finds the protocol of a listener that can have rules.
func (c *Client) ruleListener(ctx context.Context, loadBalancerID string, port int, protocol string) (string, error) {
	if productOf(loadBalancerID) != CLB {
		return "", fmt.Errorf("cannot change rules of %s: only those of CLB (lb-…) are", loadBalancerID)
	}
	ls, err := c.api.Listeners(ctx, loadBalancerID)
	if err != nil {
		return "", fmt.Errorf("cannot list the listeners of %s: %w", loadBalancerID, wrap(err))
	}
	for _, l := range ls {
		if l.Port == port && (protocol == "" || l.Protocol == protocol) {
			if l.Protocol == "http" || l.Protocol == "https" {
				return l.Protocol, nil
			}
			return "", fmt.Errorf("listener %d of %s is %s: only HTTP and HTTPS listeners have rules", port, loadBalancerID, l.Protocol)
		}
	}
	return "", fmt.Errorf("%s has no listener %d", loadBalancerID, port)
}

// A RuleConflictError reports that a listener has a rule for the same requests
// that sends them elsewhere. Nothing was changed. It matches ErrConflict.
type RuleConflictError struct {
	LoadBalancerID string
	Port           int
	Want, Have     Rule
}

// Error names both groups.
func (e *RuleConflictError) Error() string {
	return fmt.Sprintf("%s listener %d sends %s to group %s already (rule %s), not to %s; change or delete that rule first",
		e.LoadBalancerID, e.Port, e.Want, e.Have.VServerGroupID, e.Have.ID, e.Want.VServerGroupID)
}

// Is reports whether target is ErrConflict.
func (e *RuleConflictError) Is(target error) bool { return target == ErrConflict }

// FindRule looks for a rule that matches the same requests as want. One that
// sends them to the same group is returned; none is nil; another is a
// RuleConflictError. A want that CreateRule would refuse is an error.
func (c *Client) FindRule(ctx context.Context, loadBalancerID string, port int, protocol string, want Rule) (*Rule, error) {
	if err := c.checkRule(ctx, loadBalancerID, port, want); err != nil {
		return nil, err
	}
	rules, err := c.ListRules(ctx, loadBalancerID, port, protocol)
	if err != nil {
		return nil, err
	}
	return find1(rules, loadBalancerID, port, want)
}

func find1(rules []Rule, loadBalancerID string, port int, want Rule) (*Rule, error) {
	for _, r := range rules {
		if !strings.EqualFold(r.Domain, want.Domain) || strings.TrimSuffix(r.URL, "/") != strings.TrimSuffix(want.URL, "/") {
			continue
		}
		if r.VServerGroupID != want.VServerGroupID {
			return nil, &RuleConflictError{LoadBalancerID: loadBalancerID, Port: port, Want: want, Have: r}
		}
		return &r, nil
	}
	return nil, nil
}

func (r Rule) check() error {
	switch {
	case r.Domain == "" && r.URL == "":
		return errors.New("it has neither domain nor URL")
	case r.VServerGroupID == "":
		return errors.New("it has no VServer group (rsp-…)")
	case r.URL != "" && !strings.HasPrefix(r.URL, "/"):
		return fmt.Errorf("the URL %q does not begin with /", r.URL)
	case strings.ContainsAny(r.Domain, "/: "), strings.HasPrefix(r.Domain, "."), strings.Contains(strings.TrimPrefix(r.Domain, "*."), "*"):
		return fmt.Errorf("%q is no domain (www.example.com, *.example.com)", r.Domain)
	}
	return nil
}

func ruleText(loadBalancerID string, port int, want Rule) string {
	return fmt.Sprintf("rule %s of %s listener %d", want, loadBalancerID, port)
}

// checkRule refuses a rule that is none, or has no group of the balancer.
func (c *Client) checkRule(ctx context.Context, loadBalancerID string, port int, want Rule) error {
	what := ruleText(loadBalancerID, port, want)
	if err := want.check(); err != nil {
		return fmt.Errorf("cannot create the %s: %w", what, err)
	}
	if productOf(loadBalancerID) != CLB {
		return fmt.Errorf("cannot change rules of %s: only those of CLB (lb-…) are", loadBalancerID)
	}
	groups, err := c.api.VServerGroups(ctx, loadBalancerID)
	if err != nil {
		return fmt.Errorf("cannot list the groups of %s: %w", loadBalancerID, wrap(err))
	}
	if !slices.ContainsFunc(groups, func(g alicloud.VServerGroup) bool { return g.ID == want.VServerGroupID }) {
		return fmt.Errorf("cannot create the %s: %s has no VServer group %s", what, loadBalancerID, want.VServerGroupID)
	}
	return nil
}

// CreateRule makes want a rule of a listener and returns it as it is then. A
// rule that is there already is returned and nothing is written; one for the
// same requests with another group is a RuleConflictError. The call of the cloud
// has no token: when an answer is lost, the rules themselves tell.
func (c *Client) CreateRule(ctx context.Context, loadBalancerID string, port int, protocol string, want Rule) (Rule, error) {
	what := ruleText(loadBalancerID, port, want)
	protocol, err := c.ruleListener(ctx, loadBalancerID, port, protocol)
	if err != nil {
		return Rule{}, err
	}
	if err := c.checkRule(ctx, loadBalancerID, port, want); err != nil {
		return Rule{}, err
	}
	if want.Name == "" {
		want.Name = ruleName(want)
	}
	ctx, cancel := alicloud.WithLimit(ctx, c.wait)
	defer cancel()
	var made Rule
	accepted, tries := false, 0
	var open error
	look := func(ctx context.Context) (there bool, _ error) {
		rules, err := c.listRules(ctx, loadBalancerID, port, protocol)
		if err != nil {
			return false, err
		}
		have, err := find1(rules, loadBalancerID, port, want)
		if err != nil {
			return false, poll.Stop(err)
		}
		if have != nil {
			made = *have
		}
		return have != nil, nil
	}
	p := poll.Poller{Interval: c.poll, Retryable: retryable}
	err = p.Until(ctx, what, func(ctx context.Context) (string, bool, error) {
		there, err := look(ctx)
		switch {
		case err != nil:
			return "", false, err
		case there:
			return "there", true, nil
		case accepted:
			return "not shown yet", false, nil
		case tries >= 3:
			return "", false, poll.Stop(fmt.Errorf("cannot create the %s: %w", what, open))
		}
		tries++
		err = wrap(c.api.CreateRule(ctx, loadBalancerID, port, protocol, alicloud.ForwardingRule(want)))
		var e *Error
		switch {
		case err == nil:
			accepted = true
		case ctx.Err() != nil:
			return "", false, err
		case errors.As(err, &e) && e.Ambiguous:
			open = err
			return "not there, and the last write is open", false, nil
		default:
			return "", false, poll.Stop(fmt.Errorf("cannot create the %s: %w", what, err))
		}
		there, err = look(ctx) // mostly it shows at once
		return "written", there, err
	})
	return made, err
}

// ruleName makes a name out of what the API allows: 1 to 40 letters, digits and
// "-/._".
func ruleName(r Rule) string {
	name := strings.Map(func(c rune) rune {
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '-' {
			return c
		}
		return '-'
	}, strings.Trim(r.Domain+strings.TrimSuffix(r.URL, "/"), "*./"))
	return name[:min(len(name), 40)]
}
