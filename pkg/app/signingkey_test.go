package app

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/config"
)

func TestSigningKeyIsMadeOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "signing.key")
	_, err := LoadSigningKeys(path)
	var ce *config.Error
	require.ErrorAs(t, err, &ce)
	require.Equal(t, "signing_key_path", ce.Key)

	var wg sync.WaitGroup
	var mu sync.Mutex // guards makers
	makers := 0
	for range 8 {
		wg.Go(func() {
			created, err := CreateSigningKey(path)
			mu.Lock()
			defer mu.Unlock()
			if err == nil && created {
				makers++
			}
		})
	}
	wg.Wait()
	require.Equal(t, 1, makers)

	first, err := LoadSigningKeys(path)
	require.NoError(t, err)
	require.Len(t, first, 1)
	created, err := CreateSigningKey(path)
	require.NoError(t, err)
	require.False(t, created)
	again, err := LoadSigningKeys(path)
	require.NoError(t, err)
	require.Equal(t, first[0].Format(), again[0].Format())

	stat, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), stat.Mode().Perm())
	left, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, left, 1, "temporary files stay behind")
}

func TestBadSigningKeyDoesNotShowIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "signing.key")
	require.NoError(t, os.WriteFile(path, []byte("ed25519 1 c2VjcmV0c2VjcmV0\n"), 0o600))
	_, err := LoadSigningKeys(path)
	require.ErrorContains(t, err, "signing_key_path: "+path+": line 1")
	require.NotContains(t, err.Error(), "c2Vj")
}
