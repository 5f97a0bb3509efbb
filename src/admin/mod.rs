//! Admin: metrics, health and readiness over HTTP.
//!
//! | path | answer |
//! |---|---|
//! | `/` | the list of paths |
//! | `/metrics` | every metric, as OpenMetrics text (`docs/metrics.md`) |
//! | `/api/v1/config` | the configuration in force, as `tersed check --format json` prints it, and its source |
//! | `/healthz` | 200 while the runtime runs tasks |
//! | `/readyz` | 200 while the relay accepts messages, else 503; and problems in words |
//!
//! # Guarantees
//!
//! - It never slows the relay down: connections, their life, their requests and the work for them are
//!   bounded (`Limits`), and a page is made on a thread of its own, one at a time.
//! - A new client is answered, however many slow ones are connected (`guests`).
//! - It is read-only: GET and HEAD. A request changes nothing, and no path names a file. Bodies are not read.
//! - Each connection serves one request and is then closed.
//!
//! # Left out
//!
//! Binding (without a configured address there is no admin port). TLS and passwords: the port is meant for a loopback or
//! management address.

mod guests;
mod in_force;
mod ready;

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::core::dedup::EngineStats;
use crate::metrics::Metrics;
use crate::panics::{Panics, caught};
use crate::thread::{CallError, Pool};

use self::guests::{Guest, Guests, PagesFor};
pub(crate) use self::in_force::{Checked, OverFile, SOURCE, Source};

pub(crate) use self::in_force::{FileState, InForce};
pub(crate) use self::ready::Readiness;

/// Serves requests on `listener` until `stop` is cancelled; then ends within a second.
///
/// # Cancel safety
///
/// Do not drop it half-way: open connections would stay until `Limits::connection_life` has passed. Cancel `stop`
/// instead.
pub(crate) async fn serve(listener: TcpListener, state: AdminState, stop: CancellationToken) {
    serve_within(Limits::default(), listener, state, stop).await;
}

/// The sources of the pages.
#[derive(Clone)]
pub(crate) struct AdminState {
    /// All counters and gauges.
    pub metrics: Arc<Metrics>,
    /// Whether the relay accepts messages.
    pub readiness: Readiness,
    /// Asks the engines. Called on a thread of `pool`, at most once at a time.
    pub engine_stats: Arc<dyn Fn() -> EngineStats + Send + Sync>,
    /// The threads that make pages.
    pub pool: Arc<Pool>,
    /// One line for each current loss. Called on a worker that relays messages, so it must not wait.
    pub losses: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
    /// The configuration in force.
    pub in_force: InForce,
    pub panics: Panics,
}

impl fmt::Debug for AdminState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminState")
            .field("readiness", &self.readiness)
            .finish_non_exhaustive()
    }
}

/// What HTTP clients can take up.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Open connections. For one more an old one is closed.
    connections: usize,
    /// Time from the accept to the end of the request's head.
    head_read: Duration,
    /// The longest life of a connection.
    connection_life: Duration,
    /// Octets of request line and headers; a longer head gets 431.
    head_octets: usize,
    /// Pending requests for pages that take time. One more gets 503 with `Retry-After`.
    making: usize,
    /// Time after `stop` for answers in progress.
    stop_grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // A few scrapers and probes, and some people.
            connections: 64,
            head_read: Duration::from_secs(5),
            connection_life: Duration::from_secs(60),
            head_octets: 16 * 1024,
            making: 8,
            stop_grace: Duration::from_millis(500),
        }
    }
}

async fn serve_within(
    limits: Limits,
    listener: TcpListener,
    state: AdminState,
    stop: CancellationToken,
) {
    let panics = state.panics.clone();
    let pages = pages(state, limits.making);
    let mut guests = Guests::new(limits.connections);
    let connections = TaskTracker::new();
    let mut accepting = true;
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                accepting = true;
                let (guest, slot) = tokio::select! {
                    () = stop.cancelled() => break,
                    entered = guests.enter() => entered,
                };
                let (pages, stop, panics) = (pages.clone(), stop.clone(), panics.clone());
                connections.spawn(async move {
                    let conversation = caught(converse(limits, stream, pages, &guest, stop));
                    tokio::select! {
                        () = guest.go.cancelled() => debug!(%peer, "admin connection closed to make room"),
                        ended = conversation => if let Err(panicked) = ended {
                            panics.admin(&panicked);
                        },
                    }
                    drop(slot);
                });
            }
            Err(err) => {
                if std::mem::replace(&mut accepting, false) {
                    warn!(%err, "admin port cannot accept connections; retrying; if too many files are open, raise LimitNOFILE= (ulimit -n) and restart");
                }
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// Serves one connection to its end.
async fn converse(
    limits: Limits,
    stream: TcpStream,
    pages: Router,
    guest: &Arc<Guest>,
    stop: CancellationToken,
) {
    let pages = PagesFor {
        guest: Arc::clone(guest),
        pages: TowerToHyperService::new(pages),
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_read)
        .max_header_size(limits.head_octets)
        .max_buf_size(limits.head_octets)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), pages);
    tokio::pin!(connection);
    let ended = timeout(limits.connection_life, async {
        tokio::select! {
            ended = &mut connection => return Some(ended),
            () = stop.cancelled() => {}
        }
        connection.as_mut().graceful_shutdown();
        timeout(limits.stop_grace, connection).await.ok()
    })
    .await;
    match ended {
        Ok(Some(Ok(()))) => {}
        Ok(Some(Err(err))) => debug!(%err, "admin connection broke"),
        Ok(None) => debug!("admin connection closed at the stop"),
        Err(_) => debug!("admin connection closed: it outlived its limit"),
    }
}

fn pages(state: AdminState, making_max: usize) -> Router {
    let pages = Pages {
        state,
        places: Arc::new(Semaphore::new(making_max)),
        making: Arc::default(),
    };
    Router::new()
        .route("/", get(INDEX))
        .route("/metrics", get(metrics))
        .route("/api/v1/config", get(config))
        .route("/healthz", get("ok\n"))
        .route("/readyz", get(readyz))
        .fallback(|| async { (StatusCode::NOT_FOUND, "not found\n") })
        .method_not_allowed_fallback(|| async { (StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n") })
        .layer(map_response(harden))
        .with_state(pages)
}

#[derive(Clone)]
struct Pages {
    state: AdminState,
    /// A permit is held from the request to the page. Without one a client is told to retry, so that it does not occupy a
    /// connection.
    places: Arc<Semaphore>,
    /// Held while a page that takes time is made: requests queue here instead of on threads.
    making: Arc<Mutex<()>>,
}

async fn metrics(State(pages): State<Pages>) -> Response {
    let state = pages.state.clone();
    let page = move || state.metrics.encode((state.engine_stats)());
    pages.make(OPEN_METRICS, page).await
}

async fn config(State(pages): State<Pages>) -> Response {
    let in_force = pages.state.in_force.clone();
    pages.make(JSON, move || in_force.page()).await
}

impl Pages {
    /// Makes a page when its turn comes.
    async fn make(
        self,
        content_type: &'static str,
        page: impl FnOnce() -> String + Send + 'static,
    ) -> Response {
        let Ok(_place) = self.places.try_acquire() else {
            let later = [(RETRY_AFTER, "1")];
            return (StatusCode::SERVICE_UNAVAILABLE, later, "busy\n").into_response();
        };
        let turn = Arc::clone(&self.making).lock_owned().await;
        // Asking the engines takes their locks, and reading /proc may take long, so neither is done on a worker that
        // relays. The turn moves into the call: if the client disconnects, the next page still waits for this one.
        let page = self.state.pool.call(move || {
            let _turn = turn;
            page()
        });
        match page.await {
            Ok(page) => ([(CONTENT_TYPE, content_type)], page).into_response(),
            Err(err) => {
                if let CallError::Broken(broken) = &err
                    && let Some(panicked) = broken.panic()
                {
                    self.state.panics.admin(panicked);
                }
                warn!(%err, "cannot make an admin page; the next request tries again");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        }
    }
}

async fn readyz(State(pages): State<Pages>) -> impl IntoResponse {
    ready::page(&pages.state)
}

/// Tells browsers not to guess a type and not to store a page.
async fn harden(mut response: Response) -> Result<Response, Infallible> {
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

const INDEX: &str = "\
tersed
/metrics  every counter and gauge, as OpenMetrics text
/healthz  200 while the process runs
/readyz   200 while messages are accepted, 503 while starting or stopping; and problems in words
/api/v1/config  the configuration in force, as JSON
";

const JSON: &str = "application/json";

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The pause after a failed accept, in which descriptors may be closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::mpsc;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::Instant;

    use super::*;
    use crate::config::{Config, RunArgs};
    use crate::metrics::UpstreamState;

    /// A server on a port of its own; `end` stops it and waits.
    struct Admin {
        address: SocketAddr,
        state: AdminState,
        stop: CancellationToken,
        tasks: TaskTracker,
    }

    impl Admin {
        async fn start(limits: Limits) -> Self {
            let stats = || EngineStats {
                live_messages: 42,
                ..EngineStats::default()
            };
            Self::start_with(limits, Arc::new(stats)).await
        }

        async fn start_with(
            limits: Limits,
            engine_stats: Arc<dyn Fn() -> EngineStats + Send + Sync>,
        ) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let metrics = Metrics::new();
            let args = RunArgs::default();
            let in_force = InForce::new(Arc::clone(&metrics), &args, FileState::of(None));
            in_force.load(&Config::default(), Vec::new(), None);
            let state = AdminState {
                panics: Panics::new(Arc::clone(&metrics)),
                metrics,
                in_force,
                readiness: Readiness::default(),
                engine_stats,
                pool: Arc::new(Pool::new("tersed-test", 1)),
                losses: Arc::new(|| vec!["losing: nothing".to_owned()]),
            };
            let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
            tasks.spawn(serve_within(limits, listener, state.clone(), stop.clone()));
            tasks.close();
            Self {
                address,
                state,
                stop,
                tasks,
            }
        }

        async fn connect(&self) -> TcpStream {
            TcpStream::connect(self.address).await.unwrap()
        }

        async fn ask(&self, request: &str) -> String {
            let mut stream = self.connect().await;
            stream.write_all(request.as_bytes()).await.unwrap();
            to_the_end(stream).await
        }

        async fn end(self) {
            self.stop.cancel();
            let ended = timeout(Duration::from_secs(1), self.tasks.wait()).await;
            ended.expect("the server ends within a second");
        }
    }

    /// What the server sends until it closes the connection, also by a reset.
    async fn to_the_end(mut stream: TcpStream) -> String {
        let mut answer = Vec::new();
        let reading = async {
            // A reset also ends it: the server does not read what it refused.
            while stream
                .read_buf(&mut answer)
                .await
                .is_ok_and(|octets| octets > 0)
            {}
        };
        timeout(Duration::from_secs(10), reading)
            .await
            .expect("the server closes the connection");
        String::from_utf8(answer).unwrap()
    }

    #[track_caller]
    fn check(answer: &str, status: &str, text: &str) {
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
        assert!(answer.contains(text), "no {text:?} in {answer}");
        assert!(
            answer.contains("\r\nx-content-type-options: nosniff\r\n"),
            "{answer}"
        );
        assert!(
            answer.contains("\r\ncache-control: no-store\r\n"),
            "{answer}"
        );
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    }

    #[tokio::test]
    async fn each_path_answers_and_nothing_else_does() {
        let admin = Admin::start(Limits::default()).await;
        for (request, status, text) in [
            ("GET / HTTP/1.1", "200 OK", "/metrics"),
            ("GET /healthz HTTP/1.1", "200 OK", "\r\n\r\nok\n"),
            ("GET /readyz HTTP/1.1", "503", "starting"),
            (
                "GET /metrics HTTP/1.1",
                "200 OK",
                "\ntersed_live_messages 42\n",
            ),
            ("GET /metrics HTTP/1.1", "200 OK", OPEN_METRICS),
            ("GET /metrics?x=/../.. HTTP/1.1", "200 OK", "# EOF\n"),
            ("GET /../../etc/passwd HTTP/1.1", "404", "not found"),
            ("GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1", "404", "not found"),
            ("GET //metrics HTTP/1.1", "404", "not found"),
            ("GET /metrics/ HTTP/1.1", "404", "not found"),
            (
                "GET /api/v1/config HTTP/1.1",
                "200 OK",
                "\"window\": \"10s\"",
            ),
            ("GET /api/v1/config HTTP/1.1", "200 OK", JSON),
            ("POST /api/v1/config HTTP/1.1", "405", "allow: GET,HEAD"),
            ("POST /metrics HTTP/1.1", "405", "allow: GET,HEAD"),
            ("DELETE /readyz HTTP/1.1", "405", "allow: GET,HEAD"),
            ("POST /nowhere HTTP/1.1", "404", "not found"),
        ] {
            check(
                &admin.ask(&format!("{request}\r\nhost: x\r\n\r\n")).await,
                status,
                text,
            );
        }
        admin.end().await;
    }

    #[tokio::test]
    async fn head_has_no_body() {
        let admin = Admin::start(Limits::default()).await;
        let answer = admin.ask("HEAD /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await;
        check(&answer, "200 OK", OPEN_METRICS);
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
        admin.end().await;
    }

    #[tokio::test]
    async fn readiness_follows_the_relay_and_shows_the_upstreams() {
        const READYZ: &str = "GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n";
        let admin = Admin::start(Limits::default()).await;
        check(&admin.ask(READYZ).await, "503", "\r\n\r\nstarting: ");

        let first = admin.state.metrics.upstream("tcp://a:601");
        first.tell(UpstreamState::Active, true, None, 0, None);
        let _second = admin.state.metrics.upstream("tcp://b:601\x1b[31m\n");
        admin.state.readiness.set_ready();
        assert!(admin.state.readiness.is_ready());
        let answer = admin.ask(READYZ).await;
        check(&answer, "200 OK", "\r\n\r\nready: ");
        check(&answer, "200 OK", "\nupstream tcp://a:601: up, active for ");
        check(
            &answer,
            "200 OK",
            "\nupstream tcp://b:601\\u{1b}[31m\\n: standby\n",
        );
        check(&answer, "200 OK", "\nlosing: nothing\n");

        admin.state.readiness.set_stopping();
        check(&admin.ask(READYZ).await, "503", "\r\n\r\nstopping: ");
        admin.end().await;
    }

    #[tokio::test]
    async fn a_huge_head_is_refused() {
        let admin = Admin::start(Limits::default()).await;
        for head in [
            format!(
                "GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n",
                "a".repeat(16 * 1024)
            ),
            format!(
                "GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n",
                "a".repeat(1 << 20)
            ),
            format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(1 << 20)),
            format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(200)),
        ] {
            let (mut read, mut write) = admin.connect().await.into_split();
            let answer = async {
                let mut answer = Vec::new();
                while read
                    .read_buf(&mut answer)
                    .await
                    .is_ok_and(|octets| octets > 0)
                {}
                String::from_utf8(answer).unwrap()
            };
            // Writing fails half-way when the server closes; what counts is the answer.
            let (_written, answer) = tokio::join!(write.write_all(head.as_bytes()), answer);
            // The reset that follows unread octets may overtake the answer.
            assert!(
                answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
                "{answer}"
            );
            assert!(!answer.contains("200 OK"), "{answer}");
        }
        check(
            &admin.ask("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await,
            "200 OK",
            "tersed",
        );
        admin.end().await;
    }

    #[tokio::test]
    async fn a_head_just_within_the_limit_is_taken() {
        let admin = Admin::start(Limits::default()).await;
        let head = format!(
            "GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n",
            "a".repeat(16_000)
        );
        check(&admin.ask(&head).await, "200 OK", "tersed");
        admin.end().await;
    }

    #[tokio::test]
    async fn a_client_that_does_not_finish_its_head_is_closed() {
        let limits = Limits {
            head_read: Duration::from_millis(50),
            ..Limits::default()
        };
        let admin = Admin::start(limits).await;
        for half in ["", "G", "GET /metr", "GET / HTTP/1.1\r\nhost: x\r\n"] {
            let answer = admin.ask(half).await;
            assert!(!answer.contains("200 OK"), "{half:?}: {answer}");
        }
        admin.end().await;
    }

    #[tokio::test]
    async fn a_body_is_not_waited_for() {
        let admin = Admin::start(Limits::default()).await;
        for body in ["content-length: 99999999999", "transfer-encoding: chunked"] {
            let answer = admin
                .ask(&format!("GET / HTTP/1.1\r\nhost: x\r\n{body}\r\n\r\n"))
                .await;
            check(&answer, "200 OK", "tersed");
        }
        admin.end().await;
    }

    #[tokio::test]
    async fn a_second_request_on_the_same_connection_is_not_answered() {
        let admin = Admin::start(Limits::default()).await;
        let answer = admin
            .ask(&"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n".repeat(2))
            .await;
        assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{answer}");
        admin.end().await;
    }

    #[tokio::test]
    async fn a_connection_ends_with_its_life_whatever_it_waits_for() {
        let (finish, finished) = mpsc::sync_channel::<()>(0);
        let finished = std::sync::Mutex::new(finished);
        let limits = Limits {
            connection_life: Duration::from_millis(50),
            ..Limits::default()
        };
        let stuck = Arc::new(move || {
            finished.lock().unwrap().recv().unwrap_err();
            EngineStats::default()
        });
        let admin = Admin::start_with(limits, stuck).await;
        for _ in 0..3 {
            assert_eq!(
                admin.ask("GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await,
                ""
            );
        }
        check(
            &admin.ask("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await,
            "200 OK",
            "ok",
        );
        admin.end().await;
        drop(finish);
    }

    #[tokio::test]
    async fn slow_clients_are_capped_and_make_room_for_one_that_asks() {
        // Connections are closed because of the cap, not for being slow.
        let limits = Limits {
            head_read: Duration::from_secs(60),
            ..Limits::default()
        };
        let admin = Admin::start(limits).await;
        for slow in [limits.connections, 1_000] {
            let mut holders = Vec::new();
            for _ in 0..slow {
                let mut holder = admin.connect().await;
                holder.write_all(b"GET /").await.unwrap();
                holders.push(holder);
            }
            let asked = Instant::now();
            let answer = admin.ask("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
            check(&answer, "200 OK", "ok");
            let took = asked.elapsed();
            assert!(took < Duration::from_secs(1), "{slow} slow ones: {took:?}");
            let mut unread = [0];
            let open = holders.iter().filter(|holder| {
                let read = holder.try_read(&mut unread);
                read.is_err_and(|err| err.kind() == std::io::ErrorKind::WouldBlock)
            });
            assert!(open.count() <= limits.connections);
        }
        admin.end().await;
    }

    #[tokio::test]
    async fn a_thousand_scrapes_hold_up_no_probe() {
        let (begin, wait) = mpsc::sync_channel::<()>(0);
        let wait = std::sync::Mutex::new(wait);
        let blocked = move || {
            wait.lock().unwrap().recv().ok();
            EngineStats::default()
        };
        let admin = Admin::start_with(Limits::default(), Arc::new(blocked)).await;
        let mut scrapes = Vec::new();
        for _ in 0..1_000 {
            let mut scrape = admin.connect().await;
            scrape
                .write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
                .await
                .unwrap();
            scrapes.push(scrape);
        }
        let asked = Instant::now();
        let answer = admin.ask("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
        check(&answer, "200 OK", "ok");
        let took = asked.elapsed();
        assert!(took < Duration::from_secs(1), "{took:?}");
        drop(begin);
        // One was the first, whose page is made; those without a place are told to retry.
        let mut answers = Vec::new();
        for scrape in scrapes {
            answers.push(to_the_end(scrape).await);
        }
        assert!(
            answers
                .iter()
                .any(|answer| answer.starts_with("HTTP/1.1 200 OK"))
        );
        let busy = answers
            .iter()
            .find(|answer| answer.starts_with("HTTP/1.1 503"));
        check(busy.unwrap(), "503", "retry-after: 1\r\n");
        admin.end().await;
    }

    #[tokio::test]
    async fn the_stop_does_not_wait_for_slow_clients() {
        let admin = Admin::start(Limits::default()).await;
        let (mut idle, mut half) = (admin.connect().await, admin.connect().await);
        half.write_all(b"GET /healthz HTT").await.unwrap();
        // Answered later than the others were accepted: they are under way.
        check(
            &admin.ask("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await,
            "200 OK",
            "ok",
        );
        admin.end().await;
        let mut answer = Vec::new();
        for stream in [&mut idle, &mut half] {
            while stream
                .read_buf(&mut answer)
                .await
                .is_ok_and(|octets| octets > 0)
            {}
        }
        assert!(!answer.windows(6).any(|octets| octets == b"200 OK"));
    }
}
