//! A real rsyslogd receives from the relay, over each transport and framing.

use super::support::numbered::{Numbered, Tally, repeats};
use super::support::originator::Originator;
use super::support::rsyslogd::{Rsyslogd, Transport};
use super::support::tersed::Setup;

#[test]
fn imtcp_gets_line_feeds_by_default() {
    let (rsyslogd, url) = Rsyslogd::receiver(Transport::TcpTraditional);
    check(&rsyslogd, Setup::new().forward(&url), 100_000);
}

#[test]
fn imtcp_gets_octet_counts() {
    let (rsyslogd, url) = Rsyslogd::receiver(Transport::TcpOctetCounted);
    let config = format!("[forward]\nto = [{{ url = \"{url}\", framing = \"octet-counting\" }}]\n");
    check(&rsyslogd, Setup::new().config(&config), 100_000);
}

#[test]
fn imrelp_gets_transactions() {
    let (rsyslogd, url) = Rsyslogd::receiver(Transport::Relp);
    check(&rsyslogd, Setup::new().forward(&url), 100_000);
}

/// Few enough for rsyslogd's receive buffer: plain UDP has no flow control.
#[test]
fn imudp_gets_datagrams() {
    let (rsyslogd, url) = Rsyslogd::receiver(Transport::Udp);
    check(&rsyslogd, Setup::new().forward(&url), 1_000);
}

#[track_caller]
fn check(rsyslogd: &Rsyslogd, setup: Setup, total: u64) {
    let listener = "tcp://127.0.0.1:0";
    let tersed = setup.listen(listener).window("1h").start();
    let sent = Numbered::with_total(total);
    let mut originator = Originator::tcp(tersed.address(listener));
    originator.send_all(sent.rfc3164());
    drop(originator);
    tersed.wait_received(sent.total());

    let (metrics, _) = tersed.finish();
    assert_eq!(
        metrics.total("tersed_frames_forwarded_total"),
        sent.distinct()
    );
    let repeated = sent.distinct() / 4 * 3;
    let expected = usize::try_from(sent.distinct() + repeated).unwrap();
    let messages = rsyslogd.wait_received(expected);
    let tally = Tally::of(&messages);
    tally.assert_once_each(sent);
    assert_eq!(tally.summaries, repeated);
    // Unchanged, octet for octet; only a summary may have another time and text.
    let header = b"<13>Mar  1 12:00:00 host app[7]: number ";
    let changed = messages.iter().find(|message| {
        !message.starts_with(header) && repeats(&String::from_utf8_lossy(message)).is_none()
    });
    assert!(
        changed.is_none(),
        "{:?}",
        changed.map(|message| message.escape_ascii().to_string())
    );
}
