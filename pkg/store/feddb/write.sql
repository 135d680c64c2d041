-- The statements of the shard's writer.

-- name: DeleteStaged :exec
DELETE FROM staged_pdu USING (SELECT unnest(@shards::smallint[]) AS shard, unnest(@seqs::bigint[]) AS seq) AS k
WHERE staged_pdu.shard = k.shard AND staged_pdu.seq = k.seq;

-- name: UpsertStripped :exec
INSERT INTO stripped_state (room_nid, user_id, events)
SELECT unnest(@rooms::bigint[]), unnest(@users::text[]), unnest(@events::bytea[])
ON CONFLICT (room_nid, user_id) DO UPDATE SET events = excluded.events;

-- name: DeleteStripped :exec
DELETE FROM stripped_state USING (SELECT unnest(@rooms::bigint[]) AS room_nid, unnest(@users::text[]) AS user_id) AS k
WHERE stripped_state.room_nid = k.room_nid AND stripped_state.user_id = k.user_id;

-- name: InsertEDUs :exec
INSERT INTO fed_edu (shard, destination, type, content)
SELECT unnest(@shards::smallint[]), unnest(@destinations::text[]), unnest(@types::text[]), unnest(@contents::bytea[]);
