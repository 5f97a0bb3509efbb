//! Reasons: why a field counts or does not.
//!
//! # Guarantees
//!
//! - A sentence begins with `counts` iff the field is in the identity of the message.

use std::borrow::Cow;

use serde::Serialize;

use crate::core::identity::{Field, Origin, Spec};
use crate::core::parse::{Format, Message};

/// A sentence for each field: why it counts or does not.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(crate) struct Why {
    pub(super) pri: Cow<'static, str>,
    pub(super) facility: Cow<'static, str>,
    pub(super) severity: Cow<'static, str>,
    pub(super) timestamp: Cow<'static, str>,
    pub(super) hostname: Cow<'static, str>,
    pub(super) app_name: Cow<'static, str>,
    pub(super) procid: Cow<'static, str>,
    pub(super) msgid: Cow<'static, str>,
    pub(super) structured_data: Cow<'static, str>,
    pub(super) msg: Cow<'static, str>,
    /// Only where it counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source: Option<Cow<'static, str>>,
    /// Only where it counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) listener: Option<Cow<'static, str>>,
}

impl Why {
    pub(super) fn of(message: &Message<'_>, spec: &Spec, origin: Origin<'_>) -> Self {
        if message.never_suppress {
            return Self::all(
                "counts: a signature, a count of repeats or a compressed message is never suppressed, so every octet of the \
                 frame counts, the timestamp too",
            );
        }
        let has = |field| spec.fields().has(field);
        let if_field = |field, why: &'static str| if has(field) { why } else { NOT_CHOSEN };
        let sender = origin.sender;
        let stands_in = match has(Field::Hostname) {
            true => format!("counts: the frame names no host, so its sender, {sender}, stands in")
                .into(),
            false => NOT_CHOSEN.into(),
        };
        let how_it_came = Self {
            source: has(Field::Source).then(|| {
                format!("counts: it was sent by {sender}, whatever host the frame names").into()
            }),
            listener: has(Field::Listener).then(|| match origin.listener {
                "" => "counts: the listener that receives it, which is not known here".into(),
                name => format!("counts: it was received by the listener \"{name}\"").into(),
            }),
            ..Self::all("absent: the frame is in no known format, so it is part of the text")
        };
        let folded = folded(message, spec);
        if message.format == Format::Unparsed {
            let pri = |is_field, no_field| match (message.pri, is_field) {
                (Some(_), true) => "counts: it is valid, although the rest is in no known format",
                (Some(_), false) => no_field,
                (None, _) => {
                    "absent: the frame has no valid PRI, so all of its octets are the text"
                }
            };
            return Self {
                // A frame with a valid PRI differs from one without, even if neither part of PRI counts.
                pri: pri(true, NOT_CHOSEN).into(),
                facility: pri(has(Field::Facility), NOT_CHOSEN).into(),
                severity: pri(has(Field::Severity), NOT_CHOSEN).into(),
                hostname: stands_in,
                msg: match folded {
                    None => "counts: the frame is in no known format, so all octets after a valid PRI count".into(),
                    Some(folded) => format!(
                        "counts: the frame is in no known format, so all octets after a valid PRI count{folded}"
                    )
                    .into(),
                },
                ..how_it_came
            };
        }
        let pri = match (message.pri, has(Field::Facility), has(Field::Severity)) {
            (_, false, false) => NOT_CHOSEN,
            (None, ..) => "counts: a message without PRI has PRI 13 (RFC 3164 4.3.3)",
            (Some(_), true, true) => "counts: it holds facility and severity",
            (Some(_), true, false) => {
                "counts: it holds facility; it holds severity too, which does not count"
            }
            (Some(_), false, true) => {
                "counts: it holds severity; it holds facility too, which does not count"
            }
        };
        let (facility, severity) = match message.pri {
            Some(_) => (
                "counts: the same text from another part of the system is another message",
                "counts: the same text of another severity is another message",
            ),
            None => (
                "counts: a message without PRI has facility 1 (user)",
                "counts: a message without PRI has severity 5 (notice)",
            ),
        };
        Self {
            pri: pri.into(),
            facility: if_field(Field::Facility, facility).into(),
            severity: if_field(Field::Severity, severity).into(),
            timestamp: "does not count: every copy has its own".into(),
            hostname: match message.hostname() {
                Some(_) => if_field(
                    Field::Hostname,
                    "counts: the same text from two hosts is two messages",
                )
                .into(),
                None => stands_in,
            },
            app_name: if_field(
                Field::AppName,
                "counts: the same text from two programs is two messages; absent and empty are equal",
            )
            .into(),
            procid: match has(Field::Procid) {
                true => "counts: the same text from two processes is two messages; absent and empty are equal",
                false => "does not count: it changes when a program is started again",
            }
            .into(),
            msgid: if_field(
                Field::Msgid,
                "counts: it is the kind of event; absent and empty are equal",
            )
            .into(),
            structured_data: if_field(
                Field::StructuredData,
                "counts, except the elements meta, timeQuality and origin, which describe the \
                 transmission and not the event",
            )
            .into(),
            msg: match folded {
                _ if !has(Field::Msg) => NOT_CHOSEN.into(),
                None => "counts: it is the event, to the last octet, except a BOM before it and line ends after it"
                    .into(),
                Some(folded) => format!("counts: it is the event{folded}").into(),
            },
            ..how_it_came
        }
    }

    fn all(sentence: &'static str) -> Self {
        let sentence = || Cow::Borrowed(sentence);
        Self {
            pri: sentence(),
            facility: sentence(),
            severity: sentence(),
            timestamp: sentence(),
            hostname: sentence(),
            app_name: sentence(),
            procid: sentence(),
            msgid: sentence(),
            structured_data: sentence(),
            msg: sentence(),
            source: None,
            listener: None,
        }
    }
}

/// The masks of `spec` that fold something in MSG, as the end of a sentence; `None` if `spec` has no masks.
fn folded(message: &Message<'_>, spec: &Spec) -> Option<String> {
    let masks = spec.masks();
    if masks.is_empty() {
        return None;
    }
    let mut names: Vec<&str> = Vec::new();
    masks.each(message.msg(), |_, mask| {
        let name = masks.name(mask);
        if !names.contains(&name) {
            names.push(name);
        }
    });
    Some(if names.is_empty() {
        ", in which no mask finds anything to fold".to_owned()
    } else {
        format!(", except what is folded by {}", names.join(", "))
    })
}

const NOT_CHOSEN: &str = "does not count: it is not in fields";
