//! Preflight: what a service runs now, what deploying would change, what to return to, and what stands in the way.

use std::collections::BTreeMap;

use futures_util::future::{join, join_all};
use reqwest::Url;

use super::{
    Clients, answered,
    check::Proof,
    known_good::{KnownGood, has_completed, is_under_way, known_good},
};
use crate::{
    aws::Error,
    config::Service,
    ecr::Found,
    ecs::{DeploymentId, ImageChange, Look, Meant, SeenDeployment, Strategy, TaskDefinition, TaskDefinitionArn},
    git_sha::GitSha,
    image::common_git_sha,
    ping::Answer,
    report::{self, Event},
};

/// What was seen of a service before anything was changed.
pub struct Snapshot<'a> {
    /// The service.
    pub service: &'a Service,
    /// The version to deploy.
    pub version: &'a GitSha,
    /// What runs now, and what the new revision is made from.
    pub running: TaskDefinition,
    /// What deploying makes of its images.
    pub changes: Vec<ImageChange>,
    /// What to return to.
    pub way_back: WayBack,
    /// The PRIMARY deployment at that time.
    pub primary: DeploymentId,
    /// Whether that has completed.
    pub has_completed: bool,
    /// How ECS exchanges the versions.
    pub strategy: Strategy,
    /// What the user should know before anything is changed.
    pub remarks: Vec<Remark>,
}

/// What a service returns to if the run fails.
pub enum WayBack {
    /// What runs now: it completed a deployment.
    Running,
    /// Another task definition, which was the last to complete a deployment.
    To(TaskDefinition),
    /// Nothing, and why.
    Nowhere(String),
}

/// Something that the user should know before anything is changed; nothing of it keeps a service from being deployed.
#[derive(Debug)]
pub enum Remark {
    /// What runs now has not completed a deployment, so that the way back leads elsewhere.
    ReturnsElsewhere {
        /// Where, and its version for people.
        to: (TaskDefinitionArn, String),
        /// Why that it completed a deployment is not known, but assumed.
        assumed: Option<String>,
    },
    /// What runs now has completed its deployment since the first look.
    HasCompleted(TaskDefinitionArn),
    /// There is nothing to return to, and why.
    NothingToReturnTo(String),
    /// The task definition to return to has been deregistered.
    Deregistered(TaskDefinitionArn),
    /// A deployment is under way that this run will replace.
    UnderWay(SeenDeployment),
    /// The url gives no answer or shows no version today.
    UrlShowsNoVersion(Url, Answer),
    /// An image of the version to return to is gone.
    PreviousImageGone(String),
    /// Whether these images exist can't be told, and why.
    ImagesUnknown(Vec<String>, String),
}

/// What keeps a service from being deployed: what is wrong, and the way out where one is known.
pub struct Problem {
    /// What is wrong.
    pub what: String,
    /// The way out.
    pub hint: Option<String>,
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self { what: error.to_string(), hint: error.hint() }
    }
}

impl Snapshot<'_> {
    /// What to return to, if there is anything.
    pub fn previous(&self) -> Option<&TaskDefinition> {
        match &self.way_back {
            WayBack::Running => Some(&self.running),
            WayBack::To(good) => Some(good),
            WayBack::Nowhere(_) => None,
        }
    }

    /// The task definitions that are known, with their versions for people.
    pub fn versions(&self) -> Vec<(TaskDefinitionArn, String)> {
        let other = match &self.way_back {
            WayBack::To(good) => Some(good),
            WayBack::Running | WayBack::Nowhere(_) => None,
        };
        [Some(&self.running), other].into_iter().flatten().map(|known| (known.arn.clone(), known.version())).collect()
    }

    /// Whether what runs now will do: all its images are at the version to deploy, and services can be updated to it.
    pub fn is_at_version(&self) -> bool {
        will_do(&self.running, &self.changes)
    }
}

impl WayBack {
    /// To what runs, which completed a deployment, unless that is deployed again.
    fn to_running(running: &TaskDefinition, changes: &[ImageChange]) -> Self {
        if will_do(running, changes) {
            return Self::Nowhere(format!("{} is what this run deploys, too", running.arn));
        }
        Self::Running
    }
}

/// See [`Snapshot::is_at_version`].
fn will_do(running: &TaskDefinition, changes: &[ImageChange]) -> bool {
    running.is_active() && changes.iter().all(|change| change.from == change.to)
}

/// What will prove that a version is live.
pub struct Proofs {
    /// For the new one.
    pub new: Proof,
    /// For the previous one, after a rollback.
    pub previous: Proof,
}

/// Decides what will count as proof, from the images that change, from those of the version to return to, and from what
/// the url `answers` before the update.
///
/// The url proves nothing of the new version where the one before shows the same SHA already, or is at that SHA by its
/// images and doesn't show another. It proves the previous one only where those of its images that change are tagged with
/// one and the same Git SHA, and the url was seen to name it.
fn proofs(
    url: Option<&Url>,
    changes: &[ImageChange],
    previous: &[ImageChange],
    version: &GitSha,
    answers: Option<&Answer>,
) -> Proofs {
    let counts = || Proofs { new: Proof::Counts, previous: Proof::Counts };
    let is_moving = |change: &&ImageChange| change.from != change.to;
    let Some(url) = url else { return counts() };
    let shows_another = matches!(answers, Some(answer @ Answer::Version(_)) if !answer.shows(version));
    let shows_version = answers.is_some_and(|answer| answer.shows(version));
    if shows_version || (!changes.iter().any(|change| is_moving(&change)) && !shows_another) {
        return counts();
    }
    let previous = common_git_sha(previous.iter().filter(is_moving).map(|change| change.from.as_str()))
        .filter(|previous| answers.is_some_and(|answer| answer.shows(previous)));
    let by_url = |version: &GitSha| Proof::Url { url: url.clone(), version: version.clone() };
    Proofs { new: by_url(version), previous: previous.as_ref().map_or(Proof::Counts, by_url) }
}

/// Looks at `service`: it is ACTIVE, its deployment controller is ECS, its task definition can be read, and so can its
/// tasks where only they can prove anything; the new images are there, as far as that can be told. Gives every problem
/// that was found.
pub async fn preflight<'a>(
    clients: &Clients<'_>,
    service: &'a Service,
    version: &'a GitSha,
) -> Result<Snapshot<'a>, Vec<Problem>> {
    let refused = |error| vec![Problem::from(error)];
    let look = answered(service, async || clients.ecs.look(service).await).await.map_err(refused)?;
    let running = &look.primary.task_definition;
    let describe = async |arn| answered(service, async || clients.ecs.task_definition(service, arn).await).await;
    let running = describe(running).await.map_err(refused)?;
    let changes = running.changes(version);
    let mut remarks = Vec::new();
    if is_under_way(&look) {
        remarks.push(Remark::UnderWay(look.primary.clone()));
    }

    let (good, assumed) = match known_good(clients, service, &look).await {
        KnownGood::Completed(good) => (Ok(good), None),
        KnownGood::Older(good, Some(error)) => (Ok(good), Some(error.in_short())),
        KnownGood::Older(good, None) => (Ok(good), Some("ECS's history doesn't reach back to it".to_owned())),
        KnownGood::Unknown(None) => (Err("no deployment of the service is known to have completed".to_owned()), None),
        KnownGood::Unknown(Some(error)) => (Err(format!("none is known that completed: {}", error.in_short())), None),
    };
    let way_back = match good {
        Ok(good) if good == running.arn => WayBack::to_running(&running, &changes),
        Ok(good) => match describe(&good).await {
            Ok(definition) => {
                let to = (good, definition.version());
                remarks.push(Remark::ReturnsElsewhere { to, assumed });
                WayBack::To(definition)
            }
            Err(error) => {
                WayBack::Nowhere(format!("{good} is what to return to, but can't be read: {}", error.in_short()))
            }
        },
        Err(why) => WayBack::Nowhere(why),
    };
    if let WayBack::Nowhere(why) = &way_back {
        remarks.push(Remark::NothingToReturnTo(why.clone()));
    }
    let (has_completed, strategy, primary) = (has_completed(&look), look.strategy, look.primary.id);
    let mut snapshot =
        Snapshot { service, version, running, changes, way_back, primary, has_completed, strategy, remarks };

    let asked = async {
        match &service.url {
            Some(url) => Some((url, clients.ping.get(url, service.request_timeout()).await)),
            None => None,
        }
    };
    let (images, asked) = join(look_at_images(clients, &snapshot), asked).await;
    let (mut problems, remarks) = images;
    if service.url.is_none()
        && let Err(error) = look_at_tasks(clients, service).await
    {
        problems.push(error.into());
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    if let Some(previous) = snapshot.previous().filter(|previous| !previous.is_active()) {
        let gone = Remark::Deregistered(previous.arn.clone());
        snapshot.remarks.push(gone);
    }
    snapshot.remarks.extend(remarks);
    if let Some((url, answer)) = asked.filter(|(_, answer)| !matches!(answer, Answer::Version(_))) {
        snapshot.remarks.push(Remark::UrlShowsNoVersion(url.clone(), answer));
    }
    Ok(snapshot)
}

/// Looks for the new images, of which a missing one is a problem, and for those of the version to return to.
async fn look_at_images(clients: &Clients<'_>, snapshot: &Snapshot<'_>) -> (Vec<Problem>, Vec<Remark>) {
    let new = snapshot.changes.iter().map(async |change| (change, clients.ecr.find(&change.to).await));
    let old = snapshot.previous().into_iter().flat_map(TaskDefinition::images);
    let old = old.map(async |image| (image, clients.ecr.find(image).await));
    let (new, old) = join(join_all(new), join_all(old)).await;
    let mut problems = Vec::new();
    let mut unknown: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (change, found) in new {
        match found {
            Found::There => {}
            Found::Missing => problems.push(Problem {
                what: format!("there is no image {} for container `{}`", change.to, change.container),
                hint: Some("push the image first, and check -gitsha".to_owned()),
            }),
            Found::CannotTell(why) => unknown.entry(why).or_default().push(change.to.clone()),
        }
    }
    let mut remarks: Vec<_> = unknown.into_iter().map(|(why, images)| Remark::ImagesUnknown(images, why)).collect();
    let gone = old.into_iter().filter(|(_, found)| *found == Found::Missing);
    remarks.extend(gone.map(|(image, _)| Remark::PreviousImageGone(image.to_owned())));
    (problems, remarks)
}

/// Looks at the service and its url once more, right before its first write. A deployment that has completed since
/// preflight is what the service returns to from now on.
pub async fn look_again(clients: &Clients<'_>, snapshot: &mut Snapshot<'_>) -> Result<(Look, Proofs), Error> {
    let service = snapshot.service;
    let look = answered(service, async || clients.ecs.look(service).await).await?;
    if look.primary.id == snapshot.primary && has_completed(&look) && !snapshot.has_completed {
        snapshot.has_completed = true;
        snapshot.way_back = WayBack::to_running(&snapshot.running, &snapshot.changes);
        let remark = match &snapshot.way_back {
            WayBack::Nowhere(why) => Remark::NothingToReturnTo(why.clone()),
            WayBack::Running | WayBack::To(_) => Remark::HasCompleted(snapshot.running.arn.clone()),
        };
        report::say(&service.name, &Event::Remark(&remark));
    }
    let snapshot = &*snapshot;
    let answer = match &service.url {
        Some(url) => Some(clients.ping.get_patiently(url, service.request_timeout()).await),
        None => None,
    };
    let previous = snapshot.previous().map(|previous| previous.changes(snapshot.version)).unwrap_or_default();
    let proofs = proofs(service.url.as_ref(), &snapshot.changes, &previous, snapshot.version, answer.as_ref());
    if service.url.is_some() && matches!(proofs.new, Proof::Counts) {
        look_at_tasks(clients, service).await?;
    }
    Ok((look, proofs))
}

/// Makes sure that the tasks can be looked at, before anything depends on it.
async fn look_at_tasks(clients: &Clients<'_>, service: &Service) -> Result<(), Error> {
    answered(service, async || clients.ecs.tasks(service, Meant::ToRun).await).await.map(drop)
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
        let Proofs { new, previous } = proofs(Some(&url), &changes, &changes, &version, answer);
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
