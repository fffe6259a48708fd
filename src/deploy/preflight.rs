//! Preflight: what a service runs now, what deploying would change, and what to return to.

use std::time::Duration;

use super::{Clients, check::Proof};
use crate::{
    config::Service,
    ecs::{DeploymentId, Error, ImageChange, Look, TaskDefinition, TaskDefinitionArn, version_of},
    git_sha::GitSha,
    image::common_git_sha,
    ping::Answer,
    poll,
};

/// How long preflight tries to get an answer out of an API that stumbles.
const PATIENCE: Duration = Duration::from_mins(1);

/// What was seen of a service before anything was changed.
pub struct Snapshot<'a> {
    /// The service.
    pub service: &'a Service,
    /// The version to deploy.
    pub version: &'a GitSha,
    /// What runs now, and what to return to.
    pub running: TaskDefinition,
    /// What deploying makes of its images.
    pub changes: Vec<ImageChange>,
    /// The PRIMARY deployment at that time.
    pub primary: DeploymentId,
    /// What the url answered, if there is one.
    pub answer: Option<Answer>,
}

impl Snapshot<'_> {
    /// The task definition to return to.
    pub fn previous(&self) -> &TaskDefinitionArn {
        &self.running.arn
    }

    /// The version that runs now, for people.
    pub fn previous_version(&self) -> String {
        version_of(self.running.images())
    }

    /// Whether all images are at the version to deploy already, so that no new revision is needed.
    pub fn is_at_version(&self) -> bool {
        self.changes.iter().all(|change| change.from == change.to)
    }

    /// What proves that the new version is live. The url proves nothing where the old version shows the same SHA
    /// already.
    pub fn proof_of_new(&self) -> Proof {
        let told_apart =
            !self.is_at_version() && !self.answer.as_ref().is_some_and(|answer| answer.shows(self.version));
        match &self.service.url {
            Some(url) if told_apart => Proof::Url { url: url.clone(), version: self.version.clone() },
            _ => Proof::Counts,
        }
    }

    /// What proves that the previous version is live again: the url, where the images that were changed are tagged with
    /// one and the same Git SHA, which isn't the new one, and the url was not seen to answer without any version.
    pub fn proof_of_previous(&self) -> Proof {
        let changed = self.changes.iter().filter(|change| change.from != change.to);
        let version = common_git_sha(changed.map(|change| change.from.as_str()));
        match (&self.service.url, version, self.proof_of_new()) {
            (Some(url), Some(version), Proof::Url { .. })
                if !version.names_same_commit_as(self.version)
                    && !matches!(self.answer, Some(Answer::NoVersion(_))) =>
            {
                Proof::Url { url: url.clone(), version }
            }
            _ => Proof::Counts,
        }
    }
}

/// Looks at `service`: it is ACTIVE, its deployment controller is ECS, and its task definition can be read.
pub async fn preflight<'a>(
    clients: &Clients,
    service: &'a Service,
    version: &'a GitSha,
) -> Result<Snapshot<'a>, Error> {
    let look = poll::answered(PATIENCE, async || clients.ecs.look(service).await).await?;
    let running = &look.primary.task_definition;
    let running = poll::answered(PATIENCE, async || clients.ecs.task_definition(service, running).await).await?;
    let changes = running.changes(version);
    let answer = match &service.url {
        Some(url) => Some(clients.ping.get(url).await),
        None => None,
    };
    Ok(Snapshot { service, version, running, changes, primary: look.primary.id, answer })
}

/// Looks at the service once more, right before its first write.
pub async fn look_again(clients: &Clients, snapshot: &Snapshot<'_>) -> Result<Look, Error> {
    poll::answered(PATIENCE, async || clients.ecs.look(snapshot.service).await).await
}
