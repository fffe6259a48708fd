//! How a service ended: the words of its last lines, which must be enough for somebody who reads nothing else.

use std::fmt;

use tracing::Level;

use super::{Event, events::Who};
use crate::{
    config::UpdateStrategy,
    deploy::{Returned, RolledBack},
    ecs::{Look, SeenDeployment, TaskDefinitionArn},
    git_sha::GitSha,
    outcome::{Ended, Outcome},
    text::{counted, duration, excerpt},
};

/// The last words about one service. Shown as its last lines.
pub struct Conclusion<'a> {
    ended: &'a Ended,
    /// How it ended, what runs now and how long it took.
    pub headline: String,
    /// Why it ended so, where it isn't live and alone.
    pub why: Option<String>,
    /// What to type, where gehen could not go back itself.
    pub by_hand: Option<String>,
    /// What somebody else should be told.
    pub warnings: Vec<String>,
}

/// What runs of one task definition at the end.
pub struct Runs<'a> {
    /// The task definition.
    pub task_definition: &'a TaskDefinitionArn,
    /// Its version, where that is known.
    pub version: Option<String>,
    /// How many tasks of it are running.
    pub tasks: usize,
}

impl<'a> Conclusion<'a> {
    /// What there is to say of `ended`.
    pub fn of(ended: &'a Ended) -> Self {
        let way_back = &ended.way_back;
        Self {
            ended,
            headline: Headline(ended).to_string(),
            why: match &ended.outcome {
                Outcome::Deployed { .. } => None,
                Outcome::Undetermined { remaining: why, .. }
                | Outcome::RolledBack { why, .. }
                | Outcome::Kept { why, .. }
                | Outcome::NotUpdated { why }
                | Outcome::NotProven { why } => Some(why.to_string()),
                Outcome::Superseded(by) => Some(format!("{} meanwhile", Who(by))),
                Outcome::NotReached => Some("the run ended before its turn".to_owned()),
            },
            by_hand: match &ended.outcome {
                Outcome::RolledBack { rollback: RolledBack::Failed(_), .. } => {
                    Some(format!("to go back by hand: {way_back}"))
                }
                Outcome::RolledBack { rollback: RolledBack::NothingToReturnTo(_), .. } | Outcome::Kept { .. } => {
                    Some(format!("to deploy another revision, name it in: {way_back}"))
                }
                _ => None,
            },
            warnings: ended.displaced.iter().map(|other| Event::Displaced(other).to_string()).collect(),
        }
    }

    /// The one word for it, which stays the same whatever becomes of the sentences.
    pub fn word(&self) -> &'static str {
        match &self.ended.outcome {
            Outcome::Deployed { .. } if self.ended.update_strategy == UpdateStrategy::None => "found_live",
            Outcome::Deployed { .. } => "deployed",
            Outcome::Undetermined { .. } => "undetermined",
            Outcome::RolledBack { rollback, .. } => match rollback {
                RolledBack::Proven(_) | RolledBack::NotDrained(..) => "rolled_back",
                RolledBack::Requested(_) => "rollback_requested",
                RolledBack::Unchanged => "not_updated",
                RolledBack::NothingToReturnTo(_) => "failed",
                RolledBack::Superseded(_) => "superseded",
                RolledBack::Failed(_) => "rollback_failed",
            },
            Outcome::Kept { .. } => "kept",
            Outcome::NotUpdated { .. } => "not_updated",
            Outcome::NotProven { .. } => "not_proven",
            Outcome::Superseded(_) => "superseded",
            Outcome::NotReached => "not_touched",
        }
    }

    /// How bad it is.
    pub fn level(&self) -> Level {
        match self.ended.outcome {
            Outcome::Deployed { .. } => Level::INFO,
            Outcome::Undetermined { .. } | Outcome::NotReached => Level::WARN,
            _ => Level::ERROR,
        }
    }

    /// What a rollback returned to, if one did or was asked to.
    pub fn returned_to(&self) -> Option<&'a TaskDefinitionArn> {
        match &self.ended.outcome {
            Outcome::RolledBack {
                rollback: RolledBack::Proven(to) | RolledBack::NotDrained(to, _) | RolledBack::Requested(to),
                ..
            } => Some(&to.to),
            _ => None,
        }
    }

    /// What the last look showed to run, or why there was none.
    pub fn running(&self) -> Result<Vec<Runs<'a>>, &'a str> {
        running(self.ended)
    }

    /// What runs now, in words.
    pub fn now(&self) -> String {
        now(self.ended)
    }
}

impl fmt::Display for Conclusion<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.headline)?;
        match (&self.why, &self.ended.outcome) {
            (None, _) | (_, Outcome::Superseded(_) | Outcome::NotReached) => {} // The headline says it.
            (Some(why), _) => write!(formatter, "\nwhy: {why}")?,
        }
        if let Some(by_hand) = &self.by_hand {
            write!(formatter, "\n{by_hand}")?;
        }
        self.warnings.iter().try_for_each(|warning| write!(formatter, "\nwarning: {warning}"))
    }
}

/// Whether `look` shows that tasks that ran before the run are on their way out: their deployment is listed until the last
/// has ended (API_Deployment), and none of them is counted any more.
fn are_leaving(ended: &Ended, look: &Look) -> bool {
    let is_before = |other: &SeenDeployment| {
        ended.known.first().is_some_and(|(running, _)| *running == other.task_definition)
            && (other.running, other.pending) == (0, 0)
    };
    ended.had_tasks && look.desired > 0 && look.others.iter().any(is_before)
}

/// The first of the last lines.
struct Headline<'a>(&'a Ended);

impl fmt::Display for Headline<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ended { outcome, last_look, known, took, update_strategy, .. } = self.0;
        let (took, now) = (duration(*took), now(self.0));
        match outcome {
            Outcome::Deployed { task_definition, version } => {
                let done = match update_strategy {
                    UpdateStrategy::Current | UpdateStrategy::Latest => "DEPLOYED",
                    UpdateStrategy::Redeploy => "DEPLOYED ANEW:",
                    UpdateStrategy::None => "FOUND LIVE:",
                };
                write!(formatter, "{done} {} in {took}; {now}", Live(version.as_ref(), task_definition))?;
                match last_look {
                    Ok(look) if are_leaving(self.0, look) => {
                        let delay =
                            if look.load_balanced { ", for the load balancer's deregistration delay" } else { "" };
                        write!(formatter, "; old tasks are out of reach and still ending{delay}")
                    }
                    _ => Ok(()),
                }
            }
            Outcome::Undetermined { task_definition, version, .. } => write!(
                formatter,
                "LIVE, BUT NOT DRAINED after {took}: {}, and the time for the old version to go ran out; {now}",
                match version {
                    Some(version) => format!("{version} was seen live as {task_definition}"),
                    None => format!("{task_definition} was seen live"),
                }
            ),
            Outcome::RolledBack { rollback, .. } => {
                match rollback {
                    RolledBack::Proven(to) => {
                        write!(formatter, "ROLLED BACK to {} in {took}, proven live again", returned(self.0, to))
                    }
                    RolledBack::NotDrained(to, what) => {
                        let to = returned(self.0, to);
                        write!(formatter, "ROLLED BACK to {to} in {took}, live again but not drained: {what}")
                    }
                    RolledBack::Requested(to) => {
                        let to = returned(self.0, to);
                        write!(formatter, "ROLLBACK REQUESTED after {took}, not proven: ECS is putting {to} back")
                    }
                    RolledBack::Unchanged => {
                        let before = known.first().map(|(before, _)| named(self.0, before)).unwrap_or_default();
                        write!(formatter, "NOT UPDATED after {took}: the update did not happen, {before} stayed")
                    }
                    RolledBack::NothingToReturnTo(why) => {
                        write!(formatter, "FAILED after {took}, WITH NOTHING TO RETURN TO: {why}")
                    }
                    RolledBack::Superseded(by) => {
                        write!(formatter, "FAILED after {took} and left alone: {} meanwhile", Who(by))
                    }
                    RolledBack::Failed(what) => {
                        let good = known.last().map(|(good, _)| named(self.0, good)).unwrap_or_default();
                        write!(formatter, "FAILED after {took}, AND THE ROLLBACK to {good} FAILED TOO: {what}")
                    }
                }?;
                write!(formatter, "; {now}")
            }
            Outcome::Kept { task_definition, version, nothing, .. } => write!(
                formatter,
                "NOT ROLLED BACK after {took}: {} stays live{}: there is nothing to return to ({nothing}); {now}",
                version.as_ref().map_or_else(|| task_definition.to_string(), ToString::to_string),
                version.as_ref().map_or_else(String::new, |_| format!(" as {task_definition}")),
            ),
            Outcome::NotUpdated { .. } => write!(formatter, "NOT UPDATED after {took}; {now}"),
            Outcome::NotProven { .. } => {
                write!(formatter, "NOT PROVEN LIVE after {took}, and nothing was changed; {now}")
            }
            Outcome::Superseded(by) => write!(formatter, "LEFT ALONE after {took}: {} meanwhile; {now}", Who(by)),
            Outcome::NotReached => write!(formatter, "NOT TOUCHED: the run ended before its turn; {now}"),
        }
    }
}

/// What is live: the version, where anything names one, and the task definition.
struct Live<'a>(Option<&'a GitSha>, &'a TaskDefinitionArn);

impl fmt::Display for Live<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self(Some(version), task_definition) => write!(formatter, "{version} as {task_definition}"),
            Self(None, task_definition) => task_definition.fmt(formatter),
        }
    }
}

/// The version of a task definition, where that is known.
fn version_of(ended: &Ended, task_definition: &TaskDefinitionArn) -> Option<String> {
    match ended.known.iter().find(|(known, _)| known == task_definition) {
        Some((_, version)) => Some(excerpt(version)),
        None => (ended.updated_to.as_ref() == Some(task_definition)).then(|| ended.version.to_string()),
    }
}

/// A task definition, with its version where that is known.
fn named(ended: &Ended, task_definition: &TaskDefinitionArn) -> String {
    match version_of(ended, task_definition) {
        Some(version) => format!("{task_definition} ({version})"),
        None => task_definition.to_string(),
    }
}

/// What a service returned to.
fn returned(ended: &Ended, Returned { to, copy_of }: &Returned) -> String {
    match copy_of {
        Some(original) => format!("{to}, a copy of {}", named(ended, original)),
        None => named(ended, to),
    }
}

fn running(ended: &Ended) -> Result<Vec<Runs<'_>>, &str> {
    let mut running: Vec<Runs<'_>> = Vec::new();
    for seen in
        ended.last_look.as_ref().map_err(String::as_str)?.deployments().filter(|deployment| deployment.running > 0)
    {
        match running.iter_mut().find(|runs| *runs.task_definition == seen.task_definition) {
            Some(runs) => runs.tasks += seen.running,
            None => running.push(Runs {
                task_definition: &seen.task_definition,
                version: version_of(ended, &seen.task_definition),
                tasks: seen.running,
            }),
        }
    }
    Ok(running)
}

fn now(ended: &Ended) -> String {
    let running = match running(ended) {
        Ok(running) => running,
        Err(why) => return format!("what runs now is not known: {}", excerpt(why)),
    };
    let named = |runs: &Runs<'_>| format!("{} of {}", counted(runs.tasks, "task"), named(ended, runs.task_definition));
    let running: Vec<_> = running.iter().map(named).collect();
    match (running.is_empty(), &ended.last_look) {
        (true, Ok(look)) => format!("now no task runs; {} is to run", look.primary.task_definition),
        _ => format!("now run {}", running.join(" and ")),
    }
}
