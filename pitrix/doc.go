// Package pitrix reads, edits and checks the settings files of a QingCloud
// installer, /pitrix/conf/settings/NODE, without losing a byte of them.
//
// # Example
//
//	s, err := pitrix.Parse("proxy0", src)
//	...
//	mac, err := pitrix.MACGen{}.Next(pitrix.TakenMACs(fleet))
//	...
//	err = s.Set("mgmt_network_mac_address", mac.String())
//	...
//	fmt.Print(s.Diff())
//	problems := pitrix.CheckFleet(fleet)
//
// A whole program is in examples/pitrix. Nothing in this package touches a
// file, a host or a network.
//
// # Guarantees
//
//  1. Bytes of an unedited file are those that were parsed, and an edit changes
//     only the bytes of one value or adds one line (FuzzLossless).
//  2. What Parse accepts has, for every key, the value that bash has after
//     sourcing the file (TestParseAsBash, FuzzAsBash).
//  3. What bash would run, lose or read otherwise than it looks is refused:
//     commands, substitutions, blanks around =, open quotes, CR LF, repeated
//     keys, unfilled {{ }} and trailing code; all problems of a file at once,
//     each as file:line:col with what to do (TestParseRefuses, TestAllAtOnce).
//  4. An edit that fails leaves the Settings as they were (TestSetRefused,
//     TestInsert).
//  5. Neither a Problem of Parse nor an error of an edit holds a value; Diff
//     hides the values of keys that look secret (TestNoValues, TestDiff).
//  6. CheckFleet gives one answer for one fleet, in the order of file names and
//     positions (TestCheckFleetOrder), and finds each breakage named in
//     TestCheckFleet while the right fleets beside it pass.
//  7. A generated MAC is unicast, lower-case, and none of the taken ones; it
//     depends on the random source alone, so a test can fix it (TestMACGen).
//  8. The path of BackupPath is no existing entry, not inside the directory that
//     is backed up, and not in a directory whose files are taken for nodes
//     (TestBackupPath).
//
// # Limits
//
// Values stand in one line and in one pair of quotes, or are bare words of
// letters, digits and _ . / : , @ % + -. Keys without a lower-case letter are
// refused: PATH, IFS and the like belong to the shell that sources the file.
// Files over 1 MiB are refused. CheckFleet sees what settings files say and
// nothing else: whether an address is in use, a bridge or base image exists, or
// a new node would stand on the host of the old one of its name has to be looked
// up elsewhere, and so has vg_mgmt_network_gateway. It needs all files of the
// firstbox; nodes left out look like hosts that do not exist.
//
// # Errors
//
// Parse returns [Problems]. Set and Insert return [ErrNoKey] and [ErrKeyExists],
// and [ErrBadValue] and [ErrBadKey] for what no settings file can hold; match
// them with errors.Is. MACGen and BackupPath say what to change.
package pitrix
