package account

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

// No more hashes are made at a time than there are slots: whoever comes then waits for one, or gives up.
func TestPasswordsAreBounded(t *testing.T) {
	p, err := NewPasswords(Argon2Params{MemoryKiB: 64, Time: 1, Threads: 1}, 2)
	require.NoError(t, err)
	one, err := p.enter(t.Context())
	require.NoError(t, err)
	two, err := p.enter(t.Context())
	require.NoError(t, err)

	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = p.Hash(gone, "x")
	require.ErrorIs(t, err, context.Canceled)
	_, _, err = p.Verify(gone, "", "x")
	require.ErrorIs(t, err, context.Canceled)

	hashed := make(chan error, 1)
	go func() {
		hash, err := p.Hash(t.Context(), "x")
		if err == nil {
			_, _, err = p.Verify(t.Context(), hash, "x")
		}
		hashed <- err
	}()
	one()
	require.NoError(t, <-hashed)
	two()
	require.Empty(t, p.slots, "each that was taken is given back")
}
