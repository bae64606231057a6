-- Which database this is: docs/sql.md. The row is made once and stays.

CREATE TABLE IF NOT EXISTS mika_identity (
    one smallint NOT NULL PRIMARY KEY,
    id  text     COLLATE "C" NOT NULL
);

INSERT INTO mika_identity (one, id) VALUES (1, replace(gen_random_uuid()::text, '-', ''))
ON CONFLICT DO NOTHING;
