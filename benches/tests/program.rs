//! The program itself, as people and scripts run it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Output, Stdio};

const SHORT: [&str; 4] = ["--duration", "1s", "--warmup", "50ms"];

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_ringwire-bench"))
}

/// Ends with the test.
struct Floor {
    child: Child,
    url: String,
}

impl Floor {
    fn start() -> Self {
        let mut child =
            program().arg("floor").stdout(Stdio::piped()).spawn().expect("the floor starts");
        let mut url = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut url).expect("its address");
        Self { child, url: url.trim().to_owned() }
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn echo_without_a_url_runs_its_own_server() {
    let args = ["echo", "--connections", "10", "--in-flight", "3", "--size", "2KiB", "--json", "-"];
    let output = program().args(args).args(SHORT).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let report = json(&output);
    assert_eq!(report["opened"], 10);
    assert_eq!(report["payload_bytes"], 2048);
    assert!(report["messages"].as_u64() >= Some(30), "{report}");
    assert!(report["server"]["cpu_us_per_message"].as_f64() > Some(0.0), "{report}");
    assert_eq!(report["errors"], serde_json::json!({}));
}

#[test]
fn echo_writes_a_page_with_its_plots() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("a & b.html");
    let args = ["echo", "--connections", "10", "--json", "-", "--html"];
    let output = program().args(args).arg(&file).args(SHORT).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let report = json(&output);
    let samples = report["timeline"].as_array().expect("samples");
    assert_eq!(samples.last().expect("one")["connections"], 10, "{report}");
    let page = std::fs::read_to_string(&file).expect("it is written");
    assert!(page.contains("a &amp; b.html"), "the command line is told: {page}");
    assert!(page.matches("<polyline").count() >= 4, "{page}");
}

/// Plots go from the beginning to the end, however short the run was.
#[test]
fn short_storms_have_plots() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("storm.html");
    let args = ["storm", "--connections", "20", "--html"];
    let output = program().args(args).arg(&file).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let page = std::fs::read_to_string(&file).expect("it is written");
    for title in ["Connections", "Kernel objects of the whole machine (slab)", "CPUs in use"] {
        assert!(page.contains(&format!("<figcaption>{title}</figcaption>")), "{title} in {page}");
    }
}

#[test]
fn echo_over_tls_of_its_own_server() {
    let args = ["echo", "--tls", "--connections", "10", "--tls-version", "1.2", "--json", "-"];
    let output = program().args(args).args(SHORT).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let report = json(&output);
    assert_eq!(report["tls"]["version"], "1.2", "{report}");
    assert_eq!(report["tls"]["full"], 10, "{report}");
    assert!(report["messages"].as_u64() > Some(0), "{report}");
}

#[test]
fn published_scenarios_succeed() {
    let output = program().args(["wss-presets", "--json", "-"]).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let rows = json(&output);
    let connections: Vec<_> = rows.as_array().expect("rows").iter().collect();
    assert_eq!(connections.len(), 4, "{rows}");
    for (row, clients) in connections.into_iter().zip([100, 50, 100, 200]) {
        assert_eq!(row["connections"], clients, "{row}");
        assert_eq!(row["full_handshakes"], clients, "{row}");
        assert_eq!(row["success_rate"], 1.0, "{row}");
    }
    assert!(rows[0]["messages_per_second"].is_null(), "{rows}");
    assert!(rows[3]["messages_per_second"].as_f64() > Some(0.0), "{rows}");
}

#[test]
fn handshakes_are_counted_by_kind() {
    let args = ["handshakes", "--tls", "--resume", "--concurrency", "3", "--json", "-"];
    let output = program().args(args).args(SHORT).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let report = json(&output);
    assert!(report["tls"]["resumed"].as_u64() > Some(0), "{report}");
    assert!(report["server_cpu_us_per_handshake"].as_f64() > Some(0.0), "{report}");
    assert!(report["handshakes_per_second"].as_f64() > Some(0.0), "{report}");
}

#[test]
fn certificate_is_made_for_a_name() {
    let dir = std::env::temp_dir().join(format!("ringwire-cert-{}", std::process::id()));
    let made = program().arg("cert").arg("--out").arg(&dir).args(["--name", "a.example"]).output();
    let made = made.expect("it runs");
    let certificate = std::fs::read_to_string(dir.join("cert.pem"));
    let key = std::fs::read_to_string(dir.join("key.pem"));
    let again = program().arg("cert").arg("--out").arg(&dir).output().expect("it runs");
    std::fs::remove_dir_all(&dir).expect("it was made");
    assert!(made.status.success(), "{made:?}");
    assert!(certificate.expect("it is written").starts_with("-----BEGIN CERTIFICATE-----"));
    assert!(key.expect("it is written").starts_with("-----BEGIN PRIVATE KEY-----"));
    assert_eq!(again.status.code(), Some(2), "{again:?}");
}

#[test]
fn echo_of_a_floor_tells_of_its_process() {
    let floor = Floor::start();
    let pid = floor.child.id().to_string();
    let args = ["echo", &floor.url, "--server-pid", &pid, "--connections", "5", "--json", "-"];
    let output = program().args(args).args(SHORT).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let report = json(&output);
    assert!(report["server"]["memory"]["bytes_before"].as_u64() > Some(0), "{report}");
    assert!(report["latency_us"]["p50"].as_f64() > Some(0.0), "{report}");
}

#[test]
fn errors_are_in_the_exit_code() {
    let floor = Floor::start();
    let url = floor.url.replace("tcp://", "ws://");
    let refused = program().args(["echo", &url]).args(SHORT).output().expect("it runs");
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stdout).contains("100 × handshake invalid"));

    let unusable = program().args(["echo", "https://localhost"]).output().expect("it runs");
    assert_eq!(unusable.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unusable.stderr).contains("https:// is not supported"));
}

#[test]
fn million_in_several_processes_on_one_port() {
    let dir = tempfile::tempdir().expect("a folder");
    let page = dir.path().join("page.html");
    for driver in ["epoll", "uring"] {
        let args = "million --connections 200 --echoes 1000 --concurrency 40 --hold 100ms --processes 3 \
                    --server-processes 2 --source-addresses 127.3.0.1,127.3.0.2 --json - --driver";
        let mut million = program();
        million.args(args.split_whitespace()).args([driver, "--html"]).arg(&page);
        let output = million.output().expect("it runs");
        assert!(output.status.success(), "{output:?}");
        let report = json(&output);
        assert_eq!(
            (&report["opened"], &report["generators"]),
            (&200.into(), &3.into()),
            "{report}"
        );
        assert_eq!(report["work"]["answered"], 1000, "{report}");
        assert_eq!(report["server_processes"], 2, "{report}");
        assert!(report["memory"]["server_anonymous_bytes_per_connection"].is_f64(), "{report}");
        assert!(report["work"]["latency_us"]["p99"].as_f64() > Some(0.0), "{report}");
        assert!(report["notes"].to_string().contains("SO_REUSEPORT"), "{report}");
        let seconds = report["seconds"].as_array().expect("seconds");
        let answered = seconds.iter().filter_map(|second| second["answered"].as_u64());
        assert_eq!(answered.sum::<u64>(), 1000, "{report}");
        let html = std::fs::read_to_string(&page).expect("the page is written");
        assert!(html.contains("million over time") && html.contains("EER"), "{html}");
    }
}

#[test]
fn million_shows_the_fields_of_published_tables() {
    let args = "million --connections 100 --echoes 500 --concurrency 10 --hold 0";
    let output = program().args(args.split_whitespace()).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    for name in [
        "BenchType",
        "Framework",
        "TPS",
        "EER",
        "Min",
        "Avg",
        "Max",
        "TP50",
        "TP75",
        "TP90",
        "TP95",
        "TP99",
        "Used",
        "Total",
        "Success",
        "Failed",
        "Conns",
        "Concurrency",
        "Payload",
        "MEM Avg",
    ] {
        let has = |line: &str| line.trim_start().starts_with(&format!("{name}  "));
        assert!(text.lines().any(has), "{name}: {text}");
    }
}

#[test]
fn conditions_are_in_the_exit_code() {
    let run = |conditions: &str| {
        let args = ["throughput", "--connections", "5", "--messages", "4", "--fail-if", conditions];
        program().args(args).output().expect("it runs")
    };
    let fine = run("errors>0,p99>9s,rate<1");
    assert_eq!(fine.status.code(), Some(0), "{fine:?}");
    let failed = run("p50>0us");
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    assert!(String::from_utf8_lossy(&failed.stderr).contains("since p50>0us"), "{failed:?}");
    let wrong = run("p99=5ms");
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("is no condition"), "{wrong:?}");
}

#[test]
fn all_is_three_scenarios() {
    let args = "all --connections 20 --messages 3 --duration 500ms --message-interval 100 --json -";
    let output = program().args(args.split_whitespace()).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let reports = json(&output);
    let names: Vec<_> =
        reports.as_array().expect("reports").iter().map(|report| &report["scenario"]).collect();
    assert_eq!(names, ["storm", "throughput", "sustained"]);
    assert!(reports[0]["work"].is_null(), "{reports}");
    assert_eq!(reports[1]["work"]["answered"], 60, "{reports}");
    assert_eq!(reports[2]["work"]["answered"], 100, "{reports}");
}

/// The table on the standard output of a run that succeeds.
fn table(args: &str) -> String {
    let output = program().args(args.split_whitespace()).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// The value in a table's row with this name.
fn row<'t>(table: &'t str, name: &str) -> &'t str {
    let value = table.lines().find_map(|line| line.trim_start().strip_prefix(name));
    value.unwrap_or_else(|| panic!("{name}: {table}")).trim()
}

#[test]
fn traffic_has_the_lines_of_published_tables() {
    let table = table("traffic --connections 10 --in-flight 4 --size 4KiB --duration 500ms");
    for name in ["Total data sent", "Total data received"] {
        let value = row(&table, name);
        assert!(value.contains(" MiB (") && value.ends_with(" bytes)"), "{value}");
    }
    let channel = row(&table, "Bandwidth per channel");
    assert!(channel.contains("⇅ Mbps (") && channel.ends_with(" kBps)"), "{channel}");
    let all = row(&table, "Aggregate bandwidth");
    assert!(all.contains("↓, ") && all.ends_with("↑ Mbps"), "{all}");
    assert!(row(&table, "bottleneck").len() > 3, "{table}");
}

#[test]
fn tps_tells_of_each_second() {
    let args = "tps --connections 10 --duration 2 --processes 2 --json -";
    let output = program().args(args.split_whitespace()).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let report = json(&output);
    let each = &report["work"]["each_second"];
    assert_eq!(each["counts"].as_array().map(Vec::len), Some(2), "{report}");
    // A machine that stalls may have a second without any.
    assert!(each["min"].is_number() && each["max"].as_f64() > Some(0.0), "{report}");
    assert!(report["work"]["traffic"]["down_mbps"].as_f64() > Some(0.0), "{report}");
    let live = String::from_utf8_lossy(&output.stderr);
    assert!(live.contains("1 s: ") && live.contains("/s\n"), "{live}");
    let table = table("tps --connections 10 --duration 1");
    assert!(row(&table, "each second").starts_with("1s:"), "{table}");
}

#[test]
fn idle_looks_at_the_memory_of_its_server() {
    let args = "idle --connections 50 --messages 2 --duration 1 --interval 200ms --json -";
    let output = program().args(args.split_whitespace()).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let report = json(&output);
    assert_eq!((&report["opened"], &report["work"]["answered"]), (&50.into(), &100.into()));
    let held = &report["held"];
    assert_eq!(held["samples"].as_array().map(Vec::len), Some(6), "{report}");
    let resident = &held["server_resident"];
    assert!(resident["min"].as_u64() > Some(0) && resident["max"].is_u64(), "{report}");
    assert!(resident["bytes_per_connection"].is_f64(), "{report}");
    assert!(held["server_anonymous"]["last"].is_u64(), "{report}");
    assert_eq!(held["has_grown"], false, "{report}");
    let failed = "idle --connections 5 --duration 0 --fail-if growth<1GiB";
    let output = program().args(failed.split_whitespace()).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[test]
fn churn_closes_what_it_opens() {
    let table = table("churn --connections 10 --messages 2 --duration 1");
    let opened = row(&table, "connects").split_once(" in ").expect("how long").0;
    assert_eq!(row(&table, "closes"), format!("{opened} clean, 0 not"), "{table}");
    let args = "churn --messages 0 --rate 50 --duration 200ms --processes 2 --json -";
    let output = program().args(args.split_whitespace()).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let report = json(&output);
    assert_eq!(report["churn"]["asked"], 10, "{report}");
    assert_eq!(report["churn"]["closed_cleanly"], report["opened"], "{report}");
    assert!(report["connect_us"]["p99"].as_f64() > Some(0.0), "{report}");
}

#[test]
fn search_tells_each_step() {
    let dir = tempfile::tempdir().expect("a folder");
    let page = dir.path().join("search.html");
    let args = "search --clients 5 --start-rate 50 --max-rate 100 --precision 60 --while p99<9s --resp-timeout 9s \
                --duration 200ms --json - --html";
    let output = program().args(args.split_whitespace()).arg(&page).output().expect("it runs");
    let found = json(&output);
    // Which rates are good is the machine's affair.
    assert_eq!(output.status.success(), found["messages_per_second"].is_number(), "{output:?}");
    let steps = found["steps"].as_array().expect("steps");
    assert_eq!(steps[0]["messages_per_second"], 50.0, "{found}");
    assert_eq!(steps[0]["report"]["work"]["answered"], 10, "{found}");
    let lines = String::from_utf8_lossy(&output.stderr);
    assert_eq!(lines.matches("/s answered, p50 ").count(), steps.len(), "{lines}");
    let html = std::fs::read_to_string(&page).expect("the page is written");
    assert!(html.contains("Steps") && html.contains("search over time"), "{html}");
    let args = "search --while p99<0us --start-rate 1 --duration 200ms";
    let output = program().args(args.split_whitespace()).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("none was good"), "{output:?}");
}

#[test]
fn arena_is_the_best_of_its_runs() {
    let args = "arena --connections 10,40 --duration 200ms --runs 2 --rest 0 --json -";
    let output = program().args(args.split_whitespace()).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let rows = json(&output);
    let connections: Vec<_> =
        rows.as_array().expect("rows").iter().map(|row| &row["connections"]).collect();
    assert_eq!(connections, [10, 40]);
    for row in rows.as_array().expect("rows") {
        let runs = row["runs"].as_array().expect("runs");
        let rates: Vec<_> =
            runs.iter().filter_map(|run| run["work"]["messages_per_second"].as_f64()).collect();
        let best = row["best_messages_per_second"].as_f64().expect("a number");
        assert_eq!(rates.len(), 2, "{row}");
        assert!(rates.iter().all(|rate| *rate > 0.0 && *rate <= best), "{row}");
        assert_eq!(row["best"], usize::from(rates[1] >= rates[0]), "{row}");
        assert_eq!((&runs[0]["payload_bytes"], &runs[0]["text"]), (&5.into(), &true.into()));
        assert_eq!(runs[0]["server_processes"], 1, "{row}");
    }
    let args = "arena --profile echo-ws-pipeline,echo-ws-limited --connections 10 --duration 100ms --runs 1 \
                --rest 0 --fail-if rate<1";
    let output = program().args(args.split_whitespace()).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.matches("| connections | messages/s | of all runs |").count(), 2, "{text}");
    assert!(
        text.contains("\necho-ws-pipeline\n") && text.contains("\necho-ws-limited\n"),
        "{text}"
    );
}

#[test]
fn broadcast_searches_until_a_condition_holds() {
    let args = "broadcast --until=opened>20 --step 10 --json -";
    let output = program().args(args.split_whitespace()).args(SHORT).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let search = json(&output);
    assert_eq!((&search["held"], &search["ended_by"]), (&20.into(), &"condition".into()));
    assert_eq!(search["steps"].as_array().map(Vec::len), Some(3), "{search}");
    let args = "broadcast --until --step 10 --max-subscribers 15 --window 4";
    let output = program().args(args.split_whitespace()).args(SHORT).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("| subscribers | publications/s |"), "{output:?}");
}

#[test]
fn doctor_gives_numbers() {
    let args = ["doctor", "--connections", "10", "--json", "-"];
    let output = program().args(args).output().expect("it runs");
    let examination = json(&output);
    assert_eq!(examination["goal"]["connections"], 10);
    let checks = examination["checks"].as_array().expect("checks");
    let files = checks.iter().find(|check| check["name"] == "open files").expect("it is looked at");
    assert_eq!(files["needs"], 1034, "{files}");
    assert!(files["has"]["soft"].as_u64() > Some(0), "{files}");
}

#[test]
fn hostile_peers_of_its_own_server_are_ended() {
    for driver in ["epoll", "uring"] {
        let args = "hostile --peers 3 --time-limit 6s --bystander-timeout 60s --json - \
                    --only unmasked,huge-length,bomb,half-open --driver";
        let mut hostile = program();
        let output = hostile.args(args.split_whitespace()).arg(driver).output().expect("it runs");
        assert!(output.status.success(), "{output:?}");
        let report = json(&output);
        let rows = report["rows"].as_array().expect("rows");
        let kinds: Vec<_> = rows.iter().map(|row| &row["kind"]).collect();
        assert_eq!(kinds, ["half-open", "bomb", "huge-length", "unmasked"]);
        for row in rows {
            // In a process of its own, its memory is known.
            assert!(row["server_resident_before"].as_u64() > Some(0), "{row}");
            assert!(row["bystander"]["answered"].as_u64() > Some(0), "{row}");
        }
        let endings: Vec<_> = rows.iter().map(|row| row["endings"].to_string()).collect();
        assert!(endings[1].contains("close 1009"), "it agrees to compression: {report}");
        assert!(endings[3].contains("close 1002"), "{report}");
        assert!(!endings[0].contains("kept open"), "{report}");
    }
}

/// A shell stays before it: what is measured is what it started, and that ends with its run.
#[test]
fn servers_of_the_user_are_compared() {
    let bench = env!("CARGO_BIN_EXE_ringwire-bench");
    let server =
        format!("{bench} echo --listen {{listen}} --connections 1 --duration 0 --warmup 0 --stay");
    let peer = format!("mine=sh -c '{server}; true'");
    let args = "compare --servers floor-epoll --rounds 1 --connections 4 --sizes 100 --in-flight 2 --server-cpu 0 \
                --load-cpu 0 --duration 500ms --warmup 100ms --peer-path /any --json";
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("runs.json");
    let mut compare = program();
    compare.args(args.split_whitespace()).arg(&file).args(["--peer", &peer]);
    let output = compare.output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let page = String::from_utf8_lossy(&output.stdout);
    assert!(page.contains("| load | floor-epoll | mine |"), "{page}");
    let text = std::fs::read_to_string(&file).expect("the file is written");
    let comparison: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let mine = &comparison["cells"][0]["servers"][1]["runs"][0];
    assert!(mine["target"].as_str().is_some_and(|url| url.ends_with("/any")), "{mine}");
    assert!(mine["messages"].as_u64() > Some(0), "{mine}");
    // A shell that waits has next to none.
    assert!(mine["server"]["cpus"].as_f64() > Some(0.01), "{mine}");
}

#[test]
fn compare_prints_ratios_and_writes_all_runs() {
    let file = std::env::temp_dir().join(format!("ringwire-compare-{}.json", std::process::id()));
    let args = "compare --servers floor-epoll --rounds 2 --connections 4 --sizes 100 --in-flight 2 \
                --server-cpu 0 --load-cpu 0 --json";
    let html = file.with_extension("html");
    let mut compare = program();
    compare.args(args.split_whitespace()).arg(&file).arg("--html").arg(&html);
    let output = compare.args(SHORT).output();
    let output = output.expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let page = String::from_utf8_lossy(&output.stdout);
    assert!(page.contains("### Messages per second, as a ratio to floor-epoll"), "{page}");
    assert!(page.contains("| 4 × 2 × 100 B |"), "{page}");
    let text = std::fs::read_to_string(&file).expect("the file is written");
    std::fs::remove_file(&file).expect("it is there");
    let ratios = std::fs::read_to_string(&html).expect("the page is written");
    std::fs::remove_file(&html).expect("it is there");
    assert!(ratios.contains("as a ratio to floor-epoll</h2>"), "{ratios}");
    let comparison: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let runs = &comparison["cells"][0]["servers"][0]["runs"];
    assert_eq!(runs.as_array().map(Vec::len), Some(2), "{comparison}");
    assert!(runs[1]["messages"].as_u64() > Some(0), "{comparison}");
}

#[test]
fn processes_have_as_many_threads_as_the_one_with_the_fewest_connections() {
    for (connections, processes, threads) in [(3, 2, 2), (10, 4, 4)] {
        let flags = format!(
            "storm --connections {connections} --processes {processes} --threads {threads} --json -"
        );
        let output = program().args(flags.split(' ')).output().expect("it runs");
        assert!(output.status.success(), "{output:?}");
        assert_eq!(json(&output)["opened"], connections);
    }
}
