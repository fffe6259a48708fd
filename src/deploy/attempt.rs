//! One service's phases in their order.

use std::cell::Cell;

use tokio::time::Instant;

use super::{
    Clients, PATIENCE, answered_but_for, awaited_turn,
    check::Proof,
    drain::Old,
    explain,
    preflight::{Proofs, Snapshot, choose_proofs},
    prove::{Proven, prove},
    register::{register, turn_to_register},
    replaced::Replacement,
    rollback::Sent,
    standing::Deployment,
    turns::Cause,
    update::{NotUpdated, update},
};
use crate::{
    aws::Error,
    config::{Service, UpdateStrategy},
    ecs::{Haste, Look, TaskDefinitionArn},
    git_sha::GitSha,
    outcome::{Outcome, Reason},
    report::{self, Event, Phase},
    text::excerpt,
};

/// How the phases of one service ended, before anything is undone.
pub enum Attempt {
    /// Both checks passed, or only the draining ran out of time.
    Live(Outcome),
    /// It failed, and why.
    Failed(Reason),
    /// The checks, which were all that was asked for, failed, and why.
    NotProven(Reason),
    /// Nothing of it was tried, because ECS could not be asked, and why.
    NotBegun(Reason),
    /// Somebody else's deployment has taken over.
    Superseded(Replacement),
    /// The run ended before its phases did, and why.
    Interrupted(Cause),
}

/// A look at `service`, made once its `turn` has come, right before the write that it is for. One that stumbles gives the
/// turn back, so that it keeps no other service waiting.
async fn look_in_turn<T>(
    clients: &Clients<'_>,
    service: &Service,
    turn: impl AsyncFn() -> T,
) -> Result<(Look, T), Error> {
    let waited = Cell::default();
    let tell = |event: &Event<'_>| report::say(&service.name, event);
    answered_but_for(&waited, tell, async || {
        let since = Instant::now();
        let turn = turn().await;
        waited.update(|waited| waited + since.elapsed());
        Ok((clients.ecs.look(service, Haste::Next).await?, turn))
    })
    .await
}

/// Takes one service through register, update, deploy check and drain check; with [`UpdateStrategy::None`] only through
/// the checks. `sent` tells, at any moment and even if this future is dropped, what there is to undo; `snapshot` learns
/// what has completed since preflight.
pub async fn attempt(clients: &Clients<'_>, snapshot: &mut Snapshot<'_>, sent: &mut Option<Sent>) -> Attempt {
    let service = snapshot.service;
    let say = |event: &Event<'_>| report::say(&service.name, event);
    say(&Event::Begins);
    let turn = async || awaited_turn(say, Phase::Register, turn_to_register(clients, snapshot)).await;
    let (before, turn) = match look_in_turn(clients, service, turn).await {
        Ok((look, turn)) if look.primary.id == snapshot.primary => (look, turn),
        Ok((look, _)) => return Attempt::Superseded(Replacement::by_primary_of(&look, None)),
        Err(error) => return Attempt::NotBegun(explain(&error)),
    };
    snapshot.learn(&before);
    let snapshot = &*snapshot;
    if service.update_strategy == UpdateStrategy::None {
        let proofs = match choose_proofs(clients, snapshot).await {
            Ok(proofs) => proofs,
            Err(error) => return Attempt::NotBegun(explain(&error)),
        };
        let ids = before.others.iter().map(|other| other.id.clone()).collect();
        let running = Deployment { was_there: true, ..Deployment::primary_of(&before, ids, false) };
        let proven = prove(clients, service, &running, &proofs.new, Old::Every).await;
        let version = snapshot.version_proven_by(&proofs.new);
        return proven_as(running.task_definition, version, proven, Attempt::NotProven, Attempt::Superseded);
    }
    let revision = match register(clients, snapshot, turn).await {
        Ok(revision) => revision,
        Err(error) => return Attempt::Failed(explain(&error)),
    };
    if revision.is_new {
        say(&Event::Registered { revision: &revision.arn, changes: &snapshot.changes });
    } else {
        say(&Event::NothingToRegister { ready: &revision.arn, strategy: service.update_strategy });
    }
    // Only now: another service with the same url may have been updated while this one waited for its turn.
    let Proofs { new: proof, previous: proof_of_previous } = match choose_proofs(clients, snapshot).await {
        Ok(proofs) => proofs,
        Err(error) => return Attempt::NotBegun(explain(&error)),
    };
    if service.url.is_some() && matches!(proof, Proof::Counts) {
        say(&Event::UrlProvesNothing { version: snapshot.version });
    }
    // All this may have taken a while: what is displaced must be what was looked at.
    let turn = async || awaited_turn(say, Phase::Update, clients.ecs.may_update(service)).await;
    let (before, mut turn) = match look_in_turn(clients, service, turn).await {
        Ok((look, turn)) if look.primary.id == before.primary.id => (look, turn),
        Ok((look, _)) => return Attempt::Superseded(Replacement::by_primary_of(&look, None)),
        Err(error) => return Attempt::NotBegun(explain(&error)),
    };
    let replaced = |replacement: Replacement| {
        if !replacement.undoes(&revision.arn, snapshot.previous().map(|previous| &previous.arn)) {
            Attempt::Superseded(replacement)
        } else if replacement.by_ecs {
            Attempt::Failed(format!("ECS ended the deployment: {}", excerpt(&replacement.reason)).into())
        } else {
            let by = &replacement.by;
            Attempt::Failed(
                format!("the service was put back to {} by deployment {}", by.task_definition, by.id).into(),
            )
        }
    };
    let ids = before.deployments().map(|deployment| deployment.id.clone()).collect();
    *sent = Some(Sent {
        task_definition: revision.arn.clone(),
        before: ids,
        earlier: before.service_deployment.clone(),
        proof_of_previous,
        deployment: None,
    });
    turn.take();
    drop(turn);
    let ours = match update(clients, service, &revision.arn, &before, &[], PATIENCE, Haste::Next).await {
        Ok(deployment) => deployment,
        Err(NotUpdated::Unclear(error)) => return Attempt::Failed(explain(&error)),
        Err(NotUpdated::Refused(error)) => {
            *sent = None;
            return Attempt::Failed(explain(&error));
        }
        Err(NotUpdated::Superseded(replacement)) => return replaced(replacement),
    };
    if let Some(sent) = sent {
        sent.deployment = Some(ours.clone());
    }
    say(&Event::Updated { deployment: &ours.id, task_definition: &ours.task_definition });

    let proven = prove(clients, service, &ours, &proof, Old::Every).await;
    proven_as(ours.task_definition, snapshot.version_proven_by(&proof), proven, Attempt::Failed, replaced)
}

/// How the phases ended, by the checks of `task_definition`, whose `version` they prove where they can.
fn proven_as(
    task_definition: TaskDefinitionArn,
    version: Option<GitSha>,
    proven: Proven,
    failed: impl FnOnce(Reason) -> Attempt,
    replaced: impl FnOnce(Replacement) -> Attempt,
) -> Attempt {
    match proven {
        Proven::Complete => Attempt::Live(Outcome::Deployed { task_definition, version }),
        Proven::NotDrained(remaining) => Attempt::Live(Outcome::Undetermined { task_definition, version, remaining }),
        Proven::Failed(why) => failed(why),
        Proven::Replaced(replacement) => replaced(replacement),
    }
}
