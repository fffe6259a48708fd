//! Where a deployment that gehen started stands, by one look at its service.

use crate::ecs::{DeploymentId, Look, Rollout, SeenDeployment, TaskDefinitionArn};

/// A deployment that an UpdateService of ours started.
#[derive(Clone, Debug)]
pub struct Deployment {
    /// The id that ECS gave it.
    pub id: DeploymentId,
    /// What it deploys.
    pub task_definition: TaskDefinitionArn,
    /// The deployments that were there before it.
    pub before: Vec<DeploymentId>,
    /// Whether as many tasks ran before it as are desired, so that ECS had to keep them until new ones were healthy.
    pub relieves_all: bool,
}

/// Whether as many tasks run, in whichever deployment, as the service is to have.
pub fn is_complete(look: &Look) -> bool {
    let running: usize = look.deployments().map(|deployment| deployment.running).sum();
    look.desired > 0 && running >= look.desired
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

/// The deployment that took the place of ours.
#[derive(Clone, Debug)]
pub struct Replacement {
    /// The PRIMARY.
    pub by: SeenDeployment,
    /// Whether the PRIMARY's reason says that ECS rolls back by itself, for the circuit breaker or an alarm
    /// (dg/deployment-circuit-breaker).
    pub by_ecs: bool,
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
            reason: if reason.is_empty() { by.rollout_reason.clone() } else { reason.to_owned() },
            by,
        }
    }

    /// Whether it undoes our deployment of `ours`: it is not of the same task definition, and ECS says that it rolls
    /// back, or it is of `previous`. The latter is for a look that came late, when ECS's reason has already changed.
    pub fn undoes(&self, ours: &TaskDefinitionArn, previous: &TaskDefinitionArn) -> bool {
        let by = &self.by.task_definition;
        by != ours && (self.by_ecs || by == previous)
    }
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
            desired: 2,
            pending: 0,
            running,
            failed_tasks: 0,
            rollout: Some(rollout),
            rollout_reason: String::new(),
        }
    }

    pub(in crate::deploy) fn look(primary: SeenDeployment, others: Vec<SeenDeployment>) -> Look {
        Look { desired: 2, primary, others, load_balanced: true, minimum_healthy_percent: 100, newest_event: None }
    }

    pub(in crate::deploy) fn ours() -> Deployment {
        Deployment {
            id: DeploymentId("2".into()),
            task_definition: TaskDefinitionArn("task-definition/api:2".into()),
            before: vec![DeploymentId("1".into())],
            relieves_all: true,
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
    fn only_another_task_definition_undoes_ours() {
        let arn = |revision: &str| TaskDefinitionArn(format!("task-definition/api:{revision}"));
        let undoes = |id: &str, reason: &str, ours: &str, previous: &str| {
            let primary = SeenDeployment { rollout_reason: reason.into(), ..seen(id, 0, Rollout::InProgress) };
            let replacement = Replacement::by_primary_of(&look(primary, vec![]), None);
            replacement.undoes(&arn(ours), &arn(previous))
        };
        assert!(undoes("1", "", "2", "1"));
        assert!(undoes("0", "rolling back to deploymentId ecs-svc/0", "2", "1"));
        assert!(!undoes("3", "", "2", "1"));
        assert!(!undoes("2", "", "2", "2"));
        assert!(!undoes("2", "rolling back to deploymentId ecs-svc/2", "2", "1"));
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
