package lobby

import (
	"context"
	"encoding/json"
	"unicode/utf8"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
)

// Sizes of pages of the directory, and how long what is searched for may be, in bytes.
const (
	DirectoryPage    = 100
	MaxDirectoryPage = 500
	maxTerm          = 1024
)

// DirectoryRequest is what clients and other servers ask the directory for, as the body of POST /publicRooms has it.
type DirectoryRequest struct {
	Limit       *int64           `json:"limit,omitempty"`
	Since       string           `json:"since,omitempty"`
	Filter      *DirectoryFilter `json:"filter,omitempty"`
	AllNetworks bool             `json:"include_all_networks,omitempty"`
	Network     *string          `json:"third_party_instance_id,omitempty"`
}

// DirectoryFilter is the filter of a [DirectoryRequest].
type DirectoryFilter struct {
	Term  string     `json:"generic_search_term,omitempty"`
	Types *[]*string `json:"room_types,omitempty"`
}

// Check refuses requests that make no sense, and gives what is asked for.
func (r *DirectoryRequest) Check() (q DirectoryQuery, err error) {
	q = DirectoryQuery{Since: r.Since, Limit: DirectoryPage}
	switch {
	case r.Limit != nil && *r.Limit < 0:
		return q, mxerr.New(mxerr.InvalidParam, "limit is negative")
	case r.Limit != nil && *r.Limit > 0:
		q.Limit = int(min(*r.Limit, MaxDirectoryPage))
	}
	if f := r.Filter; f != nil {
		if q.Term = f.Term; len(q.Term) > maxTerm || !utf8.ValidString(q.Term) {
			return q, mxerr.New(mxerr.InvalidParam, "generic_search_term is too long")
		}
		if f.Types != nil {
			q.Types = []string{}
			for _, t := range *f.Types {
				if t == nil {
					t = new(string)
				}
				q.Types = append(q.Types, *t)
			}
		}
	}
	if r.elsewhere() && r.AllNetworks {
		return q, mxerr.New(mxerr.InvalidParam, "third_party_instance_id cannot be used with include_all_networks")
	}
	return q, nil
}

// elsewhere tells whether the rooms of another network are wanted: only application services list those.
func (r *DirectoryRequest) elsewhere() bool { return r.Network != nil && *r.Network != "" }

// Answer gives the part of the public directory that a request asks for.
func (l *Lobby) Answer(ctx context.Context, r *DirectoryRequest) (*Directory, error) {
	q, err := r.Check()
	if err != nil {
		return nil, err
	}
	if r.elsewhere() {
		return l.network(ctx, *r.Network, q)
	}
	if r.AllNetworks {
		return l.everywhere(ctx, q)
	}
	return l.Directory(ctx, q)
}

// Remote asks other servers. It is *abroad.Abroad.
type Remote interface {
	// Directory asks a server for its public directory, with the body of POST /publicRooms, and gives the answer as it came.
	Directory(ctx context.Context, server id.ServerName, body []byte) ([]byte, error)
	// Space asks servers, one after the other, for a room and its children, and gives the first answer as it came.
	Space(ctx context.Context, servers []id.ServerName, room id.RoomID) ([]byte, error)
}

// Elsewhere gives the part of another server's public directory that a request asks for. What is malformed in it is left out.
func (l *Lobby) Elsewhere(ctx context.Context, server id.ServerName, r *DirectoryRequest) (*Directory, error) {
	q, err := r.Check()
	if err != nil {
		return nil, err
	}
	asked := *r
	limit := int64(q.Limit)
	asked.Limit = &limit
	body, err := json.Marshal(&asked)
	if err != nil {
		return nil, mxerr.New(mxerr.BadJSON, "The request is malformed").WithCause(err)
	}
	raw, err := l.remote.Directory(ctx, server, body)
	if err != nil {
		return nil, err
	}
	var told struct {
		Chunk []json.RawMessage `json:"chunk"`
		Next  string            `json:"next_batch"`
		Prev  string            `json:"prev_batch"`
		Total *int              `json:"total_room_count_estimate"`
	}
	if err := json.Unmarshal(raw, &told); err != nil {
		return nil, mxerr.New(mxerr.Unknown, "The other server's answer is malformed").WithCause(err)
	}
	d := &Directory{Chunk: make([]Summary, 0, len(told.Chunk)), Next: told.Next, Prev: told.Prev, Total: told.Total}
	for _, item := range told.Chunk[:min(len(told.Chunk), MaxDirectoryPage)] {
		if s, ok := parseSummary(item); ok {
			s.AllowedRooms, s.Encryption, s.Version, s.Membership = nil, "", "", ""
			d.Chunk = append(d.Chunk, s)
		}
	}
	return d, nil
}

// parseSummary reads what another server says of a room.
func parseSummary(raw []byte) (s Summary, ok bool) {
	if json.Unmarshal(raw, &s) != nil {
		return s, false
	}
	_, err := id.ParseRoomID(s.RoomID)
	s.Joined, s.Membership = max(s.Joined, 0), ""
	return s, err == nil
}
