package msync

import (
	"context"
	"strconv"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
)

// How many threads the extension tells of at a time: if the client does not say, and at most.
const (
	someThreads = 100
	mostThreads = 1000
)

// threadsExtension tells what became different of the threads that the user wants to hear of; of a client that has not heard of any, which they
// are. If there are more than it tells, the latest are told, and where the others are to be read.
func (s *slideView) threadsExtension(ctx context.Context, _ *slideAnswer, _ *plan) ([]byte, bool, error) {
	since, _ := s.from(s.u.shard)
	held := false // of a client that may have heard of some it is not known which it is to be told are ended
	if !s.conn.threads {
		since, held = 0, !s.conn.lost
	}
	s.e.mu.Lock()
	quiet := s.conn.threads && since >= s.u.complete && s.u.threads <= since
	s.e.mu.Unlock()
	if quiet {
		return []byte(`{}`), false, nil
	}
	if err := s.reading(ctx); err != nil {
		return nil, false, err
	}
	count := someThreads
	if l := s.q.Extensions.Threads.Limit; l != nil {
		count = min(max(*l, 1), mostThreads)
	}
	rows, err := s.e.Accounts.ThreadSubscriptions(ctx, s.u.shard, s.u.id, since, s.to(s.u.shard), held, count+1)
	if err != nil {
		return nil, false, err
	}
	more := len(rows) > count
	rows = rows[:min(len(rows), count)]
	b := AppendThreadSubscriptions([]byte{'{'}, rows)
	if more {
		b = append(b, `,"prev_batch":"`...)
		b = append(strconv.AppendInt(b, rows[count-1].Pos-1, 10), '"')
	}
	return append(b, '}'), len(rows) > 0, nil
}

// AppendThreadSubscriptions appends the members subscribed and unsubscribed, each by room and thread, those that there are.
func AppendThreadSubscriptions(b []byte, rows []accountdb.ListThreadSubscriptionsRow) []byte {
	first := true
	for _, subscribed := range []bool{true, false} {
		byRoom := make(map[string][]accountdb.ListThreadSubscriptionsRow)
		var rooms []string
		for _, x := range rows {
			if x.Subscribed != subscribed {
				continue
			}
			if byRoom[x.RoomID] == nil {
				rooms = append(rooms, x.RoomID)
			}
			byRoom[x.RoomID] = append(byRoom[x.RoomID], x)
		}
		if len(rooms) == 0 {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(b, map[bool]string{true: `"subscribed":{`, false: `"unsubscribed":{`}[subscribed]...)
		for i, room := range rooms {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(canonjson.AppendString(b, room), ':', '{')
			for j, x := range byRoom[room] {
				if j > 0 {
					b = append(b, ',')
				}
				b = append(canonjson.AppendString(b, x.Root), `:{"bump_stamp":`...)
				b = strconv.AppendInt(b, x.Pos, 10)
				if subscribed {
					b = strconv.AppendBool(append(b, `,"automatic":`...), x.Automatic)
				}
				b = append(b, '}')
			}
			b = append(b, '}')
		}
		b = append(b, '}')
	}
	return b
}
