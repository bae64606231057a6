//! From a request to what is answered: `wire` → `tracker` → `wire` (rules H2, H3, R1).

use std::net::IpAddr;

use super::HttpService;
use super::head::Head;
use super::reply::Status;
use super::source::source;
use crate::base::clock::Stopwatch;
use crate::telemetry::metrics::Protocol;
use crate::tracker::{AnnounceRequest, Refusal, Ticket, Workspace};
use crate::wire::http::{self as wire, Target};
use crate::wire::{ParseError, query};

/// Who answers requests.
pub(super) trait Answers {
    /// Answers a request that came over a connection from `client`: with that, and that body.
    fn answer(&mut self, head: &Head, client: IpAddr) -> (Answer, &[u8]);
}

/// Answers the requests of one worker one after another, so that each needs no memory of its own.
pub(super) struct Clerk {
    service: HttpService,
    protocol: Protocol,
    work: Workspace,
    /// The body of the answer.
    body: Vec<u8>,
}

/// What is answered, but for its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub status: Status,
    /// What it waits for.
    pub ticket: Option<Ticket>,
}

// === impl Clerk ===

impl Clerk {
    pub fn new(service: HttpService) -> Self {
        let protocol = match service.certificate {
            Some(_) => Protocol::Https,
            None => Protocol::Http,
        };
        Self {
            service,
            protocol,
            work: Workspace::new(protocol, fastrand::Rng::new()),
            body: Vec::new(),
        }
    }

    fn decide(&mut self, head: &Head, client: IpAddr) -> Answer {
        if head.method != b"GET" {
            return self.plain(Status::MethodNotAllowed, "only GET is answered here\n");
        }
        let watch = Stopwatch::start();
        let target = str::from_utf8(head.path).ok().and_then(wire::parse_path);
        let answer = match target {
            Some(Target::Announce { passkey }) => self.announce(passkey.as_deref(), head, client),
            Some(Target::Scrape { passkey }) => self.scrape(passkey.as_deref(), head.query),
            None => {
                return self.plain(
                    Status::NotFound,
                    "not found: a tracker answers at /announce and /scrape\n",
                );
            }
        };
        let durations = self.service.metrics.durations.of(self.protocol);
        durations.observe(watch.elapsed());
        answer
    }

    fn plain(&mut self, status: Status, text: &str) -> Answer {
        self.body.extend_from_slice(text.as_bytes());
        Answer {
            status,
            ticket: None,
        }
    }

    fn announce(&mut self, passkey: Option<&str>, head: &Head, client: IpAddr) -> Answer {
        let source = self.source(client, head);
        let request = AnnounceRequest {
            passkey,
            params: source.and_then(|_| query::parse_announce(head.query)),
            source: source.unwrap_or(client),
        };
        let list_form = request.params.as_ref().is_ok_and(|params| params.list_form);
        let now = self.service.clock.now();
        let tracker = &self.service.tracker;
        match tracker.announce(&request, now, &mut self.work) {
            Ok(answer) => {
                wire::write_announce(&mut self.body, &answer.reply, &self.work.peers, list_form);
                Answer {
                    status: Status::Ok,
                    ticket: answer.ticket,
                }
            }
            Err(refusal) => self.failure(&refusal),
        }
    }

    /// The client's own address, which trusted proxies name where there are any.
    fn source(&self, client: IpAddr, head: &Head) -> Result<IpAddr, ParseError> {
        let settings = self.service.settings.load();
        source(client, head, &settings, &self.service.metrics)
    }

    fn scrape(&mut self, passkey: Option<&str>, query: &[u8]) -> Answer {
        let tracker = &self.service.tracker;
        match tracker.scrape(passkey, query::parse_scrape(query), self.protocol) {
            Ok(mut entries) => {
                let (_, min_interval) = tracker.intervals();
                wire::write_scrape(&mut self.body, &mut entries, min_interval);
                Answer {
                    status: Status::Ok,
                    ticket: None,
                }
            }
            Err(refusal) => self.failure(&refusal),
        }
    }

    /// A refusal: status 200, because clients throw the body of any other away (rule R1).
    fn failure(&mut self, refusal: &Refusal) -> Answer {
        let (interval, min_interval) = self.service.tracker.intervals();
        wire::write_failure(&mut self.body, &refusal.failure(interval, min_interval));
        Answer {
            status: Status::Ok,
            ticket: None,
        }
    }
}

impl Answers for Clerk {
    fn answer(&mut self, head: &Head, client: IpAddr) -> (Answer, &[u8]) {
        self.body.clear();
        (self.decide(head, client), &self.body)
    }
}
