module github.com/upgradectl/upgradectl/internal/bench

go 1.26.0

require (
	github.com/nginxinc/nginx-go-crossplane v0.4.89
	github.com/upgradectl/upgradectl v0.0.0
	golang.org/x/crypto v0.58.0
)

require (
	github.com/jstemmer/go-junit-report v1.0.0 // indirect
	github.com/kr/fs v0.1.0 // indirect
	github.com/pkg/sftp v1.13.12 // indirect
	go.yaml.in/yaml/v4 v4.0.0 // indirect
	golang.org/x/mod v0.29.0 // indirect
	golang.org/x/sync v0.17.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/tools v0.38.0 // indirect
)

replace github.com/upgradectl/upgradectl => ../..
