//! Which file may replace a running configuration, and what a start warns about.
//!
//! A file that is read while it is being written may be cut, and is valid TOML at many such places. So a reload does
//! not assume that the operator removed a missing table on purpose.
//!
//! # Guarantees
//!
//! - A reload never moves messages to standard output, or listeners to the default ones, because a file no longer has
//!   `forward.to` or `[[listener]]`. An operator who wants that writes it, or restarts.
//! - A reload by a file that sets nothing is refused, unless nothing would change.
//! - Other tables that were removed cause a warning: removing them is ordinary.
//!
//! # Left out
//!
//! A file that was cut inside a table after a whole line: nothing shows that. A file that was cut inside a line is rarely
//! valid TOML; if it is (`workers = 1` of `workers = 16`), a warning names the missing line end.

use std::path::Path;
use std::sync::Arc;

use super::error::{At, Fault, escaped};
use super::report::Report;
use super::{Config, DedupConfig, RunArgs, SuppressedConfig};

/// Warnings from reading a configuration, one sentence each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Remarks(pub(super) Vec<String>);

/// Two configurations with the same settings are equal, whatever warnings their files cause.
impl PartialEq for Remarks {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// Which tables a file has, with flags and variables laid over it.
pub(super) struct Present {
    /// The file's path, escaped; `None` without a file.
    file: Option<Arc<str>>,
    /// The file has no key.
    is_empty: bool,
    /// The file could not be understood, so its tables are not known.
    is_unknown: bool,
    /// Its last line has a line end.
    is_whole: bool,
    has_listeners: bool,
    has_upstreams: bool,
    has_suppressed: bool,
    has_dedup: bool,
    has_rules: bool,
}

impl Present {
    /// What the file at `path` has, before anything is laid over it.
    pub(super) fn of(read: &Report, path: Option<&Path>, is_whole: bool) -> Self {
        Self {
            file: path.map(|path| escaped(&path.display().to_string()).into()),
            is_empty: read.is_empty(),
            is_unknown: read.is_refused("listener"),
            is_whole,
            has_listeners: read.is_written("listener"),
            has_upstreams: read.is_written("forward.to") || read.is_refused("forward"),
            has_suppressed: read.is_written("suppressed"),
            has_dedup: read.is_written("dedup"),
            has_rules: read.is_written("rule"),
        }
    }

    /// Adds what flags and variables set.
    pub(super) fn with(mut self, args: &RunArgs) -> Self {
        self.has_listeners |= !args.listen.is_empty();
        self.has_upstreams |= !args.forward.is_empty();
        self
    }

    /// Warns about what the operator may not have intended. Refuses a file that the operator hardly intended to replace
    /// the `running` configuration.
    pub(super) fn check(&self, config: &mut Config, running: Option<&Config>, report: &mut Report) {
        let Some(file) = &self.file else { return };
        if self.is_unknown {
            return;
        }
        if let Some(running) = running {
            self.refuse(file, config, running, report);
            config.remarks.0.extend(self.removed(file, running));
            if !self.is_whole && config != running {
                config.remarks.0.push(format!(
                    "{file}: its last line has no line end; if the file was cut off there, {COMPLETE}"
                ));
            }
        }
        if self.has_upstreams {
            return;
        }
        config.remarks.0.push(if self.is_empty {
            format!(
                "{file} sets nothing: it is empty, or has only comments; every setting without a flag or variable has its \
                 default, and messages go to standard output"
            )
        } else {
            format!(
                "{file} has no forward.to, and there is no --forward: messages go to standard output; if you want that, \
                 write to = [\"stdout:\"] in [forward]"
            )
        });
    }

    fn refuse(&self, file: &Arc<str>, config: &Config, running: &Config, report: &mut Report) {
        let mut refuse = |text: String| {
            report.fault(&At::File(Arc::clone(file)), Fault::Removed(text));
        };
        if self.is_empty && config != running {
            refuse(format!(
                "sets nothing: it is empty, or has only comments; a reload would replace the running configuration with the defaults; \
                 {COMPLETE}, or restart to run the defaults"
            ));
            return;
        }
        if !self.has_upstreams && config.forward.to != running.forward.to {
            let before = list(running.forward.to.iter().map(|upstream| &upstream.url));
            refuse(format!(
                "no longer has forward.to: messages would go to standard output instead of {before}; {COMPLETE}; if \
                 you want standard output, write to = [\"stdout:\"] in [forward]"
            ));
        }
        if !self.has_listeners && config.listeners != running.listeners {
            let default = list(config.listeners.iter().map(|listener| &listener.url));
            let before = list(running.listeners.iter().map(|listener| &listener.url));
            refuse(format!(
                "no longer has a [[listener]]: the relay would receive on the defaults, {default}, instead of {before}; \
                 {COMPLETE}; if you want the defaults, write them into the file"
            ));
        }
    }

    /// A warning about tables that changed what runs and were removed.
    fn removed(&self, file: &str, running: &Config) -> Option<String> {
        let default = DedupConfig::default();
        let tables = [
            (
                "[suppressed]",
                self.has_suppressed || running.suppressed == SuppressedConfig::default(),
            ),
            (
                "[dedup]",
                self.has_dedup
                    || (running.dedup.policy == default.policy
                        && running.dedup.memory == default.memory
                        && running.dedup.state == default.state),
            ),
            (
                "[[rule]]",
                self.has_rules || running.rules.rules().is_empty(),
            ),
        ];
        let removed: Vec<_> = tables
            .into_iter()
            .filter(|(_, is_there)| !is_there)
            .map(|(table, _)| table)
            .collect();
        (!removed.is_empty()).then(|| {
            format!(
                "{file} no longer has {}, so the settings there return to their defaults; if you do not want that, {COMPLETE}",
                removed.join(", ")
            )
        })
    }
}

fn list<T: ToString>(items: impl Iterator<Item = T>) -> String {
    let items: Vec<_> = items.map(|item| item.to_string()).collect();
    items.join(", ")
}

const COMPLETE: &str = "make sure that the file is complete (write a new file and rename it over this one) and send SIGHUP";

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::{Argument, ConfigErrors};
    use super::*;

    const WHOLE: &str = "[[listener]]\nurl = \"udp://127.0.0.1:514\"\n[forward]\nto = [\"tcp://a:1\"]\n\
                         [dedup]\nwindow = \"1h\"\n[suppressed]\nto = \"file:///x\"\n[[rule]]\nname = \"a\"\n";

    /// What runs with `before`, loaded again with `after`; `flags` override both.
    fn again(before: &str, after: &str, flags: &[&str]) -> (Config, Result<Config, ConfigErrors>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.toml");
        let of = |flag: &'static str| {
            let is_given = flags.contains(&flag);
            let text = if flag == "--listen" {
                "udp://127.0.0.1:9"
            } else {
                "udp://b:9"
            };
            let text = text.to_owned();
            is_given
                .then_some(Argument { name: flag, text })
                .into_iter()
                .collect()
        };
        let args = RunArgs {
            file: Some(path.clone()),
            listen: of("--listen"),
            forward: of("--forward"),
            ..RunArgs::default()
        };
        fs::write(&path, before).unwrap();
        let running = Config::load(&args).unwrap();
        fs::write(&path, after).unwrap();
        let next = running.load_again(&args);
        (running, next)
    }

    fn refused(before: &str, after: &str, flags: &[&str]) -> String {
        let errors = again(before, after, flags).1.unwrap_err().to_string();
        let text: Vec<_> = errors
            .lines()
            .map(|line| line.split_once("t.toml: ").unwrap().1)
            .collect();
        text.join("\n")
    }

    #[test]
    fn a_file_cut_at_any_line_replaces_nothing_that_matters() {
        let lines: Vec<&str> = WHOLE.split_inclusive('\n').collect();
        for cut in 0..lines.len() {
            let head = lines[..cut].concat();
            match again(WHOLE, &head, &[]) {
                (running, Ok(next)) => {
                    assert_eq!(next.listeners, running.listeners, "{head}");
                    assert_eq!(next.forward, running.forward, "{head}");
                    assert!(
                        next.warnings()[0].contains("no longer") || next.dedup == running.dedup,
                        "{head} {:?}",
                        next.warnings()
                    );
                }
                (_, Err(_)) => {}
            }
        }
    }

    #[test]
    fn a_file_that_sets_nothing_is_refused_unless_nothing_changes() {
        for empty in ["", "\n \n", "# a comment\n"] {
            let text = refused(WHOLE, empty, &[]);
            assert!(
                text.starts_with("sets nothing: it is empty, or has only comments; a reload would"),
                "{text}"
            );
            assert_eq!(text.lines().count(), 1);
            assert!(again("", empty, &["--forward"]).1.is_ok());
            let text = refused(
                "[dedup]\nwindow = \"1h\"\n",
                empty,
                &["--listen", "--forward"],
            );
            assert!(text.contains("or restart to run the defaults"), "{text}");
        }
    }

    #[test]
    fn a_file_without_upstreams_or_listeners_is_refused_unless_a_flag_names_them() {
        let no_forward =
            "[[listener]]\nurl = \"udp://127.0.0.1:514\"\n[forward]\nqueue = \"1MiB\"\n";
        assert_eq!(
            refused(WHOLE, no_forward, &[]),
            "no longer has forward.to: messages would go to standard output instead of tcp://a:1; make sure that the file is \
             complete (write a new file and rename it over this one) and send SIGHUP; if you want standard output, write \
             to = [\"stdout:\"] in [forward]"
        );
        assert!(again(WHOLE, no_forward, &["--forward"]).1.is_ok());
        let no_listener = "[forward]\nto = [\"tcp://a:1\"]\n";
        let text = refused(WHOLE, no_listener, &[]);
        assert!(
            text.starts_with(
                "no longer has a [[listener]]: the relay would receive on the defaults, udp://127.0.0.1:5514, \
                 tcp://127.0.0.1:5514, instead of udp://127.0.0.1:514; make"
            ),
            "{text}"
        );
        assert!(again(WHOLE, no_listener, &["--listen"]).1.is_ok());
        // What runs is the default already.
        assert!(
            again("[dedup]\nallow = 2\n", "[dedup]\nallow = 3\n", &[])
                .1
                .is_ok()
        );
    }

    #[test]
    fn other_tables_that_were_removed_cause_a_warning() {
        let head = WHOLE.split_once("[dedup]").unwrap().0;
        let warnings = again(WHOLE, head, &[]).1.unwrap().warnings();
        assert!(
            warnings[0]
                .contains("t.toml no longer has [suppressed], [dedup], [[rule]], so the settings"),
            "{warnings:?}"
        );
        assert_eq!(again(WHOLE, WHOLE, &[]).1.unwrap().warnings(), [""; 0]);
    }

    #[test]
    fn a_line_that_may_have_been_cut_causes_a_warning_if_something_changes() {
        let cut = format!("{WHOLE}[runtime]\nworkers = 1");
        let warnings = again(&format!("{cut}6\n"), &cut, &[]).1.unwrap().warnings();
        assert!(
            warnings[0].contains("t.toml: its last line has no line end; if"),
            "{warnings:?}"
        );
        assert_eq!(again(&cut, &cut, &[]).1.unwrap().warnings(), [""; 0]);
    }

    #[test]
    fn a_start_that_leads_to_standard_output_causes_a_warning() {
        let (started, _) = again("[dedup]\nallow = 2\n", "", &[]);
        let warnings = started.warnings();
        assert!(
            warnings[0].ends_with(
                "t.toml has no forward.to, and there is no --forward: messages go to standard output; if you want that, write \
                 to = [\"stdout:\"] in [forward]"
            ),
            "{warnings:?}"
        );
        let warnings = again("", "", &[]).0.warnings();
        assert!(
            warnings[0].contains("t.toml sets nothing: it is empty, or has only comments;"),
            "{warnings:?}"
        );
        assert_eq!(
            again("[forward]\nto = [\"stdout:\"]\n", "", &[])
                .0
                .warnings(),
            [""; 0]
        );
        assert_eq!(again("", "", &["--forward"]).0.warnings(), [""; 0]);
        assert_eq!(
            Config::load(&RunArgs::default()).unwrap().warnings(),
            [""; 0]
        );
    }
}
