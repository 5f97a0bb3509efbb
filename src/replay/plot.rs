//! The plot: lines per minute, before and after, as SVG.
//!
//! # Guarantees
//!
//! - Memory is bounded: when a log is longer than [`BINS_MAX`] bins, each two bins become one.
//! - No octet of a log gets into the markup.
//! - The picture draws its own background, so it is legible on light and dark pages.
//!
//! # Left out
//!
//! A plotting library: the maintained ones bring fonts and bitmaps, and this is two areas and two axes.

use std::fmt::{self, Write as _};

use jiff::Timestamp;
use jiff::tz::Offset;

use crate::core::tick::WallTime;

/// Counts of lines by time. Time must not run backwards.
#[derive(Debug)]
pub(super) struct Series {
    /// The beginning of the first bin, in minutes since the caller's origin.
    start: u64,
    /// The minutes of a bin; a power of two.
    minutes: u64,
    bins: Vec<Bin>,
}

/// The lines in one span of time.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Bin {
    before: u64,
    after: u64,
}

impl Series {
    pub(super) const fn new() -> Self {
        Self {
            start: 0,
            minutes: 1,
            bins: Vec::new(),
        }
    }

    /// Counts lines that came in (`before`) and lines that came out (`after`), `nanos` after the origin.
    #[inline]
    pub(super) fn count(&mut self, nanos: u64, before: u64, after: u64) {
        let minute = nanos / MINUTE_NANOS;
        if self.bins.is_empty() {
            self.start = minute;
        }
        let bin = self.bin(minute.saturating_sub(self.start));
        bin.before += before;
        bin.after += after;
    }

    fn bin(&mut self, minute: u64) -> &mut Bin {
        let mut index = usize::try_from(minute / self.minutes).unwrap_or(usize::MAX);
        while index >= BINS_MAX {
            self.halve();
            index = usize::try_from(minute / self.minutes).unwrap_or(usize::MAX);
        }
        if index >= self.bins.len() {
            self.bins.resize(index + 1, Bin::default());
        }
        &mut self.bins[index]
    }

    fn halve(&mut self) {
        self.minutes = self.minutes.saturating_mul(2);
        self.bins = self
            .bins
            .chunks(2)
            .map(|pair| Bin {
                before: pair.iter().map(|bin| bin.before).sum(),
                after: pair.iter().map(|bin| bin.after).sum(),
            })
            .collect();
    }

    /// Draws the plot. `wall` is the time at which the first bin begins; `caption` must hold no text from a log.
    pub(super) fn svg(&self, wall: WallTime, caption: &str) -> String {
        let columns = self.columns();
        let minutes = self.minutes * columns.per_column as u64;
        let per_minute = |lines: u64| lines as f64 / minutes as f64;
        let before: Vec<f64> = columns
            .bins
            .iter()
            .map(|bin| per_minute(bin.before))
            .collect();
        let after: Vec<f64> = columns
            .bins
            .iter()
            .map(|bin| per_minute(bin.after))
            .collect();
        let highest = before.iter().chain(&after).copied().fold(0.0, f64::max);
        let top = nice_ceiling(highest);
        let mean = match minutes {
            1 => String::new(),
            minutes => format!("; each column is the mean of {minutes} minutes"),
        };
        let draw = |f: &mut String| -> fmt::Result {
            write!(
                f,
                "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
                 height=\"{HEIGHT}\" font-family=\"sans-serif\" font-size=\"13\">\n\
                 <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n\
                 <text x=\"{LEFT}\" y=\"28\" font-size=\"17\" fill=\"#111111\">Lines per minute, before and \
                 after</text>\n\
                 <text x=\"{LEFT}\" y=\"48\" fill=\"#555555\">{caption}{mean}</text>\n"
            )?;
            legend(f)?;
            for part in 0..=GRID_LINES {
                let share = f64::from(part) / f64::from(GRID_LINES);
                let y = BOTTOM - share * (BOTTOM - TOP);
                write!(
                    f,
                    "<path d=\"M{LEFT} {y:.1}H{RIGHT}\" stroke=\"#dddddd\"/>\n\
                     <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#555555\">{}</text>\n",
                    LEFT - 8.0,
                    y + 4.5,
                    count_text(top * share)
                )?;
            }
            area(f, &before, top, "#c3ccd6")?;
            area(f, &after, top, "#1f6feb")?;
            self.time_axis(f, wall, columns.bins.len() as u64 * minutes)?;
            f.write_str("</svg>\n")
        };
        let mut svg = String::new();
        draw(&mut svg).expect("writing to a String does not fail");
        svg
    }

    /// Joins bins to no more columns than the picture has room for.
    fn columns(&self) -> Columns {
        let per_column = self.bins.len().div_ceil(COLUMNS_MAX).max(1);
        let bins = self.bins.chunks(per_column).map(|bins| Bin {
            before: bins.iter().map(|bin| bin.before).sum(),
            after: bins.iter().map(|bin| bin.after).sum(),
        });
        Columns {
            per_column,
            bins: bins.collect(),
        }
    }

    fn time_axis(&self, f: &mut String, wall: WallTime, minutes: u64) -> fmt::Result {
        let first = Timestamp::from_microsecond(wall.micros()).unwrap_or(Timestamp::UNIX_EPOCH);
        let form = if minutes > 2 * DAY_MINUTES {
            "%Y-%m-%d"
        } else {
            "%m-%d %H:%M"
        };
        for part in 0..=TIME_LABELS {
            let share = f64::from(part) / f64::from(TIME_LABELS);
            let x = LEFT + share * (RIGHT - LEFT);
            let later = minutes.saturating_mul(60) * u64::from(part) / u64::from(TIME_LABELS);
            let at = i64::try_from(later)
                .ok()
                .and_then(|later| Timestamp::from_second(first.as_second() + later).ok())
                .unwrap_or(first);
            let anchor = match part {
                0 => "start",
                TIME_LABELS => "end",
                _ => "middle",
            };
            write!(
                f,
                "<path d=\"M{x:.1} {BOTTOM}v5\" stroke=\"#555555\"/>\n\
                 <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\" fill=\"#555555\">{}</text>\n",
                BOTTOM + 21.0,
                Offset::UTC.to_datetime(at).strftime(form)
            )?;
        }
        writeln!(
            f,
            "<path d=\"M{LEFT} {BOTTOM}H{RIGHT}\" stroke=\"#555555\"/>"
        )
    }
}

struct Columns {
    per_column: usize,
    bins: Vec<Bin>,
}

fn legend(f: &mut String) -> fmt::Result {
    let entries = [
        (260.0, "#c3ccd6", "before"),
        (176.0, "#1f6feb", "after, with summaries"),
    ];
    for (from_right, color, word) in entries {
        let x = RIGHT - from_right;
        write!(
            f,
            "<rect x=\"{x}\" y=\"18\" width=\"12\" height=\"12\" fill=\"{color}\"/>\n\
             <text x=\"{}\" y=\"29\" fill=\"#111111\">{word}</text>\n",
            x + 18.0
        )?;
    }
    Ok(())
}

/// Draws an area of steps; each column is as wide as its span of time.
fn area(f: &mut String, heights: &[f64], top: f64, color: &str) -> fmt::Result {
    let width = (RIGHT - LEFT) / heights.len().max(1) as f64;
    write!(f, "<path fill=\"{color}\" d=\"M{LEFT} {BOTTOM}")?;
    let mut x = LEFT;
    for height in heights {
        let y = BOTTOM - height / top * (BOTTOM - TOP);
        x += width;
        write!(f, "V{y:.1}H{x:.2}")?;
    }
    f.write_str(&format!("V{BOTTOM}Z\"/>\n"))
}

/// The next higher number whose quarters are easy to read.
fn nice_ceiling(highest: f64) -> f64 {
    if highest <= 0.0 {
        return 1.0;
    }
    let unit = 10_f64.powf(highest.log10().floor());
    let steps = [1.0, 1.2, 1.6, 2.0, 2.4, 3.2, 4.0, 6.0, 8.0, 10.0];
    steps
        .into_iter()
        .map(|step| step * unit)
        .find(|top| *top >= highest)
        .unwrap_or(highest)
}

fn count_text(lines: f64) -> String {
    let (lines, unit) = match lines {
        millions if millions >= 1_000_000.0 => (millions / 1_000_000.0, "M"),
        thousands if thousands >= 10_000.0 => (thousands / 1000.0, "k"),
        few => (few, ""),
    };
    // Cuts off what binary arithmetic adds.
    let text = format!("{lines:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}{unit}")
}

/// When there are more bins, each two become one.
const BINS_MAX: usize = 16 * 1024;

/// One column for two pixels.
const COLUMNS_MAX: usize = 400;

const WIDTH: u32 = 900;
const HEIGHT: u32 = 420;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 876.0;
const TOP: f64 = 70.0;
const BOTTOM: f64 = 380.0;
const GRID_LINES: u32 = 4;
const TIME_LABELS: u32 = 5;

const MINUTE_NANOS: u64 = 60_000_000_000;
const DAY_MINUTES: u64 = 24 * 60;

#[cfg(test)]
mod tests {
    use super::*;

    const START: WallTime = WallTime::from_micros(1_795_341_600_000_000);

    fn totals(series: &Series) -> (u64, u64) {
        let bins = series.bins.iter();
        bins.fold((0, 0), |(before, after), bin| {
            (before + bin.before, after + bin.after)
        })
    }

    #[test]
    fn a_long_log_takes_no_more_memory_and_loses_no_line() {
        let mut series = Series::new();
        for hour in 0..100_000 {
            series.count(hour * 60 * MINUTE_NANOS, 3, 1);
        }
        assert!(series.bins.len() <= BINS_MAX);
        assert_eq!(totals(&series), (300_000, 100_000));
        assert_eq!(series.minutes, 512);
        series.count(u64::MAX, 1, 1);
        assert!(series.bins.len() <= BINS_MAX);
        assert_eq!(totals(&series), (300_001, 100_001));
    }

    #[test]
    fn heights_are_lines_per_minute() {
        let mut series = Series::new();
        for second in 0..120 {
            series.count(second * 1_000_000_000, 10, 1);
        }
        let svg = series.svg(START, "caption");
        // 600 lines a minute: the axis ends at 600, and the area reaches its top.
        assert!(svg.contains(">600<") && svg.contains(">150<"), "{svg}");
        assert!(svg.contains(&format!("M{LEFT} {BOTTOM}V{TOP:.1}")), "{svg}");
        assert!(svg.contains(">11-22 10:00<"), "{svg}");
    }

    #[test]
    fn nothing_to_draw_is_drawn_as_well() {
        let svg = Series::new().svg(START, "caption");
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn an_axis_ends_at_a_number_that_is_easy_to_divide() {
        for (highest, top) in [
            (0.0, 1.0),
            (0.3, 0.32),
            (3.0, 3.2),
            (10.0, 10.0),
            (11.0, 12.0),
            (6500.0, 8000.0),
        ] {
            assert!((nice_ceiling(highest) - top).abs() < 1e-9, "{highest}");
        }
    }
}
