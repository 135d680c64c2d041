-- name: ListAudience :many
-- The users of this server who are joined to a room.
SELECT user_id FROM member WHERE room_nid = $1 AND local AND membership = 4;

-- name: CountJoined :one
SELECT count(*) FROM member WHERE room_nid = $1 AND membership = 4;

-- name: ListClasses :many
-- The users whose class was ever set, with the latest.
SELECT DISTINCT ON (user_id) user_id, class FROM push_class WHERE room_nid = $1 ORDER BY user_id, ord DESC;

-- name: LastTally :one
SELECT all_notify, all_highlight, some_notify, some_highlight FROM push_tally
WHERE room_nid = $1 AND thread = $2 ORDER BY ord DESC LIMIT 1;

-- name: GetTallyAt :one
SELECT flags FROM push_tally WHERE room_nid = $1 AND thread = $2 AND ord = $3;

-- name: ListExceptionsAt :many
SELECT user_id, thread, notify, highlight FROM push_exception WHERE room_nid = $1 AND ord = $2;

-- name: IsCorrected :one
SELECT EXISTS (SELECT FROM push_correction WHERE room_nid = $1 AND ord = $2);

-- name: ListRead :many
-- How far a user has read in rooms: by receipts, and by what was said.
SELECT r.room_nid, r.thread, r.event_ord FROM receipt r WHERE r.room_nid = ANY(@rooms::bigint[]) AND r.user_id = @reader::text
    AND r.kind IN ('m.read', 'm.read.private')
UNION ALL
SELECT s.room_nid, CASE s.thread WHEN '' THEN 'main' ELSE s.thread END, s.ord FROM push_sent s
WHERE s.room_nid = ANY(@rooms::bigint[]) AND s.user_id = @reader::text;

-- name: ListClassesOf :many
SELECT room_nid, ord, class FROM push_class WHERE room_nid = ANY(@rooms::bigint[]) AND user_id = @user_id ORDER BY room_nid, ord;

-- name: ListExceptions :many
SELECT x.room_nid, x.ord, x.thread, x.notify, x.highlight
FROM (SELECT unnest(@rooms::bigint[]) AS room_nid, unnest(@above::bigint[]) AS above, unnest(@upto::bigint[]) AS upto) r
JOIN push_exception x ON x.room_nid = r.room_nid AND x.user_id = @user_id AND x.ord > r.above AND x.ord <= r.upto;

-- name: ListCorrections :many
SELECT x.room_nid, x.ord, x.thread, x.flags
FROM (SELECT unnest(@rooms::bigint[]) AS room_nid, unnest(@above::bigint[]) AS above, unnest(@upto::bigint[]) AS upto) r
JOIN push_correction x ON x.room_nid = r.room_nid AND x.ord > r.above AND x.ord <= r.upto AND x.pos <= r.upto;

-- name: ListThreads :many
-- The threads of rooms in which something happened after a place, the latest first, no more than count of each.
SELECT x.room_nid, x.thread
FROM (SELECT unnest(@rooms::bigint[]) AS room_nid, unnest(@above::bigint[]) AS above) r
CROSS JOIN LATERAL (
    SELECT t.room_nid, t.thread FROM push_thread t WHERE t.room_nid = r.room_nid AND t.ord > r.above ORDER BY t.ord DESC LIMIT @count
) x;

-- name: ListTallies :many
-- The running counts of threads at places.
SELECT p.i::integer AS i, x.all_notify, x.all_highlight, x.some_notify, x.some_highlight
FROM (SELECT unnest(@i::integer[]) AS i, unnest(@rooms::bigint[]) AS room_nid, unnest(@threads::text[]) AS thread,
             unnest(@places::bigint[]) AS ord) p
CROSS JOIN LATERAL (
    SELECT t.all_notify, t.all_highlight, t.some_notify, t.some_highlight FROM push_tally t
    WHERE t.room_nid = p.room_nid AND t.thread = p.thread AND t.ord <= p.ord ORDER BY t.ord DESC LIMIT 1
) x;
