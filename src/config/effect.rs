//! Keys that have no effect together with the rest of a configuration.
//!
//! # Guarantees
//!
//! - Each causes a warning that says what is missing. A key at its default causes none: a file may have all keys.
//!
//! # Left out
//!
//! Keys that have no effect in their table: these are errors.

use super::{Config, ForwardConfig, SpoolConfig, UpstreamUrl};
use crate::core::rule::{Action, Mode};

/// What has no effect in `config`.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    let default = SpoolConfig::default();
    if config.spool.directory.is_none() && config.spool.max_size != default.max_size {
        warnings.push(
            "spool.max_size has no effect: there is no spool without spool.directory; add it, or remove the key".to_owned(),
        );
    }
    warnings.extend(on_connections(&config.forward));
    let rules = config.rules.rules().iter();
    let is_suppressed = config.dedup.policy.mode == Mode::Enforce
        || rules
            .filter(|rule| rule.action != Action::Pass)
            .any(|rule| rule.policy.mode == Mode::Enforce);
    if config.suppressed.to.is_some() && !is_suppressed {
        warnings.push(
            "suppressed.to has no effect: nothing is suppressed, because mode is \"shadow\" or \"tag\" in [dedup] and in each \
             [[rule]]; set mode = \"enforce\", or remove suppressed.to"
                .to_owned(),
        );
    }
    warnings
}

/// A warning about keys for connections, if there are no connections.
fn on_connections(forward: &ForwardConfig) -> Option<String> {
    let is_made_anew =
        |url: &UpstreamUrl| matches!(url, UpstreamUrl::Tcp { .. } | UpstreamUrl::Relp { .. });
    let is_connected =
        |url: &UpstreamUrl| is_made_anew(url) || matches!(url, UpstreamUrl::UnixStream(_));
    let has = |is_so: &dyn Fn(&UpstreamUrl) -> bool| forward.to.iter().any(|to| is_so(&to.url));
    let (has_connected, has_made_anew) = (has(&is_connected), has(&is_made_anew));
    let default = ForwardConfig::default();
    let keys: Vec<_> = [
        (
            "forward.rebind",
            !has_made_anew && forward.rebind != default.rebind,
        ),
        (
            "forward.resend_max",
            !has_connected && forward.resend_max != default.resend_max,
        ),
        (
            "forward.resend_age",
            !has_connected && forward.resend_age != default.resend_age,
        ),
    ]
    .into_iter()
    .filter_map(|(key, is_set)| is_set.then_some(key))
    .collect();
    let (verb, them) = match keys.len() {
        1 => ("has", "it"),
        _ => ("have", "them"),
    };
    (!keys.is_empty()).then(|| {
        format!(
            "{} {verb} no effect: forward.to has no upstream that uses {them} (tcp or relp; resend also unix-stream); \
             add one, or remove {them}",
            keys.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn warned(text: &str) -> String {
        Config::of_text("t.toml", text)
            .unwrap()
            .warnings()
            .join("\n")
    }

    #[test]
    fn a_key_without_effect_causes_a_warning_that_says_what_is_missing() {
        let to = "[forward]\nto = [\"udp://192.0.2.1:514\"]\n";
        for (text, key) in [
            ("[spool]\nmax_size = \"2GiB\"\n".to_owned(), "spool.max_size has no effect: "),
            (format!("{to}rebind = \"1h\"\n"), "forward.rebind has no effect: "),
            (
                format!("{to}resend_max = \"1MiB\"\nresend_age = \"1s\"\n"),
                "forward.resend_max, forward.resend_age have no effect: ",
            ),
            (
                "[suppressed]\nto = \"file:///x/y\"\n[dedup]\nmode = \"shadow\"\n[[rule]]\nname = \"a\"\nmode = \"tag\"\n".to_owned(),
                "suppressed.to has no effect: ",
            ),
        ] {
            let warnings = warned(&text);
            assert!(warnings.contains(key), "{text}{warnings}");
        }
        let tcp =
            "[forward]\nto = [\"udp://192.0.2.1:514\", \"tcp://192.0.2.1:514\"]\nrebind = \"1h\"\n";
        for text in [
            tcp,
            "[spool]\nmax_size = \"1GiB\"\n",
            "[suppressed]\nto = \"file:///x/y\"\n[dedup]\nmode = \"shadow\"\n[[rule]]\nname = \"a\"\nmode = \"enforce\"\n",
            "[suppressed]\nto = \"file:///x/y\"\n",
        ] {
            assert!(
                !warned(text).contains("no effect"),
                "{text}{}",
                warned(text)
            );
        }
    }
}
