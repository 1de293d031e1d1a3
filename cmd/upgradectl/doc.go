// Command upgradectl upgrades the operating system of production hosts without
// anybody noticing.
//
// # Example
//
//	upgradectl simulate
//	upgradectl plan -c upgrade.yaml -o plan.json
//	upgradectl apply plan.json
//
// # Guarantees
//
//  1. Results go to standard output, progress and errors to standard error
//     (TestScript/validate).
//  2. One-shot commands that change something show what they would do and
//     change nothing unless given --execute (TestScript/slb_weight,
//     TestScript/nginx_disable).
//  3. The exit status says what a script has to do next; docs/errors.md lists
//     them (TestExitStatus).
//  4. No credential is printed (TestScript/secrets).
//
// # Limits
//
// One command works on one cloud account and region at a time.
//
// # Errors
//
// Every error is one message on standard error that says what, on which
// object, why, and what to do. The exit status is decided in exit.go alone.
package main
