-- +goose Up

-- Conventions.
--  shard    one of S hash slots; each row of a domain table belongs to exactly one shard, and only the master that holds
--           that shard's lease writes it, inside a transaction that holds the fence (shard_lease ... FOR SHARE).
--  nid      a number that stands for a long name inside the database. Its low 8 bits are its shard; the rest counts
--           up in that shard, given out by the shard's writer from memory. So a nid implies its shard, and every primary key
--           begins with a shard or a nid: the tables can be partitioned or distributed by it.
--  pos      a position in the shard's log. A domain row that can change carries the position of its last change.
--  No foreign keys cross shards, and none are declared: the writer is the only one that could break them.

-- ---------------------------------------------------------------- the cluster

CREATE TABLE cluster (
    one            boolean PRIMARY KEY DEFAULT true CHECK (one),
    server_name    text     NOT NULL,
    shards         smallint NOT NULL CHECK (shards BETWEEN 1 AND 256),
    feature_level  integer  NOT NULL DEFAULT 1,
    -- shared by the workers: signs the loop guard of forwarded requests and the like
    secret         bytea    NOT NULL,
    created        timestamptz NOT NULL DEFAULT now()
);

-- One row for each history of the database: opened by the first writer that finds the history changed.
CREATE TABLE incarnation (
    number             integer PRIMARY KEY,
    system_identifier  text    NOT NULL,
    database_oid       bigint  NOT NULL,
    timeline           bigint  NOT NULL,
    -- began[s + 1] is the first position of shard s that belongs to this incarnation
    began              bigint[] NOT NULL,
    created            timestamptz NOT NULL DEFAULT now()
);

-- ---------------------------------------------------------------- the fleet

-- Each worker renews its own row; no commit locks this table. Liveness is "the counter moved", never a clock.
CREATE TABLE worker (
    instance      text PRIMARY KEY,
    kind          text    NOT NULL,
    address       text    NOT NULL,
    version       text    NOT NULL,
    protocol_min  integer NOT NULL,
    protocol_max  integer NOT NULL,
    roles         text[]  NOT NULL DEFAULT '{}',
    counter       bigint  NOT NULL DEFAULT 0,
    -- what `heddle status` shows: lag by shard, memory, CPU, readiness
    status        jsonb   NOT NULL DEFAULT '{}',
    started       timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

-- Who writes a shard. Changes only when the shard moves. FOR SHARE on this row is the fence of every commit; taking the
-- shard updates the row, and so waits for, or is preceded by the end of, every transaction that holds the fence.
CREATE TABLE shard_lease (
    shard           smallint PRIMARY KEY,
    epoch           bigint NOT NULL DEFAULT 0,
    holder          text   NOT NULL DEFAULT '',   -- instance#start (leasedb.Boot); empty when given away
    holder_pid      integer NOT NULL DEFAULT 0,   -- the writing session, so that a claimant can end it
    holder_started  timestamptz NOT NULL DEFAULT 'epoch',
    address         text   NOT NULL DEFAULT ''    -- where the writer answers requests when NATS is down
);

-- Leases of things that are not shard writing: roles, preparation of inbound PDUs by shard, consumers.
CREATE TABLE role_lease (
    role            text   NOT NULL,
    slot            smallint NOT NULL,
    epoch           bigint NOT NULL DEFAULT 0,
    holder          text   NOT NULL DEFAULT '',
    holder_pid      integer NOT NULL DEFAULT 0,
    holder_started  timestamptz NOT NULL DEFAULT 'epoch',
    address         text   NOT NULL DEFAULT '',
    PRIMARY KEY (role, slot)
);

-- ---------------------------------------------------------------- the log

CREATE TABLE log (
    shard     smallint NOT NULL,
    pos       bigint   NOT NULL,
    epoch     bigint   NOT NULL,
    kind      smallint NOT NULL,
    -- whom the entry concerns, so that a follower can skip it without decoding: a room, or a user of this server
    room_nid  bigint   NOT NULL DEFAULT 0,
    subject   text     NOT NULL DEFAULT '',
    -- the nid of the event whose JSON belongs to the entry; 0 when the body is complete
    event_nid bigint   NOT NULL DEFAULT 0,
    body      bytea    NOT NULL,
    PRIMARY KEY (shard, pos)
);

-- Positions up to here have been trimmed from a shard's log; also keeps the head of a shard whose log is empty.
CREATE TABLE log_floor (
    shard  smallint PRIMARY KEY,
    pos    bigint NOT NULL DEFAULT 0
);

-- How far each durable consumer is. Written under the fence of the consumer's role.
CREATE TABLE cursor (
    consumer  text     NOT NULL,
    shard     smallint NOT NULL,
    pos       bigint   NOT NULL,
    PRIMARY KEY (consumer, shard)
) WITH (fillfactor = 50);

-- What has been done: a row for each command, in its effect's transaction. A retry finds its answer here.
CREATE TABLE done (
    shard    smallint NOT NULL,
    key      bytea    NOT NULL,
    result   bytea    NOT NULL,
    at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (shard, key)
);
CREATE INDEX done_at ON done USING brin (at);

-- ---------------------------------------------------------------- names

-- Strings that repeat (event types, state keys, user ids), interned by each shard for itself.
CREATE TABLE atom (
    nid   bigint PRIMARY KEY,
    shard smallint NOT NULL,
    name  text   NOT NULL,
    UNIQUE (shard, name)
);

-- ---------------------------------------------------------------- rooms

CREATE TABLE room (
    nid       bigint PRIMARY KEY,
    shard     smallint NOT NULL,
    room_id   text   NOT NULL,
    version   text   NOT NULL,
    pos       bigint NOT NULL,
    UNIQUE (shard, room_id)
);

-- One row for each event. Insert only, but for the columns that a redaction, a purge or a rejection repair changes.
CREATE TABLE event (
    nid          bigint PRIMARY KEY,
    room_nid     bigint   NOT NULL,
    -- the order in which the room is read: the log position for live events, below zero for backfilled ones; NULL for
    -- outliers and rejected events, which no timeline shows
    ord          bigint,
    event_id     text     NOT NULL,
    type         bigint   NOT NULL,               -- atom
    state_key    bigint,                          -- atom; NULL: not a state event
    sender       bigint   NOT NULL,               -- atom
    depth        bigint   NOT NULL,
    ts           bigint   NOT NULL,               -- origin_server_ts, ms
    flags        smallint NOT NULL DEFAULT 0,     -- see roomdb.Flag
    -- the state before and after the event (snapshot nids; the same for a message)
    state_before bigint   NOT NULL,
    state_after  bigint   NOT NULL,
    -- nids, 8 bytes each, big endian: the room's forward extremities after this event (empty: just this event), and its edges
    extremities  bytea    NOT NULL DEFAULT '',
    prev         bytea    NOT NULL DEFAULT '',
    auth         bytea    NOT NULL DEFAULT '',
    -- the event of the same (type, state_key) in the state before; 0 when none or not state
    replaces     bigint   NOT NULL DEFAULT 0,
    redacted_by  bigint   NOT NULL DEFAULT 0,
    -- m.relates_to: the related event id, as sent, and rel_type as an atom
    relates_to   text,
    rel_type     bigint,
    -- device and transaction id of a local sender, for unsigned.transaction_id
    sender_device text,
    txn_id        text,
    -- running counts of the push rule outcome classes, by thread (see pushrule); empty: as in the event before
    counts       bytea    NOT NULL DEFAULT '',
    json         bytea    NOT NULL                -- the PDU, canonical
);
ALTER TABLE event ALTER COLUMN json SET STORAGE EXTERNAL;
CREATE UNIQUE INDEX event_room_id  ON event (room_nid, event_id);
CREATE UNIQUE INDEX event_room_ord ON event (room_nid, ord) WHERE ord IS NOT NULL;
CREATE INDEX event_state ON event (room_nid, type, state_key, ord) WHERE state_key IS NOT NULL AND ord IS NOT NULL;
CREATE INDEX event_relates ON event (room_nid, relates_to, ord) WHERE relates_to IS NOT NULL;
CREATE INDEX event_id_hash ON event USING hash (event_id);

-- A room's state after some event, as a delta on another snapshot. step counts the changes since the last full snapshot;
-- the parent of step k is step k without its lowest set bit, so that a read follows popcount(k) rows.
CREATE TABLE state_snapshot (
    nid       bigint PRIMARY KEY,
    room_nid  bigint  NOT NULL,
    step      integer NOT NULL,
    entries   integer NOT NULL,                   -- size of the whole state
    -- nids of the snapshots to overlay, oldest (the full one) first, without this one; 8 bytes each, big endian
    chain     bytea   NOT NULL DEFAULT '',
    delta     bytea   NOT NULL                    -- see statemap.Delta
);
ALTER TABLE state_snapshot ALTER COLUMN delta SET STORAGE EXTERNAL;

-- The room's current state, for readers that want one entry or all of it.
CREATE TABLE current_state (
    room_nid   bigint NOT NULL,
    type       bigint NOT NULL,
    state_key  bigint NOT NULL,
    event_nid  bigint NOT NULL,
    pos        bigint NOT NULL,
    PRIMARY KEY (room_nid, type, state_key)
) WITH (fillfactor = 90);

-- Membership of everybody, by room; and by user for the users of this server.
CREATE TABLE member (
    room_nid     bigint   NOT NULL,
    user_id      text     NOT NULL,
    membership   smallint NOT NULL,               -- see roomdb.Membership
    event_nid    bigint   NOT NULL,
    pos          bigint   NOT NULL,               -- of the last change of membership
    local        boolean  NOT NULL,
    forgotten    boolean  NOT NULL DEFAULT false,
    -- push counting: the member's outcome class, what to subtract, and the order key it counts from
    push_class   smallint NOT NULL DEFAULT 0,
    push_offset  bigint   NOT NULL DEFAULT 0,
    push_base    bigint   NOT NULL DEFAULT 0,
    PRIMARY KEY (room_nid, user_id)
);
CREATE INDEX member_user ON member (user_id, room_nid) WHERE local;

CREATE TABLE receipt (
    room_nid   bigint NOT NULL,
    user_id    text   NOT NULL,
    kind       text   NOT NULL,                   -- m.read, m.read.private
    thread     text   NOT NULL DEFAULT '',        -- '' unthreaded, 'main', or a root event id
    event_id   text   NOT NULL,
    event_ord  bigint NOT NULL DEFAULT 0,
    ts         bigint NOT NULL,
    pos        bigint NOT NULL,
    PRIMARY KEY (room_nid, user_id, kind, thread)
);
CREATE INDEX receipt_pos ON receipt (room_nid, pos);

CREATE TABLE alias (
    shard    smallint NOT NULL,
    alias    text NOT NULL,
    room_id  text NOT NULL,
    creator  text NOT NULL,
    pos      bigint NOT NULL,
    PRIMARY KEY (shard, alias)
);
CREATE INDEX alias_room ON alias (room_id);

-- Rooms that the public directory lists, by the room's shard.
CREATE TABLE published_room (
    room_nid  bigint PRIMARY KEY,
    room_id   text NOT NULL,
    pos       bigint NOT NULL
);

-- ---------------------------------------------------------------- people

CREATE TABLE account (
    shard          smallint NOT NULL,
    user_id        text     NOT NULL,
    password_hash  text     NOT NULL DEFAULT '',
    kind           smallint NOT NULL DEFAULT 0,   -- see accountdb.Kind: user, guest, appservice
    admin          boolean  NOT NULL DEFAULT false,
    locked         boolean  NOT NULL DEFAULT false,
    suspended      boolean  NOT NULL DEFAULT false,
    deactivated    boolean  NOT NULL DEFAULT false,
    erased         boolean  NOT NULL DEFAULT false,
    created        bigint   NOT NULL,             -- ms
    pos            bigint   NOT NULL,
    PRIMARY KEY (shard, user_id)
);

CREATE TABLE device (
    shard         smallint NOT NULL,
    user_id       text NOT NULL,
    device_id     text NOT NULL,
    display_name  text NOT NULL DEFAULT '',
    last_seen     bigint NOT NULL DEFAULT 0,      -- ms; written in batches
    last_seen_ip  text NOT NULL DEFAULT '',
    user_agent    text NOT NULL DEFAULT '',
    created       bigint NOT NULL,
    pos           bigint NOT NULL,
    PRIMARY KEY (shard, user_id, device_id)
);

-- A token is known by its SHA-256 only. It says its user's shard itself, so that one look-up in one shard finds it.
CREATE TABLE access_token (
    shard       smallint NOT NULL,
    hash        bytea NOT NULL,
    user_id     text  NOT NULL,
    device_id   text  NOT NULL,                   -- empty: a token without a device (admin, appservice)
    expires     bigint,                           -- ms; NULL: never
    created     bigint NOT NULL,
    pos         bigint NOT NULL,
    PRIMARY KEY (shard, hash)
);
CREATE INDEX access_token_user ON access_token (shard, user_id, device_id);

CREATE TABLE registration_token (
    shard       smallint NOT NULL,
    token       text NOT NULL,
    uses_allowed integer,                         -- NULL: no limit
    pending     integer NOT NULL DEFAULT 0,
    completed   integer NOT NULL DEFAULT 0,
    expires     bigint,                           -- ms; NULL: never
    PRIMARY KEY (shard, token)
);

CREATE TABLE profile (
    shard    smallint NOT NULL,
    user_id  text  NOT NULL,
    field    text  NOT NULL,
    value    bytea NOT NULL,                      -- JSON
    pos      bigint NOT NULL,
    PRIMARY KEY (shard, user_id, field)
);

CREATE TABLE account_data (
    shard    smallint NOT NULL,
    user_id  text NOT NULL,
    room_id  text NOT NULL DEFAULT '',            -- '' is global
    type     text NOT NULL,
    content  bytea NOT NULL,                      -- JSON
    pos      bigint NOT NULL,
    PRIMARY KEY (shard, user_id, room_id, type)
);
CREATE INDEX account_data_pos ON account_data (shard, user_id, pos);

CREATE TABLE filter (
    shard    smallint NOT NULL,
    user_id  text NOT NULL,
    filter_id text NOT NULL,
    json     bytea NOT NULL,
    PRIMARY KEY (shard, user_id, filter_id)
);

