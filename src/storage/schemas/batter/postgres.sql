-- Schema batter for PostgreSQL: a Django site on batter, with auth_user, profiles_profile and torrents_torrent.
-- The site stores no info hash: Mika rebuilds it from the columns of the info dictionary, and keeps it in
-- mika_torrents. What else belongs to a user or torrent is there and in mika_users, where a row that is missing
-- means the defaults; allowed clients are in mika_whitelist. See docs/sql.md.
-- follow auth_user as user by id: username, is_active
-- follow profiles_profile as user by user_id: trackerid
-- follow torrents_torrent as torrent by id: piece_length, pieces, is_private, name, length, md5sum, files
-- follow mika_whitelist as whitelist

-- name: users
-- A page of users, by id. :after is the last id of the page before. Columns:
-- id, passkey, username, enabled, can_leech, uploaded, downloaded, snatches, announces, seed_time
SELECT auth_user.id, profiles_profile.trackerid, auth_user.username, auth_user.is_active,
    mika_users.can_leech, mika_users.uploaded, mika_users.downloaded, mika_users.snatches,
    mika_users.announces, mika_users.seed_time
FROM auth_user LEFT JOIN profiles_profile ON profiles_profile.user_id = auth_user.id
LEFT JOIN mika_users ON mika_users.id = auth_user.id
WHERE auth_user.id > CAST(:after AS bigint) ORDER BY auth_user.id LIMIT :limit

-- name: user
-- The user of :id. Columns as of `users`.
SELECT auth_user.id, profiles_profile.trackerid, auth_user.username, auth_user.is_active,
    mika_users.can_leech, mika_users.uploaded, mika_users.downloaded, mika_users.snatches,
    mika_users.announces, mika_users.seed_time
FROM auth_user LEFT JOIN profiles_profile ON profiles_profile.user_id = auth_user.id
LEFT JOIN mika_users ON mika_users.id = auth_user.id
WHERE auth_user.id = :id

-- name: users_named
-- All users whose name is :username. Columns as of `users`.
SELECT auth_user.id, profiles_profile.trackerid, auth_user.username, auth_user.is_active,
    mika_users.can_leech, mika_users.uploaded, mika_users.downloaded, mika_users.snatches,
    mika_users.announces, mika_users.seed_time
FROM auth_user LEFT JOIN profiles_profile ON profiles_profile.user_id = auth_user.id
LEFT JOIN mika_users ON mika_users.id = auth_user.id
WHERE auth_user.username = :username ORDER BY auth_user.id

-- name: user_of_passkey
-- The id of the user with :passkey. Case matters.
SELECT user_id FROM profiles_profile WHERE trackerid = :passkey

-- name: users_known
-- Those ids of {rows} that have a user. {rows}: id. Columns: id
SELECT auth_user.id FROM {rows} AS wanted JOIN auth_user ON auth_user.id = wanted.id

-- name: torrents
-- A page of torrents with an info hash, by id. :after is the last id of the page before. Columns:
-- id, info_hash, info_hash_v2, release_name, enabled, reason, multi_up, multi_dn, seeders, leechers,
-- snatches, announces, uploaded, downloaded
SELECT torrents_torrent.id, mika_torrents.info_hash, mika_torrents.info_hash_v2,
    COALESCE(mika_torrents.release_name, torrents_torrent.name), mika_torrents.enabled, mika_torrents.reason,
    mika_torrents.multi_up, mika_torrents.multi_dn, mika_torrents.seeders, mika_torrents.leechers,
    mika_torrents.snatches, mika_torrents.announces, mika_torrents.uploaded, mika_torrents.downloaded
FROM torrents_torrent JOIN mika_torrents ON mika_torrents.id = torrents_torrent.id
WHERE mika_torrents.info_hash IS NOT NULL AND torrents_torrent.id > CAST(:after AS bigint)
ORDER BY torrents_torrent.id LIMIT :limit

-- name: torrent
-- The torrent of :id, if it has an info hash. Columns as of `torrents`.
SELECT torrents_torrent.id, mika_torrents.info_hash, mika_torrents.info_hash_v2,
    COALESCE(mika_torrents.release_name, torrents_torrent.name), mika_torrents.enabled, mika_torrents.reason,
    mika_torrents.multi_up, mika_torrents.multi_dn, mika_torrents.seeders, mika_torrents.leechers,
    mika_torrents.snatches, mika_torrents.announces, mika_torrents.uploaded, mika_torrents.downloaded
FROM torrents_torrent JOIN mika_torrents ON mika_torrents.id = torrents_torrent.id
WHERE mika_torrents.info_hash IS NOT NULL AND torrents_torrent.id = :id

-- name: torrents_of_hashes
-- The torrents whose first or second info hash is among {rows}. {rows}: info_hash.
-- Columns: id, info_hash, info_hash_v2
SELECT mika_torrents.id, mika_torrents.info_hash, mika_torrents.info_hash_v2
FROM {rows} AS wanted JOIN mika_torrents ON mika_torrents.info_hash = wanted.info_hash
JOIN torrents_torrent ON torrents_torrent.id = mika_torrents.id
UNION
SELECT mika_torrents.id, mika_torrents.info_hash, mika_torrents.info_hash_v2
FROM {rows} AS wanted JOIN mika_torrents ON mika_torrents.info_hash_v2 = wanted.info_hash
JOIN torrents_torrent ON torrents_torrent.id = mika_torrents.id

-- name: torrents_known
-- Those ids of {rows} that have a torrent: also those whose info hash is about to be rebuilt. {rows}: id.
-- Columns: id
SELECT torrents_torrent.id FROM {rows} AS wanted JOIN torrents_torrent ON torrents_torrent.id = wanted.id

-- name: hashes_wanted
-- The torrents above :after without an info hash, at most :limit; if :noted is true also those whose hash was set by
-- hand, or was rebuilt without all fields of the file that was uploaded. Columns: id, bytes (of its source, about)
SELECT torrents_torrent.id, octet_length(pieces) + COALESCE(octet_length(files), 0)
FROM torrents_torrent LEFT JOIN mika_torrents ON mika_torrents.id = torrents_torrent.id
WHERE torrents_torrent.id > CAST(:after AS bigint) AND (mika_torrents.info_hash IS NULL
    OR CAST(:noted AS boolean) AND (mika_torrents.hash_by_hand OR mika_torrents.hash_is_lossy))
ORDER BY torrents_torrent.id LIMIT :limit

-- name: hash_sources
-- The columns of the info dictionary of those torrents of {rows} which `hashes_wanted` may give. The site can't change
-- these rows until the transaction ends. {rows}: id. Columns: id, info_hash, by_hand, is_lossy, piece_length, pieces,
-- is_private, name, length, md5sum, files
SELECT torrents_torrent.id, mika_torrents.info_hash, mika_torrents.hash_by_hand, mika_torrents.hash_is_lossy,
    piece_length, CASE WHEN octet_length(pieces) <= 83886080 THEN pieces END, is_private, name, length, md5sum,
    CASE WHEN octet_length(files) <= 83886080 THEN files END
FROM {rows} AS wanted JOIN torrents_torrent ON torrents_torrent.id = wanted.id
LEFT JOIN mika_torrents ON mika_torrents.id = torrents_torrent.id
WHERE mika_torrents.info_hash IS NULL OR mika_torrents.hash_by_hand OR mika_torrents.hash_is_lossy
FOR SHARE OF torrents_torrent

-- name: store_hashes
-- Stores rebuilt info hashes. {rows}: id, info_hash, is_lossy
INSERT INTO mika_torrents (id, info_hash, hash_is_lossy)
SELECT built.id, built.info_hash, built.is_lossy = 1 FROM {rows} AS built
ON CONFLICT (id) DO UPDATE SET info_hash = EXCLUDED.info_hash, hash_is_lossy = EXCLUDED.hash_is_lossy
WHERE mika_torrents.info_hash IS NULL

-- name: set_hash
-- Sets the info hashes of the torrent :id by hand; if :info_hash is NULL, they are to be rebuilt.
INSERT INTO mika_torrents (id, info_hash, info_hash_v2, hash_by_hand)
VALUES (:id, CAST(:info_hash AS bytea), CAST(:info_hash_v2 AS bytea), CAST(:info_hash AS bytea) IS NOT NULL)
ON CONFLICT (id) DO UPDATE SET info_hash = EXCLUDED.info_hash, info_hash_v2 = EXCLUDED.info_hash_v2,
    hash_by_hand = EXCLUDED.hash_by_hand, hash_is_lossy = false

-- name: whitelist
-- All allowed clients. Columns: peer_id, vstring
SELECT peer_id, vstring FROM mika_whitelist ORDER BY peer_id

-- name: feed
-- What changed after the position :after, in order, at most :limit entries. Columns: seq, kind (user, torrent,
-- whitelist), key (an id), age (seconds)
SELECT seq, kind, key, floor(EXTRACT(EPOCH FROM clock_timestamp() - noted_at))::bigint AS age
FROM mika_feed WHERE seq > :after ORDER BY seq LIMIT :limit

-- name: find_users
-- Users whose name is like :pattern or whose id is :id; all if :pattern is NULL. Only those that
-- are enabled, or not, if :enabled is not NULL. Mika puts ORDER BY … LIMIT … behind it, by the names
-- of the columns, which are those of `users`.
SELECT auth_user.id, profiles_profile.trackerid AS passkey, auth_user.username, auth_user.is_active AS enabled,
    COALESCE(mika_users.can_leech, true) AS can_leech, COALESCE(mika_users.uploaded, 0) AS uploaded,
    COALESCE(mika_users.downloaded, 0) AS downloaded, COALESCE(mika_users.snatches, 0) AS snatches,
    COALESCE(mika_users.announces, 0) AS announces, COALESCE(mika_users.seed_time, 0) AS seed_time
FROM auth_user LEFT JOIN profiles_profile ON profiles_profile.user_id = auth_user.id
LEFT JOIN mika_users ON mika_users.id = auth_user.id
WHERE (auth_user.username ILIKE :pattern ESCAPE '!' OR auth_user.id = CAST(:id AS bigint) OR :pattern IS NULL)
    AND (auth_user.is_active = CAST(:enabled AS boolean) OR CAST(:enabled AS boolean) IS NULL)

-- name: count_users
-- How many there are of `find_users`.
SELECT COUNT(*) FROM auth_user
WHERE (username ILIKE :pattern ESCAPE '!' OR id = CAST(:id AS bigint) OR :pattern IS NULL)
    AND (is_active = CAST(:enabled AS boolean) OR CAST(:enabled AS boolean) IS NULL)

-- name: find_torrents
-- The same for torrents, with the columns of `torrents`.
SELECT torrents_torrent.id, mika_torrents.info_hash, mika_torrents.info_hash_v2,
    COALESCE(mika_torrents.release_name, torrents_torrent.name) AS release_name, mika_torrents.enabled,
    mika_torrents.reason, mika_torrents.multi_up, mika_torrents.multi_dn, mika_torrents.seeders,
    mika_torrents.leechers, mika_torrents.snatches, mika_torrents.announces, mika_torrents.uploaded,
    mika_torrents.downloaded
FROM torrents_torrent JOIN mika_torrents ON mika_torrents.id = torrents_torrent.id
WHERE mika_torrents.info_hash IS NOT NULL
    AND (COALESCE(mika_torrents.release_name, torrents_torrent.name) ILIKE :pattern ESCAPE '!'
        OR torrents_torrent.id = CAST(:id AS bigint) OR :pattern IS NULL)
    AND (mika_torrents.enabled = CAST(:enabled AS boolean) OR CAST(:enabled AS boolean) IS NULL)

-- name: count_torrents
-- How many there are of `find_torrents`.
SELECT COUNT(*) FROM torrents_torrent JOIN mika_torrents ON mika_torrents.id = torrents_torrent.id
WHERE mika_torrents.info_hash IS NOT NULL
    AND (COALESCE(mika_torrents.release_name, torrents_torrent.name) ILIKE :pattern ESCAPE '!'
        OR torrents_torrent.id = CAST(:id AS bigint) OR :pattern IS NULL)
    AND (mika_torrents.enabled = CAST(:enabled AS boolean) OR CAST(:enabled AS boolean) IS NULL)

-- name: add_user
-- Adds a user. Empty: accounts are the site's, with a password and an e-mail address.

-- name: update_user
-- Changes what is not NULL of :passkey, :username, :enabled, :can_leech, :uploaded, :downloaded of the
-- user :id. The account itself is enabled or disabled.
UPDATE auth_user SET username = COALESCE(CAST(:username AS varchar), username),
    is_active = COALESCE(CAST(:enabled AS boolean), is_active)
WHERE id = :id AND (CAST(:username AS varchar) IS NOT NULL OR CAST(:enabled AS boolean) IS NOT NULL);
INSERT INTO profiles_profile (user_id, trackerid)
SELECT id, CAST(:passkey AS varchar) FROM auth_user WHERE id = :id AND CAST(:passkey AS varchar) IS NOT NULL
ON CONFLICT (user_id) DO UPDATE SET trackerid = EXCLUDED.trackerid;
INSERT INTO mika_users (id, can_leech, uploaded, downloaded)
SELECT id, COALESCE(CAST(:can_leech AS boolean), true), COALESCE(CAST(:uploaded AS bigint), 0),
    COALESCE(CAST(:downloaded AS bigint), 0)
FROM auth_user WHERE id = :id AND (CAST(:can_leech AS boolean) IS NOT NULL
    OR CAST(:uploaded AS bigint) IS NOT NULL OR CAST(:downloaded AS bigint) IS NOT NULL)
ON CONFLICT (id) DO UPDATE SET can_leech = COALESCE(CAST(:can_leech AS boolean), mika_users.can_leech),
    uploaded = COALESCE(CAST(:uploaded AS bigint), mika_users.uploaded),
    downloaded = COALESCE(CAST(:downloaded AS bigint), mika_users.downloaded)

-- name: add_torrent
-- Adds a torrent. Empty: the site adds it, with the contents of its .torrent file.

-- name: update_torrent
-- Changes what is not NULL of :release_name, :enabled, :multi_up, :multi_dn of the torrent :id,
-- and its reason to :reason (or NULL) if :has_reason is true. The site's own name is part of the info hash,
-- so it stays.
INSERT INTO mika_torrents (id, release_name, enabled, reason, multi_up, multi_dn)
SELECT id, CAST(:release_name AS text), COALESCE(CAST(:enabled AS boolean), true),
    CASE WHEN CAST(:has_reason AS boolean) THEN CAST(:reason AS text) END,
    COALESCE(CAST(:multi_up AS numeric), 1), COALESCE(CAST(:multi_dn AS numeric), 1)
FROM torrents_torrent WHERE id = :id
ON CONFLICT (id) DO UPDATE SET release_name = COALESCE(CAST(:release_name AS text), mika_torrents.release_name),
    enabled = COALESCE(CAST(:enabled AS boolean), mika_torrents.enabled),
    reason = CASE WHEN CAST(:has_reason AS boolean) THEN CAST(:reason AS text) ELSE mika_torrents.reason END,
    multi_up = COALESCE(CAST(:multi_up AS numeric), mika_torrents.multi_up),
    multi_dn = COALESCE(CAST(:multi_dn AS numeric), mika_torrents.multi_dn)

-- name: move_torrent
-- Gives the torrent :id the id :new_id. Empty: ids are the site's.

-- name: remove_torrents
-- Removes the torrents in {rows}. {rows}: id, unused. Empty: only the site removes its torrents.

-- name: add_client
-- Adds the client :peer_id, or renames it to :vstring.
INSERT INTO mika_whitelist (peer_id, vstring) VALUES (:peer_id, :vstring)
ON CONFLICT (peer_id) DO UPDATE SET vstring = EXCLUDED.vstring

-- name: remove_client
-- Removes the client :peer_id.
DELETE FROM mika_whitelist WHERE peer_id = :peer_id

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
UPDATE mika_users SET
    uploaded = CASE WHEN uploaded BETWEEN 0 AND 4611686018427387904 THEN uploaded ELSE 0 END,
    downloaded = CASE WHEN downloaded BETWEEN 0 AND 4611686018427387904 THEN downloaded ELSE 0 END,
    snatches = CASE WHEN snatches BETWEEN 0 AND 4611686018427387904 THEN snatches ELSE 0 END,
    announces = CASE WHEN announces BETWEEN 0 AND 4611686018427387904 THEN announces ELSE 0 END,
    seed_time = CASE WHEN seed_time BETWEEN 0 AND 4611686018427387904 THEN seed_time ELSE 0 END
FROM {rows} AS wanted WHERE mika_users.id = wanted.id

-- name: mend_torrents
-- Sets those totals of the torrents in {rows} to 0 that can't be: below 0 or above 2^62. {rows}: id
UPDATE mika_torrents SET
    uploaded = CASE WHEN uploaded BETWEEN 0 AND 4611686018427387904 THEN uploaded ELSE 0 END,
    downloaded = CASE WHEN downloaded BETWEEN 0 AND 4611686018427387904 THEN downloaded ELSE 0 END,
    snatches = CASE WHEN snatches BETWEEN 0 AND 4611686018427387904 THEN snatches ELSE 0 END,
    announces = CASE WHEN announces BETWEEN 0 AND 4611686018427387904 THEN announces ELSE 0 END,
    seeders = CASE WHEN seeders BETWEEN 0 AND 4611686018427387904 THEN seeders ELSE 0 END,
    leechers = CASE WHEN leechers BETWEEN 0 AND 4611686018427387904 THEN leechers ELSE 0 END
FROM {rows} AS wanted WHERE mika_torrents.id = wanted.id

-- name: credit_users
-- Adds to totals. {rows}: id, uploaded, downloaded, snatches, announces, seed_time
INSERT INTO mika_users (id, uploaded, downloaded, snatches, announces, seed_time)
SELECT credit.id, credit.uploaded, credit.downloaded, credit.snatches, credit.announces, credit.seed_time
FROM {rows} AS credit
ON CONFLICT (id) DO UPDATE SET
    uploaded = LEAST(mika_users.uploaded, 9223372036854775807 - EXCLUDED.uploaded) + EXCLUDED.uploaded,
    downloaded = LEAST(mika_users.downloaded, 9223372036854775807 - EXCLUDED.downloaded) + EXCLUDED.downloaded,
    snatches = LEAST(mika_users.snatches, 9223372036854775807 - EXCLUDED.snatches) + EXCLUDED.snatches,
    announces = LEAST(mika_users.announces, 9223372036854775807 - EXCLUDED.announces) + EXCLUDED.announces,
    seed_time = LEAST(mika_users.seed_time, 9223372036854775807 - EXCLUDED.seed_time) + EXCLUDED.seed_time

-- name: credit_torrents
-- Adds to totals and sets counters. {rows}: id, uploaded, downloaded, snatches, announces,
-- seeders, leechers
INSERT INTO mika_torrents (id, uploaded, downloaded, snatches, announces, seeders, leechers)
SELECT credit.id, credit.uploaded, credit.downloaded, credit.snatches, credit.announces, credit.seeders,
    credit.leechers
FROM {rows} AS credit
ON CONFLICT (id) DO UPDATE SET
    uploaded = LEAST(mika_torrents.uploaded, 9223372036854775807 - EXCLUDED.uploaded) + EXCLUDED.uploaded,
    downloaded = LEAST(mika_torrents.downloaded, 9223372036854775807 - EXCLUDED.downloaded) + EXCLUDED.downloaded,
    snatches = LEAST(mika_torrents.snatches, 9223372036854775807 - EXCLUDED.snatches) + EXCLUDED.snatches,
    announces = LEAST(mika_torrents.announces, 9223372036854775807 - EXCLUDED.announces) + EXCLUDED.announces,
    seeders = EXCLUDED.seeders,
    leechers = EXCLUDED.leechers

-- name: credit_snatches
-- Adds to the snatches of public torrents. {rows}: id, snatches
INSERT INTO mika_torrents (id, snatches) SELECT credit.id, credit.snatches FROM {rows} AS credit
ON CONFLICT (id) DO UPDATE SET
    snatches = LEAST(mika_torrents.snatches, 9223372036854775807 - EXCLUDED.snatches) + EXCLUDED.snatches

-- name: add_snatched
-- Adds public torrents that were snatched and not known. Empty: they are passed over.
