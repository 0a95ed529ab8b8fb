-- All numbers differ, so that no mix-up is overlooked; times in 1/256 s add up exactly.
WITH queries(query_type, success, times) AS (VALUES
    ('add_fact', 1, '[6, 8]'),
    ('add_fact', 0, '[20]'),
    ('consistency_check', 1, '[40, 60, 77, 300, 3000]'),
    ('get_system_status', 1, '[3, 4, 5, 7]'),
    ('health_check', 1, '[1, 2, 2]'),
    ('health_check', 0, '[900, 900, 900, 901, 901, 902, 903]'),
    ('search_knowledge', 1, '[13, 15, 16, 25, 26, 30, 35, 90, 100, 110, 120]'),
    ('search_knowledge', 0, '[256, 640, 641, 650, 1280, 1281, 1282, 1283, 1284]'),
    ('plan_route', 1, '[50, 51, 52, 53, 54, 55]'),
    (NULL, 0, '[70, 71, 72, 73, 74, 75, 76, 78]'),
    ('too_many', 1, '[10, 11, 12, 14, 17, 18, 19, 21, 22, 23]'))
INSERT INTO query_times (timestamp, query_type, success, query_time)
SELECT '2026-01-01 00:00:00', query_type, success, value / 256.0
FROM queries CROSS JOIN json_each(times);

-- What cannot count, each as often as its list is long.
WITH queries(query_time, success, times) AS (VALUES
    (0.05, NULL, '[1, 2]'),
    ('slow', 1, '[1, 2, 3]'),
    (-0.25, 1, '[1, 2, 3, 4]'),
    (9e999, 1, '[1, 2, 3, 4, 5]'),
    (0.05, 'yes', '[1, 2, 3, 4, 5, 6]'))
INSERT INTO query_times (timestamp, query_type, success, query_time)
SELECT '2026-01-01 00:01:40', 'search_knowledge', success, query_time
FROM queries CROSS JOIN json_each(times);

-- In 1/1024 s; null for a look-up without a time.
WITH lookups(hit, times) AS (VALUES
    (1, '[0.25, 0.5, 0.75, 1, 1, 2, 2, 3, 4, 5, 6, null, null]'),
    (0, '[5, 10, 11, 30, 31, 60, 61, null, 70, 200, 300, 2000, 3000, null, null, 7, 9]'))
INSERT INTO cache_events (timestamp, hit, response_time)
SELECT '2026-01-01 00:03:20', hit, value / 1024.0
FROM lookups CROSS JOIN json_each(times);

WITH lookups(hit, response_time, times) AS (VALUES
    ('no', 0.002, '[1]'),
    (1, '?', '[1, 2, 3, 4, 5, 6, 7]'),
    (1, -1, '[1, 2, 3, 4, 5, 6, 7, 8]'),
    (1, 9e999, '[1, 2, 3, 4, 5, 6, 7, 8, 9]'))
INSERT INTO cache_events (timestamp, hit, response_time)
SELECT '2026-01-01 00:05:00', hit, response_time
FROM lookups CROSS JOIN json_each(times);
