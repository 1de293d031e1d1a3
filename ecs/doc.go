// Package ecs drives Alibaba Cloud ECS as far as copying a host needs it: what a
// copy would lack and cost, snapshots of all disks at one moment, images made of
// those, a clone that is held back until it is let go, commands through Cloud
// Assistant, evidence from outside, disks set back, and the release of all that
// was made.
//
// # Example
//
//	c, err := ecs.New(ecs.Config{Region: "cn-hangzhou"})
//	...
//	found, err := c.FindInstance(ctx, ecs.Lookup{PrivateIP: "172.31.0.90"})
//	...
//	source, disks, err := c.GetDetails(ctx, found.ID)
//	...
//	for _, b := range ecs.CheckClone(source, disks) {
//		log.Print(b.Reason, "; ", b.Remedy)
//	}
//	set, err := c.CreateSnapshotSet(ctx, ecs.SnapshotInput{
//		InstanceID: source.ID, Token: "run7-snapshot", Name: "web-90-before", RetentionDays: 7,
//	})
//	...
//	snaps, err := c.WaitSnapshots(ctx, ids, func(p ecs.Progress) { log.Print(p.ID, " ", p.Percent, "%") })
//
// A whole program is in examples/ecs; it also shows how code that uses this
// package is tested without a network.
//
// # Guarantees
//
//  1. A Create call that is repeated with the same token makes one thing, also if
//     the answer to the first was lost (TestTransitionHost, TestLostAnswers).
//     Every write may fail once, in every way in which a call can, and still
//     nothing is made twice or left behind (TestFaultSweep).
//  2. A clone is paid by use, not a spot instance, not protected against
//     deletion, and all its disks go with it (TestTransitionHost). It has the
//     settings of its source that can be had, and CheckClone lists the others
//     (TestQuarantinedClone, TestCheckClone, TestDetails).
//  3. DeleteInstance touches only what carries the tag it is told
//     (TestTransitionHost). Release looks at everything before anything goes, and
//     never takes the source (TestRelease). A disk is overwritten only with a
//     snapshot of itself, and only while its instance stands (TestDiskRollback).
//  4. A wait ends at once when its end cannot come any more, tells what it saw
//     last, and never takes a cancelled context for success: it ends with it, in
//     that moment (TestWaitEnds, TestFailsLater, TestCancel).
//  5. However many goroutines wait, a hundred objects cost one call an interval
//     (TestWaitsShareLooks, BenchmarkWaits).
//  6. A stop keeps the instance's place and addresses and is forced by
//     ForceStopInstance only (TestPowerParameters).
//  7. A reboot is sent once and proved by another boot ID, or not sent if it
//     could not be proved (TestRebootAndWait, TestReboot).
//  8. Price, Stock, DryRunClone and CheckClone make nothing (TestOffer).
//  9. A unit in quarantine is held back on each boot until it is lifted, and
//     never afterwards (TestQuarantineScripts, TestQuarantineUserData).
//  10. Disks that can be are snapshotted at one moment; if not, the reason is
//     told. Members of a group carry the tags and the retention of single
//     snapshots (TestSnapshotSet, TestNoSnapshotGroup).
//  11. Requests leave over HTTPS, end with their context, and no error holds a
//     secret; internal/alicloud holds the tests of that. User data is never kept
//     (TestDetails).
//  12. Wrong region, wrong, expired or unauthorised credentials and a wrong clock
//     give one message each that says what to change (TestWrongAsker).
//  13. A Client may be used by many goroutines (TestConcurrent).
//  14. Flow control is waited out, by reads and writes, and no limit of a wait runs
//     meanwhile (TestWaitsOutliveFlowControl); a deadline of the context ends it
//     in its moment, and the error says what was held back, for how long and what
//     to do, as does that of a call that is refused for Config.ThrottleLimit
//     (TestDeadlineUnderFlowControl).
//
// # Limits
//
// Snapshots are crash-consistent: what an application holds in memory is not in
// them. Local disks cannot be snapshotted or cloned. Secondary interfaces and
// addresses, IPv6, EIPs and the source's user data are not copied. HaVips, routes
// and whether traffic still reaches an instance are not known here; see package
// slb. On its first boot a unit in quarantine can run for seconds; see
// [Quarantine]. A clone gets the source's CPU options only where they are not the
// type's own, as many types refuse any.
//
// # Errors
//
// What the cloud refuses is an [*Error]; match [ErrNotFound], [ErrCredentials],
// [ErrPermission], [ErrClock] and [ErrRegion] with errors.Is, and look at
// Ambiguous before trying again. A wait that cannot end well gives a
// [*StateError], what is refused because it destroys something a [*GuardError],
// and a script that did not run a [*CommandError].
package ecs
