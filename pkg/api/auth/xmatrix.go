package auth

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/matrix/signing"
	"github.com/heddle-im/heddle/pkg/remote/fedclient"
	"github.com/heddle-im/heddle/pkg/remote/keyring"
)

// Keys finds the keys of servers. It is *keyring.Ring.
type Keys interface {
	Get(ctx context.Context, requests []signing.Request) keyring.View
}

// XMatrix verifies requests of other homeservers. It implements [Federation].
type XMatrix struct {
	server id.ServerName
	keys   Keys
	now    func() time.Time
	// heard is told of servers that have shown that they are there.
	heard func(ctx context.Context, origin id.ServerName)
}

// NewXMatrix makes an XMatrix. heard may be nil; it must not block.
func NewXMatrix(server id.ServerName, keys Keys, now func() time.Time, heard func(context.Context, id.ServerName)) *XMatrix {
	return &XMatrix{server: server, keys: keys, now: now, heard: heard}
}

type originKey struct{}

// Origin gives the server that has signed the request, on an endpoint whose row demands it.
func Origin(ctx context.Context) id.ServerName {
	s, _ := ctx.Value(originKey{}).(id.ServerName)
	return s
}

// maxSignatures bounds the signatures of one request that are looked at.
const maxSignatures = 5

// Verify implements [Federation]: one of the request's signatures must be right, by a key that is valid now. It reads the body and leaves
// it to be read again.
func (x *XMatrix) Verify(r *http.Request) (context.Context, error) {
	ctx := r.Context()
	credentials, err := parseXMatrix(r.Header.Values("Authorization"))
	if err != nil {
		return nil, err
	}
	origin := credentials[0].origin
	if origin == x.server {
		return nil, unauthorized("The request says that it comes from this server itself")
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return nil, mxerr.New(mxerr.TooLarge, "The request's body is too large")
		}
		return nil, mxerr.New(mxerr.BadJSON, "The request's body could not be read")
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	now := x.now().UnixMilli()
	var needs []signing.Request
	for _, c := range credentials {
		if c.origin != origin {
			return nil, unauthorized("The request is signed by different servers")
		}
		if c.destination != "" && c.destination != x.server {
			return nil, unauthorized("The request is for another server")
		}
		needs = append(needs, signing.Request{Server: origin, Key: c.key, ValidAt: now})
	}
	view := x.keys.Get(ctx, needs)
	reason := "The key that the request is signed with is not known"
	for _, c := range credentials {
		key, ok := view.VerifyKey(origin, c.key)
		if !ok || !key.ValidAt(now, true) {
			continue
		}
		message, err := fedclient.RequestObject(origin, c.destination, r.Method, r.RequestURI, body)
		if err != nil {
			return nil, mxerr.New(mxerr.NotJSON, "The request's body is no JSON")
		}
		if signing.Verify(key.Key, message, c.sig) {
			if x.heard != nil {
				x.heard(ctx, origin)
			}
			return context.WithValue(ctx, originKey{}, origin), nil
		}
		reason = "The request's signature is wrong"
	}
	return nil, unauthorized(reason)
}

func unauthorized(text string) error { return mxerr.New(mxerr.Unauthorized, text) }

// credential is one X-Matrix signature.
type credential struct {
	origin, destination id.ServerName
	key                 id.KeyID
	sig                 []byte
}

// parseXMatrix reads the Authorization headers of a request. It gives one credential at least.
func parseXMatrix(headers []string) ([]credential, error) {
	var out []credential
	for _, h := range headers {
		scheme, rest, _ := strings.Cut(strings.TrimSpace(h), " ")
		if !strings.EqualFold(scheme, "X-Matrix") {
			continue
		}
		c, ok := parseCredential(rest)
		if !ok {
			return nil, unauthorized("The Authorization header is malformed")
		}
		if out = append(out, c); len(out) == maxSignatures {
			break
		}
	}
	if len(out) == 0 {
		return nil, unauthorized("The request bears no X-Matrix signature")
	}
	return out, nil
}

func parseCredential(s string) (c credential, ok bool) {
	for _, p := range authParams(s) {
		switch strings.ToLower(p[0]) {
		case "origin":
			c.origin = id.ServerName(p[1])
		case "destination":
			c.destination = id.ServerName(p[1])
		case "key":
			c.key = id.KeyID(p[1])
		case "sig":
			sig, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(p[1], "="))
			if err != nil {
				return c, false
			}
			c.sig = sig
		}
	}
	return c, c.origin.Valid() && c.key.Algorithm() == id.AlgorithmEd25519 && len(c.sig) == 64
}

// authParams reads the parameters of an Authorization header (RFC 9110, 11.2): name=token or name="quoted", by commas. Tokens may also hold
// what old servers write into them without quotes: colons above all.
func authParams(s string) [][2]string {
	var out [][2]string
	for len(out) < 16 {
		s = strings.TrimLeft(s, " \t,")
		name, rest, ok := strings.Cut(s, "=")
		if !ok {
			return out
		}
		name, rest = strings.TrimSpace(name), strings.TrimLeft(rest, " \t")
		var value strings.Builder
		if strings.HasPrefix(rest, `"`) {
			i := 1
			for ; i < len(rest) && rest[i] != '"'; i++ {
				if rest[i] == '\\' && i+1 < len(rest) {
					i++
				}
				value.WriteByte(rest[i])
			}
			s = rest[min(i+1, len(rest)):]
		} else {
			i := strings.IndexByte(rest, ',')
			if i < 0 {
				i = len(rest)
			}
			value.WriteString(strings.TrimSpace(rest[:i]))
			s = rest[i:]
		}
		out = append(out, [2]string{name, value.String()})
	}
	return out
}
