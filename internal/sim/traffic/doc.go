// Package traffic is the traffic of the simulated world: balancers and nginx
// programs that carry requests as their settings say, and clients that never
// stop asking and count every answer that was not right.
//
// It knows addresses of the world only. What lies behind them is reached
// through a [DialFunc] that its user gives it.
//
// # Example
//
//	b := traffic.NewBalancer(traffic.BalancerConfig{Dial: dial})
//	defer b.Close()
//	err := b.Set([]traffic.Service{{
//		Addr: "172.31.0.200:80", Protocol: "http", Scheduler: "wrr", HealthCheck: true,
//		Members: []traffic.Member{{Addr: "172.31.0.90:8080", Weight: 100}},
//	}})
//	c := traffic.StartClients(traffic.Load{
//		Dial: dial, Rate: 150, Streams: 2,
//		Targets: []traffic.Target{{Name: "shop", URL: "http://172.31.0.200:80"}},
//	})
//	defer c.Close()
//
// # Guarantees
//
//  1. Without a fault no request fails (TestNothingFailsWithoutAFault).
//  2. Requests are shared out by weight; at weight 0 a member gets no new
//     ones, nothing under way is cut, and connections kept to it are closed
//     (TestPickFollowsWeights, TestWeightZeroMovesTrafficWithoutAFailure);
//     the scheduler rr ignores weights (TestRoundRobinIgnoresWeights), wlc
//     follows what is under way (TestLeastConnections). A client that shows its
//     cookie stays, also at weight 0 (TestStickySessionsIgnoreWeightZero).
//  3. A backend that ends under traffic shows as failed requests: no proxy
//     hides it (TestKillWithoutDrainingFails). A cut stream is a failed
//     request, also one cut in good order (TestShortStreamFails).
//  4. nginx follows its files as they were at the last reload
//     (TestDisabledServerGetsNothingAfterReload); its old worker stays until
//     its last stream has ended (TestOldWorkerShutsDownWhenItsStreamsEnd).
//  5. A file that breaks nginx's rules fails with nginx's words
//     (TestNginxWording); one with a directive that could route requests in a
//     way that is not simulated fails too, and is remembered
//     (TestUnfollowableIsRefused).
//  6. Rules of a listener send requests by domain and path to groups of their
//     own (TestRulesChooseTheGroup); each finished request is told to
//     BalancerConfig.Log (TestAccessEntries).
//  7. Clients of a virtual address count failures that overlap a window without
//     a holder apart from all others, and ask again as TCP does
//     (TestVIPGapsCountApart).
//  8. A scheduler or a stickiness that is not simulated is refused
//     (TestUnknownSchedulersAreRefused).
//
// # Limits
//
// nginx: http only, prefix and exact locations, round robin with weight,
// backup and down, one logical worker. A request is offered to another server
// only when the first could not be reached. Ports cannot change by a reload.
// An idle keep-alive connection of a client outlives a reload and is served
// by the new worker. Balancers (CLB, ALB and
// NLB look alike): http and tcp listeners with wrr, wlc or rr; rules and
// inserted cookies of http only; no time limits, no drain of removed members:
// what they had under way ends by itself.
//
// # Errors
//
// [Balancer.Set] fails for a protocol that is not http or tcp, or when this
// machine has no port left; [Clients.Stop] when requests outlived its context.
// Everything else that goes wrong goes wrong for a client, and is counted.
package traffic
