// Package slb reads and changes what load balancers of Alibaba Cloud (CLB, ALB,
// NLB) send to a server, reads what they did send, and finds what reaches it
// past them.
//
// # Example
//
//	c, err := slb.New(slb.Config{Region: "cn-hangzhou"})
//	...
//	ms, err := c.Discover(ctx, slb.Server{InstanceID: "i-bp1…", IPs: []string{"172.31.0.90"}})
//	...
//	var targets []slb.Target
//	for _, m := range ms {
//		targets = append(targets, slb.Target{Membership: m, Backend: m.Backend, Weight: m.Backend.Weight})
//	}
//	report, err := c.Drain(ctx, targets, slb.DrainOptions{Steps: []int{50, 10, 1}, Proofs: proofs})
//	...
//	for i := range targets {
//		targets[i].Backend.Weight = 0
//	}
//	err = c.Ramp(ctx, targets, slb.RampOptions{})
//
// A whole program is in examples/slb.
//
// # Guarantees
//
//  1. Discover looks at every balancer of the region that knows the server by
//     instance, interface or address, on every page, and at every listener and
//     rule (TestDiscover, TestDiscoverManyBalancers); of ALB and NLB at every
//     server group (TestDiscoverServerGroups, TestDiscoverServerGroupsPages).
//  2. SetWeight changes nothing but the weight, only if it is still the one that
//     was read, and reads back that it did (TestSetWeight, TestConflict,
//     TestServerGroupWrites).
//  3. A write whose answer was lost is never repeated blindly: what the balancer
//     shows decides (TestLostAnswers). Each call of a whole visit of a clone may
//     fail once, in any way: the end is exactly what was wanted, and nothing
//     happened twice (TestEachCallFailingOnce).
//  4. A weight is always sent, also 0: left out it would mean full traffic
//     (TestAddRemove, TestServerGroupWrites).
//  5. Jobs of ALB and NLB are waited for; one that fails is an error at once
//     (TestJobs). No call names more members than its product takes
//     (TestBatches).
//  6. Drain refuses what weight 0 does not drain, balancers that others own, and
//     the last healthy member (TestDrainRefuses); it ends with silence, as long
//     as was asked for, or by the policy for its deadline (TestDrainAndRampBack,
//     TestDrainDeadline). What was silent before UDP settles counts for nothing,
//     in a drain that goes on with an earlier one too.
//  7. Ramp gives no member a further weight before all are healthy behind all
//     their listeners, and ends at the recorded weights (TestRampWaitsForHealth,
//     TestDrainAndRampBack).
//  8. GetTraffic counts every request of a window once for each member it was
//     tried on, never cuts a result, and shows a member that fell silent as one
//     with no requests (TestTrafficAgainstBaseline, TestTrafficSums). A step down
//     counts only when requests that came after it show it, however large the
//     host's share is (TestFallingShare).
//  9. An empty access log is never taken for silence: a tagged probe has to show
//     up in it first; a listener without a log is named as such (TestSilence,
//     TestSilenceIsNeverNoData).
//  10. 172.31.0.5 is not 172.31.0.50: addresses in logs and domains are compared
//     whole (TestSilence, TestForwarding).
//  11. CreateRule makes one rule, also when an answer is lost, and never changes
//     one that is there (TestCreateRule).
//  12. ListPaths says what it could not check and which permission that needs
//     (TestPaths, TestPathsNotChecked).
//  13. A Client may be used by many goroutines (TestConcurrent).
//  14. Requests leave over HTTPS, end with their context, and no error holds a
//     secret (in internal/alicloud: TestEndpoint, TestCancelInFlight,
//     TestNoSecretInErrors).
//  15. A call that blocks ends in the moment in which its context does, with an
//     error that is the context's (TestCancel).
//  16. Wrong region, wrong, expired or unauthorised credentials and a wrong clock
//     give one message each that says what to change (TestWrongAsker).
//  17. JSON forms have names in snake_case and durations in nanoseconds
//     (TestJSONNames).
//  18. Flow control is waited out, by looks and by writes, which are made once all
//     the same, and no limit of a wait runs meanwhile. A deadline of the context
//     ends it in its moment, and the error says what was held back, for how long
//     and what to do (TestChangeOutlivesFlowControl).
//  19. A write that had to wait, for flow control or a busy balancer, is decided
//     upon anew before it is sent, and asks the caller's WithCheck
//     (TestWaitingWriteLooksAgain).
//
// # Limits
//
// Between the look and the write somebody else may still change a member: the
// API has no conditional write. Weight 0 keeps new connections away only with
// the schedulers wrr and wlc, lets established ones finish, and sticky sessions
// may still arrive: prove silence by traffic, not by weight. Primary/secondary
// groups are found but cannot be changed: make another group and switch the
// listener. A removed member of ALB that is added again during its ConnectionDrain
// still loses its old sessions. TCP and UDP listeners have no access log, NLB
// neither: their silence is proved on the hosts. The log of a balancer must have
// an index of slbid, slb_vport, upstream_addr, upstream_status, status and
// request_uri with statistics on.
//
// # Errors
//
// What the cloud refuses is an [*Error]; match [ErrNotFound], [ErrManaged],
// [ErrCredentials], [ErrPermission], [ErrClock] and [ErrRegion] with errors.Is,
// and look at Ambiguous before trying again. A member that somebody else changed
// gives a [*ConflictError], a rule that exists for another group a
// [*RuleConflictError], a failed job a [*JobError]; a drain that was not begun a
// [*RefusedError], one that met its deadline a [*NotSilentError]; a member that
// takes no requests a [*NotServingError].
package slb
