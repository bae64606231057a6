//! HTTP: one worker's listeners, and the answers to requests (rules H1 to H8, R1, R2).

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};

use super::connections::{Activity, Connections};
use super::intake::{Intake, TARGET_MAX};
use super::tls::Certificate;
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::tracker::{AnnounceRequest, Refusal, Ticket, Tracker, Workspace};
use crate::wire::http::{self as wire, Target};
use crate::wire::{ParseError, query};

/// Bytes of a request head beyond which hyper answers 431; the request line has a limit of its own.
const HEAD_MAX: usize = 32 * 1024;

/// Headers of a request (rule H7).
const HEADERS_MAX: usize = 64;

/// Bytes of a body that is skipped; a connection with a longer one is closed (rule H4).
const BODY_MAX: usize = 64 * 1024;

/// How long a stop waits for requests in flight.
const DRAIN: Duration = Duration::from_secs(10);

/// How long accepting pauses when the process has no file left for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The settings that a reload may change.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    pub trusted_proxies: Vec<IpNet>,
    /// How long a reply waits at most until what it acknowledges is durable.
    pub ack_timeout: Duration,
}

/// What all workers share.
#[derive(Clone)]
pub struct HttpService {
    pub tracker: Arc<Tracker>,
    pub settings: Arc<ArcSwap<HttpSettings>>,
    /// With it, connections speak TLS.
    pub certificate: Option<Certificate>,
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
    /// Connections that one worker holds at once.
    pub max_connections: usize,
}

/// One thread's share of the work.
struct Worker {
    service: HttpService,
    /// Locked by this thread alone, for one request at a time.
    desk: Mutex<Desk>,
    connections: Arc<Connections>,
    permits: Arc<Semaphore>,
    stopping: AtomicBool,
}

/// What requests use one after another, so that each needs no memory of its own.
struct Desk {
    work: Workspace,
    /// Where a body is written before its size is known.
    draft: Vec<u8>,
}

/// An answer, and what it waits for.
struct Reply {
    response: Response<Full<Bytes>>,
    ticket: Option<Ticket>,
}

/// Serves the listeners on this thread until `stop` turns true, and then finishes what is in flight.
///
/// # Errors
/// A listener can't be used with this thread's runtime.
pub async fn serve(
    listeners: Vec<TcpListener>,
    service: HttpService,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let worker = Arc::new(Worker {
        permits: Arc::new(Semaphore::new(service.max_connections)),
        service,
        desk: Mutex::new(Desk {
            work: Workspace::new(fastrand::Rng::new()),
            draft: Vec::new(),
        }),
        connections: Connections::new(),
        stopping: AtomicBool::new(false),
    });
    let mut accepting = Vec::new();
    for listener in listeners {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let accept = Arc::clone(&worker).accept(listener);
        accepting.push(tokio::spawn(accept));
    }
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    while !*stop.borrow() {
        tokio::select! {
            _ = seconds.tick() => worker.connections.watch(),
            _ = stop.changed() => break,
        }
    }
    accepting.iter().for_each(tokio::task::JoinHandle::abort);
    worker.drain().await;
    Ok(())
}

// === impl Worker ===

impl Worker {
    async fn accept(self: Arc<Self>, listener: tokio::net::TcpListener) {
        let mut failing = false;
        loop {
            // A place first: while there is none, new connections wait in the kernel.
            let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else {
                return;
            };
            let (stream, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    if !failing {
                        tracing::warn!(%error, "connections can't be accepted; trying again until they can");
                    }
                    failing = true;
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            failing = false;
            self.service.metrics.connections.one();
            let place = self.connections.enter();
            let activity = self.connections.activity();
            let number = place.number();
            let worker = Arc::clone(&self);
            let of_task = Arc::clone(&activity);
            let task = tokio::spawn(async move {
                worker.connection(stream, address.ip(), of_task).await;
                drop((place, permit));
            });
            self.connections
                .served_by(number, task.abort_handle(), activity);
        }
    }

    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        client: IpAddr,
        activity: Arc<Activity>,
    ) {
        // Without it the answer to a pipelined request may wait for an acknowledgement.
        let _ = stream.set_nodelay(true);
        match &self.service.certificate {
            None => self.speak(stream, client, activity).await,
            Some(certificate) => match certificate.acceptor().accept(stream).await {
                Ok(stream) => self.speak(stream, client, activity).await,
                Err(error) => tracing::debug!(%error, "TLS handshake failed"),
            },
        }
    }

    async fn speak<S>(self: &Arc<Self>, stream: S, client: IpAddr, activity: Arc<Activity>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let intake = TokioIo::new(Intake::new(stream, Arc::clone(&activity)));
        let service = service_fn(|request| self.answer(request, client, &activity));
        let connection = http1::Builder::new()
            // The watch over the connections takes the place of hyper's timer.
            .header_read_timeout(None)
            .half_close(true)
            // One write of head and body costs less than a gathering of both.
            .writev(false)
            // With bytes left in its buffer hyper would close without having sent the last
            // reply, such as a 400 or a 405.
            .pipeline_flush(false)
            .max_buf_size(HEAD_MAX)
            .serve_connection(intake, service);
        // Clients come and go as they like; what they did wrong was answered to them.
        if let Err(error) = connection.await {
            tracing::trace!(%error, "connection ended");
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        client: IpAddr,
        activity: &Activity,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        activity.asked();
        let Reply {
            mut response,
            ticket,
        } = self.decide(&request, client);
        if let Some(ticket) = ticket {
            self.wait_for(ticket).await;
        }
        // What comes on a connection that ends with this reply is not read at all.
        let ends = self.stopping.load(Ordering::Relaxed)
            || response.headers().contains_key(header::CONNECTION)
            || has_odd_body(request.headers());
        if ends || !skip(request.into_body()).await {
            close(&mut response);
        }
        activity.answered();
        Ok(response)
    }

    /// Holds a reply back until what it acknowledges is durable, or for `ack_timeout`.
    async fn wait_for(&self, ticket: Ticket) {
        let limit = self.service.settings.load().ack_timeout;
        let settled = self.service.tracker.outbox().settled(ticket);
        if tokio::time::timeout(limit, settled).await.is_err() {
            self.service.metrics.ack_timeouts.one();
        }
    }

    fn decide(&self, request: &Request<Incoming>, client: IpAddr) -> Reply {
        if request.method() != Method::GET {
            return not_allowed(request.method());
        }
        let uri = request.uri();
        if uri
            .path_and_query()
            .is_some_and(|it| it.as_str().len() >= TARGET_MAX)
        {
            return refused(StatusCode::URI_TOO_LONG, "Request-URI Too Long\n");
        }
        if request.headers().len() > HEADERS_MAX {
            return refused(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "too many headers\n",
            );
        }
        let query = uri.query().unwrap_or_default().as_bytes();
        match wire::parse_path(uri.path()) {
            Some(Target::Announce { passkey }) => {
                let source = self.source(client, request.headers());
                self.announce(passkey.as_deref(), query, client, source)
            }
            Some(Target::Scrape { passkey }) => self.scrape(passkey.as_deref(), query),
            None => Reply::new(
                StatusCode::NOT_FOUND,
                &b"not found: a tracker answers at /announce and /scrape\n"[..],
            ),
        }
    }

    /// The client's own address, told by trusted proxies where there are any.
    fn source(&self, client: IpAddr, headers: &HeaderMap) -> Result<IpAddr, ParseError> {
        let settings = self.service.settings.load();
        let trusted = &settings.trusted_proxies[..];
        if trusted.is_empty() {
            return Ok(client);
        }
        let lines = |name| {
            headers
                .get_all(name)
                .iter()
                .map(|value| value.to_str().unwrap_or("?"))
        };
        let name = "x-forwarded-for";
        if headers.contains_key(name) {
            let hops: Vec<&str> = lines(name).flat_map(wire::x_forwarded_for).collect();
            return wire::client_ip(client, hops.into_iter(), trusted);
        }
        let hops: Vec<&str> = lines("forwarded").flat_map(wire::forwarded).collect();
        wire::client_ip(client, hops.into_iter(), trusted)
    }

    fn announce(
        &self,
        passkey: Option<&str>,
        query: &[u8],
        client: IpAddr,
        source: Result<IpAddr, ParseError>,
    ) -> Reply {
        let request = AnnounceRequest {
            passkey,
            params: source.and_then(|_| query::parse_announce(query)),
            source: source.unwrap_or(client),
        };
        let list_form = request.params.as_ref().is_ok_and(|params| params.list_form);
        let now = self.service.clock.now();
        let mut desk = self.desk.lock();
        let Desk { work, draft } = &mut *desk;
        match self.service.tracker.announce(&request, now, work) {
            Ok(answer) => {
                draft.clear();
                wire::write_announce(draft, &answer.reply, &work.peers, list_form);
                Reply {
                    // Of exactly its size it is one piece of memory and counts no references.
                    response: response(StatusCode::OK, Bytes::copy_from_slice(draft)),
                    ticket: answer.ticket,
                }
            }
            Err(refusal) => self.failure(&refusal),
        }
    }

    fn scrape(&self, passkey: Option<&str>, query: &[u8]) -> Reply {
        match self
            .service
            .tracker
            .scrape(passkey, query::parse_scrape(query))
        {
            Ok(mut entries) => {
                let (_, min_interval) = self.service.tracker.intervals();
                let mut body = Vec::new();
                wire::write_scrape(&mut body, &mut entries, min_interval);
                Reply::new(StatusCode::OK, body)
            }
            Err(refusal) => self.failure(&refusal),
        }
    }

    /// A refusal: status 200, because clients throw the body of any other away (rule R1).
    fn failure(&self, refusal: &Refusal) -> Reply {
        let (interval, min_interval) = self.service.tracker.intervals();
        let mut body = Vec::new();
        wire::write_failure(&mut body, &refusal.failure(interval, min_interval));
        Reply::new(StatusCode::OK, body)
    }

    /// Lets requests in flight end, and connections without one go.
    async fn drain(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        let drained = async {
            let mut ticks = tokio::time::interval(Duration::from_millis(20));
            while !self.connections.is_empty() {
                self.connections.end_idle();
                ticks.tick().await;
            }
        };
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            tracing::warn!("some requests were cut off: they took too long to end");
        }
    }
}

// === impl Reply ===

impl Reply {
    fn new(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self {
            response: response(status, body),
            ticket: None,
        }
    }
}

fn response(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn close(response: &mut Response<Full<Bytes>>) {
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
}

/// A request that goes no further, on a connection that does not either.
fn refused(status: StatusCode, text: &'static str) -> Reply {
    let mut reply = Reply::new(status, text.as_bytes());
    close(&mut reply.response);
    reply
}

/// Rule H3. A POST may carry a second request in its body: the connection ends with it.
fn not_allowed(method: &Method) -> Reply {
    let mut reply = Reply::new(
        StatusCode::METHOD_NOT_ALLOWED,
        &b"only GET is answered here\n"[..],
    );
    let headers = reply.response.headers_mut();
    headers.insert(header::ALLOW, HeaderValue::from_static("GET"));
    if method != Method::HEAD {
        close(&mut reply.response);
    }
    reply
}

/// Whether the body is of a kind that [`Intake`] does not look into: the connection ends with it.
fn has_odd_body(headers: &HeaderMap) -> bool {
    let length = headers.get(header::CONTENT_LENGTH);
    headers.contains_key(header::TRANSFER_ENCODING) || length.is_some_and(|it| it.len() > 16)
}

/// Reads a body that nobody asked for; false if it is too long to be read.
async fn skip(mut body: Incoming) -> bool {
    if body.is_end_stream() {
        return true;
    }
    let mut length = 0;
    while let Some(Ok(frame)) = body.frame().await {
        length += frame.data_ref().map_or(0, Bytes::len);
        if length > BODY_MAX {
            return false;
        }
    }
    true
}
