//! What is to be reached, and whether it was.

use crate::{
    Measured,
    alone::Weight,
    measure::Figures,
    tables::{Column, median, say, worst},
};

/// How the runs of a scenario are taken together.
type Statistic = fn(&[f64]) -> f64;

/// What a scenario is to reach.
struct Target {
    /// It is for the scenarios whose names begin so, and contain this.
    of: (&'static str, &'static str),
    what: &'static str,
    column: Column,
    statistic: Statistic,
    most: f64,
}

const fn target(
    of: (&'static str, &'static str),
    what: &'static str,
    column: Column,
    statistic: Statistic,
    most: f64,
) -> Target {
    Target { of, what, column, statistic, most }
}

/// What 100 services may take from the first registration on: half of RegisterTaskDefinition's bucket gives 10 at once
/// and then one every 2 s; to this comes the last one's rollout, and 3 s. Preflight, which comes before the first write,
/// reads each task definition, 10 a second at most.
fn beyond_the_bucket(run: &Figures) -> Option<f64> {
    Some(run.since_registering? - 90.0 * 2.0 - run.rollout?)
}

/// All but what [`check`] adds.
const TARGETS: [Target; 19] = [
    target(("rollout", ""), "after success, s: median", |run| run.after_success, median, 0.5),
    target(("rollout", ""), "after success, s: worst", |run| run.after_success, worst, 1.5),
    target(("100 ", ""), "after the slowest's success, s: worst", |run| run.after_success, worst, 3.0),
    target(("together", ""), "after the slowest's success, s: worst", |run| run.after_success, worst, 3.0),
    target(("together", ""), "reads in the worst second: worst", |run| Some(run.reads_in_a_second), worst, 10.0),
    target(("failure", ""), "failure to request, s: median", |run| run.to_notice, median, 1.5),
    target(("failure", ""), "failure to request, s: worst", |run| run.to_notice, worst, 3.0),
    target(("signal, 1 ", ""), "signal to request, s: worst", |run| run.to_cancel, worst, 0.5),
    target(("signal, 50 ", ""), "signal to last request, s: worst", |run| run.to_cancel, worst, 2.0),
    target(("rollout of 20 s", ""), "reads: worst", |run| Some(run.reads), worst, 25.0),
    target(("100 ", ""), "reads in the worst second: worst", |run| Some(run.reads_in_a_second), worst, 10.0),
    target(("", "limits half used"), "throttled: worst", |run| Some(run.throttled), worst, 0.0),
    target(
        ("100 ", "limits half used"),
        "from the first registration on, longer than the bucket and a rollout, s: worst",
        beyond_the_bucket,
        worst,
        3.0,
    ),
    target(("rollout", ""), "memory, MB: worst", |run| Some(run.memory), worst, 12.0),
    target(("failure", ""), "memory, MB: worst", |run| Some(run.memory), worst, 12.0),
    target(("signal, 1 ", ""), "memory, MB: worst", |run| Some(run.memory), worst, 12.0),
    target(("500 ", ""), "memory, MB: worst", |run| Some(run.memory), worst, 30.0),
    target(("rollout of 120 s", ""), "CPU while waiting, % of a core: median", |run| run.cpu_waiting, median, 0.5),
    target(("rollout of 120 s", ""), "CPU while waiting, % of a core: worst", |run| run.cpu_waiting, worst, 0.5),
];

/// Prints each target with what was measured; false if one is missed. In a run of everything, one that nothing was
/// measured for is missed, too.
pub fn check(measured: &[Measured], weight: Option<&Weight>, is_all: bool) -> bool {
    say("\nTargets:\n");
    let mut good = true;
    let mut line = |what: &str, value: Option<f64>, most: f64| {
        // What was to be measured and wasn't can't have been reached.
        let is_reached = value.is_some_and(|value| value <= most);
        good &= is_reached;
        let verdict = if is_reached { "ok" } else { "MISSED" };
        let value = value.map_or("not measured".to_owned(), |value| format!("{value:.2}"));
        say(&format!("- {verdict}: {what}: {value}, at most {most}"));
    };
    for Target { of: (begins, contains), what, column, statistic, most } in &TARGETS {
        let is_meant = |one: &&Measured| one.name.starts_with(begins) && one.name.contains(contains);
        if is_all && !measured.iter().any(|one| is_meant(&one)) {
            line(&format!("{begins}…{contains}: {what}"), None, *most);
        }
        for one in measured.iter().filter(is_meant) {
            let values: Vec<_> = one.figures.iter().filter_map(column).collect();
            let is_whole = !values.is_empty() && values.len() == one.figures.len();
            line(&format!("{}: {what}", one.name), is_whole.then(|| statistic(&values)), *most);
        }
    }
    if let Some(Weight { size, version, nothing }) = weight {
        line("size of the binary, MB", Some(*size), 8.0);
        line("`-version` beyond a program that does nothing, ms", Some(version - nothing), 2.0);
    }
    for (what, value, most) in growth(measured) {
        if is_all || value.is_some() {
            line(what, value, most);
        }
    }
    good
}

/// What the growth of memory and calls with the number of services, and of memory with the length of the wait, comes to,
/// and the most that it may be. However many services there are, one is to cost no more calls than it does alone.
fn growth(measured: &[Measured]) -> [(&'static str, Option<f64>, f64); 5] {
    let of = |name: &str, column: Column| {
        let found = measured.iter().find(|one| one.name.starts_with(name))?;
        let values: Vec<_> = found.figures.iter().filter_map(column).collect();
        (!values.is_empty()).then(|| median(&values))
    };
    let calls: Column = |run| Some(run.calls());
    let memory: Column = |run| Some(run.memory);
    let calls_a_service = |many: &str, count: f64| Some(of(many, calls)? / count / of("1 service", calls)?);
    let memory_a_service = |many: &str, count: f64| {
        let base = of("10 ", memory)?;
        Some((of(many, memory)? - base) / (count - 10.0))
    };
    let grown = |longer: &str, column: Column| Some(of(longer, column)? - of("rollout of 2 s", column)?);
    [
        ("calls a service, 10 against 1", calls_a_service("10 ", 10.0), 1.0),
        ("calls a service, 100 against 1", calls_a_service("100 ", 100.0), 1.0),
        ("calls a service, 500 against 1", calls_a_service("500 ", 500.0), 1.0),
        (
            "memory of each further service, beyond 100 against beyond 10",
            memory_a_service("500 ", 500.0).zip(memory_a_service("100 ", 100.0)).map(|(more, less)| more / less),
            1.5,
        ),
        ("memory that a rollout of 120 s takes beyond one of 2 s, MB", grown("rollout of 120 s", memory), 1.0),
    ]
}
