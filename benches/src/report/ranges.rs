//! A picture that stands alone, for documents: a bar for each name, with the range of its values.

use maud::{PreEscaped, html};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::Unit;
use super::axis::Axis;
use super::plot::{Drawn, colour_of};

const WIDTH: u32 = 460;
/// Of a bar and the room around it.
const ROW: u32 = 26;
const TOP: u32 = 52;
const BOTTOM: u32 = 26;
/// Room for names.
const LEFT: u32 = 132;
/// Room for the value behind the longest bar.
const RIGHT: u32 = 76;
const FONT: (&str, u32) = ("sans-serif", 13);
/// Of servers that others are compared with: seen on a light and on a dark ground.
const GREY: RGBColor = RGBColor(140, 148, 158);
/// Of a file that is shown on a light or a dark page: the ground is its own.
const STYLE: &str = "text{fill:#1b1f24;font-family:system-ui,sans-serif}.g{fill:#f4f6f8}.f{fill:#5c6470}\
                     polyline{stroke:#1b1f24}\
                     @media (prefers-color-scheme:dark){text{fill:#e4e7eb}.g{fill:#1d2228}.f{fill:#98a1ad}\
                     polyline{stroke:#e4e7eb}}";

/// The picture.
#[derive(Clone, Debug)]
pub(crate) struct Ranges {
    pub(crate) title: String,
    /// How to read it, in few words.
    pub(crate) note: String,
    /// Ratios have an axis from zero, bytes a logarithmic one.
    pub(crate) unit: Unit,
    /// From top to bottom.
    pub(crate) rows: Vec<Range>,
    /// Rows that it is high, if that are more: so that pictures that stand side by side are equally high.
    pub(crate) places: usize,
}

/// A bar: up to the median, with a line from the lowest to the highest value.
#[derive(Clone, Debug)]
pub(crate) struct Range {
    pub(crate) name: String,
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
    /// Whether it stands out.
    pub(crate) is_own: bool,
}

impl Ranges {
    /// The picture as a file.
    pub(crate) fn svg(&self) -> String {
        let height = TOP + BOTTOM + ROW * u32::try_from(self.places()).unwrap_or(u32::MAX);
        let mut svg = String::new();
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        let drawn = self.draw(&area).and_then(|()| area.present());
        drawn.expect("a string takes everything");
        drop(area);
        let (tag, drawing) = svg.split_once('>').expect("a tag comes first");
        let head = html! {
            title { (self.title) ". " (self.note) }
            style { (PreEscaped(STYLE)) }
            rect.g width="100%" height="100%" rx="6" {}
            text x="12" y="22" font-size="15" font-weight="600" { (self.title) }
            text.f x="12" y="41" font-size="12" { (self.note) }
        };
        format!("{tag}>\n{}{drawing}", head.into_string())
    }

    fn places(&self) -> usize {
        self.places.max(self.rows.len())
    }

    fn draw<'a>(&self, area: &DrawingArea<SVGBackend<'a>, plotters::coord::Shift>) -> Drawn<'a> {
        let all = self.rows.iter().flat_map(|row| [row.low, row.median, row.high]);
        let across = match self.unit {
            Unit::Bytes => Axis::log(all, 16.0),
            _ => self.unit.axis(all),
        };
        let ground = across.ground();
        let mut chart = ChartBuilder::on(area);
        chart.margin_top(TOP).margin_right(RIGHT).x_label_area_size(BOTTOM).y_label_area_size(LEFT);
        let mut chart = chart.build_cartesian_2d(across, Axis::Places(self.places()))?;
        // Places count from the bottom.
        let last = self.places() - 1;
        let placed = || self.rows.iter().enumerate().map(move |(at, row)| (last - at, row));
        let name = |place: &f64| {
            let row = placed().find(|(at, _)| (*at as f64 - place).abs() < 0.01);
            // Spaces that stay keep it from the axis.
            row.map(|(_, row)| format!("{}\u{a0}\u{a0}", row.name)).unwrap_or_default()
        };
        let value = |value: &f64| self.unit.show(*value);
        let mut mesh = chart.configure_mesh();
        mesh.set_tick_mark_size(LabelAreaPosition::Left, 0);
        mesh.disable_y_mesh().y_labels(self.places()).y_label_formatter(&name);
        mesh.x_label_formatter(&value).label_style(FONT);
        mesh.axis_style(GREY.mix(0.6)).bold_line_style(GREY.mix(0.3)).light_line_style(TRANSPARENT);
        mesh.draw()?;
        chart.draw_series(placed().map(|(place, row)| {
            let colour = if row.is_own { colour_of(0) } else { GREY };
            let corners = [(ground, place as f64 - 0.3), (row.median, place as f64 + 0.3)];
            Rectangle::new(corners, colour.filled())
        }))?;
        chart.draw_series(placed().map(|(place, row)| {
            PathElement::new([(row.low, place as f64), (row.high, place as f64)], GREY)
        }))?;
        let style = TextStyle::from(FONT).pos(Pos::new(HPos::Left, VPos::Center));
        chart.draw_series(placed().map(|(place, row)| {
            let end = row.high.max(row.median);
            let text = self.unit.show((row.median * 100.0).round() / 100.0);
            EmptyElement::at((end, place as f64)) + Text::new(text, (6, 0), style.clone())
        }))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(name: &str, median: f64) -> Range {
        let (low, high) = (median / 2.0, median * 2.0);
        Range { name: name.to_owned(), low, median, high, is_own: name == "own" }
    }

    #[test]
    fn a_bar_for_each_name_and_ours_stands_out() {
        let rows = vec![range("own", 1.04), range("<other>", 2.5)];
        let picture =
            Ranges { title: "A & B".into(), note: "n".into(), unit: Unit::Ratio, rows, places: 3 };
        let svg = picture.svg();
        assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"), "{svg}");
        assert_eq!(svg.matches("<rect").count(), 3, "{svg}");
        assert!(svg.contains(&format!("height=\"{}\"", TOP + BOTTOM + 3 * ROW)), "{svg}");
        assert_eq!(svg.matches("#0072B2").count(), 1, "{svg}");
        for text in ["A &amp; B", "&lt;other&gt;", "1.04", "2.5", "prefers-color-scheme:dark"] {
            assert!(svg.contains(text), "{text}: {svg}");
        }
    }

    #[test]
    fn memory_of_very_different_servers_fits() {
        let rows = vec![range("own", 127.0), range("other", 131_072.0), range("none", 0.0)];
        let unit = Unit::Bytes;
        let svg = Ranges { title: String::new(), note: String::new(), unit, rows, places: 0 }.svg();
        for text in ["127 B", "128 KiB", "0 B", "4 KiB"] {
            assert!(svg.contains(text), "{text}: {svg}");
        }
    }
}
