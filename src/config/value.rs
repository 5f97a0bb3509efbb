//! Kinds of single values: how a TOML value or the text of a flag is read, and how it is printed.
//!
//! A scalar is read by a function `DeValue -> Result<T, what was expected>`; [`Scalar`] makes a kind of it.
//!
//! # Guarantees
//!
//! - Times and sizes have a unit: a bare number is refused, never guessed.
//! - Nothing is rounded or clamped: a value out of range is refused, and the error names the range.
//! - What a kind prints, it reads as the same value.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use ipnet::IpNet;
use serde_json::Value;
use toml::de::DeValue;
use tracing_subscriber::EnvFilter;

use crate::core::identity::Field;
use crate::core::nearest::did_you_mean;
use crate::core::rule::{
    FACILITIES, Glob, Profile, SEVERITIES, Severities, Text, facility_named, severity_named,
};

use super::report::Report;
use super::section::Kind;
use super::units::{size_text, time_text};
use super::url::bindable;
use super::written::{Printed, Written};

/// A kind of single values.
pub(super) struct Scalar<T> {
    read: Box<Read<T>>,
    print: Box<Print<T>>,
}

/// The value, or what was expected.
type Read<T> = dyn Fn(&DeValue<'_>) -> Result<T, String>;
type Print<T> = dyn Fn(&T) -> Option<Value>;

fn scalar<T, V: Into<Value>>(
    read: impl Fn(&DeValue<'_>) -> Result<T, String> + 'static,
    print: impl Fn(&T) -> V + 'static,
) -> Scalar<T> {
    Scalar {
        read: Box::new(read),
        print: Box::new(move |value| Some(print(value).into())),
    }
}

impl<T> Kind<T> for Scalar<T> {
    fn read(&self, written: &Written<'_>, _: &str, report: &mut Report) -> Option<T> {
        (self.read)(written.value)
            .map_err(|expected| report.errors.push(written.unfit(expected)))
            .ok()
    }

    fn print(&self, value: &T) -> Option<Printed> {
        (self.print)(value).map(Printed::Scalar)
    }
}

/// A kind whose value is printed only if there is one.
pub(super) struct Maybe<K>(pub(super) K);

impl<T, K: Kind<T>> Kind<Option<T>> for Maybe<K> {
    fn read(&self, written: &Written<'_>, path: &str, report: &mut Report) -> Option<Option<T>> {
        self.0.read(written, path, report).map(Some)
    }

    fn print(&self, value: &Option<T>) -> Option<Printed> {
        self.0.print(value.as_ref()?)
    }

    fn refuse_idle(&self, value: &Option<T>, path: &str, report: &mut Report) {
        if let Some(value) = value {
            self.0.refuse_idle(value, path, report);
        }
    }
}

/// A list whose elements are an `item` each. Elements that are refused are left out.
pub(super) struct List<K> {
    expected: &'static str,
    length_min: usize,
    item: K,
}

/// A list of at least `length_min` elements. If that is not 0, an empty list means that the key is not written.
pub(super) const fn list<K>(expected: &'static str, length_min: usize, item: K) -> List<K> {
    List {
        expected,
        length_min,
        item,
    }
}

impl<T, K: Kind<T>> Kind<Vec<T>> for List<K> {
    fn read(&self, written: &Written<'_>, path: &str, report: &mut Report) -> Option<Vec<T>> {
        let array = written.value.as_array();
        let Some(array) = array.filter(|array| array.len() >= self.length_min) else {
            report.errors.push(written.unfit(self.expected));
            return None;
        };
        report.replace(path);
        let mut items = Vec::with_capacity(array.len());
        for (index, value) in array.iter().enumerate() {
            let line = written.lines.at(value.span().start);
            let element = Written {
                value: value.get_ref(),
                at: written.at.within(&format!("[{index}]"), line),
                lines: written.lines,
            };
            let path = format!("{path}[{}]", items.len());
            match self.item.read(&element, &path, report) {
                Some(value) => {
                    report.accept(path, element.at);
                    items.push(value);
                }
                None => report.forget(&path),
            }
        }
        Some(items)
    }

    fn print(&self, value: &Vec<T>) -> Option<Printed> {
        if value.len() < self.length_min {
            return None;
        }
        let items = value.iter().filter_map(|item| self.item.print(item));
        Some(Printed::List(items.collect()))
    }

    fn refuse_idle(&self, value: &Vec<T>, path: &str, report: &mut Report) {
        for (index, item) in value.iter().enumerate() {
            self.item
                .refuse_idle(item, &format!("{path}[{index}]"), report);
        }
    }
}

/// A list that is kept as a set.
pub(super) struct Set<K, T, S> {
    pub(super) list: List<K>,
    pub(super) of: fn(Vec<T>) -> S,
    pub(super) elements: fn(&S) -> Vec<T>,
}

impl<T, S, K: Kind<T>> Kind<S> for Set<K, T, S> {
    fn read(&self, written: &Written<'_>, path: &str, report: &mut Report) -> Option<S> {
        self.list.read(written, path, report).map(self.of)
    }

    fn print(&self, value: &S) -> Option<Printed> {
        self.list.print(&(self.elements)(value))
    }
}

/// The words for the values of a choice, as they are written and printed.
pub(crate) struct Words<T: 'static>(pub(super) &'static [(&'static str, T)]);

impl<T: Copy + PartialEq> Words<T> {
    /// The word for `value`.
    pub(crate) fn word(&self, value: T) -> &'static str {
        let mut words = self.0.iter();
        words
            .find(|(_, listed)| *listed == value)
            .map(|(word, _)| *word)
            .expect("each table has a word for every value of its enum")
    }

    fn value(&self, word: &str) -> Option<T> {
        self.0
            .iter()
            .find(|(listed, _)| *listed == word)
            .map(|(_, value)| *value)
    }

    fn list(&self) -> String {
        let words: Vec<String> = self.0.iter().map(|(word, _)| format!("{word:?}")).collect();
        words.join(", ")
    }
}

pub(super) fn boolean() -> Scalar<bool> {
    let read = |value: &DeValue<'_>| {
        value
            .as_bool()
            .ok_or_else(|| format!("true or false{}", hint(value, ["true", "false"])))
    };
    scalar(read, |value| *value)
}

/// A whole number within `min..=max`.
pub(super) fn count<T>(min: T, max: T) -> Scalar<T>
where
    T: Copy + Display + PartialOrd + TryFrom<i64> + Into<Value> + 'static,
{
    let read = move |value: &DeValue<'_>| {
        value
            .as_integer()
            .and_then(|number| i64::from_str_radix(number.as_str(), number.radix()).ok())
            .and_then(|number| T::try_from(number).ok())
            .filter(|number| (min..=max).contains(number))
            .ok_or_else(|| format!("a whole number from {min} to {max}"))
    };
    scalar(read, |number| *number)
}

/// A power of two within `1..=max`.
pub(super) fn power_of_two(max: usize) -> Scalar<usize> {
    let count = count(1, max);
    let read = move |value: &DeValue<'_>| {
        (count.read)(value)
            .ok()
            .filter(|number| number.is_power_of_two())
            .ok_or_else(|| format!("a power of two from 1 to {max}"))
    };
    scalar(read, |number| *number)
}

/// A time with its unit, within `min..=max`.
pub(super) fn duration(min: Duration, max: Duration) -> Scalar<Duration> {
    let read = move |value: &DeValue<'_>| {
        value
            .as_str()
            .filter(|text| *text != "0" && text.len() <= DURATION_OCTETS_MAX)
            .and_then(|text| humantime::parse_duration(text).ok())
            .filter(|time| (min..=max).contains(time))
            .ok_or_else(|| {
                format!(
                    "a time with its unit (\"500ms\", \"10s\", \"5m\", \"1h 30m\") from {} to {}",
                    time_text(min),
                    time_text(max)
                )
            })
    };
    scalar(read, |time| time_text(*time))
}

/// A number of octets with its unit, within `min..=max`.
pub(super) fn size(min: usize, max: usize) -> Scalar<usize> {
    let read = move |value: &DeValue<'_>| {
        value
            .as_str()
            // `ByteSize` takes a bare number for octets.
            .filter(|text| text.ends_with(|last: char| last.is_ascii_alphabetic()))
            .and_then(|text| ByteSize::from_str(text).ok())
            .and_then(|size| usize::try_from(size.as_u64()).ok())
            .filter(|octets| (min..=max).contains(octets))
            .ok_or_else(|| {
                format!(
                    "a size with its unit (\"2048B\", \"64KiB\", \"256MiB\") from {} to {}",
                    size_text(min),
                    size_text(max)
                )
            })
    };
    scalar(read, |octets| size_text(*octets))
}

pub(super) fn choice<T: Copy + PartialEq>(words: &'static Words<T>) -> Scalar<T> {
    let read = move |value: &DeValue<'_>| {
        value
            .as_str()
            .and_then(|text| words.value(text))
            .ok_or_else(|| words.list() + &hint(value, words.0.iter().map(|(word, _)| *word)))
    };
    scalar(read, |value| words.word(*value))
}

/// `word`, which stands for `None`, or a value of `kind`.
pub(super) fn unless<T: 'static>(word: &'static str, kind: Scalar<T>) -> Scalar<Option<T>> {
    let Scalar { read, print } = kind;
    let read = move |value: &DeValue<'_>| {
        if value.as_str() == Some(word) {
            return Ok(None);
        }
        read(value)
            .map(Some)
            .map_err(|expected| format!("{word:?}, or {expected}{}", hint(value, [word])))
    };
    let print = move |value: &Option<T>| match value {
        Some(value) => print(value),
        None => Some(word.into()),
    };
    Scalar {
        read: Box::new(read),
        print: Box::new(print),
    }
}

/// Like [`unless`], but `word` stands for the value `none`.
pub(super) fn unless_is<T>(word: &'static str, none: T, kind: Scalar<T>) -> Scalar<T>
where
    T: Copy + PartialEq + 'static,
{
    let Scalar { read, print } = unless(word, kind);
    Scalar {
        read: Box::new(move |value| Ok(read(value)?.unwrap_or(none))),
        print: Box::new(move |value| print(&Some(*value).filter(|value| *value != none))),
    }
}

/// `"auto"`, which means the value `chosen`, or a value of `kind`. It is printed as a value.
pub(super) fn auto<T: Copy + 'static>(chosen: T, kind: Scalar<T>) -> Scalar<T> {
    let Scalar { read, print } = unless("auto", kind);
    Scalar {
        read: Box::new(move |value| Ok(read(value)?.unwrap_or(chosen))),
        print: Box::new(move |value| print(&Some(*value))),
    }
}

/// A URL of one of our types; the error of that type says what was expected.
pub(super) fn url<T: FromStr<Err: Display> + Display + 'static>(forms: &'static str) -> Scalar<T> {
    let read = move |value: &DeValue<'_>| {
        let text = value.as_str().ok_or_else(|| forms.to_owned())?;
        text.parse().map_err(|err: T::Err| err.to_string())
    };
    scalar(read, ToString::to_string)
}

pub(super) fn socket_addr() -> Scalar<SocketAddr> {
    scalar(read_socket_addr, ToString::to_string)
}

fn read_socket_addr(value: &DeValue<'_>) -> Result<SocketAddr, String> {
    let address = value.as_str().and_then(|text| text.parse().ok());
    if let Some(expected) = address.and_then(|address| bindable("", address)) {
        return Err(expected);
    }
    address.ok_or_else(|| {
        "ADDRESS:PORT with a numeric ADDRESS, such as \"127.0.0.1:9514\" or \"[::1]:9514\""
            .to_owned()
    })
}

/// A network, or one address. Bits after the prefix must be zero: otherwise either the address or the network may be
/// meant.
pub(super) fn network() -> Scalar<IpNet> {
    scalar(read_network, ToString::to_string)
}

fn read_network(value: &DeValue<'_>) -> Result<IpNet, String> {
    value
        .as_str()
        .and_then(|text| {
            let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
            text.parse().ok().or_else(address)
        })
        .filter(|net: &IpNet| net.trunc() == *net)
        .ok_or_else(|| {
            "a network or an address, such as \"10.0.0.0/8\" (no bits set after the prefix), \"192.0.2.1\" \
             or \"2001:db8::/32\""
                .to_owned()
        })
}

/// The absolute path of a file or directory, such as `example`.
pub(super) fn absolute_path(example: &'static str) -> Scalar<PathBuf> {
    let read = move |value: &DeValue<'_>| {
        value
            .as_str()
            .filter(|text| text.starts_with('/') && !text.ends_with('/') && !text.contains('\0'))
            .map(PathBuf::from)
            .ok_or_else(|| format!("an absolute path, such as {example:?}"))
    };
    scalar(read, |path| path.display().to_string())
}

/// Permissions of a file, in octal digits.
pub(super) fn mode() -> Scalar<u32> {
    scalar(read_mode, |mode| format!("{mode:04o}"))
}

fn read_mode(value: &DeValue<'_>) -> Result<u32, String> {
    value
        .as_str()
        .filter(|text| {
            (3..=4).contains(&text.len()) && text.bytes().all(|octet| octet.is_ascii_digit())
        })
        .and_then(|text| u32::from_str_radix(text, 8).ok())
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| {
            "an octal mode in quotes from \"0000\" to \"0777\", such as \"0660\"".to_owned()
        })
}

/// A name that can be a metric's label and part of a log line.
pub(super) fn name() -> Scalar<String> {
    scalar(read_name, Clone::clone)
}

fn read_name(value: &DeValue<'_>) -> Result<String, String> {
    value
        .as_str()
        .filter(|text| {
            (1..=NAME_CHARS_MAX).contains(&text.chars().count())
                && !text.chars().any(char::is_control)
        })
        .map(str::to_owned)
        .ok_or_else(|| format!("1 to {NAME_CHARS_MAX} printable characters"))
}

/// The number of a facility.
pub(super) fn facility() -> Scalar<u8> {
    scalar(read_facility, |number| FACILITIES[usize::from(*number)])
}

fn read_facility(value: &DeValue<'_>) -> Result<u8, String> {
    value
        .as_str()
        .and_then(facility_named)
        .ok_or_else(|| one_of(value, &FACILITIES))
}

/// A severity, or a range of them with both ends: `"error"`, `"emergency..warning"`.
pub(super) fn severities() -> Scalar<Severities> {
    Scalar {
        read: Box::new(read_severities),
        print: Box::new(|severities| severity_range(*severities).map(Value::from)),
    }
}

fn read_severities(value: &DeValue<'_>) -> Result<Severities, String> {
    let range = |text: &str| {
        let (one, other) = text.split_once("..").unwrap_or((text, text));
        let (one, other) = (severity_named(one.trim())?, severity_named(other.trim())?);
        let range = one.min(other)..=one.max(other);
        Some(range.fold(Severities::NONE, Severities::with))
    };
    value.as_str().and_then(range).ok_or_else(|| {
        let mut words = value.as_str().unwrap_or_default().split("..");
        let hint = words
            .find(|word| severity_named(word.trim()).is_none())
            .map_or_else(String::new, |word| did_you_mean(word.trim(), SEVERITIES));
        format!(
            "a severity or a range of them, such as \"error\" or \"warning..debug\", of {}{hint}",
            SEVERITIES.join(", ")
        )
    })
}

/// `severities` as the configuration file writes them, a word or a range; `None` for all of them.
pub(crate) fn severity_range(severities: Severities) -> Option<String> {
    let mut names = SEVERITIES
        .iter()
        .zip(0..)
        .filter(|(_, number)| severities.has(*number))
        .map(|(name, _)| *name);
    let first = names.next()?;
    let last = names.last().unwrap_or(first);
    match (severities == Severities::ALL, first == last) {
        (true, _) => None,
        (_, true) => Some(first.to_owned()),
        (_, false) => Some(format!("{first}..{last}")),
    }
}

/// A pattern for names.
pub(super) fn glob() -> Scalar<Glob> {
    scalar(read_glob, |glob| glob.text().to_owned())
}

fn read_glob(value: &DeValue<'_>) -> Result<Glob, String> {
    let text = value.as_str().ok_or_else(|| GLOB_FITS.to_owned())?;
    Glob::new(text).map_err(|error| format!("{GLOB_FITS}: {error}"))
}

/// A regular expression for MSG.
pub(super) fn text() -> Scalar<Text> {
    scalar(read_text, |text| text.written().to_owned())
}

fn read_text(value: &DeValue<'_>) -> Result<Text, String> {
    let text = value.as_str().ok_or_else(|| TEXT_FITS.to_owned())?;
    Text::new(text).map_err(|error| format!("{TEXT_FITS}: {error}"))
}

/// A field of a message's identity.
pub(super) fn field() -> Scalar<Field> {
    scalar(read_field, |field| field.name())
}

fn read_field(value: &DeValue<'_>) -> Result<Field, String> {
    let named = |word: &str| Field::ALL.into_iter().find(|field| field.name() == word);
    value
        .as_str()
        .and_then(named)
        .ok_or_else(|| one_of(value, &Field::ALL.map(Field::name)))
}

/// A profile, by its name.
pub(super) fn profile() -> Scalar<&'static Profile> {
    scalar(read_profile, |profile| profile.name)
}

fn read_profile(value: &DeValue<'_>) -> Result<&'static Profile, String> {
    value
        .as_str()
        .and_then(Profile::named)
        .ok_or_else(|| one_of(value, &Profile::names()))
}

/// Directives for our own log, in tracing's syntax.
pub(super) fn log_filter() -> Scalar<String> {
    scalar(read_log_filter, Clone::clone)
}

fn read_log_filter(value: &DeValue<'_>) -> Result<String, String> {
    // tracing takes a single word that is not a level for the name of a target, and then logs nothing but what that
    // target logs.
    let is_directive = |directive: &str| {
        let mut levels = LOG_LEVELS.iter();
        directive.contains(['=', '[']) || levels.any(|level| level.eq_ignore_ascii_case(directive))
    };
    value
        .as_str()
        .filter(|text| {
            text.split(',')
                .all(|directive| is_directive(directive.trim()))
        })
        .filter(|text| EnvFilter::builder().parse(text).is_ok())
        .map(str::to_owned)
        .ok_or_else(|| {
            let text = value.as_str().unwrap_or_default();
            let levels = text.split(',').map(|directive| {
                let level = directive.rsplit('=').next();
                level.expect("a split text has a last part").trim()
            });
            let mut hints = levels
                .filter(|level| !LOG_LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level)))
                .map(|level| did_you_mean(level, LOG_LEVELS));
            format!(
                "off, error, warn, info, debug or trace, also by module: \"info,tersed::forward=debug\"{}",
                hints.next().unwrap_or_default()
            )
        })
}

/// The text that says that one of `words` was expected; it names the one that `value` is similar to.
fn one_of(value: &DeValue<'_>, words: &[&str]) -> String {
    format!(
        "one of {}{}",
        words.join(", "),
        hint(value, words.iter().copied())
    )
}

/// Which of `words` a value is similar to, if it is a text.
fn hint<'w>(value: &DeValue<'_>, words: impl IntoIterator<Item = &'w str>) -> String {
    value
        .as_str()
        .map_or_else(String::new, |text| did_you_mean(text, words))
}

const LOG_LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

const GLOB_FITS: &str = "a name, with * for anything, ? for one character, [a-z] for one of those";
const TEXT_FITS: &str = "a regular expression";

/// Enough for any time in range (`6days 23h 59m 59s 999ms`), and too short for any text whose sum overflows a
/// `Duration`: the parser panics on those.
const DURATION_OCTETS_MAX: usize = 24;

/// A listener's name is its URL by default, and a URL may have the longest Unix path.
const NAME_CHARS_MAX: usize = 160;
