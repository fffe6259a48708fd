//! update-service: points a service at a task definition, which starts a deployment, and never starts a second one.

use std::{ops::ControlFlow, time::Duration};

use tokio::time::{Instant, sleep};

use super::{Clients, standing::Deployment};
use crate::{
    config::Service,
    ecs::{DeploymentId, Error, Fate, Look, TaskDefinitionArn},
    poll::{self, Backoff, PACE},
    report::{self, Event},
    text::excerpt,
};

/// How long a look may be from before a write: "some seconds" in aws/aws-cli#9275.
pub const READS_MAY_BE_STALE: Duration = Duration::from_secs(10);

/// Updates `service` to `task_definition`, trying for as long as `patience` while ECS stumbles. `before` is the look
/// that preceded it. When an answer is lost, the service is looked at for as long as reads may be stale, and only if no
/// new deployment shows up is the update sent again. An error that is [`Fate::Unknown`] means that the update may have
/// happened.
pub async fn update(
    clients: &Clients,
    service: &Service,
    task_definition: &TaskDefinitionArn,
    before: &Look,
    patience: Duration,
) -> Result<Deployment, Error> {
    let deadline = Instant::now() + patience;
    let before: Vec<_> = before.deployments().map(|deployment| deployment.id.clone()).collect();
    let mut backoff = Backoff::default();
    loop {
        let error = match clients.ecs.update(service, task_definition).await {
            Ok(look) => match started(&look, task_definition, &before) {
                Some(deployment) => return Ok(deployment),
                None => Error::refused("UpdateService", "the answer doesn't show the new deployment"),
            },
            Err(error) => error,
        };
        if error.fate == Fate::Refused || Instant::now() >= deadline {
            return Err(error);
        }
        report::say(&service.name, &Event::Stumbled(&excerpt(&error.to_string())));
        if error.fate == Fate::Unknown {
            let found = poll::until(Instant::now() + READS_MAY_BE_STALE, async || {
                match clients.ecs.look(service).await.ok().and_then(|look| started(&look, task_definition, &before)) {
                    Some(deployment) => ControlFlow::Break(deployment),
                    None => ControlFlow::Continue(PACE),
                }
            });
            if let Some(deployment) = found.await {
                return Ok(deployment);
            }
            if Instant::now() >= deadline {
                return Err(error);
            }
        }
        sleep(backoff.pause()).await;
    }
}

/// The deployment that our update started, if `look` shows it: a PRIMARY that was not there before, with our task
/// definition.
pub fn started(look: &Look, task_definition: &TaskDefinitionArn, before: &[DeploymentId]) -> Option<Deployment> {
    let primary = &look.primary;
    let is_ours = !before.contains(&primary.id) && primary.task_definition == *task_definition;
    is_ours.then(|| Deployment {
        id: primary.id.clone(),
        task_definition: task_definition.clone(),
        before: before.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::{
        super::standing::tests::{look, ours, seen},
        *,
    };
    use crate::ecs::Rollout::{Completed, InProgress};

    #[test]
    fn only_a_new_primary_with_our_task_definition_is_ours() {
        let ours = ours();
        let found = |id: &str| {
            let look = look(seen(id, 0, InProgress), vec![seen("1", 2, Completed)]);
            started(&look, &ours.task_definition, &ours.before).is_some()
        };
        assert!(found("2"));
        assert!(!found("1"));
        assert!(!found("3"));
    }
}
