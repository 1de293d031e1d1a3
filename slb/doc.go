// Package slb reads and changes what classic load balancers (CLB) of Alibaba
// Cloud send to a server: the weights and members of default and VServer groups.
//
// # Example
//
//	c, err := slb.New(slb.Config{Region: "cn-hangzhou"})
//	...
//	ms, err := c.Discover(ctx, slb.Server{InstanceID: "i-bp1…"})
//	...
//	for _, m := range ms {
//		err := c.SetWeight(ctx, m.Group(), m.Backend, 0)
//		...
//	}
//
// A whole program is in examples/slb.
//
// # Guarantees
//
//  1. Discover looks at every balancer of the region that knows the server by
//     instance, interface or address, on every page, and at every listener and
//     rule (TestDiscover, TestDiscoverManyBalancers).
//  2. SetWeight changes nothing but the weight, only if it is still the one that
//     was read, and reads back that it did (TestSetWeight, TestConflict).
//  3. A write whose answer was lost is never repeated blindly: what the balancer
//     shows decides (TestLostAnswers).
//  4. A weight is always sent, also 0: left out it would mean full traffic
//     (TestAddRemove).
//  5. A Client may be used by many goroutines (TestConcurrent).
//  6. Requests leave over HTTPS, end with their context, and no error holds a
//     secret; internal/alicloud holds the tests of that.
//
// # Limits
//
// Between the look and the write somebody else may still change a member: the
// API has no conditional write. Weight 0 keeps new connections away only with
// the schedulers wrr and wlc, lets established ones finish, and sticky sessions
// may still arrive: prove silence by traffic, not by weight. Primary/secondary
// groups are found but cannot be changed. ALB and NLB are not covered.
//
// # Errors
//
// What the cloud refuses is an [*Error]; match [ErrNotFound] and
// [ErrCredentials] with errors.Is, and look at Ambiguous before trying again. A
// member that somebody else changed gives a [*ConflictError].
package slb
