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

// TestMaySecret holds that what the expressions would take out is looked at.
func TestMaySecret(t *testing.T) {
	words := []string{"pass", "Password", "passwd", "PASSPHRASE", "passcode", "pwd", "Secret", "token", "CREDENTIAL", "api-key", "apikey", "access_key",
		"private.key", "encryptkey", "auth", "Authorization", "pa\u017fs", "to\u212aen", "p", "pas", "-", "x", " ", "=", "net.ipv4"}
	for _, a := range words {
		for _, b := range words {
			for _, s := range []string{a + "=" + b, "--" + a + b, a + b + ": v", "x" + a + " " + b + "=v", "--" + a + " " + b} {
				found := secretValue.MatchString(s) || secretOption.MatchString(s) || optionValue.MatchString(s) || authorization.MatchString(s) || lineValue.MatchString(s)
				assert.True(t, maySecret(s) || !found, s)
			}
		}
	}
	assert.False(t, maySecret("vm.swappiness = 30"))
}
