package account

import (
	"container/list"
	"sync"

	"github.com/heddle-im/heddle/pkg/store/accountdb"
)

// sessionCache remembers sessions by token, with all of one user's dropped at once. What was being read while its user was
// dropped is not remembered: the read may have been older than the drop.
type sessionCache struct {
	max int

	mu     sync.Mutex // guards all below; never held across I/O
	byHash map[[32]byte]*list.Element
	recent *list.List // of *cachedSession, the latest used first
	users  map[string]*cachedUser
}

type cachedSession struct {
	hash    [32]byte
	session accountdb.Session
}

type cachedUser struct {
	hashes  map[[32]byte]struct{}
	loading int
	dropped uint64 // counts drops, so that a load can tell whether one came in between
}

type sessionLoad struct {
	user    string
	dropped uint64
}

func newSessionCache(limit int) *sessionCache {
	return &sessionCache{
		max: limit, byHash: make(map[[32]byte]*list.Element), recent: list.New(), users: make(map[string]*cachedUser),
	}
}

func (c *sessionCache) get(hash [32]byte) (accountdb.Session, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	el, ok := c.byHash[hash]
	if !ok {
		return accountdb.Session{}, false
	}
	c.recent.MoveToFront(el)
	return el.Value.(*cachedSession).session, true //nolint:errcheck // end puts nothing else
}

func (c *sessionCache) knows(user string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.users[user]
	return ok
}

// begin must come before the read that end tells the result of.
func (c *sessionCache) begin(user string) sessionLoad {
	c.mu.Lock()
	defer c.mu.Unlock()
	u := c.users[user]
	if u == nil {
		u = &cachedUser{hashes: make(map[[32]byte]struct{})}
		c.users[user] = u
	}
	u.loading++
	return sessionLoad{user: user, dropped: u.dropped}
}

func (c *sessionCache) end(l sessionLoad, hash [32]byte, s accountdb.Session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	u := c.users[l.user]
	u.loading--
	if u.dropped == l.dropped && c.byHash[hash] == nil {
		u.hashes[hash] = struct{}{}
		c.byHash[hash] = c.recent.PushFront(&cachedSession{hash: hash, session: s})
		for c.recent.Len() > c.max {
			c.remove(c.recent.Back())
		}
	}
	c.forget(l.user, u)
}

func (c *sessionCache) abandon(l sessionLoad) {
	c.mu.Lock()
	defer c.mu.Unlock()
	u := c.users[l.user]
	u.loading--
	c.forget(l.user, u)
}

func (c *sessionCache) drop(user string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	u := c.users[user]
	if u == nil {
		return
	}
	u.dropped++
	for hash := range u.hashes {
		c.recent.Remove(c.byHash[hash])
		delete(c.byHash, hash)
	}
	clear(u.hashes)
	c.forget(user, u)
}

func (c *sessionCache) remove(el *list.Element) {
	s := c.recent.Remove(el).(*cachedSession) //nolint:errcheck // end puts nothing else
	delete(c.byHash, s.hash)
	u := c.users[s.session.UserID]
	delete(u.hashes, s.hash)
	c.forget(s.session.UserID, u)
}

func (c *sessionCache) forget(user string, u *cachedUser) {
	if len(u.hashes) == 0 && u.loading == 0 {
		delete(c.users, user)
	}
}

func (c *sessionCache) clear() {
	c.mu.Lock()
	users := make([]string, 0, len(c.users))
	for u := range c.users {
		users = append(users, u)
	}
	c.mu.Unlock()
	for _, u := range users {
		c.drop(u)
	}
}
