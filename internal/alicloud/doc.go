// Package alicloud calls the Alibaba Cloud API for packages ecs and slb. It is
// the only package that imports the SDK, and tames it: the SDK has no context,
// races when a client is shared, defaults to plain HTTP, retries without a
// pause, puts secrets into its errors, and panics on some answers.
//
// # Guarantees
//
//  1. A cancelled context ends a call in flight at once, and the error wraps
//     the context's (TestCancelInFlight).
//  2. Requests leave over HTTPS, except to a loopback address that was given
//     with http:// (TestEndpoint).
//  3. No error holds a key, a signature, a token, user data or a query string
//     (TestNoSecretInErrors).
//  4. Reads, idempotent writes and creates with a token are repeated on
//     transport errors, 5xx and busy answers, with full jitter and within a
//     budget. A write that must not happen twice is repeated only when the first
//     one surely did not happen (TestRetries, TestWritesUnderFlowControl).
//  5. Whatever comes back (HTML, nothing at all, a numeric code, a redirect) is
//     an error and never a panic (TestOddAnswers).
//  6. A Client may be used by many goroutines (TestConcurrent).
//  7. Keys of a role are fetched once, renewed five minutes before they end by
//     one caller at a time, and an outage while the old ones are good costs one
//     caller twenty seconds now and then (TestRenewal, TestECSRole).
//  8. A refusal for keys, permission, clock or region says in one message what to
//     change: the policy statement, the skew, the region and endpoint (TestHints).
//  9. A call that flow control refuses is no failure: it is sent again until it
//     passes, its context ends or half an hour is over, and takes nothing from
//     the budget for other trouble (TestThrottleLimit, TestBudgetBesideThrottling).
//     An outage slows calls down too, and its time counts (TestBudgetOfOutage).
//     The error then says what was held back, for how long, and what to do.
//     While it waits somebody is told so, once in a hold (TestHeldIsTold).
//  10. Clients that share nothing but a quota find the pace that uses it up; none
//     starves, and fifty of them at sixty calls a minute send less than half of
//     the quota in vain (TestGateShares). When the others have gone the pace is
//     back within minutes (TestGateOpensAgain).
//  11. Under WithLimit waiting for flow control takes none of the time
//     (TestLimitStandsStill).
//
// # Limits
//
// The pace belongs to one Client and one action: two Clients of one process are
// as strange to each other as two processes. A client for ECS and one for
// balancers in one run would gain nothing by sharing it: the cloud counts by
// product and action, and the one action that both call is AssumeRole, once an
// hour each. ServiceUnavailable slows an action down as a refusal does, but it is
// a failure of the service that may have come after the effect, so that the rules
// and the budget of the other 5xx hold.
//
// The environment variable DEBUG=sdk makes the SDK print whole requests to
// stdout, and this package cannot prevent it.
//
// # Errors
//
// Every failed call gives an [*Error] with a [Class]. Use [ErrCredentials],
// [ErrPermission], [ErrClock] and [ErrRegion] with errors.Is; none of what
// matches them had an effect.
package alicloud
