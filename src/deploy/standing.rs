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
    /// Whether it undoes ours: ECS says that it rolls back, or the deployment is of what ran before. The latter is for a
    /// look that came late, when the reason that ECS gave has already changed.
    pub fn undoes_ours(&self, previous: &TaskDefinitionArn) -> bool {
        self.by_ecs || self.by.task_definition == *previous
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
    let ended = look.others.iter().find(|other| other.id == ours.id && other.rollout == Some(Rollout::Failed));
    Standing::Replaced(Replacement {
        by: primary.clone(),
        by_ecs: primary.rollout_reason.contains("rolling back"),
        reason: match ended {
            Some(ended) if !ended.rollout_reason.is_empty() => ended.rollout_reason.clone(),
            _ => primary.rollout_reason.clone(),
        },
    })
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
