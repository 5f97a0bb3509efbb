//! Plots: one small SVG for each question, with its own background, so that it can be read on light and on
//! dark pages.

use std::{error::Error, path::Path};

use plotters::{
    coord::{
        combinators::{BindKeyPoints as _, IntoLogRange as _},
        ranged1d::{AsRangedCoord, ValueFormatter},
    },
    prelude::{
        ChartBuilder, Circle, Color as _, IntoDrawingArea as _, IntoFont as _, LineSeries,
        PathElement, RGBColor, SVGBackend, SeriesLabelPosition, WHITE,
    },
};

/// What is drawn. The horizontal axis is logarithmic, with a tick at each point.
#[derive(Debug)]
pub(crate) struct Plot {
    pub(crate) title: String,
    pub(crate) x: &'static str,
    pub(crate) y: &'static str,
    pub(crate) scale: Scale,
    pub(crate) lines: Vec<Line>,
}

/// The scale of the vertical axis.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Scale {
    /// Starts at zero.
    Linear,
    Logarithmic,
}

#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    /// From left to right.
    pub(crate) points: Vec<(f64, f64)>,
}

impl Plot {
    /// Writes the plot to `file`.
    pub(crate) fn write(&self, file: &Path) -> Result<(), Box<dyn Error>> {
        let ys = || self.points().map(|(_, y)| y);
        let most = ys().fold(0.0, f64::max);
        let least = ys().fold(f64::MAX, f64::min);
        match self.scale {
            // The library finds round ticks by itself.
            Scale::Linear => self.draw(file, 0.0..most * HEADROOM),
            Scale::Logarithmic => {
                let mut ticks: Vec<_> = (0..10)
                    .flat_map(|decade| [1.0, 2.0, 5.0].map(|tick| tick * 10_f64.powi(decade)))
                    .collect();
                let from = ticks.iter().copied().rfind(|tick| *tick <= least);
                let range = from.unwrap_or(least)..most * HEADROOM.powi(3);
                // The library would also draw ticks outside the range.
                ticks.retain(|tick| range.contains(tick));
                self.draw(file, range.log_scale().with_key_points(ticks))
            }
        }
    }

    fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        self.lines
            .iter()
            .flat_map(|line| line.points.iter().copied())
    }

    fn draw<Y>(&self, file: &Path, y: Y) -> Result<(), Box<dyn Error>>
    where
        Y: AsRangedCoord<Value = f64>,
        Y::CoordDescType: ValueFormatter<f64>,
    {
        let mut xs: Vec<f64> = self.points().map(|(x, _)| x).collect();
        xs.sort_by(f64::total_cmp);
        xs.dedup();
        let (Some(&first), Some(&last)) = (xs.first(), xs.last()) else {
            return Err("nothing to draw".into());
        };
        let area = SVGBackend::new(file, (640, 400)).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(&self.title, ("sans-serif", 17).into_font().color(&INK))
            .margin(14)
            .x_label_area_size(46)
            .y_label_area_size(62)
            .build_cartesian_2d(
                (first / 1.15..last * 1.15).log_scale().with_key_points(xs),
                y,
            )?;
        chart
            .configure_mesh()
            .x_desc(self.x)
            .y_desc(self.y)
            .axis_desc_style(("sans-serif", 14).into_font().color(&INK))
            .label_style(("sans-serif", 13).into_font().color(&INK))
            .x_labels(12)
            .y_labels(12)
            .x_label_formatter(&|x| short(*x))
            .y_label_formatter(&|y| short(*y))
            .bold_line_style(GRID)
            .light_line_style(WHITE)
            .draw()?;
        for (line, color) in self.lines.iter().zip(COLORS.iter().cycle()) {
            chart
                .draw_series(LineSeries::new(
                    line.points.iter().copied(),
                    color.stroke_width(2),
                ))?
                .label(&line.name)
                .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(3)));
            chart.draw_series(
                line.points
                    .iter()
                    .map(|point| Circle::new(*point, 3, color.filled())),
            )?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .label_font(("sans-serif", 13).into_font().color(&INK))
            .background_style(WHITE.mix(0.85))
            .border_style(GRID)
            .draw()?;
        area.present()?;
        Ok(())
    }
}

/// `10 k` for 10,000.
fn short(number: f64) -> String {
    let (number, unit) = match number {
        n if n >= 1e6 => (n / 1e6, " M"),
        n if n >= 1e4 => (n / 1e3, " k"),
        n => (n, ""),
    };
    if number.fract().abs() < 0.05 {
        format!("{number:.0}{unit}")
    } else {
        format!("{number:.1}{unit}")
    }
}

/// Room above the highest point for the names of the lines.
const HEADROOM: f64 = 1.5;

const INK: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(222, 222, 222);

/// Distinguishable for colour-blind readers (Okabe and Ito).
const COLORS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(150, 120, 0),
];
