//! Every statement by which the engine reaches a database: its name, parameters and result. What each does is
//! said once, in `schemas/mika/mysql.sql` and `schemas/own/mysql.sql`; of info hashes that are rebuilt, in
//! `schemas/batter/postgres.sql`.

/// The parameters and the result of a named statement.
#[derive(Debug)]
pub struct Call {
    pub name: &'static str,
    /// The parameters that it may use.
    pub params: &'static str,
    /// The columns of the rows that it is for; none for a statement without.
    pub rows: &'static str,
    /// The columns of its result, in this order.
    pub columns: &'static str,
    /// Whether it may be empty, if the database does not support it.
    pub optional: bool,
    /// It is about Mika's own tables: not a schema's, and not to be replaced.
    pub own: bool,
}

// --- the columns of rows ---

const USER_COLUMNS: &str = "id passkey username enabled can_leech uploaded downloaded snatches \
    announces seed_time";
const TORRENT_COLUMNS: &str = "id info_hash info_hash_v2 release_name enabled reason multi_up \
    multi_dn seeders leechers snatches announces uploaded downloaded";

const HASH_SOURCE_COLUMNS: &str = "id info_hash by_hand is_lossy piece_length pieces is_private name length \
    md5sum files";

/// The key of a peer.
const PEER_KEY: &str = "user_id torrent_id peer_id";

/// A peer that is written, by how often its columns change: first those that each announce changes.
pub const PEER_OFTEN: &str = "user_id torrent_id peer_id base_up base_down base_at sessions uploaded \
    downloaded left_bytes ip4 port4 ip6 port6 speed_up speed_down seed_time announces \
    first_announce active paused last_announce";
pub const PEER: &str = "user_id torrent_id peer_id base_up base_down base_at sessions uploaded \
    downloaded left_bytes ip4 port4 ip6 port6 speed_up speed_down seed_time announces \
    first_announce active paused last_announce dip_up dip_down hnr inactive_since completed_at";
const PEER_SESSIONS: &str = "user_id torrent_id peer_id base_up base_down base_at sessions \
    uploaded downloaded dip_up dip_down";

/// A history that is written, in the same way.
pub const HISTORY_OFTEN: &str = "torrent_id user_id uploaded downloaded seed_time announces \
    last_announce seeded_until";
pub const HISTORY: &str = "torrent_id user_id uploaded downloaded seed_time announces \
    last_announce seeded_until completed_at hnr seeded_floor seeded_from";
const NEW_HISTORY: &str = "torrent_id user_id uploaded downloaded seed_time announces \
    last_announce seeded_until completed_at hnr seeded_floor seeded_from first_announce";

/// A peer and a history that are read for a start or a page.
const PEER_READ: &str = "user_id torrent_id peer_id base_up base_down base_at dip_up dip_down \
    uploaded downloaded left_bytes ip4 port4 ip6 port6 speed_up speed_down seed_time announces \
    first_announce last_announce active paused";
const HISTORY_READ: &str = "torrent_id user_id uploaded downloaded seed_time completed_at hnr";

/// Statics for calls, and an array of all of them.
macro_rules! calls {
    ($(#[$doc:meta])* $all:ident: $($name:ident = $call:expr;)*) => {
        $(pub static $name: Call = $call;)*

        $(#[$doc])*
        pub static $all: [&Call; [$(stringify!($name)),*].len()] = [$(&$name),*];
    };
}

calls! {
    /// Every statement of a schema, about the tables of a site.
    CALLS:

    USERS = Call::new("users").with("after limit").gives(USER_COLUMNS);
    USER = Call::new("user").with("id").gives(USER_COLUMNS);
    USERS_NAMED = Call::new("users_named")
        .with("username")
        .gives(USER_COLUMNS);
    USER_OF_PASSKEY = Call::new("user_of_passkey").with("passkey").gives("id");
    USERS_KNOWN = Call::new("users_known").of("id").gives("id");
    TORRENTS = Call::new("torrents")
        .with("after limit")
        .gives(TORRENT_COLUMNS);
    TORRENT = Call::new("torrent").with("id").gives(TORRENT_COLUMNS);
    TORRENTS_OF_HASHES = Call::new("torrents_of_hashes")
        .of("info_hash")
        .gives("id info_hash info_hash_v2");
    TORRENTS_KNOWN = Call::new("torrents_known").of("id").gives("id");
    HASHES_WANTED = Call::new("hashes_wanted")
        .with("after limit noted")
        .gives("id bytes")
        .optional();
    HASH_SOURCES = Call::new("hash_sources")
        .of("id")
        .gives(HASH_SOURCE_COLUMNS)
        .optional();
    STORE_HASHES = Call::new("store_hashes")
        .of("id info_hash is_lossy")
        .optional();
    SET_HASH = Call::new("set_hash")
        .with("id info_hash info_hash_v2")
        .optional();
    WHITELIST = Call::new("whitelist").gives("peer_id vstring");
    FEED = Call::new("feed")
        .with("after limit")
        .gives("seq kind key age")
        .optional();
    FIND_USERS = Call::new("find_users")
        .with("pattern id enabled")
        .gives(USER_COLUMNS)
        .optional();
    COUNT_USERS = Call::new("count_users")
        .with("pattern id enabled")
        .gives("count")
        .optional();
    FIND_TORRENTS = Call::new("find_torrents")
        .with("pattern id enabled")
        .gives(TORRENT_COLUMNS)
        .optional();
    COUNT_TORRENTS = Call::new("count_torrents")
        .with("pattern id enabled")
        .gives("count")
        .optional();
    ADD_USER = Call::new("add_user").with("id passkey username").optional();
    UPDATE_USER = Call::new("update_user")
        .with("id passkey username enabled can_leech uploaded downloaded")
        .optional();
    ADD_TORRENT = Call::new("add_torrent")
        .with("id info_hash info_hash_v2 release_name")
        .optional();
    UPDATE_TORRENT = Call::new("update_torrent")
        .with("id release_name enabled has_reason reason multi_up multi_dn")
        .optional();
    MOVE_TORRENT = Call::new("move_torrent").with("id new_id").optional();
    REMOVE_TORRENTS = Call::new("remove_torrents").of("id unused").optional();
    ADD_CLIENT = Call::new("add_client").with("peer_id vstring").optional();
    REMOVE_CLIENT = Call::new("remove_client").with("peer_id").optional();
    WIPE_USERS = Call::new("wipe_users").with("after last").optional();
    WIPE_TORRENTS = Call::new("wipe_torrents").with("after last").optional();
    FIX_USERS = Call::new("mend_users").of("id").optional();
    FIX_TORRENTS = Call::new("mend_torrents").of("id").optional();
    CREDIT_USERS =
        Call::new("credit_users").of("id uploaded downloaded snatches announces seed_time");
    CREDIT_TORRENTS =
        Call::new("credit_torrents").of("id uploaded downloaded snatches announces seeders leechers");
    CREDIT_SNATCHES = Call::new("credit_snatches").of("id snatches").optional();
    ADD_SNATCHED = Call::new("add_snatched")
        .of("info_hash snatches")
        .optional();
}

calls! {
    /// Every statement about Mika's own tables.
    OWN_CALLS:

    PEERS_PAGE = Call::own("peers_page")
        .with("user_id torrent_id peer_id since limit")
        .gives(PEER_READ);
    HISTORIES_PAGE = Call::own("histories_page")
        .with("torrent_id user_id limit")
        .gives(HISTORY_READ);
    PEERS_OF = Call::own("peers_of").with("torrent_id").gives(PEER_READ);
    HISTORIES_OF = Call::own("histories_of")
        .with("torrent_id")
        .gives(HISTORY_READ);
    WITH_RECORDS = Call::own("with_records")
        .of("torrent_id")
        .gives("torrent_id");
    PEERS_OF_USER = Call::own("peers_of_user")
        .with("user_id")
        .gives("torrent_id has_all");
    HISTORIES_OF_USER = Call::own("histories_of_user")
        .with("user_id")
        .gives("torrent_id is_snatched hnr");
    NEWEST_ANNOUNCE = Call::own("newest_announce").gives("last_announce");
    LAST_GONE = Call::own("last_gone").with("before").gives("last_announce");
    PRUNE_PEERS = Call::own("prune_peers").with("before limit");
    MOVE_RECORDS = Call::own("move_records").with("id new_id");

    HELD = Call::own("held")
        .of("place user_id torrent_id peer_id")
        .gives(
            "place announces last_announce active first_announce sessions uploaded downloaded \
             history_announces history_uploaded history_downloaded seed_time \
             history_last_announce completed_at hnr seeded_floor seeded_from seeded_until",
        );
    HELD_BASES = Call::own("held_bases")
        .of("place user_id torrent_id peer_id")
        .gives("place base_up base_down base_at dip_up dip_down");
    INSERT_PEERS = Call::own("insert_peers").of(PEER);
    UPDATE_PEERS = Call::own("update_peers").of(PEER);
    UPDATE_PEERS_OFTEN = Call::own("update_peers_often").of(PEER_OFTEN);
    UPDATE_SESSIONS = Call::own("update_sessions").of(PEER_SESSIONS);
    DELETE_PEERS = Call::own("delete_peers").of(PEER_KEY);
    INSERT_HISTORIES = Call::own("insert_histories").of(NEW_HISTORY);
    UPDATE_HISTORIES = Call::own("update_histories").of(HISTORY);
    UPDATE_HISTORIES_OFTEN = Call::own("update_histories_often").of(HISTORY_OFTEN);
    UPDATE_STANDING =
        Call::own("update_standing").of("torrent_id user_id hnr completed_at");

    JOURNALS = Call::own("journals").gives("node applied");
    APPLIED = Call::own("applied").with("node").gives("applied");
    INSERT_JOURNAL = Call::own("insert_journal").with("node");
    SET_APPLIED = Call::own("set_applied").with("node applied");
    RAISE_APPLIED = Call::own("raise_applied").with("node applied");
    FORGET_JOURNAL = Call::own("forget_journal").with("node applied");

    FEED_BOUNDS = Call::own("feed_bounds").gives("oldest newest");
    TRIM_FEED = Call::own("trim_feed").with("last");

    IDENTITY = Call::own("identity").gives("id");
    RENEW_IDENTITY = Call::own("renew_identity");
    TIME = Call::own("time").gives("time").optional();
}

calls! {
    /// Every statement about what a database says of itself, and about the table of migrations.
    CATALOGUE_CALLS:

    MIGRATIONS = Call::own("migrations").gives("name");
    CREATE_MIGRATIONS = Call::own("create_migrations");
    ADD_MIGRATION = Call::own("add_migration").with("name");
    ADD_RELOAD = Call::own("add_reload").with("kind");
    TABLES = Call::own("tables").gives("name is_view engine is_unlogged");
    WITHOUT_TRANSACTIONS = Call::own("without_transactions")
        .gives("name engine schema")
        .optional();
    COLUMNS = Call::own("columns")
        .with("schema table")
        .gives("name kind is_nullable default_value width charset collation");
    COLUMNS_NAMED = Call::own("columns_named")
        .with("name")
        .gives("table_name width charset bits")
        .optional();
    COLUMNS_TO_FILL = Call::own("columns_to_fill").gives("table_name column_name");
    TABLE_PRIVILEGES = Call::own("table_privileges")
        .with("table")
        .gives("may_select may_insert may_update may_delete")
        .optional();
    ID_SEQUENCE = Call::own("id_sequence")
        .with("table")
        .gives("sequence may_take may_set")
        .optional();
    KEY_SEQUENCE = Call::own("key_sequence")
        .with("key")
        .gives("table_name column_name sequence")
        .optional();
    TRIGGERS = Call::own("triggers").gives("name table_name statement owner flaw");
    FUNCTION = Call::own("function").with("name").gives("text").optional();
}

impl Call {
    const fn new(name: &'static str) -> Self {
        Self {
            name,
            params: "",
            rows: "",
            columns: "",
            optional: false,
            own: false,
        }
    }

    const fn own(name: &'static str) -> Self {
        Self {
            own: true,
            ..Self::new(name)
        }
    }

    const fn with(mut self, params: &'static str) -> Self {
        self.params = params;
        self
    }

    const fn of(mut self, rows: &'static str) -> Self {
        self.rows = rows;
        self
    }

    const fn gives(mut self, columns: &'static str) -> Self {
        self.columns = columns;
        self
    }

    const fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    /// How many columns its result has.
    pub fn width(&self) -> usize {
        self.columns.split_whitespace().count()
    }
}
