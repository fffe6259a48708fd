//! Preflight: what a service runs now, what deploying would change, and what to return to.

use reqwest::Url;

use super::{Clients, PATIENCE, check::Proof};
use crate::{
    config::Service,
    ecs::{DeploymentId, Error, ImageChange, Look, Meant, TaskDefinition, TaskDefinitionArn, version_of},
    git_sha::GitSha,
    image::common_git_sha,
    ping::Answer,
    poll,
};

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
}

/// What will prove that a version is live.
pub struct Proofs {
    /// For the new one.
    pub new: Proof,
    /// For the previous one, after a rollback.
    pub previous: Proof,
}

/// Decides what will count as proof, from the images that change and from what the url `answers` before the update.
///
/// The url proves nothing of the new version where the one before shows the same SHA already, or is at that SHA by its
/// images and doesn't show another. It proves the previous
/// one only where the images that change are tagged with one and the same Git SHA, and the url was seen to name it.
fn proofs(url: Option<&Url>, changes: &[ImageChange], version: &GitSha, answers: Option<&Answer>) -> Proofs {
    let counts = || Proofs { new: Proof::Counts, previous: Proof::Counts };
    let moving: Vec<_> = changes.iter().filter(|change| change.from != change.to).collect();
    let Some(url) = url else { return counts() };
    let shows_another = matches!(answers, Some(answer @ Answer::Version(_)) if !answer.shows(version));
    if answers.is_some_and(|answer| answer.shows(version)) || (moving.is_empty() && !shows_another) {
        return counts();
    }
    let previous = common_git_sha(moving.iter().map(|change| change.from.as_str()))
        .filter(|previous| answers.is_some_and(|answer| answer.shows(previous)));
    let by_url = |version: &GitSha| Proof::Url { url: url.clone(), version: version.clone() };
    Proofs { new: by_url(version), previous: previous.as_ref().map_or(Proof::Counts, by_url) }
}

/// Looks at `service`: it is ACTIVE, its deployment controller is ECS, its task definition can be read, and so can its
/// tasks where only they can prove anything.
pub async fn preflight<'a>(
    clients: &Clients,
    service: &'a Service,
    version: &'a GitSha,
) -> Result<Snapshot<'a>, Error> {
    let look = poll::answered(PATIENCE, async || clients.ecs.look(service).await).await?;
    let running = &look.primary.task_definition;
    let running = poll::answered(PATIENCE, async || clients.ecs.task_definition(service, running).await).await?;
    let changes = running.changes(version);
    if service.url.is_none() {
        look_at_tasks(clients, service).await?;
    }
    Ok(Snapshot { service, version, running, changes, primary: look.primary.id })
}

/// Looks at the service and its url once more, right before its first write.
pub async fn look_again(clients: &Clients, snapshot: &Snapshot<'_>) -> Result<(Look, Proofs), Error> {
    let service = snapshot.service;
    let look = poll::answered(PATIENCE, async || clients.ecs.look(service).await).await?;
    let answer = match &service.url {
        Some(url) => Some(clients.ping.get_patiently(url, service.request_timeout()).await),
        None => None,
    };
    let proofs = proofs(service.url.as_ref(), &snapshot.changes, snapshot.version, answer.as_ref());
    if service.url.is_some() && matches!(proofs.new, Proof::Counts) {
        look_at_tasks(clients, service).await?;
    }
    Ok((look, proofs))
}

/// Makes sure that the tasks can be looked at, before anything depends on it.
async fn look_at_tasks(clients: &Clients, service: &Service) -> Result<(), Error> {
    poll::answered(PATIENCE, async || clients.ecs.tasks(service, Meant::ToRun).await).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What proves the new and the previous version where one image, `from`, changes to `api:abcdef1`.
    fn decided(from: &str, answer: Option<&Answer>) -> (&'static str, &'static str) {
        let url = Url::parse("https://example.com/").expect("a url");
        let version = "abcdef1".parse().expect("a Git SHA");
        let changes = [ImageChange { container: "api".into(), from: from.into(), to: "api:abcdef1".into() }];
        let told = |proof| match proof {
            Proof::Url { .. } => "url",
            Proof::Counts => "counts",
        };
        let Proofs { new, previous } = proofs(Some(&url), &changes, &version, answer);
        (told(new), told(previous))
    }

    #[test]
    fn the_url_proves_what_it_can_tell_apart() {
        let shows = |text: &str| Some(Answer::Version(text.parse().expect("a Git SHA")));
        for (from, answer, expected) in [
            ("api:0000001", shows("0000001"), ("url", "url")),
            ("api:0000001", shows("0000001aaaa"), ("url", "url")),
            ("api:0000001", shows("0000002"), ("url", "counts")),
            ("api:0000001", Some(Answer::NoVersion(None)), ("url", "counts")),
            ("api:0000001", Some(Answer::Failed("answers 503".into())), ("url", "counts")),
            ("api:latest", shows("0000001"), ("url", "counts")),
            ("api:0000001", shows("abcdef1"), ("counts", "counts")),
            ("api:latest", shows("abcdef1aaaa"), ("counts", "counts")),
            ("api:abcdef1", shows("0000001"), ("url", "counts")),
            ("api:abcdef1", Some(Answer::NoVersion(None)), ("counts", "counts")),
            ("api:abcdef1", Some(Answer::Failed("answers 503".into())), ("counts", "counts")),
        ] {
            assert_eq!(decided(from, answer.as_ref()), expected, "{from} {answer:?}");
        }
    }
}
