//! `[mask]`; which masks a list of names chooses, and which masks of `[mask]` no list names.
//!
//! # Guarantees
//!
//! - Beside a profile a list adds to the profile's masks. A list that begins with `"none"` replaces them; `["none"]`
//!   means no masks. Without a profile the list has all masks, with or without `"none"`.
//! - The masks of `[mask]` come in the order of the list, and before those of the profile. A mask with the name of a
//!   profile's mask replaces it.
//! - `[]` beside a profile is refused: it would add nothing, and was probably meant as no masks.

use toml::de::DeValue;

use super::cost::OwnMasks;
use super::error::{At, Fault};
use super::read::bare;
use super::report::Report;
use super::section::Kind;
use super::written::{Entries, Printed, Written};
use crate::core::identity::mask::{Builtin, BuiltinSet, MaskError, Masks, NO_MASKS, Pattern};
use crate::core::rule::Rules;

/// The kind of `[mask]`: a name and an expression in each line.
pub(super) struct MaskTable;

impl Kind<Vec<Pattern>> for MaskTable {
    fn read(&self, written: &Written<'_>, path: &str, report: &mut Report) -> Option<Vec<Pattern>> {
        let Some(table) = written.value.as_table() else {
            let expected = "a table with name = 'regular expression'";
            report.errors.push(written.unfit(expected));
            return None;
        };
        let mut patterns = Vec::new();
        for (key, value) in table {
            let line = written.lines.at(key.span().start);
            let mask = Written {
                value: value.get_ref(),
                at: written.at.within(&bare(key.get_ref()), line),
                lines: written.lines,
            };
            if let Some(pattern) = read_mask(key.get_ref(), &mask, report) {
                report.accept(format!("{path}[{}]", patterns.len()), mask.at);
                patterns.push(pattern);
            }
        }
        Some(patterns)
    }

    fn print(&self, patterns: &Vec<Pattern>) -> Option<Printed> {
        let print = |pattern: &Pattern| {
            let regex = Printed::Scalar(pattern.regex.as_str().into());
            (pattern.name.clone(), regex)
        };
        let entries = patterns.iter().map(print).collect();
        (!patterns.is_empty()).then_some(Printed::Table(Entries(entries)))
    }
}

fn read_mask(name: &str, written: &Written<'_>, report: &mut Report) -> Option<Pattern> {
    let DeValue::String(regex) = written.value else {
        let expected = "a regular expression in single quotes";
        report.errors.push(written.unfit(expected));
        return None;
    };
    let pattern = Pattern {
        name: name.to_owned(),
        regex: regex.to_string(),
    };
    match Masks::new(BuiltinSet::EMPTY, vec![pattern.clone()]) {
        Ok(_) => Some(pattern),
        Err(error) => {
            report.fault(&written.at, Fault::Mask(error));
            None
        }
    }
}

/// The masks that `names`, the list at `path`, chooses beside those of a profile, if there is one.
pub(super) fn chosen(
    names: &[String],
    path: &str,
    of_profile: Option<&Masks>,
    own: &OwnMasks,
    report: &mut Report,
) -> Masks {
    if names.is_empty() && of_profile.is_some() {
        let (found, expected) = (
            "empty list".to_owned(),
            format!(
                "mask = [\"{NO_MASKS}\"] for no masks, or no `mask` for those of the profile: beside a profile a list adds to them"
            ),
        );
        let at = report.place(path);
        report.fault(&at, Fault::Unfit { found, expected });
        return Masks::default();
    }
    let replaces = names.first().is_some_and(|name| name == NO_MASKS);
    let base = of_profile.filter(|_| !replaces);
    let mut builtins = base.map_or(BuiltinSet::EMPTY, Masks::builtins);
    let mut patterns: Vec<Pattern> = Vec::new();
    let mut last = report.place(path);
    for (index, name) in names.iter().enumerate() {
        last = report.place(&format!("{path}[{index}]"));
        if let Some(pattern) = own.patterns.iter().find(|pattern| pattern.name == *name) {
            if !patterns.contains(pattern) {
                patterns.push(pattern.clone());
            }
        } else if let Some(builtin) = Builtin::named(name) {
            builtins = builtins.with(builtin);
        } else if name == NO_MASKS && index > 0 {
            let found = format!("\"{NO_MASKS}\" after other masks");
            let expected =
                format!("\"{NO_MASKS}\" first, followed by the masks that replace the profile's");
            report.fault(&last, Fault::Unfit { found, expected });
        } else if name != NO_MASKS {
            let error = MaskError::unknown(name, &own.patterns);
            report.fault(&last, Fault::Mask(error));
        }
    }
    for pattern in base.map(Masks::patterns).unwrap_or_default() {
        if !patterns.iter().any(|own| own.name == pattern.name) {
            patterns.push(pattern.clone());
        }
    }
    compile(builtins, patterns, &last, own, report)
}

fn compile(
    builtins: BuiltinSet,
    patterns: Vec<Pattern>,
    at: &At,
    own: &OwnMasks,
    report: &mut Report,
) -> Masks {
    match Masks::new(builtins, patterns) {
        Ok(masks) => {
            own.refuse_costly(&masks, at, report);
            masks
        }
        Err(error) => {
            report.fault(at, Fault::Mask(error));
            Masks::default()
        }
    }
}

/// What a configuration calls `masks`.
pub(crate) fn mask_names(masks: &Masks) -> Vec<String> {
    let builtins = masks
        .builtins()
        .iter()
        .map(|builtin| builtin.name().to_owned());
    let patterns = masks.patterns().iter().map(|pattern| pattern.name.clone());
    builtins.chain(patterns).collect()
}

/// A warning for each mask of `[mask]` that no policy uses.
pub(super) fn unused(own: &OwnMasks, rules: &Rules) -> Vec<String> {
    let is_used = |pattern: &Pattern| {
        let mut policies = rules.policies();
        policies.any(|policy| policy.identity.masks().patterns().contains(pattern))
    };
    let idle = own.patterns.iter().filter(|pattern| !is_used(pattern));
    idle.map(|Pattern { name, .. }| {
        format!(
            "mask {name:?} has no effect: neither [dedup] nor a rule names it; add it there, \
             mask = [{name:?}]"
        )
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::mask_names;
    use crate::core::rule::Profile;

    fn load(rule: &str) -> Result<Config, String> {
        let toml = format!(
            "[mask]\njob = 'job-[0-9]+'\nauth_port = 'port [0-9]{{5}}'\n[dedup]\nmask = [\"hex\"]\n\
             [[rule]]\nname = \"a\"\n{rule}\n"
        );
        Config::of_text("t.toml", &toml).map_err(|errors| errors.to_string())
    }

    fn names(rule: &str) -> Vec<String> {
        let config = load(rule).unwrap();
        mask_names(config.rules.rules()[0].policy.identity.masks())
    }

    #[test]
    fn a_list_beside_a_profile_adds_and_none_replaces() {
        let of_profile = names("profile = \"kubernetes\"");
        assert_eq!(
            of_profile,
            [
                "hex",
                "uuid",
                "timestamp",
                "kube_header",
                "kube_pod",
                "kube_wait"
            ]
        );
        assert_eq!(
            names("profile = \"kubernetes\"\nmask = [\"job\", \"ipv4\"]"),
            [
                "hex",
                "ipv4",
                "uuid",
                "timestamp",
                "job",
                "kube_header",
                "kube_pod",
                "kube_wait"
            ]
        );
        assert_eq!(
            names("profile = \"kubernetes\"\nmask = [\"none\", \"job\"]"),
            ["job"]
        );
        assert_eq!(
            names("profile = \"kubernetes\"\nmask = [\"none\"]"),
            [""; 0]
        );
    }

    #[test]
    fn without_a_profile_a_list_is_all_there_is() {
        assert_eq!(names(""), ["hex"]);
        assert_eq!(names("mask = [\"job\"]"), ["job"]);
        assert_eq!(names("mask = [\"none\", \"job\"]"), ["job"]);
        assert_eq!(names("mask = []"), [""; 0]);
    }

    #[test]
    fn a_mask_of_the_file_replaces_a_profiles_of_that_name() {
        let config = load("profile = \"linux-auth\"\nmask = [\"auth_port\"]").unwrap();
        let masks = config.rules.rules()[0].policy.identity.masks();
        let own = &masks.patterns()[0];
        assert_eq!(
            (own.name.as_str(), own.regex.as_str()),
            ("auth_port", "port [0-9]{5}")
        );
        let of_profile = Profile::named("linux-auth").unwrap().patterns.len();
        assert_eq!(masks.patterns().len(), of_profile);
    }

    #[test]
    fn a_list_that_would_not_do_what_it_seems_to_is_refused() {
        let refused = |rule: &str| load(rule).unwrap_err();
        assert_eq!(
            refused("profile = \"kubernetes\"\nmask = []"),
            "t.toml:9: rule[0].mask: invalid empty list, expected mask = [\"none\"] for no masks, or no `mask` for those of \
             the profile: beside a profile a list adds to them"
        );
        assert_eq!(
            refused("mask = [\"job\", \"none\"]"),
            "t.toml:8: rule[0].mask[1]: invalid \"none\" after other masks, expected \"none\" first, followed by the masks that \
             replace the profile's"
        );
        let text = refused("mask = [\"jbo\"]");
        assert!(
            text.contains("no mask is called `jbo`, perhaps `job` was meant"),
            "{text}"
        );
    }

    #[test]
    fn a_mask_that_nothing_uses_is_a_warning() {
        assert_eq!(
            load("mask = [\"job\"]").unwrap().warnings(),
            [
                "mask \"auth_port\" has no effect: neither [dedup] nor a rule names it; add it there, \
                 mask = [\"auth_port\"]"
            ]
        );
    }
}
