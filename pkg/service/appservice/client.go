package appservice

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/heddle-im/heddle/pkg/infra/outhttp"
)

const (
	dialTimeout = 10 * time.Second
	// maxAnswer bounds what is read of an answer.
	maxAnswer = 1 << 20
	apiPath   = "/_matrix/app/v1"
	oldPath   = "/_matrix/app/unstable" // of what is old and unstable, and has that path still
)

// ErrNoURL says that an application service is not to be asked anything.
var ErrNoURL = errors.New("the application service has no URL")

// Client asks application services. Their addresses are the operator's own word: no network is kept from it, but a redirect is not followed.
type Client struct {
	transport *http.Transport
	http      *http.Client
	agent     string
}

// NewClient makes a Client; agent is its User-Agent. It must be closed.
func NewClient(agent string) *Client {
	t := &http.Transport{
		DialContext:       (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext,
		ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}, TLSHandshakeTimeout: dialTimeout,
		MaxIdleConns: 200, MaxIdleConnsPerHost: 8, MaxConnsPerHost: 32, IdleConnTimeout: 90 * time.Second, MaxResponseHeaderBytes: 64 << 10,
	}
	return &Client{transport: t, agent: agent, http: &http.Client{
		Transport:     t,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Close closes idle connections.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Answer is what an application service answered.
type Answer struct {
	Status int
	Body   []byte
}

// Good tells whether it has done what it was asked for.
func (a *Answer) Good() bool { return a.Status >= 200 && a.Status < 300 }

// code gives the errcode of an answer; empty if it has none.
func (a *Answer) code() string {
	var e struct {
		Code string `json:"errcode"`
	}
	if json.Unmarshal(a.Body, &e) != nil {
		return ""
	}
	return e.Code
}

// unknown tells whether the answer is of somebody who does not know the endpoint.
func (a *Answer) unknown() bool {
	switch a.Status {
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		code := a.code()
		return code == "" || code == "M_UNRECOGNIZED"
	}
	return false
}

// question is one request. Path and Old are escaped and below the URL; Old is where old application services have the endpoint, if they do.
type question struct {
	Method, Path, Old string
	Query             url.Values
	Body              []byte
	Timeout           time.Duration
}

// ask asks an application service; who does not know the endpoint is asked at its old path (spec: "Legacy routes").
func (c *Client) ask(ctx context.Context, s *Service, q question) (Answer, error) {
	if s.URL == "" {
		return Answer{}, ErrNoURL
	}
	ctx, cancel := context.WithTimeout(ctx, q.Timeout)
	defer cancel()
	a, err := c.once(ctx, s, q.Method, q.Path, q.Query, q.Body)
	if err != nil || q.Old == "" || !a.unknown() {
		return a, err
	}
	query := url.Values{"access_token": {s.HSToken}} // as those who have the old path look for it
	for k, v := range q.Query {
		query[k] = v
	}
	old, err := c.once(ctx, s, q.Method, q.Old, query, q.Body)
	if err != nil || old.unknown() {
		return a, err
	}
	return old, nil
}

func (c *Client) once(ctx context.Context, s *Service, method, path string, query url.Values, body []byte) (Answer, error) {
	to := s.URL + path
	if len(query) > 0 {
		to += "?" + query.Encode()
	}
	var in io.Reader
	if body != nil {
		in = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, to, in)
	if err != nil {
		return Answer{}, fmt.Errorf("ask application service %s: the address is none", s.ID)
	}
	req.Header.Set("Authorization", "Bearer "+s.HSToken)
	req.Header.Set("User-Agent", c.agent)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.http.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // without the address, in which there may be a token
		}
		return Answer{}, fmt.Errorf("ask application service %s: %w", s.ID, err)
	}
	defer func() { _ = res.Body.Close() }()
	a := Answer{Status: res.StatusCode}
	if a.Body, err = outhttp.ReadAll(res.Body, maxAnswer); err != nil {
		return a, fmt.Errorf("read the answer of application service %s: %w", s.ID, err)
	}
	return a, nil
}
