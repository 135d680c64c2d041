package account

import (
	"container/list"
	"sync"

	"github.com/heddle-im/heddle/pkg/infra/cache"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
)

// sessionWeight is about what one remembered session holds beside its texts: its entries in three maps and a list, and its share
// of its user's.
const sessionWeight = 600

// sessionCache remembers sessions by token, with all of one user's dropped at once. What was being read while its user was
// dropped is not remembered: the read may have been older than the drop. What it holds is charged to the memory budget, which
// takes back what was used least recently.
type sessionCache struct {
	account *cache.Account

	mu     sync.Mutex // guards all below; never held across I/O
	byHash map[[32]byte]*list.Element
	recent *list.List // of *cachedSession, the latest used first
	users  map[string]*cachedUser
}

type cachedSession struct {
	hash    [32]byte
	session accountdb.Session
}

func (s *cachedSession) weight() int64 {
	return sessionWeight + int64(len(s.session.UserID)+len(s.session.DeviceID))
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

func newSessionCache(b *cache.Budget) *sessionCache {
	c := &sessionCache{
		byHash: make(map[[32]byte]*list.Element), recent: list.New(), users: make(map[string]*cachedUser),
	}
	c.account = b.Account("sessions", c.evict)
	return c
}

// evict frees about n bytes. It is called by the budget, and never under mu.
func (c *sessionCache) evict(n int64) (freed int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for el := c.recent.Back(); el != nil && freed < n; el = c.recent.Back() {
		freed += c.remove(el)
	}
	return freed
}

func (c *sessionCache) get(hash [32]byte) (accountdb.Session, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	el, ok := c.byHash[hash]
	if !ok {
		return accountdb.Session{}, false
	}
	c.recent.MoveToFront(el)
	return el.Value.(*cachedSession).session, true //nolint:errcheck // insert puts nothing else
}

// expire forgets one session.
func (c *sessionCache) expire(hash [32]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el, ok := c.byHash[hash]; ok {
		c.remove(el)
	}
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
	if w := c.insert(l, hash, s); w > 0 {
		c.account.Charge(w) // which may evict, and so take mu
	}
}

// insert remembers a session, if it still may, and tells what that weighs.
func (c *sessionCache) insert(l sessionLoad, hash [32]byte, s accountdb.Session) (weight int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	u := c.users[l.user]
	u.loading--
	if u.dropped == l.dropped && c.byHash[hash] == nil {
		x := &cachedSession{hash: hash, session: s}
		u.hashes[hash] = struct{}{}
		c.byHash[hash] = c.recent.PushFront(x)
		weight = x.weight()
	}
	c.forget(l.user, u)
	return weight
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
		c.remove(c.byHash[hash])
	}
	c.forget(user, u)
}

// remove forgets one session, and tells what it weighed.
func (c *sessionCache) remove(el *list.Element) int64 {
	s := c.recent.Remove(el).(*cachedSession) //nolint:errcheck // insert puts nothing else
	delete(c.byHash, s.hash)
	u := c.users[s.session.UserID]
	delete(u.hashes, s.hash)
	c.forget(s.session.UserID, u)
	w := s.weight()
	c.account.Release(w)
	return w
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
