//! Rollback: puts a service back to what its snapshot says, unless ECS does so itself or somebody else has taken over.

use std::{cell::Cell, ops::ControlFlow, time::Duration};

use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout},
};

use super::{
    Clients, PATIENCE,
    check::Proof,
    drain::Old,
    preflight::{Snapshot, WayBack},
    prove::{Proven, prove},
    replaced::{Replacement, recognise},
    standing::{Deployment, Standing, judge},
    update::{NotUpdated, READS_MAY_BE_STALE, Since, since, update},
};
use crate::{
    aws::{Error, Fate},
    config::Service,
    ecs::{DeploymentId, Haste, Look, Rollout, ServiceDeploymentArn, Strategy, TaskDefinition, TaskDefinitionArn},
    poll::{self, Backoff, PACE},
    report::{self, Event},
    signals::Cancel,
    text::excerpt,
};

/// A look that takes longer than this is told of: somebody may wait for it who has pressed Ctrl-C.
const SLOW_LOOK: Duration = Duration::from_secs(1);
/// How often it is told that a rollback waits for ECS.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// A look that is older than this is repeated before a write.
const OLD_LOOK: Duration = Duration::from_millis(200);

/// An update that was sent in this run.
pub struct Sent {
    /// What the service was updated to.
    pub task_definition: TaskDefinitionArn,
    /// The deployments that were there before.
    pub before: Vec<DeploymentId>,
    /// The service deployment before it.
    pub earlier: Option<ServiceDeploymentArn>,
    /// What will prove that the previous version is live again.
    pub proof_of_previous: Proof,
    /// What the update started; none while its answer is awaited, or if it was lost and has not been seen since.
    pub deployment: Option<Deployment>,
}

/// What a service returned to.
#[derive(Clone, Debug)]
pub struct Returned {
    /// The task definition.
    pub to: TaskDefinitionArn,
    /// The one that it is a copy of, where that had been deregistered.
    pub copy_of: Option<TaskDefinitionArn>,
}

/// How a rollback ended.
#[derive(Debug)]
pub enum RolledBack {
    /// This was proven live.
    Proven(Returned),
    /// This is live, but the version rolled back was not seen to be gone, and why.
    NotDrained(Returned, String),
    /// This was requested, and a signal ended the run before it was proven.
    Requested(Returned),
    /// The service never left the previous version: the update had not happened.
    Unchanged,
    /// There is nothing to return to, and why.
    NothingToReturnTo(String),
    /// Another deployment has taken over and was left alone.
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
    /// ECS gave our deployment up, and is about to go back by itself.
    WaitForEcs,
    /// Leave the service alone.
    Leave(Replacement),
}

/// What the looks before a write decided.
enum Decided {
    /// To request the rollback, after this look.
    Request(Look),
    /// To watch this deployment, which has begun; whether ECS says that it is its own rollback.
    Adopt(Deployment, bool),
}

/// The deployment that takes a service back, and to what.
type Returning = (Deployment, Returned);

/// A rollback's place in the order of requests: the services that were updated last go back first.
#[derive(Default)]
pub struct Place {
    /// Resolves once it is the newer service's turn to be requested, or it will not be.
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
    /// the others from going back. Says whether that took so long that a look from before is old.
    async fn turn(self) -> bool {
        let since = Instant::now();
        if let Some(newer) = self.newer {
            let _ = timeout(PACE, newer).await;
        }
        since.elapsed() >= OLD_LOOK
    }
}

/// Rolls one service back and proves it. A signal doesn't stop the request; it ends the proof.
pub async fn roll_back(
    clients: &Clients<'_>,
    snapshot: &Snapshot<'_>,
    sent: &Sent,
    place: Place,
    cancel: &Cancel,
) -> RolledBack {
    let previous = match (snapshot.previous(), &snapshot.way_back) {
        (Some(previous), _) if previous.arn != sent.task_definition => previous,
        (_, WayBack::Nowhere(why)) => return RolledBack::NothingToReturnTo(why.clone()),
        _ => return RolledBack::NothingToReturnTo(format!("{} is what was deployed", sent.task_definition)),
    };
    let rollback = Rollback { clients, service: snapshot.service, sent, previous, cancel, waits_told: Cell::default() };
    let requested = match rollback.request(place).await {
        Ok(requested) => requested,
        Err(ended) => return ended,
    };
    let returning = requested.as_ref().map_or_else(|| rollback.previous(), |(_, returned)| returned.clone());
    tokio::select! {
        biased;
        _ = cancel.cancelled() => RolledBack::Requested(returning),
        ended = rollback.prove(requested) => ended,
    }
}

/// The rollback of one service.
struct Rollback<'a> {
    clients: &'a Clients<'a>,
    service: &'a Service,
    sent: &'a Sent,
    /// What to return to.
    previous: &'a TaskDefinition,
    cancel: &'a Cancel,
    /// When it was last told that ECS doesn't answer.
    waits_told: Cell<Option<Instant>>,
}

impl Rollback<'_> {
    fn say(&self, event: &Event<'_>) {
        report::say(&self.service.name, event);
    }

    /// How long each request of the rollback is tried while ECS stumbles, or stays away: the service's whole timeout,
    /// and where that is short, as long as the writes of a deploy. It is also time enough for a look to rule out an
    /// update whose answer was lost.
    fn patience(&self) -> Duration {
        self.service.timeout.max(PATIENCE)
    }

    fn previous(&self) -> Returned {
        Returned { to: self.previous.arn.clone(), copy_of: None }
    }

    /// Brings the deployment of the previous task definition about, or says why there is none. Gives none where ECS was
    /// asked to roll back and its deployment is still to show.
    async fn request(&self, place: Place) -> Result<Option<Returning>, RolledBack> {
        let mut decided = self.decided().await?;
        if matches!(decided, Decided::Request(_)) && place.turn().await {
            decided = self.decided().await?;
        }
        let mut look = match decided {
            Decided::Request(look) => look,
            Decided::Adopt(deployment, by_ecs) => return Ok(Some(self.adopted(deployment, by_ecs))),
        };
        self.say(&Event::RollingBack { to: &self.previous.arn, version: &self.previous.version() });
        // An update would start a whole new cycle of steps and bakes; stopping moves the traffic back at once
        // (API_StopServiceDeployment).
        let ours = look.service_deployment.as_ref().filter(|arn| Some(*arn) != self.sent.earlier.as_ref());
        if let (Strategy::Shifting { .. }, Some(arn)) = (look.strategy, ours)
            && look.primary.rollout == Some(Rollout::InProgress)
        {
            let Some(why) = self.stop(arn).await else {
                self.say(&Event::RollbackRequested { to: &self.previous.arn, deployment: None });
                return Ok(None);
            };
            // That may have taken a while.
            look = match self.decided().await? {
                Decided::Request(look) => look,
                Decided::Adopt(deployment, by_ecs) => return Ok(Some(self.adopted(deployment, by_ecs))),
            };
            self.say(&Event::NotStopped(&why));
        }
        let previous = &self.previous.arn;
        match update(self.clients, self.service, previous, &look, &self.known(), self.patience(), Haste::Rollback).await
        {
            Ok(deployment) => Ok(Some(self.requested(deployment, self.previous()))),
            // Where an answer was lost before, what began by it shows in the look that precedes the next update.
            Err(NotUpdated::Refused(error) | NotUpdated::Unclear(error))
                if error.is_inactive() || (error.fate == Fate::Refused && !self.previous.is_active()) =>
            {
                self.request_copy().await.map(Some)
            }
            // What began in the gap may be ECS's own rollback.
            Err(NotUpdated::Superseded(replacement)) => match self.decided().await? {
                Decided::Adopt(deployment, by_ecs) => Ok(Some(self.adopted(deployment, by_ecs))),
                Decided::Request(_) => Err(RolledBack::Superseded(replacement)),
            },
            Err(not_updated) => Err(not_done(not_updated)),
        }
    }

    /// The deployments that were there before a rollback's update, whatever the look before it shows.
    fn known(&self) -> Vec<DeploymentId> {
        let ours = self.sent.deployment.iter().flat_map(|ours| ours.before.iter().chain([&ours.id]));
        self.sent.before.iter().chain(ours).cloned().collect()
    }

    /// As [`Self::request`], for a previous task definition that has been deregistered: an identical one is registered.
    async fn request_copy(&self) -> Result<Returning, RolledBack> {
        let copy = self.previous.copy();
        let patience = self.patience();
        let copy = poll::answered(patience, async || self.clients.ecs.register(self.service, &copy).await).await;
        let copy = copy.map_err(|error| RolledBack::Failed(excerpt(&error.to_string())))?;
        let previous = &self.previous.arn;
        self.say(&Event::RegisteredAgain { previous, copy: &copy });
        let look = match self.decided().await? {
            Decided::Request(look) => look,
            Decided::Adopt(deployment, by_ecs) => return Ok(self.adopted(deployment, by_ecs)),
        };
        let updated = update(self.clients, self.service, &copy, &look, &self.known(), patience, Haste::Rollback).await;
        let deployment = updated.map_err(not_done)?;
        Ok(self.requested(deployment, Returned { to: copy, copy_of: Some(previous.clone()) }))
    }

    fn requested(&self, deployment: Deployment, returned: Returned) -> Returning {
        self.say(&Event::RollbackRequested { to: &returned.to, deployment: Some(&deployment.id) });
        (deployment, returned)
    }

    /// StopServiceDeployment, tried for as long as each request of a rollback. Gives why ECS did not take it, if it
    /// didn't: the deployment may have ended in the meantime, or the role may not stop it.
    async fn stop(&self, arn: &ServiceDeploymentArn) -> Option<String> {
        let deadline = Instant::now() + self.patience();
        let mut backoff = Backoff::default();
        loop {
            let error = self.clients.ecs.stop(self.service, arn).await.err()?;
            let told = error.in_short();
            // Why it is refused may be that ECS rolls back already: by itself, or by a first request whose answer was
            // lost.
            if error.fate == Fate::Refused && self.is_rolling_back(arn).await {
                return None;
            }
            if error.fate == Fate::Refused || Instant::now() >= deadline {
                return Some(told);
            }
            self.say(&Event::NotYetStopped(&told));
            sleep(backoff.pause()).await;
        }
    }

    async fn is_rolling_back(&self, arn: &ServiceDeploymentArn) -> bool {
        let seen = self.clients.ecs.service_deployment(self.service, arn, Haste::Rollback).await;
        seen.is_ok_and(|seen| seen.is_rolled_back)
    }

    fn adopted(&self, deployment: Deployment, by_ecs: bool) -> Returning {
        self.say(&Event::GoesBackByItself { to: &deployment.task_definition, by_ecs });
        returning(deployment)
    }

    /// Looks until it is clear whether to request the rollback or to watch one that has begun.
    async fn decided(&self) -> Result<Decided, RolledBack> {
        let mut waits_since: Option<Instant> = None;
        let decided = self.look_until(self.patience(), |step, look| match step {
            Step::Wait | Step::WaitForEcs => {
                let waited = waits_since.get_or_insert_with(Instant::now).elapsed();
                match (step, &self.sent.deployment) {
                    // Without an id of ours, a service that stays as it was for so long was never updated.
                    (Step::Wait, None) => (waited >= READS_MAY_BE_STALE).then_some(Err(RolledBack::Unchanged)),
                    // A run that is cancelled has no time for looks to catch up, and UpdateService did say yes.
                    (Step::Wait, Some(_)) if self.cancel.is_cancelled() && waited >= PACE => {
                        Some(Ok(Decided::Request(look)))
                    }
                    (Step::Wait, Some(_)) => None,
                    _ => (waited >= READS_MAY_BE_STALE).then_some(Ok(Decided::Request(look))),
                }
            }
            Step::Leave(replacement) => Some(Err(RolledBack::Superseded(replacement))),
            Step::Adopt(deployment, by_ecs) => Some(Ok(Decided::Adopt(deployment, by_ecs))),
            Step::Request => Some(Ok(Decided::Request(look))),
        });
        match decided.await {
            Ok(decided) => decided,
            Err(None) => {
                Err(RolledBack::Failed("ECS did not show the deployment that was to be rolled back".to_owned()))
            }
            Err(Some(error)) => Err(RolledBack::Failed(could_not_ask(&error))),
        }
    }

    /// One look. That ECS is slow to answer, or doesn't, is told, since nothing is requested before it has.
    async fn look(&self) -> Result<Look, Error> {
        let look = self.clients.ecs.look(self.service, Haste::Rollback);
        tokio::pin!(look);
        let answer = if let Ok(answer) = timeout(SLOW_LOOK, &mut look).await {
            answer
        } else {
            self.tell_wait("it has not answered yet");
            look.await
        };
        if let Err(error) = &answer {
            self.tell_wait(&error.in_short());
        }
        answer
    }

    /// Tells that ECS must answer first, now and then.
    fn tell_wait(&self, error: &str) {
        if self.waits_told.get().is_none_or(|told| told.elapsed() >= HEARTBEAT) {
            self.waits_told.set(Some(Instant::now()));
            self.say(&Event::RollbackAwaitsEcs { to: &self.previous.arn, error });
        }
    }

    /// Looks, for as long as `patience`, until `judge` makes something of what is to be done. The error is why the last
    /// look failed, if it did.
    async fn look_until<T>(
        &self,
        patience: Duration,
        mut judge: impl FnMut(Step, Look) -> Option<T>,
    ) -> Result<T, Option<Error>> {
        let mut last_error = None;
        let mut stale_since: Option<Instant> = None;
        let mut backoff = Backoff::default();
        let judged = poll::until(Instant::now() + patience, async || {
            let look = match self.look().await {
                Ok(look) => look,
                Err(error) => {
                    last_error = Some(error);
                    return ControlFlow::Continue(backoff.pause());
                }
            };
            last_error = None;
            backoff.reset();
            let step = decide(self.sent, &self.previous.arn, &look);
            let was_stale = *stale_since.get_or_insert_with(Instant::now);
            if !matches!(step, Step::Wait) {
                stale_since = None;
            }
            let step = match (step, &self.sent.deployment) {
                // A look isn't stale for so long: ECS or somebody made an earlier deployment PRIMARY again.
                (Step::Wait, Some(_)) if was_stale.elapsed() < READS_MAY_BE_STALE => Step::Wait,
                (Step::Wait | Step::Leave(_) | Step::Adopt(_, false), Some(ours)) => {
                    let replacement = Replacement::by_primary_of(&look, Some(&ours.id));
                    let part_of = ours.service_deployment.as_ref();
                    let ours = &ours.task_definition;
                    let replacement =
                        recognise(self.clients, self.service, ours, part_of, replacement, Haste::Rollback).await;
                    aside(replacement, self.sent, &self.previous.arn, &look)
                }
                (step, _) => step,
            };
            match judge(step, look) {
                Some(judged) => ControlFlow::Break(judged),
                None => ControlFlow::Continue(PACE),
            }
        });
        judged.await.ok_or(last_error)
    }

    /// Proves what was requested, once ECS shows it.
    async fn prove(&self, requested: Option<Returning>) -> RolledBack {
        let (deployment, returned) = match requested {
            Some(returning) => returning,
            None => match self.begun_by_ecs().await {
                Ok(returning) => returning,
                Err(ended) => return ended,
            },
        };
        // What ECS itself returns to may be older than what ran before, and may name another version.
        let is_previous = returned.to == self.previous.arn || returned.copy_of.is_some();
        let proof = if is_previous { &self.sent.proof_of_previous } else { &Proof::Counts };
        match prove(self.clients, self.service, &deployment, proof, Old::OtherTaskDefinitions).await {
            Proven::Complete => RolledBack::Proven(returned),
            Proven::NotDrained(remaining) => RolledBack::NotDrained(returned, remaining.to_string()),
            Proven::Failed(why) => RolledBack::Failed(why.to_string()),
            Proven::Replaced(replacement) => replaced(replacement),
        }
    }

    /// Waits for the rollback that ECS was asked for.
    async fn begun_by_ecs(&self) -> Result<Returning, RolledBack> {
        let begun = self.look_until(self.patience(), |step, _| match step {
            Step::Request | Step::Wait | Step::WaitForEcs => None,
            Step::Adopt(deployment, _) => {
                self.say(&Event::GoesBackAsAsked { to: &deployment.task_definition });
                Some(Ok(returning(deployment)))
            }
            Step::Leave(replacement) => Some(Err(RolledBack::Superseded(replacement))),
        });
        match begun.await {
            Ok(begun) => begun,
            Err(None) => Err(RolledBack::Failed("ECS did not begin the rollback it was asked for".to_owned())),
            Err(Some(error)) => Err(RolledBack::Failed(could_not_ask(&error))),
        }
    }
}

/// A deployment that takes a service back without our update, and to what.
fn returning(deployment: Deployment) -> Returning {
    let to = deployment.task_definition.clone();
    (deployment, Returned { to, copy_of: None })
}

/// Why a rollback was not requested.
fn not_done(not_updated: NotUpdated) -> RolledBack {
    match not_updated {
        NotUpdated::Refused(error) | NotUpdated::Unclear(error) => RolledBack::Failed(excerpt(&error.to_string())),
        NotUpdated::Superseded(replacement) => RolledBack::Superseded(replacement),
    }
}

fn could_not_ask(error: &Error) -> String {
    format!("ECS could not be asked: {}", excerpt(&error.to_string()))
}

/// Acts only while the PRIMARY is ours.
fn decide(sent: &Sent, previous: &TaskDefinitionArn, look: &Look) -> Step {
    let ours = match &sent.deployment {
        Some(deployment) => deployment.clone(),
        None => match since(look, &sent.task_definition, &sent.before) {
            Since::Ours(deployment) => deployment,
            Since::Nothing => return Step::Wait,
            Since::Another(replacement) => return aside(replacement, sent, previous, look),
        },
    };
    match judge(&ours, look) {
        Standing::NotShownYet => Step::Wait,
        Standing::Failed(_) if look.rolls_back_itself => Step::WaitForEcs,
        Standing::Primary(_) | Standing::Failed(_) => Step::Request,
        Standing::Replaced(replacement) => aside(replacement, sent, previous, look),
    }
}

/// Whether to watch the PRIMARY of `look`, which took the place of ours, or to leave it alone.
fn aside(replacement: Replacement, sent: &Sent, previous: &TaskDefinitionArn, look: &Look) -> Step {
    if !replacement.undoes(&sent.task_definition, Some(previous)) {
        return Step::Leave(replacement);
    }
    let ours = sent.deployment.iter().flat_map(|ours| ours.before.iter().chain([&ours.id]));
    let before = sent.before.iter().chain(ours).cloned().collect();
    Step::Adopt(Deployment::primary_of(look, before, false), replacement.by_ecs)
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
    use crate::ecs::{
        Rollout::{Completed, Failed, InProgress},
        SeenDeployment,
    };

    fn step(known: bool, look: &Look) -> &'static str {
        let Deployment { task_definition, before, .. } = ours();
        let deployment = known.then(ours);
        let sent = Sent { task_definition, before, earlier: None, proof_of_previous: Proof::Counts, deployment };
        match decide(&sent, &TaskDefinitionArn("task-definition/api:1".into()), look) {
            Step::Request => "request",
            Step::Adopt(..) => "adopt",
            Step::Wait => "wait",
            Step::WaitForEcs => "wait for ECS",
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
            (
                "ECS marked ours FAILED and will roll back",
                Look { rolls_back_itself: true, ..look(seen("2", 0, Failed), vec![seen("1", 2, Completed)]) },
                "wait for ECS",
                "wait for ECS",
            ),
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
