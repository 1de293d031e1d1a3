package nginx

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
)

// A Move says how many clients a change sends to another server in an upstream
// that maps clients to servers (ip_hash, hash, hash consistent). It is found by
// nginx's own arithmetic on a fixed sample of clients; a host name counts as
// one server, as its addresses are not looked up. The clients of a server that
// the change takes out are not counted: they go elsewhere in any case.
type Move struct {
	File     string
	Line     int // of the upstream block
	Upstream string
	Method   string // "ip_hash", "hash" or "hash consistent"
	// Clients is how many of the sample are served by servers that stay; Moved is
	// how many of these get another server.
	Clients, Moved int
}

func (m Move) String() string {
	return fmt.Sprintf("upstream %s maps clients to servers (%s): of %d clients of the servers that stay %d move to another one", m.Upstream, m.Method, m.Clients, m.Moved)
}

const (
	// sampleSize is how many clients Move is counted on.
	sampleSize = 1000
	// maxPoints bounds the ring of a consistent hash: 160 points for each unit
	// of weight. Behind it, weights are cut down in proportion.
	maxPoints = 160 * 4096
	// maxTries is how often nginx goes on from a server that is down before it
	// takes any by turns.
	maxTries = 20
)

// move compares where the clients of the sample go before and after.
func move(before, after *servers) Move {
	pos := before.block.Position()
	out := Move{File: before.block.f.name, Line: pos.Line, Upstream: before.name, Method: before.method()}
	stays := map[string]bool{}
	for _, m := range after.members {
		if !m.backup && !m.down {
			stays[m.key()] = true
		}
	}
	was, is := before.selector(), after.selector()
	for i := range sampleSize {
		c := client(i)
		a := was(c)
		if a == "" || !stays[a] {
			continue
		}
		out.Clients++
		if is(c) != a {
			out.Moved++
		}
	}
	return out
}

// client returns the n-th client of the sample: the three bytes of its IPv4
// network that ip_hash looks at. hash gets them as text.
func client(n int) [3]byte {
	x := uint32(n)*2654435761 + 12345 // spreads neighbours over all networks
	x ^= x >> 15
	x *= 2246822519
	x ^= x >> 13
	return [3]byte{byte(x >> 24), byte(x >> 16), byte(x >> 8)}
}

func (m member) key() string { return strings.ToLower(m.d.Arg(1)) }

// selector returns what nginx does: the server of a client, "" where it takes
// one by turns.
func (s *servers) selector() func(c [3]byte) string {
	var peers []member
	total := 0
	for _, m := range s.members {
		if !m.backup {
			peers = append(peers, m)
			total += m.weight
		}
	}
	if len(peers) == 0 {
		return func([3]byte) string { return "" }
	}
	pick := func(w int) member {
		for _, p := range peers {
			if w -= p.weight; w < 0 {
				return p
			}
		}
		return peers[len(peers)-1]
	}
	switch {
	case s.hash == "ip_hash":
		return func(c [3]byte) string { return ipHash(c[:], total, pick) }
	case s.steady:
		ring := newRing(peers, total)
		return func(c [3]byte) string { return ring.find(clientKey(c)) }
	}
	return func(c [3]byte) string { return plainHash(clientKey(c), total, pick) }
}

func clientKey(c [3]byte) []byte { return fmt.Appendf(nil, "%d.%d.%d", c[0], c[1], c[2]) }

// ipHash is ngx_http_upstream_get_ip_hash_peer: addr is the first three bytes
// of an IPv4 address, or all of an IPv6 address.
func ipHash(addr []byte, total int, pick func(int) member) string {
	hash := 89
	for range maxTries + 1 {
		for _, b := range addr {
			hash = (hash*113 + int(b)) % 6271
		}
		if p := pick(hash % total); !p.down {
			return p.key()
		}
	}
	return ""
}

// plainHash is ngx_http_upstream_get_hash_peer.
func plainHash(key []byte, total int, pick func(int) member) string {
	var sum uint32
	for try := range maxTries + 1 {
		h := crc32.NewIEEE()
		if try > 0 {
			fmt.Fprintf(h, "%d", try)
		}
		h.Write(key)
		sum += h.Sum32() >> 16 & 0x7fff
		if p := pick(int(sum) % total); !p.down {
			return p.key()
		}
	}
	return ""
}

// A ring is the points of ngx_http_upstream_init_chash.
type ring struct {
	points []point
	down   map[string]bool
}

type point struct {
	hash   uint32
	server string
}

func newRing(peers []member, total int) *ring {
	r := &ring{down: map[string]bool{}}
	for _, p := range peers {
		name := p.d.Arg(1)
		key := p.key()
		r.down[key] = p.down
		// crc32(HOST \0 PORT PREV_HASH), as Cache::Memcached::Fast does it.
		host, port := name, ""
		if path, ok := strings.CutPrefix(strings.ToLower(name), "unix:"); ok {
			host = name[len(name)-len(path):]
		} else if i := strings.LastIndexByte(name, ':'); i >= 0 && digits(name[i+1:]) {
			host, port = name[:i], name[i+1:]
		}
		base := crc32.ChecksumIEEE([]byte(host + "\x00" + port))
		n := p.weight * 160
		if 160*total > maxPoints {
			n = max(int(int64(n)*maxPoints/int64(160*total)), 1)
		}
		var prev [4]byte
		for range n {
			hash := crc32.Update(base, crc32.IEEETable, prev[:])
			r.points = append(r.points, point{hash, key})
			binary.LittleEndian.PutUint32(prev[:], hash)
		}
	}
	slices.SortStableFunc(r.points, func(a, b point) int { return cmp.Compare(a.hash, b.hash) })
	r.points = slices.CompactFunc(r.points, func(a, b point) bool { return a.hash == b.hash })
	return r
}

func (r *ring) find(key []byte) string {
	i, _ := slices.BinarySearchFunc(r.points, crc32.ChecksumIEEE(key), func(p point, h uint32) int { return cmp.Compare(p.hash, h) })
	for try := range maxTries + 1 {
		if p := r.points[(i+try)%len(r.points)]; !r.down[p.server] {
			return p.server
		}
	}
	return ""
}

func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}
