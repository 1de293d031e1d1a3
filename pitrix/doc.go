// Package pitrix is for the management nodes of a QingCloud installation: it
// reads, edits and checks their settings files, /pitrix/conf/settings/NODE,
// without losing a byte of them, compares the files of an old node with those of
// the one that replaces it, and drives the installer's scripts, which cannot be
// trusted to say what they did.
//
// # Example
//
//	fleet, err := pitrix.ParseFleet(files)
//	...
//	mac, err := pitrix.MACGen{}.Next(pitrix.TakenMACs(fleet))
//	...
//	next, err := pitrix.DeriveTemporary(fleet["proxy0"], pitrix.Replacement{
//		OSName: "xenial", OSVersion: "16.04.5",
//		Address: "192.0.2.71", MAC: mac, PhysicalHost: "192.0.2.103",
//	})
//	...
//	fmt.Print(next.Diff())
//	problems := pitrix.CheckRebuild(fleet, planned, phases, taken)
//
// A whole program is in examples/pitrix. What is about settings, groups,
// comparisons and edits of files is pure: bytes in, bytes out. Firstbox,
// Hypervisor and Node reach a machine through [Host].
//
// # Guarantees
//
// Settings:
//
//  1. Bytes of an unedited file are those that were parsed, and an edit changes
//     only the bytes of one value, adds one line or removes one (FuzzLossless,
//     FuzzDelete).
//  2. What Parse accepts has, for every key, the value that bash has after
//     sourcing the file; so has what is rendered and derived (TestParseAsBash,
//     FuzzAsBash, TestTemplate, TestDerivedAsBash).
//  3. What bash would run, lose or read otherwise than it looks is refused:
//     commands, substitutions, blanks around =, open quotes, CR LF, repeated
//     keys, unfilled {{ }} and trailing code; all problems of a file, and of all
//     files, at once, each as file:line:col with what to do (TestParseRefuses,
//     TestAllAtOnce).
//  4. An edit that fails leaves the Settings as they were (TestSetRefused,
//     TestInsert).
//  5. Neither a Problem of Parse nor an error of an edit holds a value; Diff and
//     DiffSettings hide the values of keys that look secret (TestNoValues,
//     TestDiff, TestDiffSettings).
//  6. Render fills every {{ }} or refuses, and each value reads back as it was
//     given (TestRender, FuzzRender). Template gives nodes that pass every rule
//     (TestTemplate).
//  7. Derive carries over every line that is not told to change; the final file
//     of a rebuilt node differs from its old one in release, MACs and host alone
//     (TestDerive, TestDerivePair).
//  8. CheckFleet, CheckSite and CheckRebuild give one answer for one fleet, in the
//     order of file names and positions, and find each breakage of their tables
//     while the right fleets beside it pass (TestCheckFleetOrder, TestCheckFleet,
//     TestCheckSite, TestCheckRebuild).
//  9. A generated MAC is unicast, lower-case, and none of the taken ones; it
//     depends on the random source alone, so a test can fix it (TestMACGen,
//     TestTrapMACOfOldVM).
//  10. The path of BackupPath is no existing entry, not inside the directory that
//     is backed up, and not in a directory whose files are taken for nodes
//     (TestTrapBackupPath).
//
// Groups and scopes:
//
//  11. GroupsOf gives the lists that the installer's script of 4.2 writes, with
//     its oddities (TestTrapGroupOddities, TestTrapRegionGroups).
//  12. Allow returns nodes of the named role alone; "all" passes only where it was
//     permitted, and no other group ever (TestAllow).
//
// Comparisons and edits of a node's files:
//
//  13. CompareHAProxy finds no difference between files that mean the same, in
//     another order, with other comments, with binds elsewhere; and each
//     difference of its table (TestCompareHAProxy, FuzzHAProxy). The real haproxy
//     takes both sides of every row and every carried-over file
//     (TestHAProxyAccepts).
//  14. A file that was carried over lacks nothing that must be carried over, and
//     of the new file nothing else changed (TestCompareHAProxy, FuzzHAProxy,
//     TestCompareRCLocal, FuzzRCLocal). A script that bash takes is one
//     afterwards (FuzzRCLocal).
//  15. EditInterfaces and EditRCLocalTail change addresses and nothing else, all
//     of them or none; ifquery reads the result as meant (TestEditInterfaces,
//     TestEditInterfacesAsIfquery, FuzzEditRCLocalTail, TestTrapTemporarySource).
//  16. CheckHosts finds a built package that maps a node to anything but its
//     address (TestTrapBuiltHosts).
//
// Driving, over a [Host]:
//
//  17. A command line of Scripts names nodes of one role, puts -f first where a
//     script would ask, and reads an empty standard input; launch_vms -f is
//     never made side by side (TestTrapForceFirst, TestTrapEndlessPrompt,
//     TestScopes, TestTrapSameHost).
//  18. A command that CheckExecCommand takes reaches the node byte for byte; bash
//     is the judge (FuzzExecCommand). Each node's output and status is its own,
//     and a node that is missing, doubled or cut short is an error, whatever
//     commands print (FuzzParseExec, TestTrapMissingNode, TestTrapExecExitStatus,
//     TestExecOutputIsNotTrusted).
//  19. The backups of a day that build_global_conf.sh would destroy are saved
//     first, once under a key (TestTrapGlobalConfBackup).
//  20. A file is replaced only when it has the bytes that it was read with, keeps
//     owner and mode, and is left alone when it is new already (TestWriteSettings,
//     TestRealHAProxy).
//  21. What changes a node is done on the machine with the given MACs and machine
//     ID, which the same command asks (TestRealVIP, TestRealSupervisor,
//     TestEditRefused); where ssh NAME ends is asked in the scripts' own way
//     (TestTrapPingOneLoginOther).
//  22. An edit of network files is taken back by the node itself unless it is
//     confirmed, also after a reboot and when the way back was cut off; a reboot
//     that is refused is asked for again; timer and confirmation cannot both win,
//     and a job that stands still meddles with no later edit (TestEditConfirmed,
//     TestEditTakenBack, TestEditRebootRefused, TestEditRevertCutOff,
//     TestTrapCronJobStandsStill, TestRealCron).
//  23. A domain is meant by its UUID, undefined only when it is shut off, and
//     parked and unparked without overwriting a file, and set aside and taken back
//     under another name, from any point where that was cut off (TestRealLibvirt,
//     FuzzAsideXML).
//  24. keepalived that is held down does not run, and a holder that is stopped
//     hands its address over; two holders are seen; an address is announced only
//     by a node that has it (TestRealVIP).
//  25. Host keys are removed in every spelling and nothing of them stays in .old;
//     the same line does it through exec_nodes.sh (TestTrapKnownHosts,
//     TestTrapKnownHostsOnAllNodes).
//  26. A haproxy.cfg that haproxy refuses is not put in place, and Undo brings the
//     old bytes back (TestRealHAProxy).
//  27. What CheckSite needs is read of variables in both forms, of repositories and
//     images, and of the hosts themselves; what is not there stays unknown
//     (TestReadSite, TestDriveSimulated).
//  28. MissingLines names each line of an old node's file that the new one's
//     lacks, and no value (TestTrapCronusConfig).
//  29. LeafRoutes makes files of hosts that keep every rule in each state of a
//     rebuild; a host's route to a VM is there now and at its next boot, and gone
//     again without a trace (TestTrapSpineLeafRoutes, TestRealLeafRoute).
//
// # Limits
//
// Values stand in one line and in one pair of quotes, or are bare words of
// letters, digits and _ . / : , @ % + -. Keys without a lower-case letter are
// refused: PATH, IFS and the like belong to the shell that sources the file.
// Files over 1 MiB are refused. The checks see what settings files, and a Site,
// say and nothing else: whether an address is in use has to be looked up on the
// network. They need all files of the firstbox; nodes left out look like hosts
// that do not exist.
//
// Of the installer's scripts gen_node_list.py of 4.3 and later is not public;
// GroupsOf takes it to follow the rules of 4.2, and [Groups.Diff] shows what the
// firstbox's own lists say otherwise.
//
// The comparisons know files, not what they cause. CompareHAProxy does not
// follow environment variables and refuses conditions; CompareRCLocal takes
// commands as text and refuses to cut a script that it cannot read.
//
// Of launch_vms.sh, install_nodes.sh and the build scripts only the outer form is
// known; ParseLaunch, ParseInstall and ParseBuild say what the script said, and
// what has become of VM and node is asked of these. HoldKeepalived needs systemd,
// BeginEdit a running cron, ProbeAddress the arping of iputils. Scripts are run as
// long as they take: who must survive a broken connection runs the command line
// detached and parses its log.
//
// # Errors
//
// Parse, ParseFleet, Render, ParseHAProxy and ParseHosts return [Problems]. Set,
// Insert, Delete and Derive return [ErrNoKey] and [ErrKeyExists], and
// [ErrBadValue] and [ErrBadKey] for what no settings file can hold; match them
// with errors.Is. Resolve and Allow return a [*ScopeError]. All others say what to
// change.
//
// Of driving: [*ScriptError], [*UnreachableError], [*ExecError], [*LaunchedError] and
// [*MissingScriptError] for scripts; [*IdentityError] for a machine that is not the
// one that is meant, [*DriftError] for a file that somebody else has changed,
// [*RunningError] for a domain that is not shut off, [*VIPError] for no holder or
// two, [*MarkedError] while nodes are rebuilt, [*HAProxyCheckError], [ErrNoSupervisor],
// [ErrNoDomain]: after all of these, but for a ScriptError, an ExecError and an
// UnreachableError, nothing has been changed. A command of a Host that failed keeps
// its ExitStatus() through errors.As; any other error of a Host means that the
// result is not known.
package pitrix
