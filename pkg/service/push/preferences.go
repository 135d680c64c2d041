package push

import (
	"context"
	"fmt"
	"sync"

	"github.com/heddle-im/heddle/pkg/matrix/pushrule"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/follow"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
)

// typePushRules is the account data that holds a user's push rules as pushrule.Custom has them.
const typePushRules = "m.push_rules"

// maxRemembered bounds the changes that are remembered; who asks for older ones is told that they are not known.
const maxRemembered = 4096

// Preferences hears in the log whose preferences change: push rules, and whom a user ignores. What they are is read from the database. It
// is safe for concurrent use.
type Preferences struct {
	shards shard.Map
	db     *accountdb.Reader

	mu      sync.Mutex // guards all below; never held across I/O
	edition uint64
	// changed are the users of the latest changes; the last of them made the edition.
	changed []string
}

// NewPreferences makes Preferences, which must hear the log ([Wants], Apply, Reset).
func NewPreferences(m shard.Map, db *accountdb.Reader) *Preferences {
	return &Preferences{shards: m, db: db, edition: 1}
}

// Wants is the log's filter.
func Wants(k entry.Kind, _ shard.Nid, _ []byte) bool { return k == entry.KindAccountData }

// Apply takes in a batch of the log.
func (p *Preferences) Apply(_ context.Context, b follow.Batch) error {
	for i := range b.Entries {
		e := &b.Entries[i]
		if e.Kind != entry.KindAccountData {
			continue
		}
		switch string(entry.AccountDataType(&e.Entry)) {
		case typePushRules, accountdb.TypeIgnored:
			p.note(e.Subject)
		}
	}
	return nil
}

func (p *Preferences) note(user string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.changed) >= maxRemembered {
		p.changed = append(p.changed[:0], p.changed[maxRemembered/2:]...)
	}
	p.changed = append(p.changed, user)
	p.edition++
}

// Reset forgets what was heard: anybody's may have changed.
func (p *Preferences) Reset(context.Context, shard.Heads) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.changed = nil
	p.edition++
	return nil
}

// Edition grows with every change that is heard of.
func (p *Preferences) Edition() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.edition
}

// Changed gives those whose preferences changed after an edition, each once, and the edition now; ok is false if that is not known any more.
func (p *Preferences) Changed(since uint64) (users []string, now uint64, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.edition - since
	if since > p.edition || n > uint64(len(p.changed)) {
		return nil, p.edition, false
	}
	seen := make(map[string]bool, n)
	for _, u := range p.changed[uint64(len(p.changed))-n:] {
		if !seen[u] {
			seen[u] = true
			users = append(users, u)
		}
	}
	return users, p.edition, true
}

// Of gives the preferences of those of the users who have any. Rules that cannot be read are as if there were none.
func (p *Preferences) Of(ctx context.Context, users []string) (map[string]pushrule.Preference, error) {
	shards := make([]shard.ID, len(users))
	for i, u := range users {
		shards[i] = p.shards.OfUser(u)
	}
	rows, err := p.db.DataOf(ctx, shards, users, typePushRules, accountdb.TypeIgnored)
	if err != nil {
		return nil, fmt.Errorf("preferences: %w", err)
	}
	out := make(map[string]pushrule.Preference, len(rows))
	for _, r := range rows {
		one := out[r.UserID]
		switch r.Type {
		case typePushRules:
			if rules, err := pushrule.ParseCustom(r.Content); err == nil {
				one.Rules = rules
			}
		case accountdb.TypeIgnored:
			one.Ignored = accountdb.ParseIgnored(r.UserID, r.Content)
		}
		out[r.UserID] = one
	}
	return out, nil
}
