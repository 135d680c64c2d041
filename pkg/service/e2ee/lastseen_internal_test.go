package e2ee

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
)

// A device that asks all the time costs a row every few minutes, and all devices that were seen share commands; what could not be stored is
// said again.
func TestLastSeenIsBatched(t *testing.T) {
	now := time.UnixMilli(1_000_000_000)
	var stored [][]Seen
	var fails error
	l := NewLastSeen(t.Context(), &Front{}, func() time.Time { return now }, slog.New(slog.DiscardHandler))
	l.store = func(_ context.Context, list []Seen) error {
		stored = append(stored, list)
		return fails
	}
	t.Cleanup(l.tasks.Stop)
	note := func(device string) {
		l.Note("@a:b", id.DeviceID(device), netip.MustParseAddr("2001:db8::1"), "x")
	}
	for range 100 {
		note("A")
		note("B")
	}
	note("") // a token without a device
	l.tell(t.Context())
	require.Len(t, stored, 1)
	require.Equal(t, []Seen{
		{UserID: "@a:b", DeviceID: "A", IP: "2001:db8::1", UserAgent: "x", At: now.UnixMilli()},
		{UserID: "@a:b", DeviceID: "B", IP: "2001:db8::1", UserAgent: "x", At: now.UnixMilli()},
	}, stored[0])

	note("A")
	l.tell(t.Context())
	require.Len(t, stored, 1, "soon after, nothing is told")
	now = now.Add(seenEvery)
	fails = errors.New("no writer")
	note("A")
	l.tell(t.Context())
	require.Len(t, stored, 2)
	fails = nil
	note("A")
	l.tell(t.Context())
	require.Len(t, stored, 3)

	for i := range maxSeen + 10 {
		note(fmt.Sprint("D", i))
	}
	require.Len(t, l.told, maxSeen)
	require.LessOrEqual(t, len(l.waiting), maxSeen)
	now = now.Add(seenEvery)
	l.tell(t.Context())
	require.Empty(t, l.told, "what was told long ago is forgotten")
}
