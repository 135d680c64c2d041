package entry

import "github.com/heddle-im/heddle/pkg/shardlog/shard"

// Place is where a proposal was put: its shard, and the positions of its entries. A proposal without entries has First
// beyond Last, which is then the shard's position at the time.
type Place struct {
	Shard       shard.ID
	First, Last shard.Pos
}

// Pos gives the position of the proposal's entry of an index; for a proposal without entries, the shard's position.
func (p Place) Pos(index int) shard.Pos {
	if p.First > p.Last {
		return p.Last
	}
	return p.First + shard.Pos(index)
}

// Placed is a row of one type with its proposal's place: what the multi-row writers of store/ get.
type Placed[R Row] struct {
	Place
	Row R
}

// LastByKey keeps of the rows with the same key the last one, in the order of their first appearance. A statement that
// inserts or updates many rows may not meet the same one twice.
func LastByKey[R Row, K comparable](rows []Placed[R], key func(Placed[R]) K) []Placed[R] {
	if len(rows) < 2 {
		return rows
	}
	at := make(map[K]int, len(rows))
	out := make([]Placed[R], 0, len(rows))
	for _, r := range rows {
		k := key(r)
		if i, ok := at[k]; ok {
			out[i] = r
			continue
		}
		at[k] = len(out)
		out = append(out, r)
	}
	return out
}

// Column gives one column of many rows.
func Column[R Row, T any](rows []Placed[R], f func(*Placed[R]) T) []T {
	col := make([]T, len(rows))
	for i := range rows {
		col[i] = f(&rows[i])
	}
	return col
}
