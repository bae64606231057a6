//! Checks keys and certificates: that a listener can use them, and their expiry.

use super::report::CheckProblem;
use crate::config::TlsFiles;
use crate::net::pem;
use crate::telemetry::certificate::{EXPIRY_NOTICE_DAYS, validity};

/// Checks that a TLS listener can use the files. `absent` is the hint for a missing file.
pub(super) fn check(files: &TlsFiles, absent: &str, now: i64) -> Result<String, CheckProblem> {
    let pair = pem::pair(&files.key, &files.cert).map_err(|error| {
        let hint = match error.problem {
            pem::PemProblem::Missing => absent,
            ref problem => problem.hint(),
        };
        CheckProblem::new(error.to_string(), hint)
    })?;
    let path = files.cert.display();
    let first = pair.end_entity_cert();
    let validity = first.ok().and_then(|first| validity(first).ok());
    let validity = validity.ok_or_else(|| {
        CheckProblem::new(
            format!("{path}: its times can't be read"),
            "make or request a new certificate",
        )
    })?;
    let (from, until) = (&validity.not_before, &validity.not_after);
    let days = (until.timestamp() - now) / 86_400;
    if until.timestamp() < now {
        let problem = format!("{path} expired on {until}");
        return Err(CheckProblem::new(
            problem,
            "make or request a new certificate",
        ));
    }
    if from.timestamp() > now {
        let problem = format!("{path} is not valid before {from}");
        return Err(CheckProblem::new(
            problem,
            "look at the clock of this machine",
        ));
    }
    if days < EXPIRY_NOTICE_DAYS {
        let problem = format!("{path} expires in {days} days");
        return Err(CheckProblem::new(
            problem,
            "make or request a new certificate",
        ));
    }
    Ok(format!("{path} is valid for {days} more days"))
}
