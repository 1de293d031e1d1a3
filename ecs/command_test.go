package ecs

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/alicloud"
)

// Whatever a host prints, a line that comes out is one that it printed, of two
// words, with a blob that says the type the line says.
func FuzzParseHostKeys(f *testing.F) {
	const blob = "AAAAC3NzaC1lZDI1NTE5AAAAIG3QgVHWJ2ECB5u6iCTeRvGQMHbH8yWeBQG0fhsBkXQx"
	f.Add([]byte("ssh-ed25519 " + blob + " root@web-90\n"))
	f.Add([]byte("ssh-ed25519 " + blob + "\r\nssh-rsa " + blob))
	f.Add([]byte("# comment\nssh-ed25519 AAAA\nssh-ed25519 //////8=\n"))
	f.Add([]byte{0xff, 0x00, '\n', ' '})
	f.Fuzz(func(t *testing.T, out []byte) {
		for _, k := range parseHostKeys(out) {
			typ, b64, ok := strings.Cut(k, " ")
			raw, err := base64.StdEncoding.DecodeString(b64)
			if !ok || err != nil || len(raw) < 4+len(typ)+1 || string(raw[4:4+len(typ)]) != typ {
				t.Errorf("%q is not a key", k)
			}
			if !strings.Contains(string(out), typ) || !strings.Contains(string(out), b64) {
				t.Errorf("%q was not printed", k)
			}
		}
	})
}

func TestDeriveToken(t *testing.T) {
	long := strings.Repeat("x", 100)
	seen := map[string]string{}
	for _, c := range [][]string{{"u1"}, {"u1", "d-1"}, {"u1", "d-2"}, {long}, {long + "y"}, {long, "d-1"}, {"u1", "d-1", ""}} {
		got := deriveToken(c[0], c[1:]...)
		if len(got) > 64 {
			t.Errorf("%q has %d characters, 64 are allowed", got, len(got))
		}
		if other, ok := seen[got]; ok {
			t.Errorf("%v and %s have the same token", c, other)
		}
		seen[got] = strings.Join(c, ",")
		if got != deriveToken(c[0], c[1:]...) {
			t.Errorf("the token of %v changes", c)
		}
	}
	if deriveToken("u1") != "u1" {
		t.Error("a token that fits is sent as it is")
	}
}

// Every end that an invocation can have, by the cloud's words for it.
func TestOutcome(t *testing.T) {
	for _, tt := range []struct {
		status, code string
		ran, notRun  bool
	}{
		{"Success", "", true, false},
		{"Failed", "", true, false},
		{"Failed", "ExitCodeNonzero", true, false},
		{"Failed", "ExecutionException", false, false},
		{"Failed", "ClientNotRunning", false, true},
		{"Failed", "InstanceNotRunning", false, true},
		{"Failed", "SomethingNew", false, false},
		{"Error", "AccountNotExists", false, true},
		{"Error", "DirectoryNotExists", false, true},
		{"Timeout", "ExecutionTimeout", false, false},
		{"Timeout", "DeliveryTimeout", false, true},
		{"Aborted", "ClientNotResponse", false, true},
		{"Invalid", "", false, true},
		{"Cancelled", "", false, false},
		{"Terminated", "", false, false},
		{"Terminated", "ExecutionInterrupted", false, false},
	} {
		r, err := outcome("i-1", alicloud.Invocation{Status: tt.status, ErrorCode: tt.code, ExitCode: 3, Output: []byte("said")})
		if tt.ran {
			require.NoError(t, err)
			assert.Equal(t, 3, r.ExitCode)
			continue
		}
		var ce *CommandError
		require.ErrorAs(t, err, &ce)
		assert.Equal(t, tt.notRun, ce.NotRun, "%s %s", tt.status, tt.code)
		assert.Equal(t, "said", string(ce.Output))
		assert.Contains(t, err.Error(), tt.status)
	}
}
