//! The deployment that took the place of ours: ECS's own rollback, or somebody else's.

use super::Clients;
use crate::{
    config::Service,
    ecs::{DeploymentId, Haste, Look, Rollout, SeenDeployment, ServiceDeploymentArn, TaskDefinitionArn},
};

/// The deployment that took the place of ours.
#[derive(Clone, Debug)]
pub struct Replacement {
    /// The PRIMARY.
    pub by: SeenDeployment,
    /// Whether ECS says that it rolls back by itself, for the circuit breaker or an alarm
    /// (dg/deployment-circuit-breaker, dg/deployment-alarm-failure).
    pub by_ecs: bool,
    /// Whether ECS was asked and knows of no rollback of its own.
    pub is_foreign: bool,
    /// Why ours ended, in ECS's words, where it says so.
    pub reason: String,
}

impl Replacement {
    /// The PRIMARY of `look`, as the replacement of the deployment `ours`, if its id is known.
    pub fn by_primary_of(look: &Look, ours: Option<&DeploymentId>) -> Self {
        let by = look.primary.clone();
        let ended = look.others.iter().find(|other| Some(&other.id) == ours && other.rollout == Some(Rollout::Failed));
        let reason = ended.map_or("", |ended| &ended.rollout_reason);
        Self {
            by_ecs: by.rollout_reason.contains("rolling back"),
            is_foreign: false,
            reason: if reason.is_empty() { by.rollout_reason.clone() } else { reason.to_owned() },
            by,
        }
    }

    /// Whether it undoes our deployment of `ours`: it is not of the same task definition, and ECS says that it rolls
    /// back, or it is of `previous`. The latter is for a look that came late, when ECS's reason has already changed and
    /// nothing else tells.
    pub fn undoes(&self, ours: &TaskDefinitionArn, previous: Option<&TaskDefinitionArn>) -> bool {
        let by = &self.by.task_definition;
        by != ours && !self.is_foreign && (self.by_ecs || Some(by) == previous)
    }
}

/// Asks ECS whether `replacement` is its own rollback of a deployment of `ours`, for a look that came so late that the
/// PRIMARY's reason has changed already: the service deployment `part_of` which that was remembers. Where that can't be
/// asked, for lack of a permission for one, it stays what it seemed.
pub async fn recognise(
    clients: &Clients<'_>,
    service: &Service,
    ours: &TaskDefinitionArn,
    part_of: Option<&ServiceDeploymentArn>,
    replacement: Replacement,
    haste: Haste,
) -> Replacement {
    let Some(arn) = part_of.filter(|_| !replacement.by_ecs) else { return replacement };
    match clients.ecs.service_deployment(service, arn, haste).await {
        Ok(seen) if !seen.is_rolled_back => Replacement { is_foreign: true, ..replacement },
        Ok(seen) if replacement.by.task_definition != *ours => {
            Replacement { by_ecs: true, reason: seen.reason, ..replacement }
        }
        _ => replacement,
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::standing::tests::{look, seen},
        *,
    };

    #[test]
    fn only_another_task_definition_undoes_ours() {
        let arn = |revision: &str| TaskDefinitionArn(format!("task-definition/api:{revision}"));
        let undoes = |id: &str, reason: &str, ours: &str, previous: Option<&str>| {
            let primary = SeenDeployment { rollout_reason: reason.into(), ..seen(id, 0, Rollout::InProgress) };
            let replacement = Replacement::by_primary_of(&look(primary, vec![]), None);
            replacement.undoes(&arn(ours), previous.map(arn).as_ref())
        };
        assert!(undoes("1", "", "2", Some("1")));
        assert!(undoes("0", "rolling back to deploymentId ecs-svc/0", "2", Some("1")));
        assert!(undoes("0", "rolling back to deploymentId ecs-svc/0", "2", None));
        assert!(!undoes("3", "", "2", Some("1")));
        assert!(!undoes("1", "", "2", None));
        assert!(!undoes("2", "", "2", Some("2")));
        assert!(!undoes("2", "rolling back to deploymentId ecs-svc/2", "2", Some("1")));
    }
}
