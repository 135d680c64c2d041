-- How far every shard's log reaches, in one statement and so of one snapshot, with the incarnation as of it. Each shard costs
-- two look-ups by key, whatever the log's size.
SELECT GREATEST(coalesce((SELECT f.pos FROM log_floor f WHERE f.shard = g.s), 0),
                coalesce((SELECT l.pos FROM log l WHERE l.shard = g.s ORDER BY l.pos DESC LIMIT 1), 0)),
       coalesce((SELECT max(i.number) FROM incarnation i), 0)
FROM generate_series(0, $1::integer) AS g(s)
ORDER BY g.s
