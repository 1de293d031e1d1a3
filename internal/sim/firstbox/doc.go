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
package firstbox
