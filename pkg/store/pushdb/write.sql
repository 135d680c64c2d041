-- The multi-row writers. Each array holds one column; the arrays of a statement have the same length.

-- name: InsertTallies :exec
INSERT INTO push_tally (room_nid, thread, ord, flags, all_notify, all_highlight, some_notify, some_highlight)
SELECT unnest(@room_nid::bigint[]), unnest(@thread::text[]), unnest(@ord::bigint[]), unnest(@flags::smallint[]),
       unnest(@all_notify::bigint[]), unnest(@all_highlight::bigint[]), unnest(@some_notify::bigint[]),
       unnest(@some_highlight::bigint[]);

-- name: UpsertThreads :exec
INSERT INTO push_thread (room_nid, thread, ord)
SELECT unnest(@room_nid::bigint[]), unnest(@thread::text[]), unnest(@ord::bigint[])
ON CONFLICT (room_nid, thread) DO UPDATE SET ord = greatest(push_thread.ord, excluded.ord);

-- name: InsertExceptions :exec
INSERT INTO push_exception (room_nid, user_id, ord, thread, notify, highlight)
SELECT unnest(@room_nid::bigint[]), unnest(@user_id::text[]), unnest(@ord::bigint[]), unnest(@thread::text[]),
       unnest(@notify::smallint[]), unnest(@highlight::smallint[]);

-- name: InsertCorrections :exec
INSERT INTO push_correction (room_nid, ord, thread, flags, pos)
SELECT unnest(@room_nid::bigint[]), unnest(@ord::bigint[]), unnest(@thread::text[]), unnest(@flags::smallint[]),
       unnest(@pos::bigint[])
ON CONFLICT (room_nid, ord) DO NOTHING;

-- name: InsertClasses :exec
INSERT INTO push_class (room_nid, user_id, ord, class)
SELECT unnest(@room_nid::bigint[]), unnest(@user_id::text[]), unnest(@ord::bigint[]), unnest(@class::smallint[])
ON CONFLICT (room_nid, user_id, ord) DO UPDATE SET class = excluded.class;

-- name: UpsertSent :exec
INSERT INTO push_sent (room_nid, user_id, thread, ord)
SELECT unnest(@room_nid::bigint[]), unnest(@user_id::text[]), unnest(@thread::text[]), unnest(@ord::bigint[])
ON CONFLICT (room_nid, user_id, thread) DO UPDATE SET ord = greatest(push_sent.ord, excluded.ord);
