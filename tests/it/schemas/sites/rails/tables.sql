CREATE TABLE members (
    id              bigserial PRIMARY KEY,
    handle          character varying NOT NULL,
    email           character varying NOT NULL,
    announce_token  character varying,
    status          integer DEFAULT 0 NOT NULL,
    leech_banned_at timestamp(6) without time zone,
    created_at      timestamp(6) without time zone NOT NULL,
    updated_at      timestamp(6) without time zone NOT NULL
);
CREATE UNIQUE INDEX index_members_on_announce_token ON members (announce_token);
CREATE TABLE member_stats (
    id         bigserial PRIMARY KEY,
    member_id  bigint NOT NULL REFERENCES members (id),
    bytes_up   numeric(20,0) DEFAULT 0 NOT NULL,
    bytes_down numeric(20,0) DEFAULT 0 NOT NULL,
    created_at timestamp(6) without time zone NOT NULL,
    updated_at timestamp(6) without time zone NOT NULL
);
CREATE UNIQUE INDEX index_member_stats_on_member_id ON member_stats (member_id);
CREATE TABLE releases (
    id           bigserial PRIMARY KEY,
    title        character varying NOT NULL,
    info_hash    bytea NOT NULL,
    down_factor  numeric(3,2) DEFAULT 1.0 NOT NULL,
    discarded_at timestamp(6) without time zone,
    snatched_count integer DEFAULT 0 NOT NULL
);
CREATE UNIQUE INDEX index_releases_on_info_hash ON releases (info_hash);
CREATE TABLE client_rules (
    id    bigserial PRIMARY KEY,
    peer_prefix character varying NOT NULL,
    label character varying,
    allowed boolean DEFAULT true NOT NULL
);
