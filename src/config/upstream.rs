//! An upstream: an element of `forward.to`, or `suppressed.to`. It is written as a URL, or as a table with one.

use std::time::Duration;

use toml::de::DeValue;

use super::error::At;
use super::read::Table;
use super::report::{Report, join};
use super::section::{Kind, Scope, Section, Visitor};
use super::url::UpstreamUrl;
use super::value::{Words, choice, count, duration, size, unless, url};
use super::written::{Printed, Written};
use super::{
    MIB, ROTATE_AGE_MAX, ROTATE_AGE_MIN, ROTATE_KEEP_MAX, ROTATE_SIZE_MAX, ROTATE_SIZE_MIN,
};

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct UpstreamConfig {
    pub url: UpstreamUrl,
    /// How messages are set apart on a stream. Without effect on datagrams.
    pub framing: OutputFraming,
    /// When a file is rotated. Off for everything but files.
    pub rotation: Rotation,
}

impl UpstreamConfig {
    /// An upstream at `url` with LF framing, which every collector takes.
    #[must_use]
    pub(crate) const fn new(url: UpstreamUrl) -> Self {
        Self {
            url,
            framing: OutputFraming::Lf,
            rotation: Rotation::OFF,
        }
    }
}

impl Section for UpstreamConfig {
    fn visit(&mut self, visitor: &mut impl Visitor) {
        let is_file = matches!(self.url, UpstreamUrl::File(_));
        let on =
            |applies, expected| Scope::new(applies, [self.url.transport(), "upstreams"], expected);
        let framed = on(
            self.url.has_framing(),
            "tcp, unix-stream, file and stdout upstreams",
        );
        let files = on(is_file, "file upstreams");
        let rotated = if is_file {
            let expected = "files with a rotate_size or a rotate_age";
            Scope::new(
                self.rotation.is_on(),
                ["files", "that are not rotated"],
                expected,
            )
            .depending_on(&["rotate_size", "rotate_age"])
        } else {
            files
        };

        let size = unless("off", size(ROTATE_SIZE_MIN, ROTATE_SIZE_MAX));
        let age = unless("off", duration(ROTATE_AGE_MIN, ROTATE_AGE_MAX));

        let v = visitor;
        let rotation = &mut self.rotation;
        v.key("url", url(UpstreamUrl::FORMS), &mut self.url);
        v.key_in(
            framed,
            "framing",
            choice(&OUTPUT_FRAMING),
            &mut self.framing,
        );
        v.key_in(files, "rotate_size", size, &mut rotation.size);
        v.key_in(files, "rotate_age", age, &mut rotation.age);
        v.key_in(
            rotated,
            "rotate_keep",
            count(1, ROTATE_KEEP_MAX),
            &mut rotation.keep,
        );
        v.key_in(
            rotated,
            "compress",
            choice(&COMPRESS),
            &mut rotation.compression,
        );
    }

    fn complete(&mut self, path: &str, at: &At, report: &mut Report) -> bool {
        if !matches!(self.url, UpstreamUrl::File(_)) {
            self.rotation = Rotation::OFF;
        }
        report.requires(path, "url", at, URL_MISSING)
    }
}

/// The kind of an upstream.
pub(super) struct Upstream {
    /// The rotation of a file for which none is configured.
    pub(super) rotation: Rotation,
}

impl Upstream {
    /// The table of an upstream. Its URL is replaced when it is read.
    pub(super) fn table(&self) -> Table<UpstreamConfig> {
        let start = UpstreamConfig {
            rotation: self.rotation,
            ..UpstreamConfig::new(UpstreamUrl::Stdout)
        };
        Table { start }
    }
}

impl Kind<UpstreamConfig> for Upstream {
    fn read(
        &self,
        written: &Written<'_>,
        path: &str,
        report: &mut Report,
    ) -> Option<UpstreamConfig> {
        match written.value {
            DeValue::Table(_) => self.table().read(written, path, report),
            DeValue::String(_) => {
                let Table { mut start } = self.table();
                start.url = url(UpstreamUrl::FORMS).read(written, path, report)?;
                report.accept(join(path, "url"), written.at.clone());
                start.complete(path, &written.at, report).then_some(start)
            }
            _ => {
                let expected =
                    "a URL, or a table such as { url = \"tcp://b:601\", framing = \"lf\" }";
                report.errors.push(written.unfit(expected));
                None
            }
        }
    }

    fn print(&self, value: &UpstreamConfig) -> Option<Printed> {
        self.table().print(value)
    }

    fn refuse_idle(&self, value: &UpstreamConfig, path: &str, report: &mut Report) {
        self.table().refuse_idle(value, path, report);
    }
}

/// When a file is rotated, and what is done with rotated files.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Rotation {
    /// Octets of a file before it is rotated; at least [`ROTATE_SIZE_MIN`].
    pub size: Option<usize>,
    /// How old a file gets before it is rotated, counted from its first octet.
    pub age: Option<Duration>,
    /// Rotated files that are kept; at least 1, at most [`ROTATE_KEEP_MAX`].
    pub keep: usize,
    /// How rotated files are compressed.
    pub compression: Compression,
}

impl Rotation {
    pub(crate) const OFF: Self = Self {
        size: None,
        age: None,
        keep: 10,
        compression: Compression::Zstd,
    };

    /// The default for a file of suppressed copies. Such a file is rarely watched, and in a storm it grows by everything
    /// that is not forwarded.
    pub(crate) const OF_COPIES: Self = Self {
        size: Some(100 * MIB),
        age: Some(Duration::from_secs(24 * 3600)),
        ..Self::OFF
    };

    /// Whether files are rotated.
    #[must_use]
    pub(crate) const fn is_on(&self) -> bool {
        self.size.is_some() || self.age.is_some()
    }
}

/// How rotated files are compressed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Compression {
    Off,
    #[default]
    Zstd,
}

/// How messages are set apart on a stream to an upstream.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum OutputFraming {
    /// An LF after each (RFC 6587 3.4.2).
    #[default]
    Lf,
    /// `MSG-LEN SP` before each (RFC 6587 3.4.1).
    OctetCounting,
}

pub(crate) const OUTPUT_FRAMING: Words<OutputFraming> = Words(&[
    ("lf", OutputFraming::Lf),
    ("octet-counting", OutputFraming::OctetCounting),
]);
pub(crate) const COMPRESS: Words<Compression> =
    Words(&[("off", Compression::Off), ("zstd", Compression::Zstd)]);

const URL_MISSING: &str = "url = \"tcp://HOST:PORT\" or another upstream URL";
