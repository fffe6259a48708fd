//! Where a deployment that gehen started stands, by one look at its service.

use super::replaced::Replacement;
use crate::ecs::{DeploymentId, Look, Rollout, SeenDeployment, ServiceDeploymentArn, Strategy, TaskDefinitionArn};

/// A deployment that an UpdateService of ours started, or that is only checked.
#[derive(Clone, Debug)]
#[expect(clippy::struct_field_names, reason = "ECS calls it the service deployment")]
pub struct Deployment {
    /// The id that ECS gave it.
    pub id: DeploymentId,
    /// What it deploys.
    pub task_definition: TaskDefinitionArn,
    /// The deployments that were there before it.
    pub before: Vec<DeploymentId>,
    /// Whether as many tasks ran before it as are desired, so that ECS had to keep them until new ones were healthy.
    pub relieves_all: bool,
    /// How ECS exchanges the versions.
    pub strategy: Strategy,
    /// The service deployment that it is part of, where ECS said so.
    pub service_deployment: Option<ServiceDeploymentArn>,
    /// The service deployment before it. ECS may name that one as the current for a while (kayac/ecspresso#945).
    pub earlier: Option<ServiceDeploymentArn>,
    /// Somebody else's deployments that it took the place of, in the gap between the last look and the update.
    pub displaced: Vec<SeenDeployment>,
    /// Whether it was there before this run, so that tasks may have failed that say nothing of it today.
    pub was_there: bool,
}

impl Deployment {
    /// The PRIMARY of `look`, which came after the deployments `before`.
    pub fn primary_of(look: &Look, before: Vec<DeploymentId>, relieves_all: bool) -> Self {
        Self {
            id: look.primary.id.clone(),
            task_definition: look.primary.task_definition.clone(),
            before,
            relieves_all,
            strategy: look.strategy,
            service_deployment: look.service_deployment.clone(),
            earlier: None,
            displaced: Vec::new(),
            was_there: false,
        }
    }

    /// It, begun after the look `before`.
    pub fn after(self, before: &Look, relieves_all: bool, displaced: Vec<SeenDeployment>) -> Self {
        let earlier = before.service_deployment.clone();
        let service_deployment = self.service_deployment.filter(|arn| Some(arn) != earlier.as_ref());
        Self { relieves_all, service_deployment, earlier, displaced, ..self }
    }

    /// The service deployment that it is part of, by a look that shows it as PRIMARY.
    pub fn service_deployment_in<'a>(&self, look: &'a Look) -> Option<&'a ServiceDeploymentArn> {
        look.service_deployment.as_ref().filter(|arn| Some(*arn) != self.earlier.as_ref())
    }
}

/// Whether as many tasks run, in whichever deployment, as the service is to have, and none failed since.
pub fn is_complete(look: &Look) -> bool {
    let running: usize = look.deployments().map(|deployment| deployment.running).sum();
    look.desired > 0 && running >= look.desired && look.primary.failed_tasks == 0
}

/// What one look says about our deployment.
#[derive(Debug)]
pub enum Standing<'a> {
    /// Nothing: the look is from before our update. DescribeServices may lag behind a write for some seconds
    /// (aws/aws-cli#9275).
    NotShownYet,
    /// It is the PRIMARY.
    Primary(&'a SeenDeployment),
    /// ECS ended it and left it in place.
    Failed(&'a SeenDeployment),
    /// Another deployment, which was not there before ours, is the PRIMARY.
    Replaced(Replacement),
}

/// Judges `look` by the id of our deployment and by nothing else.
pub fn judge<'a>(ours: &Deployment, look: &'a Look) -> Standing<'a> {
    let primary = &look.primary;
    if primary.id == ours.id {
        return match primary.rollout {
            Some(Rollout::Failed) => Standing::Failed(primary),
            _ => Standing::Primary(primary),
        };
    }
    if ours.before.contains(&primary.id) {
        return Standing::NotShownYet;
    }
    Standing::Replaced(Replacement::by_primary_of(look, Some(&ours.id)))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::deploy) fn seen(id: &str, running: usize, rollout: Rollout) -> SeenDeployment {
        SeenDeployment {
            id: DeploymentId(id.into()),
            task_definition: TaskDefinitionArn(format!("task-definition/api:{id}")),
            created: None,
            desired: 2,
            pending: 0,
            running,
            failed_tasks: 0,
            rollout: Some(rollout),
            rollout_reason: String::new(),
        }
    }

    pub(in crate::deploy) fn look(primary: SeenDeployment, others: Vec<SeenDeployment>) -> Look {
        Look {
            desired: 2,
            primary,
            others,
            load_balanced: true,
            is_daemon: false,
            minimum_healthy_percent: 100,
            has_alarms: false,
            rolls_back_itself: false,
            strategy: Strategy::Rolling,
            service_deployment: None,
            events: Vec::new(),
        }
    }

    pub(in crate::deploy) fn ours() -> Deployment {
        Deployment {
            id: DeploymentId("2".into()),
            task_definition: TaskDefinitionArn("task-definition/api:2".into()),
            before: vec![DeploymentId("1".into())],
            relieves_all: true,
            strategy: Strategy::Rolling,
            service_deployment: None,
            earlier: None,
            displaced: Vec::new(),
            was_there: false,
        }
    }

    fn verdict(look: &Look) -> &'static str {
        match judge(&ours(), look) {
            Standing::NotShownYet => "not shown yet",
            Standing::Primary(_) => "primary",
            Standing::Failed(_) => "failed",
            Standing::Replaced(Replacement { by_ecs: true, .. }) => "rolled back by ECS",
            Standing::Replaced(_) => "replaced",
        }
    }

    #[test]
    fn judges_by_the_id_alone() {
        use Rollout::{Completed, Failed, InProgress};
        let rolling_back = SeenDeployment {
            rollout_reason: "ECS deployment circuit breaker: rolling back to deploymentId ecs-svc/1.".into(),
            ..seen("3", 0, InProgress)
        };
        for (look, expected) in [
            (look(seen("1", 2, Completed), vec![]), "not shown yet"),
            (look(seen("2", 0, InProgress), vec![seen("1", 2, Completed)]), "primary"),
            (look(seen("2", 2, Completed), vec![]), "primary"),
            (look(seen("2", 0, Failed), vec![seen("1", 2, Completed)]), "failed"),
            (look(seen("3", 0, InProgress), vec![seen("2", 2, InProgress)]), "replaced"),
            (look(seen("3", 0, InProgress), vec![seen("2", 0, Failed)]), "replaced"),
            (look(rolling_back, vec![]), "rolled back by ECS"),
        ] {
            assert_eq!(verdict(&look), expected, "{look:?}");
        }
    }
}
