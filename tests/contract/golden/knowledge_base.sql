-- Each as often as its list is long.
WITH operations(operation, times) AS (VALUES
    ('add_fact', '[1]'),
    ('update_fact', '[1, 2]'),
    ('merge', '[1, 2, 3]'),
    ('split', '[1, 2, 3, 4]'),
    ('export', '[1, 2, 3, 4, 5]'),
    ('import', '[1, 2, 3, 4, 5, 6]'),
    ('sync', '[1, 2, 3, 4, 5, 6, 7]'))
INSERT INTO audit_log (timestamp, operation)
SELECT '2026-01-01 00:06:40', operation
FROM operations CROSS JOIN json_each(times);

-- Long statements, so that removing some frees pages. The last ten cannot count.
WITH facts_(confidence) AS (VALUES
    (0.0), (0.125), (0.25), (0.375), (0.5), (0.5625), (0.625), (0.75), (0.875), (1.0),
    (2.0), (NULL), (NULL), (NULL), ('low'), (-0.5), (-0.5),
    (9e999), (9e999), (9e999), (9e999))
INSERT INTO facts (timestamp, statement, confidence)
SELECT '2026-01-01 00:08:20',
    'HasProperty(Robot, ' || replace(hex(zeroblob(1000)), '00', 'Long') || ').', confidence
FROM facts_;
