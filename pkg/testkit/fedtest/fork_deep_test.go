package fedtest_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/testkit/fedtest"
)

// branch is one side of a fork that a server makes of a room: its user's events one after the other, each allowed by those before it on the
// same side.
type branch struct {
	*fedtest.Place
	last, levels *event.Event
	members      map[string]*event.Event
	powerful     string // the users of power, as power levels name them
}

// state adds a state event to the side.
func (b *branch) state(t *testing.T, typ, key, content string) *event.Event {
	t.Helper()
	proto := &event.Proto{
		RoomID: b.Room, Type: typ, StateKey: &key, Sender: b.User, Content: []byte(content), PrevEvents: []id.EventID{b.last.EventID()},
		Depth: b.last.Depth() + 1, OriginServerTS: b.last.OriginServerTS() + 1, AuthEvents: idsOf(b.levels, b.Join),
	}
	if typ == event.TypeMember && b.members[key] != nil {
		proto.AuthEvents = append(proto.AuthEvents, b.members[key].EventID())
	}
	if !b.Rules.RoomIDIsHash {
		proto.AuthEvents = append(proto.AuthEvents, b.Find(t, event.TypeCreate, "").EventID())
	}
	b.last = b.Build(t, proto)
	switch typ {
	case event.TypePowerLevels:
		b.levels = b.last
	case event.TypeMember:
		b.members[key] = b.last
	}
	return b.last
}

// A server whose user has power splits a room in two and continues on both sides, each event right by itself, so that what the sides come to has
// to be found anew with every event, among ever more that contradict each other. All of it comes in, the room goes on and is one again with
// the next word, and other rooms have gone on meanwhile.
func TestForksMadeToBeExpensive(t *testing.T) {
	const deep = 700 // on each side
	s := newStage(t)
	shapes := map[string]func(t *testing.T, b *branch, side, n int){
		"power levels": func(t *testing.T, b *branch, side, n int) {
			b.state(t, event.TypePowerLevels, "", fmt.Sprintf(`{"state_default":50,"users":{%s"@puppet%d:nowhere.test":%d}}`, b.powerful, side, n%50))
		},
		"bans and pardons": func(t *testing.T, b *branch, side, n int) {
			b.state(t, event.TypeMember, fmt.Sprintf("@moth%d:nowhere.test", n/2%7),
				fmt.Sprintf(`{"membership":%q,"reason":"side %d"}`, []string{"ban", "leave"}[n%2], side))
		},
		"bans by ever newer levels": func(t *testing.T, b *branch, side, n int) {
			switch n % 3 {
			case 0:
				b.state(t, event.TypePowerLevels, "", fmt.Sprintf(`{"ban":%d,"users":{%s"@puppet:nowhere.test":1}}`, n%40+side, b.powerful))
			case 1:
				b.state(t, event.TypeMember, fmt.Sprintf("@moth%d:nowhere.test", n), fmt.Sprintf(`{"membership":"ban","reason":"side %d"}`, side))
			default:
				b.state(t, event.TypeJoinRules, "", fmt.Sprintf(`{"join_rule":"public","n":%d}`, n+side))
			}
		},
	}
	for _, version := range []roomver.Version{roomver.V10, roomver.V12} {
		for name, grow := range shapes {
			t.Run("version "+string(version)+" "+name, func(t *testing.T) {
				p := s.enter(t, version, "mallory")
				room := string(p.Room)
				users, powerful := map[string]any{string(p.User): 100}, fmt.Sprintf("%q:100,", p.User)
				if !p.Rules.RoomIDIsHash { // else who made it has power without end
					users[s.alice.User] = 100
					powerful += fmt.Sprintf("%q:100,", s.alice.User)
				}
				crowned := s.fetch(t, p, s.alice.Set(t, room, "m.room.power_levels", "", map[string]any{"users": users}))
				var sides [2]*branch
				for i := range sides {
					sides[i] = &branch{Place: p, last: crowned, levels: crowned, members: map[string]*event.Event{}, powerful: powerful}
				}
				var all []*event.Event
				for n := range deep {
					for side, b := range sides {
						grow(t, b, side, n)
						all = append(all, b.last)
					}
				}
				s.undisturbed(t, func() {
					for part := range slices.Chunk(all, 50) {
						for e, refused := range s.remote.Send(t, s.home, part...) {
							require.Empty(t, refused, e)
						}
					}
					require.Eventually(t, func() bool { return s.home.Staged(t) == 0 }, 5*patience, tick, "all of it is worked off")
					s.alice.Sees(t, room, string(sides[0].last.EventID()), string(sides[1].last.EventID()))
				})
				timeline := s.home.Timeline(t, room)
				for _, e := range all {
					require.Contains(t, timeline, string(e.EventID()), "what is right comes in")
				}
				state := s.alice.State(t, room)
				said := s.alice.Say(t, room, "is it over?")
				s.alice.Sees(t, room, said)
				require.Equal(t, state, s.alice.State(t, room))
				require.ElementsMatch(t, idsOf(sides[0].last, sides[1].last), s.fetch(t, p, said).PrevEvents(), "the sides are one again")
			})
		}
	}
}

// fetch gives an event of a room as the homeserver gives it to other servers.
func (s *stage) fetch(t *testing.T, p *fedtest.Place, eventID string) *event.Event {
	t.Helper()
	status, answer := s.remote.Ask(t, s.home, "GET", fed+"event/"+url.PathEscape(eventID), nil)
	require.Equal(t, 200, status, "%s", answer)
	var of struct {
		PDUs []json.RawMessage `json:"pdus"`
	}
	require.NoError(t, json.Unmarshal(answer, &of))
	require.Len(t, of.PDUs, 1)
	e, err := event.Parse(p.Rules, of.PDUs[0])
	require.NoError(t, err)
	return e
}
