// Package ecs drives Alibaba Cloud ECS as far as copying a host needs it:
// instances, snapshots of all their disks, images made of those, a clone made of
// an image, and commands through Cloud Assistant.
//
// # Example
//
//	c, err := ecs.New(ecs.Config{Region: "cn-hangzhou"})
//	...
//	source, err := c.FindInstance(ctx, ecs.Lookup{PrivateIP: "172.31.0.90"})
//	...
//	snaps, err := c.CreateSnapshots(ctx, ecs.SnapshotInput{
//		InstanceID: source.ID, Token: "run7-snapshot", Name: "web-90-before", RetentionDays: 7,
//	})
//	...
//	snaps, err = c.WaitSnapshots(ctx, ids, func(p ecs.Progress) { log.Print(p.ID, " ", p.Percent, "%") })
//
// A whole program is in examples/ecs; it also shows how code that uses this
// package is tested without a network.
//
// # Guarantees
//
//  1. A Create call that is repeated with the same token makes one thing, also if
//     the answer to the first was lost (TestTransitionHost, TestLostAnswers).
//  2. A clone is paid by use, not a spot instance, not protected against
//     deletion, and all its disks go with it (TestTransitionHost).
//  3. DeleteInstance touches only what carries the tag it is told
//     (TestTransitionHost).
//  4. A wait ends at once when its end cannot come any more, tells what it saw
//     last, and never takes a cancelled context for success (TestWaitEnds).
//  5. A stop keeps the instance's place and addresses and is never forced
//     (TestPowerParameters).
//  6. Requests leave over HTTPS, end with their context, and no error holds a
//     secret; internal/alicloud holds the tests of that.
//  7. A Client may be used by many goroutines (TestConcurrent).
//
// # Limits
//
// The disks of an instance are snapshotted one after another, each
// crash-consistent by itself: a file system that spans several is not. Local
// disks cannot be snapshotted or cloned. Secondary interfaces and addresses,
// EIPs and the source's user data are not copied. Whether traffic still reaches
// an instance is not known here; see package slb.
//
// # Errors
//
// What the cloud refuses is an [*Error]; match [ErrNotFound] and
// [ErrCredentials] with errors.Is, and look at Ambiguous before trying again. A
// wait that cannot end well gives a [*StateError], a release that is refused a
// [*GuardError], and a script that did not run a [*CommandError].
package ecs
