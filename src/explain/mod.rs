//! Explanations: how a frame is parsed, which rule it falls under, and which other frames are the same message.
//!
//! # Guarantees
//!
//! - The facts come from the stages that judge: `parse`, `rule`, `identity`.
//! - [`Explanation::identity`] is equal for two frames iff they are the same message. It is a 128-bit digest under a public
//!   key, so that it is the same in every run. Two different messages share one by accident with a probability of 2^-128 a
//!   pair. A sender can construct such a pair on purpose, but nothing is decided by this digest.
//! - Messages that a rule passes or drops have an identity as well, by the fields and masks of the rule, although nothing
//!   compares it.
//! - Octets that are not UTF-8 are shown as U+FFFD; nothing else is changed.
//!
//! # Left out
//!
//! Verdicts, which depend on earlier messages (see `replay`). Names of facilities and severities in JSON: it has numbers.

use std::borrow::Cow;
use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

use crate::config::{ACTION, MODE, time_text};
use crate::core::identity::{Field, Identifier, IdentityKind, Key, Origin, Spec};
use crate::core::parse::{Format, Message, Pri};
use crate::core::rule::{
    Action, LITERAL, Mode, PolicyId, Reach, Rules, Scratch, facility_name, severity_name,
};
use crate::logging::printable;

mod why;

pub(crate) use self::why::Why;

/// Explains one frame after the other.
#[derive(Debug)]
pub(crate) struct Explainer<'a> {
    rules: &'a Rules,
    namer: Namer,
    origin: Origin<'a>,
    reach: Reach,
    scratch: Scratch,
}

impl<'a> Explainer<'a> {
    /// An explainer of what `rules` do to frames from `origin`.
    #[must_use]
    pub(crate) fn new(rules: &'a Rules, origin: Origin<'a>) -> Self {
        Self {
            rules,
            namer: Namer::default(),
            origin,
            reach: rules.reach(origin.listener),
            scratch: Scratch::default(),
        }
    }

    /// Explains `frame` to that `depth`.
    pub(crate) fn explain<'f>(&mut self, frame: &'f [u8], depth: Depth) -> Explanation<'f> {
        let message = Message::parse(frame);
        let text = |octets: Option<&'f [u8]>| octets.map(String::from_utf8_lossy);
        let (rules, origin) = (self.rules, self.origin);
        let id = rules.decide(&message, origin.sender, self.reach, &mut self.scratch);
        let ruling = Ruling::of(rules, id);
        let spec = &rules.policy(id).identity;
        Explanation {
            format: format_word(message.format),
            pri: message.pri.map(Pri::prival),
            facility: message.pri.map(Pri::facility),
            severity: message.pri.map(Pri::severity),
            timestamp: text(message.timestamp()),
            hostname: text(message.hostname()),
            app_name: text(message.app_name()),
            procid: text(message.procid()),
            msgid: text(message.msgid()),
            structured_data: text(message.structured_data()),
            msg: text(Some(message.msg()).filter(|msg| !msg.is_empty())),
            rule: ruling.rule.to_owned(),
            action: ruling.action_word(),
            mode: ruling.mode.map(|mode| MODE.word(mode)),
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
pub(crate) enum Depth {
    Facts,
    /// Also why each field counts or does not.
    Reasons,
}

/// The explanation of one frame. `None` means absent.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Explanation<'f> {
    /// `rfc5424`, `rfc3164`, `cisco` or `unparsed`.
    pub format: &'static str,
    pub pri: Option<u8>,
    pub facility: Option<u8>,
    pub severity: Option<u8>,
    /// As it was sent.
    pub timestamp: Option<Cow<'f, str>>,
    /// As it was sent.
    pub hostname: Option<Cow<'f, str>>,
    /// APP-NAME, or the TAG.
    pub app_name: Option<Cow<'f, str>>,
    /// PROCID, or the text in brackets after the TAG.
    pub procid: Option<Cow<'f, str>>,
    pub msgid: Option<Cow<'f, str>>,
    pub structured_data: Option<Cow<'f, str>>,
    pub msg: Option<Cow<'f, str>>,
    /// The rule that decides; `default` is `[dedup]`.
    pub rule: String,
    /// `dedup`, `pass` or `drop`: the action of the rule, whatever its mode.
    pub action: &'static str,
    /// `enforce`, `tag` or `shadow`: whether the action is carried out; absent if it is `pass`.
    pub mode: Option<&'static str>,
    /// The window of the message, if it is deduplicated.
    pub window: Option<String>,
    /// Equal for two frames iff they are the same message; in hexadecimal.
    pub identity: String,
    /// The text that counts, with `<name>` in place of what a mask folds; empty if MSG does not count.
    pub masked: Cow<'f, str>,
    /// Why each field counts or does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<Why>,
}

impl Explanation<'_> {
    /// Writes the explanation for people: a field a line, without absent fields; characters that drive a terminal are
    /// escaped.
    ///
    /// # Errors
    ///
    /// If `out` cannot be written.
    pub(crate) fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let number = |number: Option<u8>| number.map(|number| number.to_string());
        let named = |number: Option<u8>, name: fn(u8) -> &'static str| {
            number.map(|number| format!("{number} ({})", name(number)))
        };
        let shown =
            |text: &Option<Cow<'_, str>>| text.as_deref().map(|text| printable(text).to_string());
        let masked = (self.msg.as_deref() != Some(&*self.masked))
            .then(|| printable(&self.masked).to_string());
        let why = self.why.as_ref();
        let fields = [
            ("format", Some(self.format.to_owned()), None),
            ("pri", number(self.pri), why.map(|why| &why.pri)),
            (
                "facility",
                named(self.facility, facility_name),
                why.map(|why| &why.facility),
            ),
            (
                "severity",
                named(self.severity, severity_name),
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
            ("rule", Some(printable(&self.rule).to_string()), None),
            ("action", Some(self.action.to_owned()), None),
            ("mode", self.mode.map(str::to_owned), None),
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
                writeln!(out, "{:<16}   {}", "", printable(why))?;
            }
        }
        Ok(())
    }
}

/// What the rules say about a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Ruling<'a> {
    /// The name of the rule; `default` is `[dedup]`.
    pub rule: &'a str,
    /// What the rule does if it is enforced. Messages that are never suppressed pass.
    pub action: Action,
    /// Whether the rule is enforced, unless the message passes.
    pub mode: Option<Mode>,
    /// The window of the message, if it is deduplicated.
    pub window: Option<Duration>,
}

impl<'a> Ruling<'a> {
    /// What the rules say about a message that falls under `id`.
    #[must_use]
    pub(crate) fn of(rules: &'a Rules, id: PolicyId) -> Self {
        let fall = rules.fall(id);
        let action = if id == LITERAL {
            Action::Pass
        } else {
            fall.action
        };
        Self {
            rule: &fall.name,
            action,
            mode: (action != Action::Pass).then_some(fall.policy.mode),
            window: (action == Action::Dedup).then_some(fall.policy.window.window),
        }
    }

    /// The action, as a configuration has it.
    #[must_use]
    pub(crate) fn action_word(&self) -> &'static str {
        ACTION.word(self.action)
    }
}

/// Names messages: a digest of rule and identity, the same in every run.
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
    /// The name of `message` from `origin`, which falls under `id` of `rules`.
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
            // No identity begins with this octet: messages under two rules are never the same.
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

/// The text of `message` that counts under `spec`.
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

const fn format_word(format: Format) -> &'static str {
    match format {
        Format::Rfc5424 => "rfc5424",
        Format::Rfc3164 => "rfc3164",
        Format::Cisco => "cisco",
        Format::Unparsed => "unparsed",
    }
}

/// Stands before the name of a rule.
const KIND_OF_RULE: u8 = 255;

/// Another seed would rename every message.
const NAME_SEED: u64 = 0x7465_7273_6564;

#[cfg(test)]
mod tests;
