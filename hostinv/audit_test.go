package hostinv

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// TestRedactLine holds that no secret of a command line reaches the audit.
func TestRedactLine(t *testing.T) {
	const secret = "hunter2x"
	for _, line := range []string{
		"mysqldump --password=@ db", "mysqldump --password '@ x' db", "PGPASSWORD=@ psql -c 'select 1'", `curl -H "Authorization: Bearer @"`,
		"curl https://user:@%40host/x", "docker login --token @", `echo '{"api_key": "@"}'`, "export SECRET_KEY='@'; run",
	} {
		in := strings.NewReplacer("@", secret, "%40", "@").Replace(line)
		assert.NotContains(t, redactLine(in), secret, in)
	}
	for _, line := range []string{"nginx -t", "cat /etc/passwd", "systemctl restart sshd; echo $?"} {
		assert.Equal(t, line, redactLine(line))
	}
}
