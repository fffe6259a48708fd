//! Rollback: puts a service back to what its snapshot says, unless ECS does so itself or somebody else has taken over.

use std::ops::ControlFlow;

use tokio::time::Instant;

use super::{
    Clients,
    check::{Checked, check},
    drain::{Drained, drain},
    preflight::Snapshot,
    standing::{Deployment, Replacement, Standing, judge},
    update::{READS_MAY_BE_STALE, started, update},
    watch::Watch,
};
use crate::{
    ecs::{DeploymentId, Error, Look, SeenDeployment, TaskDefinitionArn},
    poll::{self, PACE},
    report::{self, Event},
    text::excerpt,
};

/// An update that was sent in this run.
pub struct Sent {
    /// What the service was updated to.
    pub task_definition: TaskDefinitionArn,
    /// The deployments that were there before.
    pub before: Vec<DeploymentId>,
    /// What the update started; none if its answer was refused or lost and it has not been seen since.
    pub deployment: Option<Deployment>,
}

/// How a rollback ended.
#[derive(Debug)]
pub enum RolledBack {
    /// The previous version was proven live.
    Proven,
    /// The previous version is live, but not everything about it was proven, and why.
    Unproven(String),
    /// It never left the previous version: the update had not happened.
    Unchanged,
    /// There is nothing to return to: the update was to what ran before.
    NothingToReturnTo,
    /// Somebody else's deployment has taken over and was left alone.
    Superseded(Replacement),
    /// It could not be done, and why.
    Failed(String),
}

/// What is to be done about one service, by one look at it.
#[derive(Debug)]
enum Step {
    /// Request the rollback.
    Request,
    /// ECS has begun to roll back by itself.
    Adopt(Deployment),
    /// Look again: this look is from before our update.
    Wait,
    /// Leave the service alone.
    Leave(Replacement),
}

/// Rolls one service back and proves it.
pub async fn roll_back(clients: &Clients, snapshot: &Snapshot<'_>, sent: &Sent) -> RolledBack {
    if sent.task_definition == *snapshot.previous() {
        return RolledBack::NothingToReturnTo;
    }
    let returning = match request(clients, snapshot, sent).await {
        Ok(returning) => returning,
        Err(ended) => return ended,
    };
    prove(clients, snapshot, &returning).await
}

/// Brings the deployment of the previous task definition about, or says why there is none.
async fn request(clients: &Clients, snapshot: &Snapshot<'_>, sent: &Sent) -> Result<Deployment, RolledBack> {
    let service = snapshot.service;
    let previous = snapshot.previous();
    // Without an id of ours, all that can still come is a look that shows it late.
    let patience = if sent.deployment.is_some() { service.timeout } else { service.timeout.min(READS_MAY_BE_STALE) };
    let deadline = Instant::now() + patience;
    let mut last_error: Option<Error> = None;
    let decided = poll::until(deadline, async || match clients.ecs.look(service).await {
        Ok(look) => match decide(sent, snapshot.previous(), &look) {
            Step::Wait => ControlFlow::Continue(PACE),
            step => ControlFlow::Break((step, look)),
        },
        Err(error) => {
            last_error = Some(error);
            ControlFlow::Continue(PACE)
        }
    });
    match decided.await {
        Some((Step::Adopt(deployment), _)) => {
            report::say(&service.name, &Event::RollsBackByEcs { to: previous });
            Ok(deployment)
        }
        Some((Step::Leave(replacement), _)) => Err(RolledBack::Superseded(replacement)),
        Some((_, look)) => {
            report::say(&service.name, &Event::RollingBack { to: previous, version: &snapshot.previous_version() });
            match update(clients, service, previous, &look, service.timeout).await {
                Ok(deployment) => Ok(deployment),
                Err(error) => Err(RolledBack::Failed(excerpt(&error.to_string()))),
            }
        }
        // Without an id of ours, a service that shows its old deployment for all that time was never sent.
        None if sent.deployment.is_none() && last_error.is_none() => Err(RolledBack::Unchanged),
        None => Err(RolledBack::Failed(match last_error {
            Some(error) => format!("ECS could not be asked: {}", excerpt(&error.to_string())),
            None => "ECS does not show the deployment that is to be rolled back".to_owned(),
        })),
    }
}

/// Acts only while the PRIMARY is ours.
fn decide(sent: &Sent, previous: &TaskDefinitionArn, look: &Look) -> Step {
    let ours = match &sent.deployment {
        Some(deployment) => deployment.clone(),
        None => match started(look, &sent.task_definition, &sent.before) {
            Some(deployment) => deployment,
            None if sent.before.contains(&look.primary.id) => return Step::Wait,
            None => {
                let by = look.primary.clone();
                let reason = by.rollout_reason.clone();
                return Step::Leave(Replacement { by, by_ecs: false, reason });
            }
        },
    };
    match judge(&ours, look) {
        Standing::NotShownYet => Step::Wait,
        Standing::Primary(_) | Standing::Failed(_) => Step::Request,
        Standing::Replaced(replacement) => {
            if !replacement.is_rollback_to(previous) {
                return Step::Leave(replacement);
            }
            let before = ours.before.into_iter().chain([ours.id]).collect();
            let SeenDeployment { id, task_definition, .. } = replacement.by;
            Step::Adopt(Deployment { id, task_definition, before })
        }
    }
}

/// Proves the previous version with the same checks as the new one.
async fn prove(clients: &Clients, snapshot: &Snapshot<'_>, returning: &Deployment) -> RolledBack {
    let proof = snapshot.proof_of_previous();
    let watch = Watch::new(clients, snapshot.service, returning);
    report::say(&snapshot.service.name, &Event::Checking { proof: &proof, timeout: snapshot.service.timeout });
    match check(&watch, returning, &proof).await {
        Checked::Live(how) => report::say(&snapshot.service.name, &Event::Live { how: &how }),
        Checked::Failed(why) => return RolledBack::Failed(why),
        Checked::Replaced(replacement) => return RolledBack::Superseded(replacement),
    }
    report::say(&snapshot.service.name, &Event::Draining { proof: &proof, timeout: snapshot.service.timeout });
    match drain(&watch, returning, &proof).await {
        Drained::Complete { .. } => RolledBack::Proven,
        Drained::TimedOut(remaining) => RolledBack::Unproven(remaining),
        Drained::Failed(why) => RolledBack::Failed(why),
        Drained::Replaced(replacement) => RolledBack::Superseded(replacement),
    }
}
