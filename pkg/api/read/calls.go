package read

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"net/http"
	"strconv"
	"time"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
)

// Calls are the servers over which calls go.
type Calls struct {
	// TURN are the URIs of the TURN server, Secret what it and this server both know, and Lifetime for how long a password is good.
	TURN     []string
	Secret   string
	Lifetime time.Duration
	// LiveKit are the URLs of services that let users into calls of many, the preferred one first.
	LiveKit []string
	Now     func() time.Time
}

// turn gives the caller a password for the TURN server (spec: "Voice over IP"), by the convention that TURN servers know: the name says
// until when it is good, and the password is the name's HMAC. Nothing if there is no such server.
func (c *Calls) turn(w http.ResponseWriter, r *http.Request) error {
	if len(c.TURN) == 0 {
		return httpx.WriteEmpty(w)
	}
	name := strconv.FormatInt(c.Now().Add(c.Lifetime).Unix(), 10) + ":" + string(auth.Must(r.Context()).UserID)
	mac := hmac.New(sha1.New, []byte(c.Secret))
	_, _ = mac.Write([]byte(name))
	return httpx.WriteJSON(w, http.StatusOK, struct {
		Username string   `json:"username"`
		Password string   `json:"password"`
		URIs     []string `json:"uris"`
		TTL      int64    `json:"ttl"`
	}{name, base64.StdEncoding.EncodeToString(mac.Sum(nil)), c.TURN, int64(c.Lifetime / time.Second)})
}

// focus is a service over which calls of many go.
type focus struct {
	Type string `json:"type"`
	URL  string `json:"livekit_service_url"`
}

func (c *Calls) foci() []focus {
	out := make([]focus, len(c.LiveKit))
	for i, u := range c.LiveKit {
		out[i] = focus{"livekit", u}
	}
	return out
}

// transports says over what calls go (MSC4143).
func (c *Calls) transports(w http.ResponseWriter, _ *http.Request) error {
	return httpx.WriteJSON(w, http.StatusOK, map[string][]focus{"rtc_transports": c.foci()})
}
