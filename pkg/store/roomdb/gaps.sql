-- Where events are missing.

-- name: UpsertGaps :exec
INSERT INTO event_gap (room_nid, ord, floor, edge)
SELECT unnest(@room_nid::bigint[]), unnest(@ord::bigint[]), unnest(@floor::bigint[]), unnest(@edge::bytea[])
ON CONFLICT (room_nid, ord) DO UPDATE SET floor = excluded.floor, edge = excluded.edge;

-- name: DeleteGaps :exec
DELETE FROM event_gap g
USING (SELECT unnest(@room_nid::bigint[]) AS room_nid, unnest(@ord::bigint[]) AS ord) u
WHERE g.room_nid = u.room_nid AND g.ord = u.ord;

-- name: ListGaps :many
SELECT ord, floor, edge FROM event_gap
WHERE room_nid = @room_nid AND ord <= @upto::bigint AND ord > @above::bigint
ORDER BY ord DESC LIMIT @count;
