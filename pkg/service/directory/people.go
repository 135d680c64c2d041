package directory

import (
	"context"
	"time"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/searchdb"
)

// How many people one answer tells, and for how long it is waited for the index to take in what is committed.
const (
	DefaultPeople = 10
	MaxPeople     = 50
	patience      = time.Second
)

// Person is one who was found.
type Person struct {
	UserID      string `json:"user_id"`
	DisplayName string `json:"display_name,omitempty"`
	AvatarURL   string `json:"avatar_url,omitempty"`
}

// People finds users: those who share a room with the asker, and those in rooms that anybody may join or read.
type People struct {
	shards shard.Map
	db     *searchdb.Reader
}

// NewPeople makes a People.
func NewPeople(m shard.Map, db *searchdb.Reader) *People { return &People{m, db} }

// Search finds people by the words of their names and ids; limited says that there are more than the limit. The asker is not told.
func (p *People) Search(ctx context.Context, asker id.UserID, term string, limit int) (found []Person, limited bool, err error) {
	all := make([]shard.ID, p.shards.Count())
	for i := range all {
		all[i] = shard.ID(i)
	}
	if err := p.db.Reach(ctx, searchdb.PeopleConsumer, all, patience, entry.KindEvent, entry.KindProfile); err != nil {
		return nil, false, err
	}
	limit = min(limit, MaxPeople)
	rows, err := p.db.People(ctx, string(asker), term, limit+1)
	if err != nil {
		return nil, false, err
	}
	limited = len(rows) > limit
	found = make([]Person, min(len(rows), limit))
	for i := range found {
		found[i] = Person(rows[i])
	}
	return found, limited, nil
}
