//! Puts a rule back to what it ran, unless somebody else has changed it.

use std::ops::ControlFlow;

use tokio::time::Instant;

use super::{Answer, Job, NotPut, Schedule, Written, running, see, send};
use crate::{
    aws::Error,
    deploy::{Clients, PATIENCE, update::READS_MAY_BE_STALE},
    ecs::TaskDefinitionArn,
    eventbridge::Target,
    poll::{self, Backoff, PACE},
    report::{Event, RuleEvent},
    signals::Cancel,
    text::excerpt,
};

/// How a rule went back.
#[derive(Debug)]
pub enum PutBack {
    /// It was seen to run what it ran.
    Proven,
    /// As proven, but for these targets, which somebody else has changed.
    Partly(Vec<Left>),
    /// That was requested, and a signal ended the run before it was seen.
    Requested,
    /// It never left what it ran.
    Unchanged,
    /// Somebody else has changed it, and it was left alone; it runs this now.
    Superseded(Vec<TaskDefinitionArn>),
    /// It could not be done or was not seen, and why.
    Failed(String),
}

/// What one look shows of a target that this run was to change.
#[derive(Debug, PartialEq, Eq)]
enum Shown {
    /// What was put.
    Ours,
    /// What it named before, or what it is put back to.
    Before,
    /// What it named before, but that is a family, whose newest revision decides.
    Family,
    /// Something else: somebody has changed it.
    Changed,
}

/// What is `seen` of the target of `job`, where `after` was put, or was about to be.
fn shown(job: &Job, after: &[Target], seen: &[Target]) -> Shown {
    if after.iter().any(|put| put.id() == job.target.id() && seen.contains(put)) {
        Shown::Ours
    } else if seen.contains(&job.back()) {
        Shown::Before
    } else if seen.contains(&job.target) {
        Shown::Family
    } else {
        Shown::Changed
    }
}

/// A target that somebody else has changed, by its id, and what it names now; nothing where it is gone.
pub type Left = (String, Option<TaskDefinitionArn>);

/// What is to be done about a rule, by one look at its targets.
struct Decision<'a> {
    /// Whether anything of this run is seen to run.
    is_due: bool,
    /// The targets to put back.
    back: Vec<&'a Job>,
    /// Those that are left alone.
    left: Vec<Left>,
    /// All of them.
    seen: Vec<Target>,
}

impl Decision<'_> {
    /// How the rule ended where nothing is put back.
    fn nothing(&self, after: &[Target]) -> PutBack {
        if self.left.is_empty() || after.is_empty() {
            PutBack::Unchanged
        } else {
            PutBack::Superseded(running(&self.seen))
        }
    }
}

/// What is known, when rules go back, of the revisions that were registered in the run.
#[derive(Default)]
pub struct Families {
    /// Those that were proven, which may go on where a family is followed.
    pub proven: Vec<TaskDefinitionArn>,
    /// The families in which one may still appear, because a registration has not been answered, with their regions.
    pub unanswered: Vec<(String, String)>,
}

impl Families {
    fn may_come_for(&self, schedule: &Schedule<'_>) -> bool {
        let mut followed = schedule.to_change().filter(|job| !job.names.names_revision());
        followed.any(|job| {
            let is_it =
                |(region, family): &(String, String)| *region == schedule.region && family == job.names.family();
            self.unanswered.iter().any(is_it)
        })
    }
}

/// Puts the rule of `schedule` back and sees it there, if anything of this run changed what it runs. A signal doesn't
/// stop the request; it ends the proof. None where nothing of this run can have changed it.
pub async fn put_back(
    clients: &Clients<'_>,
    schedule: &Schedule<'_>,
    written: Option<&Written>,
    families: &Families,
    cancel: &Cancel,
) -> Option<PutBack> {
    if written.is_none() && !schedule.follows_its_family() {
        return None;
    }
    let after = written.map(|written| &*written.after).unwrap_or_default();
    let Decision { back: jobs, left, .. } = match decided(clients, schedule, written, families, cancel).await {
        Ok(decision) => decision,
        Err(ended) => return Some(ended),
    };
    for (id, now) in &left {
        schedule.tell(RuleEvent::LeavesTarget { id, now: now.as_ref() });
    }
    schedule.tell(RuleEvent::RollingBack(&jobs));
    let back: Vec<_> = jobs.iter().map(|job| job.back()).collect();
    let before: Vec<_> = jobs.iter().map(|job| &job.target).chain(after).cloned().collect();
    let ended = |not_put| match not_put {
        NotPut::Refused(error) | NotPut::Unclear(error) => PutBack::Failed(excerpt(&error.to_string())),
        NotPut::Superseded(now) => PutBack::Superseded(now),
    };
    if let Err(not_put) = send(clients, schedule, &before, &back, PATIENCE).await {
        return Some(ended(not_put));
    }
    let proven = if left.is_empty() { PutBack::Proven } else { PutBack::Partly(left) };
    Some(tokio::select! {
        biased;
        _ = cancel.cancelled() => PutBack::Requested,
        seen = see(clients, schedule, &before, &back) => seen.map_or_else(ended, |()| proven),
    })
}

/// Looks until it is clear what is to be put back; otherwise gives how it ended.
async fn decided<'a>(
    clients: &Clients<'_>,
    schedule: &'a Schedule<'_>,
    written: Option<&Written>,
    families: &Families,
    cancel: &Cancel,
) -> Result<Decision<'a>, PutBack> {
    let after = written.map(|written| &*written.after).unwrap_or_default();
    let answer = match written.map_or(Answer::No, |written| written.answer) {
        Answer::No if families.may_come_for(schedule) => Answer::Awaited,
        answer => answer,
    };
    let since = Instant::now();
    let mut last_error = None;
    let mut backoff = Backoff::default();
    let decided = poll::until(since + PATIENCE, async || {
        let decision = match decide(clients, schedule, after, &families.proven).await {
            Ok(decision) => decision,
            Err(error) => {
                if last_error.is_none() {
                    schedule.say(&Event::TriesAgain { error: &excerpt(&error.to_string()), limit: PATIENCE });
                }
                last_error = Some(error);
                return ControlFlow::Continue(backoff.pause());
            }
        };
        if decision.is_due {
            return ControlFlow::Break(Ok(decision));
        }
        // A run that is cancelled has no time for looks to catch up, but where what would be put back now, a write that
        // comes late would undo.
        let is_short = cancel.is_cancelled() && (answer == Answer::Yes || after.is_empty());
        let has_waited = since.elapsed() >= if is_short { PACE } else { READS_MAY_BE_STALE };
        match answer {
            Answer::Yes if has_waited && !decision.back.is_empty() => ControlFlow::Break(Ok(decision)),
            Answer::Yes | Answer::Awaited if !has_waited => ControlFlow::Continue(PACE / 4),
            Answer::Yes | Answer::Awaited | Answer::No => ControlFlow::Break(Err(decision.nothing(after))),
        }
    });
    let decided = decided.await;
    decided.unwrap_or_else(|| {
        Err(PutBack::Failed(match last_error {
            Some(error) => format!("EventBridge could not be asked: {}", error.in_short()),
            None => "EventBridge gave no answer".to_owned(),
        }))
    })
}

/// Decides by one look at the rule and at the families that its targets name.
async fn decide<'a>(
    clients: &Clients<'_>,
    schedule: &'a Schedule<'_>,
    after: &[Target],
    proven: &[TaskDefinitionArn],
) -> Result<Decision<'a>, Error> {
    let seen = clients.events.targets(&schedule.region, schedule.task).await?;
    let jobs: Vec<_> = schedule.to_change().map(|job| (job, shown(job, after, &seen))).collect();
    let mut is_due = jobs.iter().any(|(_, shown)| *shown == Shown::Ours);
    let (mut back, mut left) = (Vec::new(), Vec::new());
    for (job, shown) in jobs {
        let is_new = shown == Shown::Family
            && (after.is_empty() || !is_due)
            && runs_new_revision(clients, schedule, job, proven).await?;
        is_due |= is_new;
        if shown == Shown::Changed {
            let now = seen.iter().find(|target| target.id() == job.target.id()).and_then(Target::task_definition);
            left.push((job.target.id().to_owned(), now));
        } else if is_new || !after.is_empty() {
            back.push(job);
        }
    }
    Ok(Decision { is_due, back, left, seen })
}

/// Whether the target of `job`, which names a family, runs a revision that is new, at the version of this run and not
/// `proven`: one that this run has registered, for the rule or for a service.
async fn runs_new_revision(
    clients: &Clients<'_>,
    schedule: &Schedule<'_>,
    job: &Job,
    proven: &[TaskDefinitionArn],
) -> Result<bool, Error> {
    let newest = clients.ecs.newest_of_family_in(&schedule.region, &job.names).await?;
    let newest = newest.choosing(schedule.task.containers.as_deref());
    let is_at_version = newest.changes(schedule.version).iter().all(|change| change.from == change.to);
    Ok(newest.arn != job.runs.arn && is_at_version && !proven.contains(&newest.arn))
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use serde_json::json;

    use super::{
        Shown::{Before, Changed, Family, Ours},
        *,
    };
    use crate::{ecs::TaskDefinition, eventbridge::tests::target};

    /// A target that names `names`, where revision 1 of the family runs.
    fn job(id: &str, names: &str) -> Job {
        let described = json!({"taskDefinition": {"taskDefinitionArn": format!("{id}:1")}}).to_string();
        Job {
            target: target(id, names),
            names: TaskDefinitionArn(names.into()),
            runs: Rc::new(TaskDefinition::from_answer(described.as_bytes()).expect("it has an ARN")),
            newest: None,
            changes: Vec::new(),
        }
    }

    #[test]
    fn each_target_is_told_apart_by_what_was_put() {
        let jobs = [job("a", "a:1"), job("b", "b")];
        let (a, b) = (|names| target("a", names), |names| target("b", names));
        let both = [a("a:2"), b("b:2")];
        for (after, seen, expected) in [
            (&both[..], vec![a("a:2"), b("b:2")], [Ours, Ours]),
            (&both, vec![a("a:1"), b("b:2")], [Before, Ours]),
            (&both, vec![a("a:2"), b("b")], [Ours, Family]),
            (&both, vec![a("a:1"), b("b:1")], [Before, Before]),
            (&both, vec![a("a:2"), b("b:9")], [Ours, Changed]),
            (&both, vec![a("a:9"), b("b")], [Changed, Family]),
            (&both, vec![a("a:2")], [Ours, Changed]),
            (&both, vec![a("a:2"), b("b:2"), target("c", "c:1")], [Ours, Ours]),
            (&[], vec![a("a:1"), b("b")], [Before, Family]),
            (&[], vec![a("a:2"), b("b:9")], [Changed, Changed]),
        ] {
            assert_eq!(jobs.each_ref().map(|job| shown(job, after, &seen)), expected);
        }
    }
}
