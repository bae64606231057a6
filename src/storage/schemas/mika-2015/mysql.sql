-- Schema mika-2015 for MySQL and MariaDB: a site that has users(id, passkey, username),
-- torrents(id, info_hash, release_name) and xbt_client_whitelist(peer_id, vstring), and nothing else
-- of Mika's. What else belongs to a user or torrent is in mika_users and mika_torrents of
-- migrations/mysql/mika-2015, where a row that is missing means the defaults. See docs/sql.md.

-- name: users
-- A page of users, by id. :after is the last id of the page before. Columns:
-- id, passkey, username, enabled, can_leech, uploaded, downloaded, snatches, announces, seed_time
SELECT users.id, users.passkey, users.username, mika_users.enabled, mika_users.can_leech,
    mika_users.uploaded, mika_users.downloaded, mika_users.snatches, mika_users.announces,
    mika_users.seed_time
FROM users LEFT JOIN mika_users ON mika_users.id = users.id
WHERE users.id > :after ORDER BY users.id LIMIT :limit

-- name: user
-- The user of :id. Columns as of `users`.
SELECT users.id, users.passkey, users.username, mika_users.enabled, mika_users.can_leech,
    mika_users.uploaded, mika_users.downloaded, mika_users.snatches, mika_users.announces,
    mika_users.seed_time
FROM users LEFT JOIN mika_users ON mika_users.id = users.id
WHERE users.id = :id

-- name: users_named
-- All users whose name is :username. Columns as of `users`.
SELECT users.id, users.passkey, users.username, mika_users.enabled, mika_users.can_leech,
    mika_users.uploaded, mika_users.downloaded, mika_users.snatches, mika_users.announces,
    mika_users.seed_time
FROM users LEFT JOIN mika_users ON mika_users.id = users.id
WHERE users.username = :username ORDER BY users.id

-- name: user_of_passkey
-- The id of the user with :passkey. Case matters.
SELECT id FROM users
WHERE passkey = :passkey AND CAST(passkey AS BINARY) = CAST(:passkey AS BINARY)

-- name: users_known
-- Those ids of {rows} that have a user. {rows}: id. Columns: id
SELECT users.id FROM {rows} AS wanted STRAIGHT_JOIN users ON users.id = wanted.id

-- name: torrents
-- A page of torrents, by id. :after is the last id of the page before. Columns:
-- id, info_hash, info_hash_v2, release_name, enabled, reason, multi_up, multi_dn, seeders, leechers,
-- snatches, announces, uploaded, downloaded
SELECT torrents.id, torrents.info_hash, mika_torrents.info_hash_v2, torrents.release_name,
    mika_torrents.enabled, mika_torrents.reason, mika_torrents.multi_up, mika_torrents.multi_dn,
    mika_torrents.seeders, mika_torrents.leechers, mika_torrents.snatches, mika_torrents.announces,
    mika_torrents.uploaded, mika_torrents.downloaded
FROM torrents LEFT JOIN mika_torrents ON mika_torrents.id = torrents.id
WHERE torrents.id > :after ORDER BY torrents.id LIMIT :limit

-- name: torrent
-- The torrent of :id. Columns as of `torrents`.
SELECT torrents.id, torrents.info_hash, mika_torrents.info_hash_v2, torrents.release_name,
    mika_torrents.enabled, mika_torrents.reason, mika_torrents.multi_up, mika_torrents.multi_dn,
    mika_torrents.seeders, mika_torrents.leechers, mika_torrents.snatches, mika_torrents.announces,
    mika_torrents.uploaded, mika_torrents.downloaded
FROM torrents LEFT JOIN mika_torrents ON mika_torrents.id = torrents.id
WHERE torrents.id = :id

-- name: torrents_of_hashes
-- The torrents whose first or second info hash is among {rows}. {rows}: info_hash.
-- Columns: id, info_hash, info_hash_v2
SELECT torrents.id, torrents.info_hash, mika_torrents.info_hash_v2
FROM {rows} AS wanted STRAIGHT_JOIN torrents ON torrents.info_hash = wanted.info_hash
LEFT JOIN mika_torrents ON mika_torrents.id = torrents.id
UNION
SELECT torrents.id, torrents.info_hash, mika_torrents.info_hash_v2
FROM {rows} AS wanted STRAIGHT_JOIN mika_torrents ON mika_torrents.info_hash_v2 = wanted.info_hash
JOIN torrents ON torrents.id = mika_torrents.id

-- name: torrents_known
-- Those ids of {rows} that have a torrent. {rows}: id. Columns: id
SELECT torrents.id FROM {rows} AS wanted STRAIGHT_JOIN torrents ON torrents.id = wanted.id

-- name: whitelist
-- All allowed clients. Columns: peer_id, vstring
SELECT peer_id, vstring FROM xbt_client_whitelist ORDER BY peer_id

-- name: feed
-- What changed after the position :after, in order, at most :limit entries. Empty: changes are not
-- followed. Columns: seq, kind (user, torrent, whitelist), key (an id), age (seconds)
SELECT seq, kind, `key`, TIMESTAMPDIFF(SECOND, noted_at, CURRENT_TIMESTAMP) AS age
FROM mika_feed WHERE seq > :after ORDER BY seq LIMIT :limit

-- name: find_users
-- Users whose name is like :pattern or whose id is :id; all if :pattern is NULL. Only those that
-- are enabled, or not, if :enabled is not NULL. Mika puts ORDER BY … LIMIT … behind it, by the names
-- of the columns, which are those of `users`.
SELECT users.id, users.passkey, users.username, mika_users.enabled, mika_users.can_leech,
    mika_users.uploaded, mika_users.downloaded, mika_users.snatches, mika_users.announces,
    mika_users.seed_time
FROM users LEFT JOIN mika_users ON mika_users.id = users.id
WHERE (:pattern IS NULL OR users.username LIKE :pattern ESCAPE '!' OR users.id = :id)
    AND (:enabled IS NULL OR COALESCE(mika_users.enabled, 1) = :enabled)

-- name: count_users
-- How many there are of `find_users`.
SELECT COUNT(*) FROM users LEFT JOIN mika_users ON mika_users.id = users.id
WHERE (:pattern IS NULL OR users.username LIKE :pattern ESCAPE '!' OR users.id = :id)
    AND (:enabled IS NULL OR COALESCE(mika_users.enabled, 1) = :enabled)

-- name: find_torrents
-- The same for torrents, with the columns of `torrents`.
SELECT torrents.id, torrents.info_hash, mika_torrents.info_hash_v2, torrents.release_name,
    mika_torrents.enabled, mika_torrents.reason, mika_torrents.multi_up, mika_torrents.multi_dn,
    mika_torrents.seeders, mika_torrents.leechers, mika_torrents.snatches, mika_torrents.announces,
    mika_torrents.uploaded, mika_torrents.downloaded
FROM torrents LEFT JOIN mika_torrents ON mika_torrents.id = torrents.id
WHERE (:pattern IS NULL OR torrents.release_name LIKE :pattern ESCAPE '!' OR torrents.id = :id)
    AND (:enabled IS NULL OR COALESCE(mika_torrents.enabled, 1) = :enabled)

-- name: count_torrents
-- How many there are of `find_torrents`.
SELECT COUNT(*) FROM torrents LEFT JOIN mika_torrents ON mika_torrents.id = torrents.id
WHERE (:pattern IS NULL OR torrents.release_name LIKE :pattern ESCAPE '!' OR torrents.id = :id)
    AND (:enabled IS NULL OR COALESCE(mika_torrents.enabled, 1) = :enabled)

-- name: add_user
-- Adds a user. Parameters: :id (NULL: the database chooses), :passkey, :username
INSERT INTO users (id, passkey, username) VALUES (:id, :passkey, :username)

-- name: update_user
-- Changes what is not NULL of :passkey, :username, :enabled, :can_leech, :uploaded, :downloaded of the
-- user :id.
UPDATE users SET passkey = COALESCE(:passkey, passkey), username = COALESCE(:username, username)
WHERE id = :id AND COALESCE(:passkey, :username) IS NOT NULL;
INSERT INTO mika_users (id, enabled, can_leech, uploaded, downloaded)
SELECT id, COALESCE(:enabled, 1), COALESCE(:can_leech, 1), COALESCE(:uploaded, 0),
    COALESCE(:downloaded, 0)
FROM users
WHERE id = :id AND COALESCE(:enabled, :can_leech, :uploaded, :downloaded) IS NOT NULL
ON DUPLICATE KEY UPDATE mika_users.enabled = COALESCE(:enabled, mika_users.enabled),
    mika_users.can_leech = COALESCE(:can_leech, mika_users.can_leech),
    mika_users.uploaded = COALESCE(:uploaded, mika_users.uploaded),
    mika_users.downloaded = COALESCE(:downloaded, mika_users.downloaded)

-- name: add_torrent
-- Adds a torrent. Parameters: :id (NULL: the database chooses), :info_hash, :info_hash_v2 (or NULL),
-- :release_name
INSERT INTO torrents (id, info_hash, release_name) VALUES (:id, :info_hash, :release_name);
INSERT INTO mika_torrents (id, info_hash_v2)
SELECT id, :info_hash_v2 FROM torrents WHERE info_hash = :info_hash AND :info_hash_v2 IS NOT NULL

-- name: update_torrent
-- Changes what is not NULL of :release_name, :enabled, :multi_up, :multi_dn of the torrent :id,
-- and its reason to :reason (or NULL) if :has_reason is 1.
UPDATE torrents SET release_name = :release_name WHERE id = :id AND :release_name IS NOT NULL;
INSERT INTO mika_torrents (id, enabled, reason, multi_up, multi_dn)
SELECT id, COALESCE(:enabled, 1), IF(:has_reason, :reason, NULL), COALESCE(:multi_up, 1),
    COALESCE(:multi_dn, 1)
FROM torrents WHERE id = :id
ON DUPLICATE KEY UPDATE mika_torrents.enabled = COALESCE(:enabled, mika_torrents.enabled),
    mika_torrents.reason = IF(:has_reason, :reason, mika_torrents.reason),
    mika_torrents.multi_up = COALESCE(:multi_up, mika_torrents.multi_up),
    mika_torrents.multi_dn = COALESCE(:multi_dn, mika_torrents.multi_dn)

-- name: remove_torrents
-- Removes the torrents in {rows}. {rows}: id, unused. Empty: only the site removes its torrents.

-- name: add_client
-- Adds the client :peer_id, or renames it to :vstring.
UPDATE xbt_client_whitelist SET vstring = :vstring
WHERE CAST(peer_id AS BINARY) = CAST(:peer_id AS BINARY);
INSERT INTO xbt_client_whitelist (peer_id, vstring) SELECT :peer_id, :vstring FROM DUAL
WHERE NOT EXISTS (SELECT 1 FROM xbt_client_whitelist
    WHERE CAST(peer_id AS BINARY) = CAST(:peer_id AS BINARY))

-- name: remove_client
-- Removes the client :peer_id.
DELETE FROM xbt_client_whitelist WHERE CAST(peer_id AS BINARY) = CAST(:peer_id AS BINARY)

-- name: wipe_users
-- Sets the totals of the users above :after up to :last to 0.
UPDATE mika_users SET uploaded = 0, downloaded = 0, snatches = 0, announces = 0, seed_time = 0
WHERE id > :after AND id <= :last

-- name: wipe_torrents
-- Sets the totals of the torrents above :after up to :last to 0.
UPDATE mika_torrents SET uploaded = 0, downloaded = 0, snatches = 0, announces = 0
WHERE id > :after AND id <= :last

-- name: mend_users
-- Sets those totals of the users in {rows} to 0 that can't be: below 0 or above 2^62. {rows}: id
UPDATE {rows} AS wanted STRAIGHT_JOIN mika_users ON mika_users.id = wanted.id SET
    mika_users.uploaded = IF(mika_users.uploaded BETWEEN 0 AND 4611686018427387904, mika_users.uploaded, 0),
    mika_users.downloaded = IF(mika_users.downloaded BETWEEN 0 AND 4611686018427387904, mika_users.downloaded, 0),
    mika_users.snatches = IF(mika_users.snatches BETWEEN 0 AND 4611686018427387904, mika_users.snatches, 0),
    mika_users.announces = IF(mika_users.announces BETWEEN 0 AND 4611686018427387904, mika_users.announces, 0),
    mika_users.seed_time = IF(mika_users.seed_time BETWEEN 0 AND 4611686018427387904, mika_users.seed_time, 0)

-- name: mend_torrents
-- Sets those totals of the torrents in {rows} to 0 that can't be: below 0 or above 2^62. {rows}: id
UPDATE {rows} AS wanted STRAIGHT_JOIN mika_torrents ON mika_torrents.id = wanted.id SET
    mika_torrents.uploaded = IF(mika_torrents.uploaded BETWEEN 0 AND 4611686018427387904, mika_torrents.uploaded, 0),
    mika_torrents.downloaded = IF(mika_torrents.downloaded BETWEEN 0 AND 4611686018427387904, mika_torrents.downloaded, 0),
    mika_torrents.snatches = IF(mika_torrents.snatches BETWEEN 0 AND 4611686018427387904, mika_torrents.snatches, 0),
    mika_torrents.announces = IF(mika_torrents.announces BETWEEN 0 AND 4611686018427387904, mika_torrents.announces, 0),
    mika_torrents.seeders = IF(mika_torrents.seeders BETWEEN 0 AND 4611686018427387904, mika_torrents.seeders, 0),
    mika_torrents.leechers = IF(mika_torrents.leechers BETWEEN 0 AND 4611686018427387904, mika_torrents.leechers, 0)

-- name: credit_users
-- Adds to totals. {rows}: id, uploaded, downloaded, snatches, announces, seed_time
INSERT INTO mika_users (id, uploaded, downloaded, snatches, announces, seed_time)
SELECT credit.id, credit.uploaded, credit.downloaded, credit.snatches, credit.announces, credit.seed_time
FROM {rows} AS credit
ON DUPLICATE KEY UPDATE
    mika_users.uploaded = LEAST(IFNULL(mika_users.uploaded, 0), 9223372036854775807 - credit.uploaded) + credit.uploaded,
    mika_users.downloaded = LEAST(IFNULL(mika_users.downloaded, 0), 9223372036854775807 - credit.downloaded) + credit.downloaded,
    mika_users.snatches = LEAST(IFNULL(mika_users.snatches, 0), 9223372036854775807 - credit.snatches) + credit.snatches,
    mika_users.announces = LEAST(IFNULL(mika_users.announces, 0), 9223372036854775807 - credit.announces) + credit.announces,
    mika_users.seed_time = LEAST(IFNULL(mika_users.seed_time, 0), 9223372036854775807 - credit.seed_time) + credit.seed_time

-- name: credit_torrents
-- Adds to totals and sets counters. {rows}: id, uploaded, downloaded, snatches, announces,
-- seeders, leechers
INSERT INTO mika_torrents (id, uploaded, downloaded, snatches, announces, seeders, leechers)
SELECT credit.id, credit.uploaded, credit.downloaded, credit.snatches, credit.announces, credit.seeders, credit.leechers
FROM {rows} AS credit
ON DUPLICATE KEY UPDATE
    mika_torrents.uploaded = LEAST(IFNULL(mika_torrents.uploaded, 0), 9223372036854775807 - credit.uploaded) + credit.uploaded,
    mika_torrents.downloaded = LEAST(IFNULL(mika_torrents.downloaded, 0), 9223372036854775807 - credit.downloaded) + credit.downloaded,
    mika_torrents.snatches = LEAST(IFNULL(mika_torrents.snatches, 0), 9223372036854775807 - credit.snatches) + credit.snatches,
    mika_torrents.announces = LEAST(IFNULL(mika_torrents.announces, 0), 9223372036854775807 - credit.announces) + credit.announces,
    mika_torrents.seeders = credit.seeders,
    mika_torrents.leechers = credit.leechers

-- name: credit_snatches
-- Adds to the snatches of public torrents. {rows}: id, snatches
INSERT INTO mika_torrents (id, snatches)
SELECT credit.id, credit.snatches
FROM {rows} AS credit
ON DUPLICATE KEY UPDATE
    mika_torrents.snatches = LEAST(IFNULL(mika_torrents.snatches, 0), 9223372036854775807 - credit.snatches) + credit.snatches

-- name: add_snatched
-- Adds public torrents that were snatched and not known. {rows}: info_hash, snatches. Empty: they
-- are passed over.
