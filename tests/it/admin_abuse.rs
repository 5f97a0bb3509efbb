//! Whatever clients do to the admin address, the relay keeps relaying.
//!
//! `defaults` tests that there is no admin address unless it is configured.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use super::support::originator::Originator;
use super::support::sink::Sink;
use super::support::tersed::{Setup, Tersed};
use super::support::wait::{LIMIT, now, wait_until};

/// More connections than the admin address serves send half a request each, while messages flow.
#[test]
fn a_thousand_slow_clients_neither_stop_the_relay_nor_keep_descriptors() {
    let (sink, tersed, mut originator) = start();
    let admin = tersed.admin();
    let files = tersed.open_files();
    let mut clients: Vec<TcpStream> = Vec::new();
    for number in 0..1000 {
        let mut client = TcpStream::connect(admin).unwrap();
        // Some clients are refused by now, which is expected.
        client.write_all(b"GET /metrics HTTP/1.1\r\nHost: te").ok();
        clients.push(client);
        if number % 10 == 0 {
            originator.send(message(number));
        }
    }
    sink.wait_messages(100);
    let most = files + 100;
    let open = tersed.open_files();
    assert!(open <= most, "{open} files are open, {most} at most");
    drop(clients);
    wait_until("the admin address to serve again", LIMIT, || {
        status(&answer(admin, b"GET /healthz HTTP/1.0\r\n\r\n")) == Some(200)
    });
    check_goes_on(sink, tersed, originator);
}

/// Without a remedy, the first 64 slow clients would occupy the admin address for five seconds, and the next 64 for the
/// next five.
#[test]
fn a_probe_is_answered_within_a_second_beside_slow_clients() {
    let (sink, tersed, originator) = start();
    let admin = tersed.admin();
    for count in [64, 1_000] {
        let slow: Vec<_> = (0..count)
            .map(|_| {
                let mut client = TcpStream::connect(admin).unwrap();
                client.write_all(b"GET /healthz HTTP/1.1\r\nHost: te").ok();
                client
            })
            .collect();
        // The machine may be slow once.
        let in_time = (0..5).filter(|_| {
            let asked = now();
            let code = status(&answer(admin, b"GET /healthz HTTP/1.0\r\n\r\n"));
            code == Some(200) && asked.elapsed() < Duration::from_secs(1)
        });
        assert!(in_time.count() >= 4, "beside {count}");
        drop(slow);
    }
    // A client that asks for all metrics again and again does not delay others, either.
    let mut scrapes = Vec::new();
    for _ in 0..1_000 {
        let mut scrape = TcpStream::connect(admin).unwrap();
        scrape.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").ok();
        scrapes.push(scrape);
    }
    let in_time = (0..5).filter(|_| {
        let asked = now();
        let code = status(&answer(admin, b"GET /readyz HTTP/1.0\r\n\r\n"));
        code == Some(200) && asked.elapsed() < Duration::from_secs(1)
    });
    assert!(in_time.count() >= 4, "beside scrapes");
    drop(scrapes);
    check_goes_on(sink, tersed, originator);
}

/// A client that never ends its request delays no other client.
#[test]
fn a_client_that_sends_an_octet_now_and_then_is_given_up() {
    let (sink, tersed, originator) = start();
    let mut client = TcpStream::connect(tersed.admin()).unwrap();
    client.set_nonblocking(true).unwrap();
    wait_until("the slow client to be closed", LIMIT, || {
        let sent = client.write_all(b"G");
        let read = client.read(&mut [0; 1024]);
        let would_block = |err: &std::io::Error| err.kind() == std::io::ErrorKind::WouldBlock;
        sent.is_err_and(|err| !would_block(&err)) || !read.is_err_and(|err| would_block(&err))
    });
    check_goes_on(sink, tersed, originator);
}

#[test]
fn requests_that_nobody_means_are_refused_and_cost_no_memory() {
    let (sink, tersed, originator) = start();
    let admin = tersed.admin();
    let rss = tersed.resident_octets();
    let long = "x".repeat(8 << 20);
    for request in [
        format!("GET /metrics HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"),
        format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("{long}\r\n\r\n"),
        "GET /metrics HTTP/1.1\r\n".to_owned() + &"A: b\r\n".repeat(100_000) + "\r\n",
        "GET /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n".to_owned(),
        "GET /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n".to_owned(),
        "POST /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\n".to_owned(),
        "\0\0\0\0\r\n\r\n".to_owned(),
    ] {
        let answer = answer(admin, request.as_bytes());
        let code = status(&answer);
        assert!(
            code.is_none_or(|code| (400..500).contains(&code)),
            "{} was answered {code:?}",
            request.chars().take(60).collect::<String>()
        );
    }
    let grown = tersed.resident_octets().saturating_sub(rss);
    assert!(grown < 8 << 20, "{grown} octets more");
    check_goes_on(sink, tersed, originator);
}

#[test]
fn no_path_leads_to_a_file() {
    let (sink, tersed, originator) = start();
    for path in [
        "/../../etc/passwd",
        "/metrics/../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/..%2f..%2fetc%2fpasswd",
        "//etc/passwd",
        "/metrics%00.html",
        "file:///etc/passwd",
        "/tersed.toml",
    ] {
        let request = format!("GET {path} HTTP/1.0\r\n\r\n");
        let answer = answer(tersed.admin(), request.as_bytes());
        let code = status(&answer);
        assert!(matches!(code, Some(400 | 404)), "{path}: {code:?}");
        assert!(!answer.contains("root:"), "{path}: {answer}");
    }
    check_goes_on(sink, tersed, originator);
}

#[test]
fn only_get_and_head_are_served() {
    let (sink, tersed, originator) = start();
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"] {
        let request = format!("{method} /metrics HTTP/1.0\r\nContent-Length: 0\r\n\r\n");
        let code = status(&answer(tersed.admin(), request.as_bytes()));
        assert_eq!(code, Some(405), "{method}");
    }
    let head = answer(tersed.admin(), b"HEAD /metrics HTTP/1.0\r\n\r\n");
    assert_eq!(status(&head), Some(200));
    assert!(head.ends_with("\r\n\r\n"), "no body: {head}");
    check_goes_on(sink, tersed, originator);
}

fn start() -> (Sink, Tersed, Originator) {
    let sink = Sink::tcp();
    let tersed = Setup::new()
        .window("1h")
        .listen("tcp://127.0.0.1:0")
        .forward(&sink.url())
        .start();
    let originator = Originator::tcp(tersed.address("tcp://127.0.0.1:0"));
    (sink, tersed, originator)
}

/// The connection is still open, and the metrics are served.
#[track_caller]
fn check_goes_on(sink: Sink, tersed: Tersed, mut originator: Originator) {
    let before = sink.count();
    originator.send_all((5000..6000).map(message));
    sink.wait_messages(before + 1000);
    tersed.finish();
}

/// The answer to these octets, as far as it can be read.
fn answer(admin: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(admin).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let request = request.to_vec();
    // The relay may answer, or close, before it has read everything.
    let writing = thread::spawn(move || writer.write_all(&request).ok());
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok();
    writing.join().unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// The status of an answer; `None` if there was no answer.
fn status(answer: &str) -> Option<u16> {
    answer
        .strip_prefix("HTTP/1.")?
        .split(' ')
        .nth(1)?
        .parse()
        .ok()
}

fn message(number: u64) -> String {
    format!("<13>Mar  1 12:00:00 host app: number {number}")
}
