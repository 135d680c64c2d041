package lease

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/store/leasedb"
)

// A master that is started again at once, in place of the one that was killed, is not waited for: it could not take its share before it had
// watched for the whole time itself, while another has done so already.
func TestWhoCameLateIsNotWaitedFor(t *testing.T) {
	timing := DefaultTiming()
	killed, other, again := leasedb.Boot{Instance: "a", Started: time.Unix(1, 0)}, leasedb.Boot{Instance: "b", Started: time.Unix(2, 0)},
		leasedb.Boot{Instance: "a", Started: time.Unix(9, 0)}
	key := leasedb.Key{Role: leasedb.Writer}
	row := leasedb.Row{Key: key, Epoch: 4, Holder: killed.String()}
	born := timing.Wait / 3
	at := func(w *watch, now time.Duration, beats int64) {
		s := leasedb.Snapshot{Leases: []leasedb.Row{row}}
		life := func(b leasedb.Boot, counter int64) {
			s.Workers = append(s.Workers, leasedb.Life{Boot: b, Counter: counter, Roles: []string{leasedb.Writer}, NATS: true})
		}
		life(other, beats)
		if now < born {
			life(killed, 1) // it beats no more
		} else {
			life(again, beats)
		}
		w.look(s, now, now)
	}
	plans := func(me leasedb.Boot, from, now time.Duration) plan {
		w := newWatch()
		for i, t := int64(0), from; t <= now; i, t = i+1, t+timing.Poll {
			at(w, t, i)
		}
		return decide(state{me: me.String(), role: leasedb.Writer, timing: timing, watch: w, live: true, holds: map[leasedb.Key]hold{}})
	}
	require.Empty(t, plans(other, 0, timing.Wait-timing.Poll).claim)
	require.Len(t, plans(other, 0, timing.Wait).claim, 1, "as soon as the holder has been silent for long enough")
	require.Empty(t, plans(again, born, timing.Wait).claim)
	require.Len(t, plans(again, born, born+timing.Wait+timing.Patience+3*timing.Poll).claim, 1, "if nobody has by then")
}
