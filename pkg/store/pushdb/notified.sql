-- name: LatestTallies :many
-- Of each stretch of a thread the latest events that notify by its bits of the flags, but those that are taken back, are nothing to this
-- user, or were sent by the user, who has then no exception. No more than scan are looked at in a stretch.
SELECT s.i::integer AS i, x.ord, x.flags
FROM (SELECT unnest(@i::integer[]) AS i, unnest(@rooms::bigint[]) AS room_nid, unnest(@threads::text[]) AS thread,
             unnest(@above::bigint[]) AS above, unnest(@upto::bigint[]) AS upto) s
CROSS JOIN LATERAL (
    SELECT t.room_nid, t.ord, t.flags FROM (
        SELECT y.room_nid, y.ord, y.flags FROM push_tally y
        WHERE y.room_nid = s.room_nid AND y.thread = s.thread AND y.ord > s.above AND y.ord <= s.upto
        ORDER BY y.ord DESC LIMIT @scan) t
    WHERE t.flags & @bits::smallint <> 0
      AND NOT EXISTS (SELECT FROM push_exception n WHERE n.room_nid = t.room_nid AND n.user_id = @user_id AND n.ord = t.ord AND n.notify < 0)
      AND NOT EXISTS (SELECT FROM push_correction c WHERE c.room_nid = t.room_nid AND c.ord = t.ord)
      AND NOT EXISTS (SELECT FROM event v WHERE v.room_nid = t.room_nid AND v.ord = t.ord AND v.sender = (
          SELECT a.nid FROM atom a WHERE a.shard = (t.room_nid & 255)::smallint AND a.name = @user_id))
    ORDER BY t.ord DESC LIMIT @count
) x;

-- name: LatestLoudTallies :many
-- The same of events that stand above messages.
SELECT s.i::integer AS i, x.ord, x.flags
FROM (SELECT unnest(@i::integer[]) AS i, unnest(@rooms::bigint[]) AS room_nid, unnest(@threads::text[]) AS thread,
             unnest(@above::bigint[]) AS above, unnest(@upto::bigint[]) AS upto) s
CROSS JOIN LATERAL (
    SELECT t.room_nid, t.ord, t.flags FROM (
        SELECT y.room_nid, y.ord, y.flags FROM push_tally y
        WHERE y.room_nid = s.room_nid AND y.thread = s.thread AND y.ord > s.above AND y.ord <= s.upto AND y.flags <> 1
        ORDER BY y.ord DESC LIMIT @scan) t
    WHERE t.flags & @bits::smallint <> 0
      AND NOT EXISTS (SELECT FROM push_exception n WHERE n.room_nid = t.room_nid AND n.user_id = @user_id AND n.ord = t.ord AND n.notify < 0)
      AND NOT EXISTS (SELECT FROM push_correction c WHERE c.room_nid = t.room_nid AND c.ord = t.ord)
      AND NOT EXISTS (SELECT FROM event v WHERE v.room_nid = t.room_nid AND v.ord = t.ord AND v.sender = (
          SELECT a.nid FROM atom a WHERE a.shard = (t.room_nid & 255)::smallint AND a.name = @user_id))
    ORDER BY t.ord DESC LIMIT @count
) x;

-- name: LatestExceptions :many
-- Of each room the latest events that are more to a user than to the user's class, but those that are taken back.
SELECT s.i::integer AS i, x.thread, x.ord, x.notify, x.highlight
FROM (SELECT unnest(@i::integer[]) AS i, unnest(@rooms::bigint[]) AS room_nid, unnest(@above::bigint[]) AS above,
             unnest(@upto::bigint[]) AS upto) s
CROSS JOIN LATERAL (
    SELECT e.thread, e.ord, e.notify, e.highlight FROM push_exception e
    WHERE e.room_nid = s.room_nid AND e.user_id = @user_id AND e.ord > s.above AND e.ord <= s.upto
      AND (e.highlight > 0 OR e.notify > 0 AND NOT @loud::boolean)
      AND NOT EXISTS (SELECT FROM push_correction c WHERE c.room_nid = e.room_nid AND c.ord = e.ord)
    ORDER BY e.ord DESC LIMIT @count
) x;

-- name: ListEventsAt :many
-- Events at places of rooms, with when they were sent.
SELECT e.room_nid, p.ord::bigint AS ord, e.nid, e.ts
FROM (SELECT unnest(@rooms::bigint[]) AS room_nid, unnest(@places::bigint[]) AS ord) p
JOIN event e ON e.room_nid = p.room_nid AND e.ord = p.ord;

-- name: ListHearers :many
-- The users of this server who are joined to rooms, since when, and their class before a place of the room.
SELECT m.room_nid, m.user_id, m.pos, coalesce((
    SELECT c.class FROM push_class c WHERE c.room_nid = m.room_nid AND c.user_id = m.user_id AND c.ord < r.ord
    ORDER BY c.ord DESC LIMIT 1), 0)::smallint AS class
FROM (SELECT unnest(@rooms::bigint[]) AS room_nid, unnest(@places::bigint[]) AS ord) r
JOIN member m ON m.room_nid = r.room_nid AND m.local AND m.membership = 4;

-- name: ListPlaces :many
-- The rooms that a user is joined to, and since when; of some rooms, or of all if none are given.
SELECT room_nid, pos FROM member
WHERE user_id = @user_id AND local AND membership = 4 AND (@every::boolean OR room_nid = ANY(@rooms::bigint[]));

-- name: ListOwed :many
SELECT shard, user_id, app_id, pushkey, since, above FROM push_owed;

-- name: SetOwed :exec
INSERT INTO push_owed (shard, user_id, app_id, pushkey, since, above) VALUES (@shard, @user_id, @app_id, @pushkey, @since, @above)
ON CONFLICT (shard, user_id, app_id, pushkey) DO UPDATE SET since = excluded.since, above = excluded.above;

-- name: DropOwed :exec
DELETE FROM push_owed o
USING (SELECT unnest(@shards::smallint[]) AS shard, unnest(@users::text[]) AS user_id, unnest(@apps::text[]) AS app_id,
              unnest(@keys::text[]) AS pushkey) k
WHERE o.shard = k.shard AND o.user_id = k.user_id AND o.app_id = k.app_id AND o.pushkey = k.pushkey;

-- name: FenceRole :many
SELECT slot FROM role_lease WHERE role = $1 AND slot = $2 AND epoch = $3 FOR SHARE;
