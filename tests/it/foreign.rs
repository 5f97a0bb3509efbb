//! Streams of other protocols on a listener: one line of log names them, they are counted and closed, and nothing of
//! them is forwarded. Text that only begins like them is a message.

use std::net::TcpStream;

use socket2::SockRef;

use super::support::originator::Originator;
use super::support::relp::RelpClient;
use super::support::rsyslogd::{Rsyslogd, Transport};
use super::support::sink::Sink;
use super::support::tersed::{LogLine, Setup, Stopped, Tersed};

/// A stream, how many of its octets identify it, the reason, and a part of the advice in the log.
const STREAMS: [(&[u8], usize, &str, &str); 21] = [
    (
        b"GET /healthz HTTP/1.1\r\nHost: relay\r\n\r\n<13>forged\n",
        23,
        "http",
        "only connect",
    ),
    (b"HEAD / HTTP/1.0\n\n<13>forged\n", 16, "http", "/healthz"),
    (b"POST /x HTTP/1.1\r\n\r\n8 <13>two", 18, "http", "/healthz"),
    (b"PUT /x HTTP/1.1\r\n\r\n", 17, "http", "/healthz"),
    (b"OPTIONS * HTTP/1.0\r\n\r\n", 20, "http", "/healthz"),
    (b"CONNECT a:1 HTTP/1.1\r\n\r\n", 22, "http", "/healthz"),
    (b"DELETE /x HTTP/1.1\r\n\r\n", 20, "http", "/healthz"),
    (b"PATCH /x HTTP/1.1\r\n\r\n", 19, "http", "/healthz"),
    (b"TRACE / HTTP/1.1\r\n\r\n", 18, "http", "/healthz"),
    (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        16,
        "http",
        "/healthz",
    ),
    (
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 514\r\n<13>forged\n",
        38,
        "proxy_protocol",
        "send-proxy",
    ),
    (
        b"PROXY TCP6 ::1 ::1 1 514\r\n<13>forged\n",
        26,
        "proxy_protocol",
        "proxy_protocol",
    ),
    (
        b"PROXY UNKNOWN\r\n<13>forged\n",
        15,
        "proxy_protocol",
        "load balancer",
    ),
    (
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\x7f\0\0\x01\x7f\0\0\x01\x02\x02\x01\x01<13>forged\n",
        12,
        "proxy_protocol",
        "send-proxy",
    ),
    (
        b"\x78\x01\x00\x61\x00\x9e\xff<13>forged\n",
        7,
        "zlib",
        "compression.mode",
    ),
    (
        b"\x78\x5e\xb2\x31\x34\x36\xb1\xf3\n<13>forged\n",
        8,
        "zlib",
        "compression.mode",
    ),
    (
        b"\x78\xda\xa5\x9c\x5d\xaa\xae\xb7\x0d\x85\xef\x3b\x8a\x3d\x82\x62\xfd\x59\n<13>forged\n",
        9,
        "zlib",
        "compression.mode",
    ),
    (
        b"\xff\xfe<\x001\x003\0>\0f\0\n\0<\x001\x003\0>\0",
        2,
        "utf16",
        "UTF-8",
    ),
    (
        b"\xfe\xff\0<\x001\x003\0>\0f\0\n\0<\x001\x003\0>",
        2,
        "utf16",
        "UTF-8",
    ),
    (
        b"<\x001\x003\0>\0f\0\n\0<\x001\x003\0>\0",
        4,
        "utf16",
        "UTF-8",
    ),
    (
        b"\0<\x001\x003\0>\0f\0\n\0<\x001\x003\0>",
        4,
        "utf16",
        "UTF-8",
    ),
];

#[test]
fn a_foreign_stream_is_turned_away_by_name_however_it_is_cut() {
    for (stream, decided_at, reason, advice) in STREAMS {
        let sink = Sink::tcp();
        let setup = Setup::new();
        let socket = setup.path("in.sock");
        let unix = format!("unix-stream://{}", socket.display());
        let tersed = setup.listen(TCP).listen(&unix).forward(&sink.url()).start();
        for is_cut in [false, true] {
            let mut originator = Originator::tcp(tersed.address(TCP)).without_delay();
            let (head, rest) = stream.split_at(if is_cut { decided_at - 1 } else { 0 });
            for piece in head.chunks(head.len().div_ceil(3).max(1)) {
                originator.send_octets(piece);
                originator.wait_read();
            }
            originator.send_octets(rest);
            originator.wait_closed();
        }
        let mut local = Originator::unix_stream(&socket);
        local.send_octets(stream);
        local.wait_closed();
        let what = stream.escape_ascii();
        let rejected = [("reason", reason)];
        tersed.wait_metric("tersed_connections_rejected_total", &rejected, 3);
        let (metrics, stopped) = tersed.finish();
        assert_eq!(metrics.balance().received, 0, "{what}");
        assert_eq!(metrics.total("tersed_frame_errors_total"), 0, "{what}");
        assert_eq!(sink.count(), 0, "{what}");
        // The others are counted in the report of every ten seconds, and in the one at the end.
        let complaints = warnings(&stopped);
        assert!(complaints.len() < 4, "{what}: {complaints:#?}");
        assert!(
            complaints[0].field("advice").unwrap().contains(advice),
            "{complaints:#?}"
        );
        assert_eq!(complaints[0].field("peer").as_deref(), Some("127.0.0.1"));
        assert_eq!(complaints[0].field("listener").as_deref(), Some(TCP));
    }
}

#[test]
fn text_that_begins_like_another_protocol_is_a_message() {
    let messages: [&[u8]; 18] = [
        b"GET the kettle",
        b"GET / HTTP/1.1 200 512",
        b"POSTED",
        b"PROXY down",
        b"PROXY TCP4",
        b"PROXY TCP4 listeners are down",
        b"PROXY UNKNOWN to the balancer",
        b"x^2 + y^2 = z^2 is what a line of text may be",
        b"x^2",
        b"x",
        b"x^\xe4 latin",
        b"x^\x1b[31mred",
        b"x\x01abc",
        b"x^\xb2 is x to the power of x to the power of 2",
        b"zx^2 is text, too",
        "xڳ is a letter".as_bytes(),
        b"\xff a",
        b"\xfe",
    ];
    let sink = Sink::tcp();
    let tersed = Setup::new().listen(TCP).forward(&sink.url()).start();
    for (count, message) in messages.iter().enumerate() {
        // The message arrives while its connection stays open.
        let mut originator = Originator::tcp(tersed.address(TCP)).without_delay();
        let (head, rest) = message.split_at(message.len().min(4));
        for octet in head {
            originator.send_octets(&[*octet]);
            originator.wait_read();
        }
        originator.send_octets(rest);
        originator.send_octets(b"\n");
        let arrived = sink.wait_messages(count + 1);
        assert_eq!(&arrived[count], message, "{}", message.escape_ascii());
    }
    let (metrics, stopped) = tersed.finish();
    assert_eq!(metrics.total("tersed_connections_rejected_total"), 0);
    assert_eq!(warnings(&stopped).len(), 0);
}

#[test]
fn a_count_that_is_too_large_is_quoted() {
    let sink = Sink::tcp();
    let tersed = Setup::new().listen(TCP).forward(&sink.url()).start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_octets(b"99999999 <13>x\n<13>y\n");
    assert_eq!(sink.wait_messages(2), [&b"99999999 <13>x"[..], b"<13>y"]);
    let (_, stopped) = tersed.finish();
    let told = &warnings(&stopped)[0];
    assert_eq!(told.message, "bad framing");
    assert_eq!(told.field("octets").as_deref(), Some("99999999 <13>x"));
}

#[test]
fn letters_that_each_end_with_a_nul_are_messages() {
    let sink = Sink::tcp();
    let tersed = Setup::new().listen(TCP).forward(&sink.url()).start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_octets(b"a\0b\0c\0d\0");
    originator.half_close();
    originator.wait_closed();
    assert_eq!(sink.wait_messages(4), [b"a", b"b", b"c", b"d"]);
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.total("tersed_connections_rejected_total"), 0);
}

#[test]
fn a_tls_client_on_a_relp_listener_is_told_to_speak_relp() {
    let tersed = Setup::new().listen(RELP).start();
    let mut client = RelpClient::connect(tersed.address(RELP));
    client.send_octets(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 and more");
    assert_eq!(client.until_closed(), [""; 0]);
    let tls = [("reason", "tls_on_plaintext")];
    tersed.wait_metric("tersed_connections_rejected_total", &tls, 1);
    let (metrics, stopped) = tersed.finish();
    assert_eq!(metrics.total("tersed_frame_errors_total"), 0);
    assert_eq!(
        warnings(&stopped)[0].message,
        "a TLS client on a RELP listener; turn TLS off at the client"
    );
}

/// When the stream ends, or after a time-out, the octets are a message, as far as can be known.
#[test]
fn what_is_not_decided_is_a_message() {
    let undecided: [&[u8]; 6] = [
        b"GET / HTTP/1.1",
        b"PROXY TCP",
        b"\r\n\r",
        b"x",
        b"1 open 85 rel",
        b"\xef\xbb",
    ];
    let sink = Sink::tcp();
    let tersed = Setup::new()
        .listener(TCP, "partial_frame_timeout = \"1s\"")
        .forward(&sink.url())
        .start();
    let mut expected = Vec::new();
    for octets in undecided {
        let mut originator = Originator::tcp(tersed.address(TCP));
        originator.send_octets(octets);
        originator.half_close();
        originator.wait_closed();
        // This one begins with empty lines and ends with a line that is only a CR, which LF framing strips.
        let is_empty = octets == b"\r\n\r";
        expected.push(if is_empty {
            Vec::new()
        } else {
            octets.to_vec()
        });
    }
    let mut patient = Originator::tcp(tersed.address(TCP));
    patient.send_octets(b"HEAD of the queue");
    patient.wait_closed();
    expected.push(b"HEAD of the queue".to_vec());
    assert_eq!(sink.wait_messages(expected.len()), expected);
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.total("tersed_connections_rejected_total"), 0);
    let timeout = [("reason", "timeout")];
    assert_eq!(
        metrics.total_where("tersed_frame_errors_total", &timeout),
        1
    );
}

#[test]
fn a_relp_listener_names_what_came() {
    let lines: [(&[u8], &str); 2] = [
        (b"<13>a line\n", "a syslog client"),
        (b"17 <13>octet counted", "a syslog client"),
    ];
    let streams = STREAMS.map(|(stream, _, reason, _)| {
        let found = match reason {
            "http" => "an HTTP client",
            "proxy_protocol" => "a PROXY protocol header",
            "zlib" => "a compressed stream",
            _ => "text in UTF-16",
        };
        (stream, found)
    });
    for (stream, found) in streams.into_iter().chain(lines) {
        let tersed = Setup::new().listen(RELP).start();
        for is_cut in [false, true] {
            let mut client = RelpClient::connect(tersed.address(RELP));
            // The relay may read the first octet together with the rest.
            let (head, rest) = stream.split_at(usize::from(is_cut));
            client.send_octets(head);
            client.send_octets(rest);
            assert_eq!(client.until_closed(), [""; 0]);
        }
        let relp = [("reason", "relp")];
        tersed.wait_metric("tersed_frame_errors_total", &relp, 2);
        let (_, stopped) = tersed.finish();
        let complaints = warnings(&stopped);
        let told = &complaints[0];
        assert_eq!(told.message, "not RELP; connection closed");
        let field = told.field("found").unwrap();
        assert_eq!(field, found);
        assert_eq!(told.field("peer").as_deref(), Some("127.0.0.1"));
    }
}

/// A load balancer does this every second.
#[test]
fn a_health_check_that_connects_and_closes_is_no_word_in_the_log() {
    let tersed = Setup::new().listen(TCP).listen(RELP).start();
    for listener in [TCP, RELP] {
        let address = tersed.address(listener);
        drop(TcpStream::connect(address).unwrap());
        // End it with a reset.
        let reset = TcpStream::connect(address).unwrap();
        SockRef::from(&reset)
            .set_linger(Some(std::time::Duration::ZERO))
            .unwrap();
        drop(reset);
        let half = TcpStream::connect(address).unwrap();
        half.shutdown(std::net::Shutdown::Write).unwrap();
        tersed.wait_metric(
            "tersed_connections_accepted_total",
            &[("listener", listener)],
            3,
        );
        tersed.wait_metric("tersed_connections", &[("listener", listener)], 0);
    }
    let (metrics, stopped) = tersed.finish();
    assert_eq!(metrics.total("tersed_frame_errors_total"), 0);
    assert_eq!(metrics.total("tersed_connections_rejected_total"), 0);
    assert_eq!(warnings(&stopped).len(), 0);
}

#[test]
fn a_compressed_stream_of_rsyslog_is_turned_away() {
    for (transport, level) in [
        (Transport::TcpTraditional, 1),
        (Transport::TcpTraditional, 4),
        (Transport::TcpOctetCounted, 6),
        (Transport::TcpOctetCounted, 9),
    ] {
        let sink = Sink::tcp();
        let tersed = Setup::new().listen(TCP).forward(&sink.url()).start();
        let parameters = format!(r#"compression.mode="stream:always" ZipLevel="{level}""#);
        let rsyslogd = Rsyslogd::sender_with(tersed.address(TCP), transport, &parameters);
        let mut originator = Originator::unix_dgram(&rsyslogd.socket());
        wait_rejected(&tersed, "zlib", || {
            originator.send(format!("<13>app: {}", "a compressible text ".repeat(20)));
        });
        drop(rsyslogd);
        let (metrics, stopped) = tersed.finish();
        assert_eq!(metrics.balance().received, 0, "{transport:?} {level}");
        assert_eq!(sink.count(), 0, "{transport:?} {level}");
        let told = &warnings(&stopped)[0];
        assert!(
            told.field("advice")
                .unwrap()
                .contains("rsyslog: compression.mode")
        );
        assert_eq!(told.field("peer").as_deref(), Some("127.0.0.1"));
    }
}

/// Data that is not text in any format has a counter. Text is not counted there, whatever its encoding.
#[test]
fn garbage_shows_in_a_counter() {
    let garbage: [&[u8]; 5] = [
        b"<\x001\x003\0>\0text",
        b"no PRI\x01",
        b"<999>\x1b[1m",
        b"a\x7f",
        b"zx\x9c\xb2\x31\x34\x36\xb1\xf3\x01\xff",
    ];
    let text: [&[u8]; 7] = [
        b"<13>app: a header, and \x01\x02\x03",
        b"no PRI, but\ttext",
        b"two\r\nlines\r\n\0",
        b"<999>no PRI either\n\0",
        b"caf\xe9 \x80\xff",
        "größe".as_bytes(),
        b"\r\n\0",
    ];
    let sink = Sink::udp();
    let tersed = Setup::new().listen(UDP).forward(&sink.url()).start();
    let mut originator = Originator::udp(tersed.address(UDP));
    for message in garbage.into_iter().chain(text) {
        originator.send(message);
    }
    // A storm of one frame is counted by its copies.
    originator.send_all([b"no PRI\x02"; 10]);
    tersed.wait_received(22);
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.total("tersed_frames_binary_total"), 15);
    // Unparsed: three of the garbage, one of the text.
    assert_eq!(metrics.total("tersed_frames_unparsed_total"), 4);
}

/// Sends until a connection was refused for `reason`: rsyslog notices only at later messages.
#[track_caller]
fn wait_rejected(tersed: &Tersed, reason: &str, mut send: impl FnMut()) {
    super::support::wait::wait_until(reason, super::support::wait::LIMIT, || {
        send();
        let rejected = [("reason", reason)];
        tersed
            .metrics()
            .total_where("tersed_connections_rejected_total", &rejected)
            > 0
    });
}

fn warnings(stopped: &Stopped) -> Vec<LogLine> {
    let is_warning = |line: &&LogLine| matches!(line.level.as_str(), "WARN" | "ERROR");
    stopped.log.iter().filter(is_warning).cloned().collect()
}

const TCP: &str = "tcp://127.0.0.1:0";
const UDP: &str = "udp://127.0.0.1:0";
const RELP: &str = "relp://127.0.0.1:0";
