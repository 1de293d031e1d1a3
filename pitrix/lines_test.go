package pitrix

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// A line that somebody has written into cronus' configuration by hand, such as a
// zone server, must be on the new node too; its value is not said.
func TestTrapCronusConfig(t *testing.T) {
	const old = "# cronus\nlisten: 192.0.2.61:8881\nzone_server:\n  - lab1a\n  - lab1b\n\nsecret_key: s3cr3t\n[part one]\nplain=1\n"
	addresses := map[string]string{"192.0.2.71": "192.0.2.61"}
	assert.Empty(t, MissingLines([]byte(old), []byte("plain=1\n[part one]\nsecret_key: s3cr3t\nlisten: 192.0.2.71:8881\nzone_server:\n- lab1b\n- lab1a\nmore: 1"), addresses))
	assert.Equal(t, []MissingLine{{2, "listen"}, {5, "-"}, {7, "secret_key"}, {8, "[part"}, {9, "plain"}},
		MissingLines([]byte(old), []byte("listen: 192.0.2.711:8881\nzone_server:\n  - lab1a\n"), addresses), "192.0.2.711 is another word")
	assert.Len(t, MissingLines([]byte(old), nil, addresses), 7)
	assert.Empty(t, MissingLines(nil, []byte(old), nil))
}
