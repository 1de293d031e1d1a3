//go:build !windows

package engine

import (
	"encoding/json"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A reader that the machine has stopped in the middle of its probe keeps nobody
// out: who wants to work waits for it.
func TestLockWaitsForReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, r := create(t)
		require.NoError(t, r.Close())
		f, err := os.Open(filepath.Join(dir, lockFile))
		require.NoError(t, err)
		require.NoError(t, flock(f, syscall.LOCK_SH|syscall.LOCK_NB))
		time.AfterFunc(5*time.Second, func() { assert.NoError(t, f.Close()) })
		r, err = Open(dir)
		require.NoError(t, err)
		require.NoError(t, r.Close())
	})
}

// Who has just taken the lock has not said yet who he is: a request is addressed
// to him all the same, and who comes second is told his name.
func TestHolderIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, r := create(t)
		require.NoError(t, r.Close())
		began := time.Now()
		f, err := lockOpen(filepath.Join(dir, lockFile))
		require.NoError(t, err)
		defer f.Close()
		who := Holder{PID: 4711, Host: "jump-1", Actor: "li", Since: began.UTC().Truncate(time.Second)}
		time.AfterFunc(time.Second, func() {
			data, err := json.Marshal(who)
			assert.NoError(t, err)
			_, err = f.Write(data)
			assert.NoError(t, err)
		})
		require.NoError(t, Ask(dir, Request{Kind: RequestPause, Reason: "lunch"}))
		waiting := requests(dir, r.Header())
		require.Len(t, waiting, 1)
		assert.Equal(t, who.PID, waiting[0].q.For.PID)
		_, err = Open(dir)
		require.ErrorContains(t, err, "locked by li (process 4711 on jump-1 since ")

		require.NoError(t, f.Truncate(0)) // and one who never says it is not waited for for ever
		began = time.Now()
		h, err := Read(dir)
		require.NoError(t, err)
		assert.True(t, h.Live)
		assert.Equal(t, 2*time.Second, time.Since(began).Round(time.Second))
	})
}
