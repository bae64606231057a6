//! Servers that are stopped, killed or paused.

use serde_json::json;

use super::trial::Trial;
use crate::harness::database::Database;
use crate::harness::redis::AOF;

crate::on_each_database![
    redis_may_come_back_empty,
    the_database_may_be_stopped_killed_or_paused,
    redis_and_the_database_may_be_away_at_once,
];

#[test]
fn redis_may_be_stopped_killed_or_paused() {
    Trial::run(Database::MariaDb, &AOF, &json!({}), |trial| {
        trial.outage(
            "Redis stopped",
            |it| it.redis.stop(),
            |it| it.redis.restart(),
        );
        trial.outage(
            "Redis killed",
            |it| it.redis.kill9(),
            |it| it.redis.restart(),
        );
        trial.outage(
            "Redis paused",
            |it| it.redis.pause(),
            |it| it.redis.resume(),
        );
    });
}

fn redis_may_come_back_empty(database: Database) {
    Trial::run(database, &[], &json!({}), |trial| {
        trial.drains = true;
        trial.outage(
            "Redis killed",
            |it| it.redis.kill9(),
            |it| it.redis.restart(),
        );
        trial.outage(
            "Redis wiped",
            |it| {
                it.database.pause();
                it.redis.kill9();
            },
            |it| {
                it.redis.restart();
                it.database.resume();
            },
        );
    });
}

fn the_database_may_be_stopped_killed_or_paused(database: Database) {
    Trial::run(database, &AOF, &json!({}), |trial| {
        trial.outage(
            "database stopped",
            |it| it.database.stop(),
            |it| it.database.restart(),
        );
        trial.outage(
            "database killed",
            |it| it.database.kill9(),
            |it| it.database.restart(),
        );
        trial.outage(
            "database paused",
            |it| it.database.pause(),
            |it| it.database.resume(),
        );
    });
}

fn redis_and_the_database_may_be_away_at_once(database: Database) {
    Trial::run(database, &AOF, &json!({}), |trial| {
        trial.drains = true;
        trial.outage(
            "both paused",
            |it| {
                it.redis.pause();
                it.database.pause();
            },
            |it| {
                it.redis.resume();
                it.database.resume();
            },
        );
        trial.outage(
            "both killed",
            |it| {
                it.redis.kill9();
                it.database.kill9();
            },
            |it| {
                it.redis.restart();
                it.database.restart();
            },
        );
    });
}
