//! The page in HTML. `maud` escapes all text.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{Chart, Page, Part, Section, Table, Tile, Tone, Verdict, plot};

const STYLE: &str = include_str!("style.css");
/// Nothing may be fetched, whatever the page says.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

/// The page, with what is known of the machine at its end.
pub(super) fn page(page: &Page, environment: &[Table]) -> String {
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width";
                // Else browsers ask the server of the page for an icon.
                link rel="icon" href="data:,";
                title { (page.title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (page.title) }
                @for text in &page.lead { p { (text) } }
                @for section in &page.sections { (section_markup(section)) }
                h2 { "Conditions" }
                @for facts in environment { (table(facts)) }
            }
        }
    };
    markup.into_string()
}

fn section_markup(section: &Section) -> Markup {
    html! {
        @if section.is_folded {
            details { summary { (section.title) } (parts(&section.parts)) }
        } @else {
            section { h2 { (section.title) } (parts(&section.parts)) }
        }
    }
}

/// Charts that follow on each other stand side by side, where there is room.
fn parts(parts: &[Part]) -> Markup {
    let are_charts = |part: &Part| matches!(part, Part::Chart(_));
    html! {
        @for run in parts.chunk_by(|a, b| are_charts(a) && are_charts(b)) {
            @if run.iter().any(are_charts) {
                div.charts { @for part in run { (one(part)) } }
            } @else {
                @for part in run { (one(part)) }
            }
        }
    }
}

fn one(part: &Part) -> Markup {
    match part {
        Part::Text(text) => html! { p { (text) } },
        Part::Verdict(verdict) => verdict_markup(verdict),
        Part::Tiles(tiles) => tiles_markup(tiles),
        Part::Table(rows) => table(rows),
        Part::Chart(drawing) if drawing.is_empty() => html! {},
        Part::Chart(drawing) => chart(drawing),
    }
}

fn verdict_markup(Verdict { tone, text }: &Verdict) -> Markup {
    // A sign too: not all people tell the colours apart.
    let (class, sign) = match tone {
        Tone::Good => ("good", "✓"),
        Tone::Careful => ("careful", "!"),
        Tone::Bad => ("bad", "✗"),
    };
    html! { p class={ "verdict " (class) } { b { (sign) } " " (text) } }
}

fn tiles_markup(tiles: &[Tile]) -> Markup {
    html! {
        dl.tiles {
            @for Tile { name, value } in tiles { div { dt { (name) } dd { (value) } } }
        }
    }
}

fn table(table: &Table) -> Markup {
    let class = if table.columns.is_empty() { "pairs" } else { "values" };
    html! {
        @if !table.title.is_empty() { h3 { (table.title) } }
        div.table {
            table class=(class) {
                @if !table.columns.is_empty() {
                    thead { tr { @for name in &table.columns { th scope="col" { (name) } } } }
                }
                tbody {
                    @for row in &table.rows {
                        tr {
                            @for (index, cell) in row.iter().enumerate() {
                                @if index == 0 { th scope="row" { (cell) } } @else { td { (cell) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn chart(chart: &Chart) -> Markup {
    let names = plot::legend(&chart.plot);
    html! {
        figure {
            figcaption { (chart.title) }
            (PreEscaped(plot::svg(chart)))
            @if names.len() > 1 {
                ul.legend {
                    @for (index, name) in names.iter().enumerate() {
                        li { i style={ "background:" (plot::colour(index)) } {} (name) }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Line, Plot, Unit};
    use super::*;

    const EVIL: &str = "<script>alert('\"&')</script>";

    fn evil() -> String {
        EVIL.to_owned()
    }

    #[test]
    fn all_text_is_escaped() {
        let line = || Line { name: evil(), points: vec![(0.0, 1.0), (1.0, 2.0)] };
        let plot = Plot::Lines(vec![line(), line()]);
        let rows = Table { title: evil(), columns: vec![evil()], rows: vec![vec![evil(), evil()]] };
        let parts = vec![
            Part::Text(evil()),
            Part::Verdict(Verdict { tone: Tone::Bad, text: evil() }),
            Part::Tiles(vec![Tile { name: evil(), value: evil() }]),
            Part::Table(rows.clone()),
            Part::Chart(Chart { title: evil(), unit: Unit::Count, plot }),
        ];
        let section = Section::new(EVIL, parts);
        let shown = Page {
            title: evil(),
            lead: vec![evil()],
            sections: vec![section.clone(), section.folded()],
        };
        let html = page(&shown, &[rows]);
        assert!(!html.contains("<script"), "{html}");
        assert_eq!(html.matches("&lt;script&gt;").count(), 31, "{html}");
        assert_eq!(html.matches("<svg").count(), 2);
    }

    #[test]
    fn nothing_is_fetched() {
        let html = page(&Page::default(), &[]);
        // The name space of SVG is a name, no address; there is no chart on this page.
        for outside in ["http:", "https:", "src=", "@import", "url("] {
            assert!(!html.contains(outside), "{outside} in {html}");
        }
    }

    #[test]
    fn charts_without_points_are_left_out() {
        let plot = Plot::Lines(vec![Line { name: evil(), points: Vec::new() }]);
        let chart = Part::Chart(Chart { title: evil(), unit: Unit::Count, plot });
        let shown = Page { sections: vec![Section::new("s", vec![chart])], ..Page::default() };
        assert!(!page(&shown, &[]).contains("<svg"));
    }
}
