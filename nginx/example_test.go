package nginx_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/upgradectl/upgradectl/nginx"
)

// shop is a configuration of two files. A host's own is read the same way:
// nginx.DirFS("/"), or the Host of a Server.
var shop = nginx.MapFS{
	"/etc/nginx/nginx.conf": []byte("events {}\nhttp {\n\tinclude conf.d/*.conf;\n}\n"),
	"/etc/nginx/conf.d/shop.conf": []byte(`upstream shop {
	server 172.31.0.90:8080 weight=2; # web-90
	server 172.31.0.92:8080;
}
server {
	listen 80;
	location / { proxy_pass http://shop; }
	location /img/ { proxy_pass http://172.31.0.90:9000; }
}
`),
}

// Where do the files lead to a host, and what of it is beyond doubt?
func ExampleTree_Refs() {
	tree, err := nginx.Load(context.Background(), shop, "/etc/nginx/nginx.conf")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, ref := range tree.Refs(nginx.Query{Host: "172.31.0.90"}) {
		fmt.Printf("%s:%d:%d: %s %s, certain %v\n", ref.File, ref.Line, ref.Col, ref.Kind, ref.Addr, ref.Certain)
	}
	// Output:
	// /etc/nginx/conf.d/shop.conf:2:2: server 172.31.0.90:8080, certain true
	// /etc/nginx/conf.d/shop.conf:8:19: pass http://172.31.0.90:9000, certain true
}

// What was applied is taken back from a journal, by bytes alone.
func ExampleNewChange() {
	kept := nginx.FileChange{Name: "/etc/nginx/conf.d/shop.conf", Before: []byte("server 172.31.0.90;\n"), After: []byte("# server 172.31.0.90;\n")}
	back := nginx.NewChange(nginx.FileChange{Name: kept.Name, Before: kept.After, After: kept.Before})
	fmt.Print(back.Diff()) // Server.Apply writes it if the file still is what it was
	// Output:
	// --- /etc/nginx/conf.d/shop.conf
	// +++ /etc/nginx/conf.d/shop.conf
	// @@ -1 +1 @@
	// -# server 172.31.0.90;
	// +server 172.31.0.90;
}

// A server line is taken out of service, and comes back byte for byte. What an
// edit cannot do without harm, here to the pass that names the host, it refuses
// before anything is written.
func ExampleTree_Disable() {
	tree, err := nginx.Load(context.Background(), shop, "/etc/nginx/nginx.conf")
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = tree.Disable(nginx.Query{Host: "172.31.0.90"}, "upgrade-7")
	fmt.Println("refused:", errors.Is(err, nginx.ErrDirectPass))

	change, err := tree.Disable(nginx.Query{Host: "172.31.0.90", Port: 8080}, "upgrade-7")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(change.Diff())
	next, err := tree.With(change)
	if err != nil {
		fmt.Println(err)
		return
	}
	back, err := next.Restore("upgrade-7")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("as before:", string(back.Files()[0].After) == string(shop["/etc/nginx/conf.d/shop.conf"]))
	// Output:
	// refused: true
	// --- /etc/nginx/conf.d/shop.conf
	// +++ /etc/nginx/conf.d/shop.conf
	// @@ -1,5 +1,5 @@
	//  upstream shop {
	// -	server 172.31.0.90:8080 weight=2; # web-90
	// +	#upgradectl:off(upgrade-7) server 172.31.0.90:8080 weight=2; # web-90
	//  	server 172.31.0.92:8080;
	//  }
	//  server {
	// as before: true
}

// All traffic for a host goes to another one: for each reference the edit that
// is right for it. Server.Apply would make the change live.
func ExampleTree_Shift() {
	tree, err := nginx.Load(context.Background(), shop, "/etc/nginx/nginx.conf")
	if err != nil {
		fmt.Println(err)
		return
	}
	change, err := tree.Shift(nginx.Query{Host: "172.31.0.90"}, "172.31.0.101", "upgrade-7")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(change.Diff())
	// Output:
	// --- /etc/nginx/conf.d/shop.conf
	// +++ /etc/nginx/conf.d/shop.conf
	// @@ -1,9 +1,10 @@
	//  upstream shop {
	// -	server 172.31.0.90:8080 weight=2; # web-90
	// +	#upgradectl:off(upgrade-7) server 172.31.0.90:8080 weight=2; # web-90
	// +	server 172.31.0.101:8080 weight=2; #upgradectl:add(upgrade-7)
	//  	server 172.31.0.92:8080;
	//  }
	//  server {
	//  	listen 80;
	//  	location / { proxy_pass http://shop; }
	// -	location /img/ { proxy_pass http://172.31.0.90:9000; }
	// +	location /img/ { proxy_pass http://172.31.0.101:9000; }
	//  }
}
