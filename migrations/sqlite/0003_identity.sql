-- Which database this is: docs/sql.md. The row is made once and stays.
CREATE TABLE IF NOT EXISTS mika_identity (
    one INTEGER PRIMARY KEY NOT NULL CHECK (one = 1),
    id  TEXT    NOT NULL
);
INSERT OR IGNORE INTO mika_identity (one, id) VALUES (1, lower(hex(randomblob(16))));
