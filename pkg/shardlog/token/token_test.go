package token_test

import (
	"encoding/base64"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/shardlog/token"
)

func genSync(t *rapid.T) *token.Sync {
	n := rapid.IntRange(1, 256).Draw(t, "shards")
	s := &token.Sync{Incarnation: rapid.Uint32().Draw(t, "incarnation"), Positions: make(shard.Vector, n)}
	for i := range s.Positions {
		s.Positions[i] = shard.Pos(rapid.Int64Range(0, 1<<63-1).Draw(t, "pos"))
	}
	for i := range 4 {
		if rapid.Bool().Draw(t, "has place") {
			s.Places = append(s.Places, token.Place{
				Section: token.Section(i), Position: shard.Pos(rapid.Int64Range(0, 1<<63-1).Draw(t, "place")),
			})
		}
	}
	for i := range n {
		if rapid.IntRange(0, 3).Draw(t, "has ephemeral") == 0 {
			s.Ephemeral = append(s.Ephemeral, token.Ephemeral{
				Shard: shard.ID(i), Epoch: shard.Epoch(rapid.Int64Range(0, 1<<63-1).Draw(t, "epoch")),
				N: rapid.Int64Range(0, 1<<63-1).Draw(t, "n"),
			})
		}
	}
	return s
}

func TestSyncTokenReadsBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := genSync(t)
		enc := s.Encode()
		if len(enc) > token.MaxLen {
			t.Fatalf("longer than the limit: %d", len(enc))
		}
		got, err := token.DecodeSync(enc, len(s.Positions))
		require.NoError(t, err)
		require.Equal(t, s, got)
		_, err = token.DecodeSync(enc, len(s.Positions)%256+1)
		require.ErrorIs(t, err, token.ErrInvalid)
		_, err = token.DecodeRoom(enc)
		require.ErrorIs(t, err, token.ErrInvalid)
	})
}

func TestRoomTokenReadsBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := token.Room{
			Order: rapid.Int64().Draw(t, "order"),
			Event: shard.Nid(rapid.Int64Range(0, 1<<63-1).Draw(t, "nid")),
		}
		got, err := token.DecodeRoom(r.Encode())
		require.NoError(t, err)
		require.Equal(t, r, got)
		k, err := token.KindOf(r.Encode())
		require.NoError(t, err)
		require.Equal(t, token.KindRoom, k)
	})
}

func TestOrdinarySyncTokenIsShort(t *testing.T) {
	s := token.Sync{Incarnation: 200_000_000, Positions: make(shard.Vector, 16)}
	for i := range s.Positions {
		s.Positions[i] = 20_000_000 // a third of a billion events
	}
	require.LessOrEqual(t, len(s.Encode()), 100)
}

func TestBadTokens(t *testing.T) {
	good := (&token.Sync{Incarnation: 1, Positions: shard.Vector{1, 2}}).Encode()
	raw, err := base64.RawURLEncoding.DecodeString(good)
	require.NoError(t, err)
	enc := base64.RawURLEncoding.EncodeToString
	for name, s := range map[string]string{
		"empty":            "",
		"not base64":       "s72594_4483_1934",
		"padding":          good + "=",
		"line break":       good[:2] + "\n" + good[2:],
		"cut":              enc(raw[:len(raw)-1]),
		"ephemeral cut":    enc(append(raw, 1, 1)),
		"shard beyond":     enc(append(raw, 2, 1, 1)),
		"shard twice":      enc(append(raw, 1, 1, 1, 1, 1, 1)),
		"version 0":        enc(append([]byte{0}, raw[1:]...)),
		"long varint":      enc([]byte{1, 0x81, 0x00, 2, 1, 2, 0}),
		"position too big": enc([]byte{1, 1, 2, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0}),
		"huge":             string(make([]byte, token.MaxLen+1)),
	} {
		_, err := token.DecodeSync(s, 2)
		require.ErrorIs(t, err, token.ErrInvalid, name)
	}
}

func TestNewerVersionIsTold(t *testing.T) {
	_, err := token.DecodeSync(base64.RawURLEncoding.EncodeToString([]byte{2, 9, 9}), 2)
	var unknown *token.UnknownVersionError
	require.ErrorAs(t, err, &unknown)
	require.Equal(t, token.UnknownVersionError{Kind: token.KindSync, Version: 2}, *unknown)
	_, err = token.DecodeSync(base64.RawURLEncoding.EncodeToString([]byte{5<<5 | 3, 9, 9}), 2)
	require.ErrorIs(t, err, token.ErrInvalid, "of no kind")
}

func TestComparisons(t *testing.T) {
	a := &token.Sync{Incarnation: 1, Positions: shard.Vector{3, 5}}
	b := &token.Sync{Incarnation: 1, Positions: shard.Vector{3, 4}}
	c := &token.Sync{Incarnation: 2, Positions: shard.Vector{9, 9}}
	require.True(t, a.AtLeast(b))
	require.True(t, a.AtLeast(a))
	require.False(t, b.AtLeast(a))
	require.False(t, c.AtLeast(a), "another incarnation")
	require.Equal(t, shard.Vector{3, 5}, b.Max(a).Positions)
}

func FuzzDecode(f *testing.F) {
	f.Add((&token.Sync{
		Incarnation: 1, Positions: shard.Vector{1, 2}, Places: []token.Place{{Section: 1, Position: 7}},
		Ephemeral: []token.Ephemeral{{Shard: 1, Epoch: 2, N: 3}},
	}).Encode())
	f.Add(token.Room{Order: -7, Event: 300}.Encode())
	f.Add(token.Directory{Up: true, Joined: 7, Room: 300}.Encode())
	f.Add(token.Space{Suggested: true, Depth: 2, Told: 50, Last: 300}.Encode())
	f.Add("AQ")
	f.Fuzz(func(t *testing.T, s string) {
		_, _ = token.KindOf(s)
		var unknown *token.UnknownVersionError
		if got, err := token.DecodeSync(s, 2); err == nil {
			require.Equal(t, s, got.Encode())
		} else if !errors.Is(err, token.ErrInvalid) && !errors.As(err, &unknown) {
			t.Fatalf("untyped error %v", err)
		}
		if got, err := token.DecodeRoom(s); err == nil {
			require.Equal(t, s, got.Encode())
		} else if !errors.Is(err, token.ErrInvalid) && !errors.As(err, &unknown) {
			t.Fatalf("untyped error %v", err)
		}
		if got, err := token.DecodeDirectory(s); err == nil {
			require.Equal(t, s, got.Encode())
		} else if !errors.Is(err, token.ErrInvalid) && !errors.As(err, &unknown) {
			t.Fatalf("untyped error %v", err)
		}
		if got, err := token.DecodeSpace(s); err == nil {
			require.Equal(t, s, got.Encode())
		} else if !errors.Is(err, token.ErrInvalid) && !errors.As(err, &unknown) {
			t.Fatalf("untyped error %v", err)
		}
	})
}

func BenchmarkSyncToken(b *testing.B) {
	s := &token.Sync{Incarnation: 1, Positions: make(shard.Vector, 16)}
	for i := range s.Positions {
		s.Positions[i] = 20_000_000
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := token.DecodeSync(s.Encode(), 16); err != nil {
			b.Fatal(err)
		}
	}
}

func TestLobbyTokensReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		number := rapid.Int64Range(0, 1<<63-1)
		d := token.Directory{Up: rapid.Bool().Draw(t, "up"), Joined: number.Draw(t, "joined"), Room: number.Draw(t, "room")}
		gotD, err := token.DecodeDirectory(d.Encode())
		require.NoError(t, err)
		require.Equal(t, d, gotD)
		small := rapid.IntRange(0, 1<<31-1)
		s := token.Space{
			Suggested: rapid.Bool().Draw(t, "suggested"), Depth: small.Draw(t, "depth"), Told: small.Draw(t, "told"), Last: number.Draw(t, "last"),
		}
		gotS, err := token.DecodeSpace(s.Encode())
		require.NoError(t, err)
		require.Equal(t, s, gotS)
		_, err = token.DecodeSpace(d.Encode())
		require.ErrorIs(t, err, token.ErrInvalid)
	})
}
