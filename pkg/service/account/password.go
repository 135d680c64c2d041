package account

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// Argon2Params is the cost of one argon2id hash.
type Argon2Params struct {
	MemoryKiB uint32 // memory, KiB
	Time      uint32 // passes
	Threads   uint8
}

// DefaultArgon2 is OWASP's first choice for argon2id: 19 MiB, two passes, one lane.
func DefaultArgon2() Argon2Params { return Argon2Params{MemoryKiB: 19 << 10, Time: 2, Threads: 1} }

// maxPasswordBytes bounds what a client can make us hash.
const maxPasswordBytes = 512

// limits of what a stored hash may ask of us: a corrupted row must not exhaust the worker.
const (
	maxArgonMemoryKiB = 1 << 20
	maxArgonTime      = 64
)

var errMalformedHash = errors.New("stored password hash is malformed")

// Passwords hashes and verifies passwords: new ones with argon2id, and bcrypt hashes of imported accounts are verified too.
// At most a fixed number of hashes are computed at a time, since each takes memory. It is safe for concurrent use.
type Passwords struct {
	params Argon2Params
	slots  chan struct{}
	// decoy is verified when there is no account, so that the answer takes as long
	decoy string
}

// NewPasswords makes a Passwords that computes at most parallel hashes at a time.
func NewPasswords(params Argon2Params, parallel int) (*Passwords, error) {
	p := &Passwords{params: params, slots: make(chan struct{}, max(1, parallel))}
	var err error
	p.decoy, err = p.hash("decoy")
	return p, err
}

func (p *Passwords) enter(ctx context.Context) (leave func(), err error) {
	select {
	case p.slots <- struct{}{}:
		return func() { <-p.slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Hash gives the password's hash in the PHC string format.
func (p *Passwords) Hash(ctx context.Context, password string) (string, error) {
	leave, err := p.enter(ctx)
	if err != nil {
		return "", fmt.Errorf("hash password: %w", err)
	}
	defer leave()
	return p.hash(password)
}

func (p *Passwords) hash(password string) (string, error) {
	salt := make([]byte, 16)
	if _, err := rand.Read(salt); err != nil {
		return "", fmt.Errorf("hash password: %w", err)
	}
	key := argon2.IDKey([]byte(password), salt, p.params.Time, p.params.MemoryKiB, p.params.Threads, 32)
	enc := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version,
		p.params.MemoryKiB, p.params.Time, p.params.Threads, enc.EncodeToString(salt), enc.EncodeToString(key)), nil
}

// Verify tells whether the password is the one of the stored hash, and whether the hash should be made anew (another
// algorithm or other costs than today's). An empty hash verifies nothing, in the same time.
func (p *Passwords) Verify(ctx context.Context, hash, password string) (ok, stale bool, err error) {
	leave, err := p.enter(ctx)
	if err != nil {
		return false, false, fmt.Errorf("verify password: %w", err)
	}
	defer leave()
	if len(password) > maxPasswordBytes {
		return false, false, nil
	}
	switch {
	case hash == "":
		_, _, _ = p.verifyArgon(p.decoy, password)
		return false, false, nil
	case strings.HasPrefix(hash, "$argon2id$"):
		return p.verifyArgon(hash, password)
	case strings.HasPrefix(hash, "$2a$"), strings.HasPrefix(hash, "$2b$"), strings.HasPrefix(hash, "$2y$"):
		err := bcrypt.CompareHashAndPassword([]byte(hash), []byte(password))
		if err == nil {
			return true, true, nil
		}
		if errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) {
			return false, false, nil
		}
		return false, false, fmt.Errorf("verify password: %w", errMalformedHash)
	}
	return false, false, fmt.Errorf("verify password: %w", errMalformedHash)
}

func (p *Passwords) verifyArgon(hash, password string) (ok, stale bool, err error) {
	parts := strings.Split(hash, "$")
	if len(parts) != 6 {
		return false, false, errMalformedHash
	}
	var version int
	var q Argon2Params
	if _, err := fmt.Sscanf(parts[2], "v=%d", &version); err != nil || version != argon2.Version {
		return false, false, errMalformedHash
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &q.MemoryKiB, &q.Time, &q.Threads); err != nil {
		return false, false, errMalformedHash
	}
	salt, err1 := base64.RawStdEncoding.DecodeString(parts[4])
	key, err2 := base64.RawStdEncoding.DecodeString(parts[5])
	if err1 != nil || err2 != nil || len(key) < 16 || q.Time == 0 || q.Threads == 0 ||
		q.MemoryKiB > maxArgonMemoryKiB || q.Time > maxArgonTime {
		return false, false, errMalformedHash
	}
	got := argon2.IDKey([]byte(password), salt, q.Time, q.MemoryKiB, q.Threads, uint32(len(key)))
	return subtle.ConstantTimeCompare(got, key) == 1, q != p.params, nil
}
