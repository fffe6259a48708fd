//! How far each service and each scheduled task is, by what was told of it, and the live lines that say so.

use std::{
    fmt::{self, Write as _},
    time::{Duration, Instant},
};

use super::{About, Event, Phase, RuleEvent, schedule};
use crate::{
    ecs::SeenDeployment,
    git_sha::GitSha,
    text::{duration, excerpt},
};

/// All services of the run, in the order of the file, and then its scheduled tasks.
#[derive(Default)]
pub struct Board {
    version: String,
    services: Vec<(String, Progress)>,
    rules: Vec<(String, Progress)>,
}

/// How far one service or scheduled task is.
#[derive(Default)]
struct Progress {
    phase: Phase,
    /// Whether its turn has come.
    has_begun: bool,
    /// Whether it is being deployed, or goes back.
    is_under_way: bool,
    /// Whether it goes back, or went.
    goes_back: bool,
    /// What ran before, and the version of that.
    ran: Option<(String, String)>,
    /// What it is moving to.
    version: String,
    /// What a dry run says of it: what would be deployed, and where a rollback would go.
    plan: Vec<String>,
    wait: Option<Wait>,
    /// The tasks that it is moving to, and the others.
    tasks: Option<(Tasks, Tasks)>,
    /// The url's last answer.
    answer: Option<String>,
}

/// What is waited for.
enum Wait {
    /// A check.
    Check { check: Phase, since: Instant, limit: Duration },
    /// The turn to make a write.
    Turn,
}

/// How many tasks run, are pending, and are to run.
#[derive(Clone, Copy, Default)]
struct Tasks {
    running: usize,
    pending: usize,
    desired: usize,
}

impl Tasks {
    fn of(seen: &SeenDeployment) -> Self {
        Self { running: seen.running, pending: seen.pending, desired: seen.desired }
    }

    fn and(self, other: Self) -> Self {
        Self {
            running: self.running + other.running,
            pending: self.pending + other.pending,
            desired: self.desired + other.desired,
        }
    }
}

impl fmt::Display for Tasks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}/{}", self.running, self.pending, self.desired)
    }
}

impl Board {
    /// Takes note of what is to be deployed.
    pub fn begins<'a>(&mut self, parts: impl Iterator<Item = About<'a>>, version: &GitSha) {
        *self = Self { version: version.to_string(), ..Self::default() };
        for about in parts {
            self.progress(about);
        }
    }

    /// Takes note of the version that is asked for.
    pub fn deploys(&mut self, version: &GitSha) {
        self.version = version.to_string();
    }

    /// The version that is deployed; empty before that is known.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The services and the scheduled tasks, and whether the turn of each has come.
    pub fn parts(&self) -> impl Iterator<Item = (About<'_>, bool)> {
        let services = self.services.iter().map(|(name, progress)| (About::Service(name), progress.has_begun));
        services.chain(self.rules.iter().map(|(rule, progress)| (About::ScheduledTask(rule), progress.has_begun)))
    }

    /// Of each service whose turn has come: its name, and what it ran before with the version of that.
    pub fn begun(&self) -> impl Iterator<Item = (&str, &(String, String))> {
        let begun = self.services.iter().filter(|(_, progress)| progress.has_begun);
        begun.filter_map(|(name, progress)| Some((name.as_str(), progress.ran.as_ref()?)))
    }

    /// As [`Self::parts`], and what a dry run said of each.
    pub fn plans(&self) -> impl Iterator<Item = (About<'_>, &[String])> {
        let services = self.services.iter().map(|(name, progress)| (About::Service(name), &*progress.plan));
        services.chain(self.rules.iter().map(|(rule, progress)| (About::ScheduledTask(rule), &*progress.plan)))
    }

    /// Takes note of `event`, and gives the phase that it belongs to.
    pub fn hear(&mut self, about: About<'_>, event: &Event<'_>) -> Phase {
        let version = self.version.clone();
        self.progress(about).hear(event, &version, Instant::now())
    }

    fn progress(&mut self, about: About<'_>) -> &mut Progress {
        let parts = if matches!(about, About::ScheduledTask(_)) { &mut self.rules } else { &mut self.services };
        let known = parts.iter().position(|(name, _)| name == about.name());
        let index = known.unwrap_or_else(|| {
            parts.push((about.name().to_owned(), Progress::default()));
            parts.len() - 1
        });
        &mut parts[index].1
    }

    /// The live lines for a terminal of this size: one for each service that is under way, but on no more than half of
    /// the screen; those that don't fit are summed up in the last. None is as wide as the screen.
    pub fn rows(&self, height: usize, width: usize, colour: bool, now: Instant) -> Vec<String> {
        let most = (height / 2).max(1);
        let under_way: Vec<_> =
            self.services.iter().chain(&self.rules).filter(|(_, progress)| progress.is_under_way).collect();
        let shown = if under_way.len() > most { most - 1 } else { under_way.len() };
        let mut rows: Vec<_> = under_way[..shown]
            .iter()
            .map(|(name, progress)| row(name, &format!(": {}", progress.line(now)), width, colour))
            .collect();
        let rest = &under_way[shown..];
        if !rest.is_empty() {
            let more = if shown == 0 { "services" } else { "more" };
            rows.push(row("", &format!("{} {more}: {}", rest.len(), phases(rest)), width, colour));
        }
        rows
    }
}

/// How many services are in each phase.
fn phases(services: &[&(String, Progress)]) -> String {
    let mut phases: Vec<_> = services.iter().map(|(_, progress)| progress.phase).collect();
    phases.sort_unstable();
    let counted = phases.chunk_by(|one, next| one == next).map(|same| format!("{} {}", same.len(), same[0]));
    counted.collect::<Vec<_>>().join(", ")
}

/// `name` and `text` within `width`.
fn row(name: &str, text: &str, width: usize, colour: bool) -> String {
    let room = width.saturating_sub(1);
    let mut cut: String = format!("{name}{text}").chars().take(room).collect();
    if name.chars().count() + text.chars().count() > room {
        cut.pop();
        cut.push('…');
    }
    match cut.strip_prefix(name) {
        Some(rest) if colour && !name.is_empty() => format!("\x1b[1m{name}\x1b[0m{rest}"),
        _ => cut,
    }
}

impl Progress {
    fn hear(&mut self, event: &Event<'_>, deployed: &str, now: Instant) -> Phase {
        // A rollback goes through updates and checks of its own.
        self.goes_back |= matches!(
            event,
            Event::RollbackAwaitsEcs { .. }
                | Event::RollingBack { .. }
                | Event::GoesBackByItself { .. }
                | Event::OfRule(RuleEvent::RollingBack(_))
        );
        self.phase = if self.goes_back { Phase::Rollback } else { event.phase().unwrap_or(self.phase) };
        match event {
            Event::Runs { running, version, .. } => self.ran = Some((running.to_string(), excerpt(version))),
            Event::WouldDeploy(_)
            | Event::WouldReturn(_)
            | Event::OfRule(RuleEvent::WouldRun(_) | RuleEvent::WouldReturn(_)) => self.plan.push(event.to_string()),
            Event::Begins => {
                self.has_begun = true;
                self.moves_to(deployed.to_owned());
            }
            Event::RollingBack { version, .. } => self.moves_to(excerpt(version)),
            Event::OfRule(RuleEvent::RollingBack(back)) => self.moves_to(schedule::runs(back.iter().copied())),
            Event::GoesBackByItself { to, .. } => {
                let to = to.to_string();
                let ran = self.ran.as_ref().filter(|(ran, _)| *ran == to).map(|(_, version)| version.clone());
                self.moves_to(ran.unwrap_or(to));
            }
            Event::AwaitsTurn { .. } => self.wait = Some(Wait::Turn),
            Event::TurnCame => self.wait = None,
            Event::Checking { timeout, .. } => {
                self.wait = Some(Wait::Check { check: Phase::DeployCheck, since: now, limit: *timeout });
            }
            Event::Draining { timeout, .. } => {
                self.wait = Some(Wait::Check { check: Phase::DrainCheck, since: now, limit: *timeout });
            }
            Event::Counted(seen) => {
                let others = seen.others().map(Tasks::of).fold(Tasks::default(), Tasks::and);
                self.tasks = seen.ours().map(|ours| (Tasks::of(ours), others));
            }
            Event::UrlAnswered(answer) => self.answer = Some(answer.to_string()),
            Event::Ended { .. }
            | Event::RollbackEnded(_)
            | Event::OfRule(RuleEvent::Ended { .. } | RuleEvent::RollbackEnded(_)) => self.is_under_way = false,
            _ => {}
        }
        self.phase
    }

    /// What was seen before is of no interest any more.
    fn moves_to(&mut self, version: String) {
        self.is_under_way = true;
        self.version = version;
        (self.wait, self.tasks, self.answer) = (None, None, None);
    }

    /// What the live line says, the most important first. Tasks are running/pending/desired.
    fn line(&self, now: Instant) -> String {
        let mut line = self.phase.to_string();
        // Writing to a String can't fail.
        match &self.wait {
            Some(Wait::Check { check, since, limit }) => {
                if *check != self.phase {
                    let _ = write!(line, ", {check}");
                }
                let took = now.saturating_duration_since(*since);
                let _ = write!(line, " {}, {} left", duration(took), duration(limit.saturating_sub(took)));
            }
            Some(Wait::Turn) => line.push_str(", waiting for its turn"),
            None => {}
        }
        let _ = write!(line, "; {}", self.version);
        if let Some((ours, others)) = self.tasks {
            let _ = write!(line, " {ours}, others {others}");
        }
        if let Some(answer) = &self.answer {
            let _ = write!(line, "; url {answer}");
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{deploy::Proof, ecs::TaskDefinitionArn, ping::Answer};

    const MINUTE: Duration = Duration::from_mins(1);

    fn board(services: usize) -> (Board, Instant) {
        let names: Vec<_> = (0..services).map(|number| format!("api-{number}")).collect();
        let mut board = Board::default();
        let parts = names.iter().map(|name| About::Service(name));
        board.begins(parts.clone(), &"ae30000".parse().expect("a Git SHA"));
        for part in parts {
            board.hear(part, &Event::Begins);
        }
        (board, Instant::now())
    }

    fn rows(board: &Board, height: usize, width: usize, now: Instant) -> Vec<String> {
        board.rows(height, width, false, now)
    }

    #[test]
    fn a_live_line_says_what_was_told() {
        let (mut board, _) = board(1);
        let arn = TaskDefinitionArn("task-definition/api:1".into());
        let begun = rows(&board, 24, 80, Instant::now());
        assert_eq!(begun, ["api-0: register; ae30000"]);
        let took = Duration::from_secs(1);
        board.hear(About::Service("api-0"), &Event::AwaitsTurn { phase: Phase::Update, took });
        let waiting = rows(&board, 24, 80, Instant::now());
        assert_eq!(waiting, ["api-0: update, waiting for its turn; ae30000"]);
        board.hear(About::Service("api-0"), &Event::TurnCame);
        assert_eq!(rows(&board, 24, 80, Instant::now()), ["api-0: update; ae30000"]);
        board.hear(About::Service("api-0"), &Event::Checking { proof: &Proof::Counts, timeout: MINUTE });
        let answer = Answer::Failed("answers 503".into());
        board.hear(About::Service("api-0"), &Event::UrlAnswered(&answer));
        let later = Instant::now() + MINUTE / 4;
        let checking = rows(&board, 24, 80, later);
        assert!(checking[0].starts_with("api-0: deploy check 15 s, 4"), "{checking:?}");
        assert!(checking[0].ends_with(" s left; ae30000; url answers 503"), "{checking:?}");
        board.hear(About::Service("api-0"), &Event::RollingBack { to: &arn, version: "01d0000" });
        board.hear(About::Service("api-0"), &Event::Draining { proof: &Proof::Counts, timeout: MINUTE });
        let back = rows(&board, 24, 80, Instant::now() + 2 * MINUTE);
        assert_eq!(back, ["api-0: rollback, drain check 2 min, 0 s left; 01d0000"]);
    }

    #[test]
    fn the_readme_shows_a_live_line_as_it_is() {
        let since = Instant::now();
        let progress = Progress {
            phase: Phase::DeployCheck,
            version: "ae30000".into(),
            wait: Some(Wait::Check { check: Phase::DeployCheck, since, limit: 5 * MINUTE }),
            tasks: Some((Tasks { running: 0, pending: 2, desired: 2 }, Tasks { running: 2, pending: 0, desired: 2 })),
            answer: Some("shows 01d0000".into()),
            ..Progress::default()
        };
        let line = progress.line(since + Duration::from_millis(12_500));
        assert!(include_str!("../../README.md").contains(&format!("```text\napi: {line}\n```")), "{line}");
    }

    #[test]
    fn more_services_than_fit_are_summed_up() {
        let (mut board, now) = board(30);
        board.hear(About::Service("api-29"), &Event::Checking { proof: &Proof::Counts, timeout: MINUTE });
        for (height, count, last) in [
            (100, 30, "api-29: deploy check 0 s"),
            (24, 12, "19 more: 18 register, 1 deploy check"),
            (3, 1, "30 services: 29 register, 1 deploy check"),
            (0, 1, "30 services: 29 register, 1 deploy check"),
        ] {
            let rows = rows(&board, height, 80, now);
            assert_eq!(rows.len(), count, "{height}: {rows:?}");
            assert!(rows[count - 1].starts_with(last), "{rows:?}");
        }
    }

    #[test]
    fn no_line_is_as_wide_as_the_screen() {
        let (board, now) = board(1);
        for (width, line) in [
            (80, "api-0: register; ae30000"),
            (25, "api-0: register; ae30000"),
            (24, "api-0: register; ae300…"),
            (20, "api-0: register; a…"),
            (6, "api-…"),
            (2, "…"),
        ] {
            assert_eq!(rows(&board, 24, width, now), [line]);
        }
        assert_eq!(board.rows(24, 20, true, now), ["\u{1b}[1mapi-0\u{1b}[0m: register; a…"]);
        assert_eq!(board.rows(24, 5, true, now), ["api…"]);
        let _ = (board.rows(24, 1, true, now), board.rows(24, 0, true, now));
    }
}
