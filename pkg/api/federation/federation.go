// Package federation holds the handlers of what other homeservers call.
//
// It is imported by the composition root.
package federation

import (
	"net/http"
	"strings"
	"time"

	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/matrix/signing"
)

// keyValidity is how long other servers may use the published keys before they ask again.
const keyValidity = 24 * time.Hour

// Options are what the handlers answer from.
type Options struct {
	Server  id.ServerName
	Keys    []signing.Key
	Version string
	// BaseURL is where the homeserver is reached; empty: no delegation is announced.
	BaseURL string
	Now     func() time.Time
}

// Handlers answers other homeservers.
type Handlers struct{ o Options }

// New makes the handlers.
func New(o Options) *Handlers { return &Handlers{o} }

// Handlers gives the handlers by the names of their rows.
func (h *Handlers) Handlers() httpx.Handlers {
	return httpx.Handlers{
		"key.getServerKey":        h.serverKey,
		"federation.getVersion":   h.version,
		"federation.getWellKnown": h.wellKnown,
	}
}

func (h *Handlers) serverKey(w http.ResponseWriter, _ *http.Request) error {
	doc, err := signing.BuildKeyDocument(h.o.Server, h.o.Keys, nil, h.o.Now().Add(keyValidity).UnixMilli())
	if err != nil {
		return mxerr.Internal(err)
	}
	httpx.WriteRaw(w, http.StatusOK, doc)
	return nil
}

func (h *Handlers) version(w http.ResponseWriter, _ *http.Request) error {
	return httpx.WriteJSON(w, http.StatusOK, map[string]map[string]string{
		"server": {"name": "Heddle", "version": h.o.Version},
	})
}

func (h *Handlers) wellKnown(w http.ResponseWriter, _ *http.Request) error {
	_, host, ok := strings.Cut(h.o.BaseURL, "://")
	if !ok {
		return mxerr.New(mxerr.NotFound, "This server does not delegate")
	}
	if !strings.Contains(host, ":") {
		host += ":443"
	}
	return httpx.WriteJSON(w, http.StatusOK, map[string]string{"m.server": host})
}
