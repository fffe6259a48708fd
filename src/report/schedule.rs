//! The words for scheduled tasks: what a rule has ECS run, and how its turn and its run ended.

use std::{fmt, time::Duration};

use tracing::Level;

use super::{Phase, events::Images};
use crate::{
    config::UpdateStrategy,
    deploy::{Cause, Job, PutBack, Schedule, ScheduleAttempt},
    ecs::TaskDefinitionArn,
    outcome::{EndedSchedule, ScheduleOutcome},
    text::{duration, excerpt},
};

/// Something that happens only to the rule of a scheduled task.
pub enum RuleEvent<'a> {
    /// What preflight found that it has ECS run.
    Runs(&'a Schedule<'a>),
    /// What a run that changes nothing found: what it would be brought to.
    WouldRun(&'a Schedule<'a>),
    /// What a run that changes nothing found: where a rollback would go.
    WouldReturn(&'a Schedule<'a>),
    /// Its turn has ended.
    Ended { attempt: &'a ScheduleAttempt, took: Duration },
    /// Its rollback is about to be requested.
    RollingBack(&'a [&'a Job]),
    /// One of its targets is left alone, because somebody else has changed it.
    LeavesTarget { id: &'a str, now: Option<&'a TaskDefinitionArn> },
    /// Its rollback has ended.
    RollbackEnded(&'a PutBack),
}

impl RuleEvent<'_> {
    /// The phase that it belongs to.
    pub fn phase(&self) -> Option<Phase> {
        match self {
            Self::Runs(_) | Self::WouldRun(_) | Self::WouldReturn(_) => Some(Phase::Preflight),
            Self::Ended { attempt: ScheduleAttempt::Updated(_), .. } => Some(Phase::Update),
            Self::Ended { .. } => None,
            Self::RollingBack(_) | Self::LeavesTarget { .. } | Self::RollbackEnded(_) => Some(Phase::Rollback),
        }
    }

    /// How loud it is told.
    pub fn level(&self) -> Level {
        match self {
            Self::Runs(_)
            | Self::WouldRun(_)
            | Self::WouldReturn(_)
            | Self::Ended { attempt: ScheduleAttempt::Updated(_) | ScheduleAttempt::UpToDate, .. } => Level::INFO,
            Self::Ended { .. } => Level::ERROR,
            Self::RollingBack(_) | Self::LeavesTarget { .. } => Level::WARN,
            Self::RollbackEnded(_) => Level::DEBUG,
        }
    }
}

impl fmt::Display for RuleEvent<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runs(schedule) if schedule.stays() => {
                write!(formatter, "stays as it is, as `updateStrategy: {}` says", name(schedule.task.update_strategy))
            }
            Self::Runs(schedule) => write!(formatter, "runs {}", previous(schedule)),
            Self::WouldRun(schedule) => write!(formatter, "would run {}", listed(schedule.jobs.iter().map(would))),
            Self::WouldReturn(schedule) => write!(formatter, "a rollback would go to {}", previous(schedule)),
            Self::Ended { attempt, took } => ended(formatter, attempt, &duration(*took)),
            Self::RollingBack(back) => write!(formatter, "rolling back to {}", runs(back.iter().copied())),
            Self::LeavesTarget { id, now } => write!(formatter, "{}; leaving it alone", changed(id, *now)),
            Self::RollbackEnded(PutBack::Proven) => formatter.write_str("the rollback is proven"),
            Self::RollbackEnded(_) => formatter.write_str("the rollback has ended"),
        }
    }
}

/// What a rule has ECS run before the run, with versions.
pub fn previous(schedule: &Schedule<'_>) -> String {
    runs(&schedule.jobs)
}

/// What these targets had ECS run before the run, with versions.
pub fn runs<'a>(jobs: impl IntoIterator<Item = &'a Job>) -> String {
    listed(jobs.into_iter().map(|job| format!("{} ({})", job.runs.arn, excerpt(&job.runs.version()))))
}

/// That somebody has changed a target, which names `now`.
fn changed(id: &str, now: Option<&TaskDefinitionArn>) -> String {
    match now {
        Some(now) => format!("somebody else has target `{}` run {} meanwhile", excerpt(id), excerpt(&now.to_string())),
        None => format!("somebody else has changed target `{}` meanwhile", excerpt(id)),
    }
}

/// What deploying would bring a target to.
fn would(job: &Job) -> String {
    match job.ready() {
        Some(ready) => format!("{}, whose images are at this version already", ready.arn),
        None => format!("a new revision of {}: {}", job.base().arn, Images(&job.changes)),
    }
}

/// How the turn of a rule ended, after `took`.
fn ended(formatter: &mut fmt::Formatter<'_>, attempt: &ScheduleAttempt, took: &str) -> fmt::Result {
    match attempt {
        ScheduleAttempt::Updated(to) => {
            write!(formatter, "updated in {took}: runs {} from now on; what runs already is left alone", arns(to))
        }
        ScheduleAttempt::UpToDate => write!(formatter, "runs this version already; nothing is to change"),
        ScheduleAttempt::Failed(why) => write!(formatter, "failed after {took}: {why}"),
        ScheduleAttempt::Superseded(now) => {
            write!(formatter, "somebody else has changed what the rule runs ({}); leaving it alone", arns(now))
        }
        ScheduleAttempt::Interrupted(Cause::Cancelled(by)) => write!(formatter, "cancelled by {by} after {took}"),
        ScheduleAttempt::Interrupted(cause) => write!(formatter, "given up after {took}, because {cause}"),
    }
}

fn name(strategy: UpdateStrategy) -> &'static str {
    match strategy {
        UpdateStrategy::Current => "current",
        UpdateStrategy::Latest => "latest",
        UpdateStrategy::Redeploy => "redeploy",
        UpdateStrategy::None => "none",
    }
}

/// `a`, `a and b`, `a, b and c`, each once.
fn listed(items: impl IntoIterator<Item = String>) -> String {
    let mut distinct: Vec<String> = Vec::new();
    for item in items {
        if !distinct.contains(&item) {
            distinct.push(item);
        }
    }
    match distinct.split_last() {
        None => "nothing".to_owned(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}

fn arns(arns: &[TaskDefinitionArn]) -> String {
    listed(arns.iter().map(|arn| excerpt(&arn.to_string())))
}

/// The last words about one rule. Shown as its last lines.
pub struct Conclusion<'a> {
    ended: &'a EndedSchedule,
    /// How it ended, what runs now and how long it took.
    pub headline: String,
    /// Why it ended so, where it doesn't run the version.
    pub why: Option<String>,
    /// What to type, where gehen could not go back itself.
    pub by_hand: Vec<String>,
}

impl<'a> Conclusion<'a> {
    /// What there is to say of `ended`.
    pub fn of(ended: &'a EndedSchedule) -> Self {
        Self {
            ended,
            headline: headline(ended),
            why: match &ended.outcome {
                ScheduleOutcome::PutBack { why, .. } | ScheduleOutcome::NotUpdated { why } => Some(why.clone()),
                ScheduleOutcome::Superseded => Some("somebody else has changed what it runs".to_owned()),
                ScheduleOutcome::NotReached => Some("the run ended before its turn".to_owned()),
                ScheduleOutcome::Updated(_)
                | ScheduleOutcome::UpToDate
                | ScheduleOutcome::Stays(_)
                | ScheduleOutcome::Follows(_) => None,
            },
            by_hand: match &ended.outcome {
                ScheduleOutcome::PutBack { back: PutBack::Failed(_), .. } => ended.ways_back.clone(),
                _ => Vec::new(),
            },
        }
    }

    /// The one word for it, which stays the same whatever becomes of the sentences.
    pub fn word(&self) -> &'static str {
        match &self.ended.outcome {
            ScheduleOutcome::Updated(_) => "deployed",
            ScheduleOutcome::UpToDate => "up_to_date",
            ScheduleOutcome::Stays(_) | ScheduleOutcome::Follows(_) => "left_as_it_is",
            ScheduleOutcome::PutBack { back, .. } => match back {
                PutBack::Proven => "rolled_back",
                PutBack::Requested => "rollback_requested",
                PutBack::Unchanged => "not_updated",
                PutBack::Superseded(_) | PutBack::Partly(_) => "superseded",
                PutBack::Failed(_) => "rollback_failed",
            },
            ScheduleOutcome::NotUpdated { .. } => "not_updated",
            ScheduleOutcome::Superseded => "superseded",
            ScheduleOutcome::NotReached => "not_touched",
        }
    }

    /// How bad it is.
    pub fn level(&self) -> Level {
        match self.ended.outcome {
            ScheduleOutcome::Updated(_) | ScheduleOutcome::UpToDate | ScheduleOutcome::Stays(_) => Level::INFO,
            ScheduleOutcome::Follows(_) | ScheduleOutcome::NotReached => Level::WARN,
            _ => Level::ERROR,
        }
    }

    /// What it runs now, in words.
    pub fn now(&self) -> String {
        now(self.ended)
    }

    /// The version of a task definition, where that is known.
    pub fn version_of(&self, arn: &TaskDefinitionArn) -> Option<String> {
        version_of(self.ended, arn)
    }
}

impl fmt::Display for Conclusion<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.headline)?;
        if let (Some(why), ScheduleOutcome::PutBack { .. } | ScheduleOutcome::NotUpdated { .. }) =
            (&self.why, &self.ended.outcome)
        {
            write!(formatter, "\nwhy: {why}")?;
        }
        self.by_hand.iter().try_for_each(|by_hand| write!(formatter, "\nto go back by hand: {by_hand}"))
    }
}

/// The first of the last lines.
fn headline(ended: &EndedSchedule) -> String {
    let EndedSchedule { outcome, before, version, took, .. } = ended;
    let (took, before) = (duration(*took), named(ended, before));
    let how = match outcome {
        ScheduleOutcome::Updated(to) => format!("DEPLOYED {version} as {} in {took}", arns(to)),
        ScheduleOutcome::UpToDate => format!("UP TO DATE: it ran {version} already"),
        ScheduleOutcome::Stays(strategy) => format!("NOT TOUCHED, as `updateStrategy: {}` says", name(*strategy)),
        ScheduleOutcome::Follows(strategy) => format!(
            "LEFT AS IT IS, as `updateStrategy: {}` says, but its family has got a new revision meanwhile",
            name(*strategy)
        ),
        ScheduleOutcome::PutBack { back, .. } => match back {
            PutBack::Proven => format!("ROLLED BACK to {before} in {took}, as was seen"),
            PutBack::Partly(left) => {
                let left = listed(left.iter().map(|(id, now)| changed(id, now.as_ref())));
                format!("ROLLED BACK IN PART in {took}, as was seen: {left}, which was left alone")
            }
            PutBack::Requested => {
                format!("ROLLBACK REQUESTED after {took}, not proven: EventBridge took {before} back")
            }
            PutBack::Unchanged => format!("NOT UPDATED after {took}: {before} stayed"),
            PutBack::Superseded(by) => {
                format!("FAILED after {took} and left alone: somebody else has it run {} meanwhile", arns(by))
            }
            PutBack::Failed(what) => format!("FAILED after {took}, AND THE ROLLBACK to {before} FAILED TOO: {what}"),
        },
        ScheduleOutcome::NotUpdated { .. } => format!("NOT UPDATED after {took}"),
        ScheduleOutcome::Superseded => format!("LEFT ALONE after {took}: somebody else has changed what it runs"),
        ScheduleOutcome::NotReached => "NOT TOUCHED: the run ended before its turn".to_owned(),
    };
    format!("{how}; {}", now(ended))
}

fn now(ended: &EndedSchedule) -> String {
    match &ended.last_look {
        Ok(now) => format!("now runs {}", named(ended, now)),
        Err(why) => format!("what it runs now is not known: {}", excerpt(why)),
    }
}

/// The newest revision of `family` at the end of the run, if that is known.
fn newest<'a>(ended: &'a EndedSchedule, family: &TaskDefinitionArn) -> Option<&'a TaskDefinitionArn> {
    ended.newest.iter().find(|(known, _)| known == family).map(|(_, newest)| newest)
}

fn version_of(ended: &EndedSchedule, arn: &TaskDefinitionArn) -> Option<String> {
    let arn = newest(ended, arn).unwrap_or(arn);
    ended.known.iter().find(|(known, _)| known == arn).map(|(_, version)| excerpt(version))
}

/// Task definitions, with their versions where these are known.
fn named(ended: &EndedSchedule, arns: &[TaskDefinitionArn]) -> String {
    let revision = |arn: &TaskDefinitionArn| match version_of(ended, arn) {
        Some(version) => format!("{} ({version})", excerpt(&arn.to_string())),
        None => excerpt(&arn.to_string()),
    };
    let named = |arn: &TaskDefinitionArn| match newest(ended, arn) {
        _ if arn.names_revision() => revision(arn),
        Some(newest) => format!("{}, the newest revision of its family", revision(newest)),
        None => format!("the newest revision of {}, and which that is could not be told", excerpt(&arn.to_string())),
    };
    listed(arns.iter().map(named))
}
