package nginx

// A Query says which references are looked for.
type Query struct {
	// Host is an IP address or a host name; addresses are compared as
	// addresses, names without regard to case. Empty means all.
	Host string
	// Port is the port, also one that the configuration leaves to its default.
	// 0 means any.
	Port int
}

// Kind says what a reference is.
type Kind string

const (
	// KindServer is a server line of an upstream.
	KindServer Kind = "server"
	// KindPass is a proxy_pass or another *_pass that names the address itself.
	KindPass Kind = "pass"
	// KindValue is the value of a set, map, geo or split_clients.
	KindValue Kind = "value"
	// KindOff is a directive that Disable turned off.
	KindOff Kind = "off"
	// KindComment is a directive that somebody commented out by hand.
	KindComment Kind = "comment"
	// KindMention is any other word or Lua code in which the address appears.
	// Mentions are never Certain: only a person can tell what they mean.
	KindMention Kind = "mention"
)

// A Ref is a place of the configuration that refers to an address.
type Ref struct {
	Kind      Kind
	File      string
	Line, Col int // of the directive's or the marker's first byte, from 1
	// Addr is the address as it is written: "172.31.0.90:8080",
	// "http://172.31.0.90:8080/app". Host and Port are read from it; Port is the
	// default one where none is written, and 0 where there is no default.
	Addr string
	Host string
	Port int
	// Upstream is the name of the upstream block a server line stands in, as
	// written.
	Upstream string
	// Protocol is "http", "stream" or "mail"; "" when the file alone does not say.
	Protocol  string
	Directive string // "server", "proxy_pass", "set", "map", …
	// Context names the blocks around it: "http/upstream app". A file that is
	// included at several places gives one Ref with several contexts; Uses is
	// their number.
	Context string
	Uses    int
	// State holds "active", or "down" and "backup", or "off", or "hand-commented".
	State []string
	// Certain is false where only the running nginx or a person can tell
	// whether it means the address that was asked for; Reason says why.
	Certain bool
	Reason  string
	// Tag is that of our marker: on an off line, or on a server we added.
	Tag string

	d         Directive
	word      int  // the word that holds the address
	host      Span // of the host in the file; empty: not replaceable in place
	contexts  []string
	upstreams []*servers
	marker    *marker
}
