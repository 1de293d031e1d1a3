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
//	_, err = s.Apply(ctx, change)
//
// Parse and Load read; Refs finds; Disable, Restore, AddServer, RemoveAdded and
// Replace decide and return a Change; only Server writes. A directive that is
// off stays in its place behind a marker:
//
//	#upgradectl:off(upgrade-7) server 172.31.0.90:8080 weight=2; # blue
//	server 172.31.0.91:8080 weight=2; #upgradectl:add(upgrade-7)
//
// Each further line of a directive of several lines starts with
// #upgradectl:off+(TAG), and off(TAG,nl) or add(TAG,nl) says that a line end was
// inserted because other text stood on the line.
//
// # Guarantees
//
//  1. What nginx's reader accepts is accepted, what it refuses is refused, with
//     the same words and line (TestParseAsNginx).
//  2. File.Bytes is the input, whatever the input (FuzzParse).
//  3. Restore after Disable and RemoveAdded after AddServer give back the file
//     byte for byte; Disable twice is Disable once; the Inverse of any change
//     gives the first bytes back (FuzzLossless).
//  4. The words of every directive that an edit is not about stay as they are:
//     each edited text is parsed again and compared before a Change is returned
//     (FuzzLossless).
//  5. An edit that nginx would refuse, or accept and then answer 502, is refused
//     with all its reasons and their places (TestDisable, TestEditsAsNginx).
//  6. Includes are found as nginx finds them (TestLoadAsNginx); a directory that
//     cannot be listed is an error, not an empty one (TestLoadLostConnection).
//  7. A file that changed since it was read is not written (TestApplyDrift).
//  8. A file that nginx -t refuses, or that nginx does not take at the reload,
//     does not stay in place: all files of the change get their bytes back
//     (TestApplyRefused, TestReloadProof).
//  9. Apply and Reload return without error only when every worker from before
//     the reload is gone or shutting down and a new one serves (TestApply).
//
// # Limits
//
// Whether a directive is known to nginx, or allowed at its place, is left to
// nginx -t. Files over 64 MiB and blocks nested over 1,000 deep are refused.
// Lua blocks longer than lua-nginx-module's own buffer are accepted. Host names
// are not resolved: a name that may stand for the address is a Ref that is not
// Certain, and so are variables of the request, Lua code, and upstreams that get
// their servers at run time. A geo include is never a pattern. With the default
// $proxy_host in a Host header or a cache key, Replace changes that header and
// key too. Between the comparison of a file's hash and its renaming lies a
// moment in which another writer is overwritten. Old workers may serve open
// connections to a disabled server long after the reload: that a server is
// silent has to be seen on its connections.
//
// # Errors
//
// *SyntaxError, *IncludeError and *CycleError come from reading; *RefusedError,
// which unwraps to ErrLastServer and its like, from the edits; *TestError,
// *ReloadError, *DriftError, *ApplyError and ErrNotRunning from Server.
package nginx
