package lease

import "time"

// Timing is the one set of numbers that all workers of a cluster must share.
type Timing struct {
	Renew time.Duration // between two renewals
	Poll  time.Duration // between two looks at the leases
	Valid time.Duration // how long a renewal is good for, from when it was sent
	Wait  time.Duration // how long a holder must be silent before it is replaced
	// Patience is how long a lease that another worker should take may stay free before anybody takes it.
	Patience time.Duration
}

// DefaultTiming is what clusters use. It is no configuration: two workers that disagree could both own a shard.
func DefaultTiming() Timing {
	return Timing{
		Renew: 500 * time.Millisecond, Poll: 250 * time.Millisecond, Valid: 2 * time.Second, Wait: 3 * time.Second,
		Patience: 1500 * time.Millisecond,
	}
}

func (t Timing) withDefaults() Timing {
	if t == (Timing{}) {
		return DefaultTiming()
	}
	return t
}

// term is how long this worker may believe in its leases. It is immutable: each successful renewal makes the next one.
//
// Why a lapse is for good: while renewals succeed in time, each had its effect before the one before it ran out, so a
// claimant that waits longer than that has seen it. A renewal whose answer comes after the lapse may have had its effect
// after a claimant looked for the last time; what was owned before it may by now be somebody else's. So the generation
// ends, and with it every grant that was made in it.
type term struct {
	sent  time.Duration // when the last successful renewal was sent; on the local clock
	gen   uint64        // grows with each lapse; 0 before the first renewal
	valid time.Duration
}

// live tells whether the term runs.
func (t term) live(now time.Duration) bool { return t.gen != 0 && now < t.sent+t.valid }

// renewed is the term after a renewal succeeded that was sent and answered at the times given.
func (t term) renewed(sent, answered time.Duration) term {
	n := term{sent: sent, gen: t.gen, valid: t.valid}
	if !t.live(answered) {
		n.gen++
	}
	return n
}
