//! `ringwire-bench page`: the page of figures in the documents, its plots and its tables, from the JSON of comparisons.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::html::{over_loads, verdict};
use super::markdown;
use super::results::{
    DELIVERY_CPU, Load, MESSAGES_PER_SECOND, Metric, P99, RESIDENT_BYTES, Results, SERVER_CPU,
    Spread,
};
use crate::output;
use crate::report::{Range, Ranges, Table, Unit};
use crate::units::{show_bytes, show_count};

/// The folder of tables and plots, beside the page.
const FOLDER: &str = "benchmarks";
/// What of a run is kept: what tables show. A comparison with all that runs tell takes megabytes.
const KEPT: [&str; 10] = [
    "messages_per_second",
    "megabytes_per_second",
    "deliveries_per_second",
    "server_cpu_us_per_delivery",
    "server",
    "latency_us",
    "bottleneck",
    "errors",
    "tls",
    "compression",
];
/// Flags of where a comparison is written to.
const OUTPUT: [&str; 3] = ["--json", "--markdown", "--html"];
/// Plots on the page: the first ones for which there are figures.
const PLOTS: usize = 4;
const NOTE: &str = "\
<!-- Written by `ringwire-bench page` from the JSON beside it. Edits are lost. -->\n\n";

/// Flags of `ringwire-bench page`.
#[derive(Debug, clap::Args)]
pub(crate) struct PageArgs {
    /// JSON of `compare` and `compare-broadcast`, which becomes part of the documents by its date. Several of the same
    /// servers are parts of one comparison. Without any the page is written anew from what is there.
    results: Vec<PathBuf>,
    /// The server that the others are compared with. [default: that of the comparison]
    #[arg(long)]
    baseline: Option<String>,
    /// The folder of the page.
    #[arg(long, default_value = "docs")]
    dir: PathBuf,
}

/// Runs the subcommand.
pub(crate) fn command(args: &PageArgs) -> anyhow::Result<()> {
    let folder = args.dir.join(FOLDER);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut kept = BTreeMap::<String, Results>::new();
    for file in &args.results {
        let results = slim(file, args.baseline.as_deref())?;
        let name = format!("{}-{}", results.head.date, kind(&results));
        let shown = file.display();
        match kept.get_mut(&name) {
            Some(known) => add(known, results).with_context(|| format!("{shown} does not fit"))?,
            None => drop(kept.insert(name, results)),
        }
    }
    for (name, results) in kept {
        let file = folder.join(format!("{name}.json"));
        let json = format!("{}\n", serde_json::to_string(&results)?);
        fs::write(&file, json).with_context(|| format!("cannot write {}", file.display()))?;
    }
    for (file, text) in files(&args.dir)? {
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        output::say(file.display())?;
    }
    Ok(())
}

/// What tables show of a comparison.
fn slim(file: &Path, baseline: Option<&str>) -> anyhow::Result<Results> {
    let mut results = read(file)?;
    let runs = results.cells.iter_mut().flat_map(|cell| &mut cell.servers);
    for run in runs.flat_map(|server| &mut server.runs).filter_map(Value::as_object_mut) {
        run.retain(|name, _| KEPT.contains(&name.as_str()));
    }
    // Where it was written to is no part of what was measured.
    let mut words = results.head.command.split(' ').peekable();
    let mut command = Vec::new();
    while let Some(word) = words.next() {
        match OUTPUT.contains(&word) {
            true => drop(words.next()),
            false => command.push(word),
        }
    }
    results.head.command = command.join(" ");
    if let Some(baseline) = baseline {
        if !results.servers().iter().any(|name| name == baseline) {
            bail!("{}: --baseline {baseline} did not take part", file.display());
        }
        baseline.clone_into(&mut results.head.baseline);
    }
    Ok(results)
}

/// What was compared, as a name.
fn kind(results: &Results) -> &'static str {
    let speaks = |what: &str| results.runs().any(|run| !run[what].is_null());
    match results.cells[0].load {
        Load::Broadcast { .. } => "fan-out",
        Load::Echo { .. } if speaks("tls") => "echo-tls",
        Load::Echo { .. } if speaks("compression") => "echo-compressed",
        Load::Echo { .. } => "echo",
    }
}

/// Makes two comparisons of the same servers one.
fn add(known: &mut Results, more: Results) -> anyhow::Result<()> {
    let of = |results: &Results| {
        (results.servers(), results.head.baseline.clone(), results.head.machine.clone())
    };
    if of(known) != of(&more) {
        bail!("other servers, another baseline or another machine than in the file before it");
    }
    known.head.command = format!("{}\n{}", known.head.command, more.head.command);
    known.head.rounds = known.head.rounds.min(more.head.rounds);
    known.head.seconds_per_run = known.head.seconds_per_run.min(more.head.seconds_per_run);
    known.cells.extend(more.cells);
    Ok(())
}

fn read(file: &Path) -> anyhow::Result<Results> {
    let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let results: Results = serde_json::from_slice(&text)
        .with_context(|| format!("{} is no comparison's --json", file.display()))?;
    if results.runs().next().is_none() {
        bail!("{} has no runs", file.display());
    }
    Ok(results)
}

/// All that is made of the comparisons in `dir`, by file.
fn files(dir: &Path) -> anyhow::Result<BTreeMap<PathBuf, String>> {
    let folder = dir.join(FOLDER);
    // The newest comes first. What was measured otherwise, or before there was this page, is but named on it.
    let (mut all, mut names) = (BTreeMap::new(), BTreeSet::new());
    let entries = fs::read_dir(&folder);
    for entry in entries.with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let kind = path.extension().unwrap_or_default();
        if kind == "json" {
            all.insert(Reverse(name.clone()), read(&path)?);
        }
        if kind == "json" || kind == "md" {
            names.insert(Reverse(name));
        }
    }
    let newest = |name: &str| all.values().find(|results| kind(results) == name);
    let Some(echo) = newest("echo") else {
        bail!("there is no comparison of echoes in {}: name its JSON", folder.display());
    };
    let broadcast = newest("fan-out");
    let mut files = BTreeMap::new();
    for (name, results) in &all {
        let table = format!("{NOTE}# {}\n\n{}", name.0, markdown::page(results));
        files.insert(folder.join(format!("{}.md", name.0)), format!("{}\n", table.trim_end()));
    }
    let plots = plots(echo, broadcast);
    let mut page = page(echo, broadcast, &plots);
    for name in &names {
        let _ = writeln!(page, "- [{0}]({FOLDER}/{0}.md)", name.0);
    }
    files.insert(dir.join(format!("{FOLDER}.md")), page);
    for (name, plot) in plots {
        files.insert(folder.join(format!("{name}.svg")), plot.svg());
    }
    Ok(files)
}

fn is_own(name: &str) -> bool {
    name.starts_with("ringwire")
}

fn is_floor(name: &str) -> bool {
    name.starts_with("floor")
}

/// The plots, the one that says most first.
fn plots(echo: &Results, broadcast: Option<&Results>) -> Vec<(&'static str, Ranges)> {
    let loads = echo.cells.len();
    let baseline = name_of(&echo.head.baseline);
    let note = |better| format!("{baseline} is 1; {better} is better; lines span {loads} loads");
    let ratios = |results: &Results, title: &str, note: String, metric| {
        let spread = |name: &str| over_loads(results, name, metric);
        ranges(results, title, note, Unit::Ratio, spread)
    };
    let heard = broadcast.map(|results| {
        let baseline = &results.head.baseline;
        let note =
            format!("{baseline} is 1; less is better; lines span {} loads", results.cells.len());
        ("fan-out", ratios(results, "CPU time for each that hears a message", note, DELIVERY_CPU))
    });
    let most = at_most(echo);
    let memory = ranges(
        echo,
        "Memory of an idle connection",
        format!("in the server's process, {} open; a logarithmic axis", show_count(most.0)),
        Unit::Bytes,
        |name| most.1.iter().find(|(of, _)| of == name).map(|(_, spread)| *spread),
    );
    let all = [
        Some(("cpu", ratios(echo, "CPU time of a message", note("less"), SERVER_CPU))),
        Some(("memory", memory)),
        heard,
        Some(("latency", ratios(echo, "Latency, 99th percentile", note("less"), P99))),
        Some(("rate", ratios(echo, "Messages per second", note("more"), MESSAGES_PER_SECOND))),
    ];
    let drawn = all.into_iter().flatten().filter(|(_, plot)| !plot.rows.is_empty());
    let mut drawn: Vec<_> = drawn.take(PLOTS).collect();
    let places = drawn.iter().map(|(_, plot)| plot.rows.len()).max().unwrap_or_default();
    drawn.iter_mut().for_each(|(_, plot)| plot.places = places);
    drawn
}

fn ranges(
    results: &Results,
    title: &str,
    note: String,
    unit: Unit,
    spread: impl Fn(&str) -> Option<Spread>,
) -> Ranges {
    let row = |name: &String| {
        let Spread { min: low, median, max: high } = spread(name)?;
        Some(Range { name: name.clone(), low, median, high, is_own: is_own(name) })
    };
    let rows = results.servers().iter().filter_map(row).collect();
    Ranges { title: title.to_owned(), note, unit, rows, places: 0 }
}

/// Memory of an idle connection where most are open, how many that are, and each server's.
fn at_most(results: &Results) -> (f64, Vec<(String, Spread)>) {
    let at_rest = results.at_rest();
    let Some(most) = at_rest.iter().max_by_key(|cell| cell.load.connections()) else {
        return (0.0, Vec::new());
    };
    let of = |runs: &super::results::ServerRuns| {
        Some((runs.server.clone(), runs.spread(RESIDENT_BYTES)?))
    };
    let memory = most.servers.iter().filter(|runs| !is_floor(&runs.server)).filter_map(of);
    (f64::from(most.load.connections()), memory.collect())
}

fn name_of(baseline: &str) -> &str {
    if is_floor(baseline) { "a raw TCP echo" } else { baseline }
}

fn page(echo: &Results, broadcast: Option<&Results>, plots: &[(&str, Ranges)]) -> String {
    let mut page = format!("{NOTE}# Benchmarks\n\n");
    let sentences = [
        ratio_sentence(echo, SERVER_CPU, "CPU time of a message"),
        memory_sentence(echo),
        broadcast.and_then(|results| {
            ratio_sentence(results, DELIVERY_CPU, "CPU time for each that hears a message")
        }),
        Some(format!(
            "Each server had one core and the load the other; servers took turns in each of {} rounds, and a ratio is \
             taken within a round: figures of one machine do not carry to another, ratios of one run do.",
            echo.head.rounds
        )),
        Some(verdict(echo).text),
    ];
    for sentence in sentences.into_iter().flatten() {
        let _ = writeln!(page, "{sentence}");
    }
    page.push('\n');
    for pair in plots.chunks(2) {
        let image =
            |(name, plot): &(&str, Ranges)| format!("![{}]({FOLDER}/{name}.svg)", plot.title);
        let _ = writeln!(page, "{}", pair.iter().map(image).collect::<Vec<_>>().join(" "));
    }
    let baseline = &echo.head.baseline;
    let _ = writeln!(
        page,
        "\nRatios to `{baseline}` over {} loads: the median, the lowest and the highest.\n",
        echo.cells.len()
    );
    let row = |name: String| {
        let ratio = |metric| over_loads(echo, &name, metric).map(markdown::show_ratio);
        let ratios =
            [SERVER_CPU, MESSAGES_PER_SECOND, P99].map(ratio).map(Option::unwrap_or_default);
        std::iter::once(name).chain(ratios).collect()
    };
    let columns = ["server", "CPU time of a message", "messages per second", "latency p99"];
    page += &Table::new(&columns, echo.others().into_iter().map(row)).markdown();
    let head = &echo.head;
    let commit =
        head.commit.as_ref().map(|commit| format!(", commit {commit}")).unwrap_or_default();
    let _ = writeln!(
        page,
        "{}. {}{commit}. This makes it again, on any machine with two cores:\n\n```\nbenches/measure\n```\n\n\
         What is measured and how, and servers of your own beside these: \
         [load-generator.md](load-generator.md#comparisons). All figures:\n",
        head.machine, head.date
    );
    page
}

/// What the CPU time of Ringwire is beside the baseline, and that of the others.
fn ratio_sentence(results: &Results, metric: Metric, what: &str) -> Option<String> {
    let baseline = &results.head.baseline;
    let ratio = |name: &String| Some((name.clone(), over_loads(results, name, metric)?.median));
    let (own, mut others): (Vec<_>, Vec<_>) = results
        .others()
        .iter()
        .filter(|name| !is_floor(name))
        .filter_map(ratio)
        .partition(|(name, _)| is_own(name));
    others.sort_by(|a, b| a.1.total_cmp(&b.1));
    let named = |(name, ratio): &(String, f64)| format!("{ratio:.2} ({name})");
    let others = span(&others, named)?;
    let base = name_of(baseline);
    let own: Vec<_> = own.iter().map(named).collect();
    let loads = results.cells.len();
    let own = match own.is_empty() {
        true => String::new(),
        false => format!("Ringwire takes {}, ", own.join(" and ")),
    };
    Some(format!(
        "{what}, as a multiple of that of {base} in the median of {loads} loads: {own}other servers take {others}."
    ))
}

fn memory_sentence(results: &Results) -> Option<String> {
    let (connections, memory) = at_most(results);
    let median = memory.iter().map(|(name, spread)| (name.clone(), spread.median));
    let (own, mut others): (Vec<_>, Vec<_>) = median.partition(|(name, _)| is_own(name));
    others.sort_by(|a, b| a.1.total_cmp(&b.1));
    let named = |(name, bytes): &(String, f64)| format!("{} ({name})", show_bytes(bytes.round()));
    let own: Vec<_> = own.iter().map(named).collect();
    let others = span(&others, named)?;
    (!own.is_empty()).then(|| {
        format!(
            "An idle connection takes {} of the server's process where {} are open, in other servers {others}.",
            own.join(" and "),
            show_count(connections)
        )
    })
}

/// The first and the last of some.
fn span<T>(sorted: &[T], named: impl Fn(&T) -> String) -> Option<String> {
    match sorted {
        [] => None,
        [only] => Some(named(only)),
        [first, .., last] => Some(format!("{} to {}", named(first), named(last))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::{results, runs};
    use super::*;

    /// A comparison in a file of its own, as `compare --json` writes it.
    fn compared(dir: &Path) -> PathBuf {
        let mut results = results();
        results.head.baseline = "floor-epoll".to_owned();
        results.cells[0].servers = vec![
            runs("ringwire-epoll", &[95, 100]),
            runs("floor-epoll", &[100, 100]),
            runs("bun", &[50, 60]),
        ];
        let servers = results.cells[0].servers.iter_mut().zip([120.0, 0.0, 4096.0]);
        for (server, bytes) in servers {
            for run in &mut server.runs {
                run["server"]["cpu_us_per_message"] = (bytes + 1.0).into();
                run["server"]["memory"]["bytes_per_idle_connection"] = bytes.into();
            }
        }
        let file = dir.join("echo.json");
        fs::write(&file, serde_json::to_string(&results).unwrap()).unwrap();
        file
    }

    #[test]
    fn figures_become_a_page_plots_and_tables() {
        let dir = tempfile::tempdir().unwrap();
        let results = vec![compared(dir.path())];
        let args = PageArgs { results, baseline: None, dir: dir.path().to_owned() };
        command(&args).unwrap();
        let text = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        let page = text("benchmarks.md");
        for said in [
            "CPU time of a message, as a multiple of that of a raw TCP echo in the median of 1 loads: Ringwire takes 121.00 (ringwire-epoll), other servers take 4097.00 (bun).",
            "An idle connection takes 120 B (ringwire-epoll) of the server's process where 1 000 are open",
            "in other servers 4 KiB (bun)",
            "![CPU time of a message](benchmarks/cpu.svg)",
            "| bun | 4097.00 (4097.00–4097.00) | 0.55 (0.55–0.55) |",
            "a machine. 2025-01-31, commit abc1234.",
            "- [2025-01-31-echo](benchmarks/2025-01-31-echo.md)",
        ] {
            assert!(page.contains(said), "{said}: {page}");
        }
        assert!(page.lines().count() < 50, "more than a screen: {page}");
        let table = text("benchmarks/2025-01-31-echo.md");
        assert!(table.contains("### Messages per second, as a ratio to floor-epoll"), "{table}");
        assert!(text("benchmarks/cpu.svg").contains("4097"));
        assert!(!text("benchmarks/2025-01-31-echo.json").contains("timeline"));
        // Written anew from what is there, nothing changes.
        for (file, made) in files(dir.path()).unwrap() {
            assert_eq!(fs::read_to_string(&file).unwrap(), made, "{}", file.display());
        }
    }

    #[test]
    fn parts_of_a_comparison_become_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = compared(dir.path());
        let baseline = Some("bun".to_owned());
        let results = vec![file.clone(), file.clone()];
        command(&PageArgs { results, baseline, dir: dir.path().to_owned() }).unwrap();
        let kept = read(&dir.path().join("benchmarks/2025-01-31-echo.json")).unwrap();
        assert_eq!((kept.cells.len(), kept.head.baseline.as_str()), (2, "bun"));
        assert_eq!(kept.head.command, "ringwire-bench compare\nringwire-bench compare");
        let other = dir.path().join("other.json");
        let mut results = read(&file).unwrap();
        results.head.command.push_str(" --json there --rounds 3");
        assert_eq!(results.cells.len(), 1);
        results.cells[0].servers.pop();
        fs::write(&other, serde_json::to_string(&results).unwrap()).unwrap();
        assert_eq!(slim(&other, None).unwrap().head.command, "ringwire-bench compare --rounds 3");
        let error = add(&mut slim(&file, None).unwrap(), slim(&other, None).unwrap()).unwrap_err();
        assert!(error.to_string().contains("other servers"), "{error}");
        let error = slim(&other, Some("nobody")).unwrap_err().to_string();
        assert!(error.contains("did not take part"), "{error}");
    }

    #[test]
    fn what_is_no_comparison_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |results: Vec<PathBuf>| {
            let args = PageArgs { results, baseline: None, dir: dir.path().to_owned() };
            format!("{:#}", command(&args).unwrap_err())
        };
        assert!(refused(Vec::new()).contains("name its JSON"));
        let file = dir.path().join("other.json");
        fs::write(&file, "[]").unwrap();
        assert!(refused(vec![file]).contains("is no comparison's --json"));
    }

    #[test]
    fn the_documents_are_what_their_figures_make() {
        let docs = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs"));
        for (file, made) in files(docs).unwrap() {
            let kept = fs::read_to_string(&file).unwrap();
            assert!(kept == made, "{} was edited: run `ringwire-bench page`", file.display());
        }
    }
}
