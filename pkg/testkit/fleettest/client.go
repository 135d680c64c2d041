package fleettest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// Client is a small client for assertions: what it asks is told as it is answered, and nothing is tried again unless it is
// said so.
type Client struct {
	URL, Token, User string
	HTTP             *http.Client
}

// StatusError is an answer that is not 200.
type StatusError struct {
	Status     int
	Body       string
	RetryAfter string // the header
}

// Error implements error.
func (e *StatusError) Error() string { return fmt.Sprintf("%d: %s", e.Status, e.Body) }

// Do makes a request of the client-server API; path begins after /_matrix/client/v3.
func (c *Client) Do(ctx context.Context, method, path string, body, answer any) error {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.URL+"/_matrix/client/v3"+path, r)
	if err != nil {
		return err
	}
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	h := c.HTTP
	if h == nil {
		h = &http.Client{Timeout: patience}
	}
	resp, err := h.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return &StatusError{resp.StatusCode, string(b), resp.Header.Get("Retry-After")}
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(b, answer)
}

// Persist makes a request again, the very same, until it is answered with 200 or ctx ends. Only what is sure to be refused again is
// given up. It tells how often it had to.
func (c *Client) Persist(ctx context.Context, method, path string, body, answer any) (tries int, err error) {
	for {
		tries++
		one, cancel := context.WithTimeout(ctx, 20*time.Second)
		err = c.Do(one, method, path, body, answer)
		cancel()
		var s *StatusError
		if err == nil || ctx.Err() != nil || (errors.As(err, &s) && s.Status < 500 && s.Status != http.StatusTooManyRequests) {
			return tries, err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return tries, err
		}
	}
}

// Register makes a user at url.
func Register(ctx context.Context, url, name string) (*Client, error) {
	c := &Client{URL: url}
	var a struct {
		AccessToken string `json:"access_token"`
		UserID      string `json:"user_id"`
	}
	err := c.Do(ctx, http.MethodPost, "/register", map[string]any{
		"username": name, "password": "correct horse", "auth": map[string]string{"type": "m.login.dummy"},
	}, &a)
	c.Token, c.User = a.AccessToken, a.UserID
	return c, err
}

// SyncAnswer is what the tests read of a sync.
type SyncAnswer struct {
	Next  string `json:"next_batch"`
	Rooms struct {
		Join map[string]struct {
			Timeline struct {
				Limited bool        `json:"limited"`
				Prev    string      `json:"prev_batch"`
				Events  []SyncEvent `json:"events"`
			} `json:"timeline"`
		} `json:"join"`
	} `json:"rooms"`
}

// SyncEvent is an event as the tests read it.
type SyncEvent struct {
	ID      string `json:"event_id"`
	Type    string `json:"type"`
	Content struct {
		Body string `json:"body"`
	} `json:"content"`
}

// Sync makes one sync. The filter asks for long timelines, so that none is cut short.
func (c *Client) Sync(ctx context.Context, since string, timeout time.Duration) (SyncAnswer, error) {
	a, _, err := c.TrySync(ctx, since, timeout)
	return a, err
}

// TrySync is Sync that tells how often it had to ask.
func (c *Client) TrySync(ctx context.Context, since string, timeout time.Duration) (SyncAnswer, int, error) {
	q := url.Values{
		"timeout": {fmt.Sprint(timeout.Milliseconds())},
		"filter":  {`{"room":{"timeline":{"limit":1000},"ephemeral":{"types":[]}},"presence":{"types":[]}}`},
	}
	if since != "" {
		q.Set("since", since)
	}
	var a SyncAnswer
	tries, err := c.Persist(ctx, http.MethodGet, "/sync?"+q.Encode(), nil, &a)
	return a, tries, err
}
