package event

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/matrix/signing"
)

// scratch is how much of a redacted event is put together on the stack; most fit.
const scratch = 2048

// A Hash is a SHA-256.
type Hash [sha256.Size]byte

// ContentHash computes the hash over the event without signatures and hashes.
func (e *Event) ContentHash() Hash {
	h := sha256.New()
	from := uint32(0)
	for _, f := range [...]field{fHashes, fSignatures} {
		if s := e.f[f]; s.end != 0 {
			// With the comma before it: auth_events and content come first in every event.
			h.Write(e.json[from : s.start-keyLength(f)-1])
			from = s.end
		}
	}
	h.Write(e.json[from:])
	var sum Hash
	h.Sum(sum[:0])
	return sum
}

// keyLength is the length of a field's key with its quotes and colon.
func keyLength(f field) uint32 { return uint32(len(fieldNames[f])) + 3 }

// ReferenceHash computes the hash over the redacted event without signatures.
func (e *Event) ReferenceHash() Hash {
	var stack [scratch]byte
	return sha256.Sum256(e.appendRedacted(stack[:0], false))
}

// statedContentHash reads hashes.sha256.
func (e *Event) statedContentHash() (h Hash, err error) {
	v, _ := canonjson.Get(e.value(fHashes), "sha256")
	text, ok := canonjson.Text(v)
	if !ok {
		return h, fmt.Errorf("%w: hashes", ErrFormat)
	}
	if len(text) == len(noHash) {
		if _, err := base64.RawStdEncoding.Decode(h[:], text); err == nil {
			return h, nil
		}
	}
	// Padded, of another alphabet, of another length: decoded as other servers would.
	b, err := signing.DecodeBase64(string(text))
	if err != nil {
		return h, fmt.Errorf("%w: hashes: %w", ErrFormat, err)
	}
	if len(b) != len(h) {
		return Hash{}, nil // to which nothing hashes
	}
	return Hash(b), nil
}

// finish derives the ids and returns the content hash.
func (e *Event) finish(given id.EventID) (Hash, error) {
	return e.ContentHash(), e.identify(given)
}

// identify sets the event id, and the room id that derives from it.
func (e *Event) identify(given id.EventID) error {
	switch e.rules.EventIDs {
	case roomver.EventIDGiven:
		if e.id == "" {
			return fmt.Errorf("%w: event_id", ErrFormat)
		}
	default:
		e.id = given
		if given == "" {
			e.id = hashID(e.rules.EventIDs, e.ReferenceHash())
		}
	}
	if e.createsRoomID() {
		e.room = id.RoomIDFromCreate(e.id)
	}
	return nil
}

func hashID(format roomver.EventIDFormat, h Hash) id.EventID {
	encoding := base64.RawURLEncoding
	if format == roomver.EventIDHashStd {
		encoding = base64.RawStdEncoding
	}
	var text [1 + 43]byte
	text[0] = '$'
	encoding.Encode(text[1:], h[:])
	return id.EventID(text[:])
}
