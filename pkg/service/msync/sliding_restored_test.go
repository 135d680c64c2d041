package msync_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
)

// What a device says that it has received is not believed if the database was put back since to before that: it would miss, and have removed,
// what is sent now.
func TestMessagesAreNotReceivedBeforeTheyAreSent(t *testing.T) {
	p := newPeople(t)
	s := start(t, p.World, 256<<20)
	alice, bob := p.user("alice", "A"), p.user("bob", "DEVICE")
	body := func(since string) string {
		return fmt.Sprintf(`{"conn_id":"encryption","extensions":{"to_device":{"enabled":true,"since":%q}}}`, since)
	}
	s.settled(t, p.World)
	incarnation := s.follower.Positions().Incarnation
	p.send(alice, bob, "DEVICE", 1)
	for _, since := range []string{"1000000", fmt.Sprintf("1000000-%d", incarnation), fmt.Sprintf("1-%d", incarnation+7)} {
		s.settled(t, p.World)
		a := s.slide(t, ask(t, bob, "", body(since)))
		require.Len(t, a.Extensions.ToDevice.Events, 1, since)
		again := s.slide(t, ask(t, bob, a.Pos, body(since)))
		require.Len(t, again.Extensions.ToDevice.Events, 1, "it was not taken to be received")
	}
	a := s.slide(t, ask(t, bob, "", body("")))
	a = s.slide(t, ask(t, bob, a.Pos, body(a.Extensions.ToDevice.Next)))
	require.Empty(t, a.Extensions.ToDevice.Events)
	for _, since := range []string{"x", "1-", "-1", "1-x", "1-99999999999"} {
		_, err := s.slideRaw(t.Context(), ask(t, bob, "", body(since)))
		require.Equal(t, mxerr.InvalidParam, mxerr.From(err).Code, since)
	}
}
