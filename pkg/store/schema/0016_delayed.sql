-- +goose Up

-- Events that are to be sent later. Times are in milliseconds since 1970.
CREATE TABLE delayed_event (
    delay_id      text PRIMARY KEY,
    user_id       text NOT NULL,
    device_id     text NOT NULL,
    -- By what a device asked, so that who asks again is answered the same. NULL: it did not say.
    txn           text,
    room_id       text NOT NULL,
    type          text NOT NULL,
    state_key     text, -- NULL: a message
    content       bytea NOT NULL,
    delay_ms      bigint NOT NULL,
    running_since bigint NOT NULL,
    due           bigint NOT NULL,
    -- 0 waits, 1 is being sent, 2 was sent, 3 was cancelled, 4 was refused by the room.
    status        smallint NOT NULL DEFAULT 0,
    -- When it came into its status, if that is not 0.
    changed       bigint NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX delayed_event_txn ON delayed_event (user_id, device_id, txn) WHERE txn IS NOT NULL;
CREATE INDEX delayed_event_due ON delayed_event (due) WHERE status = 0;
CREATE INDEX delayed_event_user ON delayed_event (user_id, due) WHERE status < 2;
CREATE INDEX delayed_event_changed ON delayed_event (changed) WHERE status > 0;
