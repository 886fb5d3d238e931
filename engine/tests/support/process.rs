//! What this process uses of the machine, and tests that have to be alone in theirs.

use std::any::type_name;
use std::process::Command;

/// Memory that is resident, in bytes.
pub(crate) fn resident_len() -> usize {
    const PAGE_LEN: usize = 4096;
    let statm = std::fs::read_to_string("/proc/self/statm").expect("procfs is there");
    let pages = statm.split(' ').nth(1).expect("the second number is the resident pages");
    pages.parse::<usize>().expect("it is a number") * PAGE_LEN
}

/// Runs a test once more, alone in a process of its own, since it measures the process. `false` in that process: now
/// is the time to measure.
///
/// ```
/// fn what_it_takes() {
///     if ran_alone(what_it_takes) {
///         return;
///     }
/// ```
pub(crate) fn ran_alone(test: impl Fn()) -> bool {
    const ALONE: &str = "RINGWIRE_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return false;
    }
    let myself = std::env::current_exe().expect("it has a name");
    let mut command = Command::new(myself);
    command.args(["--exact", name_of(&test), "--nocapture"]).env(ALONE, "1");
    let output = command.output().expect("it can be started again");
    let said = String::from_utf8_lossy(&output.stdout);
    let is_well = output.status.success() && said.contains("1 passed");
    assert!(is_well, "{said}{}", String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    true
}

/// What the harness calls a test: the function's path, without the program.
pub(crate) fn name_of<F: Fn()>(_: &F) -> &'static str {
    let (_, name) = type_name::<F>().split_once("::").expect("a function has a path");
    name
}
