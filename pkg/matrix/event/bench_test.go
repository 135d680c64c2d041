package event_test

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
)

func BenchmarkPDU(b *testing.B) {
	r := roomver.MustGet("11")
	p := message()
	p.Content = []byte(`{"body":"` + strings.Repeat("words ", 60) + `","m.mentions":{},"msgtype":"m.text"}`)
	key := keyOf(b, "exa")
	small, err := event.Build(r, p, "example.org", key)
	require.NoError(b, err)
	users := map[string]any{}
	for i := range 1000 {
		users[fmt.Sprintf("@user_with_a_name_%04d:homeserver.example.org", i)] = i
	}
	p.Type, p.StateKey = "m.room.power_levels", ptr("")
	p.Content, _ = json.Marshal(map[string]any{"users": users})
	large, err := event.Build(r, p, "example.org", key)
	require.NoError(b, err)
	keys := example(b)

	for _, c := range []struct {
		name string
		e    *event.Event
	}{{"1kB", small}, {"large", large}} {
		data := c.e.JSON()
		b.Run("parse+hash+id/"+c.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				if _, err := event.Parse(r, data); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("parse+hash+id+verify/"+c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				e, err := event.Parse(r, data)
				if err != nil || e.Verify(keys) != nil || e.HashMismatch() {
					b.Fatal(err)
				}
			}
		})
		b.Run("trusted/"+c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := event.ParseTrusted(r, data, "$x"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	// The limit: one verification of a message of the signed form's length.
	signed := small.Redact().JSON()
	signature := key.Sign(signed)
	public := key.Public()
	b.Run("bare ed25519", func(b *testing.B) {
		for b.Loop() {
			if !ed25519.Verify(public, signed, signature) {
				b.Fatal()
			}
		}
	})
	b.Run("build", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := event.Build(r, p, "example.org", key); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("client format", func(b *testing.B) {
		b.ReportAllocs()
		buf := make([]byte, 0, 4096)
		for b.Loop() {
			buf = small.AppendClient(buf[:0], event.ClientFormat{})
		}
	})
}

// BenchmarkAgainstVerification reports what a 1 kB PDU costs in all (parse, content hash, event id,
// verification) as a multiple of the bare ed25519 verification in it. Both are measured in turn in the
// same run, and the quickest turn of each counts, so that what else the machine does falls out.
func BenchmarkAgainstVerification(b *testing.B) {
	r := roomver.MustGet("11")
	p := message()
	p.Content = []byte(`{"body":"` + strings.Repeat("words ", 60) + `","m.mentions":{},"msgtype":"m.text"}`)
	key := keyOf(b, "exa")
	e, err := event.Build(r, p, "example.org", key)
	require.NoError(b, err)
	data, keys, public := e.JSON(), example(b), key.Public()
	signed := e.Redact().JSON()
	signature := key.Sign(signed)
	const turn = 10
	whole, bare := time.Hour, time.Hour
	for b.Loop() {
		start := time.Now()
		for range turn {
			e, err := event.Parse(r, data)
			if err != nil || e.HashMismatch() || e.Verify(keys) != nil {
				b.Fatal(err)
			}
		}
		middle := time.Now()
		for range turn {
			if !ed25519.Verify(public, signed, signature) {
				b.Fatal("not valid")
			}
		}
		bare = min(bare, time.Since(middle))
		whole = min(whole, middle.Sub(start))
	}
	b.ReportMetric(float64(whole)/float64(bare), "x-verify")
	b.ReportMetric(float64(whole.Nanoseconds())/turn, "ns/PDU")
	b.ReportMetric(float64(bare.Nanoseconds())/turn, "ns/verify")
	b.ReportMetric(0, "ns/op")
}
