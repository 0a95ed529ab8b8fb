-- So many facts and audit rows, one a second from a moment on.
WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < {most})
INSERT INTO facts(timestamp, statement, source, tags, confidence)
SELECT datetime({since} + id, 'unixepoch'),
  'HasPart(Computer' || abs(random() % 100000) || ', CPU).', 'simulator', 'simulated',
  abs(random() % 101) / 100.0
FROM n;

WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < {others})
INSERT INTO audit_log(timestamp, operation, details, user_id, session_id)
SELECT datetime({since} + id, 'unixepoch'), 'add_fact', 'HasPart(Computer1, CPU).',
  'user-1', 'session-1'
FROM n;
