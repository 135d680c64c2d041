-- +goose Up

-- A pusher that was switched off stays and is told of nothing.
ALTER TABLE pusher ADD COLUMN disabled boolean NOT NULL DEFAULT false;
