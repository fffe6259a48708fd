//! update-service: points a service at a task definition, which starts a deployment, and never starts a second one.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{
    Clients,
    replaced::Replacement,
    standing::{Deployment, is_complete},
};
use crate::{
    aws::{Error, Fate},
    config::Service,
    ecs::{DeploymentId, Haste, Look, SeenDeployment, TaskDefinitionArn},
    poll::Backoff,
    report::{self, Event},
    text::excerpt,
};

/// How long a look may be from before a write: "some seconds" in aws/aws-cli#9275.
pub const READS_MAY_BE_STALE: Duration = Duration::from_secs(10);

/// Why there is no deployment of ours to watch.
#[derive(Debug)]
pub enum NotUpdated {
    /// ECS refused the update: it has not happened.
    Refused(Error),
    /// The time for it ran out, and it may have happened.
    Unclear(Error),
    /// Another deployment began before ours could.
    Superseded(Replacement),
}

/// Updates `service` to `task_definition`, trying for as long as `patience` while ECS stumbles. `last_look` preceded
/// it; `also` are deployments that were there before it, too, should that look not show them. Every further try is
/// preceded by a look too, in this `haste`: a lost answer may belong to an update that happened, which shows within the time that reads
/// may be stale, and in the meantime somebody else may have deployed.
pub async fn update(
    clients: &Clients<'_>,
    service: &Service,
    task_definition: &TaskDefinitionArn,
    last_look: &Look,
    also: &[DeploymentId],
    patience: Duration,
    haste: Haste,
) -> Result<Deployment, NotUpdated> {
    let deadline = Instant::now() + patience;
    let before = last_look.deployments().map(|deployment| &deployment.id).chain(also);
    let before: Vec<_> = before.cloned().collect();
    let begun = |look: &Look, ours: Deployment| {
        let displaced: Vec<_> = displaced(look, &ours, &before).cloned().collect();
        for displaced in &displaced {
            report::say(&service.name, &Event::Displaced(displaced));
        }
        ours.after(last_look, is_complete(last_look), displaced)
    };
    let mut backoff = Backoff::default();
    let mut unclear = false;
    loop {
        let error = match clients.ecs.update(service, task_definition).await {
            Ok(look) => match since(&look, task_definition, &before) {
                Since::Ours(deployment) => return Ok(begun(&look, deployment)),
                // ECS said yes, so the answer can only be late in showing it.
                Since::Nothing => Error::unknown("UpdateService", "the answer doesn't show the new deployment"),
                Since::Another(replacement) => return Err(NotUpdated::Superseded(replacement)),
            },
            Err(error) if error.fate == Fate::Refused && !unclear => return Err(NotUpdated::Refused(error)),
            Err(error) if error.fate == Fate::Refused => return Err(NotUpdated::Unclear(error)),
            Err(error) => error,
        };
        report::say(&service.name, &Event::Stumbled(&excerpt(&error.to_string())));
        unclear |= error.fate == Fate::Unknown;
        let shows_by = Instant::now() + if error.fate == Fate::Unknown { READS_MAY_BE_STALE } else { Duration::ZERO };
        loop {
            sleep(backoff.pause()).await;
            let look = clients.ecs.look(service, haste).await;
            match look.as_ref().map(|look| (look, since(look, task_definition, &before))) {
                Ok((look, Since::Ours(deployment))) => return Ok(begun(look, deployment)),
                Ok((_, Since::Another(replacement))) => return Err(NotUpdated::Superseded(replacement)),
                Ok((_, Since::Nothing)) if Instant::now() >= shows_by => break,
                _ if Instant::now() >= deadline.max(shows_by) => break,
                _ => {}
            }
        }
        if Instant::now() >= deadline {
            return Err(NotUpdated::Unclear(error));
        }
    }
}

/// The deployments in `look` that began after `before` were seen, and that `ours` took the place of.
fn displaced<'a>(
    look: &'a Look,
    ours: &Deployment,
    before: &[DeploymentId],
) -> impl Iterator<Item = &'a SeenDeployment> {
    // One of our own task definition may be of an earlier try of this update.
    let is_foreign =
        |other: &&SeenDeployment| !before.contains(&other.id) && other.task_definition != ours.task_definition;
    look.others.iter().filter(is_foreign)
}

/// What has begun since the deployments `before` were seen.
#[derive(Debug)]
pub enum Since {
    /// Nothing that this look shows.
    Nothing,
    /// The deployment that our update started: a new PRIMARY with our task definition.
    Ours(Deployment),
    /// A new PRIMARY with another one.
    Another(Replacement),
}

/// Finds out from `look` what has begun since `before`, where the id of our deployment is not known.
pub fn since(look: &Look, task_definition: &TaskDefinitionArn, before: &[DeploymentId]) -> Since {
    let primary = &look.primary;
    if before.contains(&primary.id) {
        Since::Nothing
    } else if primary.task_definition == *task_definition {
        // What ours displaced may have begun after `before` was seen.
        let displaced = look.others.iter().map(|other| other.id.clone());
        let before = before.iter().cloned().chain(displaced).collect();
        Since::Ours(Deployment::primary_of(look, before, false))
    } else {
        Since::Another(Replacement::by_primary_of(look, None))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::standing::tests::{look, ours, seen},
        *,
    };
    use crate::ecs::Rollout::{Completed, InProgress};

    #[test]
    fn what_ours_displaced_was_there_before_it() {
        let ours = ours();
        let late = look(seen("2", 0, InProgress), vec![seen("foreign", 1, InProgress), seen("1", 2, Completed)]);
        let Since::Ours(found) = since(&late, &ours.task_definition, &ours.before) else { panic!("ours is PRIMARY") };
        assert!(found.before.contains(&DeploymentId("foreign".into())));
        let told: Vec<_> = displaced(&late, &found, &ours.before).map(|other| &*other.id.0).collect();
        assert_eq!(told, ["foreign"]);
    }

    #[test]
    fn only_a_new_primary_with_our_task_definition_is_ours() {
        let ours = ours();
        let begun = |id: &str| {
            let look = look(seen(id, 0, InProgress), vec![seen("1", 2, Completed)]);
            match since(&look, &ours.task_definition, &ours.before) {
                Since::Nothing => "nothing",
                Since::Ours(_) => "ours",
                Since::Another(_) => "another",
            }
        };
        assert_eq!(begun("1"), "nothing");
        assert_eq!(begun("2"), "ours");
        assert_eq!(begun("3"), "another");
    }
}
