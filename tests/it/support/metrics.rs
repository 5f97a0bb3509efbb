//! The relay's `/metrics`, fetched and parsed (OpenMetrics text).
//!
//! Asking for a metric that the relay does not have is a panic, never a zero: a misspelt name must not let a test pass.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use super::wait::LIMIT;

/// One answer of `/metrics`.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    /// Names of the metric families that the relay describes, whether they have samples or not.
    families: BTreeSet<String>,
    samples: Vec<Sample>,
}

#[derive(Clone, Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// The terms of the counting law (law 5).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Balance {
    pub(crate) received: u64,
    pub(crate) recovered: u64,
    pub(crate) forwarded: u64,
    pub(crate) suppressed: u64,
    pub(crate) dropped: u64,
    pub(crate) queued: u64,
}

impl Balance {
    /// `received + recovered = forwarded + suppressed + dropped + queued`, to the frame.
    pub(crate) fn holds(self) -> bool {
        self.received + self.recovered
            == self.forwarded + self.suppressed + self.dropped + self.queued
    }
}

impl Metrics {
    /// Fetches the metrics of the relay with this admin address.
    pub(crate) fn scrape(admin: SocketAddr) -> io::Result<Self> {
        let (status, body) = http_get(admin, "/metrics")?;
        assert_eq!(status, 200, "/metrics answered {status}: {body}");
        Ok(Self::parse(&body))
    }

    /// Parses OpenMetrics text.
    ///
    /// # Panics
    ///
    /// If it is not OpenMetrics text; names the line.
    pub(crate) fn parse(text: &str) -> Self {
        assert!(
            text.trim_end().ends_with("# EOF"),
            "/metrics lacks its `# EOF`:\n{text}"
        );
        let mut metrics = Self {
            families: BTreeSet::new(),
            samples: Vec::new(),
        };
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(comment) = line.strip_prefix("# ") {
                if let Some(family) = comment.strip_prefix("TYPE ") {
                    let name = family.split(' ').next().unwrap();
                    metrics.families.insert(name.to_owned());
                }
            } else {
                let sample = parse_sample(line);
                metrics
                    .samples
                    .push(sample.unwrap_or_else(|| panic!("not a sample: {line:?}")));
            }
        }
        metrics
    }

    /// The sum of the samples of a counter or gauge over all labels; zero if there are no samples yet.
    ///
    /// # Panics
    ///
    /// If the relay has no such metric.
    #[track_caller]
    pub(crate) fn total(&self, name: &str) -> u64 {
        self.total_where(name, &[])
    }

    /// The sum of the samples that have all of `labels`.
    ///
    /// # Panics
    ///
    /// If the relay has no such metric.
    #[track_caller]
    pub(crate) fn total_where(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let family = name.strip_suffix("_total").unwrap_or(name);
        assert!(
            self.families.contains(family) || self.families.contains(name),
            "the relay has no metric {name}, only {:?}",
            self.families
        );
        // Not `sum()`, which returns -0.0 for no samples.
        let samples = self.matching(name, labels);
        let sum = samples.iter().fold(0.0, |sum, sample| sum + sample.value);
        assert!(
            sum >= 0.0 && sum.fract() == 0.0,
            "{name} is {sum}, not a count"
        );
        format!("{sum:.0}").parse().unwrap()
    }

    /// The value of the only sample of `name` as seconds since the Unix epoch, if there is a sample.
    ///
    /// # Panics
    ///
    /// If the relay has no such metric.
    #[track_caller]
    pub(crate) fn moment(&self, name: &str) -> Option<f64> {
        assert!(
            self.families.contains(name),
            "the relay has no metric {name}"
        );
        let samples = self.matching(name, &[]);
        assert!(samples.len() < 2, "{samples:?}");
        samples.first().map(|sample| sample.value)
    }

    /// The `label` of the sample of `name` that has all of `labels`.
    pub(crate) fn label(&self, name: &str, labels: &[(&str, &str)], label: &str) -> Option<&str> {
        let samples = self.matching(name, labels);
        samples
            .into_iter()
            .find_map(|sample| sample.labels.get(label))
            .map(String::as_str)
    }

    /// The terms of the counting law.
    pub(crate) fn balance(&self) -> Balance {
        // Only a relay with a spool has this metric.
        let recovers = self.families.contains("tersed_frames_recovered");
        Balance {
            received: self.total("tersed_frames_received_total"),
            recovered: if recovers {
                self.total("tersed_frames_recovered_total")
            } else {
                0
            },
            forwarded: self.total("tersed_frames_forwarded_total"),
            suppressed: self.total("tersed_frames_suppressed_total"),
            dropped: self.total("tersed_frames_dropped_total"),
            queued: self.total("tersed_frames_queued"),
        }
    }

    fn matching(&self, name: &str, labels: &[(&str, &str)]) -> Vec<&Sample> {
        let carries = |sample: &Sample, label: &str, value: &str| {
            sample.labels.get(label).is_some_and(|found| found == value)
        };
        self.samples
            .iter()
            .filter(|sample| sample.name == name)
            .filter(|sample| {
                labels
                    .iter()
                    .all(|(label, value)| carries(sample, label, value))
            })
            .collect()
    }
}

/// `GET path` over a new connection: status and body.
pub(crate) fn http_get(admin: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(admin)?;
    stream.set_read_timeout(Some(LIMIT))?;
    // With HTTP/1.0 the body ends with the connection, and is never chunked.
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: tersed\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, format!("not HTTP: {answer:?}"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(malformed)?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .ok_or_else(malformed)?;
    Ok((status, body.to_owned()))
}

/// `name{label="value",...} number [timestamp]`.
fn parse_sample(line: &str) -> Option<Sample> {
    let name_end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at_checked(name_end)?;
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.trim_start_matches(',').split_once("=\"")?;
            let (value, after) = parse_quoted(after)?;
            labels.insert(label.to_owned(), value);
            rest = after;
        }
        rest = rest.strip_prefix('}')?;
    }
    let value = rest.trim_start().split(' ').next()?.parse().ok()?;
    Some(Sample {
        name: name.to_owned(),
        labels,
        value,
    })
}

/// The value of a label up to its closing quote, and the text after it.
fn parse_quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, text.split_at_checked(at + 1)?.1)),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                escaped => value.push(escaped),
            },
            plain => value.push(plain),
        }
    }
    None
}
