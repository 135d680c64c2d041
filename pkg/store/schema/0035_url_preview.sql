-- +goose Up

-- What previews of URLs say, for a while. Not shard-owned, as media. Times are in milliseconds since 1970.
CREATE TABLE url_preview (
    shard    smallint NOT NULL, -- of the URL
    url_hash bytea NOT NULL,    -- SHA-256
    fetched  bigint NOT NULL,
    expires  bigint NOT NULL,
    answer   bytea NOT NULL, -- JSON
    PRIMARY KEY (shard, url_hash)
);
CREATE INDEX url_preview_expires ON url_preview (expires);
