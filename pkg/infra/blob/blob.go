// Package blob keeps the bytes of files under names: in a folder, or in a bucket of an object store that speaks S3.
//
// Guarantees: what [Store.Put] has answered for is stored durably and whole; what failed or was cut short is never seen by Open; a name
// is of letters, digits, "-" and "_" alone, so that none leads out of the store; no content is held in memory as a whole (S3: one part of
// 8 MiB for each upload that is longer). Names are chosen by the caller, who must not put two contents under one. A Store is safe for
// concurrent use, by several processes too if they share the folder.
//
// It may be imported by service/media, config and the composition root. It knows nothing of Matrix.
package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// ErrNotFound says that nothing is stored under a name.
var ErrNotFound = errors.New("no such blob")

// errName says that a name is none.
var errName = errors.New("malformed blob name")

// Blob is content that is being read. Seeking costs nothing until something is read.
type Blob interface {
	io.ReadSeekCloser
	Size() int64
}

// Store keeps blobs.
type Store interface {
	// Put stores what r gives, up to its end, and says how long it was. A size that is not negative is how long it has to be. An error of r, a
	// wrong size and the end of ctx store nothing.
	Put(ctx context.Context, name string, r io.Reader, size int64) (int64, error)
	// Open reads a blob, ErrNotFound if there is none. ctx bounds the reading too.
	Open(ctx context.Context, name string) (Blob, error)
	// Delete removes a blob, and what is left of a Put that failed. If there is none, that is well.
	Delete(ctx context.Context, name string) error
}

// Lengths of names.
const (
	minName = 8
	maxName = 128
)

// check refuses what is no name. Two letters at each end of it are enough for the folders that it is kept in.
func check(name string) error {
	if len(name) < minName || len(name) > maxName {
		return fmt.Errorf("%w: %d bytes long", errName, len(name))
	}
	for i := range len(name) {
		c := name[i]
		if l := c | 0x20; (l < 'a' || l > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return fmt.Errorf("%w: %.64q", errName, name)
		}
	}
	return nil
}

// withContext ends a reader with its context.
type withContext struct {
	ctx context.Context
	r   io.Reader
}

func (c withContext) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

func wrongSize(got, want int64) error {
	return fmt.Errorf("%w: %d bytes instead of %d", io.ErrUnexpectedEOF, got, want)
}
