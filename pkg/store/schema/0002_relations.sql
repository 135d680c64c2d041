-- +goose Up

-- What the server makes of an event's relation to its parent (relates_to), for whoever asks for the parent: see
-- roomdb.Relation. 0: nothing.
ALTER TABLE event ADD COLUMN relation smallint NOT NULL DEFAULT 0;

UPDATE event e SET relation = CASE a.name WHEN 'm.replace' THEN 1 WHEN 'm.thread' THEN 2 WHEN 'm.reference' THEN 3 ELSE 4 END
FROM atom a, atom t
WHERE a.nid = e.rel_type AND t.nid = e.type AND a.name IN ('m.replace', 'm.thread', 'm.reference', 'm.annotation')
  AND (a.name <> 'm.replace' OR e.state_key IS NULL AND (t.name = 'm.room.encrypted' OR
       json_typeof(convert_from(e.json, 'UTF8')::json #> '{content,m.new_content}') = 'object'));

-- The children that are counted and listed, without a look at their rows.
CREATE INDEX event_child ON event (room_nid, relates_to, relation, ord) INCLUDE (sender, redacted_by, state_after)
    WHERE relation IN (1, 2, 3) AND ord IS NOT NULL;
-- The latest of an event's replacements.
CREATE INDEX event_replacement ON event (room_nid, relates_to, ts, event_id COLLATE "C") WHERE relation = 1 AND ord IS NOT NULL;
-- A user's annotations of an event.
CREATE INDEX event_annotation ON event (room_nid, relates_to, sender) WHERE relation = 4 AND ord IS NOT NULL;

-- Who takes part in a thread, and where in the room's order they last did. Events that were redacted do not count.
CREATE TABLE thread_part (
    room_nid  bigint NOT NULL,
    root      text   NOT NULL,                    -- event id
    sender    bigint NOT NULL,                    -- atom
    ord       bigint NOT NULL,
    PRIMARY KEY (room_nid, root, sender)
) WITH (fillfactor = 90);
CREATE INDEX thread_part_ord ON thread_part (room_nid, ord);

INSERT INTO thread_part (room_nid, root, sender, ord)
SELECT room_nid, relates_to, sender, max(ord) FROM event
WHERE relation = 2 AND ord IS NOT NULL AND redacted_by = 0
GROUP BY room_nid, relates_to, sender;
