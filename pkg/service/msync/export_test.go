package msync

// Squeeze lets go of about half of what is held, as memory that grows short does, and of what is held of device lists.
func (e *Engine) Squeeze() {
	e.evict(1 << 40)
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, u := range e.users {
		if n := len(u.notes) / 2; n > 0 {
			for _, old := range u.notes[:n] {
				u.notesFrom[old.shard] = max(u.notesFrom[old.shard], old.pos)
			}
			u.notes = u.notes[n:]
		}
	}
}

// Reading is how many syncs have a turn to read the database.
func (e *Engine) Reading() int {
	e.turns.mu.Lock()
	defer e.turns.mu.Unlock()
	return maxReading - e.turns.free
}

// ShortenSliding has answers of sliding sync become about so long, from now on.
func (e *Engine) ShortenSliding(n int) { e.mostSliding = n }

// Moments is of how many memberships that are not joined it is held what a user's lists go by.
func (e *Engine) Moments(user string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.users[user].labels.moments)
}

// Woken tells whether a sync that waits has been told to look again since it last did.
func (p *Pending) Woken() bool { return len(p.w.wake) > 0 }

// Held is what is charged for what the window holds.
func (e *Engine) Held() int64 { return e.account.Used() }
