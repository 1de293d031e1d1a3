// Package nginx reads, searches and edits nginx configurations without losing a
// byte, and puts edits live on the host where nginx runs.
//
// # Example
//
//	s := &nginx.Server{Host: conn} // *hostinv.Conn, or a Host of your own
//	tree, err := s.Load(ctx)
//	...
//	change, err := tree.Disable(nginx.Query{Host: "172.31.0.90"}, "upgrade-7")
//	...
//	fmt.Print(change.Diff())
//	applied, err := s.Apply(ctx, change)
//	...
//	_, err = s.WaitDrained(ctx, nginx.DrainOptions{Old: applied.Old, Address: "172.31.0.90"})
//
// Parse and Load read; Refs finds; Disable (by a comment, or by down where
// clients are mapped to servers), Comment, SetDown and Restore, AddServer and
// RemoveAdded, Replace, SetWeight, SetBackup, and Shift, ShiftIn and ShiftBack
// decide and return a Change; only Server writes. NewChange makes a Change of
// bytes of your own, ListMasters says which nginx run on a host, and MapFS holds
// a configuration that is on no disk. A directive that is off stays
// in its place behind a marker:
//
//	#upgradectl:off(upgrade-7) server 172.31.0.90:8080 weight=2; # blue
//	server 172.31.0.91:8080 weight=2; #upgradectl:add(upgrade-7)
//	server 172.31.0.90:9000 down; #upgradectl:down(upgrade-7)
//
// Each further line of a directive of several lines starts with
// #upgradectl:off+(TAG); off(TAG,nl), down(TAG,nl) or add(TAG,nl) says that a
// line end was inserted because other text followed on the line; several
// markers behind one ; stand in one comment.
//
// # Guarantees
//
// Reading:
//
//  1. What nginx's reader accepts is accepted, what it refuses is refused, with
//     the same words and the same line: TestParseAsNginx, TestParseLuaAsNginx
//     (with lua-nginx-module) and TestIncludesAsNginx show each row of their
//     tables to nginx -t, and TestReference and FuzzReference compare with a
//     reader that goes through nginx's buffer byte by byte. Words have the value
//     nginx gives them, tokens the line (TestValuesAsNginx, TestLinesAsNginx).
//  2. File.Bytes is the input, whatever the input, and the words put together
//     again read the same (FuzzParse, TestCorpus over the files of Debian's
//     nginx packages).
//  3. Includes are found as nginx finds them (TestLoadAsNginx,
//     TestIncludesAsNginx); a circle is an error with its chain (TestLoadErrors),
//     a directory that cannot be listed is an error, not an empty one
//     (TestLoadLostConnection). A file that is read by several names, through
//     links or detours, is one File (TestOneFileOfSeveralNames).
//  4. Input of no sense, of any size, and includes without end stop with an
//     error that says so, in bounded time and memory (TestBadInput,
//     TestManyDirectives, TestIncludeBombs).
//  5. No word that names an address is passed over by Refs (FuzzRefs); values
//     are followed to their passes through set, map, geo and split_clients, and
//     what cannot be decided is reported as not certain (TestRefsTable,
//     TestManyCombinations).
//  6. A file of 6 MB costs fewer than 100 allocations and less than three times
//     its size (TestFootprint); internal/bench holds the speed against a peer.
//
// Editing:
//
//  7. For each edit in each mode (Disable, Comment, SetDown, AddServer, ShiftIn,
//     Shift, Replace, SetWeight, SetBackup) doing it twice is doing it once,
//     Inverse gives the first bytes back, the inverse of the inverse is the
//     change, and taking it back by its tag (Restore, RemoveAdded, ShiftBack)
//     gives the first bytes back; ShiftBack writes addresses in their usual
//     spelling (FuzzLossless, TestProperties, TestPropertiesOfDebian).
//  8. The words of every directive that an edit is not about stay as they are:
//     each edited text is parsed again and compared before a Change is returned
//     (FuzzLossless, TestPropertiesOfDebian).
//  9. An edit that nginx would refuse, or accept and then answer its clients
//     with 404, 500 or 502, is refused before anything is written, with every
//     reason, its place, what would be suffered (Refusal.Effect) and what to do
//     instead (Refusal.Offer) (TestEdits; TestEditRowsAsNginx makes each refused
//     edit by hand and shows it to nginx or asks it; TestTwiceAsNginx).
//  10. Every edited text of the tables passes nginx -t (TestEditsAsNginx,
//     TestEditRowsAsNginx).
//  11. Only what carries the tag is restored or removed; what a person wrote
//     into, behind or beside our marker stays (TestEdits,
//     TestRestoreKeepsAPersonsEdit).
//  12. Change.Moves counts with nginx's own arithmetic how many clients of
//     ip_hash, hash and hash consistent get another server (TestMovesAsNginx,
//     TestMoves); Disable marks down there, which moves none, and Shift swaps
//     the address in its place.
//
// Writing and reloading:
//
//  13. A file that changed since it was read is not written (TestApplyDrift).
//  14. A file that nginx -t refuses, that kills nginx -t, or that nginx does not
//     take at the reload does not stay in place: all files of the change get
//     their bytes back (TestApplyRefused, TestKilled, TestReloadProof), also when
//     the caller gives up meanwhile (TestPutBackWhileReloading).
//  15. Apply and Reload return without error only when a new worker serves and
//     the master wrote no [emerg] since the signal; where its error log cannot
//     be read, only when every worker of before is gone or shutting down as
//     well, and Reloaded.LogUnread says so (TestReloadWaits, TestReloadFails,
//     TestReloadStuck, TestErrorLogs, TestErrorLogRotation).
//  16. Applying and taking back changes under load fails no request and cuts no
//     open session (TestNobodyNotices).
//  17. Symbolic and hard links, owner, mode and line ends of a file stay
//     (TestKeepsFile).
//  18. Nothing on the host is changed unless the caller's Guard holds, in the
//     same shell command (TestGuard).
//  19. WaitDrained does not take what it cannot see for silence, cuts nothing
//     unless told to (DrainForce), and then only workers from before the reload
//     (TestWaitDrained, TestStuckWorker).
//  20. With several nginx on a host only the one that is meant is asked and
//     signalled (TestTwoMasters, TestWhichNginx).
//  21. Wherever a change was cut off, doing it again or taking it back reaches
//     the end and leaves nothing beside the files (TestKilledTool).
//
// # Limits
//
// Whether a directive is known to nginx, or allowed at its place, is left to
// nginx -t. Refused are files over 64 MiB or of more than 4,000,000 directives,
// blocks nested over 1,000 deep, configurations of more than 65,536 files or
// 256 MiB or, with every include counted in each of its contexts, 4,194,304
// directives. Lua blocks longer than lua-nginx-module's own buffer of 4,096
// bytes can take are accepted. Two names for one file (a.conf and ./a.conf, or a
// link) are two files where the FS is not an IdentityFS. A geo include is never
// a pattern.
//
// Host names are not resolved: a name that may stand for the address is a Ref
// that is not Certain, and so are variables of the request, Lua code that
// decides where a request goes, and upstreams that get their servers at run
// time. Prose in comments is not searched. Lua files, njs and Perl are not read;
// where they may decide the way of a request they are listed as not certain.
//
// Moves counts a host name as one server. SetWeight, SetBackup and Replace leave
// no marker. With Replace of a pass the default Host header and cache key
// ($proxy_host) follow. Between the comparison of a file's hash and its renaming
// lies a moment in which another writer is overwritten. Old workers may serve
// open connections to a disabled server long after the reload: see WaitDrained.
// A file of several hard links is written in place: a crash in that moment
// leaves it cut short, with the old bytes beside it. Access lists are kept where
// getfacl and setfacl are installed. -p, -g and -e of a running nginx are read
// from its title, where words are joined by blanks: a -g value reaches to the
// next -c, -p, -g or -e.
//
// # Errors
//
// *SyntaxError, *IncludeError and *CycleError come from reading; *ArgumentError
// from values that can stand in no configuration; *RefusedError, which unwraps to
// ErrLastServer and its like, from the edits
// (ErrNotSupportedByVersion through Tree.ForVersion, Server.Version);
// *TestError, *ReloadError, *DriftError, *ApplyError, *GuardError,
// *AmbiguousError, *NotDrainedError, ErrNoNginx and ErrNotRunning from Server.
package nginx
