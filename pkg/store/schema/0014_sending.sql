-- +goose Up

-- The sender's slot that a destination belongs to, and since when it has been behind.
ALTER TABLE fed_behind ADD COLUMN slot smallint NOT NULL DEFAULT 0;
ALTER TABLE fed_behind ADD COLUMN since timestamptz NOT NULL DEFAULT now();
CREATE INDEX fed_behind_slot ON fed_behind (slot);

-- Users of other servers who are in a room no more: their server may still be owed the event by which they went.
CREATE INDEX member_departed ON member (substr(user_id, strpos(user_id, ':') + 1), pos) WHERE NOT local AND membership <> 4;

-- EDUs are read and deleted by the slot of their destination, which is its shard.
DROP INDEX fed_edu_destination;
