-- The standbys that are connected. Who may not look at the statistics of others (pg_monitor may) sees that there are some, and
-- nothing of them.
SELECT coalesce(application_name, ''), coalesce(state, ''), coalesce(sync_state, ''),
       coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn), 0)::bigint
FROM pg_stat_replication ORDER BY application_name, pid
