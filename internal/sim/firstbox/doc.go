// Package firstbox simulates a site of the pitrix installer: the firstbox with
// its tree and scripts, physical hosts with libvirt, VMs on them, and the
// network in between with its ARP caches and the addresses that keepalived
// moves.
//
// The scripts behave as the public ones were measured to: with their outputs,
// their wrong exit codes and their traps. launch_vms, install_nodes, gen_mac and
// the builders are not public; they follow the documents and their close
// relatives, and their comments say so.
//
// # Example
//
//	s, err := firstbox.New(firstbox.Config{Keys: []string{line}}, firstbox.Options{Speed: 60, Listen: listen})
//	if err != nil {
//		return err
//	}
//	defer s.Close()
//	status, out, err := s.Firstbox().Host.Run(ctx, "/pitrix/upgrade/exec_nodes.sh -f proxy uptime")
//
// # Guarantees
//
//  1. The traps that were measured of the scripts are here: who falls into one
//     here would fall there. Each has a test with its name (TestTrap…). Those of
//     exec_nodes: status of tee, cut at #, blanks and globs, ping of one machine
//     and login on another, the prompt without an end.
//  2. The site's settings hold by the product's own rules, in every variant
//     (TestSites); what they say is read as bash reads it (TestSource).
//  3. A VM is a machine of its own: host keys, machine id, and the addresses
//     that its files had at its last boot (TestFreshVM). Domains behave as
//     libvirt's do (TestVirsh).
//  4. Virtual addresses move by the rules of VRRP: after a graceful end within
//     0.7 s, after a vanished holder within 3.7 s, at once when a higher
//     priority comes (TestVRRPGaps, TestTrapVIPFloatsOnInstall). Every window
//     without a holder is recorded.
//  5. Machines remember the MACs of their neighbours: who takes an address over
//     and is silent is not reached for up to 43 s; any announcement ends that
//     (TestTrapStaleARP). An address that two machines have is seen by a probe,
//     and recorded (TestTrapAutostart).
//  6. What nobody can have wanted is recorded as damage: a machine in service
//     that was destroyed, reinstalled or told a temporary address, a disk that
//     was deleted (TestTrapSameHost, TestTrapBuiltHosts, TestTrapDoneMarker).
//  7. What is not simulated is refused, and listed by [Site.Refused] (TestVirsh,
//     TestKeepalivedFiles, TestInterfacesFile, TestHAProxyFiles).
//  8. The files of webservices and DNS masters are ones that the real nginx and
//     bind accept, and configuration and zones are read as bind reads them
//     (TestWebFilesAsNginx, TestDNSFilesAsBind).
//
// # Limits
//
// Connections of clients through a virtual address carry no bytes: [Site.Open]
// follows haproxy.cfg, routes and ARP caches to a server, and tells when a
// connection is cut. Connections over [Site.Dial] are real ones. A shutdown ends
// keepalived without a word, as a power cut does: whoever wants the short window
// stops it first [inferred: what upstart does was not measured]. There is one
// installer's zone; region mode is not simulated. Disks are whole or gone. cron
// knows "* * * * *" and @reboot. Boots, packages and installations take their
// time divided by Options.Speed; VRRP, ARP and clients are in real time, those
// of a testing/synctest bubble included.
//
// # Errors
//
// [New] fails when a host cannot be made. [Site.Dial] and [Site.Open] fail with
// syscall.ECONNREFUSED, EHOSTUNREACH, ENETUNREACH or ETIMEDOUT inside, at once.
package firstbox
