//! The last known good version: the task definition that last completed a deployment, to which a service returns.

use super::{Clients, answered};
use crate::{
    aws::Error,
    config::Service,
    ecs::{Look, Rollout, SeenDeployment, TaskDefinitionArn},
};

/// What a service may return to.
#[derive(Debug)]
pub enum KnownGood {
    /// This task definition completed a deployment.
    Completed(TaskDefinitionArn),
    /// This one ran before the PRIMARY; whether it ever completed a deployment can't be told: why that could not be
    /// asked, or none where ECS's history doesn't reach back to it.
    Older(TaskDefinitionArn, Option<Error>),
    /// None is known to have completed a deployment; why that could not be asked, if it couldn't.
    Unknown(Option<Error>),
}

/// What one look says of it.
#[derive(Debug)]
enum ByLook<'a> {
    Completed(&'a SeenDeployment),
    /// No deployment that is still listed has completed; the newest of those before the PRIMARY.
    Open(Option<&'a SeenDeployment>),
}

/// Finds the task definition that last completed a deployment of `service`: among the deployments that `look` lists, or
/// else in the history of its service deployments, which is asked for only then and needs permissions of its own.
pub async fn known_good(clients: &Clients<'_>, service: &Service, look: &Look) -> KnownGood {
    let older = match by_look(look) {
        ByLook::Completed(deployment) => return KnownGood::Completed(deployment.task_definition.clone()),
        ByLook::Open(older) => older,
    };
    match (answered(service, async || clients.ecs.last_successful(service).await).await, older) {
        (Ok(Some(completed)), _) => KnownGood::Completed(completed),
        // Behind a Classic Load Balancer only the history could say that it didn't complete, and that is short: 90
        // days, and nothing from before 25 October 2024 (dg/view-service-deployment).
        (Ok(None), Some(older)) if older.rollout.is_none() => KnownGood::Older(older.task_definition.clone(), None),
        (Ok(None), _) => KnownGood::Unknown(None),
        (Err(error), Some(older)) => KnownGood::Older(older.task_definition.clone(), Some(error)),
        (Err(error), None) => KnownGood::Unknown(Some(error)),
    }
}

/// Whether the PRIMARY deployment goes on.
pub fn is_under_way(look: &Look) -> bool {
    !has_completed(look) && look.primary.rollout != Some(Rollout::Failed)
}

/// Whether the PRIMARY deployment has completed.
pub fn has_completed(look: &Look) -> bool {
    let primary = &look.primary;
    match primary.rollout {
        Some(rollout) => rollout == Rollout::Completed,
        // Behind a Classic Load Balancer ECS doesn't say how far a deployment is: alone and at full count is all there
        // is.
        None => {
            look.others.is_empty()
                && (primary.running, primary.pending, primary.failed_tasks) == (primary.desired, 0, 0)
        }
    }
}

fn by_look(look: &Look) -> ByLook<'_> {
    if has_completed(look) {
        return ByLook::Completed(&look.primary);
    }
    // Of two of the same millisecond the one listed first counts, as the newest are listed first.
    let listed = || look.others.iter().rev();
    let completed = listed().filter(|other| other.rollout == Some(Rollout::Completed));
    if let Some(completed) = completed.max_by_key(|other| other.created) {
        return ByLook::Completed(completed);
    }
    // Another deployment of what runs now is no older version.
    let older = listed().filter(|other| other.task_definition != look.primary.task_definition);
    ByLook::Open(older.max_by_key(|other| other.created))
}

#[cfg(test)]
mod tests {
    use super::{
        super::standing::tests::{look, seen},
        *,
    };
    use Rollout::{Completed, Failed, InProgress};
    use std::time::{Duration, SystemTime};

    fn found(look: &Look) -> (&'static str, Option<&str>) {
        let (kind, deployment) = match by_look(look) {
            ByLook::Completed(deployment) => ("completed", Some(deployment)),
            ByLook::Open(older) => ("open", older),
        };
        (kind, deployment.map(|deployment| deployment.id.0.as_str()))
    }

    fn at(second: u64, deployment: SeenDeployment) -> SeenDeployment {
        SeenDeployment { created: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(second)), ..deployment }
    }

    fn silent(deployment: SeenDeployment) -> SeenDeployment {
        SeenDeployment { rollout: None, ..deployment }
    }

    #[test]
    fn only_what_completed_is_good() {
        for (look, expected) in [
            (look(seen("1", 2, Completed), vec![]), ("completed", Some("1"))),
            (look(seen("2", 2, InProgress), vec![seen("1", 2, Completed)]), ("completed", Some("1"))),
            (look(seen("2", 0, Failed), vec![seen("1", 2, Completed)]), ("completed", Some("1"))),
            (
                look(
                    seen("4", 0, InProgress),
                    vec![
                        at(1, seen("1", 1, Completed)),
                        at(3, seen("3", 1, InProgress)),
                        at(2, seen("2", 1, Completed)),
                    ],
                ),
                ("completed", Some("2")),
            ),
            (
                look(seen("3", 0, InProgress), vec![at(1, seen("2", 1, Completed)), at(1, seen("1", 1, Completed))]),
                ("completed", Some("2")),
            ),
            (look(seen("2", 2, InProgress), vec![]), ("open", None)),
            (look(seen("2", 2, InProgress), vec![seen("1", 2, InProgress)]), ("open", Some("1"))),
            (look(silent(seen("1", 2, InProgress)), vec![]), ("completed", Some("1"))),
            (look(silent(seen("1", 1, InProgress)), vec![]), ("open", None)),
            (look(silent(seen("2", 2, InProgress)), vec![silent(seen("1", 0, InProgress))]), ("open", Some("1"))),
        ] {
            assert_eq!(found(&look), expected, "{look:?}");
        }
    }
}
