// Package cloud simulates the part of Alibaba Cloud that upgradectl uses: the
// RPC APIs of ECS and CLB over HTTP.
package cloud
