//! From a request head to a response: `wire` → `tracker` → `wire` (rules H2, H3, R1).

use std::net::IpAddr;

use super::HttpService;
use super::http1::{RequestHead, Status};
use super::source::source;
use crate::base::clock::Stopwatch;
use crate::telemetry::metrics::Protocol;
use crate::tracker::{AnnounceRequest, Refusal, Ticket, Workspace};
use crate::wire::http::{self as wire, Target};
use crate::wire::query;

/// Answers the requests of one worker, one at a time, with memory that is reused.
pub(super) struct Responder {
    service: HttpService,
    protocol: Protocol,
    work: Workspace,
}

/// A response without its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Response {
    pub status: Status,
    /// It must not be sent before what this stands for is durable.
    pub ticket: Option<Ticket>,
}

impl Responder {
    pub fn new(service: HttpService) -> Self {
        let protocol = match service.certificate {
            Some(_) => Protocol::Https,
            None => Protocol::Http,
        };
        Self {
            service,
            protocol,
            work: Workspace::new(protocol, fastrand::Rng::new()),
        }
    }

    /// Answers a request on a connection from `client`, and appends the response's body to `body`. Only GET
    /// is served (rule H3).
    pub fn respond(&mut self, head: &RequestHead, client: IpAddr, body: &mut Vec<u8>) -> Response {
        if head.method != b"GET" {
            body.extend_from_slice(b"only GET is answered here\n");
            return Response::new(Status::MethodNotAllowed);
        }
        let watch = Stopwatch::start();
        let target = str::from_utf8(head.path).ok().and_then(wire::parse_path);
        let response = match target {
            Some(Target::Announce { passkey }) => {
                self.announce(passkey.as_deref(), head, client, body)
            }
            Some(Target::Scrape { passkey }) => self.scrape(passkey.as_deref(), head.query, body),
            None => {
                body.extend_from_slice(b"not found: a tracker answers at /announce and /scrape\n");
                return Response::new(Status::NotFound);
            }
        };
        let durations = self.service.metrics.durations.of(self.protocol);
        durations.observe(watch.elapsed());
        response
    }

    fn announce(
        &mut self,
        passkey: Option<&str>,
        head: &RequestHead,
        client: IpAddr,
        body: &mut Vec<u8>,
    ) -> Response {
        let HttpService {
            tracker,
            settings,
            metrics,
            clock,
            ..
        } = &self.service;
        let source = source(client, head, &settings.load(), metrics);
        let request = AnnounceRequest {
            passkey,
            params: source.and_then(|_| query::parse_announce(head.query)),
            source: source.unwrap_or(client),
        };
        let list_form = request.params.as_ref().is_ok_and(|params| params.list_form);
        match tracker.announce(&request, clock.now(), &mut self.work) {
            Ok(answer) => {
                wire::write_announce(body, &answer.reply, &self.work.peers, list_form);
                Response {
                    status: Status::Ok,
                    ticket: answer.ticket,
                }
            }
            Err(refusal) => self.refuse(&refusal, body),
        }
    }

    fn scrape(&mut self, passkey: Option<&str>, query: &[u8], body: &mut Vec<u8>) -> Response {
        let tracker = &self.service.tracker;
        match tracker.scrape(passkey, query::parse_scrape(query), self.protocol) {
            Ok(mut entries) => {
                let (_, min_interval) = tracker.intervals();
                wire::write_scrape(body, &mut entries, min_interval);
                Response::new(Status::Ok)
            }
            Err(refusal) => self.refuse(&refusal, body),
        }
    }

    /// A refusal has status 200, because clients discard the body of any other (rule R1).
    fn refuse(&self, refusal: &Refusal, body: &mut Vec<u8>) -> Response {
        let (interval, min_interval) = self.service.tracker.intervals();
        wire::write_failure(body, &refusal.failure(interval, min_interval));
        Response::new(Status::Ok)
    }
}

impl Response {
    /// A response that waits for nothing.
    pub fn new(status: Status) -> Self {
        Self {
            status,
            ticket: None,
        }
    }
}
