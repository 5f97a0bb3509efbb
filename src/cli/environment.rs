//! The `TERSED_*` environment variables: those that stand for flags, and unknown ones.
//!
//! # Guarantees
//!
//! - An empty variable counts as unset.
//! - An unknown `TERSED_*` variable causes a warning that names the variable that was probably meant. It is not an
//!   error: it may belong to another program.
//! - The variables that Kubernetes sets in each container for a Service called `tersed` or `tersed-...` cause no warning
//!   (`TERSED_SERVICE_HOST`, `TERSED_PORT=tcp://...`, `TERSED_PORT_514_TCP_ADDR` and others).

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::error::ErrorKind;

use crate::config::{Argument, Override, RunArgs};
use crate::core::nearest::nearest;

/// The variables whose names start with `TERSED_`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    /// The `TERSED_*` among `variables`; pass `std::env::vars_os()`.
    pub(crate) fn new<K: Into<OsString>, V: Into<OsString>>(
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let pairs = variables
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()));
        Self(
            pairs
                .filter(|(name, _)| name.as_encoded_bytes().starts_with(PREFIX.as_bytes()))
                .collect(),
        )
    }

    pub(super) fn value(&self, name: &str) -> Option<&OsStr> {
        self.0
            .get(OsStr::new(name))
            .map(OsString::as_os_str)
            .filter(|value| !value.is_empty())
    }

    /// The file and the window, each by its flag or else by its variable: all that `explain` and `replay` take.
    pub(super) fn config(
        &self,
        file: Option<PathBuf>,
        window: Option<String>,
    ) -> Result<RunArgs, clap::Error> {
        let window = match window {
            Some(text) => Some(Argument {
                name: "--window",
                text,
            }),
            None => self.text("TERSED_WINDOW")?,
        };
        let window = window.map(|argument| (Override::Window, argument));
        Ok(RunArgs {
            file: file.or_else(|| self.value("TERSED_CONFIG").map(PathBuf::from)),
            overrides: window.into_iter().collect(),
            ..RunArgs::default()
        })
    }

    pub(super) fn text(&self, name: &'static str) -> Result<Option<Argument>, clap::Error> {
        let Some(value) = self.value(name) else {
            return Ok(None);
        };
        let text = value.to_str().ok_or_else(|| {
            let message = format!("{name}: not UTF-8\n");
            clap::Error::raw(ErrorKind::InvalidUtf8, message)
        })?;
        Ok(Some(Argument {
            name,
            text: text.to_owned(),
        }))
    }

    /// A warning for each unknown `TERSED_*` variable.
    pub(super) fn unknown(&self) -> Vec<String> {
        let is_unknown = |(name, value): &(&OsString, &OsString)| {
            let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
            !value.is_empty()
                && !VARIABLES.contains(&&*name)
                && !is_for_tests(&name)
                && !is_of_kubernetes(name.strip_prefix("TERSED").unwrap_or_default(), &value)
        };
        self.0
            .iter()
            .filter(is_unknown)
            .map(|(name, _)| remark(&name.to_string_lossy()))
            .collect()
    }
}

/// Whether the variable injects a fault, which only builds with debug assertions know.
#[cfg(debug_assertions)]
fn is_for_tests(name: &str) -> bool {
    name == crate::fault::VARIABLE
}

#[cfg(not(debug_assertions))]
const fn is_for_tests(_: &str) -> bool {
    false
}

fn remark(name: &str) -> String {
    let shown = name.escape_debug();
    let hint = meant(name).map_or_else(
        || "`tersed run --help` lists the variables".to_owned(),
        |meant| format!("did you mean {meant}?"),
    );
    format!("the variable {shown} has no effect; {hint}")
}

/// The known variable that was probably meant by `name`.
fn meant(name: &str) -> Option<&'static str> {
    let ours = |name: &'static str| {
        name.strip_prefix(PREFIX)
            .expect("each name in VARIABLES starts with TERSED_")
    };
    let own = name.strip_prefix(PREFIX)?;
    // TERSED_LOG_LEVEL (like the flag), TERSED_DEDUP_WINDOW (like the key).
    let is_part = |known: &&&'static str| {
        let known = ours(known);
        let rest = own.strip_prefix(known).map(|rest| rest.starts_with('_'));
        let before = own.strip_suffix(known).map(|before| before.ends_with('_'));
        rest == Some(true) || before == Some(true)
    };
    let near = nearest(own, VARIABLES.into_iter().map(ours));
    let near = near.and_then(|near| VARIABLES.into_iter().find(|name| ours(name) == near));
    near.or_else(|| {
        let parts = VARIABLES.iter().filter(is_part);
        parts.max_by_key(|name| name.len()).copied()
    })
}

/// Whether Kubernetes sets such a variable for a Service. `rest` is the variable's name behind `TERSED`.
fn is_of_kubernetes(rest: &str, value: &str) -> bool {
    let is_number =
        |text: &str| !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
    let is_protocol = |text: &str| matches!(text, "TCP" | "UDP" | "SCTP");
    let is_port = |text: &str| {
        let mut parts = text.split('_');
        parts.next().is_some_and(is_number)
            && parts.next().is_some_and(is_protocol)
            && parts
                .next()
                .is_none_or(|part| matches!(part, "PROTO" | "PORT" | "ADDR"))
            && parts.next().is_none()
    };
    let is_url = ["tcp://", "udp://", "sctp://"]
        .iter()
        .any(|scheme| value.starts_with(scheme));
    rest.ends_with("_SERVICE_HOST")
        || rest.ends_with("_SERVICE_PORT")
        || rest.contains("_SERVICE_PORT_")
        || (rest.ends_with("_PORT") && is_url)
        || rest
            .match_indices("_PORT_")
            .any(|(at, sign)| rest.get(at + sign.len()..).is_some_and(is_port))
}

const PREFIX: &str = "TERSED_";

/// Each of these stands for a flag.
pub(super) const VARIABLES: [&str; 10] = [
    "TERSED_CONFIG",
    "TERSED_LISTEN",
    "TERSED_FORWARD",
    "TERSED_WINDOW",
    "TERSED_SUMMARY",
    "TERSED_MEMORY",
    "TERSED_WHEN_FULL",
    "TERSED_ADMIN",
    "TERSED_LOG",
    "TERSED_LOG_FORMAT",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_variable_is_warned_of_with_the_one_meant() {
        for (name, hint) in [
            ("TERSED_WINDW", "did you mean TERSED_WINDOW?"),
            ("TERSED_LISTENER", "did you mean TERSED_LISTEN?"),
            ("TERSED_LOG_LEVEL", "did you mean TERSED_LOG?"),
            ("TERSED_LOG_FROMAT", "did you mean TERSED_LOG_FORMAT?"),
            ("TERSED_DEDUP_WINDOW", "did you mean TERSED_WINDOW?"),
            ("TERSED_PORT", "`tersed run --help` lists the variables"),
            ("TERSED_", "`tersed run --help` lists the variables"),
        ] {
            let environment =
                Environment::new([(name, "514"), ("TERSED_WINDOW", "1s"), ("PATH", "x")]);
            let expected = format!("the variable {name} has no effect; {hint}");
            assert_eq!(environment.unknown(), [expected]);
        }
        assert_eq!(Environment::new([("TERSED_WINDW", "")]).unknown(), [""; 0]);
        let forged = Environment::new([("TERSED_\u{202e}\n", "x")]).unknown();
        assert!(forged[0].contains("TERSED_\\u{202e}\\n has"), "{forged:?}");
    }

    #[test]
    fn variables_that_kubernetes_sets_for_a_service_cause_no_warning() {
        for service in ["TERSED", "TERSED_EU_WEST"] {
            for (end, value) in [
                ("SERVICE_HOST", "10.0.0.11"),
                ("SERVICE_PORT", "514"),
                ("SERVICE_PORT_SYSLOG_UDP", "514"),
                ("PORT", "udp://10.0.0.11:514"),
                ("PORT_514_TCP", "tcp://10.0.0.11:514"),
                ("PORT_514_UDP_PROTO", "udp"),
                ("PORT_514_UDP_PORT", "514"),
                ("PORT_514_SCTP_ADDR", "10.0.0.11"),
            ] {
                let environment = Environment::new([(format!("{service}_{end}"), value)]);
                assert_eq!(environment.unknown(), [""; 0], "{service}_{end}");
            }
        }
        for (name, value) in [
            ("TERSED_PORT_514", "x"),
            ("TERSED_PORT_A_TCP", "x"),
            ("TERSED_PORT_5_TCP_X", "x"),
        ] {
            assert_eq!(
                Environment::new([(name, value)]).unknown().len(),
                1,
                "{name}"
            );
        }
    }
}
