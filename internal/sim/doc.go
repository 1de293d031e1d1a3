// Package sim builds the simulated world in which a whole upgrade runs: a
// cloud, hosts, nginx proxies, a balancer, a bastion, and clients that never
// stop. What works on it needs nothing of this package: it gets an endpoint,
// an ssh_config and credentials, as in a real account.
//
// # The world
//
// Production is web-90 (172.31.0.90, instance i-web90): CentOS 7.5, a container
// "cache" (8082), a compose project in /srv/shop (8081), and two Java
// processes started by hand in /srv/order (8080) and /srv/pay (8083). app-88
// and app-89 run the same services. nginx runs on 172.31.0.5 and 172.31.0.6,
// the CLB lb-shop is 172.31.0.200, the bastion 172.31.0.2; new instances get
// 172.31.0.101 and on. Every address is mapped to loopback ports by
// [World.Dial], so the world is the same on every operating system.
//
// # Example
//
//	w, err := sim.New(ctx, sim.Config{Speed: 60})
//	if err != nil {
//		return err
//	}
//	defer w.Close()
//	op, err := w.WriteOperatorFiles(dir)
//	// … run an upgrade with op.Config and op.Environ() …
//	f, err := w.Finish(ctx)
//	for _, problem := range f.CheckEnd("succeeded") {
//		fmt.Println(problem)
//	}
//
// # Guarantees
//
//  1. Without a fault no request fails (TestQuietWorld), and a service that
//     is killed under traffic shows as failed requests (TestKilledServiceShows).
//  2. A connection in the world stands in /proc/net/tcp of the hosts at its
//     ends, from its real source address (TestDial).
//  3. Operators reach hosts through the bastion only, with host keys they
//     know (TestOperatorsWayIn).
//  4. A clone made through the API boots from the snapshot's content under an
//     address and host key of its own, and is gone after its release
//     (TestMachines).
//  5. What the world does not know is refused, and stands in [Figures]
//     (TestRefusedShows).
//  6. A kept world ends when it is finished or its time is over, and its
//     directory says so (TestServeAndAttach, TestServeEndsByItself).
//  7. The world of procedure B, [Rebuild], is a site of the pitrix installer
//     (package firstbox) with clients at the proxies' virtual address. The
//     runbook, typed by hand by somebody who knows its gaps, reaches the right
//     end there without a failed request outside the change of the address's
//     holder (TestByHand); each wrong way does the damage that it really does
//     (TestByHandWrong), and a world that nothing happens to stays quiet
//     (TestQuietRebuild). It is kept and found like the other (TestServeRebuild).
//
// # Limits
//
// All disks of an instance are one: each snapshot holds the whole content. A
// host that switches itself off is Stopped in the cloud only some 12 seconds
// later. There is no packet loss and no latency but that of this machine.
//
// # Errors
//
// [World.Dial] fails with syscall.ECONNREFUSED or syscall.EHOSTUNREACH inside;
// [Attach] with [ErrNoWorld]. Other errors are this machine's.
package sim
