//! The summary: one line that reports the suppressed copies of a message.
//!
//! A summary looks like the message itself: the frame of a suppressed copy, with the TIMESTAMP of the
//! last one, and its text wrapped:
//!
//! ```text
//! prefix   <34>Nov 22 10:00:09 host su[231]: message repeated 41 times: [ 'su root' failed]
//! suffix   <34>Nov 22 10:00:09 host su[231]: 'su root' failed [message repeated 41 times]
//! ```
//!
//! The prefix is rsyslog's wording to the octet, closing bracket included, because that is what the
//! patterns of log analysers were written for.
//!
//! If masks or a choice of fields fold copies that differ, the summary says so, and shows the last one:
//!
//! ```text
//! prefix   <34>... su[231]: message repeated 41 times, 7 different texts from 3 hosts: [ 'su root' failed for bob]
//! suffix   <34>... su[231]: 'su root' failed for bob [7 different texts from 3 hosts] [message repeated 41 times]
//! ```
//!
//! The wording differs on purpose: an analyser that reads `message repeated 41 times: [` as 41 times this very text
//! would count wrong. If all copies turn out to be the same, the usual wording is used.
//!
//! # Guarantees
//!
//! - PRI, HOSTNAME, APP-NAME, PROCID, MSGID, format and text are those of the copies.
//! - An RFC 5424 summary carries the SD-ELEMENT `tersed@32473` behind the existing elements, with `count`, `first`,
//!   `last` (UTC, by our clock, of the suppressed copies) and `window`; and with `texts` and `hosts` if such are
//!   folded.
//! - The count never includes a copy that was forwarded.
//!
//! # Left out
//!
//! Framing, and whether a summary is wanted at all ([`SummaryStyle::None`] writes nothing).

use std::{io::Write as _, ops::Range};

use super::Ended;
use crate::core::{
    parse::{Format, Message},
    rule::SummaryStyle,
    tick::WallTime,
};

/// The SD-ID of our element. 32473 is the enterprise number that RFC 5612 reserves for examples;
/// it stays until the project has a number of its own.
pub const SD_ID: &str = "tersed@32473";

/// Appends the summary of `ended` to `out`, without framing. `first` and `last` are when the first
/// and the last suppressed copy arrived. Returns whether anything was written.
pub fn write(
    out: &mut Vec<u8>,
    ended: &Ended,
    style: SummaryStyle,
    first: WallTime,
    last: WallTime,
) -> bool {
    if style == SummaryStyle::None {
        return false;
    }
    let message = Message::parse(&ended.frame);
    let msg = message.msg_range();
    let mut at = 0;
    if let Some(timestamp) = message.timestamp_range() {
        copy(out, &ended.frame, at..timestamp.start);
        match &ended.last_timestamp {
            Some(latest) => out.extend_from_slice(latest),
            None => copy(out, &ended.frame, timestamp.clone()),
        }
        at = timestamp.end;
    }
    if message.format == Format::Rfc5424 {
        at = write_behind_elements(out, &message, at, |out| {
            write_element(out, ended, first, last);
        });
        if msg.start == at {
            // The frame ended behind its STRUCTURED-DATA.
            out.push(b' ');
        }
    }
    let content = message.content_range();
    copy(out, &ended.frame, at..content.start);
    let text = &ended.frame[content];
    let count = ended.count;
    let variety = ended.variety.filter(|variety| !variety.is_uniform());
    match style {
        SummaryStyle::Prefix => {
            match variety {
                None => append(out, format_args!("message repeated {count} times: [ ")),
                Some(variety) => append(
                    out,
                    format_args!("message repeated {count} times, {variety}: [ "),
                ),
            }
            out.extend_from_slice(text);
            out.push(b']');
        }
        SummaryStyle::Suffix => {
            out.extend_from_slice(text);
            if let Some(variety) = variety {
                append(out, format_args!(" [{variety}]"));
            }
            append(out, format_args!(" [message repeated {count} times]"));
        }
        SummaryStyle::None => {}
    }
    true
}

fn write_element(out: &mut Vec<u8>, ended: &Ended, first: WallTime, last: WallTime) {
    append(
        out,
        format_args!(
            "[{SD_ID} count=\"{}\" first=\"{first}\" last=\"{last}\" window=\"{}\"",
            ended.count,
            humantime::format_duration(ended.window),
        ),
    );
    if let Some(variety) = ended.variety {
        for (name, several) in [("texts", variety.texts), ("hosts", variety.hosts)] {
            if let Some(several) = several {
                append(out, format_args!(" {name}=\"{several}\""));
            }
        }
    }
    out.push(b']');
}

/// Appends an RFC 5424 frame from `at` up to the end of its STRUCTURED-DATA, and behind that the element that
/// `write` writes. Returns where the rest of the frame begins.
pub(super) fn write_behind_elements(
    out: &mut Vec<u8>,
    message: &Message<'_>,
    at: usize,
    write: impl FnOnce(&mut Vec<u8>),
) -> usize {
    let structured_data = message.structured_data_range();
    let kept = if message.structured_data().is_none() {
        structured_data.start
    } else {
        structured_data.end
    };
    copy(out, message.frame(), at..kept);
    if structured_data.is_empty() {
        // The sender left out STRUCTURED-DATA: its place is directly behind MSGID.
        out.push(b' ');
    }
    write(out);
    structured_data.end
}

fn append(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text)
        .expect("writing to a Vec always succeeds");
}

fn copy(out: &mut Vec<u8>, frame: &[u8], range: Range<usize>) {
    out.extend_from_slice(&frame[range]);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::core::{
        dedup::annotation::Annotation,
        dedup::{EndReason, KeptTimestamp, Several, Variety},
        rule::PolicyId,
        tick::Tick,
    };

    fn ended(frame: &[u8], last_timestamp: Option<&[u8]>) -> Ended {
        let mut kept = KeptTimestamp::NONE;
        kept.set(last_timestamp);
        Ended {
            policy: PolicyId(0),
            generation: 0,
            reason: EndReason::Window,
            count: 41,
            first: Tick::ZERO,
            last: Tick::ZERO,
            window: Duration::from_secs(10),
            frame: frame.into(),
            variety: None,
            last_timestamp: kept.is_some().then_some(kept),
        }
    }

    #[track_caller]
    fn check(style: SummaryStyle, frame: &[u8], last: Option<&[u8]>, expected: &[u8]) {
        let mut out = Vec::new();
        let (first_at, last_at) = (WallTime::from_micros(0), WallTime::from_micros(9_500_000));
        assert!(write(
            &mut out,
            &ended(frame, last),
            style,
            first_at,
            last_at
        ));
        assert_eq!(
            out.escape_ascii().to_string(),
            expected.escape_ascii().to_string()
        );
        if Message::parse(frame).format != Format::Unparsed {
            assert_eq!(
                Message::parse(&out).format,
                Message::parse(frame).format,
                "a summary goes out in the format of its copies"
            );
        }
    }

    #[test]
    fn the_prefix_is_worded_as_rsyslog_does() {
        check(
            SummaryStyle::Prefix,
            b"<34>Nov 22 10:00:01 host su[231]: 'su root' failed\r\n",
            Some(b"Nov 22 10:00:09"),
            b"<34>Nov 22 10:00:09 host su[231]: message repeated 41 times: [ 'su root' failed]",
        );
    }

    #[test]
    fn the_suffix_leaves_the_text_first() {
        check(
            SummaryStyle::Suffix,
            b"<34>Nov 22 10:00:01 host su[231]: 'su root' failed",
            Some(b"Nov 22 10:00:09"),
            b"<34>Nov 22 10:00:09 host su[231]: 'su root' failed [message repeated 41 times]",
        );
    }

    #[test]
    fn copies_that_were_not_the_same_are_not_reported_as_if_they_were() {
        let frame: &[u8] = b"<34>1 - h su - - - failed for bob";
        let check = |texts, hosts, style, expected: &str| {
            let variety = Variety {
                texts: Some(texts),
                hosts: Some(hosts),
            };
            let ended = Ended {
                variety: Some(variety),
                ..ended(frame, None)
            };
            let mut out = Vec::new();
            let at = WallTime::from_micros(0);
            assert!(write(&mut out, &ended, style, at, at));
            let out = String::from_utf8(out).unwrap();
            let (before, element) = out.split_once(" window=\"10s\" ").unwrap();
            assert!(before.starts_with("<34>1 - h su - - [tersed@32473 count=\"41\""));
            assert_eq!(element, expected);
            assert!(Message::parse(out.as_bytes()).never_suppress, "{out}");
        };
        let (one, some, many) = (
            Several::Exactly(1),
            Several::Exactly(7),
            Several::AtLeast(17),
        );
        let (prefix, suffix) = (SummaryStyle::Prefix, SummaryStyle::Suffix);
        check(
            some,
            one,
            prefix,
            "texts=\"7\" hosts=\"1\"] message repeated 41 times, 7 different texts: [ failed for bob]",
        );
        check(
            one,
            one,
            prefix,
            "texts=\"1\" hosts=\"1\"] message repeated 41 times: [ failed for bob]",
        );
        check(
            many,
            some,
            suffix,
            "texts=\">= 17\" hosts=\"7\"] failed for bob [>= 17 different texts from 7 hosts] \
             [message repeated 41 times]",
        );
        check(
            one,
            some,
            prefix,
            "texts=\"1\" hosts=\"7\"] message repeated 41 times, from 7 hosts: [ failed for bob]",
        );
    }

    #[test]
    fn what_has_no_header_is_wrapped_behind_its_pri() {
        check(
            SummaryStyle::Prefix,
            b"<13>{\"a\":1}",
            None,
            b"<13>message repeated 41 times: [ {\"a\":1}]",
        );
        check(
            SummaryStyle::Prefix,
            b"text",
            None,
            b"message repeated 41 times: [ text]",
        );
        check(
            SummaryStyle::Prefix,
            b"<999>text",
            None,
            b"message repeated 41 times: [ <999>text]",
        );
    }

    #[test]
    fn a_cisco_mnemonic_stays_in_front() {
        check(
            SummaryStyle::Prefix,
            b"<189>237: *Mar  1 18:46:11: %SYS-5-CONFIG_I: Configured",
            Some(b"Mar  1 18:46:12"),
            b"<189>237: *Mar  1 18:46:12: %SYS-5-CONFIG_I: message repeated 41 times: [ Configured]",
        );
    }

    #[test]
    fn an_rfc5424_summary_carries_its_figures_behind_the_elements_that_were_there() {
        let element: &[u8] = b"[tersed@32473 count=\"41\" first=\"1970-01-01T00:00:00.000000Z\" \
            last=\"1970-01-01T00:00:09.500000Z\" window=\"10s\"]";
        let expect = |before: &[u8], after: &[u8]| [before, element, after].concat();
        let wrapped: &[u8] = b" message repeated 41 times: [ text]";
        for (frame, before, after) in [
            (
                &b"<34>1 2026-01-01T00:00:00Z h a p m - text"[..],
                &b"<34>1 2026-01-01T00:00:09Z h a p m "[..],
                wrapped,
            ),
            (
                b"<34>1 2026-01-01T00:00:00Z h a p m [x@1 a=\"b\"] text",
                b"<34>1 2026-01-01T00:00:09Z h a p m [x@1 a=\"b\"]",
                wrapped,
            ),
            (
                b"<34>1 2026-01-01T00:00:00Z h a p m - \xEF\xBB\xBFtext",
                b"<34>1 2026-01-01T00:00:09Z h a p m ",
                b" \xEF\xBB\xBFmessage repeated 41 times: [ text]",
            ),
            (
                b"<34>1 2026-01-01T00:00:00Z h a p m text",
                b"<34>1 2026-01-01T00:00:09Z h a p m ",
                wrapped,
            ),
            (
                b"<34>1 2026-01-01T00:00:00Z h a p m -",
                b"<34>1 2026-01-01T00:00:09Z h a p m ",
                b" message repeated 41 times: [ ]",
            ),
        ] {
            let last: &[u8] = b"2026-01-01T00:00:09Z";
            check(
                SummaryStyle::Prefix,
                frame,
                Some(last),
                &expect(before, after),
            );
        }
    }

    /// Pieces of frames of every format, and octets that fit nowhere.
    fn frames() -> impl Strategy<Value = Vec<u8>> {
        let pieces: [&[u8]; 20] = [
            b"<34>",
            b"<34>1 ",
            b"<189>237: ",
            b"2026-01-01T00:00:00Z ",
            b"Nov 22 10:00:01 ",
            b"*Mar  1 18:46:11: ",
            b"%SYS-5-CONFIG_I: ",
            b"host ",
            b"su[231]: ",
            b"- ",
            b"-",
            b"[x@1 a=\"b\"]",
            b"[x@1 a=\"",
            b"[",
            b" ",
            b": ",
            b"\xEF\xBB\xBF",
            b"\r\n",
            b"text",
            b"\xff\0",
        ];
        vec(select(pieces.to_vec()), 0..16).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_frame_has_a_summary_and_an_annotation(frame in frames()) {
            let at = WallTime::from_micros(0);
            for style in [SummaryStyle::Prefix, SummaryStyle::Suffix] {
                let mut out = Vec::new();
                prop_assert!(write(&mut out, &ended(&frame, Some(b"0")), style, at, at));
                prop_assert!(memchr::memmem::find(&out, b"message repeated 41 times").is_some());
            }
            let mut out = Vec::new();
            Annotation::Repeated.write(&mut out, &frame);
            prop_assert!(out.len() > frame.len());
        }
    }

    #[test]
    fn style_none_writes_nothing() {
        let mut out = b"before".to_vec();
        let at = WallTime::from_micros(0);
        assert!(!write(
            &mut out,
            &ended(b"text", None),
            SummaryStyle::None,
            at,
            at
        ));
        assert_eq!(out, b"before");
    }
}
