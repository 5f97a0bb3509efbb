//! Whether shards, rules and memory fit together.
//!
//! # Guarantees
//!
//! - The memory of a running configuration is enough to remember a message under every policy in every shard. Other
//!   configurations are refused with the numbers that would fit.
//! - If the configuration leaves the number of shards open, it is as large as memory allows, at most the default.

use super::dedup::{AUTO_SHARDS, DedupConfig};
use super::report::Report;
use super::units::size_text;
use crate::core::dedup::Shards;
use crate::core::rule::{Action, Fall, Rules};

/// Sets the number of shards: the one that is written, or that of the relay which is `running`, or the one that fits.
/// Refuses what does not work.
pub(super) fn fit_shards(
    dedup: &mut DedupConfig,
    rules: &Rules,
    running: Option<usize>,
    report: &mut Report,
) {
    let judges = |fall: &&Fall| fall.action == Action::Dedup;
    let policies = rules.falls().iter().filter(judges).count();
    let count_max = |max| Shards::count_max(dedup.memory, policies, max);
    let is_given = report.at("dedup.shards").is_some() && dedup.shards != AUTO_SHARDS;
    if !is_given {
        let chosen = || count_max(DedupConfig::default().shards).unwrap_or(1);
        dedup.shards = running.unwrap_or_else(chosen);
    }
    let keys = ["dedup.memory", "dedup.shards", "rule"];
    let least = Shards::octets_min(dedup.shards, policies);
    if dedup.memory >= least || keys.iter().any(|key| report.is_refused(key)) {
        return;
    }
    // The defaults fit together, so something that was written made the memory too small.
    let Some(at) = keys.iter().find_map(|key| report.at(key)).cloned() else {
        return;
    };
    let rules = match rules.rules().len() {
        0 => String::new(),
        1 => " and 1 rule".to_owned(),
        count => format!(" and {count} rules"),
    };
    let shards = dedup.shards;
    let least = format!("{}MiB", least.div_ceil(MIB));
    let memory = size_text(dedup.memory);
    let fewer = match count_max(shards) {
        Some(count) if is_given => format!(", or dedup.shards = {count} at most"),
        Some(count) if running.is_some() => {
            format!(", or a restart, which would use {count} shards")
        }
        _ => String::new(),
    };
    if report.at("dedup.memory").is_some() {
        let these = match running {
            Some(_) if !is_given => format!("{shards} running shards"),
            _ => format!("dedup.shards = {shards}"),
        };
        let expected = format!("at least {least} for {these}{rules}{fewer}");
        report.unfit(&at, &memory, expected);
    } else {
        let these = match running {
            Some(_) if !is_given => "running shards",
            _ => "shards",
        };
        let found = format!("{shards} {these}{rules} with dedup.memory = {memory}");
        let expected = format!("dedup.memory = {least} at least{fewer}");
        report.unfit(&at, &found, expected);
    }
}

const MIB: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::config::{Config, ConfigErrors, RunArgs};

    fn load(text: &str, running: Option<&Config>) -> Result<Config, ConfigErrors> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.toml");
        fs::write(&path, text).unwrap();
        let args = RunArgs {
            file: Some(path),
            ..RunArgs::default()
        };
        match running {
            None => Config::load(&args),
            Some(config) => config.load_again(&args),
        }
    }

    fn refused(text: &str, running: Option<&Config>) -> String {
        let errors = load(text, running).unwrap_err().to_string();
        errors.split_once("t.toml:").unwrap().1.to_owned()
    }

    fn with_rules(dedup: &str, count: usize) -> String {
        let rule = |number| format!("[[rule]]\nname = \"r{number}\"\napp_name = [\"a{number}\"]\n");
        let rules: String = (0..count).map(rule).collect();
        format!("[dedup]\n{dedup}\n{rules}")
    }

    #[test]
    fn what_cannot_work_together_is_refused_with_what_would_fit() {
        let least = |shards, policies| Shards::octets_min(shards, policies).div_ceil(MIB);
        let many = least(1024, 202);
        assert!((1000..4000).contains(&many), "{many}");
        assert_eq!(
            refused("[dedup]\nmemory = \"1MiB\"\nshards = 4096\n", None),
            format!(
                "2: dedup.memory: invalid \"1MiB\", expected at least {}MiB for dedup.shards = 4096, \
                 or dedup.shards = 32 at most",
                least(4096, 2)
            )
        );
        assert_eq!(
            refused(&with_rules("shards = 1024\nmemory = \"256MiB\"", 200), None),
            format!(
                "3: dedup.memory: invalid \"256MiB\", expected at least {many}MiB for dedup.shards = 1024 and 200 rules, \
                 or dedup.shards = 64 at most"
            )
        );
        assert_eq!(
            refused(&with_rules("shards = 1024", 200), None),
            format!(
                "2: dedup.shards: invalid \"1024 shards and 200 rules with dedup.memory = 256MiB\", \
                 expected dedup.memory = {many}MiB at least, or dedup.shards = 64 at most"
            )
        );
        assert_eq!(
            refused(&with_rules("memory = \"1MiB\"", 100), None),
            "2: dedup.memory: invalid \"1MiB\", expected at least 2MiB for dedup.shards = 1 and 100 rules"
        );
        // What was refused is not the reason for a second error.
        let text = refused("[dedup]\nmemory = \"1MB\"\nshards = 3\n", None);
        assert!(!text.contains("at least 1"), "{text}");
    }

    #[test]
    fn rules_that_remember_nothing_need_no_memory() {
        let rule = |number| format!("[[rule]]\nname = \"r{number}\"\naction = \"pass\"\n");
        let rules: String = (0..200).map(rule).collect();
        load(&format!("[dedup]\nmemory = \"1MiB\"\n{rules}"), None).unwrap();
    }

    #[test]
    fn without_a_number_there_are_as_many_shards_as_fit() {
        let config = load(&with_rules("memory = \"4MiB\"", 100), None).unwrap();
        assert_eq!(config.dedup.shards, 2);
        let config = load("", None).unwrap();
        assert_eq!(config.dedup.shards, Config::default().dedup.shards);
    }

    #[test]
    fn a_running_relay_keeps_its_shards_if_they_still_fit() {
        let small = with_rules("memory = \"4MiB\"", 100);
        let running = load("[dedup]\nshards = 64\n", None).unwrap();
        let next = load(&with_rules("memory = \"256MiB\"", 100), Some(&running)).unwrap();
        assert_eq!(next.dedup.shards, 64);
        assert_eq!(
            refused(&small, Some(&running)),
            format!(
                "2: dedup.memory: invalid \"4MiB\", expected at least {}MiB for 64 running shards and 100 rules, \
                 or a restart, which would use 2 shards",
                Shards::octets_min(64, 102).div_ceil(MIB)
            )
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_accepted_has_the_least_memory_and_what_is_refused_has_less(
            memory in (1_usize << 20)..(64 << 20),
            shards in prop_oneof![Just(None), (0..13_u32).prop_map(|shift| Some(1_usize << shift))],
            rules in 0..256_usize,
        ) {
            let shards_key = shards.map_or_else(String::new, |shards| format!("shards = {shards}\n"));
            let text = with_rules(&format!("memory = \"{memory}B\"\n{shards_key}"), rules);
            let least = |shards| Shards::octets_min(shards, rules + 2);
            match load(&text, None) {
                Ok(config) => {
                    prop_assert!(memory >= least(config.dedup.shards));
                    prop_assert!(shards.is_none_or(|shards| shards == config.dedup.shards));
                }
                Err(_) => prop_assert!(memory < least(shards.unwrap_or(1))),
            }
        }
    }
}
