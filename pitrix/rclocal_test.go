package pitrix_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/pitrix"
)

// rcLocalTail is what the installer makes of the settings.
const rcLocalTail = `#!/bin/bash

# mgmt network routing rule
ip route add 192.0.2.0/24 via 198.51.100.254

# vm network routing rule
ip route add 10.80.0.0/16 src 198.51.100.12 via 198.51.100.254

exit 0
`

func TestCompareRCLocal(t *testing.T) {
	for _, tt := range []struct {
		name     string
		old, new string
		opts     pitrix.RCLocalOptions
		missing  string // lines, those that must be carried over with !
		added    string
		carried  string // empty: the new file
	}{
		{name: "same", old: rcLocalTail, new: rcLocalTail},
		{name: "comments, blanks, replace", old: rcLocalTail, new: "ip  route replace 192.0.2.0/24   via 198.51.100.254 # x\n\tip route add 10.80.0.0/16 src 198.51.100.12 via 198.51.100.254\r\n"},
		{name: "by hand", old: rcLocalTail[:len(rcLocalTail)-len("exit 0\n")] + "# the printer\n# of the lab\nip addr add 192.0.2.9/32 dev eth0\nexit 0\n", new: rcLocalTail,
			missing: "!ip addr add 192.0.2.9/32 dev eth0",
			carried: strings.TrimSuffix(rcLocalTail, "exit 0\n") + "# the printer\n# of the lab\nip addr add 192.0.2.9/32 dev eth0\nexit 0\n"},
		{name: "another route there", old: rcLocalTail, new: strings.ReplaceAll(rcLocalTail, "10.80.0.0/16 src 198.51.100.12 via 198.51.100.254", "10.80.0.0/16 src 198.51.100.12 via 198.51.100.253"),
			missing: "ip route add 10.80.0.0/16 src 198.51.100.12 via 198.51.100.254", added: "ip route add 10.80.0.0/16 src 198.51.100.12 via 198.51.100.253"},
		{name: "cards", old: "ip link set eth0 up\nethtool -K eth0 tso off\necho 2 > /proc/irq/24/smp_affinity\nservice irqbalance stop\nfor i in 1 2; do\n  echo 1 > /proc/irq/$i/smp_affinity\ndone\n", new: "",
			missing: "ip link set eth0 up|ethtool -K eth0 tso off|echo 2 > /proc/irq/24/smp_affinity|service irqbalance stop|for i in 1 2; do\n  echo 1 > /proc/irq/$i/smp_affinity\ndone"},
		{name: "twice", old: "a\na\n", new: "a\n", missing: "!a", carried: "a\na\n"},
		{name: "compound", old: "if [ -f /x ]; then\n  # why\n  sh /x\nfi\ncat > /y <<E\nfi\nE\nwhile read l; do echo \"$l\ndone\"; done < /z\ncase $1 in\n a) b;;\nesac\nx \\\n  y\n{ a; }\n(b)\nf() {\n  c\n}\na &&\nb\n", new: "x   y\n",
			missing: "!if [ -f /x ]; then\n  # why\n  sh /x\nfi|!cat > /y <<E\nfi\nE|!while read l; do echo \"$l\ndone\"; done < /z|!case $1 in\n a) b;;\nesac|!x \\\n  y|!{ a; }|!(b)|!f() {\n  c\n}|!a &&\nb", added: "x   y",
			carried: "x   y\nif [ -f /x ]; then\n  # why\n  sh /x\nfi\ncat > /y <<E\nfi\nE\nwhile read l; do echo \"$l\ndone\"; done < /z\ncase $1 in\n a) b;;\nesac\nx \\\n  y\n{ a; }\n(b)\nf() {\n  c\n}\na &&\nb\n"},
		{name: "without line ends", old: "a\nb", new: "a", missing: "!b", carried: "a\nb\n"},
		{name: "empty", old: "", new: ""},
		{name: "added", old: "", new: "a\nexit 0\n", added: "a"},
	} {
		d := pitrix.CompareRCLocal("rc.local.tail", []byte(tt.old), []byte(tt.new), tt.opts)
		show := func(ls []pitrix.RCLocalLine) string {
			var out []string
			for _, l := range ls {
				text := l.Text
				if l.MustCarryOver {
					text = "!" + text
				}
				out = append(out, text)
				assert.Positive(t, l.Line)
			}
			return strings.Join(out, "|")
		}
		assert.Equal(t, tt.missing, show(d.Missing), tt.name)
		assert.Equal(t, tt.added, show(d.Added), tt.name)
		assert.Equal(t, tt.missing == "" && tt.added == "", d.Equal(), tt.name)
		out, err := d.CarryOver()
		require.NoError(t, err, tt.name)
		want := tt.carried
		if want == "" {
			want = tt.new
		}
		assert.Equal(t, want, string(out), tt.name)
	}
	assert.True(t, pitrix.CompareRCLocal("x", []byte("a\nb\n"), []byte("b\na\n"), pitrix.RCLocalOptions{}).Reordered)

	for _, open := range []string{"if true; then\n", "echo \"x\n", "cat <<E\nx\n", "a |\n", "fi\n", "{\n", "x)\n"} {
		_, err := pitrix.CompareRCLocal("rc.local", []byte(open), nil, pitrix.RCLocalOptions{}).CarryOver()
		assert.ErrorContains(t, err, "line 1 of the old file opens something", "%q", open)
		_, err = pitrix.CompareRCLocal("rc.local", []byte("a\n"), []byte(open), pitrix.RCLocalOptions{}).CarryOver()
		assert.ErrorContains(t, err, "line 1 of the new file opens something", "%q", open)
	}
}

// The generated file names the temporary address as a source; apart from that
// it equals the old one.
func TestTemporarySourceFound(t *testing.T) {
	now := strings.ReplaceAll(rcLocalTail, "198.51.100.12", "198.51.100.72")
	addresses := map[string]string{"198.51.100.72": "198.51.100.12"}
	d := pitrix.CompareRCLocal("rc.local.tail", []byte(rcLocalTail), []byte(now), pitrix.RCLocalOptions{Addresses: addresses})
	assert.Empty(t, d.Missing)
	assert.Empty(t, d.Added)
	require.Len(t, d.Temporary, 1)
	assert.Equal(t, 7, d.Temporary[0].Line)
	assert.Equal(t, "198.51.100.72 is temporary; it becomes 198.51.100.12", d.Temporary[0].Why)
	assert.False(t, d.Equal())
	edited, err := pitrix.EditRCLocalTail("rc.local.tail", []byte(now), addresses)
	require.NoError(t, err)
	assert.Equal(t, rcLocalTail, string(edited))
}

// Tunnels to the bare-metal hosts are keyed to the management address and stand
// in no settings file.
func TestTrapVXLANKeyedToAddress(t *testing.T) {
	old := strings.TrimSuffix(rcLocalTail, "exit 0\n") + "ip link add vxlan7 type vxlan id 7 local 198.51.100.12 remote 192.0.2.131 dstport 4789\nip link set vxlan7 up\nexit 0\n"
	d := pitrix.CompareRCLocal("rc.local.tail", []byte(old), []byte(rcLocalTail), pitrix.RCLocalOptions{})
	require.Len(t, d.MustCarryOver(), 1)
	assert.Contains(t, d.MustCarryOver()[0].Why, "keyed to the node's address")
	out, err := d.CarryOver()
	require.NoError(t, err)
	assert.Contains(t, string(out), "ip link add vxlan7 type vxlan id 7 local 198.51.100.12")
}

// A second ip route add fails with "File exists", so a route is neither carried
// over beside the same one nor told apart from ip route replace.
func TestTrapRouteAddTwice(t *testing.T) {
	now := strings.ReplaceAll(rcLocalTail, "route add", "route replace")
	d := pitrix.CompareRCLocal("rc.local.tail", []byte(rcLocalTail), []byte(now), pitrix.RCLocalOptions{})
	assert.True(t, d.Equal())
	out, err := d.CarryOver()
	require.NoError(t, err)
	assert.Equal(t, now, string(out))
	d = pitrix.CompareRCLocal("rc.local.tail", []byte("ip route add 192.0.2.7 via 192.0.2.1\n"), []byte("ip route add 192.0.2.7/32 via 192.0.2.2\n"), pitrix.RCLocalOptions{})
	assert.Empty(t, d.MustCarryOver())
}

// What is cut out of a script that the shell takes is taken by the shell, and
// so is the file that it was carried into.
func FuzzRCLocal(f *testing.F) {
	path := realBash(f)
	check := func(t *testing.T, src []byte) bool {
		cmd := exec.CommandContext(t.Context(), path, "--norc", "--noprofile", "-n")
		cmd.Stdin = strings.NewReader(string(src))
		out, err := cmd.CombinedOutput()
		// It warns of here-documents without an end.
		return err == nil && len(out) == 0
	}
	for _, src := range []string{
		rcLocalTail, "a\nif b; then c; fi\nfor i in 1; do\n x\ndone\n", "cat <<-E\n\tx\n\tE\nf() {\n a\n}\n", "case a in\n(b) c;;\n d|e) f\nesac\n", "a \\\nb && \\\n c\n", "echo $((1<<2)) ${a#b}\n",
		"a=(1 2\n3)\n", "x \"a`b`c\" 'd'\n! true\n",
	} {
		f.Add([]byte(src), []byte(rcLocalTail))
	}
	f.Fuzz(func(t *testing.T, old, now []byte) {
		if strings.ContainsAny(string(old)+string(now), "\x00\r") || !check(t, old) || !check(t, now) {
			t.Skip("no script")
		}
		d := pitrix.CompareRCLocal("f", old, now, pitrix.RCLocalOptions{})
		out, err := d.CarryOver()
		if err != nil {
			t.Skip("refused: fine; a broken script is not")
		}
		require.Empty(t, pitrix.CompareRCLocal("f", old, out, pitrix.RCLocalOptions{}).MustCarryOver())
		require.True(t, check(t, out), "%q", out)
		if len(d.MustCarryOver()) == 0 {
			require.Equal(t, string(now), string(out))
		}
	})
}
