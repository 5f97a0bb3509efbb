//! Single values: a TOML value or the text of a flag in, a number of octets, a time or a choice out.
//!
//! A *reader* takes a [`Written`] value and gives what it means, or puts an error that says what
//! fits. Readers of scalars are written as `DeValue -> Result<T, what fits>` and lifted by [`one`].
//!
//! # Guarantees
//!
//! - Times and sizes come with a unit: a bare number is refused, never guessed.
//! - Nothing is rounded or clamped: what is out of range is refused, and the range named.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use ipnet::IpNet;
use toml::de::DeValue;
use tracing_subscriber::EnvFilter;

use crate::identity::Field;
use crate::nearest::did_you_mean;
use crate::rule::{
    FACILITIES, Glob, Profile, SEVERITIES, Severities, Text, facility_named, severity_named,
};

use super::error::{At, ConfigError, FOUND_CHARS_MAX, Fault, quoted};
use super::url::bindable;

/// A value where it was written.
pub(super) struct Written<'a> {
    pub(super) value: &'a DeValue<'a>,
    pub(super) at: At,
    /// Lines of the file that holds the value, for the places of what is inside it.
    pub(super) lines: &'a Lines,
}

impl Written<'_> {
    /// The error that this value is not what `fits`.
    pub(super) fn unfit(&self, fits: impl Into<String>) -> ConfigError {
        ConfigError {
            at: self.at.clone(),
            fault: Fault::Unfit {
                found: found(self.value),
                fits: fits.into(),
            },
        }
    }
}

/// Where the lines of a file start.
#[derive(Default)]
pub(super) struct Lines(Vec<usize>);

impl Lines {
    pub(super) fn of(text: &[u8]) -> Self {
        Self(memchr::memchr_iter(b'\n', text).collect())
    }

    /// The line, counted from 1, that the octet at `offset` stands in.
    pub(super) fn at(&self, offset: usize) -> usize {
        self.0.partition_point(|end| *end < offset) + 1
    }
}

/// A setting that was read, and where it stood.
#[derive(Clone, Debug)]
pub(super) struct Given<T> {
    pub(super) value: T,
    pub(super) at: At,
}

/// What became of a key.
#[derive(Clone, Debug, Default)]
pub(super) enum Slot<T> {
    /// Not written.
    #[default]
    Absent,
    /// Written, and refused already: nothing that depends on it can be judged.
    Refused,
    /// Written.
    Given(Given<T>),
}

impl<T> Slot<T> {
    pub(super) fn new(value: Option<T>, at: At) -> Self {
        value.map_or(Self::Refused, |value| Self::Given(Given { value, at }))
    }

    /// The value, or `default` if there is none.
    pub(super) fn or(self, default: T) -> T {
        match self {
            Self::Given(given) => given.value,
            Self::Absent | Self::Refused => default,
        }
    }

    /// The value, or the type's default.
    pub(super) fn or_default(self) -> T
    where
        T: Default,
    {
        self.or(T::default())
    }

    /// Where it was written, if it was, and not refused.
    pub(super) const fn at(&self) -> Option<&At> {
        match self {
            Self::Given(given) => Some(&given.at),
            Self::Absent | Self::Refused => None,
        }
    }

    pub(super) const fn is_refused(&self) -> bool {
        matches!(self, Self::Refused)
    }
}

/// The words for the values of a choice, as they are written and printed.
pub(crate) struct Words<T: 'static>(pub(super) &'static [(&'static str, T)]);

impl<T: Copy + PartialEq> Words<T> {
    /// The word for `value`.
    pub(crate) fn word(&self, value: T) -> &'static str {
        // Each table lists every value of its enum; a test counts.
        self.0
            .iter()
            .find(|(_, listed)| *listed == value)
            .map_or("?", |(word, _)| word)
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

/// Makes a reader of a scalar's reader.
pub(super) fn one<T>(
    read: impl Fn(&DeValue<'_>) -> Result<T, String>,
) -> impl Fn(&Written<'_>, &mut Vec<ConfigError>) -> Option<T> {
    move |written, errors| {
        read(written.value)
            .map_err(|fits| errors.push(written.unfit(fits)))
            .ok()
    }
}

/// A list whose elements are read by `item`. Elements that are refused are left out.
pub(super) fn list<T>(
    fits: &'static str,
    length_min: usize,
    item: impl Fn(&Written<'_>, &mut Vec<ConfigError>) -> Option<T>,
) -> impl Fn(&Written<'_>, &mut Vec<ConfigError>) -> Option<Vec<Given<T>>> {
    move |written, errors| {
        let Some(array) = written
            .value
            .as_array()
            .filter(|array| array.len() >= length_min)
        else {
            errors.push(written.unfit(fits));
            return None;
        };
        let mut items = Vec::with_capacity(array.len());
        for (index, value) in array.iter().enumerate() {
            let line = written.lines.at(value.span().start);
            let at = written.at.within(&format!("[{index}]"), line);
            let element = Written {
                value: value.get_ref(),
                at,
                lines: written.lines,
            };
            if let Some(value) = item(&element, errors) {
                items.push(Given {
                    value,
                    at: element.at,
                });
            }
        }
        Some(items)
    }
}

/// `true` or `false`.
pub(super) fn boolean(value: &DeValue<'_>) -> Result<bool, String> {
    value
        .as_bool()
        .ok_or_else(|| format!("true or false{}", hint(value, ["true", "false"])))
}

/// A whole number within `min..=max`.
pub(super) fn count<T>(min: T, max: T) -> impl Fn(&DeValue<'_>) -> Result<T, String>
where
    T: Copy + Display + PartialOrd + TryFrom<i64>,
{
    move |value| {
        value
            .as_integer()
            .and_then(|number| i64::from_str_radix(number.as_str(), number.radix()).ok())
            .and_then(|number| T::try_from(number).ok())
            .filter(|number| (min..=max).contains(number))
            .ok_or_else(|| format!("a whole number from {min} to {max}"))
    }
}

/// A power of two within `1..=max`.
pub(super) fn power_of_two(max: usize) -> impl Fn(&DeValue<'_>) -> Result<usize, String> {
    move |value| {
        count(1, max)(value)
            .ok()
            .filter(|number| number.is_power_of_two())
            .ok_or_else(|| format!("a power of two from 1 to {max}"))
    }
}

/// A time with its unit, within `min..=max`.
pub(super) fn duration(
    min: Duration,
    max: Duration,
) -> impl Fn(&DeValue<'_>) -> Result<Duration, String> {
    move |value| {
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
    }
}

/// A number of octets with its unit, within `min..=max`.
pub(super) fn size(min: usize, max: usize) -> impl Fn(&DeValue<'_>) -> Result<usize, String> {
    move |value| {
        value
            .as_str()
            // A bare number would be taken for octets.
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
    }
}

/// One of `words`.
pub(super) fn choice<T: Copy + PartialEq>(
    words: &'static Words<T>,
) -> impl Fn(&DeValue<'_>) -> Result<T, String> {
    move |value| {
        value
            .as_str()
            .and_then(|text| words.value(text))
            .ok_or_else(|| words.list() + &hint(value, words.0.iter().map(|(word, _)| *word)))
    }
}

/// `word`, which stands for `None`, or what `read` takes.
pub(super) fn unless<T>(
    word: &'static str,
    read: impl Fn(&DeValue<'_>) -> Result<T, String>,
) -> impl Fn(&DeValue<'_>) -> Result<Option<T>, String> {
    move |value| {
        if value.as_str() == Some(word) {
            return Ok(None);
        }
        read(value)
            .map(Some)
            .map_err(|fits| format!("{word:?}, or {fits}{}", hint(value, [word])))
    }
}

/// A URL of ours; its own error says what fits.
pub(super) fn url<T: FromStr<Err: Display>>(
    forms: &'static str,
) -> impl Fn(&DeValue<'_>) -> Result<T, String> {
    move |value| {
        let text = value.as_str().ok_or_else(|| forms.to_owned())?;
        text.parse().map_err(|err: T::Err| err.to_string())
    }
}

/// `ADDRESS:PORT` to bind.
pub(super) fn socket_addr(value: &DeValue<'_>) -> Result<SocketAddr, String> {
    let address = value.as_str().and_then(|text| text.parse().ok());
    if let Some(fits) = address.and_then(|address| bindable("", address)) {
        return Err(fits);
    }
    address.ok_or_else(|| {
        "ADDRESS:PORT with a numeric ADDRESS, such as \"127.0.0.1:9514\" or \"[::1]:9514\""
            .to_owned()
    })
}

/// A network, or one address. Bits behind the prefix must be zero: who sets them means either the
/// address or the network, and only its writer knows which.
pub(super) fn network(value: &DeValue<'_>) -> Result<IpNet, String> {
    value
        .as_str()
        .and_then(|text| {
            let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
            text.parse().ok().or_else(address)
        })
        .filter(|net: &IpNet| net.trunc() == *net)
        .ok_or_else(|| {
            "a network or an address, such as \"10.0.0.0/8\" (no bits set behind the prefix), \"192.0.2.1\" \
             or \"2001:db8::/32\""
                .to_owned()
        })
}

/// The absolute path of a file or directory, as `example` is one.
pub(super) fn absolute_path(
    example: &'static str,
) -> impl Fn(&DeValue<'_>) -> Result<PathBuf, String> {
    move |value| {
        value
            .as_str()
            .filter(|text| text.starts_with('/') && !text.ends_with('/') && !text.contains('\0'))
            .map(PathBuf::from)
            .ok_or_else(|| format!("an absolute path, such as {example:?}"))
    }
}

/// Permissions of a file as octal digits.
pub(super) fn mode(value: &DeValue<'_>) -> Result<u32, String> {
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

/// A name that can be a metric's label and a word in a log line.
pub(super) fn name(value: &DeValue<'_>) -> Result<String, String> {
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
pub(super) fn facility(value: &DeValue<'_>) -> Result<u8, String> {
    value
        .as_str()
        .and_then(facility_named)
        .ok_or_else(|| one_of(value, &FACILITIES))
}

/// A severity, or a range of them with both ends: `"error"`, `"emergency..warning"`.
pub(super) fn severities(value: &DeValue<'_>) -> Result<Severities, String> {
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

/// A name with gaps.
pub(super) fn glob(value: &DeValue<'_>) -> Result<Glob, String> {
    let text = value.as_str().ok_or_else(|| GLOB_FITS.to_owned())?;
    Glob::new(text).map_err(|error| format!("{GLOB_FITS}: {error}"))
}

/// A regular expression for MSG.
pub(super) fn text(value: &DeValue<'_>) -> Result<Text, String> {
    let text = value.as_str().ok_or_else(|| TEXT_FITS.to_owned())?;
    Text::new(text).map_err(|error| format!("{TEXT_FITS}: {error}"))
}

/// A field of a message's identity.
pub(super) fn field(value: &DeValue<'_>) -> Result<Field, String> {
    let named = |word: &str| Field::ALL.into_iter().find(|field| field.name() == word);
    value
        .as_str()
        .and_then(named)
        .ok_or_else(|| one_of(value, &Field::ALL.map(Field::name)))
}

/// A profile, by its name.
pub(super) fn profile(value: &DeValue<'_>) -> Result<&'static Profile, String> {
    value
        .as_str()
        .and_then(Profile::named)
        .ok_or_else(|| one_of(value, &Profile::names()))
}

/// Directives for our own log, as tracing has them.
pub(super) fn log_filter(value: &DeValue<'_>) -> Result<String, String> {
    // A single word that is no level would be taken for the name of a target, and switch on
    // everything that this target has to say: nothing.
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
            let levels = text
                .split(',')
                .map(|directive| directive.rsplit('=').next().unwrap_or_default().trim());
            let mut hints = levels
                .filter(|level| !LOG_LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level)))
                .map(|level| did_you_mean(level, LOG_LEVELS));
            format!(
                "off, error, warn, info, debug or trace, also by module: \"info,tersed::forward=debug\"{}",
                hints.next().unwrap_or_default()
            )
        })
}

/// What fits where one of `words` was expected, and which of them `value` nearly is.
fn one_of(value: &DeValue<'_>, words: &[&str]) -> String {
    format!(
        "one of {}{}",
        words.join(", "),
        hint(value, words.iter().copied())
    )
}

/// Which of `words` a value nearly is, if it is a text.
fn hint<'w>(value: &DeValue<'_>, words: impl IntoIterator<Item = &'w str>) -> String {
    value
        .as_str()
        .map_or_else(String::new, |text| did_you_mean(text, words))
}

/// A time as people write it.
pub(crate) fn time_text(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}

/// A number of octets as people write it; exact, in the unit of which it is the fewest: that is how it was written.
pub(crate) fn size_text(octets: usize) -> String {
    // Of two that are equally good the first.
    let units = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
    ];
    let thousands = [("kB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000)];
    units
        .into_iter()
        .chain(thousands)
        .filter(|(_, unit)| octets > 0 && octets.is_multiple_of(*unit))
        .map(|(name, unit)| (octets / unit, name))
        .min_by_key(|(count, _)| *count)
        .map_or_else(
            || format!("{octets}B"),
            |(count, name)| format!("{count}{name}"),
        )
}

fn found(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => quoted(text),
        DeValue::Integer(number) => number_text(&number.to_string()),
        DeValue::Float(number) => number_text(number.as_str()),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(array) if array.is_empty() => "an empty list".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// A number as TOML has it: ASCII, but of any length.
fn number_text(text: &str) -> String {
    text.chars().take(FOUND_CHARS_MAX).collect()
}

const LOG_LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

const GLOB_FITS: &str = "a name, with * for anything, ? for one character, [a-z] for one of those";
const TEXT_FITS: &str = "a regular expression";

/// Longer than any time that is in range (`6days 23h 59m 59s 999ms`), and shorter than any text whose
/// sum runs over what a `Duration` holds, on which the parser panics.
const DURATION_OCTETS_MAX: usize = 24;

/// A listener's name, which defaults to its URL, must hold the longest Unix path.
const NAME_CHARS_MAX: usize = 160;
