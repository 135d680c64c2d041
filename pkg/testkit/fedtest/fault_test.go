package fedtest_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/app"
	"github.com/heddle-im/heddle/pkg/testkit/certtest"
	"github.com/heddle-im/heddle/pkg/testkit/fedtest"
)

// said gives the messages of a sender in the order in which a client was shown them.
func said(u *fedtest.User, room, sender string) (out []string) {
	for _, e := range u.Seen.Events[room] {
		if e.Type == "m.room.message" && e.Sender == sender {
			out = append(out, e.ID)
		}
	}
	return out
}

// While no master lives, what other servers send is taken, and survives the reader that took it; it is worked off in order by those who
// come after.
func TestInboundWithoutAMaster(t *testing.T) {
	ca := certtest.NewAuthority(t)
	one, two := fedtest.NewHomeserver(t, ca, "127.0.0.1"), fedtest.Run(t, ca, "localhost")
	master := one.Start(app.Master, "master-1")
	one.Start(app.Synchrotron, "synchrotron-1")
	reader := one.Start(app.FederationReader, "reader-1")
	alice, bob := one.NewUser(t, "alice"), two.NewUser(t, "bob")
	room := together(t, "11", alice, bob)
	alice.Sees(t, room, bob.Say(t, room, "before"))

	master.Stop()
	var sent []string
	for i := range 60 { // more than one transaction holds
		sent = append(sent, bob.Say(t, room, fmt.Sprint("message ", i)))
	}
	topic := bob.Say(t, room, "the last one")
	sent = append(sent, topic)
	require.Eventually(t, func() bool { return one.Staged(t) == len(sent) }, patience, tick, "all are taken")
	reader.Stop()
	one.Start(app.FederationReader, "reader-2")
	one.Start(app.Master, "master-2")
	alice.URL = one.URL

	alice.Sees(t, room, sent...)
	require.Equal(t, sent, said(alice, room, bob.User)[1:])
	require.Eventually(t, func() bool { return one.Staged(t) == 0 }, patience, tick)
	bob.Sees(t, room, alice.Say(t, room, "here we are again"))
	fedtest.Agree(t, room, alice, bob)
}

// Two homeservers that cannot reach each other for a while, first because nothing passes and then because nothing is answered, go on by
// themselves and have the same in the end: every message once and in its sender's order, and one state, though both have set it.
func TestNetworkCutUnderLoad(t *testing.T) {
	ca := certtest.NewAuthority(t)
	one, two := fedtest.Run(t, ca, "127.0.0.1"), fedtest.Run(t, ca, "localhost")
	alice, bob := one.NewUser(t, "alice"), two.NewUser(t, "bob")
	room := together(t, "11", alice, bob)
	alice.Sees(t, room, bob.Say(t, room, "hello"))
	levels := alice.Must(t, "GET", fedtest.RoomPath(room, "state", "m.room.power_levels", ""), nil)
	levels["users"] = map[string]any{alice.User: 100, bob.User: 100}
	bob.Sees(t, room, alice.Set(t, room, "m.room.power_levels", "", levels))

	stop := make(chan struct{})
	var group sync.WaitGroup
	sent := map[string][]string{}
	var mu sync.Mutex
	for _, u := range []*fedtest.User{alice, bob} {
		group.Go(func() {
			for i := 0; ; i++ {
				var e string
				if i%10 == 5 {
					e = u.Set(t, room, "m.room.topic", "", map[string]any{"topic": fmt.Sprint(u.User, " ", i)})
				} else {
					e = u.Say(t, room, fmt.Sprint("message ", i))
				}
				mu.Lock()
				sent[u.User] = append(sent[u.User], e)
				mu.Unlock()
				select {
				case <-stop:
					return
				case <-time.After(20 * time.Millisecond):
				}
			}
		})
	}
	count := func() int { mu.Lock(); defer mu.Unlock(); return len(sent[alice.User]) + len(sent[bob.User]) }
	more := func(n int) {
		from := count()
		require.Eventually(t, func() bool { return count() >= from+n }, patience, tick)
	}
	more(20)
	one.Link.Silence()
	two.Link.Silence()
	more(60)
	one.Link.Refuse()
	two.Link.Refuse()
	more(60)
	one.Link.Heal()
	two.Link.Heal()
	more(40)
	close(stop)
	group.Wait()

	fedtest.Agree(t, room, alice, bob)
	for _, reader := range []*fedtest.User{alice, bob} {
		for _, sender := range []*fedtest.User{alice, bob} {
			reader.Sees(t, room, sent[sender.User]...)
			shown := said(reader, room, sender.User)
			var want []string
			for _, e := range sent[sender.User] {
				if slices.Contains(shown, e) { // a message, and no topic
					want = append(want, e)
				}
			}
			require.Equal(t, want, shown[len(shown)-len(want):], "%s shown to %s", sender.User, reader.User)
		}
	}
}
