//! Frames as senders really send them, and the parts that must be found in them.

#![expect(
    clippy::indexing_slicing,
    reason = "a test that indexes wrongly shall fail"
)]

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;

/// One case of `senders.txt`.
#[derive(Clone, Debug)]
struct Case {
    sender: &'static str,
    frame: Vec<u8>,
    /// Format and PRIVAL, and the parts.
    expected: [String; 8],
}

fn cases() -> impl Iterator<Item = Case> {
    let mut lines = include_str!("senders.txt")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    std::iter::from_fn(move || {
        let sender = lines.next()?;
        let [frame, found] = [lines.next(), lines.next()].map(|line| unescaped(line.unwrap()));
        let expected: Vec<_> = found.splitn(8, |octet| *octet == b'|').map(shown).collect();
        Some(Case {
            sender,
            frame,
            expected: expected.try_into().expect(sender),
        })
    })
}

/// The octets that an indented line of `senders.txt` stands for.
fn unescaped(line: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut line = line.strip_prefix("  ").unwrap().bytes();
    while let Some(octet) = line.next() {
        octets.push(match (octet, octet == b'\\') {
            (octet, false) => octet,
            _ => match line.next().unwrap() {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'\\' => b'\\',
                b'x' => {
                    let hex = [line.next().unwrap(), line.next().unwrap()];
                    u8::from_str_radix(str::from_utf8(&hex).unwrap(), 16).unwrap()
                }
                other => panic!("escape {other}"),
            },
        });
    }
    octets
}

fn shown(octets: &[u8]) -> String {
    octets.escape_ascii().to_string()
}

fn found(frame: &[u8]) -> [String; 8] {
    let message = Message::parse(frame);
    let format = match message.format {
        Format::Rfc5424 => "rfc5424",
        Format::Rfc3164 => "rfc3164",
        Format::Cisco => "cisco",
        Format::Unparsed => "unparsed",
    };
    let pri = message
        .pri
        .map_or("-".to_owned(), |pri| pri.prival().to_string());
    [
        Some(format!("{format} {pri}").as_bytes()),
        message.timestamp(),
        message.hostname(),
        message.app_name(),
        message.procid(),
        message.msgid(),
        message.structured_data(),
        Some(message.msg()),
    ]
    .map(|part| shown(part.unwrap_or_default()))
}

/// Holds for every frame: its parts lie in it, in order, without overlap, MSG last, and only terminators
/// stand behind MSG.
fn check_spans(frame: &[u8]) {
    let message = Message::parse(frame);
    let Spans {
        timestamp,
        hostname,
        app_name,
        procid,
        msgid,
        structured_data,
        msg,
    } = message.spans;
    let mut header = [
        timestamp,
        hostname,
        app_name,
        procid,
        msgid,
        structured_data,
    ];
    if message.format == Format::Cisco {
        header.sort_by_key(|span| span.range().start);
    }
    let mut at = 0;
    for span in header
        .into_iter()
        .filter(|span| !span.is_empty())
        .chain([msg])
    {
        let range = span.range();
        assert!(at <= range.start && range.start <= range.end, "{message:?}");
        at = range.end;
    }
    assert!(
        frame[at..].iter().all(|octet| b"\r\n\0".contains(octet)),
        "{message:?}"
    );
    assert!(
        !message.msg().ends_with(b"\n") && !message.msg().ends_with(b"\0"),
        "{message:?}"
    );
    assert_eq!(message.frame(), frame);
    assert_eq!(&frame[message.msg_range()], message.msg());
    let elements: Vec<u8> = message
        .sd_elements()
        .flat_map(|sd| sd.octets)
        .copied()
        .collect();
    assert_eq!(elements, message.structured_data().unwrap_or_default());
}

#[test]
fn senders_are_understood() {
    let mut formats = std::collections::BTreeMap::new();
    for Case {
        sender,
        frame,
        expected,
    } in cases()
    {
        assert_eq!(found(&frame), expected, "{sender}");
        check_spans(&frame);
        *formats
            .entry(expected[0].split(' ').next().unwrap().to_owned())
            .or_insert(0) += 1;
    }
    assert!(
        formats.len() == 4 && formats.values().all(|cases| *cases > 10),
        "{formats:?}"
    );
}

#[test]
fn every_case_may_be_cut_anywhere_and_ended_by_any_terminator() {
    for Case { sender, frame, .. } in cases() {
        for end in 0..frame.len() {
            check_spans(&frame[..end]);
            check_spans(&frame[end..]);
        }
        let bare = Message::parse(trimmed(&frame));
        for terminator in ["\n", "\r\n", "\0", "\n\0", "\r\r\n\n\0\0"] {
            let ended = [trimmed(&frame), terminator.as_bytes()].concat();
            assert_eq!(Message::parse(&ended).spans, bare.spans, "{sender}");
        }
    }
}

/// CVE-2014-3634, CVE-2014-3683: facility and severity indexed beyond an array.
#[test]
fn no_pri_is_ever_out_of_range() {
    for value in 0..=2_000_u16 {
        let frame = format!("<{value}>Mar  1 18:46:11 h app: text");
        let message = Message::parse(frame.as_bytes());
        let expected = u8::try_from(value).ok().and_then(Pri::new);
        assert_eq!(message.pri, expected, "{frame}");
        assert_eq!(
            message.pri_or_default(),
            expected.unwrap_or(Pri::ABSENT),
            "{frame}"
        );
        assert_eq!(
            message.format == Format::Unparsed,
            expected.is_none(),
            "{frame}"
        );
    }
}

/// CVE-2011-3200 and CVE-2023-6246 (tag, ident), CVE-2025-12970 (name), CVE-2020-35488.
#[test]
fn fields_may_be_as_long_as_the_frame() {
    let long = "x".repeat(100_000);
    for (frame, app_name) in [
        (format!("<13>Mar  1 18:46:11 h {long}: text"), Some(&long)),
        (format!("<13>Mar  1 18:46:11 {long} app: text"), None),
        (format!("<13>{long}[{long}]: text"), Some(&long)),
        (
            format!("<13>1 - {long} {long} {long} {long} [{long} {long}=\"{long}\"] text"),
            Some(&long),
        ),
    ] {
        let message = Message::parse(frame.as_bytes());
        assert_eq!(message.msg(), b"text");
        if let Some(app_name) = app_name {
            assert_eq!(message.app_name(), Some(app_name.as_bytes()));
        }
        check_spans(frame.as_bytes());
    }
}

/// CVE-2019-17040, -17041, -17042: a length became negative where a separator was missing.
#[test]
fn a_missing_separator_ends_nothing() {
    for frame in [
        "<13>Mar  1 18:46:11 Message forwarded from ",
        "<13>Mar  1 18:46:11 Message forwarded from aix1",
        "<13>Mar  1 18:46:11 Message forwarded from aix1:",
        "<13>Mar  1 18:46:11 Message forwarded from :",
        "<13>Mar  1 18:46:11 Message forwarded from : text",
        "<13>Mar  1 18:46:11 h app[",
        "<13>Mar  1 18:46:11 h app[]",
        "<13>Mar  1 18:46:11 h [",
        "<13>Mar  1 18:46:11 h :",
        "<13>Mar  1 18:46:11 :",
        "<13>:",
        "<13>::",
        "<13>[",
        "<13>a[:",
        "<189>1: 2: 3: 4:",
        "<189>1: %",
        "<189>1: %SYS",
        "<189>1: %SYS-",
        "<189>1: %SYS-5",
        "<189>1: %SYS-5-",
        "<189>1: %SYS-5-X",
        "<189>RP/0/RSP0/CPU0:",
        "<189>1: a[1",
        "<189>1: [1]: %SYS-5-X: y",
        "<189>1: ]: %SYS-5-X: y",
    ] {
        check_spans(frame.as_bytes());
        assert_ne!(
            Message::parse(frame.as_bytes()).format,
            Format::Cisco,
            "{frame}"
        );
    }
}

/// CVE-2022-38725, CVE-2007-6437: timestamps cut short, or with nothing behind them.
#[test]
fn a_timestamp_may_end_anywhere() {
    for frame in [
        "<13>Mar  1 18:46:11",
        "<13>2026-03-01T18:46:11.",
        "<13>1 2026-03-01T18:46:11+",
    ] {
        for end in 0..=frame.len() {
            for behind in ["", " ", ":", "\0", "\n"] {
                check_spans(&[&frame.as_bytes()[..end], behind.as_bytes()].concat());
            }
        }
    }
}

#[test]
fn nul_line_feeds_and_invalid_utf8_inside_are_octets_like_others() {
    let message = Message::parse(b"<13>Mar  1 18:46:11 h app: a\0\n\xff\xc3b\n");
    assert_eq!(message.msg(), b"a\0\n\xff\xc3b");
}

/// CVE-2018-16866: a message that ends in a colon was read beyond its end.
#[test]
fn a_message_may_end_in_a_colon() {
    let message = Message::parse(b"<13>Mar  1 18:46:11 h app:");
    assert_eq!(
        (message.app_name(), message.msg()),
        (Some(&b"app"[..]), &b""[..])
    );
}

/// CVE-2019-9749, CVE-2011-1951: octets that made a parser crash or search for ever. A parser that is not
/// linear would take hours here.
#[test]
fn floods_cost_linear_time() {
    for piece in [
        "<",
        "1",
        " ",
        ":",
        "[",
        "]",
        "a:",
        "a[",
        "a ",
        "[a",
        "%",
        "1: ",
        "\0",
        "\r",
        "\\",
        "[a b=\"c\"]",
        "\"",
    ] {
        let flood = piece.repeat(1_000_000 / piece.len());
        for head in [
            "",
            "<13>",
            "<13>Mar  1 18:46:11 ",
            "<13>Mar  1 18:46:11 h ",
            "<13>1 - - - - - ",
            "<13>1 - - - - - [a b=\"",
            "<189>1: ",
        ] {
            check_spans(format!("{head}{flood}").as_bytes());
        }
    }
}

#[test]
fn repeat_counts_of_senders_are_never_suppressed() {
    for (frame, expected) in [
        ("<13>Mar  1 18:46:11 last message repeated 3 times", true),
        (
            "<13>Mar  1 18:46:11 host last message repeated 12 times in 7 seconds",
            true,
        ),
        (
            "<13>Mar  1 18:46:11 host app[1]: message repeated 3 times: [ text]",
            true,
        ),
        (
            "<13>Mar  1 18:46:11 message repeated 3 times: [ text]",
            true,
        ),
        ("<13>last message repeated 3 times", true),
        (
            "<13>1 - h a - - - \u{feff} last message repeated 3 times",
            true,
        ),
        ("last message repeated 3 times", true),
        (
            "<189>237: *Mar  1 18:46:11: %SYS-5-CONFIG_I: message repeated 3 times: [ text]",
            true,
        ),
        ("<13>app: text [message repeated 3 times]", true),
        ("<13>app: text [message repeated times]", false),
        ("<13>app: text 3 times]", false),
        ("<13>last message repeated times", false),
        ("<13>last message repeated 3", false),
        ("<13>last message repeated x times", false),
        ("<13>message repeated 3 times", false),
        ("<13>the last message repeated 3 times", false),
        ("<13>Mar  1 18:46:11 host app: text", false),
    ] {
        assert_eq!(
            Message::parse(frame.as_bytes()).never_suppress,
            expected,
            "{frame}"
        );
    }
}

#[test]
fn a_compressed_message_is_in_no_format_and_never_suppressed() {
    let message = Message::parse(b"zx\x9c\xb2\x31\x34\x36\xb1\xf3\n\0");
    assert!(message.compressed && message.never_suppress && message.is_binary());
    assert_eq!(message.format, Format::Unparsed);
    let text = Message::parse(b"zx^2 + y^2: a text");
    assert!(!text.compressed && !text.never_suppress && !text.is_binary());
}

#[test]
fn only_frames_in_no_format_are_searched_for_control_octets() {
    for (frame, is_binary) in [
        (&b"<13>app: \x01"[..], false),
        (b"app: \x01", true),
        (b"<13>1 \x01", true),
        (b"<192>a\x7f", true),
        (b"a\tb\r\nc\r\n\0\0", false),
        (b"a\0b", true),
        (b"\x80\xff", false),
        (b"", false),
    ] {
        let message = Message::parse(frame);
        assert_eq!(message.is_binary(), is_binary, "{}", frame.escape_ascii());
    }
    for at in 0..200 {
        let mut frame = vec![b'x'; 200];
        frame[at] = 0x1b;
        assert!(Message::parse(&frame).is_binary(), "{at}");
    }
}

#[test]
fn signatures_are_never_suppressed() {
    for (frame, expected) in [
        (
            "<110>1 - h syslogd - - [ssign VER=\"0111\" SIGN=\"x\"]",
            true,
        ),
        (
            "<110>1 - h syslogd - - [meta sequenceId=\"1\"][ssign-cert VER=\"0111\"] x",
            true,
        ),
        ("<110>1 - h syslogd - - [ssign2 VER=\"0111\"]", false),
        ("<110>1 - h syslogd - - - [ssign VER=\"0111\"]", false),
    ] {
        assert_eq!(
            Message::parse(frame.as_bytes()).never_suppress,
            expected,
            "{frame}"
        );
    }
}

#[test]
fn ranges_say_where_a_summary_puts_its_parts() {
    for (frame, timestamp, structured_data) in [
        (
            "<13>1 2026-03-01T18:46:11Z h a - - - x",
            Some(6..26),
            35..36,
        ),
        ("<13>1 - h a - - [a b=\"c\"] x", None, 16..25),
        ("<13>1 - h a - m text", None, 15..15),
        ("<13>1 - h a - m", None, 15..15),
        ("<13>Mar  1 18:46:11 h a: x", Some(4..19), 0..0),
    ] {
        let message = Message::parse(frame.as_bytes());
        assert_eq!(message.timestamp_range(), timestamp, "{frame}");
        assert_eq!(message.structured_data_range(), structured_data, "{frame}");
    }
}

#[test]
fn elements_are_walked_in_their_order() {
    let message = Message::parse(b"<13>1 - h a - - [meta x=\"1\"][b y=\"2\"] [c z=\"3\"]");
    let ids: Vec<_> = message.sd_elements().map(|sd| sd.sd_id).collect();
    assert_eq!(ids, [&b"meta"[..], b"b"]);
    assert_eq!(
        Message::parse(b"<13>1 - h a - - -").sd_elements().count(),
        0
    );
}

#[test]
fn a_repeat_is_recognised_by_all_but_its_timestamp() {
    for (frame, other, expected) in [
        (
            "<13>Mar  1 18:46:11 h a[1]: x",
            "<13>Mar 11 08:00:59 h a[1]: x",
            true,
        ),
        (
            "<13>Mar  1 18:46:11 h a[1]: x",
            "<13>Mar  1 18:46:11 h a[1]: x",
            true,
        ),
        (
            "<13>Mar  1 18:46:11 h a[1]: x",
            "<13>Mar  1 18:46:11 h a[2]: x",
            false,
        ),
        (
            "<13>Mar  1 18:46:11 h a[1]: x",
            "<12>Mar  1 18:46:11 h a[1]: x",
            false,
        ),
        (
            "<13>Mar  1 18:46:11 h a[1]: x",
            "<13>Mar  1 18:46:71 h a[1]: x",
            false,
        ),
        (
            "<13>Mar  1 18:46:11 h a[1]: x",
            "<13>Mar  1 18:46:11 h a[1]: xx",
            false,
        ),
        (
            "<13>1 2026-03-01T18:46:11Z h a - - - x",
            "<13>1 2026-04-30T00:00:00Z h a - - - x",
            true,
        ),
        (
            "<13>1 2026-03-01T18:46:11Z h a - - - x",
            "<13>1 2026-04-30T00:00:00+ h a - - - x",
            false,
        ),
        ("<13>1 - h a - - - x", "<13>1 - h a - - - x", true),
        ("free text", "free text", true),
        ("free text", "free tex.", false),
    ] {
        let message = Message::parse(frame.as_bytes());
        let repeated = message.repeated(other.as_bytes());
        assert_eq!(repeated.is_some(), expected, "{frame} | {other}");
        if let Some(repeated) = repeated {
            assert_eq!(repeated, Message::parse(other.as_bytes()));
        }
    }
}

/// Nearly valid frames: a case with some octets replaced, removed or inserted.
fn mutated_case() -> impl Strategy<Value = Vec<u8>> {
    let interesting = prop_oneof![select(&b" :[]<>-\"\\=%*.\n\r\0 019TZ"[..]), any::<u8>(),];
    let edits = vec((any::<Index>(), 0u8..3, interesting), 0..6);
    (select(cases().collect::<Vec<_>>()), edits).prop_map(|(Case { mut frame, .. }, edits)| {
        for (index, edit, octet) in edits {
            let at = index.index(frame.len() + 1);
            match edit {
                0 => frame.insert(at, octet),
                1 if at < frame.len() => frame[at] = octet,
                _ if at < frame.len() => drop(frame.remove(at)),
                _ => {}
            }
        }
        frame
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: 2_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn arbitrary_octets_parse_without_panic(frame in vec(any::<u8>(), 0..300)) {
        check_spans(&frame);
        check_spans(&[b"<13>", &frame[..]].concat());
        check_spans(&[b"<13>1 ", &frame[..]].concat());
        check_spans(&[b"<13>Mar  1 18:46:11 ", &frame[..]].concat());
    }

    #[test]
    fn nearly_valid_frames_parse_without_panic(frame in mutated_case()) {
        check_spans(&frame);
    }

    #[test]
    fn a_repeat_is_parsed_as_if_it_were_alone(
        case in select(cases().collect::<Vec<_>>()),
        edits in vec((any::<Index>(), select(&b"0123456789 :.-TZ2"[..])), 1..4),
    ) {
        let message = Message::parse(&case.frame);
        let mut other = case.frame.clone();
        // Mostly in the timestamp: a repeat may differ there.
        let timestamp = message.timestamp_range().unwrap_or(0..other.len());
        for (index, octet) in edits {
            let at = timestamp.start + index.index(timestamp.len() + 1);
            if let Some(place) = other.get_mut(at) {
                *place = octet;
            }
        }
        if let Some(repeated) = message.repeated(&other) {
            prop_assert_eq!(repeated, Message::parse(&other));
        }
    }
}
