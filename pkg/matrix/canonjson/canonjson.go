// Package canonjson turns JSON into the specification's canonical JSON, and reads canonical JSON.
//
// Append checks, normalises and sorts in one pass over the input: what is already canonical is copied
// in one piece, and an object is only rearranged if its keys were out of order. With a destination of
// sufficient capacity it does not allocate. The readers (Iter, Get, String, Int …) work on the result,
// without allocation, and trust it to be canonical.
//
// Guarantees: for any input, a result without error is valid UTF-8 and valid JSON, without duplicate
// keys, and Append of it is the identity; time is O(n log n) in the input's length; depth and size are
// bounded. No function panics or keeps a reference to its arguments beyond its result. There is no
// state: everything is safe for concurrent use.
//
// Imported by everything but infra/; imports only the standard library.
package canonjson

import (
	"errors"
	"fmt"
)

// A Mode says how numbers and duplicate keys are treated.
type Mode uint8

const (
	// Strict is for events from room version 6 on and everything that this server makes: numbers are
	// integers in [-(2^53)+1, 2^53-1] written without fraction or exponent (-0 is written 0), and
	// duplicate keys are refused.
	Strict Mode = iota
	// Lax is for events of room versions 1 to 5: any number of JSON is accepted and its text is kept, for
	// that is what its signer hashed; of duplicate keys the last one counts.
	Lax
	// Normalise is Strict, but a number written with a fraction or an exponent is accepted if its value is
	// an integer in range, and written as that integer, as in the specification's example.
	Normalise
)

// Defaults of Options.
const (
	// DefaultMaxDepth is the nesting of arrays and objects that is accepted.
	DefaultMaxDepth = 512
	// DefaultMaxSize is the largest accepted input, in bytes.
	DefaultMaxSize = 16 << 20
)

// Options of Append. The zero value is Strict with the default limits.
type Options struct {
	Mode     Mode
	MaxDepth int // 0 means DefaultMaxDepth
	MaxSize  int // bytes of input; 0 means DefaultMaxSize
}

// Reasons for which JSON is refused; match them with errors.Is.
var (
	ErrSyntax    = errors.New("malformed JSON")
	ErrUTF8      = errors.New("invalid UTF-8")
	ErrSurrogate = errors.New("unpaired surrogate")
	ErrNumber    = errors.New("number is not an integer in the range of canonical JSON")
	ErrDuplicate = errors.New("duplicate key")
	ErrDepth     = errors.New("nested too deeply")
	ErrSize      = errors.New("JSON too large")
)

// An Error says why and where JSON was refused.
type Error struct {
	Reason error // one of the errors above
	Offset int   // in the input
}

// Error implements error.
func (e *Error) Error() string {
	return fmt.Sprintf("canonical JSON: %v at byte %d", e.Reason, e.Offset)
}

// Unwrap returns the reason.
func (e *Error) Unwrap() error { return e.Reason }

// A Member is a top-level member of an object: offsets into the bytes that AppendIndexed appended to,
// with the key's quotes included.
type Member struct {
	KeyStart, KeyEnd, ValueStart, ValueEnd int
}

// Canonical returns the canonical form of src in a new slice.
func Canonical(src []byte, o Options) ([]byte, error) {
	return Append(make([]byte, 0, len(src)), src, o)
}

// Check tells why src is refused, nil if it is not.
func Check(src []byte, o Options) error {
	_, err := Canonical(src, o)
	return err
}

// IsCanonical tells whether src is its own canonical form.
func IsCanonical(src []byte, o Options) bool {
	var c canon
	c.src, c.mode, c.maxDepth = src, o.Mode, o.depth()
	c.verifyOnly = true
	return len(src) <= o.size() && c.run() && !c.changed
}

func (o Options) depth() int {
	if o.MaxDepth > 0 {
		return o.MaxDepth
	}
	return DefaultMaxDepth
}

func (o Options) size() int {
	if o.MaxSize > 0 {
		return min(o.MaxSize, 1<<30) // offsets are 32 bits
	}
	return DefaultMaxSize
}
