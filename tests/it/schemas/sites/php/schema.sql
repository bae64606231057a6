-- Our old PHP site.
-- follow users as user by uid: passkey, username, status, class
-- follow torrents as torrent by fid: info_hash, filename, visible, freeleech
-- follow agents as whitelist

-- name: users
SELECT u.uid, u.passkey, u.username, p.may_connect, p.may_leech, u.uploaded, u.downloaded, 0, 0, 0
FROM users AS u JOIN user_permissions AS p ON p.uid = u.uid
WHERE u.uid > :after ORDER BY u.uid LIMIT :limit

-- name: user
SELECT u.uid, u.passkey, u.username, p.may_connect, p.may_leech, u.uploaded, u.downloaded, 0, 0, 0
FROM users AS u JOIN user_permissions AS p ON p.uid = u.uid
WHERE u.uid = :id

-- name: users_named
SELECT u.uid, u.passkey, u.username, p.may_connect, p.may_leech, u.uploaded, u.downloaded, 0, 0, 0
FROM users AS u JOIN user_permissions AS p ON p.uid = u.uid
WHERE u.username = :username

-- name: user_of_passkey
SELECT uid FROM users WHERE passkey = :passkey

-- name: users_known
SELECT u.uid FROM {rows} AS wanted STRAIGHT_JOIN users AS u ON u.uid = wanted.id

-- name: torrents
SELECT fid, info_hash, NULL, filename, visible = 'yes', NULL, 1, IF(freeleech = 'yes', 0, 1), seeders, leechers, times_completed, 0, 0, 0
FROM torrents WHERE fid > :after ORDER BY fid LIMIT :limit

-- name: torrent
SELECT fid, info_hash, NULL, filename, visible = 'yes', NULL, 1, IF(freeleech = 'yes', 0, 1), seeders, leechers, times_completed, 0, 0, 0
FROM torrents WHERE fid = :id

-- name: torrents_of_hashes
SELECT t.fid, t.info_hash, NULL
FROM {rows} AS wanted STRAIGHT_JOIN torrents AS t ON t.info_hash = wanted.info_hash

-- name: torrents_known
SELECT t.fid FROM {rows} AS wanted STRAIGHT_JOIN torrents AS t ON t.fid = wanted.id

-- name: whitelist
SELECT agent, agent_name FROM agents ORDER BY agent

-- name: credit_users
UPDATE {rows} AS credit STRAIGHT_JOIN users AS u ON u.uid = credit.id
SET u.uploaded = u.uploaded + credit.uploaded, u.downloaded = u.downloaded + credit.downloaded

-- name: credit_torrents
UPDATE {rows} AS credit STRAIGHT_JOIN torrents AS t ON t.fid = credit.id
SET t.times_completed = t.times_completed + credit.snatches, t.seeders = credit.seeders, t.leechers = credit.leechers
