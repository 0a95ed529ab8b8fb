-- So many queries and cache look-ups, one a second from a moment on.
-- Durations from 2 ms to 10 s, so that each bucket has rows, the short ones most.
WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < {most})
INSERT INTO query_times(timestamp, query_time, query_type, success)
SELECT datetime({since} + id, 'unixepoch'),
  0.002 / (0.0002 + abs(random() % 1000003) / 1000003.0),
  CASE abs(random() % 5) WHEN 0 THEN 'add_fact' WHEN 1 THEN 'consistency_check'
    WHEN 2 THEN 'get_system_status' WHEN 3 THEN 'health_check'
    ELSE 'search_knowledge' END,
  random() % 50 <> 0
FROM n;

WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < {others})
INSERT INTO cache_events(timestamp, hit, cache_key, response_time)
SELECT datetime({since} + id, 'unixepoch'), random() % 10 < 7, hex(randomblob(8)),
  0.0005 / (0.001 + abs(random() % 1000003) / 1000003.0)
FROM n;
