package cloud

import (
	"cmp"
	"slices"
	"strings"
)

const dnsVersion = "2015-01-09"

func dnsActions() []action {
	return []action{
		{name: "DescribeDomains", do: (*Cloud).describeDomains,
			served: `
				KeyWord PageNumber:int PageSize:int SearchMode`,
			other: `
				GroupId Lang ResourceGroupId Starmark`,
		},
		{name: "DescribeDomainRecords", do: (*Cloud).describeDomainRecords,
			served: `
				DomainName! PageNumber:int PageSize:int RRKeyWord SearchMode Status Type TypeKeyWord
				ValueKeyWord`,
			other: `
				Direction GroupId KeyWord Lang Line OrderBy`,
		},
	}
}

// A DNSRecord is one record of a domain in Alibaba Cloud DNS.
type DNSRecord struct {
	ID, Domain  string
	RR          string // "@" is the domain itself
	Type, Value string // Type default A
	TTL         int    // seconds; default 600
	Line        string // default
	Disabled    bool
}

// dnsState is the account's domains, in the order in which they were added.
type dnsState struct {
	domains []string
	records []DNSRecord
}

// AddDNSRecord adds a record, and its domain if it is new.
func (c *Cloud) AddDNSRecord(r DNSRecord) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r.ID, r.Type, r.Line, r.TTL = cmp.Or(r.ID, c.newID("rec")), cmp.Or(r.Type, "A"), cmp.Or(r.Line, "default"), cmp.Or(r.TTL, 600)
	c.dns.records = append(c.dns.records, r)
	if !slices.Contains(c.dns.domains, r.Domain) {
		c.dns.domains = append(c.dns.domains, r.Domain)
	}
}

// SetDNSRecord changes the value of a record: what somebody does at the console.
// It reports whether there is such a record.
func (c *Cloud) SetDNSRecord(id, typ, value string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n := range c.dns.records {
		if c.dns.records[n].ID == id {
			c.dns.records[n].Type, c.dns.records[n].Value = typ, value
			return true
		}
	}
	return false
}

// searchMode refuses the modes that are not simulated.
func searchMode(q *call, modes ...string) *apiError {
	if m := q.str("SearchMode"); m != "" && !slices.Contains(modes, m) {
		return refuse(400, "InvalidParameter", "The SearchMode %q is not simulated: %s.", m, strings.Join(modes, " or "))
	}
	return nil
}

func (c *Cloud) describeDomains(q *call) (obj, *apiError) {
	if err := searchMode(q, "LIKE", "EXACT"); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []string
	for _, d := range c.dns.domains {
		k := q.str("KeyWord")
		if q.str("SearchMode") == "EXACT" && k != "" && d != k || !strings.Contains(d, k) {
			continue
		}
		found = append(found, d)
	}
	return page(q, found, 20, 100, "Domains", "Domain", func(d string) obj {
		n := 0
		for _, r := range c.dns.records {
			if r.Domain == d {
				n++
			}
		}
		return obj{"DomainName": d, "DomainId": "dom-" + d, "AliDomain": true, "PunyCode": d, "RecordCount": n, "VersionCode": "mianfei",
			"DnsServers": obj{"DnsServer": []string{"dns1.hichina.com", "dns2.hichina.com"}}}
	})
}

func (c *Cloud) describeDomainRecords(q *call) (obj, *apiError) {
	if err := searchMode(q, "ADVANCED"); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Contains(c.dns.domains, q.str("DomainName")) {
		return nil, fail(400, "InvalidDomainName.NoExist", "The specified domain name does not exist. Refresh the page and try again.")
	}
	var found []DNSRecord
	for _, r := range c.dns.records {
		// The search by keyword is fuzzy.
		if r.Domain == q.str("DomainName") && strings.Contains(r.Value, q.str("ValueKeyWord")) && strings.Contains(r.RR, q.str("RRKeyWord")) &&
			(q.str("TypeKeyWord") == "" || strings.EqualFold(r.Type, q.str("TypeKeyWord"))) && (q.str("Type") == "" || strings.EqualFold(r.Type, q.str("Type"))) &&
			(q.str("Status") == "" || strings.EqualFold(q.str("Status"), r.status())) {
			found = append(found, r)
		}
	}
	return page(q, found, 20, 500, "DomainRecords", "Record", func(r DNSRecord) obj {
		return obj{"RecordId": r.ID, "DomainName": r.Domain, "RR": r.RR, "Type": r.Type, "Value": r.Value, "TTL": r.TTL, "Line": r.Line,
			"Status": r.status(), "Locked": false, "Weight": 1}
	})
}

func (r DNSRecord) status() string {
	if r.Disabled {
		return "DISABLE"
	}
	return "ENABLE"
}
