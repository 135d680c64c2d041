-- Must return every shard of the batch. The row lock keeps the epochs from changing until the transaction ends; FOR KEY SHARE
-- would let them change. The transaction's id is what its outcome can be asked by.
SELECT l.shard, pg_current_xact_id()::text
FROM shard_lease l
WHERE (l.shard, l.epoch) IN (SELECT unnest($1::smallint[]), unnest($2::bigint[]))
ORDER BY l.shard FOR SHARE OF l
