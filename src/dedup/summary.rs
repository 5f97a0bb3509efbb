//! The summary: one line that reports the copies held back under a mark.
//!
//! A summary goes out as the message itself: the frame of a held back copy, with the TIMESTAMP of the
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
//! # Guarantees
//!
//! - PRI, HOSTNAME, APP-NAME, PROCID, MSGID, format and text are those of the copies.
//! - An RFC 5424 summary carries the SD-ELEMENT `tersed@32473` with `count`, `first`, `last` (UTC, by our
//!   clock, of the copies held back) and `window` behind the elements that were there.
//! - The count never includes a copy that was forwarded.
//!
//! # Left out
//!
//! Framing, and whether a summary is wanted at all ([`SummaryStyle::None`] writes nothing).

use std::{io::Write as _, ops::Range};

use super::Ended;
use crate::{
    parse::{Format, Message},
    rule::SummaryStyle,
    tick::WallTime,
};

/// The SD-ID of our element. 32473 is the enterprise number that RFC 5612 reserves for examples;
/// it stays until the project has a number of its own.
pub const SD_ID: &str = "tersed@32473";

/// Appends the summary of `ended` to `out`, without framing. `first` and `last` are when the first
/// and the last of the copies held back arrived. Gives whether anything was written.
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
        let structured_data = message.structured_data_range();
        if message.structured_data().is_some() {
            copy(out, &ended.frame, at..structured_data.end);
        } else {
            copy(out, &ended.frame, at..structured_data.start);
        }
        write_element(out, ended, first, last);
        at = structured_data.end;
        if msg.start == at {
            // A frame that ends behind its STRUCTURED-DATA, or omits it.
            out.push(b' ');
        }
    }
    copy(out, &ended.frame, at..msg.start);
    let text = ended.frame.get(msg).unwrap_or_default();
    let count = ended.count;
    match style {
        SummaryStyle::Prefix => {
            append(out, format_args!("message repeated {count} times: [ "));
            out.extend_from_slice(text);
            out.push(b']');
        }
        SummaryStyle::Suffix => {
            out.extend_from_slice(text);
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
            "[{SD_ID} count=\"{}\" first=\"{first}\" last=\"{last}\" window=\"{}\"]",
            ended.count,
            humantime::format_duration(ended.window),
        ),
    );
}

fn append(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text)
        .expect("writing to a Vec always succeeds");
}

fn copy(out: &mut Vec<u8>, frame: &[u8], range: Range<usize>) {
    out.extend_from_slice(frame.get(range).unwrap_or_default());
}
