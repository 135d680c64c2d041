-- name: Floors :many
SELECT shard, pos FROM log_floor;

-- A piece of one shard's log, with the events' JSON.
-- name: ReadEntries :many
SELECT l.pos, l.kind, l.room_nid, l.subject, l.event_nid, l.body, e.json
FROM log l LEFT JOIN event e ON e.nid = l.event_nid
WHERE l.shard = $1 AND l.pos > $2 AND l.pos <= $3
ORDER BY l.pos LIMIT $4;

-- name: ListIncarnations :many
SELECT number, system_identifier, database_oid, timeline, began FROM incarnation ORDER BY number;

-- name: LockIncarnations :exec
LOCK TABLE incarnation IN SHARE ROW EXCLUSIVE MODE;

-- name: InsertIncarnation :exec
INSERT INTO incarnation (number, system_identifier, database_oid, timeline, began) VALUES ($1, $2, $3, $4, $5);

-- name: LoadCursor :many
SELECT shard, pos FROM cursor WHERE consumer = $1;

-- name: Cursors :many
SELECT consumer, shard, pos FROM cursor ORDER BY consumer, shard;

-- name: LockFloors :exec
SELECT 1 FROM log_floor ORDER BY shard FOR SHARE;

-- A new consumer begins where the log does; and from then on the log is kept for it.
-- name: InitCursor :exec
INSERT INTO cursor (consumer, shard, pos)
SELECT @consumer::text, g.s::smallint, coalesce((SELECT f.pos FROM log_floor f WHERE f.shard = g.s), 0)
FROM (SELECT generate_series(0, @last_shard::integer) AS s) g
ON CONFLICT (consumer, shard) DO NOTHING;

-- name: FenceRole :many
SELECT slot FROM role_lease WHERE role = $1 AND slot = $2 AND epoch = $3 FOR SHARE;

-- name: SaveCursor :exec
UPDATE cursor SET pos = u.pos
FROM (SELECT unnest(@shard::smallint[]) AS shard, unnest(@pos::bigint[]) AS pos) u
WHERE cursor.consumer = @consumer AND cursor.shard = u.shard AND cursor.pos < u.pos;

-- name: DropCursor :exec
DELETE FROM cursor WHERE consumer = $1;

-- name: EnsureFloors :exec
INSERT INTO log_floor (shard) SELECT generate_series(0, @last_shard::integer)::smallint ON CONFLICT DO NOTHING;

-- name: LockFloor :one
SELECT pos FROM log_floor WHERE shard = $1 FOR UPDATE;

-- The place of the consumer that is furthest behind; NULL if there is none.
-- name: SlowestCursor :one
SELECT min(c.pos)::bigint AS pos FROM cursor c WHERE c.shard = $1 HAVING count(*) > 0;

-- The position up to which a bounded piece at the front of the log goes.
-- name: TrimPiece :one
SELECT coalesce(max(p.pos), 0)::bigint AS pos
FROM (SELECT l.pos FROM log l WHERE l.shard = $1 AND l.pos <= $2 ORDER BY l.pos LIMIT $3) p;

-- name: TrimLog :execrows
DELETE FROM log WHERE shard = $1 AND pos <= $2;

-- name: RaiseFloor :exec
UPDATE log_floor SET pos = $2 WHERE shard = $1 AND pos < $2;

-- name: SweepDone :execrows
DELETE FROM done WHERE ctid = ANY (ARRAY(
    SELECT d.ctid FROM done d WHERE d.at < now() - make_interval(secs => @age_seconds::float8) LIMIT @most::integer));

-- The keys that are new. A key that is missing from the answer had been there.
-- name: InsertDone :many
INSERT INTO done (shard, key, result)
SELECT unnest(@shard::smallint[]), unnest(@key::bytea[]), unnest(@result::bytea[])
ON CONFLICT (shard, key) DO NOTHING
RETURNING shard, key;

-- name: FindDone :many
SELECT d.shard, d.key, d.result FROM done d
JOIN (SELECT unnest(@shard::smallint[]) AS shard, unnest(@key::bytea[]) AS key) u ON u.shard = d.shard AND u.key = d.key;

-- name: InsertLog :exec
INSERT INTO log (shard, pos, epoch, kind, room_nid, subject, event_nid, body)
SELECT unnest(@shard::smallint[]), unnest(@pos::bigint[]), unnest(@epoch::bigint[]), unnest(@kind::smallint[]),
       unnest(@room_nid::bigint[]), unnest(@subject::text[]), unnest(@event_nid::bigint[]), unnest(@body::bytea[]);

-- name: HasEntry :one
SELECT EXISTS (SELECT 1 FROM log WHERE shard = $1 AND pos = $2 AND epoch = $3);
