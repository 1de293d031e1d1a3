package memnet_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/internal/sim/memnet"
)

// connected returns the two ends of a connection through a listener.
func connected(t *testing.T) (near, far net.Conn) {
	t.Helper()
	n := &memnet.Network{}
	l, err := n.Listen()
	require.NoError(t, err)
	got := make(chan net.Conn)
	go func() {
		c, err := l.Accept()
		assert.NoError(t, err)
		got <- c
	}()
	near, err = n.Dial(t.Context(), l.Addr().String())
	require.NoError(t, err)
	far = <-got
	t.Cleanup(func() { near.Close(); far.Close(); l.Close() })
	return near, far
}

func TestStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := connected(t)
		want := make([]byte, 3<<20)
		_, _ = rand.Read(want)
		written := make(chan struct{})
		go func() {
			defer close(written)
			n, err := near.Write(want)
			assert.NoError(t, err)
			assert.Equal(t, len(want), n)
			assert.NoError(t, near.Close())
		}()
		synctest.Wait()
		select {
		case <-written:
			t.Error("3 MiB were written although nobody reads")
		default:
		}
		got, err := io.ReadAll(far)
		require.NoError(t, err)
		assert.True(t, bytes.Equal(want, got))
	})
}

func TestHalfClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := connected(t)
		_, err := near.Write([]byte("question"))
		require.NoError(t, err)
		require.NoError(t, near.(interface{ CloseWrite() error }).CloseWrite())
		_, err = near.Write([]byte("more"))
		require.ErrorIs(t, err, io.ErrClosedPipe)
		got, err := io.ReadAll(far)
		require.NoError(t, err)
		assert.Equal(t, "question", string(got))
		_, err = far.Write([]byte("answer"))
		require.NoError(t, err)
		require.NoError(t, far.Close())
		got, err = io.ReadAll(near)
		require.NoError(t, err)
		assert.Equal(t, "answer", string(got))
		_, err = far.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.ErrClosedPipe)
	})
}

// Who writes to an end that has gone is told.
func TestWriteToNobody(t *testing.T) {
	near, far := connected(t)
	require.NoError(t, far.Close())
	_, err := near.Write([]byte("x"))
	require.ErrorIs(t, err, syscall.EPIPE)
}

func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := connected(t)
		began := time.Now()
		require.NoError(t, near.SetReadDeadline(began.Add(time.Minute)))
		_, err := near.Read(make([]byte, 1))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		var timeout net.Error
		require.True(t, errors.As(err, &timeout) && timeout.Timeout())
		assert.Equal(t, time.Minute, time.Since(began))
		_, err = near.Read(make([]byte, 1))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded, "it has passed")

		require.NoError(t, near.SetReadDeadline(time.Time{}))
		_, err = far.Write([]byte("x"))
		require.NoError(t, err)
		_, err = near.Read(make([]byte, 1))
		require.NoError(t, err)

		require.NoError(t, near.SetWriteDeadline(time.Now().Add(time.Second)))
		n, err := near.Write(make([]byte, 1<<20))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		assert.Less(t, n, 1<<20)
	})
}

func TestRefused(t *testing.T) {
	n := &memnet.Network{}
	_, err := n.Dial(t.Context(), "127.0.0.1:1")
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	l, err := n.Listen()
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = n.Dial(ctx, l.Addr().String())
	require.ErrorIs(t, err, context.Canceled, "nobody accepts")
	require.NoError(t, l.Close())
	_, err = n.Dial(t.Context(), l.Addr().String())
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	_, err = l.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
}

// The standard library's HTTP runs over it in virtual time.
func TestHTTP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &memnet.Network{}
		l, err := n.Listen()
		require.NoError(t, err)
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Hour)
			_, _ = io.Copy(w, r.Body)
		})}
		done := make(chan struct{})
		go func() { defer close(done); _ = srv.Serve(l) }()
		tr := &http.Transport{DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) { return n.Dial(ctx, addr) }}
		c := &http.Client{Transport: tr}
		for range 3 {
			r, err := c.Post("http://"+l.Addr().String()+"/", "text/plain", bytes.NewReader(make([]byte, 1<<20)))
			require.NoError(t, err)
			b, err := io.ReadAll(r.Body)
			require.NoError(t, err)
			assert.Len(t, b, 1<<20)
			r.Body.Close()
		}
		tr.CloseIdleConnections()
		srv.Close()
		<-done
		time.Sleep(time.Second) // the server keeps a connection for a moment that it closed itself
	})
}
