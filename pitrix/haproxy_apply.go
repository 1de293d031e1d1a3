package pitrix

import (
	"context"
	"fmt"
	"path"

	"github.com/upgradectl/upgradectl/internal/shellq"
)

const haproxyFile = "/etc/haproxy/haproxy.cfg"

// A HAProxyCheckError says that haproxy does not accept a configuration; it was
// not put in place.
type HAProxyCheckError struct{ Output string }

func (e *HAProxyCheckError) Error() string {
	return "haproxy -c does not accept the configuration: " + firstBytes(e.Output, 600)
}

func (n *Node) haproxyBefore(key string) string {
	return n.Root + "/var/lib/upgradectl/haproxy-" + key + ".cfg"
}

// ReadHAProxy returns the bytes of the node's haproxy.cfg, nil where there is
// none.
func (n *Node) ReadHAProxy(ctx context.Context) ([]byte, error) {
	return readFile(ctx, n.Host, n.Root+haproxyFile)
}

// CheckHAProxy asks the node's haproxy about a configuration that is not in
// place. One that it does not accept gives a *HAProxyCheckError.
func (n *Node) CheckHAProxy(ctx context.Context, cfg []byte) error {
	temp := path.Join(n.Root, "/etc/haproxy", ".upgradectl-"+randomKey())
	if err := n.Host.WriteFile(ctx, temp, cfg, 0o600); err != nil {
		return fmt.Errorf("cannot check the configuration on %s: %w", n.Name, err)
	}
	out, status, err := both(ctx, n.Host, "t="+shellq.Quote(temp)+`
haproxy -c -f "$t" </dev/null
r=$?
rm -f "$t"
exit $r`)
	switch {
	case err != nil:
		return fmt.Errorf("cannot check the configuration on %s: %w", n.Name, err)
	case status == 126 || status == 127:
		return fmt.Errorf("cannot check the configuration: %s has no haproxy: %s", n.Name, firstBytes(string(out), 200))
	case status != 0:
		return &HAProxyCheckError{Output: string(out)}
	}
	return nil
}

// ApplyHAProxy puts next in place of the haproxy.cfg with the bytes old, on the
// node want: checked by haproxy, the old file copied under key, renamed over,
// haproxy reloaded where it runs. When it does not run on after that, the old
// file is put back. A file that is next already is only reloaded; another one
// gives a *DriftError.
func (n *Node) ApplyHAProxy(ctx context.Context, want Identity, key string, old, next []byte) error {
	fail := func(err error) error {
		return fmt.Errorf("cannot change haproxy.cfg on %s: %w", n.Name, err)
	}
	if err := checkKey(key); err != nil {
		return fail(err)
	}
	if err := n.CheckHAProxy(ctx, next); err != nil {
		return fail(err)
	}
	f, before := n.Root+haproxyFile, n.haproxyBefore(key)
	_, err := n.run(ctx, want, "change haproxy.cfg on", fmt.Sprintf(`f=%s; b=%s
%s
if [ "$v" = %s ] && [ ! -e "$b" ]; then
	mkdir -p "${b%%/*}" && cp -p "$f" "$b.part" && mv -f -T "$b.part" "$b" && sync
fi`, shellq.Quote(f), shellq.Quote(before), have, sum(old)))
	if err != nil {
		return err
	}
	if err := replaceFile(ctx, n.Host, f, old, next); err != nil {
		return fail(err)
	}
	err = n.reloadHAProxy(ctx)
	if err == nil {
		return nil
	}
	// The context may be what has ended: the way back is gone all the same.
	back := context.WithoutCancel(ctx)
	if undo := n.UndoHAProxy(back, key, next); undo != nil {
		return fail(fmt.Errorf("%w; and the old file could not be put back: %w", err, undo))
	}
	return fail(fmt.Errorf("%w; the old file was put back", err))
}

// UndoHAProxy puts the file back that ApplyHAProxy has found under this key, in
// place of one with the bytes next, and reloads haproxy. When nothing was
// applied under the key, or the old file is there, nothing is done.
func (n *Node) UndoHAProxy(ctx context.Context, key string, next []byte) error {
	if err := checkKey(key); err != nil {
		return err
	}
	old, err := readFile(ctx, n.Host, n.haproxyBefore(key))
	if err != nil || old == nil {
		return err
	}
	if err := replaceFile(ctx, n.Host, n.Root+haproxyFile, next, old); err != nil {
		return fmt.Errorf("cannot put haproxy.cfg back on %s: %w", n.Name, err)
	}
	return n.reloadHAProxy(ctx)
}

// reloadHAProxy reloads a haproxy that runs and looks whether one runs after.
func (n *Node) reloadHAProxy(ctx context.Context) error {
	out, err := output(ctx, n.Host, `if ! pgrep -x haproxy >/dev/null; then echo idle; exit 0; fi
service haproxy reload </dev/null >&2 || exit 1
sleep 0.5
pgrep -x haproxy >/dev/null || { echo "no haproxy runs after the reload" >&2; exit 1; }`)
	if err != nil {
		err = fmt.Errorf("cannot reload haproxy on %s: %w", n.Name, err)
	}
	_ = out // "idle": the next start reads the file
	return err
}
