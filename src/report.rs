//! Every word the user sees: the lines while a run goes on, and the last ones.
//!
//! What happens is told as an [`Event`], which carries data and has its words in [`events`]; how a service ended is a
//! [`conclusion::Conclusion`]. The other modules lay out either, each for one kind of reader.

mod conclusion;
mod events;
mod github;
mod json;
mod lines;
mod live;
mod progress;
mod schedule;

use std::{
    fmt,
    io::Write as _,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tracing::Level;

pub use events::{Event, Phase, url};
pub use schedule::RuleEvent;

use self::{conclusion::Conclusion, github::Github, live::Live, progress::Board};
use crate::{
    aws::Error,
    cli::LogFormat,
    config::Refused,
    git_sha::GitSha,
    outcome::{AllEnded, End},
    text::{duration, escape, excerpt},
};

/// How this run is told; decided once, by [`start`].
struct Report {
    format: LogFormat,
    since: Instant,
    board: Arc<Mutex<Board>>,
    github: Option<Github>,
    /// The live lines, once there may be some; where stderr is a terminal, and the log a text that stays as it is.
    live: OnceLock<Live>,
}

static REPORT: OnceLock<Report> = OnceLock::new();

fn report() -> &'static Report {
    REPORT.get_or_init(|| Report::new(LogFormat::Text))
}

impl Report {
    fn new(format: LogFormat) -> Self {
        Self { format, since: Instant::now(), board: Arc::default(), github: None, live: OnceLock::new() }
    }

    /// Where commands to GitHub Actions may stand between the lines: JSON is nothing but JSON.
    fn commands(&self) -> Option<&Github> {
        self.github.as_ref().filter(|_| self.format == LogFormat::Text)
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Begins to tell, in the form that was asked for and the way that suits where stderr leads. This is where the
/// environment is read: RUST_LOG, NO_COLOR, TERM, GITHUB_ACTIONS and GITHUB_STEP_SUMMARY.
pub fn start(format: LogFormat) {
    let _ = REPORT.set(Report { github: Github::find(), ..Report::new(format) });
    lines::start(format);
}

/// Who else is told what happens, besides those who read the lines.
type Listener = Box<dyn Fn(&str, &Event<'_>) + Send + Sync>;

static LISTENER: OnceLock<Listener> = OnceLock::new();

/// Has `listener` told of everything that happens to a service from now on; there is one at most.
pub fn also_tell(listener: impl Fn(&str, &Event<'_>) + Send + Sync + 'static) {
    let _ = LISTENER.set(Box::new(listener));
}

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About<'a> {
    /// The whole run.
    Run,
    /// A service, by its name.
    Service(&'a str),
    /// A scheduled task, by the name of its rule.
    ScheduledTask(&'a str),
}

impl<'a> About<'a> {
    /// The key under which JSON names it; empty for the whole run.
    fn kind(self) -> &'static str {
        match self {
            Self::Run => "",
            Self::Service(_) => "service",
            Self::ScheduledTask(_) => "scheduled_task",
        }
    }

    /// Its name; empty for the whole run.
    fn name(self) -> &'a str {
        match self {
            Self::Run => "",
            Self::Service(name) | Self::ScheduledTask(name) => name,
        }
    }
}

/// Takes note of the version that is asked for, so that also a run that never begins names it.
pub fn deploys(version: &GitSha) {
    report().board().deploys(version);
}

/// Says what is to be deployed, and to which services and scheduled tasks, and whether one service after another.
pub fn begins<'a>(parts: impl Iterator<Item = About<'a>>, version: &GitSha, one_at_a_time: bool) {
    let report = report();
    report.board().begins(parts, version);
    if let Some(github) = &report.github {
        github.one_at_a_time(one_at_a_time);
    } else if report.format == LogFormat::Text && lines::is_terminal() {
        report.live.get_or_init(|| Live::start(Arc::clone(&report.board), lines::is_colourful()));
    }
}

/// Tells what happened to `service`.
pub fn say(service: &str, event: &Event<'_>) {
    if let Some(tell) = LISTENER.get() {
        tell(service, event);
    }
    say_about(About::Service(service), event);
}

/// Tells what happened to the scheduled task of this rule.
pub fn say_of_rule(rule: &str, event: &Event<'_>) {
    say_about(About::ScheduledTask(rule), event);
}

fn say_about(about: About<'_>, event: &Event<'_>) {
    let report = report();
    let phase = report.board().hear(about, event);
    if let Some(github) = report.commands() {
        write(&github.around(about.name(), event));
    }
    if matches!(event, Event::StillWaits { .. } | Event::AwaitsTurn { .. }) && report.live.get().is_some() {
        return; // The live line says it all the time.
    }
    let fields = || json::fields(event);
    tell(event.level(), about, phase, json::name(event), fields, format_args!("{event}"));
}

/// Warns that the credentials end in `left`, while the run may take as long as `longest`.
pub fn credentials_end_early(left: Duration, longest: Duration) {
    let fields = || json!({"left_seconds": json::seconds(left), "longest_seconds": json::seconds(longest)});
    let warn = |message| tell(Level::WARN, About::Run, Phase::Preflight, "credentials_end", fields, message);
    if left.is_zero() {
        return warn(format_args!(
            "the AWS credentials have expired, by what their source says: what this run begins may not be undone"
        ));
    }
    warn(format_args!(
        "the AWS credentials end in {}, and this run may take {}: unless they are renewed, what it begins may not be undone",
        duration(left),
        duration(longest)
    ));
}

/// Warns that STS has not yet let anybody assume the role, and that it is asked again for so long.
pub fn tries_to_assume_again(role: &str, error: &Error, limit: Duration) {
    let fields = || json!({"role": role, "error": error.to_string(), "limit_seconds": json::seconds(limit)});
    let (error, limit) = (excerpt(&error.to_string()), duration(limit));
    let message = format_args!("role `{}`: {error}; trying again for up to {limit}", excerpt(role));
    tell(Level::WARN, About::Run, Phase::Preflight, "tries_again", fields, message);
}

/// Warns that the Datadog agent at `host` gets no events, or no more of them.
pub fn no_events(host: &str, error: &std::io::Error) {
    let fields = || json!({"error": error.to_string()});
    let (host, why) = (excerpt(host), excerpt(&error.to_string()));
    let message = format_args!("the Datadog agent at {host} gets no events: {why}");
    tell(Level::WARN, About::Run, Phase::Preflight, "no_datadog_events", fields, message);
}

/// Warns that there is no way to the Datadog agent, because its port is none.
pub fn no_port(text: &str) {
    let text = excerpt(text);
    let message = format_args!("DD_DOGSTATSD_PORT is `{text}`, which is no port: the Datadog agent gets no events");
    tell(Level::WARN, About::Run, Phase::Preflight, "no_datadog_events", || json!({}), message);
}

/// Tells one thing. `fields` are for those who read JSON.
fn tell(
    level: Level,
    about: About<'_>,
    phase: Phase,
    event: &str,
    fields: impl FnOnce() -> Value,
    message: fmt::Arguments<'_>,
) {
    let fields = if report().format == LogFormat::Json { fields().to_string() } else { String::new() };
    let phase = json::word(phase);
    let (kind, name) = (about.kind(), about.name());
    match level {
        Level::ERROR => tracing::error!(kind, name, phase, event, fields, "{message}"),
        Level::WARN => tracing::warn!(kind, name, phase, event, fields, "{message}"),
        Level::INFO => tracing::info!(kind, name, phase, event, fields, "{message}"),
        _ => tracing::debug!(kind, name, phase, event, fields, "{message}"),
    }
}

/// Tells how the run ended. These lines are always printed, and they are the last.
pub fn end(end: &End<'_>) {
    let report = report();
    if let Some(live) = report.live.get() {
        live.end();
    }
    if let Some(github) = report.commands() {
        write(&github.close());
    }
    let summarised = report.github.as_ref().map(|github| (github.summarise(end, &report.board()), github.place()));
    if let Some((Err(error), place)) = summarised {
        let message = format_args!("cannot write the step summary to {place}: {error}");
        tell(Level::WARN, About::Run, Phase::End, "step_summary_failed", || json!({}), message);
    }
    if report.commands().is_some() {
        write(&github::annotations(end));
    }
    let lines: Vec<_> = match report.format {
        LogFormat::Text => last_lines(end).iter().map(|line| escape(line)).collect(),
        LogFormat::Json => {
            json::end(end, &report.board(), report.since.elapsed()).iter().map(Value::to_string).collect()
        }
    };
    for line in lines {
        write(&(line + "\n"));
    }
}

/// The last words about one service or scheduled task.
pub struct LastWords<'a> {
    about: About<'a>,
    took: Duration,
    /// How bad it is.
    level: Level,
    /// The one word for how it ended.
    word: &'static str,
    /// The last lines.
    text: String,
    /// What runs now.
    now: String,
    /// Why, what to type, and what somebody else should be told.
    reasons: Vec<String>,
}

/// The last words about each part of a run, in the order of the file.
pub fn last_words(AllEnded { services, schedules }: &AllEnded) -> Vec<LastWords<'_>> {
    let services = services.iter().map(|ended| {
        let conclusion = Conclusion::of(ended);
        LastWords {
            about: About::Service(&ended.service),
            took: ended.took,
            level: conclusion.level(),
            word: conclusion.word(),
            text: conclusion.to_string(),
            now: conclusion.now(),
            reasons: [conclusion.why, conclusion.by_hand].into_iter().flatten().chain(conclusion.warnings).collect(),
        }
    });
    let schedules = schedules.iter().map(|ended| {
        let conclusion = schedule::Conclusion::of(ended);
        LastWords {
            about: About::ScheduledTask(&ended.rule),
            took: ended.took,
            level: conclusion.level(),
            word: conclusion.word(),
            text: conclusion.to_string(),
            now: conclusion.now(),
            reasons: conclusion.why.into_iter().chain(conclusion.by_hand).collect(),
        }
    });
    services.chain(schedules).collect()
}

/// The last lines for people: one per service and scheduled task of how it ended, what runs now and how long it took,
/// with the reason and the way out below where it failed.
fn last_lines(end: &End<'_>) -> Vec<String> {
    match end {
        End::All(ended) => {
            let lines = |words: LastWords<'_>| -> Vec<_> {
                words.text.lines().map(|line| format!("{}: {line}", words.about.name())).collect()
            };
            last_words(ended).into_iter().flat_map(lines).collect()
        }
        End::Problems(problems) => {
            let lines = problems.iter().flat_map(|(subject, problem)| {
                let hint = problem.hint.as_ref().map(|hint| format!("hint: {hint}"));
                [Some(format!("error: {subject}: {}", excerpt(&problem.what))), hint]
            });
            lines.flatten().chain([verdict(end)]).collect()
        }
        End::Planned => vec![verdict(end)],
        End::Refused(Refused { line: Some((number, text)), .. }) => {
            vec![format!("error: {}", verdict(end)), format!("{number:>3} | {text}")]
        }
        End::Abandoned => {
            let board = report().board();
            let unknown = board.begun().map(|(name, (ran, version))| {
                format!("{name}: NOT KNOWN: before this run it ran {ran} ({version}); see what it runs now")
            });
            unknown.chain([format!("error: {}", verdict(end))]).collect()
        }
        End::Cancelled(_) | End::Refused(_) | End::Error(_) => vec![format!("error: {}", verdict(end))],
    }
}

/// What there is to say of a run as a whole.
fn verdict(end: &End<'_>) -> String {
    match end {
        End::All(ended) => {
            let mut words: Vec<(&str, usize)> = Vec::new();
            for word in last_words(ended).into_iter().map(|words| words.word) {
                match words.iter_mut().find(|(known, _)| *known == word) {
                    Some((_, count)) => *count += 1,
                    None => words.push((word, 1)),
                }
            }
            let words = words.iter().map(|(word, count)| format!("{count} {}", word.replace('_', " ")));
            words.collect::<Vec<_>>().join(", ")
        }
        End::Planned => "nothing has been changed: this was a dry run".to_owned(),
        End::Problems(_) => "nothing has been changed".to_owned(),
        End::Cancelled(by) => format!("cancelled by {by}; nothing has been changed"),
        End::Abandoned => {
            "ended by a second Ctrl-C while services were going back: check what each of them runs".to_owned()
        }
        End::Refused(refused) => refused.to_string(),
        End::Error(message) => (*message).to_owned(),
    }
}

/// How each service and each rule ended, in one or more lines.
#[cfg(test)]
pub fn conclusions(ended: &AllEnded) -> Vec<String> {
    last_words(ended).into_iter().map(|words| words.text).collect()
}

/// Writes whole lines to stderr as they are, above the live ones. A stderr that is closed is no reason to stop.
fn write(lines: &str) {
    let write = || {
        let _ = std::io::stderr().lock().write_all(lines.as_bytes());
    };
    match report().live.get() {
        _ if lines.is_empty() => {}
        Some(live) => live.above(write),
        None => write(),
    }
}

/// Writes the result that a script reads to stdout, if anybody still listens.
pub fn print(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}
