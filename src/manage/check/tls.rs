//! Keys and certificates: whether a listener could use them, and until when.

use super::report::Problem;
use crate::config::TlsFiles;
use crate::net::pem;
use crate::telemetry::certificate::{EXPIRY_NOTICE_DAYS, validity};

/// Whether a TLS listener could use the files; says until when. `absent` is the hint if one is not there.
pub(super) fn check(files: &TlsFiles, absent: &str, now: i64) -> Result<String, Problem> {
    let pair = pem::pair(&files.key, &files.cert).map_err(|error| {
        let hint = match error.problem {
            pem::PemProblem::Missing => absent,
            ref problem => problem.hint(),
        };
        Problem::new(error.to_string(), hint)
    })?;
    let path = files.cert.display();
    let first = pair.end_entity_cert();
    let validity = first.ok().and_then(|first| validity(first).ok());
    let validity = validity.ok_or_else(|| {
        Problem::new(
            format!("{path}: its times can't be read"),
            "make or request a new certificate",
        )
    })?;
    let (from, until) = (&validity.not_before, &validity.not_after);
    let days = (until.timestamp() - now) / 86_400;
    if until.timestamp() < now {
        let problem = format!("{path} expired on {until}");
        return Err(Problem::new(problem, "make or request a new certificate"));
    }
    if from.timestamp() > now {
        let problem = format!("{path} is not valid before {from}");
        return Err(Problem::new(problem, "look at the clock of this machine"));
    }
    if days < EXPIRY_NOTICE_DAYS {
        let problem = format!("{path} expires in {days} days");
        return Err(Problem::new(problem, "make or request a new certificate"));
    }
    Ok(format!("{path} is valid for {days} more days"))
}
