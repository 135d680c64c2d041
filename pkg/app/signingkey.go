package app

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/heddle-im/heddle/pkg/config"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/signing"
)

// LoadSigningKeys reads this homeserver's signing keys; the first is the one to sign with.
func LoadSigningKeys(path string) ([]signing.Key, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, keyError(err)
	}
	keys, err := signing.ParseKeyFile(string(text))
	if err != nil {
		return nil, keyError(fmt.Errorf("%s: %w", path, err))
	}
	return keys, nil
}

// CreateSigningKey makes a new key in the file at path, unless there is one: then it leaves it alone and says so. However
// many processes do it at once, all of them find one and the same complete file afterwards.
func CreateSigningKey(path string) (created bool, err error) {
	if _, err := os.Stat(path); err == nil {
		return false, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return false, keyError(err)
	}
	text, err := newKeyLine()
	if err != nil {
		return false, err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return false, keyError(err)
	}
	tmp, err := os.CreateTemp(dir, ".signing-*") // mode 0600
	if err != nil {
		return false, keyError(err)
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	_, err = tmp.WriteString(text)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return false, keyError(err)
	}
	// A link, unlike a rename, does not go over a file that somebody else has made meanwhile.
	if err := os.Link(tmp.Name(), path); errors.Is(err, fs.ErrExist) {
		return false, nil
	} else if err != nil {
		return false, keyError(err)
	}
	return true, nil
}

func newKeyLine() (string, error) {
	var seed [32]byte
	var version [4]byte
	_, _ = rand.Read(seed[:]) // cannot fail
	_, _ = rand.Read(version[:])
	key, err := signing.NewKey(id.NewKeyID(id.AlgorithmEd25519, "k"+hex.EncodeToString(version[:])), seed[:])
	if err != nil {
		return "", fmt.Errorf("make a signing key: %w", err)
	}
	return key.Format() + "\n", nil
}

func keyError(err error) error {
	return &config.Error{Key: "signing_key_path", Problem: err.Error()}
}
