//! Checks keys and certificates: that a listener can use them, and their expiry.

use super::report::CheckProblem;
use crate::config::TlsFiles;
use crate::net::pem;
use crate::telemetry::certificate::{EXPIRY_NOTICE_DAYS, seconds, validity};

/// Checks that a TLS listener can use the files. `absent` is the hint for a missing file.
pub(super) fn check(
    files: &TlsFiles,
    absent: &'static str,
    now: i64,
) -> Result<String, CheckProblem> {
    const RENEW: &str = "make or request a new certificate";
    let pair = pem::pair(&files.key, &files.cert).map_err(|error| CheckProblem {
        problem: error.to_string(),
        hint: match error.problem {
            pem::PemProblem::Missing => absent,
            problem => problem.hint(),
        },
    })?;
    let path = files.cert.display();
    let first = pair.end_entity_cert();
    let Some(validity) = first.ok().and_then(|first| validity(first).ok()) else {
        let problem = format!("{path}: its times can't be read");
        return Err(CheckProblem {
            problem,
            hint: RENEW,
        });
    };
    let (from, until) = (&validity.not_before, &validity.not_after);
    let left = seconds(until) - now;
    let days = left / 86_400;
    let (problem, hint) = if left < 0 {
        (format!("{path} expired on {until}"), RENEW)
    } else if seconds(from) > now {
        let hint = "look at the clock of this machine";
        (format!("{path} is not valid before {from}"), hint)
    } else if days < EXPIRY_NOTICE_DAYS {
        (format!("{path} expires in {days} days"), RENEW)
    } else {
        return Ok(format!("{path} is valid for {days} more days"));
    };
    Err(CheckProblem { problem, hint })
}
