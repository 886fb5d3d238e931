//! Charts as SVG. Legends and titles are left to the page; text takes the page's colour by its style sheet.

use std::collections::BTreeMap;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::axis::Axis;
use super::{Bars, Chart, Heat, Line, Plot, Unit};
use crate::units::{show_bytes, show_count};

const WIDTH: u32 = 600;
const HEIGHT: u32 = 250;
/// Room for what is written at the axes.
const LEFT: u32 = 92;
const BOTTOM: u32 = 42;
/// Rows of a heat map.
const HEAT_ROWS: f64 = 40.0;
const FONT: (&str, u32) = ("sans-serif", 15);
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
        Plot::Lines(lines) | Plot::Percentiles(lines) => {
            lines.iter().map(|line| line.name.as_str()).collect()
        }
        Plot::Heat(_) => Vec::new(),
        Plot::Bars { bars, .. } => bars.iter().map(|bars| bars.name.as_str()).collect(),
    }
}

/// The plot as an `svg` element.
pub(super) fn svg(chart: &Chart) -> String {
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area();
    let drawn = match &chart.plot {
        Plot::Lines(lines) => draw_lines(&area, chart.unit, lines),
        Plot::Percentiles(lines) => draw_percentiles(&area, chart.unit, lines),
        Plot::Heat(columns) => draw_heat(&area, chart.unit, columns),
        Plot::Bars { categories, bars } => draw_bars(&area, chart.unit, categories, bars),
    };
    drawn.and_then(|()| area.present()).expect("a string takes everything");
    drop(area);
    svg
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
pub(super) type Drawn<'a> =
    Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

fn draw_lines<'a>(area: &Area<'a>, unit: Unit, lines: &[Line]) -> Drawn<'a> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let end = highest(points().map(|point| point.0));
    let down = unit.axis(points().map(|point| point.1));
    let name = |value: &f64| short(*value);
    // Seconds have marks of their own: a run ends when it does.
    draw_points(
        area,
        unit,
        lines,
        (Axis::Linear { top: end, step: step_of(end) }, down),
        "seconds",
        &name,
    )
}

fn draw_percentiles<'a>(area: &Area<'a>, unit: Unit, lines: &[Line]) -> Drawn<'a> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let high = highest(points().map(|point| Axis::nines(point.0)));
    let down = unit.axis(points().map(|point| point.1));
    let placed = |line: &Line| Line {
        name: line.name.clone(),
        points: line.points.iter().map(|(share, value)| (Axis::nines(*share), *value)).collect(),
    };
    let lines: Vec<_> = lines.iter().map(placed).collect();
    let name = |place: &f64| percent(*place);
    draw_points(area, unit, &lines, (Axis::Nines { high }, down), "share of all messages", &name)
}

fn draw_points<'a>(
    area: &Area<'a>,
    unit: Unit,
    lines: &[Line],
    (across, down): (Axis, Axis),
    title: &str,
    name: &dyn Fn(&f64) -> String,
) -> Drawn<'a> {
    let mut chart = on(area).build_cartesian_2d(across, down)?;
    let value = |value: &f64| unit.show(*value);
    let mut mesh = chart.configure_mesh();
    mesh.x_desc(title).x_label_formatter(name).y_label_formatter(&value);
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

fn draw_heat<'a>(area: &Area<'a>, unit: Unit, columns: &[Heat]) -> Drawn<'a> {
    let end = highest(columns.iter().map(|column| column.to));
    let down = unit.axis(columns.iter().flat_map(|column| &column.counts).map(|(value, _)| *value));
    let (ground, range) = (down.ground(), down.range());
    let across = Axis::Linear { top: end, step: step_of(end) };
    let mut chart = on(area).build_cartesian_2d(across, down)?;
    let (seconds, value) = (|value: &f64| short(*value), |value: &f64| unit.show(*value));
    let mut mesh = chart.configure_mesh();
    mesh.x_desc("seconds").x_label_formatter(&seconds).y_label_formatter(&value);
    mesh.axis_style(GRID).bold_line_style(GRID.mix(0.3)).light_line_style(TRANSPARENT);
    mesh.label_style(FONT).draw()?;
    let ratio = (range.end / ground.max(f64::MIN_POSITIVE)).powf(1.0 / HEAT_ROWS);
    for column in columns {
        let mut rows = BTreeMap::<i64, u64>::new();
        for (value, count) in &column.counts {
            #[expect(clippy::cast_possible_truncation, reason = "the number of a row")]
            let row = ((value / ground).max(1.0).ln() / ratio.ln()).floor() as i64;
            *rows.entry(row).or_default() += count;
        }
        let most = rows.values().copied().max().unwrap_or(1) as f64;
        let cells = rows.into_iter().map(|(row, count)| {
            // Rare ones are to be seen as well.
            let share = (count as f64).ln_1p() / most.ln_1p();
            let below = ground * ratio.powf(row as f64);
            let corners = [(column.from, below), (column.to, (below * ratio).min(range.end))];
            Rectangle::new(corners, colour_of(0).mix(0.15 + 0.85 * share).filled())
        });
        chart.draw_series(cells)?;
    }
    Ok(())
}

fn draw_bars<'a>(area: &Area<'a>, unit: Unit, categories: &[String], bars: &[Bars]) -> Drawn<'a> {
    let down = unit.axis(bars.iter().flat_map(|bars| &bars.values).copied().flatten());
    let ground = down.ground();
    let mut chart = on(area).build_cartesian_2d(Axis::Places(categories.len()), down)?;
    let name = |place: &f64| {
        let name = nearest(*place).and_then(|at| categories.get(at));
        name.cloned().unwrap_or_default()
    };
    let value = |value: &f64| unit.show(*value);
    let mut mesh = chart.configure_mesh();
    mesh.disable_x_mesh().x_labels(categories.len()).x_label_formatter(&name);
    mesh.y_label_formatter(&value);
    mesh.axis_style(GRID).bold_line_style(GRID.mix(0.3)).light_line_style(TRANSPARENT);
    mesh.label_style(FONT).draw()?;
    // A group takes four fifths of its place.
    let width = 0.8 / bars.len().max(1) as f64;
    for (index, bars) in bars.iter().enumerate() {
        let left = |place: usize| place as f64 - 0.4 + width * index as f64;
        let values = bars.values.iter().enumerate();
        let values = values.filter_map(|(place, value)| Some((left(place), (*value)?)));
        chart.draw_series(values.map(|(left, value)| {
            Rectangle::new([(left, ground), (left + width, value)], colour_of(index).filled())
        }))?;
    }
    Ok(())
}

fn on<'a, 'b>(area: &'b Area<'a>) -> ChartBuilder<'b, 'b, SVGBackend<'a>> {
    let mut chart = ChartBuilder::on(area);
    chart.margin(8).margin_right(24).x_label_area_size(BOTTOM).y_label_area_size(LEFT);
    chart
}

pub(super) fn colour_of(index: usize) -> RGBColor {
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

/// Between two marks of an axis of seconds.
fn step_of(end: f64) -> f64 {
    match Axis::decimal(end) {
        Axis::Linear { step, .. } => step,
        _ => end,
    }
}

/// A place on [`Axis::Nines`] as a share: 0, 90, 99, 99.9 %.
fn percent(place: f64) -> String {
    let share = (1.0 - 10_f64.powf(-place)) * 100.0;
    let text = format!("{share:.7}");
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

impl Unit {
    /// The axis for such values.
    pub(super) fn axis(self, values: impl Iterator<Item = f64>) -> Axis {
        match self {
            Self::Micros => Axis::log(values, 10.0),
            Self::Bytes => Axis::binary(highest(values)),
            _ => Axis::decimal(highest(values)),
        }
    }

    /// A value with its unit.
    pub(super) fn show(self, value: f64) -> String {
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

/// At most two digits after the point, or four where there are but zeros before.
fn short(value: f64) -> String {
    let text = if value.abs() < 0.1 { format!("{value:.4}") } else { format!("{value:.2}") };
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
        assert!(svg.contains("10 ms") && svg.contains("seconds"), "{svg}");
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
    fn percentiles_go_up_to_the_maximum() {
        let curve = line(&[(0.0, 10.0), (0.5, 20.0), (0.99, 900.0), (0.9999, 40_000.0)]);
        let svg = svg(&chart(Unit::Micros, Plot::Percentiles(vec![curve])));
        for label in ["0 %", "90 %", "99.9 %", "99.99 %", "10 µs", "100 ms"] {
            assert!(svg.contains(label), "{label}: {svg}");
        }
    }

    #[test]
    fn heat_is_darkest_where_most_are() {
        let counts = vec![(50.0, 900), (55.0, 100), (8000.0, 1)];
        let heat = Heat { from: 0.0, to: 1.0, counts };
        let svg = svg(&chart(Unit::Micros, Plot::Heat(vec![heat])));
        let cells: Vec<_> = svg.lines().filter(|line| line.contains("<rect")).collect();
        assert!(cells.len() >= 2, "{svg}");
        assert!(cells.iter().any(|cell| cell.contains("opacity=\"1\"")), "{cells:?}");
    }

    #[test]
    fn bytes_have_binary_marks() {
        let mib = f64::from(1 << 20);
        let svg =
            svg(&chart(Unit::Bytes, Plot::Lines(vec![line(&[(0.0, 0.0), (1.0, 200.0 * mib)])])));
        assert!(svg.contains("64 MiB") && svg.contains("256 MiB"), "{svg}");
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
        assert_eq!((Unit::Ratio.show(0.5), Unit::Cpus.show(0.005)), ("0.5".into(), "0.005".into()));
        assert_eq!(Unit::Count.show(0.0), "0");
    }
}
