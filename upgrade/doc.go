// Package upgrade upgrades the operating system of a production host without
// anybody noticing: it reads the world, plans, and carries the plan out step by
// step so that it can be killed at any point, resumed, or rolled back.
//
// # Example
//
//	cfg, err := upgrade.LoadConfig("upgrade.yaml")
//	env, err := upgrade.NewEnv(cfg, nil) // credentials from the environment
//	defer env.Close()
//	facts, err := upgrade.Discover(ctx, cfg, env)
//	plan, err := upgrade.BuildPlan(cfg, facts, time.Now(), "1.0")
//	stored, err := plan.JSON()
//	res, err := upgrade.Apply(ctx, dir, upgrade.NewRunID(time.Now()), stored, upgrade.RunOptions{})
//	// res.State is "paused" at the first gate; after a person's approval:
//	res, err = upgrade.Resume(ctx, dir, upgrade.RunOptions{Approve: []string{"4.1"}})
//
// # Guarantees
//
//  1. Discover and BuildPlan change nothing; BuildPlan is pure
//     (TestBuildPlanPure).
//  2. Over a whole run no request fails, files and weights are as before, and
//     nothing is left behind (TestTransition).
//  3. Rollback before the pivot reaches the beginning
//     (TestRollbackBeforeThePivot); past it the run is parked with the traffic
//     on the transition host, and Resume goes on (TestTransition).
//  4. A gate is passed only by an approval, which the journal keeps
//     (TestTransition).
//  5. A plan whose facts no longer hold is refused before anything is changed
//     (TestScenario33StalePlan).
//  6. What a host does not have gives steps that do not apply, not errors
//     (TestWithoutNginxAndBalancers).
//  7. The same procedure holds on real hosts: systemd, OpenSSH, nginx, Docker,
//     rpm and yum (TestLabTransition, TestLabFaults).
//  8. Killed at any point, or with any single call of the cloud's API failing
//     once, a run reaches its end or its beginning all the same
//     (TestKilledAnywhere, TestEveryAPICallFailsOnce).
//  9. Nobody's weight is overwritten, and what was proved before a gate is proved
//     again behind it (TestScenario31SomebodyMovesWeights).
//  10. The evidence names what each listener's silence rests on; a log that cannot
//     be believed is never taken for silence (TestNoProbeGetsThrough,
//     TestScenario39LogWithoutTheProbe, TestWideTransition).
//  11. A rebuild replaces every node of the plan; no request fails but those that
//     overlap the floating address's move, which is graceful (TestRebuild,
//     TestRebuildVariants, TestRebuildInPlace, TestRebuildInPlaceVariants). Rolled back before the undefine, the old machines
//     serve again, and nothing of the new ones is left (TestRebuildRolledBack,
//     TestRebuildInPlaceRolledBack). In place no old machine is shut down unless
//     the others are well (TestRebuildInPlaceAlone).
//  12. Killed at any point, a rebuild reaches its end or its beginning all the
//     same (TestRebuildKilledAnywhere, TestRebuildInPlaceKilledAnywhere).
//  13. Nodes are switched strictly one after the other, the holder of the floating
//     address last, each behind its gate (TestRebuildOneByOne, TestRebuildGates,
//     TestScenario70VIPMoved); no old machine is touched while anybody else answers
//     at its address (TestScenario69DuplicateAddress).
//  14. A script of the installer is not started while a name leads to a machine
//     that is not the new one (TestTrapPingOneLoginOther); a new machine that
//     lacks anything of the old one is not switched (TestTrapLostHandMade).
//  15. What starts by itself on production and acts on others does not run on the
//     transition host: it is found in the inventory, held back at every boot, and
//     proved before anything else happens there; only what the services need is
//     let go (TestPlanQuarantine, TestQuarantine, TestQuarantineRuns,
//     TestQuarantineNotHeld, TestQuarantineDanger).
//
// # Limits
//
// Of the procedure rebuild see docs/rebuild.md. The procedure transition is for Alibaba Cloud ECS with CLB,
// ALB, NLB and nginx.
// Requests that reach the host past them are reported, not moved. Arrival and
// silence are read from connection tables, and from access logs where balancers
// write them: without one, short requests of a layer-7 balancer cannot be told
// from its health checks. Sessions that live in the memory of one backend are
// lost when their client moves, as with any drain.
//
// # Errors
//
// Decide by type: *ConfigError (the file is wrong), *RefusedError (the facts
// speak against it), *AccessError (nobody let us in), *DriftError (the plan is
// stale), and the errors of package engine. ErrorStatus and Result.ExitStatus
// give the exit statuses of the command line.
package upgrade
