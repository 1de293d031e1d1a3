package nginx_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/testenv"
	"github.com/upgradectl/upgradectl/nginx"
)

var (
	old90 = nginx.Query{Host: addr}
	old80 = nginx.Query{Host: addr, Port: 8080}
	// Each edit under tag T, of addr and, where there is a second one, other.
	disable   = func(t *nginx.Tree) (*nginx.Change, error) { return t.Disable(old90, "T") }
	comment   = func(t *nginx.Tree) (*nginx.Change, error) { return t.Comment(old90, "T") }
	down      = func(t *nginx.Tree) (*nginx.Change, error) { return t.SetDown(old90, "T") }
	restore   = func(t *nginx.Tree) (*nginx.Change, error) { return t.Restore("T") }
	addLike   = func(t *nginx.Tree) (*nginx.Change, error) { return t.AddServer(old90, other, "T") }
	remove    = func(t *nginx.Tree) (*nginx.Change, error) { return t.RemoveAdded("T") }
	replace   = func(t *nginx.Tree) (*nginx.Change, error) { return t.Replace(old90, other, "T") }
	weigh3    = func(t *nginx.Tree) (*nginx.Change, error) { return t.SetWeight(old90, 3) }
	setBackup = func(t *nginx.Tree) (*nginx.Change, error) { return t.SetBackup(old90) }
	shift     = func(t *nginx.Tree) (*nginx.Change, error) { return t.Shift(old90, other, "T") }
	shiftIn   = func(t *nginx.Tree) (*nginx.Change, error) { return t.ShiftIn(old90, other, "T") }
	shiftBack = func(t *nginx.Tree) (*nginx.Change, error) { return t.ShiftBack(old90, other, "T") }
)

func replaceBy(q nginx.Query, to string) func(*nginx.Tree) (*nginx.Change, error) {
	return func(t *nginx.Tree) (*nginx.Change, error) { return t.Replace(q, to, "") }
}

// longComment is one that nginx still reads, and not with a marker before it.
var longComment = "#" + strings.Repeat("x", 4080)

// editRows: what an edit makes of an http block, or why it refuses. For a
// refusal, naive is the edit made by hand: nginx -t says suffers of it, or
// passes it and then answers status. PORT is a port for the block to listen on.
var editRows = []struct {
	name          string
	edit          func(*nginx.Tree) (*nginx.Change, error)
	before, after string
	refused       error
	naive         string
	suffers       string
	status        int
}{
	// down
	{name: "down beside another", edit: down,
		before: "\nupstream u {\n\tserver 172.31.0.90:8080 weight=2; # blue\n\tserver 10.0.0.1;\n}\n",
		after:  "\nupstream u {\n\tserver 172.31.0.90:8080 weight=2 down; #upgradectl:down(T) # blue\n\tserver 10.0.0.1;\n}\n"},
	{name: "down, CRLF", edit: down,
		before: "\r\nupstream u {\r\n\tserver 172.31.0.90;\r\n\tserver 10.0.0.1;\r\n}\r\n",
		after:  "\r\nupstream u {\r\n\tserver 172.31.0.90 down; #upgradectl:down(T)\r\n\tserver 10.0.0.1;\r\n}\r\n"},
	{name: "down, several on a line", edit: down,
		before: "upstream u { server 172.31.0.90:1; server 172.31.0.90:2 ; server 10.0.0.1; }\n",
		after:  "upstream u { server 172.31.0.90:1 down; #upgradectl:down(T,nl)\n server 172.31.0.90:2 down ; #upgradectl:down(T,nl)\n server 10.0.0.1; }\n"},
	{name: "down, several on a line, CRLF", edit: down,
		before: "\r\nupstream u {server 172.31.0.90:1;server 10.0.0.1;}\r\n",
		after:  "\r\nupstream u {server 172.31.0.90:1 down; #upgradectl:down(T,nl)\r\nserver 10.0.0.1;}\r\n"},
	{name: "down over several lines", edit: down,
		before: "\nupstream u {\n\tserver 172.31.0.90:8080 # a\n\t\tweight=2 # b\n\t; # c\n\tserver 10.0.0.1;\n}\n",
		after:  "\nupstream u {\n\tserver 172.31.0.90:8080 # a\n\t\tweight=2 down # b\n\t; #upgradectl:down(T) # c\n\tserver 10.0.0.1;\n}\n"},
	{name: "down behind quotes", edit: down,
		before: "upstream u {\nserver \"172.31.0.90:80\" 'weight=2';\nserver 10.0.0.1;\n}",
		after:  "upstream u {\nserver \"172.31.0.90:80\" 'weight=2' down; #upgradectl:down(T)\nserver 10.0.0.1;\n}"},
	{name: "down with a backup beside", edit: down,
		before: "upstream u {\nserver 172.31.0.90;\nserver 10.0.0.1 backup;\n}",
		after:  "upstream u {\nserver 172.31.0.90 down; #upgradectl:down(T)\nserver 10.0.0.1 backup;\n}"},
	{name: "down of a backup", edit: down,
		before: "upstream u {\nserver 172.31.0.90 backup;\nserver 10.0.0.1;\n}",
		after:  "upstream u {\nserver 172.31.0.90 backup down; #upgradectl:down(T)\nserver 10.0.0.1;\n}"},
	{name: "down of a server that was added", edit: down,
		before: "upstream u {\nserver 10.0.0.1;\nserver 172.31.0.90; #upgradectl:add(U)\n}",
		after:  "upstream u {\nserver 10.0.0.1;\nserver 172.31.0.90 down; #upgradectl:down(T) #upgradectl:add(U)\n}"},
	{name: "down before one that is off", edit: down,
		before: "upstream u {\nserver 10.0.0.1;\nserver 172.31.0.90; #upgradectl:off(U,nl) server 10.0.0.2;\n}",
		after:  "upstream u {\nserver 10.0.0.1;\nserver 172.31.0.90 down; #upgradectl:down(T,nl)\n #upgradectl:off(U,nl) server 10.0.0.2;\n}"},
	{name: "comment before one that is off", edit: comment,
		before: "upstream u {\nserver 10.0.0.1;\nserver 172.31.0.90; #upgradectl:off(U,nl) server 10.0.0.2;\n}",
		after:  "upstream u {\nserver 10.0.0.1;\n#upgradectl:off(T,nl) server 172.31.0.90;\n #upgradectl:off(U,nl) server 10.0.0.2;\n}"},
	{name: "auto, ip_hash", edit: disable,
		before: "upstream u {\nip_hash;\nserver 172.31.0.90;\nserver 10.0.0.1;\n}",
		after:  "upstream u {\nip_hash;\nserver 172.31.0.90 down; #upgradectl:down(T)\nserver 10.0.0.1;\n}"},
	{name: "auto, hash behind the servers", edit: disable,
		before: "upstream u {\nserver 172.31.0.90;\nserver 10.0.0.1;\nhash $uri;\n}",
		after:  "upstream u {\nserver 172.31.0.90 down; #upgradectl:down(T)\nserver 10.0.0.1;\nhash $uri;\n}"},
	{name: "auto, consistent hash", edit: disable,
		before: "upstream u {\nhash $uri consistent;\nserver 172.31.0.90;\nserver 10.0.0.1;\n}",
		after:  "upstream u {\nhash $uri consistent;\nserver 172.31.0.90 down; #upgradectl:down(T)\nserver 10.0.0.1;\n}"},
	{name: "auto, random and least_conn", edit: disable,
		before: "upstream u {\nrandom;\nserver 172.31.0.90;\nserver 10.0.0.1;\n}\nupstream v {\nleast_conn;\nserver 172.31.0.90;\nserver 10.0.0.1;\n}",
		after:  "upstream u {\nrandom;\n#upgradectl:off(T) server 172.31.0.90;\nserver 10.0.0.1;\n}\nupstream v {\nleast_conn;\n#upgradectl:off(T) server 172.31.0.90;\nserver 10.0.0.1;\n}"},
	{name: "down, the last one", edit: down, refused: nginx.ErrOnlyDownLeft, status: 502,
		before: "upstream u {\nserver 172.31.0.90;\n}\nserver { listen PORT; location / { proxy_pass http://u; } }",
		naive:  "upstream u {\nserver 172.31.0.90 down;\n}\nserver { listen PORT; location / { proxy_pass http://u; } }"},
	{name: "down, others down already", edit: down, refused: nginx.ErrOnlyDownLeft, status: 502,
		before: "upstream u {\nserver 172.31.0.90;\nserver 10.0.0.1 down;\n}\nserver { listen PORT; location / { proxy_pass http://u; } }",
		naive:  "upstream u {\nserver 172.31.0.90 down;\nserver 10.0.0.1 down;\n}\nserver { listen PORT; location / { proxy_pass http://u; } }"},
	{name: "down, comment too long", edit: down, refused: nginx.ErrTooLong, suffers: "too long parameter",
		before: "upstream u {\nserver 172.31.0.90; " + longComment + "\nserver 10.0.0.1;\n}",
		naive:  "upstream u {\nserver 172.31.0.90 down; #upgradectl:down(T) " + longComment + "\nserver 10.0.0.1;\n}"},
	{name: "comment too long by its comment", edit: comment, refused: nginx.ErrTooLong, suffers: "too long parameter",
		before: "upstream u {\nserver 172.31.0.90; " + longComment + "\nserver 10.0.0.1;\n}",
		naive:  "upstream u {\n#upgradectl:off(T) server 172.31.0.90; " + longComment + "\nserver 10.0.0.1;\n}"},
	{name: "only down left, asked", edit: comment, refused: nginx.ErrOnlyDownLeft, status: 502,
		before: "upstream u {\nserver 172.31.0.90;\nserver 10.0.0.1 down;\n}\nserver { listen PORT; location / { proxy_pass http://u; } }",
		naive:  "upstream u {\n#server 172.31.0.90;\nserver 10.0.0.1 down;\n}\nserver { listen PORT; location / { proxy_pass http://u; } }"},
	{name: "direct pass, asked", edit: disable, refused: nginx.ErrDirectPass, status: 404,
		before: "server { listen PORT; root /dev/null/nowhere; location / { proxy_pass http://172.31.0.90; } }",
		naive:  "server { listen PORT; root /dev/null/nowhere; location / {\n#proxy_pass http://172.31.0.90;\n} }"},
	{name: "map default, asked", edit: disable, refused: nginx.ErrMapDefault, status: 500,
		before: "map $uri $to { default 172.31.0.90; }\nserver { listen PORT; location / { proxy_pass http://$to; } }",
		naive:  "map $uri $to {\n#default 172.31.0.90;\n}\nserver { listen PORT; location / { proxy_pass http://$to; } }"},
	{name: "split_clients rest, asked", edit: disable, refused: nginx.ErrMapDefault, status: 500,
		before: "split_clients $uri $to { 0.01% 10.0.0.1:1; * 172.31.0.90; }\nserver { listen PORT; location / { proxy_pass http://$to; } }",
		naive:  "split_clients $uri $to { 0.01% 10.0.0.1:1;\n#* 172.31.0.90;\n}\nserver { listen PORT; location / { proxy_pass http://$to; } }"},
	{name: "set, asked", edit: disable, refused: nginx.ErrDirectValue, suffers: `unknown "to" variable`,
		before: "server { listen PORT; set $to 172.31.0.90; location / { proxy_pass http://$to; } }",
		naive:  "server { listen PORT;\n#set $to 172.31.0.90;\nlocation / { proxy_pass http://$to; } }"},
	{name: "down under another tag", edit: disable, refused: nginx.ErrOtherTag,
		before: "upstream u {\nserver 172.31.0.90 down; #upgradectl:down(U)\nserver 10.0.0.1;\n}"},

	// restore
	{name: "restore, both ways", edit: restore,
		before: "upstream u {\n#upgradectl:off(T) server 172.31.0.90;\nserver 10.0.0.1 down; #upgradectl:down(T) # note\nserver 10.0.0.2;\n#upgradectl:off(U) server 10.0.0.3;\n}",
		after:  "upstream u {\nserver 172.31.0.90;\nserver 10.0.0.1; # note\nserver 10.0.0.2;\n#upgradectl:off(U) server 10.0.0.3;\n}"},
	{name: "restore, a person set a weight meanwhile", edit: restore,
		before: "upstream u {\n#upgradectl:off(T) server 172.31.0.90 weight=7; # mine\nserver 10.0.0.1 down weight=4; #upgradectl:down(T)\nserver 10.0.0.2;\n}",
		after:  "upstream u {\nserver 172.31.0.90 weight=7; # mine\nserver 10.0.0.1 weight=4;\nserver 10.0.0.2;\n}"},
	{name: "restore, a person took down away", edit: restore,
		before: "upstream u {\nserver 10.0.0.1; # back #upgradectl:down(T)\nserver 10.0.0.2;\n}",
		after:  "upstream u {\nserver 10.0.0.1; # back\nserver 10.0.0.2;\n}"},
	{name: "restore, a person wrote behind an inserted line end", edit: restore,
		before: "upstream u { server 10.0.0.1 down; #upgradectl:down(T,nl) why\n server 10.0.0.2; }",
		after:  "upstream u { server 10.0.0.1; # why\n server 10.0.0.2; }"},
	{name: "restore a parameter this nginx lacks", refused: nginx.ErrNotSupportedByVersion, suffers: `invalid parameter "drain"`,
		edit: func(t *nginx.Tree) (*nginx.Change, error) {
			return t.ForVersion(nginx.Version{Major: 1, Minor: 22, Patch: 1}).Restore("T")
		},
		before: "upstream u {\n#upgradectl:off(T) server 172.31.0.90 drain;\nserver 10.0.0.1;\n}",
		naive:  "upstream u {\nserver 172.31.0.90 drain;\nserver 10.0.0.1;\n}"},
	{name: "restore a damaged marker", edit: restore, refused: nginx.ErrMarkerDamaged, suffers: `invalid parameter "server"`,
		before: "upstream u {\n#upgradectl:off(T) server 172.31.0.90\nserver 10.0.0.1;\n}",
		naive:  "upstream u {\nserver 172.31.0.90\nserver 10.0.0.1;\n}"},

	{name: "restore a marker that moved in its comment", edit: restore, refused: nginx.ErrMarkerDamaged,
		before: "upstream u {\n# #upgradectl:off(T) server 172.31.0.90;\nserver 10.0.0.1;\n}"},
	{name: "disable again behind a marker that moved", edit: disable, refused: nginx.ErrMarkerDamaged,
		before: "upstream u {\n# upgradectl:off(T) server 172.31.0.90;\nserver 10.0.0.1;\n}"},

	// add, remove
	{name: "add into a hash group", edit: addLike,
		before: "upstream u {\nip_hash;\nserver 172.31.0.90 weight=2;\nserver 10.0.0.1;\n}",
		after:  "upstream u {\nip_hash;\nserver 172.31.0.90 weight=2;\nserver 172.31.0.91 weight=2; #upgradectl:add(T)\nserver 10.0.0.1;\n}"},
	{name: "add a backup before the hash", edit: addLike,
		before: "upstream u {\nserver 172.31.0.90 backup;\nserver 10.0.0.1;\nip_hash;\n}",
		after:  "upstream u {\nserver 172.31.0.90 backup;\nserver 172.31.0.91 backup; #upgradectl:add(T)\nserver 10.0.0.1;\nip_hash;\n}"},
	{name: "add with another port, IPv6",
		edit:   func(t *nginx.Tree) (*nginx.Change, error) { return t.AddServer(old90, "[fd00::1]:81", "T") },
		before: "upstream u {\nserver '172.31.0.90' weight=2;\n}",
		after:  "upstream u {\nserver '172.31.0.90' weight=2;\nserver '[fd00::1]:81' weight=2; #upgradectl:add(T)\n}"},
	{name: "add one, not two of the same", edit: func(t *nginx.Tree) (*nginx.Change, error) { return t.AddServer(old90, other+":81", "T") },
		before: "upstream u {\nserver 172.31.0.90:1;\nserver 172.31.0.90:2;\n}",
		after:  "upstream u {\nserver 172.31.0.90:1;\nserver 172.31.0.91:81; #upgradectl:add(T)\nserver 172.31.0.90:2;\n}"},
	{name: "add what is there", edit: addLike, refused: nginx.ErrExists,
		before: "upstream u {\nserver 172.31.0.90;\nserver 172.31.0.91:80;\n}"},
	{name: "remove, with a person's note", edit: remove,
		before: "upstream u {\nserver 172.31.0.90;\nserver 172.31.0.91 weight=9; #upgradectl:add(T) too slow\n}",
		after:  "upstream u {\nserver 172.31.0.90;\n}"},
	{name: "remove from a line", edit: remove,
		before: "upstream u { server 172.31.0.90; server 172.31.0.91; #upgradectl:add(T,nl)\n server 10.0.0.1; }",
		after:  "upstream u { server 172.31.0.90; server 10.0.0.1; }"},
	{name: "remove the last", edit: remove, refused: nginx.ErrLastServer, suffers: "no servers are inside upstream",
		before: "upstream u {\n#upgradectl:off(U) server 172.31.0.90;\nserver 172.31.0.91; #upgradectl:add(T)\n}",
		naive:  "upstream u {\n#upgradectl:off(U) server 172.31.0.90;\n}"},
	{name: "remove what another operation disabled", edit: remove, refused: nginx.ErrOtherTag,
		before: "upstream u {\nserver 172.31.0.90;\n#upgradectl:off(U) server 172.31.0.91; #upgradectl:add(T)\n}"},

	// replace
	{name: "replace a server", edit: replace,
		before: "upstream u {\nip_hash;\nserver 172.31.0.90:8080 weight=2; # x\nserver 10.0.0.1;\n}",
		after:  "upstream u {\nip_hash;\nserver 172.31.0.91:8080 weight=2; # x\nserver 10.0.0.1;\n}"},
	{name: "replace in passes", edit: replace,
		before: "server { location / { proxy_pass http://172.31.0.90:8080/x$is_args$args; } location /f { fastcgi_pass '172.31.0.90:9000'; } location /u { uwsgi_pass 172.31.0.90:1; } location /s { scgi_pass 172.31.0.90:2; } location /m { set $memcached_key $uri; memcached_pass 172.31.0.90:3; } location /g { grpc_pass grpc://172.31.0.90:4; } }",
		after:  "server { location / { proxy_pass http://172.31.0.91:8080/x$is_args$args; } location /f { fastcgi_pass '172.31.0.91:9000'; } location /u { uwsgi_pass 172.31.0.91:1; } location /s { scgi_pass 172.31.0.91:2; } location /m { set $memcached_key $uri; memcached_pass 172.31.0.91:3; } location /g { grpc_pass grpc://172.31.0.91:4; } }"},
	{name: "replace in values", edit: replace,
		before: "map $uri $m { default 172.31.0.90:80; /a 10.0.0.1:80; }\ngeo $g { default http://172.31.0.90; }\nsplit_clients $uri $s { 50% 172.31.0.90:81; * 10.0.0.1:81; }\nserver { set $v 172.31.0.90; location / { proxy_pass http://$m; } location /g { proxy_pass $g; } location /s { proxy_pass http://$s; } location /v { proxy_pass http://$v:8080; } }",
		after:  "map $uri $m { default 172.31.0.91:80; /a 10.0.0.1:80; }\ngeo $g { default http://172.31.0.91; }\nsplit_clients $uri $s { 50% 172.31.0.91:81; * 10.0.0.1:81; }\nserver { set $v 172.31.0.91; location / { proxy_pass http://$m; } location /g { proxy_pass $g; } location /s { proxy_pass http://$s; } location /v { proxy_pass http://$v:8080; } }"},
	{name: "replace behind escapes", edit: replace,
		before: "server { location / { proxy_pass \"http://172.31.0.90/\\\"x\\\\\"; } }",
		after:  "server { location / { proxy_pass \"http://172.31.0.91/\\\"x\\\\\"; } }"},
	{name: "replace host and port", edit: replaceBy(old80, other+":81"),
		before: "upstream u { server 172.31.0.90:8080; server 172.31.0.90:8082; }\nserver { location / { proxy_pass http://172.31.0.90:8080/; } }",
		after:  "upstream u { server 172.31.0.91:81; server 172.31.0.90:8082; }\nserver { location / { proxy_pass http://172.31.0.91:81/; } }"},
	{name: "replace by a server that is there", edit: replace, refused: nginx.ErrExists,
		before: "upstream u {\nserver 172.31.0.90;\nserver 172.31.0.91;\n}"},
	{name: "replace by an upstream's name", edit: replaceBy(old80, "app"), refused: nginx.ErrIsUpstream, suffers: `upstream "app" may not have port 8080`,
		before: "upstream app { server 10.0.0.1; }\nserver { location / { proxy_pass http://172.31.0.90:8080; } }",
		naive:  "upstream app { server 10.0.0.1; }\nserver { location / { proxy_pass http://app:8080; } }"},
	{name: "replace by a name without a resolver", edit: replaceBy(old90, "web.example"), refused: nginx.ErrNoResolver, status: 502,
		before: "server { listen PORT; set $to 172.31.0.90; location / { proxy_pass http://$to; } }",
		naive:  "server { listen PORT; set $to web.example; location / { proxy_pass http://$to; } }"},
	{name: "replace by a port where the pass has one", edit: replaceBy(old90, other+":81"), refused: nginx.ErrPortElsewhere, status: 500,
		before: "server { listen PORT; set $to 172.31.0.90; location / { proxy_pass http://$to:8080; } }",
		naive:  "server { listen PORT; set $to 172.31.0.91:81; location / { proxy_pass http://$to:8080; } }"},
	{name: "replace a socket", edit: replaceBy(nginx.Query{Host: "unix:/s"}, other+":80"), refused: nginx.ErrSocket, suffers: "invalid port in upstream",
		before: "server { location / { proxy_pass http://unix:/s:/x; } }",
		naive:  "server { location / { proxy_pass http://172.31.0.91:80:/x; } }"},

	// weight, backup
	{name: "weight", edit: weigh3,
		before: "upstream u {\nserver 172.31.0.90:8080 max_fails=2;\nserver '172.31.0.90';\nserver 10.0.0.1;\n}",
		after:  "upstream u {\nserver 172.31.0.90:8080 weight=3 max_fails=2;\nserver '172.31.0.90' weight=3;\nserver 10.0.0.1;\n}"},
	{name: "weight, the last one counts", edit: weigh3,
		before: "upstream u {\nserver 172.31.0.90 weight=3 \"weight=12\";\nserver 10.0.0.1;\n}",
		after:  "upstream u {\nserver 172.31.0.90 weight=3 \"weight=3\";\nserver 10.0.0.1;\n}"},
	{name: "weight 0", edit: func(t *nginx.Tree) (*nginx.Change, error) { return t.SetWeight(old90, 0) }, refused: nginx.ErrWeight, suffers: `invalid parameter "weight=0"`,
		before: "upstream u {\nserver 172.31.0.90;\nserver 10.0.0.1;\n}",
		naive:  "upstream u {\nserver 172.31.0.90 weight=0;\nserver 10.0.0.1;\n}"},
	{name: "backup", edit: setBackup,
		before: "upstream u {\nserver 172.31.0.90:8080 weight=2;\nserver 10.0.0.1;\n}",
		after:  "upstream u {\nserver 172.31.0.90:8080 weight=2 backup;\nserver 10.0.0.1;\n}"},
	{name: "backup before hash", edit: setBackup,
		before: "upstream u {\nserver 172.31.0.90;\nserver 10.0.0.1;\nhash $uri;\n}",
		after:  "upstream u {\nserver 172.31.0.90 backup;\nserver 10.0.0.1;\nhash $uri;\n}"},
	{name: "backup behind hash", edit: setBackup, refused: nginx.ErrNotSupportedByMethod, suffers: `balancing method does not support parameter "backup"`,
		before: "upstream u {\nhash $uri;\nserver 172.31.0.90;\nserver 10.0.0.1;\n}",
		naive:  "upstream u {\nhash $uri;\nserver 172.31.0.90 backup;\nserver 10.0.0.1;\n}"},
	{name: "backup behind ip_hash", edit: setBackup, refused: nginx.ErrNotSupportedByMethod, suffers: `balancing method does not support parameter "backup"`,
		before: "upstream u {\nserver 10.0.0.1;\nip_hash;\nserver 172.31.0.90;\n}",
		naive:  "upstream u {\nserver 10.0.0.1;\nip_hash;\nserver 172.31.0.90 backup;\n}"},
	{name: "backup behind random", edit: setBackup, refused: nginx.ErrNotSupportedByMethod, suffers: `balancing method does not support parameter "backup"`,
		before: "upstream u {\nrandom two;\nserver 172.31.0.90;\nserver 10.0.0.1;\n}",
		naive:  "upstream u {\nrandom two;\nserver 172.31.0.90 backup;\nserver 10.0.0.1;\n}"},
	{name: "backup behind least_conn", edit: setBackup,
		before: "upstream u {\nleast_conn;\nserver 172.31.0.90;\nserver 10.0.0.1;\n}",
		after:  "upstream u {\nleast_conn;\nserver 172.31.0.90 backup;\nserver 10.0.0.1;\n}"},
	{name: "backup, the last one", edit: setBackup, refused: nginx.ErrOnlyBackupLeft, suffers: "no servers in upstream",
		before: "upstream u {\nserver 172.31.0.90;\nserver 10.0.0.1 backup;\n}",
		naive:  "upstream u {\nserver 172.31.0.90 backup;\nserver 10.0.0.1 backup;\n}"},

	// shift
	{name: "shift a group", edit: shift,
		before: "\nupstream u {\n\tserver 172.31.0.90:8080; # x\n\tserver 10.0.0.1;\n}\n",
		after:  "\nupstream u {\n\t#upgradectl:off(T) server 172.31.0.90:8080; # x\n\tserver 172.31.0.91:8080; #upgradectl:add(T)\n\tserver 10.0.0.1;\n}\n"},
	{name: "shift in, then the rest",
		edit:   shift,
		before: "\nupstream u {\n\tserver 172.31.0.90:8080;\n\tserver 172.31.0.91:8080; #upgradectl:add(U)\n}\n",
		after:  "\nupstream u {\n\t#upgradectl:off(T) server 172.31.0.90:8080;\n\tserver 172.31.0.91:8080; #upgradectl:add(U)\n}\n"},
	{name: "shift in leaves what is swapped", edit: shiftIn,
		before: "upstream u { hash $uri; server 172.31.0.90; }\nserver { location / { proxy_pass http://172.31.0.90; } }",
		after:  "upstream u { hash $uri; server 172.31.0.90; }\nserver { location / { proxy_pass http://172.31.0.90; } }"},
	{name: "shift the only one on a line", edit: shift,
		before: "upstream u { server 172.31.0.90:8080; }\n",
		after:  "upstream u { #upgradectl:off(T,nl) server 172.31.0.90:8080;\n server 172.31.0.91:8080; #upgradectl:add(T,nl)\n }\n"},
	{name: "shift in a hash group", edit: shift,
		before: "upstream u {\nip_hash;\nserver 172.31.0.90:8080;\nserver 10.0.0.1;\n}\n",
		after:  "upstream u {\nip_hash;\nserver 172.31.0.91:8080;\nserver 10.0.0.1;\n}\n"},
	{name: "shift in a hash group to a member", edit: shift,
		before: "upstream u {\nip_hash;\nserver 172.31.0.90:8080;\nserver 172.31.0.91:8080;\n}\n",
		after:  "upstream u {\nip_hash;\nserver 172.31.0.90:8080 down; #upgradectl:down(T)\nserver 172.31.0.91:8080;\n}\n"},
	{name: "shift passes and values", edit: shift,
		before: "map $uri $m { default 172.31.0.90:8080; }\nserver { location / { proxy_pass http://172.31.0.90:8080; } location /a { proxy_pass http://172.31.0.90:8080/a/; } location /m { proxy_pass http://$m; } }",
		after:  "map $uri $m { default 172.31.0.91:8080; }\nserver { location / { proxy_pass http://172.31.0.91:8080; } location /a { proxy_pass http://172.31.0.91:8080/a/; } location /m { proxy_pass http://$m; } }"},
	{name: "shift back", edit: shiftBack,
		before: "upstream u {\n#upgradectl:off(T) server 172.31.0.90 weight=3;\nserver 172.31.0.91; #upgradectl:add(T)\n}\nupstream h {\nip_hash;\nserver 172.31.0.91;\nserver 10.0.0.1;\n}\nserver { location / { proxy_pass http://172.31.0.91; } }",
		after:  "upstream u {\nserver 172.31.0.90 weight=3;\n}\nupstream h {\nip_hash;\nserver 172.31.0.90;\nserver 10.0.0.1;\n}\nserver { location / { proxy_pass http://172.31.0.90; } }"},
	{name: "shift to one that is down", edit: shift, refused: nginx.ErrExists,
		before: "upstream u {\nserver 172.31.0.90;\nserver 172.31.0.91 down;\n}"},
}

func TestEdits(t *testing.T) {
	require.GreaterOrEqual(t, len(editRows)+len(disableRows)+len(addRows), 80)
	for _, row := range editRows {
		t.Run(row.name, func(t *testing.T) {
			tree := one(t, row.before)
			c, err := row.edit(tree)
			if row.refused != nil {
				require.ErrorIs(t, err, row.refused)
				var refused *nginx.RefusedError
				require.ErrorAs(t, err, &refused)
				for _, r := range refused.Refusals {
					assert.NotZero(t, r.Line)
					assert.NotEmpty(t, r.Effect, "%v", r.Reason)
					assert.NotEmpty(t, r.Offer, "%v", r.Reason)
					assert.Contains(t, r.String(), r.Reason.Error())
				}
				return
			}
			require.NoError(t, err)
			if row.before == row.after {
				assert.True(t, c.Empty())
				return
			}
			assert.Equal(t, row.after, body(t, c))
			there, err := tree.With(c)
			require.NoError(t, err)
			again, err := row.edit(there)
			require.NoError(t, err)
			assert.True(t, again.Empty(), "twice is once")
			assert.Equal(t, c.Files()[0].Before, c.Inverse().Files()[0].After)
			assert.Equal(t, c.Files(), c.Inverse().Inverse().Files())
		})
	}
}

// runs starts nginx with an http block and returns the status of a request.
func runs(t *testing.T, binary, block string) int {
	t.Helper()
	at := fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t, "tcp", "127.0.0.1"))
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o755))
	conf := filepath.Join(dir, "nginx.conf")
	write(t, conf, "daemon off;\n"+strings.Replace(mainConf(dir, strings.ReplaceAll(block, "PORT", at)), "daemon on;", "", 1))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-c", conf)
	require.NoError(t, cmd.Start())
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}()
	var resp *http.Response
	require.Eventually(t, func() bool {
		var err error
		resp, err = http.Get("http://" + at + "/")
		return err == nil
	}, 20*time.Second, 10*time.Millisecond, "nginx does not answer")
	require.NoError(t, resp.Body.Close())
	return resp.StatusCode
}

// TestEditRowsAsNginx shows every text before and after an edit to the real
// nginx, and makes each refused edit by hand to see what it is refused for:
// what nginx -t says, or what a client gets.
func TestEditRowsAsNginx(t *testing.T) {
	binary := testenv.Need(t, "nginx")
	passes := func(t *testing.T, block string) (string, bool) {
		dir := t.TempDir()
		conf := filepath.Join(dir, "nginx.conf")
		write(t, conf, mainConf(dir, strings.ReplaceAll(block, "PORT", "127.0.0.1:1")))
		out, err := exec.Command(binary, "-t", "-c", conf).CombinedOutput()
		return string(out), err == nil
	}
	for _, row := range editRows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			out, ok := passes(t, row.before)
			require.True(t, ok, "before: %s", out)
			switch {
			case row.refused == nil:
				out, ok := passes(t, row.after)
				require.True(t, ok, "after: %s", out)
			case row.suffers != "":
				out, ok := passes(t, row.naive)
				require.False(t, ok)
				require.Contains(t, out, row.suffers)
			case row.status != 0:
				out, ok := passes(t, row.naive)
				require.True(t, ok, "%s", out)
				require.Equal(t, row.status, runs(t, binary, row.naive))
			}
		})
	}
}

// A server that is in an upstream twice gets twice its share: what ErrExists
// is for.
func TestTwiceAsNginx(t *testing.T) {
	binary := testenv.Need(t, "nginx")
	port := testenv.FreePort(t, "tcp", "127.0.0.1")
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o755))
	conf := filepath.Join(dir, "nginx.conf")
	write(t, conf, "daemon off;\n"+strings.NewReplacer("daemon on;", "", "worker_processes 2", "worker_processes 1").Replace(mainConf(dir, fmt.Sprintf(`
upstream u { server 127.9.8.1:%[1]d; server 127.9.8.2:%[1]d; server 127.9.8.2:%[1]d; }
server { listen 127.0.0.1:%[1]d; location / { proxy_pass http://u; } }
server { listen 127.9.8.1:%[1]d; return 201; }
server { listen 127.9.8.2:%[1]d; return 202; }`, port))))
	cmd := exec.Command(binary, "-c", conf)
	require.NoError(t, cmd.Start())
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}()
	count := map[int]int{}
	for n := 0; n < 30; {
		resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
		if err != nil {
			require.ErrorIs(t, err, syscall.ECONNREFUSED)
			time.Sleep(10 * time.Millisecond) // nginx starts
			continue
		}
		require.NoError(t, resp.Body.Close())
		count[resp.StatusCode]++
		n++
	}
	assert.Equal(t, map[int]int{201: 10, 202: 20}, count)
}

// TestTooLongAsNginx walks up to the length at which nginx stops to read a
// comment: the longest line that an edit still makes passes, and two bytes more
// (one is kept for a carriage return) do not.
func TestTooLongAsNginx(t *testing.T) {
	binary := testenv.Need(t, "nginx")
	passes := func(block string) bool {
		dir := t.TempDir()
		conf := filepath.Join(dir, "nginx.conf")
		write(t, conf, mainConf(dir, block))
		return exec.Command(binary, "-t", "-c", conf).Run() == nil
	}
	for name, edit := range map[string]func(*nginx.Tree) (*nginx.Change, error){"comment": comment, "down": down} {
		longest := ""
		for n := 4000; n < 4096; n++ {
			block := "\nupstream u {\nserver 172.31.0.90; #" + strings.Repeat("x", n) + "\nserver 10.0.0.1;\n}\n"
			c, err := edit(one(t, block))
			if err != nil {
				require.ErrorIs(t, err, nginx.ErrTooLong)
				break
			}
			longest = body(t, c)
		}
		require.NotEmpty(t, longest, name)
		assert.True(t, passes(longest), name)
		assert.False(t, passes(strings.Replace(longest, "xx", "xxxx", 1)), name)
	}
}
