-- Our Rails site.
-- follow members as user by id: announce_token, handle, status, leech_banned_at
-- follow releases as torrent by id: info_hash, title, down_factor, discarded_at
-- follow client_rules as whitelist

-- name: users
SELECT m.id, m.announce_token, m.handle, m.status = 0, m.leech_banned_at IS NULL, s.bytes_up, s.bytes_down, 0, 0, 0
FROM members AS m LEFT JOIN member_stats AS s ON s.member_id = m.id
WHERE m.id > :after ORDER BY m.id LIMIT :limit

-- name: user
SELECT m.id, m.announce_token, m.handle, m.status = 0, m.leech_banned_at IS NULL, s.bytes_up, s.bytes_down, 0, 0, 0
FROM members AS m LEFT JOIN member_stats AS s ON s.member_id = m.id
WHERE m.id = :id

-- name: users_named
SELECT m.id, m.announce_token, m.handle, m.status = 0, m.leech_banned_at IS NULL, s.bytes_up, s.bytes_down, 0, 0, 0
FROM members AS m LEFT JOIN member_stats AS s ON s.member_id = m.id
WHERE m.handle = :username

-- name: user_of_passkey
SELECT id FROM members WHERE announce_token = :passkey

-- name: users_known
SELECT m.id FROM {rows} AS wanted JOIN members AS m ON m.id = wanted.id

-- name: torrents
SELECT id, info_hash, NULL, title, true, NULL, 1, down_factor, 0, 0, snatched_count, 0, 0, 0
FROM releases WHERE discarded_at IS NULL AND id > :after ORDER BY id LIMIT :limit

-- name: torrent
SELECT id, info_hash, NULL, title, true, NULL, 1, down_factor, 0, 0, snatched_count, 0, 0, 0
FROM releases WHERE discarded_at IS NULL AND id = :id

-- name: torrents_of_hashes
SELECT r.id, r.info_hash, NULL
FROM {rows} AS wanted JOIN releases AS r ON r.info_hash = wanted.info_hash WHERE r.discarded_at IS NULL

-- name: torrents_known
SELECT r.id FROM {rows} AS wanted JOIN releases AS r ON r.id = wanted.id WHERE r.discarded_at IS NULL

-- name: whitelist
SELECT peer_prefix, label FROM client_rules WHERE allowed ORDER BY peer_prefix

-- name: credit_users
INSERT INTO member_stats AS s (member_id, bytes_up, bytes_down, created_at, updated_at)
SELECT credit.id, credit.uploaded, credit.downloaded, now(), now() FROM {rows} AS credit
ON CONFLICT (member_id) DO UPDATE SET bytes_up = s.bytes_up + EXCLUDED.bytes_up,
    bytes_down = s.bytes_down + EXCLUDED.bytes_down, updated_at = now()

-- name: credit_torrents
UPDATE releases AS r SET snatched_count = r.snatched_count + credit.snatches
FROM {rows} AS credit WHERE r.id = credit.id
