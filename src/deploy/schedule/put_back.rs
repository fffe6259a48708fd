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
    report::RuleEvent,
    signals::Cancel,
    text::excerpt,
};

/// How a rule went back.
#[derive(Debug)]
pub enum PutBack {
    /// It was seen to run what it ran.
    Proven,
    /// That was requested, and a signal ended the run before it was seen.
    Requested,
    /// It never left what it ran.
    Unchanged,
    /// Somebody else has changed it, and it was left alone; it runs this now.
    Superseded(Vec<TaskDefinitionArn>),
    /// It could not be done or was not seen, and why.
    Failed(String),
}

/// What is to be done about a rule, by one look at its targets.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Put it back.
    PutBack,
    /// It names what it named: nothing of ours is seen.
    Unchanged,
    /// It names what it named, but that is a family, whose newest revision decides.
    AskFamily,
    /// Leave it alone: somebody else has changed what was put.
    Leave,
}

/// Decides by what is `seen` of the rule, to which `after` was put, or was about to be.
fn decide<'a>(jobs: impl Iterator<Item = &'a Job>, after: &[Target], seen: &[Target]) -> Step {
    let (mut is_ours, mut is_changed, mut asks) = (false, false, false);
    for job in jobs {
        let has = |wanted: &Target| seen.contains(wanted);
        if after.iter().any(|put| put.id() == job.target.id() && has(put)) {
            is_ours = true;
        } else if has(&job.back()) {
        } else if has(&job.target) {
            asks = true;
        } else {
            is_changed = true;
        }
    }
    match (is_ours, is_changed) {
        (_, true) if !after.is_empty() => Step::Leave,
        (true, _) => Step::PutBack,
        _ if asks => Step::AskFamily,
        _ => Step::Unchanged,
    }
}

/// Puts the rule of `schedule` back and sees it there, if anything of this run changed what it runs. A signal doesn't stop
/// the request; it ends the proof. What is `proven` may go on where a family is followed. None where nothing of this run
/// can have changed it.
pub async fn put_back(
    clients: &Clients<'_>,
    schedule: &Schedule<'_>,
    written: Option<&Written>,
    proven: &[TaskDefinitionArn],
    cancel: &Cancel,
) -> Option<PutBack> {
    if written.is_none() && !schedule.follows_its_family() {
        return None;
    }
    let after = written.map(|written| &*written.after).unwrap_or_default();
    match decided(clients, schedule, written, proven, cancel).await {
        Ok(()) => {}
        Err(ended) => return Some(ended),
    }
    schedule.tell(RuleEvent::RollingBack(schedule));
    let back: Vec<_> = schedule.to_change().map(Job::back).collect();
    let before: Vec<_> = schedule.to_change().map(|job| &job.target).chain(after).cloned().collect();
    let ended = |not_put| match not_put {
        NotPut::Refused(error) | NotPut::Unclear(error) => PutBack::Failed(excerpt(&error.to_string())),
        NotPut::Superseded(now) => PutBack::Superseded(now),
    };
    if let Err(not_put) = send(clients, schedule, &before, &back, PATIENCE).await {
        return Some(ended(not_put));
    }
    Some(tokio::select! {
        biased;
        _ = cancel.cancelled() => PutBack::Requested,
        seen = see(clients, schedule, &before, &back) => seen.map_or_else(ended, |()| PutBack::Proven),
    })
}

/// Looks until it is clear that the rule is to be put back; otherwise gives how it ended.
async fn decided(
    clients: &Clients<'_>,
    schedule: &Schedule<'_>,
    written: Option<&Written>,
    proven: &[TaskDefinitionArn],
    cancel: &Cancel,
) -> Result<(), PutBack> {
    let Schedule { task, region, .. } = schedule;
    let after = written.map(|written| &*written.after).unwrap_or_default();
    let answer = written.map_or(Answer::No, |written| written.answer);
    let since = Instant::now();
    let mut last_error = None;
    let mut backoff = Backoff::default();
    let decided = poll::until(since + PATIENCE, async || {
        let look = async {
            let seen = clients.events.targets(region, task).await?;
            Ok::<_, Error>(match decide(schedule.to_change(), after, &seen) {
                Step::AskFamily if runs_new_revision(clients, schedule, proven).await? => (Step::PutBack, seen),
                Step::AskFamily => (Step::Unchanged, seen),
                step => (step, seen),
            })
        };
        match look.await {
            Err(error) => {
                last_error = Some(error);
                ControlFlow::Continue(backoff.pause())
            }
            Ok((Step::PutBack, _)) => ControlFlow::Break(Ok(())),
            Ok((Step::Leave, seen)) => ControlFlow::Break(Err(PutBack::Superseded(running(&seen)))),
            Ok(_) => match (answer, since.elapsed()) {
                (Answer::No, _) => ControlFlow::Break(Err(PutBack::Unchanged)),
                // A run that is cancelled has no time for looks to catch up.
                (Answer::Yes, waited) if waited >= READS_MAY_BE_STALE || (cancel.is_cancelled() && waited >= PACE) => {
                    ControlFlow::Break(Ok(()))
                }
                // What would be put back now, a write that comes late would undo.
                (Answer::Awaited, waited) if waited >= READS_MAY_BE_STALE => {
                    ControlFlow::Break(Err(PutBack::Unchanged))
                }
                (Answer::Yes | Answer::Awaited, _) => ControlFlow::Continue(PACE / 4),
            },
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

/// Whether a target that names a family runs a revision that is new, at the version of this run and not `proven`: one that
/// this run has registered, for the rule or for a service.
async fn runs_new_revision(
    clients: &Clients<'_>,
    schedule: &Schedule<'_>,
    proven: &[TaskDefinitionArn],
) -> Result<bool, Error> {
    for job in schedule.to_change().filter(|job| !job.names.names_revision()) {
        let newest = clients.ecs.newest_of_family_in(&schedule.region, &job.names).await?;
        let newest = newest.choosing(schedule.task.containers.as_deref());
        let is_at_version = newest.changes(schedule.version).iter().all(|change| change.from == change.to);
        if newest.arn != job.runs.arn && is_at_version && !proven.contains(&newest.arn) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use serde_json::json;

    use super::*;
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
    fn a_rule_is_put_back_only_from_what_was_put() {
        let jobs = [job("a", "a:1"), job("b", "b")];
        let (a, b) = (|names| target("a", names), |names| target("b", names));
        let both = [a("a:2"), b("b:2")];
        for (after, seen, step) in [
            (&both[..], vec![a("a:2"), b("b:2")], Step::PutBack),
            (&both, vec![a("a:1"), b("b:2")], Step::PutBack),
            (&both, vec![a("a:2"), b("b")], Step::PutBack),
            (&both, vec![a("a:1"), b("b")], Step::AskFamily),
            (&both, vec![a("a:1"), b("b:1")], Step::Unchanged),
            (&both, vec![a("a:2"), b("b:9")], Step::Leave),
            (&both, vec![a("a:9"), b("b")], Step::Leave),
            (&both, vec![a("a:2")], Step::Leave),
            (&both, vec![target("a", "a:2"), b("b:2"), target("c", "c:1")], Step::PutBack),
            (&[], vec![a("a:1"), b("b")], Step::AskFamily),
            (&[], vec![a("a:9"), b("b:9")], Step::Unchanged),
        ] {
            assert_eq!(decide(jobs.iter(), after, &seen), step);
        }
    }
}
