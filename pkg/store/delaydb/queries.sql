-- name: Schedule :execrows
-- A user who has most of them waiting gets no more. Who asks again gets none either: that one is read by ByTxn.
INSERT INTO delayed_event (delay_id, user_id, device_id, txn, room_id, type, state_key, content, delay_ms, running_since, due)
SELECT @delay_id, @user_id, @device_id, nullif(@txn::text, ''), @room_id, @type, CASE WHEN @is_state::bool THEN @state_key::text END,
       @content, @delay_ms, @since::bigint, @due::bigint
WHERE @most::bigint > (SELECT count(*) FROM delayed_event WHERE user_id = @user_id AND status < 2)
ON CONFLICT DO NOTHING;

-- name: ByTxn :one
SELECT delay_id FROM delayed_event WHERE user_id = @user_id AND device_id = @device_id AND txn = @txn::text;

-- name: Waiting :many
SELECT delay_id, user_id, device_id, txn, room_id, type, state_key, content, delay_ms, running_since, due, status, changed FROM delayed_event WHERE user_id = @user_id AND status < 2 ORDER BY due, delay_id;

-- name: NextDue :one
SELECT coalesce(min(due), @never::bigint)::bigint FROM delayed_event WHERE status = 0;

-- name: Claim :many
-- Those that are due, and those that somebody was to send long ago.
UPDATE delayed_event SET status = 1, changed = @now::bigint
WHERE delay_id IN (
    SELECT d.delay_id FROM delayed_event d
    WHERE (d.status = 0 AND d.due <= @now::bigint) OR (d.status = 1 AND d.changed > 0 AND d.changed < @stale::bigint)
    ORDER BY d.due LIMIT @most::int FOR UPDATE SKIP LOCKED)
RETURNING delay_id, user_id, device_id, txn, room_id, type, state_key, content, delay_ms, running_since, due, status, changed;

-- name: ClaimOne :one
UPDATE delayed_event SET status = 1, changed = @now::bigint WHERE delay_id = @delay_id AND status = 0 RETURNING delay_id, user_id, device_id, txn, room_id, type, state_key, content, delay_ms, running_since, due, status, changed;

-- name: Restart :execrows
UPDATE delayed_event SET running_since = @since::bigint, due = delay_ms + @since::bigint WHERE delay_id = @delay_id AND status = 0;

-- name: Cancel :execrows
UPDATE delayed_event SET status = 3, changed = @now::bigint WHERE delay_id = @delay_id AND status = 0;

-- name: Settle :exec
UPDATE delayed_event SET status = @status, changed = @now::bigint WHERE delay_id = @delay_id AND status = 1;

-- name: Status :one
SELECT status FROM delayed_event WHERE delay_id = @delay_id;

-- name: Sweep :execrows
DELETE FROM delayed_event WHERE delay_id IN (
    SELECT d.delay_id FROM delayed_event d WHERE d.status > 1 AND d.changed > 0 AND d.changed < @before::bigint LIMIT @most::int);
