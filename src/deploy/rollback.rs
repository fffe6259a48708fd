//! Rollback: puts a service back to what its snapshot says, unless ECS does so itself or somebody else has taken over.

use std::ops::ControlFlow;

use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use super::{
    Clients,
    check::Proof,
    drain::Old,
    preflight::Snapshot,
    prove::{Proven, prove},
    standing::{Deployment, Replacement, Standing, judge},
    update::{NotUpdated, READS_MAY_BE_STALE, Since, since, update},
};
use crate::{
    ecs::{DeploymentId, Error, Look, SeenDeployment, TaskDefinitionArn},
    poll::{self, PACE},
    report::{self, Event},
    signals::Cancel,
    text::excerpt,
};

/// An update that was sent in this run.
pub struct Sent {
    /// What the service was updated to.
    pub task_definition: TaskDefinitionArn,
    /// The deployments that were there before.
    pub before: Vec<DeploymentId>,
    /// What will prove that the previous version is live again.
    pub proof_of_previous: Proof,
    /// What the update started; none while its answer is awaited, or if it was lost and has not been seen since.
    pub deployment: Option<Deployment>,
}

/// How a rollback ended.
#[derive(Debug)]
pub enum RolledBack {
    /// This task definition was proven live.
    Proven(TaskDefinitionArn),
    /// This task definition is live, but the one rolled back was not seen to be gone, and why.
    NotDrained(TaskDefinitionArn, String),
    /// This task definition was requested, and a signal ended the run before it was proven.
    Requested(TaskDefinitionArn),
    /// The service never left the previous version: the update had not happened.
    Unchanged,
    /// There is nothing to return to: the update was to what ran before.
    NothingToReturnTo,
    /// Somebody else's deployment has taken over and was left alone.
    Superseded(Replacement),
    /// It could not be done or not be proven, and why.
    Failed(String),
}

/// What is to be done about one service, by one look at it.
#[derive(Debug)]
enum Step {
    /// Request the rollback.
    Request,
    /// The service goes back without our doing; whether ECS says that it is its own.
    Adopt(Deployment, bool),
    /// This look shows nothing that began after our update was sent: it is from before, or the update didn't happen.
    Wait,
    /// Leave the service alone.
    Leave(Replacement),
}

/// A rollback's place in the order of requests: the services that were updated last go back first.
#[derive(Default)]
pub struct Place {
    /// Resolves once the newer service's rollback has been requested, or will not be.
    newer: Option<oneshot::Receiver<()>>,
    /// Dropped to let the older service's rollback go on.
    older: Option<oneshot::Sender<()>>,
}

impl Place {
    /// The place after the newest one, and so on: one behind `newer`.
    pub fn behind(newer: &mut Self) -> Self {
        let (sender, receiver) = oneshot::channel();
        newer.older = Some(sender);
        Self { newer: Some(receiver), older: None }
    }

    /// Waits for this place's turn, but no longer than a second: one service that ECS is slow to describe must not keep
    /// the others from going back.
    async fn turn(self) {
        if let Some(newer) = self.newer {
            let _ = timeout(PACE, newer).await;
        }
    }
}

/// Rolls one service back and proves it. A signal doesn't stop the request; it ends the proof.
pub async fn roll_back(
    clients: &Clients,
    snapshot: &Snapshot<'_>,
    sent: &Sent,
    place: Place,
    cancel: &Cancel,
) -> RolledBack {
    if sent.task_definition == *snapshot.previous() {
        return RolledBack::NothingToReturnTo;
    }
    let returning = match request(clients, snapshot, sent, place).await {
        Ok(returning) => returning,
        Err(ended) => return ended,
    };
    // What ECS itself returns to may be older than what ran before, and may name another version.
    let proof =
        if returning.task_definition == *snapshot.previous() { &sent.proof_of_previous } else { &Proof::Counts };
    let proven = tokio::select! {
        biased;
        _ = cancel.cancelled() => return RolledBack::Requested(returning.task_definition),
        proven = prove(clients, snapshot.service, &returning, proof, Old::OtherTaskDefinitions) => proven,
    };
    match proven {
        Proven::Complete { .. } => RolledBack::Proven(returning.task_definition),
        Proven::NotDrained(remaining) => RolledBack::NotDrained(returning.task_definition, remaining),
        Proven::Failed(why) => RolledBack::Failed(why),
        Proven::Replaced(replacement) => replaced(replacement),
    }
}

/// Brings the deployment of the previous task definition about, or says why there is none.
async fn request(
    clients: &Clients,
    snapshot: &Snapshot<'_>,
    sent: &Sent,
    place: Place,
) -> Result<Deployment, RolledBack> {
    let service = snapshot.service;
    let previous = snapshot.previous();
    let mut last_error: Option<Error> = None;
    let mut unchanged_since: Option<Instant> = None;
    // Where the update's answer was lost, it takes so long until a look can rule it out.
    let patience =
        if sent.deployment.is_some() { service.timeout } else { service.timeout.max(2 * READS_MAY_BE_STALE) };
    let decided = poll::until(Instant::now() + patience, async || {
        let look = match clients.ecs.look(service).await {
            Ok(look) => look,
            Err(error) => {
                last_error = Some(error);
                return ControlFlow::Continue(PACE);
            }
        };
        last_error = None;
        match decide(sent, previous, &look) {
            Step::Wait => {
                // Without an id of ours, a service that stays as it was for so long was never updated.
                let since = *unchanged_since.get_or_insert_with(Instant::now);
                if sent.deployment.is_none() && since.elapsed() >= READS_MAY_BE_STALE {
                    return ControlFlow::Break(Err(RolledBack::Unchanged));
                }
                ControlFlow::Continue(PACE)
            }
            Step::Leave(replacement) => ControlFlow::Break(Err(RolledBack::Superseded(replacement))),
            Step::Adopt(deployment, by_ecs) => ControlFlow::Break(Ok((Some((deployment, by_ecs)), look))),
            Step::Request => ControlFlow::Break(Ok((None, look))),
        }
    });
    let Some(decided) = decided.await else {
        return Err(RolledBack::Failed(match last_error {
            Some(error) => format!("ECS could not be asked: {}", excerpt(&error.to_string())),
            None => "ECS did not show the deployment that was to be rolled back".to_owned(),
        }));
    };
    let (adopted, look) = decided?;
    if let Some((deployment, by_ecs)) = adopted {
        report::say(&service.name, &Event::GoesBackByItself { to: &deployment.task_definition, by_ecs });
        return Ok(deployment);
    }
    place.turn().await;
    report::say(&service.name, &Event::RollingBack { to: previous, version: &snapshot.previous_version() });
    update(clients, service, previous, &look, service.timeout).await.map_err(|not_updated| match not_updated {
        NotUpdated::Refused(error) | NotUpdated::Unclear(error) => RolledBack::Failed(excerpt(&error.to_string())),
        NotUpdated::Superseded(replacement) => RolledBack::Superseded(replacement),
    })
}

/// Acts only while the PRIMARY is ours.
fn decide(sent: &Sent, previous: &TaskDefinitionArn, look: &Look) -> Step {
    let ours = match &sent.deployment {
        Some(deployment) => deployment.clone(),
        None => match since(look, &sent.task_definition, &sent.before) {
            Since::Ours(deployment) => deployment,
            Since::Nothing => return Step::Wait,
            Since::Another(replacement) => return aside(replacement, sent, previous, &sent.before),
        },
    };
    match judge(&ours, look) {
        Standing::NotShownYet => Step::Wait,
        Standing::Primary(_) | Standing::Failed(_) => Step::Request,
        Standing::Replaced(replacement) => {
            let before: Vec<_> = ours.before.into_iter().chain([ours.id]).collect();
            aside(replacement, sent, previous, &before)
        }
    }
}

/// Whether to watch the deployment that took the place of ours, or to leave it alone.
fn aside(replacement: Replacement, sent: &Sent, previous: &TaskDefinitionArn, before: &[DeploymentId]) -> Step {
    if !replacement.undoes(&sent.task_definition, previous) {
        return Step::Leave(replacement);
    }
    let by_ecs = replacement.by_ecs;
    let SeenDeployment { id, task_definition, .. } = replacement.by;
    let returning = Deployment { id, task_definition, before: before.to_vec(), relieves_all: false };
    Step::Adopt(returning, by_ecs)
}

/// What another deployment that takes the place of the rollback's means.
fn replaced(replacement: Replacement) -> RolledBack {
    if replacement.by_ecs {
        let to = &replacement.by.task_definition;
        return RolledBack::Failed(format!("ECS ended it and returns to {to}: {}", excerpt(&replacement.reason)));
    }
    RolledBack::Superseded(replacement)
}

#[cfg(test)]
mod tests {
    use super::{
        super::standing::tests::{look, ours, seen},
        *,
    };
    use crate::ecs::Rollout::{Completed, Failed, InProgress};

    fn step(known: bool, look: &Look) -> &'static str {
        let Deployment { task_definition, before, .. } = ours();
        let deployment = known.then(ours);
        let sent = Sent { task_definition, before, proof_of_previous: Proof::Counts, deployment };
        match decide(&sent, &TaskDefinitionArn("task-definition/api:1".into()), look) {
            Step::Request => "request",
            Step::Adopt(..) => "adopt",
            Step::Wait => "wait",
            Step::Leave(_) => "leave",
        }
    }

    #[test]
    fn acts_only_while_ours_is_primary() {
        let back =
            SeenDeployment { task_definition: seen("1", 0, InProgress).task_definition, ..seen("4", 0, InProgress) };
        let breaker = SeenDeployment {
            rollout_reason: "ECS deployment circuit breaker: rolling back to deploymentId ecs-svc/0.".into(),
            ..seen("3", 0, InProgress)
        };
        for (what, look, known, unknown) in [
            ("ours is PRIMARY", look(seen("2", 1, InProgress), vec![seen("1", 1, Completed)]), "request", "request"),
            ("ECS marked ours FAILED", look(seen("2", 0, Failed), vec![seen("1", 2, Completed)]), "request", "request"),
            ("as before our update", look(seen("1", 2, Completed), vec![]), "wait", "wait"),
            ("somebody else's", look(seen("3", 0, InProgress), vec![seen("2", 1, InProgress)]), "leave", "leave"),
            (
                "ours FAILED, then somebody",
                look(seen("3", 0, InProgress), vec![seen("2", 0, Failed)]),
                "leave",
                "leave",
            ),
            ("ECS rolls back", look(breaker, vec![seen("2", 0, Failed)]), "adopt", "adopt"),
            ("back already", look(back, vec![]), "adopt", "adopt"),
        ] {
            assert_eq!((step(true, &look), step(false, &look)), (known, unknown), "{what}");
        }
    }
}
