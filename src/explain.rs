//! Explaining: how one frame is parsed, which rule it falls under, and what makes it the same as others.
//!
//! # Guarantees
//!
//! - What is said is taken from the very stages that judge: `parse`, `rule`, `identity`.
//! - [`Explanation::identity`] is equal for two frames iff they are the same message. It is a digest of 128
//!   bits under a key that everybody knows, so that it is the same in every run: by accident two
//!   messages share one with a probability of 2^-128 a pair. A sender who sets out to may construct
//!   such a pair; nothing is ever decided by it.
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
use crate::identity::{Identifier, IdentityKind, Key, Sender};
use crate::logging::Escaped;
use crate::parse::{Format, Message};
use crate::rule::{Rules, Scratch};

/// Explains frames, one at a time.
#[derive(Debug)]
pub struct Explainer<'a> {
    rules: &'a Rules,
    namer: Namer,
    sender: Sender,
}

impl<'a> Explainer<'a> {
    /// An explainer of what `rules` do to frames that `sender` sent.
    #[must_use]
    pub fn new(rules: &'a Rules, sender: Sender) -> Self {
        Self {
            rules,
            namer: Namer::default(),
            sender,
        }
    }

    /// Explains `frame`; with sentences if `depth` asks for them.
    pub fn explain<'f>(&mut self, frame: &'f [u8], depth: Depth) -> Explanation<'f> {
        let message = Message::parse(frame);
        let text = |octets: Option<&'f [u8]>| octets.map(String::from_utf8_lossy);
        let ruling = Ruling::of(self.rules, &message);
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
            action: ruling.action.word(),
            window: ruling.window.map(time_text),
            identity: self.namer.name(&message, self.sender),
            masked: String::from_utf8_lossy(message.msg()),
            why: match depth {
                Depth::Facts => None,
                Depth::Reasons => Some(Why::of(&message, self.sender)),
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
    /// `dedup`, `pass` or `drop`.
    pub action: &'static str,
    /// How long the message counts as said, if it ever does.
    pub window: Option<String>,
    /// Equal for two frames iff they are the same message; in hexadecimal.
    pub identity: String,
    /// The text that counts.
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
            ("rule", Some(self.rule.clone()), None),
            ("action", Some(self.action.to_owned()), None),
            ("window", self.window.clone(), None),
            ("identity", Some(self.identity.clone()), None),
            ("masked", masked, None),
        ];
        for (name, value, why) in fields {
            match (value, why) {
                (Some(value), _) => writeln!(out, "{name:<16} {value}")?,
                (None, Some(_)) => writeln!(out, "{name:<16} -")?,
                (None, None) => {}
            }
            if let Some(why) = why {
                writeln!(out, "{:<16}   {why}", "")?;
            }
        }
        Ok(())
    }
}

/// Why each field counts or does not: one sentence each, which begins with `counts` if it does.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Why {
    pri: Cow<'static, str>,
    facility: Cow<'static, str>,
    severity: Cow<'static, str>,
    timestamp: Cow<'static, str>,
    hostname: Cow<'static, str>,
    app_name: Cow<'static, str>,
    procid: Cow<'static, str>,
    msgid: Cow<'static, str>,
    structured_data: Cow<'static, str>,
    msg: Cow<'static, str>,
}

impl Why {
    fn of(message: &Message<'_>, sender: Sender) -> Self {
        if message.never_suppress {
            return Self::all(
                "counts: a signature or a count of repeats is never a repeat, so every octet of the frame \
                 counts, the timestamp too",
            );
        }
        let stands_in = format!("counts: no host is named, so its sender, {sender}, stands in");
        if message.format == Format::Unparsed {
            let pri = match message.pri {
                Some(_) => "counts: it is valid, although the rest fits no format",
                None => "absent: there is no valid one, so all octets of the frame are the text",
            };
            return Self {
                pri: pri.into(),
                facility: pri.into(),
                severity: pri.into(),
                hostname: stands_in.into(),
                msg: "counts: the frame fits no format, so all octets behind a valid PRI count"
                    .into(),
                ..Self::all("absent: the frame fits no format, so it is part of the text")
            };
        }
        let (pri, facility, severity) = match message.pri {
            Some(_) => (
                "counts: facility and severity are in it",
                "counts: the same text from another part of the system is another message",
                "counts: the same text, louder, gets through",
            ),
            None => (
                "counts: there is none, which is the same as 13 (RFC 3164 4.3.3)",
                "counts: without PRI a message is of facility 1 (user)",
                "counts: without PRI a message is of severity 5 (notice)",
            ),
        };
        Self {
            pri: pri.into(),
            facility: facility.into(),
            severity: severity.into(),
            timestamp: "does not count: every copy has its own".into(),
            hostname: match message.hostname() {
                Some(_) => "counts: two hosts that say the same are two messages".into(),
                None => stands_in.into(),
            },
            app_name: "counts: two programs that say the same are two messages; absent and empty are equal"
                .into(),
            procid: "does not count: a program that was started again says the same".into(),
            msgid: "counts: it is the kind of event; absent and empty are equal".into(),
            structured_data: "counts, without the elements meta, timeQuality and origin, which describe \
                              the transmission and not the event"
                .into(),
            msg: "counts: it is what happened, to the last octet, without a BOM before it and line ends \
                  behind it"
                .into(),
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
        }
    }
}

/// What the rules say about a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ruling<'a> {
    /// The rule's name; `default` is `[dedup]`.
    pub rule: &'a str,
    /// What is done with the message.
    pub action: Action,
    /// How long it counts as said, if it ever does.
    pub window: Option<Duration>,
}

impl<'a> Ruling<'a> {
    /// What `rules` say about `message`.
    #[must_use]
    pub fn of(rules: &'a Rules, message: &Message<'_>) -> Self {
        let id = rules.decide(
            message,
            Sender::Local,
            rules.reach(""),
            &mut Scratch::default(),
        );
        let policy = rules.policy(id);
        let action = if message.never_suppress {
            Action::Pass
        } else {
            Action::Dedup
        };
        Self {
            rule: DEFAULT_RULE,
            action,
            window: (action == Action::Dedup).then_some(policy.window.window),
        }
    }
}

/// What a rule does with a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// Forward it once per window.
    Dedup,
    /// Forward it.
    Pass,
}

impl Action {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Dedup => "dedup",
            Self::Pass => "pass",
        }
    }
}

/// Gives messages names: digests of their identities, the same in every run.
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
    /// The name of `message` as `sender` sent it.
    pub(crate) fn name(&self, message: &Message<'_>, sender: Sender) -> String {
        let mut identifier = Identifier::new(&self.key, IdentityKind::Compact);
        let digest = identifier.identify(message, sender).octets;
        digest.iter().map(|octet| format!("{octet:02x}")).collect()
    }
}

/// Text from outside, so that it can be shown on a terminal: UTF-8 as it is, controls escaped.
pub(crate) fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            let mut octets = [0; 4];
            let octets = c.encode_utf8(&mut octets).as_bytes();
            shown.push_str(&Escaped::whole(octets).to_string());
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

/// The name of the policy of messages that no rule matches: the section `[dedup]`.
const DEFAULT_RULE: &str = "default";

/// Changing it renames every message.
const NAME_SEED: u64 = 0x7465_7273_6564;

/// By number (RFC 5424 6.2.1; the words are syslog.conf's).
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
];

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
mod tests {
    use super::*;
    use crate::config::Config;

    fn rules() -> Rules {
        Rules::new(Config::default().dedup.policy)
    }

    fn json(frame: &[u8], sender: Sender) -> serde_json::Value {
        let rules = rules();
        let mut explainer = Explainer::new(&rules, sender);
        serde_json::to_value(explainer.explain(frame, Depth::Reasons)).unwrap()
    }

    #[test]
    fn a_sentence_says_counts_iff_the_field_is_in_the_identity() {
        let fields = [
            "pri",
            "facility",
            "severity",
            "timestamp",
            "hostname",
            "app_name",
            "procid",
            "msgid",
            "structured_data",
            "msg",
        ];
        let base = b"<13>1 2026-03-01T10:00:00Z h a 1 m [x@1 a=\"1\"] text";
        let others: [(&[&str], &[u8]); 8] = [
            (
                &["pri", "facility"],
                b"<21>1 2026-03-01T10:00:00Z h a 1 m [x@1 a=\"1\"] text",
            ),
            (
                &["pri", "severity"],
                b"<12>1 2026-03-01T10:00:00Z h a 1 m [x@1 a=\"1\"] text",
            ),
            (
                &["timestamp"],
                b"<13>1 2026-03-01T10:00:01Z h a 1 m [x@1 a=\"1\"] text",
            ),
            (
                &["hostname"],
                b"<13>1 2026-03-01T10:00:00Z i a 1 m [x@1 a=\"1\"] text",
            ),
            (
                &["app_name"],
                b"<13>1 2026-03-01T10:00:00Z h b 1 m [x@1 a=\"1\"] text",
            ),
            (
                &["procid"],
                b"<13>1 2026-03-01T10:00:00Z h a 2 m [x@1 a=\"1\"] text",
            ),
            (
                &["msgid", "structured_data"],
                b"<13>1 2026-03-01T10:00:00Z h a 1 n [x@1 a=\"2\"] text",
            ),
            (
                &["msg"],
                b"<13>1 2026-03-01T10:00:00Z h a 1 m [x@1 a=\"1\"] texT",
            ),
        ];
        let base = json(base, Sender::Local);
        for (changed, frame) in others {
            let other = json(frame, Sender::Local);
            for field in fields {
                assert_eq!(
                    base[field] != other[field],
                    changed.contains(&field),
                    "{field}"
                );
            }
            let said = base["why"][changed[0]].as_str().unwrap();
            assert_eq!(
                base["identity"] != other["identity"],
                said.starts_with("counts"),
                "{changed:?}: {said}"
            );
        }
    }

    #[test]
    fn the_keys_are_these_and_in_this_order() {
        let rules = rules();
        let mut explainer = Explainer::new(&rules, Sender::Local);
        let text =
            serde_json::to_string(&explainer.explain(b"<34>su: \xff", Depth::Facts)).unwrap();
        let identity = &json(b"<34>su: \xff", Sender::Local)["identity"];
        assert_eq!(
            text,
            format!(
                "{{\"format\":\"rfc3164\",\"pri\":34,\"facility\":4,\"severity\":2,\"timestamp\":null,\
                 \"hostname\":null,\"app_name\":\"su\",\"procid\":null,\"msgid\":null,\
                 \"structured_data\":null,\"msg\":\"\u{fffd}\",\"rule\":\"default\",\"action\":\"dedup\",\
                 \"window\":\"10s\",\"identity\":{identity},\"masked\":\"\u{fffd}\"}}"
            )
        );
    }

    #[test]
    fn an_identity_is_the_same_in_every_run() {
        // Kept in scripts by whoever compares: a change of these names is a change for people.
        let name = |frame: &[u8]| json(frame, Sender::Local)["identity"].clone();
        assert_eq!(name(b"<13>app: text"), name(b"<13>app[7]: text\n"));
        assert_eq!(name(b"<13>app: text").as_str().unwrap().len(), 32);
        let at = |address: &str| {
            let sender = Sender::at(address.parse().unwrap());
            json(b"<13>app: text", sender)["identity"].clone()
        };
        assert_ne!(at("192.0.2.1"), at("192.0.2.2"));
        assert_ne!(at("192.0.2.1"), name(b"<13>app: text"));
    }

    #[test]
    fn what_is_never_suppressed_passes_without_a_window() {
        let explained = json(b"<13>app: message repeated 3 times: [ text]", Sender::Local);
        assert_eq!(explained["action"], "pass");
        assert_eq!(explained["window"], serde_json::Value::Null);
        assert!(
            explained["why"]["timestamp"]
                .as_str()
                .unwrap()
                .starts_with("counts")
        );
    }

    #[test]
    fn a_frame_that_does_not_parse_is_explained_as_well() {
        let explained = json(b"<999>text", Sender::Local);
        assert_eq!(explained["format"], "unparsed");
        assert_eq!(explained["pri"], serde_json::Value::Null);
        assert_eq!(explained["msg"], "<999>text");
        assert!(
            explained["why"]["hostname"]
                .as_str()
                .unwrap()
                .contains("local")
        );
    }

    #[test]
    fn nothing_drives_a_terminal() {
        let rules = rules();
        let mut out = Vec::new();
        Explainer::new(&rules, Sender::Local)
            .explain("<13>app: \u{1b}[2J\u{9b}é\rok".as_bytes(), Depth::Reasons)
            .write_text(&mut out)
            .unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.chars().all(|c| c == '\n' || !c.is_control()),
            "{text:?}"
        );
        assert!(text.contains(r"\x1b[2J\xc2\x9bé\rok"), "{text}");
        assert!(text.contains("facility         1 (user)"), "{text}");
    }
}
