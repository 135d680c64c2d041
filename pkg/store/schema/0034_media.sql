-- +goose Up

-- Media (docs/adr/0034-media-rows.md): no shard's writer owns these rows. A shard is that of what the row is called by. Times are in
-- milliseconds since 1970.

-- What an mxc URI stands for.
CREATE TABLE media (
    shard          smallint NOT NULL, -- of the mxc URI
    origin         text NOT NULL,
    media_id       text NOT NULL,
    -- 0 was uploaded here, 1 is kept of another server's, 2 was fetched for a preview of a URL.
    kind           smallint NOT NULL,
    user_id        text, -- who uploaded it
    created        bigint NOT NULL,
    last_access    bigint NOT NULL,
    -- Its content; NULL until it is uploaded, which may be done until expires.
    sha256         bytea,
    blob           text,
    expires        bigint,
    size           bigint NOT NULL DEFAULT 0,
    content_type   text NOT NULL DEFAULT '',
    file_name      text NOT NULL DEFAULT '', -- '': it has none
    -- Whether it may be downloaded without an access token.
    open           boolean NOT NULL,
    quarantined_by text,
    protected      boolean NOT NULL DEFAULT false, -- from quarantine of many at once
    PRIMARY KEY (shard, origin, media_id)
);
CREATE INDEX media_user ON media (user_id, created) WHERE user_id IS NOT NULL;
CREATE INDEX media_content ON media (sha256) WHERE sha256 IS NOT NULL;
CREATE INDEX media_expires ON media (expires) WHERE sha256 IS NULL;
CREATE INDEX media_kept ON media (last_access) WHERE kind > 0;

-- Contents, and where they are. Equal ones are stored once.
CREATE TABLE media_blob (
    shard  smallint NOT NULL, -- of the hash
    sha256 bytea NOT NULL,
    name   text NOT NULL,
    refs   bigint NOT NULL, -- how many rows of media have it
    PRIMARY KEY (shard, sha256)
);

-- Names in the store of blobs that nothing refers to: of what is being written, and of what is to be removed (since 0).
CREATE TABLE media_loose (
    shard smallint NOT NULL, -- of the name
    name  text NOT NULL,
    since bigint NOT NULL,
    PRIMARY KEY (shard, name)
);
CREATE INDEX media_loose_since ON media_loose (since);

-- Thumbnails of contents. They go with them.
CREATE TABLE media_thumbnail (
    shard        smallint NOT NULL, -- of the hash
    sha256       bytea NOT NULL,
    width        integer NOT NULL,
    height       integer NOT NULL,
    crop         boolean NOT NULL,
    animated     boolean NOT NULL,
    content_type text NOT NULL,
    size         bigint NOT NULL,
    name         text NOT NULL,
    PRIMARY KEY (shard, sha256, width, height, crop, animated)
);

