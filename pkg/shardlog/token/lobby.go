package token

import (
	"encoding/base64"
	"encoding/binary"
)

// Directory is a place in the public directory, which is ordered by the number of members.
type Directory struct {
	// Up reads from the place towards the larger rooms.
	Up     bool
	Joined int64
	Room   int64 // nid
}

// Encode gives the token as clients see it.
func (t Directory) Encode() string {
	b := append(make([]byte, 0, 24), head(KindDirectory, DirectoryVersion), flag(t.Up))
	b = binary.AppendUvarint(b, uint64(t.Joined))
	b = binary.AppendUvarint(b, uint64(t.Room))
	return base64.RawURLEncoding.EncodeToString(b)
}

// DecodeDirectory reads a directory token.
func DecodeDirectory(s string) (Directory, error) {
	r, err := open(s, KindDirectory, DirectoryVersion)
	if err != nil {
		return Directory{}, err
	}
	t := Directory{Up: r.flag(), Joined: int64(r.uvarint(1<<63 - 1)), Room: int64(r.uvarint(1<<63 - 1))}
	return t, r.end()
}

// Space is a place in the hierarchy of a space, with what the walk was begun with.
type Space struct {
	Suggested bool
	Depth     int
	// Told is how many rooms have been told, and Last the nid of the last of them.
	Told int
	Last int64
}

// Encode gives the token as clients see it.
func (t Space) Encode() string {
	b := append(make([]byte, 0, 24), head(KindSpace, SpaceVersion), flag(t.Suggested))
	b = binary.AppendUvarint(b, uint64(t.Depth))
	b = binary.AppendUvarint(b, uint64(t.Told))
	b = binary.AppendUvarint(b, uint64(t.Last))
	return base64.RawURLEncoding.EncodeToString(b)
}

// DecodeSpace reads a token of a hierarchy.
func DecodeSpace(s string) (Space, error) {
	r, err := open(s, KindSpace, SpaceVersion)
	if err != nil {
		return Space{}, err
	}
	t := Space{
		Suggested: r.flag(), Depth: int(r.uvarint(1<<31 - 1)), Told: int(r.uvarint(1<<31 - 1)), Last: int64(r.uvarint(1<<63 - 1)),
	}
	return t, r.end()
}

func flag(set bool) byte {
	if set {
		return 1
	}
	return 0
}

func (r *reader) flag() bool {
	b := r.byte()
	r.bad = r.bad || b > 1
	return b == 1
}
