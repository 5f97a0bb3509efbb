//! Line: formats one event as one line.
//!
//! ```text
//! <4>WARN tersed::forward: upstream lost upstream=tcp://a:601 cause=refused       for the journal
//! 2026-11-28T03:00:00.000000Z  WARN tersed::forward: upstream lost ...            elsewhere
//! ```
//!
//! # Guarantees
//!
//! - An event is one line: line ends, control characters and characters that hide or reorder text are escaped in every
//!   value.
//! - A line for the journal begins with its priority (sd-daemon(3)), which the journal removes.

use std::fmt::{self, Debug, Write as _};
use std::io;

use nix::sys::stat::fstat;
use tracing::field::Field;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::printable::{Escaping, Style};

/// Formats each event with `inner`, as one line.
#[derive(Debug)]
pub(super) struct Line<F> {
    pub(super) inner: F,
    pub(super) style: Style,
    /// Whether the journal reads it.
    pub(super) to_journal: bool,
}

impl<S, N, F> FormatEvent<S, N> for Line<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if self.to_journal {
            writer.write_str(priority(*event.metadata().level()))?;
        }
        match self.style {
            // Colours stand between the fields, so the fields are escaped one by one (`text_field`).
            Style::Text => self.inner.format_event(context, writer, event),
            Style::Json => {
                let mut line = String::new();
                let formatted = Writer::new(&mut line);
                self.inner.format_event(context, formatted, event)?;
                Escaping(&mut writer, Style::Json).write_str(line.trim_end_matches('\n'))?;
                writer.write_char('\n')
            }
        }
    }
}

/// Writes one field in text format.
pub(super) fn text_field(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> fmt::Result {
    match field.name() {
        "message" => {}
        name if writer.has_ansi_escapes() => {
            write!(writer, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m")?;
        }
        name => write!(writer, "{name}=")?,
    }
    write!(Escaping(writer, Style::Text), "{value:?}")
}

/// The prefix of a line for the journal.
const fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}

/// Writes why the process ends, one line for each line of `text`, with the priority of errors for the journal. For use
/// before logging is set up, or after everything else has ended.
///
/// # Errors
///
/// Writing to `err` failed.
pub(crate) fn tell_end(err: &mut impl io::Write, text: impl fmt::Display) -> io::Result<()> {
    let prefix = if stderr_is_journal() {
        priority(Level::ERROR)
    } else {
        ""
    };
    text.to_string()
        .lines()
        .try_for_each(|line| writeln!(err, "{prefix}{}", super::printable(line)))
}

pub(super) fn stderr_is_journal() -> bool {
    let Ok(journal) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    fstat(io::stderr()).is_ok_and(|stderr| is_journal(&journal, stderr.st_dev, stderr.st_ino))
}

/// Whether the stream with that device and inode is the journal's. systemd.exec(5): every process that a service starts
/// inherits the variable, so its value must be compared with the stream itself.
fn is_journal(journal_stream: &str, device: u64, inode: u64) -> bool {
    journal_stream
        .split_once(':')
        .is_some_and(|(dev, ino)| dev.parse() == Ok(device) && ino.parse() == Ok(inode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_stream_that_the_journal_gave_us_is_the_journal() {
        for (journal_stream, expected) in [
            ("8:4711", true),
            ("8:4712", false),
            ("9:4711", false),
            ("8", false),
            ("", false),
            ("8:4711:1", false),
            ("x:y", false),
        ] {
            assert_eq!(
                is_journal(journal_stream, 8, 4711),
                expected,
                "{journal_stream}"
            );
        }
    }
}
