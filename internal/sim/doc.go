// Package sim builds the simulated world in which a whole upgrade runs: a
// cloud, hosts, proxies, balancers, a bastion, and clients that never stop.
package sim
