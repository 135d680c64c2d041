-- +goose Up

-- The addresses of a user: what the server writes letters to, and what can be used to log in. An address is looked up without its user's shard,
-- by an index of its own; that no two users have the same is the service's doing (proof, kind 2).
CREATE TABLE threepid (
    shard        smallint NOT NULL,
    user_id      text   NOT NULL,
    medium       text   NOT NULL,
    address      text   NOT NULL,
    validated_at bigint NOT NULL,                 -- ms
    added_at     bigint NOT NULL,                 -- ms
    PRIMARY KEY (shard, user_id, medium, address)
);
CREATE INDEX threepid_address ON threepid (medium, address);

-- At which identity servers this server has bound an address to a user, so that it can be unbound.
CREATE TABLE threepid_bind (
    shard     smallint NOT NULL,
    user_id   text NOT NULL,
    medium    text NOT NULL,
    address   text NOT NULL,
    id_server text NOT NULL,
    PRIMARY KEY (shard, user_id, medium, address, id_server)
);

-- As whom outside providers know a user who logs in there.
CREATE TABLE external_login (
    shard    smallint NOT NULL,
    user_id  text   NOT NULL,
    provider text   NOT NULL,
    subject  text   NOT NULL,
    created  bigint NOT NULL,                     -- ms
    PRIMARY KEY (shard, user_id, provider, subject)
);
CREATE INDEX external_login_subject ON external_login (provider, subject);

-- Which versions of the server's policies a user agreed to.
CREATE TABLE consent (
    shard   smallint NOT NULL,
    user_id text   NOT NULL,
    policy  text   NOT NULL,
    version text   NOT NULL,
    at      bigint NOT NULL,                      -- ms
    PRIMARY KEY (shard, user_id, policy, version)
);

-- What somebody has proven, or is about to prove, and what is forgotten after a while: that letters to an address are read (1), that an address
-- is being given to a user (2), that a stage of an authentication was passed on a page (3). hash is of what only the one concerned knows.
CREATE TABLE proof (
    shard   smallint NOT NULL,
    hash    bytea    NOT NULL,
    kind    smallint NOT NULL,
    body    bytea    NOT NULL,                    -- JSON
    expires bigint   NOT NULL,                    -- ms
    PRIMARY KEY (shard, hash)
);
CREATE INDEX proof_expires ON proof (shard, expires);
