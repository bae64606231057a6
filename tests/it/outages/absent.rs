//! Servers that are stopped, killed or paused.

use serde_json::json;

use super::trial::Trial;
use crate::harness::redis::AOF;

#[test]
fn redis_may_be_stopped_killed_or_paused() {
    Trial::run(&AOF, &json!({}), |trial| {
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
    Trial::run(&[], &json!({}), |trial| {
        trial.drains = true;
        trial.outage(
            "Redis killed",
            |it| it.redis.kill9(),
            |it| it.redis.restart(),
        );
        trial.outage(
            "Redis wiped",
            |it| {
                it.mariadb.pause();
                it.redis.kill9();
            },
            |it| {
                it.redis.restart();
                it.mariadb.resume();
            },
        );
    });
}

#[test]
fn mariadb_may_be_stopped_killed_or_paused() {
    Trial::run(&AOF, &json!({}), |trial| {
        trial.outage(
            "MariaDB stopped",
            |it| it.mariadb.stop(),
            |it| it.mariadb.restart(),
        );
        trial.outage(
            "MariaDB killed",
            |it| it.mariadb.kill9(),
            |it| it.mariadb.restart(),
        );
    });
}

#[test]
fn both_may_be_away_at_once() {
    Trial::run(&AOF, &json!({}), |trial| {
        trial.drains = true;
        trial.outage(
            "both paused",
            |it| {
                it.redis.pause();
                it.mariadb.pause();
            },
            |it| {
                it.redis.resume();
                it.mariadb.resume();
            },
        );
        trial.outage(
            "both killed",
            |it| {
                it.redis.kill9();
                it.mariadb.kill9();
            },
            |it| {
                it.redis.restart();
                it.mariadb.restart();
            },
        );
    });
}
