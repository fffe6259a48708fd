//! How the figures are printed: Markdown, each cell with the median and the worst of all runs.

use std::collections::BTreeSet;

use crate::{
    Measured,
    alone::{Capacity, Lateness, Weight},
    measure::{Calls, Figures},
};

/// One figure of each run.
pub type Column = fn(&Figures) -> Option<f64>;

/// What is printed of each scenario: the heading, the decimals, the figure.
const COLUMNS: [(&str, usize, Column); 13] = [
    ("after success, s", 2, |run| run.after_success),
    ("failure to request, s", 2, |run| run.to_notice),
    ("signal to last request, s", 3, |run| run.to_cancel),
    ("wall, s", 1, |run| Some(run.wall)),
    ("slowest rollout, s", 1, |run| run.rollout),
    ("calls", 0, |run| Some(run.calls())),
    ("reads", 0, |run| Some(run.reads)),
    ("reads in the worst second", 0, |run| Some(run.reads_in_a_second)),
    ("throttled", 0, |run| Some(run.throttled)),
    ("CPU, s", 2, |run| Some(run.cpu)),
    ("CPU, % of wall", 1, |run| Some(run.cpu / run.wall * 100.0)),
    ("CPU while waiting, %", 2, |run| run.cpu_waiting),
    ("memory, MB", 1, |run| Some(run.memory)),
];

/// Prints a line of the result.
#[expect(clippy::print_stdout, reason = "the result is for whoever reads stdout")]
pub fn say(line: &str) {
    println!("{line}");
}

/// Prints what each scenario cost, and then the calls by operation.
pub fn print(measured: &[Measured]) {
    if measured.is_empty() {
        return;
    }
    row("scenario", COLUMNS.iter().map(|(title, ..)| (*title).to_owned()));
    row("---", COLUMNS.iter().map(|_| "---".to_owned()));
    for one in measured {
        row(&one.name, COLUMNS.iter().map(|(_, decimals, of)| cell(one.figures.iter().filter_map(of), *decimals)));
    }
    say("\nCalls by operation:\n");
    by_operation(measured, |calls| calls.total);
    say("\nCalls by operation in the worst second of each:\n");
    by_operation(measured, |calls| calls.in_a_second);
    for one in measured {
        one.failures.iter().for_each(|failure| say(&format!("\n{} WENT WRONG: {failure}", one.name)));
    }
    say("");
}

/// Prints a figure of each operation that was called.
fn by_operation(measured: &[Measured], figure: fn(&Calls) -> f64) {
    let runs = measured.iter().flat_map(|one| &one.figures);
    let operations: BTreeSet<_> = runs.flat_map(|run| run.calls.keys()).collect();
    row("scenario", operations.iter().map(|operation| (*operation).clone()));
    row("---", operations.iter().map(|_| "---".to_owned()));
    for one in measured {
        let calls = |operation: &String| {
            one.figures.iter().map(|run| run.calls.get(operation).map_or(0.0, figure)).collect::<Vec<_>>()
        };
        row(&one.name, operations.iter().map(|operation| cell(calls(operation).into_iter(), 0)));
    }
}

/// Prints what was measured of the binary, of the local ECS and of the machine.
pub fn print_alone(weight: Option<&Weight>, capacity: Option<&Capacity>, late: &Lateness, measured: &[Measured]) {
    if let Some(Weight { size, version, nothing }) = weight {
        say(&format!(
            "- the binary: {size:.1} MB; `-version` takes {version:.2} ms, a program that does nothing {nothing:.2} ms"
        ));
    }
    if let Some(Capacity { of_one, of_ten }) = capacity {
        say(&format!(
            "- the local ECS answers {of_one:.0} requests a second for 1 service and {of_ten:.0} for 10, to one client, \
             with 500 services"
        ));
    }
    let rates = measured.iter().flat_map(|one| one.figures.iter().map(|run| (run.requests_in_a_second, &one.name)));
    if let Some((rate, name)) = rates.max_by(|one, other| one.0.total_cmp(&other.0)) {
        say(&format!("- the most that one got within a second, pings included: {rate:.0} requests ({name})"));
        let Lateness { seldom, worst } = late;
        say(&format!(
            "- a thread that slept for 10 ms again and again meanwhile woke up {seldom:.1} ms late in 1 of 100 cases, \
             {worst:.1} ms at worst"
        ));
    }
}

fn row(first: &str, cells: impl Iterator<Item = String>) {
    let cells: Vec<_> = std::iter::once(first.to_owned()).chain(cells).collect();
    say(&format!("| {} |", cells.join(" | ")));
}

/// The median and the worst.
fn cell(values: impl Iterator<Item = f64>, decimals: usize) -> String {
    let values: Vec<_> = values.collect();
    if values.is_empty() {
        return "–".to_owned();
    }
    let (median, worst) = (format!("{:.decimals$}", median(&values)), format!("{:.decimals$}", worst(&values)));
    if median == worst { median } else { format!("{median} / {worst}") }
}

/// The value in the middle, or the mean of both.
pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

/// The largest value: of all that is measured here, less is better.
pub fn worst(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}
