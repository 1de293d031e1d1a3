package nginx_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/nginx"
)

// refRow is a configuration and what in it refers to an address. The text
// stands in the http block unless it has blocks of its own at the top.
type refRow struct {
	name  string
	text  string
	files nginx.MapFS // besides, included by name
	query string      // "" = 172.31.0.90:8080
	want  []string    // "LINE KIND HOST:PORT[@UPSTREAM] STATES[?]": ? for not certain
}

const target = "172.31.0.90:8080"

var refRows = []refRow{
	// Servers of upstreams.
	{name: "server", text: "upstream u { server 172.31.0.90:8080; }", want: []string{"1 server 172.31.0.90:8080@u active"}},
	{name: "server with another port", text: "upstream u { server 172.31.0.90:8081; }"},
	{name: "server whose address only starts alike", text: "upstream u { server 172.31.0.9:8080; server 172.31.0.900:8080; server 2.31.0.90:8080; }", query: "172.31.0.90:8080", want: []string{"1 server 172.31.0.900:8080@u active?"}},
	{name: "server without a port", text: "upstream u { server 172.31.0.90; }", query: "172.31.0.90:80", want: []string{"1 server 172.31.0.90:80@u active"}},
	{name: "server without a port is not another port", text: "upstream u { server 172.31.0.90; }"},
	{name: "any port", text: "upstream u { server 172.31.0.90:1; server 172.31.0.90; }", query: "172.31.0.90", want: []string{"1 server 172.31.0.90:1@u active", "1 server 172.31.0.90:80@u active"}},
	{name: "port with zeros", text: "upstream u { server 172.31.0.90:08080; }", want: []string{"1 server 172.31.0.90:8080@u active"}},
	{name: "quoted, over lines, with a comment", text: "upstream u {\n  \"server\" # the first\n   '172.31.0.90:8080'\n  weight=2;\n}", want: []string{"2 server 172.31.0.90:8080@u active"}},
	{name: "several on a line", text: "upstream u { server 172.31.0.91:8080; server 172.31.0.90:8080 backup; }", want: []string{"1 server 172.31.0.90:8080@u active+backup"}},
	{name: "down and backup", text: "upstream u { server 172.31.0.90:8080 down backup; server a; }", want: []string{"1 server 172.31.0.90:8080@u down+backup", "1 server a:80"}[:1]},
	{name: "twice in an upstream", text: "upstream u {\nserver 172.31.0.90:8080;\nserver 172.31.0.90:8080 weight=2;\n}", want: []string{"2 server 172.31.0.90:8080@u active", "3 server 172.31.0.90:8080@u active"}},
	{name: "in two upstreams", text: "upstream u { server 172.31.0.90:8080; }\nupstream v { server 172.31.0.90:8080; }", want: []string{"1 server 172.31.0.90:8080@u active", "2 server 172.31.0.90:8080@v active"}},
	{name: "parameters do not matter", text: "upstream u { zone z 64k; least_conn; server 172.31.0.90:8080 max_fails=3 resolve; keepalive 4; check interval=3000; }", want: []string{"1 server 172.31.0.90:8080@u active"}},
	{name: "stream", text: "events {}\nstream { upstream u { server 172.31.0.90:8080; }\nserver { listen 1; proxy_pass u; } }", want: []string{"2 server 172.31.0.90:8080@u active"}},
	{name: "http and stream with one name", text: "events {}\nhttp { upstream u { server 172.31.0.90:8080; } }\nstream { upstream u { server 172.31.0.91:8080; }\nserver { listen 1; proxy_pass U; } }", want: []string{"2 server 172.31.0.90:8080@u active"}},

	// Spellings.
	{name: "hexadecimal", text: "upstream u { server 0xac1f005a:8080; }", want: []string{"1 server 0xac1f005a:8080@u active"}},
	{name: "one number", text: "upstream u { server 2887712858:8080; }", want: []string{"1 server 2887712858:8080@u active"}},
	{name: "three parts", text: "upstream u { server 172.31.90:8080; }", want: []string{"1 server 172.31.90:8080@u active"}},
	{name: "four parts with zeros are decimal", text: "upstream u { server 0254.037.0.0132:8080; }", query: "254.37.0.132:8080", want: []string{"1 server 0254.037.0.0132:8080@u active"}},
	{name: "octal in fewer parts", text: "upstream u { server 0254.037.0132:8080; }", want: []string{"1 server 0254.037.0132:8080@u active"}},
	{name: "zeros before decimals", text: "upstream u { server 172.031.000.090:8080; }", want: []string{"1 server 172.031.000.090:8080@u active"}},
	{name: "asked for in hexadecimal", text: "upstream u { server 172.31.0.90:8080; }", query: "0xac.0x1f.0.0x5a:8080", want: []string{"1 server 172.31.0.90:8080@u active"}},
	{name: "IPv6", text: "upstream u { server [2001:DB8:0:0::1]:80; server [2001:db8::2]:80; }", query: "[2001:db8::1]:80", want: []string{"1 server 2001:DB8:0:0::1:80@u active"}},
	{name: "IPv6 without a port", text: "upstream u { server [2001:db8::1]; }", query: "[2001:db8:0::1]:80", want: []string{"1 server 2001:db8::1:80@u active"}},
	{name: "IPv4 in IPv6", text: "upstream u { server [::ffff:172.31.0.90]:8080; }", want: []string{"1 server ::ffff:172.31.0.90:8080@u active"}},
	{name: "name that may be the address", text: "upstream u { server web90.example:8080; }", want: []string{"1 server web90.example:8080@u active?"}},
	{name: "name with another port", text: "upstream u { server web90.example:8081; }"},
	{name: "name asked for", text: "upstream u { server Web90.Example.:8080; server web91.example:8080; }", query: "web90.example:8080", want: []string{"1 server Web90.Example.:8080@u active"}},
	{name: "localhost is not this address", text: "upstream u { server localhost:8080; }"},
	{name: "localhost may be a loopback address", text: "upstream u { server localhost:8080; }", query: "127.0.0.1:8080", want: []string{"1 server localhost:8080@u active?"}},
	{name: "unix socket", text: "upstream u { server unix:/run/a.sock; server unix:/run/b.sock; }", query: "unix:/run/a.sock", want: []string{"1 server unix:/run/a.sock@u active"}},
	{name: "unix socket before a URI", text: "server { location / { proxy_pass http://unix:/run/a.sock:/x/; } }", query: "unix:/run/a.sock", want: []string{"1 pass unix:/run/a.sock active"}},
	{name: "unix socket of fastcgi", text: "server { fastcgi_pass unix:/run/a.sock; }", query: "unix:/run/a.sock", want: []string{"1 pass unix:/run/a.sock active"}},
	{name: "unix socket is no address", text: "upstream u { server unix:/run/a.sock; }"},

	// Passes.
	{name: "proxy_pass", text: "server { location / { proxy_pass http://172.31.0.90:8080; } }", want: []string{"1 pass 172.31.0.90:8080 active"}},
	{name: "proxy_pass with a URI", text: "server { location / { proxy_pass http://172.31.0.90:8080/a/b?c; } }", want: []string{"1 pass 172.31.0.90:8080 active"}},
	{name: "proxy_pass over http without a port", text: "server { location / { proxy_pass HTTP://172.31.0.90/; } }", query: "172.31.0.90:80", want: []string{"1 pass 172.31.0.90:80 active"}},
	{name: "proxy_pass over https without a port", text: "server { location / { proxy_pass https://172.31.0.90; } }", query: "172.31.0.90:443", want: []string{"1 pass 172.31.0.90:443 active"}},
	{name: "proxy_pass in if and limit_except", text: "server { location / {\nif ($a) { proxy_pass http://172.31.0.90:8080; }\nlimit_except GET { proxy_pass http://172.31.0.90:8080; }\n} }", want: []string{"2 pass 172.31.0.90:8080 active", "3 pass 172.31.0.90:8080 active"}},
	{name: "the other passes", text: "server {\nfastcgi_pass 172.31.0.90:8080;\nuwsgi_pass uwsgi://172.31.0.90:8080;\nscgi_pass 172.31.0.90:8080;\ngrpc_pass grpcs://172.31.0.90:8080;\nmemcached_pass 172.31.0.90:8080;\n}",
		want: []string{"2 pass 172.31.0.90:8080 active", "3 pass 172.31.0.90:8080 active", "4 pass 172.31.0.90:8080 active", "5 pass 172.31.0.90:8080 active", "6 pass 172.31.0.90:8080 active"}},
	{name: "passes of other modules", text: "server {\nredis_pass 172.31.0.90:8080;\ndubbo_pass 172.31.0.90:8080;\n}", want: []string{"2 pass 172.31.0.90:8080 active", "3 pass 172.31.0.90:8080 active"}},
	{name: "stream proxy_pass", text: "events {}\nstream { server { listen 1; proxy_pass 172.31.0.90:8080; } }", want: []string{"2 pass 172.31.0.90:8080 active"}},
	{name: "mail auth_http", text: "events {}\nmail { auth_http 172.31.0.90/auth; }", query: "172.31.0.90:80", want: []string{"2 pass 172.31.0.90:80 active"}},
	{name: "pass to an upstream that has the address", text: "server { location / { proxy_pass http://U/; } }\nupstream u { server 172.31.0.90:8080; }", want: []string{"2 server 172.31.0.90:8080@u active"}},
	{name: "pass to an unknown name", text: "server { location / { proxy_pass http://u:8080; } }", want: []string{"1 pass u:8080 active?"}},
	{name: "name of a stream upstream in http", text: "events {}\nhttp { server { location / { proxy_pass http://u:8080; } } }\nstream { upstream u { server 172.31.0.91:1; } }", want: []string{"2 pass u:8080 active?"}},

	// Variables.
	{name: "set", text: "server { set $b 172.31.0.90:8080;\nlocation / { proxy_pass http://$b; } }", want: []string{"1 value 172.31.0.90:8080 active"}},
	{name: "set with the whole URL", text: "server { set $b http://172.31.0.90:8080/x;\nlocation / { proxy_pass $b; } }", want: []string{"1 value 172.31.0.90:8080 active"}},
	{name: "set of the host, port in the pass", text: "server { set $b 172.31.0.90;\nlocation / { proxy_pass http://$b:8080; } }", want: []string{"1 value 172.31.0.90:8080 active"}},
	{name: "set of the host, other port in the pass", text: "server { set $b 172.31.0.90;\nlocation / { proxy_pass http://$b:8081; } }"},
	{name: "set of the host, scheme's port", text: "server { set $b 172.31.0.90;\nlocation / { proxy_pass https://$b; } }", query: "172.31.0.90:443", want: []string{"1 value 172.31.0.90:443 active"}},
	{name: "set of scheme, host and port", text: "server {\nset $s http; set $h 172.31.0.90; set $p 8080;\nlocation / { proxy_pass $s://$h:$p$request_uri; } }", want: []string{"2 value 172.31.0.90:8080 active"}},
	{name: "set of the port", text: "server { set $p 8080;\nlocation / { proxy_pass http://172.31.0.90:$p; } }", want: []string{"2 pass 172.31.0.90:8080 active"}},
	{name: "port of the request", text: "server {\nlocation / { proxy_pass http://172.31.0.90:$arg_p; } }", want: []string{"2 pass 172.31.0.90:0 active?"}},
	{name: "host of several values", text: "server { set $n 172.31;\nlocation / { proxy_pass http://$n.0.90:8080; } }", want: []string{"2 pass 172.31.0.90:8080 active?"}},
	{name: "host that a value completes", text: "server { set $n 0.90;\nlocation / { proxy_pass http://172.31.$n:8080; } }", want: []string{"2 pass 172.31.0.90:8080 active?"}},
	{name: "host that a value completes to another", text: "server { set $n 0.91;\nlocation / { proxy_pass http://172.31.$n:8080; } }"},
	{name: "host that the request completes", text: "server {\nlocation / { proxy_pass http://172.31.$arg_n:8080; }\nlocation /b { proxy_pass http://172.32.$arg_n:8080; } }", want: []string{"2 pass 172.31.:0 active?", "3 pass 172.32.:0 active?"}},
	{name: "path that the request completes", text: "server {\nlocation / { proxy_pass http://172.31.0.90:8080$request_uri; } }", want: []string{"2 pass 172.31.0.90:8080 active"}},
	{name: "scheme of the request to an upstream", text: "map $host $b { default U; }\nupstream u { server 172.31.0.90:8080; }\nserver { location / { proxy_pass $scheme://$b; } }", want: []string{"2 server 172.31.0.90:8080@u active"}},
	{name: "scheme of the request to an address", text: "server {\nlocation / { proxy_pass $scheme://172.31.0.90; } }", want: []string{"2 pass 172.31.0.90:0 active?"}},
	{name: "upstream in one server, the request's in another", text: "upstream u { server 172.31.0.91:8080; }\nserver { set $b u; include p; }\nserver { include p; }", files: nginx.MapFS{"p": []byte("proxy_pass http://$b;")}, want: []string{"p:1 pass :0 active?"}},
	{name: "chain of sets", text: "server { set $a 172.31.0.90;\nset $b $a:8080;\nlocation / { proxy_pass http://${b}/; } }", want: []string{"1 value 172.31.0.90:8080 active"}},
	{name: "set of another server block", text: "server { set $b 172.31.0.90:8080;\nlocation / { return 200 $b; } }\nserver { set $b 172.31.0.91:8080; location / { proxy_pass http://$b; } }", want: []string{"1 value 172.31.0.90:8080 active?"}},
	{name: "map", text: "map $host $b {\ndefault 172.31.0.91:8080;\na.example 172.31.0.90:8080;\n~^b 172.31.0.90:8080;\n}\nserver { location / { proxy_pass http://$b; } }", want: []string{"3 value 172.31.0.90:8080 active", "4 value 172.31.0.90:8080 active"}},
	{name: "default of a map", text: "map $host $b { default 172.31.0.90:8080; }\nserver { location / { proxy_pass http://$b; } }", want: []string{"1 value 172.31.0.90:8080 active"}},
	{name: "key of a map is a mention", text: "map $host $b { 172.31.0.90 x; }", query: "172.31.0.90", want: []string{"1 mention 172.31.0.90:0 active?"}},
	{name: "map behind a map behind a set", text: "map $host $a { default 172.31.0.90; }\nmap $uri $b { default $a; }\nserver { set $c $b:8080; location / { proxy_pass http://$c; } }", want: []string{"1 value 172.31.0.90:8080 active"}},
	{name: "map that names an upstream", text: "map $host $b { default U; }\nupstream u { server 172.31.0.90:8080; }\nserver { location / { proxy_pass http://$b; } }", want: []string{"2 server 172.31.0.90:8080@u active"}},
	{name: "geo", text: "geo $b {\nproxy 172.31.0.90;\ndefault 172.31.0.90:8080;\n10.0.0.0/8 172.31.0.91:8080;\n}\nserver { location / { proxy_pass http://$b; } }", want: []string{"2 mention 172.31.0.90:0 active?", "3 value 172.31.0.90:8080 active"}},
	{name: "split_clients", text: "split_clients $remote_addr $b {\n50% 172.31.0.90:8080;\n* 172.31.0.91:8080;\n}\nserver { location / { proxy_pass http://$b; } }", want: []string{"2 value 172.31.0.90:8080 active"}},
	{name: "stream map", text: "events {}\nstream { map $ssl_preread_server_name $b { default 172.31.0.90:8080; }\nserver { listen 1; proxy_pass $b; } }", want: []string{"2 value 172.31.0.90:8080 active"}},
	{name: "value that no pass uses", text: "map $host $b { default 172.31.0.90:8080; }", want: []string{"1 value 172.31.0.90:8080 active?"}},
	{name: "value with several ports", text: "server { set $b 172.31.0.90;\nlocation /a { proxy_pass http://$b:8080; }\nlocation /b { proxy_pass http://$b:8081; } }", want: []string{"1 value 172.31.0.90:0 active"}},
	{name: "circle of variables", text: "server { set $a $b; set $b $a;\nlocation / { proxy_pass http://$a:8080; } }", want: []string{"2 pass :0 active?"}},

	// What cannot be decided.
	{name: "variable of the request", text: "server {\nlocation / { proxy_pass http://$http_host:8080; } }", want: []string{"2 pass :0 active?"}},
	{name: "capture of a location", text: "server {\nlocation ~ ^/(?<up>[^/]+) { set $up 172.31.0.91:8080; proxy_pass http://$up; } }", want: []string{"2 pass :0 active?"}},
	{name: "numbered capture", text: "server {\nlocation ~ ^/(.*)$ { proxy_pass http://$1; } }", want: []string{"2 pass :0 active?"}},
	{name: "set that Lua overwrites", text: "server { set $b 172.31.0.91:8080;\nrewrite_by_lua_block { ngx.var.b = pick() }\nlocation / { proxy_pass http://$b; } }", want: []string{"3 pass :0 active?"}},
	{name: "set that Lua only reads", text: "server { set $b 172.31.0.91:8080;\nlog_by_lua_block { if ngx.var.b == 1 then end }\nlocation / { proxy_pass http://$b; } }"},
	{name: "set_by_lua_block", text: "server {\nset_by_lua_block $b { return pick() }\nlocation / { proxy_pass http://$b; } }", want: []string{"3 pass :0 active?"}},
	{name: "auth_request_set over a set", text: "server { set $b 172.31.0.91:8080;\nauth_request_set $b $upstream_http_x;\nlocation / { proxy_pass http://$b; } }", want: []string{"3 pass :0 active?"}},
	{name: "balancer_by_lua_block", text: "upstream u {\nserver 0.0.0.1;\nbalancer_by_lua_block { pick() }\n}", want: []string{"3 mention :0@u active?"}},
	{name: "balancer_by_lua_file", text: "upstream u {\nserver 0.0.0.1;\nbalancer_by_lua_file b.lua;\n}", want: []string{"3 mention :0@u active?"}},
	{name: "upsync", text: "upstream u {\nserver 172.31.0.91:1;\nupsync 10.0.0.1:8500/v1/kv/u upsync_type=consul;\n}", want: []string{"3 mention :0@u active?"}},
	{name: "zone with state", text: "upstream u {\nzone u 64k;\nstate /var/lib/nginx/u.conf;\n}", want: []string{"3 mention :0@u active?"}},
	{name: "dyups", text: "upstream u { server 172.31.0.91:1; }\nserver { location / {\ndyups_interface;\n} }", want: []string{"3 mention :0 active?"}},
	{name: "api that writes", text: "server { location / {\napi write=on;\n} }", want: []string{"2 mention :0 active?"}},
	{name: "Lua that connects", text: "server { location / {\ncontent_by_lua_block { local s = ngx.socket.tcp() }\n} }", want: []string{"2 mention :0 active?"}},
	{name: "Lua file", text: "server { location / {\ncontent_by_lua_file a.lua;\n} }", want: []string{"2 mention :0 active?"}},
	{name: "Lua that names the address", text: "server { location / {\ncontent_by_lua_block { go('172.31.0.90', 8080) }\n} }", want: []string{"2 mention 172.31.0.90:0 active?"}},
	{name: "njs", text: "server { location / {\njs_content main.run;\n} }", want: []string{"2 mention :0 active?"}},

	// Mentions.
	{name: "listen, allow, resolver, header", text: "resolver 172.31.0.90;\nserver {\nlisten 172.31.0.90:80;\nallow 172.31.0.90;\nset_real_ip_from 172.31.0.90/32;\nproxy_set_header X 172.31.0.90;\nreturn 302 http://172.31.0.90:8080/;\n}",
		query: "172.31.0.90", want: []string{"1 mention 172.31.0.90:0 active?", "3 mention 172.31.0.90:0 active?", "4 mention 172.31.0.90:0 active?", "5 mention 172.31.0.90:0 active?", "6 mention 172.31.0.90:0 active?", "7 mention 172.31.0.90:0 active?"}},
	{name: "mention in another spelling", text: "server {\nproxy_bind 0xac1f005a;\nlisten 8080;\nlisten 17231090;\n}", query: "172.31.0.90", want: []string{"2 mention 172.31.0.90:0 active?"}},
	{name: "IPv6 mention in another spelling", text: "server {\nallow 2001:DB8:0::1;\nlisten [2001:db8::0:1]:80;\ndeny 2001:db8::2;\n}", query: "2001:db8::1", want: []string{"2 mention 2001:db8::1:0 active?", "3 mention 2001:db8::1:0 active?"}},
	{name: "mention with another port", text: "server {\nlisten 172.31.0.90:80;\nlisten 172.31.0.90:8080;\nallow 172.31.0.90;\n}", want: []string{"3 mention 172.31.0.90:0 active?", "4 mention 172.31.0.90:0 active?"}},
	{name: "mention inside a longer number", text: "server {\nallow 172.31.0.901;\nallow 1172.31.0.90;\nadd_header X 172.31.0.90.example;\n}", query: "172.31.0.90"},

	// Comments and marks.
	{name: "commented by hand", text: "upstream u {\n# server 172.31.0.90:8080;\n#server 172.31.0.90:8080 weight=3; # old\n## server 172.31.0.90:8080; see ticket\n}",
		want: []string{"2 comment 172.31.0.90:8080@u hand-commented", "3 comment 172.31.0.90:8080@u hand-commented", "4 comment 172.31.0.90:8080@u hand-commented"}},
	{name: "commented pass, set and map value", text: "server {\n# proxy_pass http://172.31.0.90:8080;\n# set $b 172.31.0.90:8080;\n}\nmap $a $b {\n# default 172.31.0.90:8080;\n}",
		want: []string{"2 comment 172.31.0.90:8080 hand-commented", "3 comment 172.31.0.90:8080 hand-commented", "6 comment 172.31.0.90:8080 hand-commented"}},
	{name: "commented upstream in one line", text: "# upstream u { server 172.31.0.91:1; server 172.31.0.90:8080; }", want: []string{"1 comment 172.31.0.90:8080 hand-commented"}},
	{name: "prose is no reference", text: "# 172.31.0.90:8080 is the blue host; see the wiki\n", want: nil},
	{name: "off by our mark", text: "upstream u {\n#upgradectl:off(t-1) server 172.31.0.90:8080 backup;\nserver a;\n}", query: "172.31.0.90", want: []string{"2 off 172.31.0.90:8080@u off+backup", "3 server a:80@u active?"}},
	{name: "damaged mark", text: "upstream u {\nserver 172.31.0.91:1;\n#upgradectl:off(t-1) server 172.31.0.90:8080\n}", want: []string{"3 off :0@u off?"}},

	// Includes.
	{name: "upstream from a file, in two places", text: "upstream u { include s; }\nupstream v { include s; }", files: nginx.MapFS{"s": []byte("server 172.31.0.90:8080;")}, want: []string{"s:1 server 172.31.0.90:8080@u active"}},
	{name: "map from a file", text: "map $host $b { include m; }\nserver { location / { proxy_pass http://$b; } }", files: nginx.MapFS{"m": []byte("a 172.31.0.90:8080;")}, want: []string{"m:1 value 172.31.0.90:8080 active"}},
	{name: "pass from a file, set outside", text: "server { set $b 172.31.0.90:8080; include p; }\nserver { set $b 172.31.0.91:8080; include p; }", files: nginx.MapFS{"p": []byte("location / { proxy_pass http://$b; }")}, want: []string{"1 value 172.31.0.90:8080 active"}},
	{name: "upstream defined in a later file", text: "server { location / { proxy_pass http://late; } }\ninclude u;", files: nginx.MapFS{"u": []byte("upstream Late { server 172.31.0.90:8080; }")}, want: []string{"u:1 server 172.31.0.90:8080@Late active"}},
}

func TestRefsTable(t *testing.T) {
	for _, row := range refRows {
		t.Run(row.name, func(t *testing.T) {
			files := nginx.MapFS{}
			for name, data := range row.files {
				files[name] = data
			}
			if strings.HasPrefix(row.text, "events") {
				files["nginx.conf"] = []byte(row.text)
			} else {
				files["nginx.conf"] = []byte("http { " + row.text + "\n}\nevents {}\n")
			}
			query := row.query
			if query == "" {
				query = target
			}
			q, err := nginx.ParseQuery(query)
			require.NoError(t, err)
			var got []string
			for _, r := range load(t, files).Refs(q) {
				s := fmt.Sprintf("%d %s %s:%d", r.Line, r.Kind, r.Host, r.Port)
				s = strings.TrimSuffix(s, ":0")
				if r.Port == 0 && !strings.HasPrefix(r.Host, "unix:") {
					s += ":0"
				}
				if r.File != "nginx.conf" {
					s = r.File + ":" + s
				}
				if r.Upstream != "" {
					s += "@" + r.Upstream
				}
				s += " " + strings.Join(r.State, "+")
				if !r.Certain {
					s += "?"
					assert.NotEmpty(t, r.Reason)
				}
				got = append(got, s)
			}
			assert.Equal(t, row.want, got)
		})
	}
}

// TestUsedBy holds what tells an operator which requests a reference serves.
func TestUsedBy(t *testing.T) {
	tree := load(t, nginx.MapFS{
		"nginx.conf": []byte(`events {}
http {
	upstream app { server 172.31.0.90:1; # server 172.31.0.90:9;
	}
	map $host $to { default 172.31.0.90; x app; }
	server {
		location /a { proxy_pass http://app; }
		location /b { proxy_pass http://$to:2; }
		location /c { proxy_pass http://$to; }
		include both;
	}
	server { location /x { include both; } }
}
stream {
	upstream app { server 172.31.0.90:3; }
}
`),
		"both": []byte("proxy_pass http://172.31.0.90:4;"),
	})
	got := map[string][]string{}
	for _, r := range tree.Refs(nginx.Query{Host: "172.31.0.90"}) {
		key := fmt.Sprintf("%s %s:%d", r.Kind, r.File, r.Line)
		if r.Host == "app" {
			key += " app" // with a port it is a name, not the upstream
		}
		got[key] = []string{}
		for _, u := range r.UsedBy {
			got[key] = append(got[key], u.String())
		}
	}
	assert.Equal(t, map[string][]string{
		"server nginx.conf:3":    {"nginx.conf:7: http/server/location /a", "nginx.conf:9: http/server/location /c"},
		"comment nginx.conf:3":   {"nginx.conf:7: http/server/location /a", "nginx.conf:9: http/server/location /c"},
		"value nginx.conf:5":     {"nginx.conf:8: http/server/location /b", "nginx.conf:9: http/server/location /c"},
		"server nginx.conf:15":   {},
		"value nginx.conf:5 app": {"nginx.conf:8: http/server/location /b"},
		"pass both:1":            {"both:1: http/server", "both:1: http/server/location /x"},
	}, got)
}

// TestManyCombinations holds that variables with more combinations of values
// than are tried leave nothing out, in bounded time.
func TestManyCombinations(t *testing.T) {
	var b strings.Builder
	for _, name := range []string{"a", "b", "c"} {
		fmt.Fprintf(&b, "map $uri $%s {\n", name)
		for i := range 200 {
			fmt.Fprintf(&b, "/%s%d 10.%d.%d.1;\n", name, i, i, name[0])
		}
		b.WriteString("}\n")
	}
	b.WriteString("map $host $to { default $a; 1 $b; 2 $c; 3 $a$b$c; }\n")
	for i := range 200 {
		fmt.Fprintf(&b, "server { server_name s%d; location / { proxy_pass http://$to:8080; } }\n", i)
	}
	tree := load(t, nginx.MapFS{"nginx.conf": []byte("http {" + b.String() + "}")})
	refs := tree.Refs(nginx.Query{Host: "10.7.98.1", Port: 8080})
	require.NotEmpty(t, refs)
	found := false
	for _, r := range refs {
		found = found || r.Kind == nginx.KindValue && r.Addr == "10.7.98.1"
	}
	assert.True(t, found, "%v", refs)
}

func TestParseQuery(t *testing.T) {
	for text, want := range map[string]nginx.Query{
		"172.31.0.90":       {Host: "172.31.0.90"},
		"172.31.0.90:8080":  {Host: "172.31.0.90", Port: 8080},
		"web90.example:80":  {Host: "web90.example", Port: 80},
		"2001:db8::1":       {Host: "2001:db8::1"},
		"[2001:db8::1]":     {Host: "2001:db8::1"},
		"[2001:db8::1]:443": {Host: "2001:db8::1", Port: 443},
		"unix:/run/a:b":     {Host: "unix:/run/a:b"},
	} {
		q, err := nginx.ParseQuery(text)
		if assert.NoError(t, err, text) {
			assert.Equal(t, want, q, text)
			again, err := nginx.ParseQuery(q.String())
			assert.NoError(t, err)
			assert.Equal(t, q, again)
		}
	}
	for _, text := range []string{"", ":80", "a:", "a:0", "a:65536", "a:http", "unix:", "a b", "http://a", "[::1", "a;b", "a:1:2"} {
		_, err := nginx.ParseQuery(text)
		assert.Error(t, err, text)
	}
}

// FuzzRefs holds that no word which names the address as a whole is passed over:
// its directive is among the references, whatever they are.
func FuzzRefs(f *testing.F) {
	for _, row := range refRows {
		f.Add([]byte("http{" + row.text + "}"))
	}
	whole := regexp.MustCompile(`(?:^|[^\w.-])172\.31\.0\.90(?:$|[^\w.-])`)
	f.Fuzz(func(t *testing.T, src []byte) {
		tree, err := nginx.Load(t.Context(), nginx.MapFS{"f": src}, "f")
		if err != nil {
			t.Skip("nginx refuses it, or it includes what is not there")
		}
		_ = tree.Refs(nginx.Query{})
		at := map[[2]int]bool{}
		for _, r := range tree.Refs(nginx.Query{Host: "172.31.0.90"}) {
			at[[2]int{r.Line, r.Col}] = true
		}
		for d := range tree.Main().All() {
			for _, w := range d.Words() {
				pos := d.Position()
				if v := w.Value(); v == string(w.Raw()) && whole.MatchString(v) && !at[[2]int{pos.Line, pos.Col}] {
					t.Fatalf("line %d: %q in %s was passed over", pos.Line, v, d.Name())
				}
			}
		}
	})
}
