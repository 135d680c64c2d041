-- +goose Up

-- A word that nearly every event has is looked for in the order of time, without looking at all that have it.
CREATE INDEX search_event_recent ON search_event (ts, event_nid);
