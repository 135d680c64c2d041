-- name: UpsertKeys :exec
INSERT INTO server_key (server, key_id, key, valid_until, expired, got, document)
SELECT @server::text, k.key_id, k.key, k.valid_until, k.expired, @got::bigint, @document::bytea
FROM (SELECT unnest(@key_ids::text[]) AS key_id, unnest(@keys::bytea[]) AS key, unnest(@valid_untils::bigint[]) AS valid_until,
             unnest(@expired::bigint[]) AS expired) AS k
ON CONFLICT (server, key_id) DO UPDATE SET key = excluded.key, valid_until = excluded.valid_until, expired = excluded.expired,
    got = excluded.got, document = excluded.document
WHERE server_key.got <= excluded.got;

-- name: KeysOf :many
SELECT server, key_id, key, valid_until, expired, got, document FROM server_key WHERE server = ANY(@servers::text[]);

-- name: InsertTxn :execrows
INSERT INTO fed_txn (shard, origin, txn_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING;

-- name: TxnTaken :one
SELECT EXISTS (SELECT FROM fed_txn WHERE shard = $1 AND origin = $2 AND txn_id = $3);

-- name: SweepTxns :execrows
DELETE FROM fed_txn WHERE ctid = ANY (ARRAY(
    SELECT t.ctid FROM fed_txn t WHERE t.at < now() - make_interval(secs => @age_seconds::float8) LIMIT @most::integer));

-- name: StagePDUs :exec
INSERT INTO staged_pdu (shard, room_id, event_id, origin, json)
SELECT unnest(@shards::smallint[]), unnest(@room_ids::text[]), unnest(@event_ids::text[]), @origin::text, unnest(@jsons::bytea[])
ON CONFLICT (shard, room_id, event_id) DO NOTHING;

-- name: StageEDUs :exec
INSERT INTO staged_edu (shard, origin, type, content)
SELECT @shard::smallint, @origin::text, unnest(@types::text[]), unnest(@contents::bytea[]);

-- name: DueRooms :many
SELECT room_id, min(seq)::bigint AS first FROM staged_pdu
WHERE shard = $1 AND due <= now() GROUP BY room_id ORDER BY first LIMIT $2;

-- name: StagedOfRoom :many
-- Those that wait are few beside those that are due, whoever sent how many of them: they may be waiting for one that is due. Those that failed
-- before come after the others.
SELECT s.seq, s.room_id, s.event_id, s.origin, s.json, s.tries, (s.due <= now())::bool AS ready FROM staged_pdu AS s
WHERE s.shard = @shard::smallint AND s.seq IN (
    (SELECT d.seq FROM staged_pdu AS d WHERE d.shard = @shard::smallint AND d.room_id = @room_id::text AND d.due <= now()
     ORDER BY d.tries, d.seq LIMIT @most::integer)
    UNION ALL
    (SELECT w.seq FROM staged_pdu AS w WHERE w.shard = @shard::smallint AND w.room_id = @room_id::text AND w.due > now()
     ORDER BY w.due, w.seq LIMIT @most::integer))
ORDER BY s.seq;

-- name: CountStaged :one
SELECT count(*) FROM staged_pdu;

-- name: PostponeStaged :exec
UPDATE staged_pdu SET tries = tries + 1, error = @error, due = now() + make_interval(secs => @seconds::float8)
WHERE shard = @shard AND seq = ANY(@seqs::bigint[]);

-- name: ParkStaged :exec
UPDATE staged_pdu SET due = now() + make_interval(secs => @seconds::float8) WHERE shard = @shard AND seq = ANY(@seqs::bigint[]);

-- name: CountWaiting :one
SELECT count(*) FROM staged_pdu WHERE shard = @shard AND room_id = @room_id AND origin = @origin AND tries > 0;

-- name: DropStaged :exec
DELETE FROM staged_pdu WHERE shard = @shard AND seq = ANY(@seqs::bigint[]);

-- name: ListStagedEDUs :many
SELECT seq, origin, type, content FROM staged_edu WHERE shard = $1 ORDER BY seq LIMIT $2;

-- name: DropStagedEDUs :exec
DELETE FROM staged_edu WHERE shard = @shard AND seq = ANY(@seqs::bigint[]);

-- name: InsertSet :exec
INSERT INTO staged_set (set_id) VALUES ($1);

-- name: StageEvents :exec
INSERT INTO staged_event (set_id, seq, state, event_id, json)
SELECT @set_id::bytea, unnest(@seqs::int[]), unnest(@states::bool[]), unnest(@event_ids::text[]), unnest(@jsons::bytea[]);

-- name: ListStagedEvents :many
-- The numbers of a set have no holes. With a limit in place of the upper bound all of the rest may be sorted for each piece.
SELECT state, event_id, json FROM staged_event WHERE set_id = @set_id AND seq >= @first::integer AND seq < @below::integer ORDER BY seq;

-- name: StateOfSet :many
SELECT event_id FROM staged_event WHERE set_id = @set_id AND state ORDER BY seq;

-- name: DropSet :exec
WITH e AS (DELETE FROM staged_event WHERE set_id = ANY(@set_ids::bytea[]))
DELETE FROM staged_set WHERE set_id = ANY(@set_ids::bytea[]);

-- name: SweepSets :one
WITH s AS (
    DELETE FROM staged_set WHERE set_id = ANY (ARRAY(
        SELECT o.set_id FROM staged_set o WHERE o.at < now() - make_interval(secs => @age_seconds::float8) LIMIT @most::integer))
    RETURNING set_id
), e AS (DELETE FROM staged_event USING s WHERE staged_event.set_id = s.set_id)
SELECT count(*) FROM s;

-- name: HostsOf :many
SELECT DISTINCT substr(user_id, strpos(user_id, ':') + 1)::text AS host FROM member
WHERE room_nid = $1 AND membership = 4 AND NOT local;

-- name: HostInRoom :one
SELECT EXISTS (SELECT FROM member WHERE substr(user_id, strpos(user_id, ':') + 1) = @host::text AND room_nid = @room_nid
    AND NOT local AND membership = 4);

-- name: HostInRooms :many
-- Which of rooms a server is in.
SELECT DISTINCT room_nid FROM member WHERE substr(user_id, strpos(user_id, ':') + 1) = @host::text AND room_nid = ANY(@room_nids::bigint[])
    AND NOT local AND membership = 4;

-- name: EventAtOrAfter :one
SELECT event_id, ts FROM event WHERE room_nid = $1 AND ord IS NOT NULL AND flags & 7 = 0 AND ts >= @at::bigint ORDER BY ts, ord LIMIT 1;

-- name: EventAtOrBefore :one
SELECT event_id, ts FROM event WHERE room_nid = $1 AND ord IS NOT NULL AND flags & 7 = 0 AND ts <= @at::bigint ORDER BY ts DESC, ord DESC LIMIT 1;

-- name: KnownEvents :many
-- One look-up for each, as in roomdb's EventsByID.
SELECT e.event_id FROM (SELECT DISTINCT unnest(@event_ids::text[]) AS event_id) n
CROSS JOIN LATERAL (SELECT v.event_id FROM event v WHERE v.room_nid = @room_nid AND v.event_id = n.event_id LIMIT 1) e;
