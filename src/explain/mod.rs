//! Explaining: how one frame is parsed, which rule it falls under, and what makes it the same as others.
//!
//! # Guarantees
//!
//! - What is said is taken from the very stages that judge: `parse`, `rule`, `identity`.
//! - [`Explanation::identity`] is equal for two frames iff they are the same message. It is a digest of 128
//!   bits under a key that everybody knows, so that it is the same in every run: by accident two
//!   messages share one with a probability of 2^-128 a pair. A sender who sets out to may construct
//!   such a pair; nothing is ever decided by it.
//! - Messages that a rule passes or drops have an identity as well: by its fields and masks, although nothing
//!   compares it.
//! - Octets that are no UTF-8 are shown as U+FFFD; nothing else is changed.
//!
//! # Left out
//!
//! Verdicts, which depend on what was said before (see `replay`). Names of facilities and severities
//! in JSON, where numbers stand.

use std::borrow::Cow;
use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

use crate::config::time_text;
use crate::identity::{Field, Identifier, IdentityKind, Key, Origin, Spec};
use crate::logging::{Escaped, is_hidden};
use crate::parse::{Format, Message};
use crate::rule::{Action, FACILITIES, LITERAL, PolicyId, Reach, Rules, Scratch};

mod why;

pub use self::why::Why;

/// Explains frames, one at a time.
#[derive(Debug)]
pub struct Explainer<'a> {
    rules: &'a Rules,
    namer: Namer,
    origin: Origin<'a>,
    reach: Reach,
    scratch: Scratch,
}

impl<'a> Explainer<'a> {
    /// An explainer of what `rules` do to frames that came from `origin`.
    #[must_use]
    pub fn new(rules: &'a Rules, origin: Origin<'a>) -> Self {
        Self {
            rules,
            namer: Namer::default(),
            origin,
            reach: rules.reach(origin.listener),
            scratch: Scratch::default(),
        }
    }

    /// Explains `frame`; with sentences if `depth` asks for them.
    pub fn explain<'f>(&mut self, frame: &'f [u8], depth: Depth) -> Explanation<'f> {
        let message = Message::parse(frame);
        let text = |octets: Option<&'f [u8]>| octets.map(String::from_utf8_lossy);
        let (rules, origin) = (self.rules, self.origin);
        let id = rules.decide(&message, origin.sender, self.reach, &mut self.scratch);
        let ruling = Ruling::of(rules, id);
        let spec = &rules.policy(id).identity;
        Explanation {
            format: format_word(message.format),
            pri: message.pri.map(crate::parse::Pri::prival),
            facility: message.pri.map(crate::parse::Pri::facility),
            severity: message.pri.map(crate::parse::Pri::severity),
            timestamp: text(message.timestamp()),
            hostname: text(message.hostname()),
            app_name: text(message.app_name()),
            procid: text(message.procid()),
            msgid: text(message.msgid()),
            structured_data: text(message.structured_data()),
            msg: text(Some(message.msg()).filter(|msg| !msg.is_empty())),
            rule: ruling.rule.to_owned(),
            action: ruling.action_word(),
            window: ruling.window.map(time_text),
            identity: self.namer.name(rules, id, &message, origin),
            masked: masked(&message, spec),
            why: match depth {
                Depth::Facts => None,
                Depth::Reasons => Some(Why::of(&message, spec, origin)),
            },
        }
    }
}

/// How much is explained.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Depth {
    /// What is found.
    Facts,
    /// Also why each field counts or does not.
    Reasons,
}

/// One frame, explained. `None` is absent.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation<'f> {
    /// `rfc5424`, `rfc3164`, `cisco` or `unparsed`.
    pub format: &'static str,
    /// PRIVAL.
    pub pri: Option<u8>,
    /// 0 to 23.
    pub facility: Option<u8>,
    /// 0 to 7.
    pub severity: Option<u8>,
    /// As it was sent.
    pub timestamp: Option<Cow<'f, str>>,
    /// As it was sent.
    pub hostname: Option<Cow<'f, str>>,
    /// APP-NAME, or the tag.
    pub app_name: Option<Cow<'f, str>>,
    /// PROCID, or what stands in brackets behind the tag.
    pub procid: Option<Cow<'f, str>>,
    /// MSGID.
    pub msgid: Option<Cow<'f, str>>,
    /// All elements.
    pub structured_data: Option<Cow<'f, str>>,
    /// MSG.
    pub msg: Option<Cow<'f, str>>,
    /// The rule that decides; `default` is `[dedup]`.
    pub rule: String,
    /// `dedup`, `pass` or `drop`: what the rule does where it is enforced.
    pub action: &'static str,
    /// How long the message counts as said, if it ever does.
    pub window: Option<String>,
    /// Equal for two frames iff they are the same message; in hexadecimal.
    pub identity: String,
    /// The text that counts, with `<name>` for what a mask folds; empty if MSG does not count.
    pub masked: Cow<'f, str>,
    /// Why each field counts or does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<Why>,
}

impl Explanation<'_> {
    /// Writes it for people: a field a line, what is absent left out, what drives a terminal escaped.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let number = |number: Option<u8>| number.map(|number| number.to_string());
        let named = |code: Option<u8>, names: &[&str]| {
            let code = code?;
            let name = names.get(usize::from(code)).copied().unwrap_or_default();
            Some(format!("{code} ({name})"))
        };
        let shown = |text: &Option<Cow<'_, str>>| text.as_deref().map(escaped);
        let masked = (self.msg.as_deref() != Some(&*self.masked)).then(|| escaped(&self.masked));
        let why = self.why.as_ref();
        let fields = [
            ("format", Some(self.format.to_owned()), None),
            ("pri", number(self.pri), why.map(|why| &why.pri)),
            (
                "facility",
                named(self.facility, &FACILITIES),
                why.map(|why| &why.facility),
            ),
            (
                "severity",
                named(self.severity, &SEVERITIES),
                why.map(|why| &why.severity),
            ),
            (
                "timestamp",
                shown(&self.timestamp),
                why.map(|why| &why.timestamp),
            ),
            (
                "hostname",
                shown(&self.hostname),
                why.map(|why| &why.hostname),
            ),
            (
                "app_name",
                shown(&self.app_name),
                why.map(|why| &why.app_name),
            ),
            ("procid", shown(&self.procid), why.map(|why| &why.procid)),
            ("msgid", shown(&self.msgid), why.map(|why| &why.msgid)),
            (
                "structured_data",
                shown(&self.structured_data),
                why.map(|why| &why.structured_data),
            ),
            ("msg", shown(&self.msg), why.map(|why| &why.msg)),
            ("rule", Some(escaped(&self.rule)), None),
            ("action", Some(self.action.to_owned()), None),
            ("window", self.window.clone(), None),
            ("identity", Some(self.identity.clone()), None),
            ("masked", masked, None),
            ("source", None, why.and_then(|why| why.source.as_ref())),
            ("listener", None, why.and_then(|why| why.listener.as_ref())),
        ];
        for (name, value, why) in fields {
            match (value, why) {
                (Some(value), _) => writeln!(out, "{name:<16} {value}")?,
                (None, Some(_)) => writeln!(out, "{name:<16} -")?,
                (None, None) => {}
            }
            if let Some(why) = why {
                writeln!(out, "{:<16}   {}", "", escaped(why))?;
            }
        }
        Ok(())
    }
}

/// What the rules say about a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ruling<'a> {
    /// The rule's name; `default` is `[dedup]`.
    pub rule: &'a str,
    /// What is done with the message where the rule is enforced. What is never suppressed passes.
    pub action: Action,
    /// How long it counts as said, if it ever does.
    pub window: Option<Duration>,
}

impl<'a> Ruling<'a> {
    /// What it is to fall under `id` of `rules`.
    #[must_use]
    pub fn of(rules: &'a Rules, id: PolicyId) -> Self {
        let fall = rules.fall(id);
        let action = if id == LITERAL {
            Action::Pass
        } else {
            fall.action
        };
        Self {
            rule: &fall.name,
            action,
            window: (action == Action::Dedup).then_some(fall.policy.window.window),
        }
    }

    /// The word for the action.
    #[must_use]
    pub const fn action_word(&self) -> &'static str {
        match self.action {
            Action::Dedup => "dedup",
            Action::Pass => "pass",
            Action::Drop => "drop",
        }
    }
}

/// Gives messages names: digests of their rules and identities, the same in every run.
#[derive(Debug)]
pub(crate) struct Namer {
    key: Key,
}

impl Default for Namer {
    fn default() -> Self {
        Self {
            key: Key::from_seed(NAME_SEED),
        }
    }
}

impl Namer {
    /// The name of `message`, which falls under `id` of `rules` and came from `origin`.
    pub(crate) fn name(
        &self,
        rules: &Rules,
        id: PolicyId,
        message: &Message<'_>,
        origin: Origin<'_>,
    ) -> String {
        let fall = rules.fall(id);
        let mut octets = Vec::new();
        if id > LITERAL {
            // No identity begins so: what falls under two rules is never the same.
            octets.push(KIND_OF_RULE);
            octets.extend_from_slice(&(fall.name.len() as u64).to_le_bytes());
            octets.extend_from_slice(fall.name.as_bytes());
        }
        let identifier = Identifier::new(&self.key, IdentityKind::Exact);
        identifier.append_by(&fall.policy.identity, message, origin, &mut octets);
        let digest = self.key.digest(&octets);
        digest.iter().map(|octet| format!("{octet:02x}")).collect()
    }
}

/// The text of `message` that counts by `spec`.
fn masked<'f>(message: &Message<'f>, spec: &Spec) -> Cow<'f, str> {
    let is_field = spec.fields().has(Field::Msg) || message.format == Format::Unparsed;
    if message.never_suppress || is_field && spec.masks().is_empty() {
        return String::from_utf8_lossy(message.msg());
    }
    let mut text = Vec::new();
    if is_field {
        spec.masks().write_readable(message.msg(), &mut text);
    }
    String::from_utf8_lossy(&text).into_owned().into()
}

/// Text from outside, so that it can be shown on a terminal: UTF-8 as it is, controls escaped, and what changes how
/// others are shown.
pub(crate) fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            let mut octets = [0; 4];
            let octets = c.encode_utf8(&mut octets).as_bytes();
            shown.push_str(&Escaped::whole(octets).to_string());
        } else if is_hidden(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

const fn format_word(format: Format) -> &'static str {
    match format {
        Format::Rfc5424 => "rfc5424",
        Format::Rfc3164 => "rfc3164",
        Format::Cisco => "cisco",
        Format::Unparsed => "unparsed",
    }
}

/// Before the name of a rule.
const KIND_OF_RULE: u8 = 255;

/// Changing it renames every message.
const NAME_SEED: u64 = 0x7465_7273_6564;

/// By number (RFC 5424 6.2.1).
const SEVERITIES: [&str; 8] = [
    "emergency",
    "alert",
    "critical",
    "error",
    "warning",
    "notice",
    "informational",
    "debug",
];

#[cfg(test)]
mod tests;
