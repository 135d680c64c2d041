-- What readers of a room's history ask.

-- name: ListMemberEvents :many
-- A user's latest member events in a room, the latest first.
SELECT e.ord, e.json FROM event e
JOIN atom t ON t.shard = @shard::smallint AND t.name = 'm.room.member' AND t.nid = e.type
JOIN atom k ON k.shard = @shard::smallint AND k.name = @user_id::text AND k.nid = e.state_key
WHERE e.room_nid = @room_nid AND e.ord IS NOT NULL AND e.ord < @below::bigint
ORDER BY e.ord DESC LIMIT @count;

-- name: EventsFromTime :many
-- The events of a room from a moment on, those of the same moment in the order of the room.
SELECT nid, room_nid, ord, event_id, type, state_key, sender, depth, ts, flags, state_before, state_after, extremities, prev,
       auth, replaces, redacted_by, relates_to, rel_type, sender_device, txn_id, counts, json, relation
FROM event WHERE room_nid = @room_nid AND ord IS NOT NULL AND (ts, ord) > (@ts::bigint, @ord::bigint)
ORDER BY ts, ord LIMIT @count;

-- name: EventsUntilTime :many
-- The events of a room up to a moment, the latest first.
SELECT nid, room_nid, ord, event_id, type, state_key, sender, depth, ts, flags, state_before, state_after, extremities, prev,
       auth, replaces, redacted_by, relates_to, rel_type, sender_device, txn_id, counts, json, relation
FROM event WHERE room_nid = @room_nid AND ord IS NOT NULL AND (ts, ord) < (@ts::bigint, @ord::bigint)
ORDER BY ts DESC, ord DESC LIMIT @count;
