-- +goose Up

-- Counting of unread notifications (docs/adr/0013-push-tallies.md). What an event comes to is counted for classes of users, and for
-- whom it comes to something else there is a row: so a message takes as many rows in a room of 10,000 as in one of two.

-- The running counts of a thread, at each event that counts for a class.
CREATE TABLE push_tally (
    room_nid        bigint   NOT NULL,
    thread          text     NOT NULL,            -- id of the root; '' is the main timeline
    ord             bigint   NOT NULL,
    flags           smallint NOT NULL,            -- what the event itself counts for, see pushdb.Flags
    all_notify      bigint   NOT NULL,
    all_highlight   bigint   NOT NULL,
    some_notify     bigint   NOT NULL,
    some_highlight  bigint   NOT NULL,
    PRIMARY KEY (room_nid, thread, ord)
);

-- The last event of each thread that counts for anybody, to find the threads in which something happened.
CREATE TABLE push_thread (
    room_nid  bigint NOT NULL,
    thread    text   NOT NULL,
    ord       bigint NOT NULL,
    PRIMARY KEY (room_nid, thread)
) WITH (fillfactor = 90);
CREATE INDEX push_thread_ord ON push_thread (room_nid, ord);

-- What an event counts for a user beyond what it counts for the user's class.
CREATE TABLE push_exception (
    room_nid   bigint   NOT NULL,
    user_id    text     NOT NULL,
    ord        bigint   NOT NULL,
    thread     text     NOT NULL,
    notify     smallint NOT NULL,
    highlight  smallint NOT NULL,
    PRIMARY KEY (room_nid, user_id, ord)
);
CREATE INDEX push_exception_ord ON push_exception (room_nid, ord);

-- Events that do not count any more, and since when: their exceptions do not either.
CREATE TABLE push_correction (
    room_nid  bigint   NOT NULL,
    ord       bigint   NOT NULL,
    thread    text     NOT NULL,
    flags     smallint NOT NULL,
    pos       bigint   NOT NULL,
    PRIMARY KEY (room_nid, ord)
);

-- From which event on a user is of another class; before the first row, of class 0.
CREATE TABLE push_class (
    room_nid  bigint   NOT NULL,
    user_id   text     NOT NULL,
    ord       bigint   NOT NULL,
    class     smallint NOT NULL,
    PRIMARY KEY (room_nid, user_id, ord)
);

-- Where a user has last said something, which is as good as a receipt.
CREATE TABLE push_sent (
    room_nid  bigint NOT NULL,
    user_id   text   NOT NULL,
    thread    text   NOT NULL,
    ord       bigint NOT NULL,
    PRIMARY KEY (room_nid, user_id, thread)
) WITH (fillfactor = 80);
