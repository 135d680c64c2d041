package appservice

import (
	"crypto/sha256"
	"fmt"

	"github.com/heddle-im/heddle/pkg/matrix/id"
)

// Service is a registered application service.
type Service struct {
	Registration
	// Sender is the user that it is when it does not say whom it acts for.
	Sender id.UserID

	server id.ServerName
}

// Registry holds the registered application services.
type Registry struct {
	all     []*Service
	byToken map[[sha256.Size]byte]*Service
	byID    map[string]*Service
}

// NewRegistry makes a Registry of this server. The error is of a sender that is no user of it.
func NewRegistry(server id.ServerName, list []Registration) (*Registry, error) {
	r := &Registry{byToken: map[[sha256.Size]byte]*Service{}, byID: map[string]*Service{}}
	for i := range list {
		sender, err := id.ParseUserID("@" + list[i].SenderLocalpart + ":" + string(server))
		if err != nil {
			return nil, fmt.Errorf("sender_localpart of %q: %w", list[i].ID, err)
		}
		s := &Service{Registration: list[i], Sender: sender, server: server}
		// By its hash, so that how long the search takes tells nothing of a token.
		r.byToken[sha256.Sum256([]byte(s.ASToken))] = s
		s.ASToken = ""
		r.byID[s.ID] = s
		r.all = append(r.all, s)
	}
	return r, nil
}

// Any tells whether there are any.
func (r *Registry) Any() bool { return r != nil && len(r.all) > 0 }

// All gives all of them, in the order of the configuration. The slice is not to be changed.
func (r *Registry) All() []*Service {
	if r == nil {
		return nil
	}
	return r.all
}

// ByToken gives the one whose as_token has the SHA-256; nil if there is none.
func (r *Registry) ByToken(hash [sha256.Size]byte) *Service {
	if r == nil {
		return nil
	}
	return r.byToken[hash]
}

// ByID gives the one of an id; nil if there is none.
func (r *Registry) ByID(name string) *Service {
	if r == nil {
		return nil
	}
	return r.byID[name]
}

// OfUser gives the one that acts for a user; nil if there is none.
func (r *Registry) OfUser(u id.UserID) *Service {
	for _, s := range r.All() {
		if s.ActsFor(u) {
			return s
		}
	}
	return nil
}

// UserReserved tells whether a user id belongs to an application service alone, another one than by (nil: none).
func (r *Registry) UserReserved(u id.UserID, by *Service) bool {
	for _, s := range r.All() {
		if s != by && (u == s.Sender || u.Server() == s.server && matches(s.Users, string(u), true)) {
			return true
		}
	}
	return false
}

// AliasReserved tells whether an alias belongs to an application service alone, another one than by (nil: none).
func (r *Registry) AliasReserved(a id.RoomAlias, by *Service) bool {
	for _, s := range r.All() {
		if s != by && matches(s.Aliases, string(a), true) {
			return true
		}
	}
	return false
}

// ActsFor tells whether a user is one that the application service may act as: its sender, or a user of this server in its namespace.
func (s *Service) ActsFor(u id.UserID) bool {
	return u == s.Sender || u.Server() == s.server && matches(s.Users, string(u), false)
}

// HasAlias tells whether an alias is in its namespace.
func (s *Service) HasAlias(a id.RoomAlias) bool { return matches(s.Aliases, string(a), false) }

// HasRoom tells whether a room's id is in its namespace.
func (s *Service) HasRoom(r id.RoomID) bool { return matches(s.Rooms, string(r), false) }

// matches tells whether an id is in one of the namespaces; with exclusive, only those count that are nobody else's.
func matches(list []Namespace, v string, exclusive bool) bool {
	for i := range list {
		if (!exclusive || list[i].Exclusive) && list[i].Regex.MatchString(v) {
			return true
		}
	}
	return false
}
