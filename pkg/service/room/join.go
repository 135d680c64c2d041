package room

import (
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/eventauth"
	"github.com/heddle-im/heddle/pkg/matrix/id"
)

// Each event on an older one leaves a room with one more forward extremity, until somebody's next event names some of them. If nobody who hears of
// all of them says anything, they become more and more, and so does what each further event costs. So this server joins them itself, by
// events that say nothing and that no client is shown. So do others, and all of them hear of the same extremities at the same time: each
// waits for a while of its own, and whoever is first spares the others the trouble. And none answers such an event with another one.

const (
	// maxTips is with how many forward extremities a room is left alone.
	maxTips = 20
	// tooManyTips is with how many it is not waited for others to join them.
	tooManyTips = 200
	// The time to wait otherwise.
	minJoinWait = 10 * time.Second
	maxJoinWait = 60 * time.Second
)

// rejoin joins forward extremities, if there are too many after a command in which something of another server's was accepted, until there are few.
func (d *draft) rejoin() error {
	if len(d.head.tips) <= maxTips {
		d.r.joinAt = 0
		return nil
	}
	if !d.said {
		return nil
	}
	if len(d.head.tips) <= tooManyTips {
		if d.r.joinAt == 0 {
			wait, err := d.joinWait()
			if err != nil {
				return err
			}
			d.r.joinAt = d.now + wait.Milliseconds()
		}
		if d.now < d.r.joinAt {
			return nil
		}
	}
	if _, asks := d.inUse(d.at(event.TypePolicy, "")); asks { // it would have to be asked for each
		return nil
	}
	sender := d.memberWho(func(st *eventauth.AuthState, u id.UserID) bool { return st.CanSend(u, event.TypeDummy, false) })
	if d.lacks() {
		return errLacks
	}
	for sender != "" && len(d.head.tips) > maxTips {
		err := d.add(&want{typ: event.TypeDummy, sender: sender, content: []byte(`{}`)})
		switch {
		case refused(err): // by the state after those that it would have named
			return nil
		case err != nil:
			return err
		}
	}
	return nil
}

// joinWait draws how long this server waits for others.
func (d *draft) joinWait() (time.Duration, error) {
	var b [8]byte
	if _, err := io.ReadFull(d.r.term.host.Random, b[:]); err != nil {
		return 0, fmt.Errorf("read randomness: %w", err)
	}
	return minJoinWait + time.Duration(binary.BigEndian.Uint64(b[:])%uint64(maxJoinWait-minJoinWait)), nil
}
