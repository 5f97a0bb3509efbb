//! How streams end, how framings follow each other in one stream, and what glibc's syslog(3) sends.

use std::path::Path;

use super::support::originator::Originator;
use super::support::process::run;
use super::support::sink::Sink;
use super::support::tersed::{Setup, url};
use super::support::wire::Wire;

#[test]
fn the_last_line_of_a_half_closed_peer_is_delivered_and_half_a_frame_is_not() {
    let cases: [(&[u8], Option<&[u8]>); 6] = [
        (b"<13>no line feed", Some(b"<13>no line feed")),
        (
            b"<13>a CR that nothing follows\r",
            Some(b"<13>a CR that nothing follows\r"),
        ),
        (b"15 exactly counted", Some(b"exactly counted")),
        (b"15 not so counted", Some(b"15 not so counted")),
        (b"40 <13>half a counted frame", None),
        (b"2026", Some(b"2026")),
    ];
    for scheme in ["tcp", "unix-stream"] {
        for (octets, message) in cases {
            let sink = Sink::tcp_framed(Wire::OctetCounting);
            let setup = Setup::new();
            let path = setup.path("in.sock");
            let listener = match scheme {
                "tcp" => "tcp://127.0.0.1:0".to_owned(),
                _ => url(scheme, &path),
            };
            let tersed = setup
                .listener(&listener, "")
                .forward_counted(&sink, "")
                .start();
            let mut originator = match scheme {
                "tcp" => Originator::tcp(tersed.address(&listener)),
                _ => Originator::unix_stream(&path),
            };
            originator.send_octets(b"<13>before\n");
            originator.send_octets(octets);
            originator.half_close();
            originator.wait_closed();
            let expected: Vec<&[u8]> = [Some(&b"<13>before"[..]), message]
                .into_iter()
                .flatten()
                .collect();
            assert_eq!(sink.wait_messages(expected.len()), expected, "{scheme}");
            let (metrics, _) = tersed.finish();
            let errors = u64::from(message.is_none());
            let reason = [("reason", "incomplete")];
            let found = metrics.total_where("tersed_frame_errors_total", &reason);
            assert_eq!(found, errors, "{}", octets.escape_ascii());
        }
    }
}

#[test]
fn framings_may_follow_each_other_on_one_connection() {
    let sink = Sink::tcp();
    let tersed = Setup::new()
        .listen("tcp://127.0.0.1:0")
        .forward(&sink.url())
        .window("1h")
        .start();
    let mut originator = Originator::tcp(tersed.address("tcp://127.0.0.1:0"));
    let mut number = 0;
    for one in [Wire::Lf, Wire::Nul, Wire::OctetCounting] {
        for other in [Wire::Lf, Wire::Nul, Wire::OctetCounting] {
            for wire in [one, other] {
                originator = originator.framed(wire);
                originator.send(format!("<13>message {number:02}"));
                number += 1;
            }
        }
    }
    let expected: Vec<_> = (0..number)
        .map(|number| format!("<13>message {number:02}").into_bytes())
        .collect();
    assert_eq!(sink.wait_messages(number), expected);
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.total("tersed_frame_errors_total"), 0);
    assert_eq!(metrics.total("tersed_frames_empty_total"), 0);
}

#[test]
fn what_glibc_sends_to_dev_log_is_taken_over_both_kinds_of_socket() {
    for scheme in ["unix-dgram", "unix-stream"] {
        let sink = Sink::tcp_framed(Wire::OctetCounting);
        let setup = Setup::new();
        let path = setup.path("in.sock");
        let tersed = setup
            .listener(&url(scheme, &path), "")
            .forward_counted(&sink, "")
            .window("1h")
            .start();
        glibc_syslog(&path, &["one", "two", "one", "three"]);
        tersed.wait_received(4);
        let messages = sink.wait_messages(3);
        for (message, text) in messages.iter().zip(["one", "two", "three"]) {
            let message = String::from_utf8(message.clone()).unwrap();
            // <LOG_LOCAL0 | LOG_WARNING>, a timestamp without a host, ident and procid.
            assert!(message.starts_with("<132>"), "{scheme}: {message}");
            assert!(message.contains(" ident["), "{scheme}: {message}");
            assert!(
                message.ends_with(&format!("]: {text}")),
                "{scheme}: {message:?}"
            );
        }
        let (metrics, _) = tersed.finish();
        assert_eq!(metrics.balance().suppressed, 1, "{scheme}");
        assert_eq!(metrics.total("tersed_frame_errors_total"), 0, "{scheme}");
    }
}

/// Lets the C library log `texts` to `socket`. The library knows no other path than `/dev/log`, so the program runs in
/// its own mount namespace, where `/dev/log` is this socket. That needs root.
#[track_caller]
fn glibc_syslog(socket: &Path, texts: &[&str]) {
    let program = "import sys, syslog\n\
        syslog.openlog('ident', syslog.LOG_PID, syslog.LOG_LOCAL0)\n\
        for text in sys.argv[1:]: syslog.syslog(syslog.LOG_WARNING, text)";
    let script = "mount -t tmpfs none /dev && ln -s \"$1\" /dev/log && shift && exec \"$@\"";
    let socket = socket.to_str().unwrap();
    let mut args = vec![
        "--mount", "sh", "-c", script, "sh", socket, "python3", "-c", program,
    ];
    args.extend(texts);
    run("unshare", &args, "util-linux and python3 (as root)");
}
