package msync

import (
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/shardlog/token"
)

// typingState is the newest pair that was heard of a shard.
type typingState struct {
	epoch shard.Epoch
	n     int64
}

// roomTyping is who types in a room, and the pair that said so.
type roomTyping struct {
	typingState
	users []string
}

// HearTyping takes in who types in a room. What is older than was heard is dropped; with a new epoch nobody types elsewhere.
func (e *Engine) HearTyping(t *entry.Typing) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if int(t.Shard) >= len(e.typing) {
		return
	}
	s := &e.typing[t.Shard]
	now := typingState{shard.Epoch(t.Epoch), t.N}
	switch {
	case now.epoch < s.epoch, now.epoch == s.epoch && now.n <= s.n:
		return
	case now.epoch > s.epoch:
		for nid, r := range e.rooms {
			if uint32(nid.Shard()) == t.Shard && len(r.typing.users) > 0 {
				r.typing = roomTyping{typingState: typingState{now.epoch, 0}}
				e.wakeRoom(r)
			}
		}
	}
	*s = now
	if r := e.rooms[shard.Nid(t.RoomNid)]; r != nil {
		r.typing = roomTyping{typingState: now, users: t.UserIds}
		for _, u := range t.UserIds {
			e.active(u)
		}
		e.wakeRoom(r)
	}
}

func (e *Engine) wakeRoom(r *room) {
	for m := range r.members {
		e.wake(m)
	}
}

// ephemeral gives the pairs for a token. Under mu.
func (e *Engine) ephemeral() []token.Ephemeral {
	var out []token.Ephemeral
	for s, t := range e.typing {
		if t.epoch != 0 {
			out = append(out, token.Ephemeral{Shard: shard.ID(s), Epoch: t.epoch, N: t.n})
		}
	}
	return out
}

// news tells whether a room's typing is newer than what the token's holder was told. Under mu.
func (t roomTyping) news(since *token.Sync, s shard.ID) bool {
	if t.epoch == 0 {
		return false
	}
	if since == nil {
		return len(t.users) > 0
	}
	told, ok := since.EphemeralOf(s)
	if !ok { // from before anybody typed, or from elsewhere: it is told whole, also that nobody types any more
		return true
	}
	return t.epoch > told.Epoch || (t.epoch == told.Epoch && t.n > told.N)
}
