//! Charts as SVG. Legends and titles are left to the page; text takes the page's colour by its style sheet.

use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::prelude::*;

use super::{Bars, Chart, Line, Plot, Unit};
use crate::units::{show_bytes, show_count};

const WIDTH: u32 = 720;
const HEIGHT: u32 = 260;
/// Room for what is written at the axes.
const LEFT: u32 = 84;
const BOTTOM: u32 = 34;
const FONT: (&str, u32) = ("sans-serif", 12);
/// Seen on a light and on a dark ground.
const GRID: RGBColor = RGBColor(128, 128, 128);
/// Of the lines and bars of a chart, in this order and then again from the first: the palette of Okabe and Ito without
/// black, which people tell apart who do not see all colours.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(160, 150, 40),
];

/// The colour of the line or bars with this number, as CSS has it.
pub(super) fn colour(index: usize) -> String {
    let RGBColor(red, green, blue) = colour_of(index);
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// The names of its lines or bars, in the order of their colours.
pub(super) fn legend(plot: &Plot) -> Vec<&str> {
    match plot {
        Plot::Lines(lines) => lines.iter().map(|line| line.name.as_str()).collect(),
        Plot::Bars { bars, .. } => bars.iter().map(|bars| bars.name.as_str()).collect(),
    }
}

/// The plot as an `svg` element.
pub(super) fn svg(chart: &Chart) -> String {
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area();
    let drawn = match &chart.plot {
        Plot::Lines(lines) => draw_lines(&area, chart.unit, lines),
        Plot::Bars { categories, bars } => draw_bars(&area, chart.unit, categories, bars),
    };
    drawn.and_then(|()| area.present()).expect("a string takes everything");
    drop(area);
    svg
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

fn draw_lines<'a>(area: &Area<'a>, unit: Unit, lines: &[Line]) -> Drawn<'a> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let end = highest(points().map(|point| point.0));
    let top = highest(points().map(|point| point.1));
    let mut chart = on(area).build_cartesian_2d(0.0..end, 0.0..top * 1.05)?;
    let (seconds, value) = (|value: &f64| short(*value), |value: &f64| unit.show(*value));
    let mut mesh = chart.configure_mesh();
    mesh.x_desc("seconds").x_label_formatter(&seconds).y_label_formatter(&value).y_labels(6);
    mesh.axis_style(GRID).bold_line_style(GRID.mix(0.3)).light_line_style(TRANSPARENT);
    mesh.label_style(FONT).draw()?;
    for (index, line) in lines.iter().enumerate() {
        let style = colour_of(index).filled().stroke_width(2);
        // A line with one end only would not be seen.
        let point_size = if line.points.len() == 1 { 3 } else { 0 };
        let series = LineSeries::new(line.points.iter().copied(), style).point_size(point_size);
        chart.draw_series(series)?;
    }
    Ok(())
}

fn draw_bars<'a>(area: &Area<'a>, unit: Unit, categories: &[String], bars: &[Bars]) -> Drawn<'a> {
    let top = highest(bars.iter().flat_map(|bars| &bars.values).copied().flatten());
    let places = Places(categories.len());
    let mut chart = on(area).build_cartesian_2d(places, 0.0..top * 1.05)?;
    let name = |place: &f64| {
        let name = nearest(*place).and_then(|at| categories.get(at));
        name.cloned().unwrap_or_default()
    };
    let value = |value: &f64| unit.show(*value);
    let mut mesh = chart.configure_mesh();
    mesh.disable_x_mesh().x_labels(categories.len()).x_label_formatter(&name);
    mesh.y_label_formatter(&value).y_labels(6);
    mesh.axis_style(GRID).bold_line_style(GRID.mix(0.3)).light_line_style(TRANSPARENT);
    mesh.label_style(FONT).draw()?;
    // A group takes four fifths of its place.
    let width = 0.8 / bars.len().max(1) as f64;
    for (index, bars) in bars.iter().enumerate() {
        let left = |place: usize| place as f64 - 0.4 + width * index as f64;
        let values = bars.values.iter().enumerate();
        let values = values.filter_map(|(place, value)| Some((left(place), (*value)?)));
        chart.draw_series(values.map(|(left, value)| {
            Rectangle::new([(left, 0.0), (left + width, value)], colour_of(index).filled())
        }))?;
    }
    Ok(())
}

fn on<'a, 'b>(area: &'b Area<'a>) -> ChartBuilder<'b, 'b, SVGBackend<'a>> {
    let mut chart = ChartBuilder::on(area);
    chart.margin(8).margin_right(24).x_label_area_size(BOTTOM).y_label_area_size(LEFT);
    chart
}

fn colour_of(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}

/// The highest of some values; more than zero, so that an axis has a length.
fn highest(values: impl Iterator<Item = f64>) -> f64 {
    let highest = values.filter(|value| value.is_finite()).fold(0.0, f64::max);
    if highest > 0.0 { highest } else { 1.0 }
}

/// The number of the category in whose middle a place is.
fn nearest(place: f64) -> Option<usize> {
    let rounded = place.round();
    let is_middle = (place - rounded).abs() < 0.01 && rounded >= 0.0;
    #[expect(clippy::cast_possible_truncation, reason = "a whole number that is not negative")]
    #[expect(clippy::cast_sign_loss, reason = "a whole number that is not negative")]
    is_middle.then_some(rounded as usize)
}

/// An axis with so many categories, of which each has its middle at a whole number.
#[derive(Clone)]
struct Places(usize);

impl Ranged for Places {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let share = (value + 0.5) / self.0.max(1) as f64;
        let place = f64::from(limit.0) + share * f64::from(limit.1 - limit.0);
        #[expect(clippy::cast_possible_truncation, reason = "within the limits")]
        (place as i32)
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        (0..self.0).map(|place| place as f64).collect()
    }

    fn range(&self) -> std::ops::Range<f64> {
        -0.5..self.0 as f64 - 0.5
    }
}

impl Unit {
    /// A value with its unit.
    fn show(self, value: f64) -> String {
        match self {
            Self::Count => short_count(value),
            Self::PerSecond => format!("{}/s", short_count(value)),
            Self::Micros if value >= 1e6 => format!("{} s", short(value / 1e6)),
            Self::Micros if value >= 1e3 => format!("{} ms", short(value / 1e3)),
            Self::Micros => format!("{} µs", short(value)),
            Self::Bytes => show_bytes((value * 10.0).round() / 10.0),
            Self::Cpus | Self::Ratio => short(value),
        }
    }
}

fn short_count(value: f64) -> String {
    if value < 10.0 { short(value) } else { show_count(value) }
}

/// At most two digits after the point.
fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(points: &[(f64, f64)]) -> Line {
        Line { name: "a".to_owned(), points: points.to_vec() }
    }

    fn chart(unit: Unit, plot: Plot) -> Chart {
        Chart { title: String::new(), unit, plot }
    }

    #[test]
    fn each_line_is_drawn_in_its_colour() {
        let lines = vec![line(&[(0.0, 1.0), (2.0, 3.0)]), line(&[(0.0, 2.0), (2.0, 1500.0)])];
        let svg = svg(&chart(Unit::Micros, Plot::Lines(lines)));
        for index in 0..2 {
            let stroke = format!("stroke=\"{}\"", colour(index).to_uppercase());
            assert_eq!(svg.matches(&stroke).count(), 1, "{svg}");
        }
        assert!(svg.contains("1 ms") && svg.contains("seconds"), "{svg}");
        assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"), "{svg}");
        assert!(!svg.contains("<circle"), "{svg}");
    }

    #[test]
    fn a_single_value_is_seen() {
        let svg = svg(&chart(Unit::Micros, Plot::Lines(vec![line(&[(1.0, 1.0)])])));
        assert_eq!(svg.matches("<circle").count(), 1, "{svg}");
        assert!(svg.contains(&format!("fill=\"{}\"", colour(0).to_uppercase())), "{svg}");
    }

    #[test]
    fn bars_stand_above_their_names() {
        let values = vec![Some(1.0), None, Some(0.5)];
        let categories = ["one", "<two>", "three"].map(str::to_owned).to_vec();
        let bars = vec![Bars { name: "a".to_owned(), values }];
        let svg = svg(&chart(Unit::Ratio, Plot::Bars { categories, bars }));
        assert_eq!(svg.matches("<rect").count(), 2, "{svg}");
        assert!(svg.contains("one") && svg.contains("&lt;two&gt;"), "{svg}");
    }

    #[test]
    fn nothing_and_zero_have_axes_too() {
        for points in [&[][..], &[(0.0, 0.0)], &[(f64::NAN, f64::INFINITY), (1.0, 1.0)]] {
            let svg = svg(&chart(Unit::Count, Plot::Lines(vec![line(points)])));
            assert!(svg.contains("<line"), "{svg}");
        }
    }

    #[test]
    fn values_have_units() {
        assert_eq!(Unit::Micros.show(2_500_000.0), "2.5 s");
        assert_eq!(Unit::PerSecond.show(12_000.0), "12 000/s");
        assert_eq!(Unit::Bytes.show(2048.0), "2 KiB");
        assert_eq!(Unit::Ratio.show(0.5), "0.5");
        assert_eq!(Unit::Count.show(0.0), "0");
    }
}
