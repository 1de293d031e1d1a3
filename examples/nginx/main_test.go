package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestShow(t *testing.T) {
	var out strings.Builder
	require.NoError(t, show(t.Context(), &out, "testdata", "172.31.0.90", ""))
	assert.Equal(t, `/etc/nginx/conf.d/shop.conf:3:2: server 172.31.0.90:8080 in http/upstream shop [active]
--- /etc/nginx/conf.d/shop.conf
+++ /etc/nginx/conf.d/shop.conf
@@ -1,6 +1,6 @@
 upstream shop {
 	least_conn;
-	server 172.31.0.90:8080 weight=2; # web-90
+	#upgradectl:off(example) server 172.31.0.90:8080 weight=2; # web-90
 	server 172.31.0.92:8080;
 }
 
`, out.String())
	require.NoError(t, show(t.Context(), &out, "testdata", "172.31.0.99", ""))
	assert.Error(t, show(t.Context(), &out, "missing", "172.31.0.90", ""))

	out.Reset()
	require.NoError(t, show(t.Context(), &out, "testdata", "172.31.0.90", "172.31.0.101"))
	assert.Contains(t, out.String(), "+\tserver 172.31.0.101:8080 weight=2; #upgradectl:add(example)\n")
}
