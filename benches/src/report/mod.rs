//! A report as one page of HTML, which stands alone: its style and its plots are within it, it runs no script and
//! asks the network for nothing; and the tables that people read on a terminal.
//!
//! What a page shows is plain data ([`Page`]); any subcommand fills one in and hands it to [`write`]. The figures of a
//! run over time are collected in a [`Timeline`], which knows the charts they make. The JSON of the single
//! subcommands does not live here.

mod axis;
mod environment;
mod html;
mod plot;
mod ranges;
mod rows;
mod timeline;
mod verdict;

use std::fmt;

use comfy_table::{Cell, CellAlignment, ContentArrangement, presets};

use crate::output;

pub(crate) use self::environment::{command_line, commit, today};
pub(crate) use self::ranges::{Range, Ranges};
pub(crate) use self::rows::{Row, cpu_rows, last_rows, show_rows};
pub(crate) use self::timeline::{Percentiles, Sample, Timeline, side_by_side};
pub(crate) use self::verdict::verdict;

/// A page, from top to bottom. What the machine is and allows is told at its end without being part of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Page {
    pub(crate) title: String,
    /// Paragraphs above everything else.
    pub(crate) lead: Vec<String>,
    pub(crate) sections: Vec<Section>,
}

/// A part of a page with a heading.
#[derive(Clone, Debug, Default)]
pub(crate) struct Section {
    pub(crate) title: String,
    /// Shows only its heading until it is clicked.
    pub(crate) is_folded: bool,
    pub(crate) parts: Vec<Part>,
}

/// What stands in a section.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    /// What came of it, in a sentence, before any number.
    Verdict(Verdict),
    /// The few figures that matter.
    Tiles(Vec<Tile>),
    /// A paragraph.
    Text(String),
    Table(Table),
    Chart(Chart),
}

/// What a reader has to know first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) tone: Tone,
    pub(crate) text: String,
}

/// Whether it is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Good,
    /// The figures hold, but not for what one may think.
    Careful,
    /// The figures do not hold.
    Bad,
}

/// A figure that is seen at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tile {
    pub(crate) name: String,
    pub(crate) value: String,
}

/// Rows of text. The first column names its row, the others stand to the right.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    /// May be empty.
    pub(crate) title: String,
    /// Headings of all columns; none for a table of names and values.
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

/// A plot with a legend.
#[derive(Clone, Debug)]
pub(crate) struct Chart {
    pub(crate) title: String,
    /// Of the vertical axis, which begins at zero, but for times: these are on a logarithmic one.
    pub(crate) unit: Unit,
    pub(crate) plot: Plot,
}

/// What a chart draws.
#[derive(Clone, Debug)]
pub(crate) enum Plot {
    /// Values over seconds. A chart without any point is left out.
    Lines(Vec<Line>),
    /// Values over shares of all messages, of which the last is the maximum.
    Percentiles(Vec<Line>),
    /// How often values were there in each second.
    Heat(Vec<Heat>),
    /// A group of bars for each category.
    Bars { categories: Vec<String>, bars: Vec<Bars> },
}

/// The values of some time: the stronger its colour, the more often.
#[derive(Clone, Debug)]
pub(crate) struct Heat {
    /// When it began and ended, in seconds.
    pub(crate) from: f64,
    pub(crate) to: f64,
    /// Values, and how often each was there.
    pub(crate) counts: Vec<(f64, u64)>,
}

/// Values over time, oldest first.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    /// Seconds, value.
    pub(crate) points: Vec<(f64, f64)>,
}

/// A value for each category, where there is one.
#[derive(Clone, Debug)]
pub(crate) struct Bars {
    pub(crate) name: String,
    pub(crate) values: Vec<Option<f64>>,
}

/// How a value is written at an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Count,
    PerSecond,
    Micros,
    Bytes,
    /// CPUs in use.
    Cpus,
    Ratio,
}

impl Page {
    /// Writes the page to a file, or to the standard output for `-`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn write(&self, file: &str) -> anyhow::Result<()> {
        output::write_text(file, &html::page(self, &environment::tables()))
    }
}

impl Section {
    /// One that is open.
    pub(crate) fn new(title: impl Into<String>, parts: Vec<Part>) -> Self {
        Self { title: title.into(), is_folded: false, parts }
    }

    /// The same, folded.
    pub(crate) fn folded(self) -> Self {
        Self { is_folded: true, ..self }
    }
}

impl Table {
    /// Names and values.
    pub(crate) fn of_pairs<N: Into<String>>(
        title: &str,
        pairs: impl IntoIterator<Item = (N, String)>,
    ) -> Self {
        let rows = pairs.into_iter().map(|(name, value)| vec![name.into(), value]).collect();
        Self { title: title.to_owned(), columns: Vec::new(), rows }
    }

    /// With headings.
    pub(crate) fn new(columns: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> Self {
        let columns = columns.iter().map(|&name| name.to_owned()).collect();
        Self { title: String::new(), columns, rows: rows.into_iter().collect() }
    }

    /// As a document of Markdown has it, below its title if it has one.
    pub(crate) fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let title = if self.title.is_empty() { "" } else { &format!("### {}\n\n", self.title) };
        let rule = "---:|".repeat(self.columns.len() - 1);
        let rows: String = self.rows.iter().map(|row| line(row)).collect();
        format!("{title}{}|---|{rule}\n{rows}\n", line(&self.columns))
    }
}

/// For a terminal, which it fits, and for Markdown where there are headings: numbers stand to the right.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A dash stands for a number that there is not.
        let is_number =
            |text: &str| text.starts_with(|first: char| first.is_ascii_digit() || first == '–');
        let has_heads = !self.columns.is_empty();
        let cell = |(at, text): (usize, &String)| {
            let is_right = if has_heads { at > 0 && is_number(text) } else { at == 0 };
            let side = if is_right { CellAlignment::Right } else { CellAlignment::Left };
            Cell::new(text).set_alignment(side)
        };
        let mut table = comfy_table::Table::new();
        table.load_style(if has_heads { presets::ASCII_MARKDOWN } else { presets::NOTHING });
        // Where the output is no terminal, its lines may be as long as they are.
        if let Ok(terminal) = rustix::termios::tcgetwinsize(std::io::stdout()) {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(terminal.ws_col);
        }
        if has_heads {
            table.set_header(&self.columns);
        }
        table.add_rows(self.rows.iter().map(|row| row.iter().enumerate().map(cell)));
        table.fmt(f)
    }
}

impl Chart {
    /// Whether there is anything to draw.
    fn is_empty(&self) -> bool {
        match &self.plot {
            Plot::Lines(lines) | Plot::Percentiles(lines) => {
                lines.iter().all(|line| line.points.is_empty())
            }
            Plot::Heat(heat) => heat.iter().all(|column| column.counts.is_empty()),
            Plot::Bars { bars, .. } => {
                bars.iter().all(|bars| bars.values.iter().all(Option::is_none))
            }
        }
    }
}
