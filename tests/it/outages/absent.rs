//! Servers that are stopped, killed or paused.

use serde_json::json;

use super::trial::Trial;
use crate::harness::database::Database;
use crate::harness::redis::AOF;

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

#[test]
fn redis_may_come_back_empty() {
    redis_comes_back_empty(Database::MariaDb);
}

#[test]
fn redis_may_come_back_empty_on_postgresql() {
    redis_comes_back_empty(Database::Postgres);
}

fn redis_comes_back_empty(database: Database) {
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

#[test]
fn mariadb_may_be_stopped_killed_or_paused() {
    database_is_away(Database::MariaDb);
}

#[test]
fn postgresql_may_be_stopped_killed_or_paused() {
    database_is_away(Database::Postgres);
}

fn database_is_away(database: Database) {
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

#[test]
fn redis_and_mariadb_may_be_away_at_once() {
    both_are_away(Database::MariaDb);
}

#[test]
fn redis_and_postgresql_may_be_away_at_once() {
    both_are_away(Database::Postgres);
}

fn both_are_away(database: Database) {
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
