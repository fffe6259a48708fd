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
    config::{Service, UpdateStrategy},
    ecr::Found,
    ecs::{
        DeploymentId, Haste, ImageChange, Look, Meant, SeenDeployment, Strategy, TaskDefinition, TaskDefinitionArn,
        Unclear,
    },
    git_sha::GitSha,
    image::{Image, common_git_sha},
    ping::Answer,
    report::{self, Event},
};

/// What was seen of a service before anything was changed.
pub struct Snapshot<'a> {
    /// The service.
    pub service: &'a Service,
    /// The version to deploy.
    pub version: &'a GitSha,
    /// What runs now.
    pub running: TaskDefinition,
    /// The family's newest revision, where that is another and is to be deployed at the new version.
    pub newest: Option<TaskDefinition>,
    /// What deploying makes of the images of what is deployed.
    pub changes: Vec<ImageChange>,
    /// What to return to.
    pub way_back: WayBack,
    /// The PRIMARY deployment at that time.
    pub primary: DeploymentId,
    /// Whether a task of it runs, or none is to.
    pub has_tasks: bool,
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
    /// The new revision is made from this one, the family's newest, which doesn't run.
    MadeFromNewest(TaskDefinitionArn),
    /// A deployment is under way that this run will replace.
    UnderWay(SeenDeployment),
    /// The url gives no answer or shows no version today.
    UrlShowsNoVersion(Url, Answer),
    /// A target of a rule names a family, and no revision of it.
    NamesNoRevision {
        /// The family.
        family: TaskDefinitionArn,
        /// Whether the rule is to stay as it is.
        stays: bool,
    },
    /// No service is part of the run that would prove the version before a rule runs it.
    NothingProvesFirst,
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

    /// What the new revision is made from.
    pub fn base(&self) -> &TaskDefinition {
        self.newest.as_ref().unwrap_or(&self.running)
    }

    /// The base, where it will do as it is: none of its images is to change, and services can be updated to it.
    pub fn ready(&self) -> Option<&TaskDefinition> {
        let base = self.base();
        let will_do = base.is_active() && self.changes.iter().all(|change| change.from == change.to);
        will_do.then_some(base)
    }

    /// Whether a new revision is to be registered.
    pub fn registers(&self) -> bool {
        self.service.update_strategy.makes_revision() && self.ready().is_none()
    }

    /// The version that `proof` shows to be live: the url names it, or the images are tagged with it. An image that is
    /// deployed as it is, under another tag, may be of any version.
    pub fn version_proven_by(&self, proof: &Proof) -> Option<GitSha> {
        let is_tagged = match self.service.update_strategy {
            UpdateStrategy::Current | UpdateStrategy::Latest => true,
            UpdateStrategy::Redeploy | UpdateStrategy::None => {
                let is_version = |change: &ImageChange| {
                    Image::parse(&change.from).git_sha().is_some_and(|sha| sha.names_same_commit_as(self.version))
                };
                self.running.changes(self.version).iter().all(is_version)
            }
        };
        (is_tagged || matches!(proof, Proof::Url { .. })).then(|| self.version.clone())
    }

    /// Takes notice of a later `look`, right before the first write: a deployment that has completed since preflight is
    /// what the service returns to from now on.
    pub fn learn(&mut self, look: &Look) {
        let is_news = look.primary.id == self.primary && has_completed(look) && !self.has_completed;
        if !is_news || self.service.update_strategy == UpdateStrategy::None {
            return;
        }
        self.has_completed = true;
        self.way_back = self.way_back_to_running();
        let remark = match &self.way_back {
            WayBack::Nowhere(why) => Remark::NothingToReturnTo(why.clone()),
            WayBack::Running | WayBack::To(_) => Remark::HasCompleted(self.running.arn.clone()),
        };
        report::say(&self.service.name, &Event::Remark(&remark));
    }

    /// The way back to what runs, which completed a deployment, unless that is deployed again.
    fn way_back_to_running(&self) -> WayBack {
        match self.ready() {
            Some(ready) if ready.arn == self.running.arn => {
                WayBack::Nowhere(format!("{} is what this run deploys, too", ready.arn))
            }
            _ => WayBack::Running,
        }
    }
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
/// images and doesn't show another. It proves the previous one only where those of its images that change are tagged
/// with one and the same Git SHA, and the url was seen to name it.
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
/// tasks where only they can prove anything; which containers get the new tag is clear, and the new images are there,
/// as far as that can be told. Gives every problem that was found.
pub async fn preflight<'a>(
    clients: &Clients<'_>,
    service: &'a Service,
    version: &'a GitSha,
) -> Result<Snapshot<'a>, Vec<Problem>> {
    let refused = |error| vec![Problem::from(error)];
    let look = answered(service, async || clients.ecs.look(service, Haste::None).await).await.map_err(refused)?;
    let running = describe(clients, service, &look.primary.task_definition).await.map_err(refused)?;
    let mut snapshot = Snapshot {
        service,
        version,
        changes: Vec::new(),
        running,
        newest: None,
        way_back: WayBack::Running,
        primary: look.primary.id.clone(),
        has_tasks: look.primary.running > 0 || look.primary.desired == 0,
        has_completed: has_completed(&look),
        strategy: look.strategy,
        remarks: Vec::new(),
    };
    let mut problems = Vec::new();
    if service.update_strategy == UpdateStrategy::Latest {
        let arn = &snapshot.running.arn;
        let newest = answered(service, async || clients.ecs.newest_of_family(service, arn).await).await;
        let newest = newest.map_err(refused)?.choosing(service.containers.as_deref());
        if newest.arn != *arn {
            snapshot.remarks.push(Remark::MadeFromNewest(newest.arn.clone()));
            snapshot.newest = Some(newest);
        }
    }
    problems.extend(look_at_choice(&snapshot));
    snapshot.changes = match service.update_strategy {
        UpdateStrategy::Current | UpdateStrategy::Latest => snapshot.base().changes(version),
        // Nothing changes, but the images must be there still.
        UpdateStrategy::Redeploy => {
            let stays = |change: ImageChange| ImageChange { to: change.from.clone(), ..change };
            snapshot.running.changes(version).into_iter().map(stays).collect()
        }
        UpdateStrategy::None => Vec::new(),
    };
    if service.update_strategy != UpdateStrategy::None {
        if is_under_way(&look) {
            snapshot.remarks.push(Remark::UnderWay(look.primary.clone()));
        }
        find_way_back(clients, &mut snapshot, &look).await;
    }

    let asked = async {
        match &service.url {
            Some(url) => Some((url, clients.ping.get(url, &service.header, service.request_timeout()).await)),
            None => None,
        }
    };
    let ((missing, remarks), asked) = join(look_at_images(clients, &snapshot), asked).await;
    problems.extend(missing);
    if service.url.is_none()
        && let Err(error) = look_at_tasks(clients, service).await
    {
        problems.push(error.into());
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    snapshot.remarks.extend(remarks);
    if let Some((url, answer)) = asked.filter(|(_, answer)| !matches!(answer, Answer::Version(_))) {
        snapshot.remarks.push(Remark::UrlShowsNoVersion(url.clone(), answer));
    }
    Ok(snapshot)
}

/// DescribeTaskDefinition, with the containers chosen that the service names.
async fn describe(clients: &Clients<'_>, service: &Service, arn: &TaskDefinitionArn) -> Result<TaskDefinition, Error> {
    let described = answered(service, async || clients.ecs.task_definition(service, arn).await).await?;
    Ok(described.choosing(service.containers.as_deref()))
}

/// What is wrong with the choice of containers, or with deploying what is there as the version.
fn look_at_choice(snapshot: &Snapshot<'_>) -> Option<Problem> {
    let (base, strategy) = (snapshot.base(), snapshot.service.update_strategy);
    let makes_revision = strategy.makes_revision();
    match base.check_choice() {
        Err(Unclear::SeveralRepositories(_)) if !makes_revision => {}
        Err(unclear) => return Some(Problem::unclear(&base.arn, &unclear)),
        Ok(()) => {}
    }
    if makes_revision {
        return None;
    }
    if strategy == UpdateStrategy::Redeploy && !base.is_active() {
        return Some(Problem {
            what: format!("{} has been deregistered, and `updateStrategy: redeploy` registers nothing", base.arn),
            hint: Some("use `updateStrategy: current` or `latest`".to_owned()),
        });
    }
    // A sidecar may well have a SHA of its own.
    let shas: Vec<_> =
        base.changes(snapshot.version).iter().filter_map(|change| Image::parse(&change.from).git_sha()).collect();
    if shas.iter().any(|sha| sha.names_same_commit_as(snapshot.version)) {
        return None;
    }
    let another = shas.first()?;
    let name = if strategy == UpdateStrategy::None { "none" } else { "redeploy" };
    Some(Problem {
        what: format!(
            "{} runs, whose images are tagged {another}, not {}, and `updateStrategy: {name}` registers no other",
            base.arn, snapshot.version
        ),
        hint: Some("give that version with -gitsha, or use `updateStrategy: current` or `latest`".to_owned()),
    })
}

/// What is wrong with the choice of containers of what a new revision is to be made from.
pub fn unclear_choice(base: &TaskDefinition) -> Option<Problem> {
    base.check_choice().err().map(|unclear| Problem::unclear(&base.arn, &unclear))
}

impl Problem {
    fn unclear(of: &TaskDefinitionArn, unclear: &Unclear) -> Self {
        match unclear {
            Unclear::SeveralRepositories(containers) => Self::several_repositories(of, containers),
            Unclear::NoSuchContainer { name, known } => Self::no_such_container(of, name, known),
        }
    }

    fn several_repositories(of: &TaskDefinitionArn, containers: &[(String, String)]) -> Self {
        let is_tagged = |(_, image): &&(String, String)| Image::parse(image).git_sha().is_some();
        let tagged: Vec<_> = containers.iter().filter(is_tagged).map(|(name, _)| name.as_str()).collect();
        let example =
            if tagged.is_empty() { String::new() } else { format!(", as in `containers: [{}]`", tagged.join(", ")) };
        let containers: Vec<_> = containers.iter().map(|(name, image)| format!("`{name}` ({image})")).collect();
        Self {
            what: format!(
                "the images of {of} are of several repositories and not all tagged with a Git SHA, so it isn't clear \
                 which get the new tag: {}",
                containers.join(", ")
            ),
            hint: Some(format!("name those that do under the key `containers`{example}")),
        }
    }

    fn no_such_container(of: &TaskDefinitionArn, name: &str, known: &[String]) -> Self {
        let known: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
        Self {
            what: format!("{of} has no container `{name}`; it has {}", known.join(", ")),
            hint: Some("name one of those under the key `containers`".to_owned()),
        }
    }
}

/// Finds out what the service returns to, and remarks what the user should know of it.
async fn find_way_back(clients: &Clients<'_>, snapshot: &mut Snapshot<'_>, look: &Look) {
    let service = snapshot.service;
    let (good, assumed) = match known_good(clients, service, look).await {
        KnownGood::Completed(good) => (Ok(good), None),
        KnownGood::Older(good, Some(error)) => (Ok(good), Some(error.in_short())),
        KnownGood::Older(good, None) => (Ok(good), Some("ECS's history doesn't reach back to it".to_owned())),
        KnownGood::Unknown(None) => (Err("no deployment of the service is known to have completed".to_owned()), None),
        KnownGood::Unknown(Some(error)) => (Err(format!("none is known that completed: {}", error.in_short())), None),
    };
    snapshot.way_back = match good {
        Ok(good) if good == snapshot.running.arn => snapshot.way_back_to_running(),
        Ok(good) => match describe(clients, service, &good).await {
            Ok(definition) => {
                let to = (good, definition.version());
                snapshot.remarks.push(Remark::ReturnsElsewhere { to, assumed });
                WayBack::To(definition)
            }
            Err(error) => {
                WayBack::Nowhere(format!("{good} is what to return to, but can't be read: {}", error.in_short()))
            }
        },
        Err(why) => WayBack::Nowhere(why),
    };
    let remark = match (&snapshot.way_back, snapshot.previous()) {
        (WayBack::Nowhere(why), _) => Some(Remark::NothingToReturnTo(why.clone())),
        (_, Some(previous)) if !previous.is_active() => Some(Remark::Deregistered(previous.arn.clone())),
        _ => None,
    };
    snapshot.remarks.extend(remark);
}

/// Looks for the new images, of which a missing one is a problem, and for those of the version to return to.
async fn look_at_images(clients: &Clients<'_>, snapshot: &Snapshot<'_>) -> (Vec<Problem>, Vec<Remark>) {
    if snapshot.service.update_strategy == UpdateStrategy::None {
        return (Vec::new(), Vec::new());
    }
    let previous = snapshot.previous().into_iter().flat_map(TaskDefinition::images);
    find_images(clients, &snapshot.changes, previous).await
}

/// Looks for what images are to become, of which a missing one is a problem, and for those of the `previous` version.
pub async fn find_images<'a>(
    clients: &Clients<'_>,
    changes: &[ImageChange],
    previous: impl IntoIterator<Item = &'a str>,
) -> (Vec<Problem>, Vec<Remark>) {
    let new = changes.iter().map(async |change| (change, clients.ecr.find(&change.to).await));
    let old = previous.into_iter().map(async |image| (image, clients.ecr.find(image).await));
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

/// Decides what will count as proof, by what the service's url, if it has one, answers now, right before the update.
pub async fn choose_proofs(clients: &Clients<'_>, snapshot: &Snapshot<'_>) -> Result<Proofs, Error> {
    let service = snapshot.service;
    let answer = match &service.url {
        Some(url) => Some(clients.ping.get_patiently(url, &service.header, service.request_timeout()).await),
        None => None,
    };
    let proofs = match (service.update_strategy, &service.url) {
        (UpdateStrategy::None, Some(url)) => {
            Proofs { new: Proof::Url { url: url.clone(), version: snapshot.version.clone() }, previous: Proof::Counts }
        }
        (_, url) => {
            let (running, version) = (snapshot.running.changes(snapshot.version), snapshot.version);
            let previous = snapshot.previous().map(|previous| previous.changes(version)).unwrap_or_default();
            proofs(url.as_ref(), &running, &previous, version, answer.as_ref())
        }
    };
    if service.url.is_some() && matches!(proofs.new, Proof::Counts) {
        look_at_tasks(clients, service).await?;
    }
    Ok(proofs)
}

/// Makes sure that the tasks can be looked at, before anything depends on it.
async fn look_at_tasks(clients: &Clients<'_>, service: &Service) -> Result<(), Error> {
    answered(service, async || clients.ecs.tasks(service, Meant::ToRun, Haste::None).await).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::SERVER;

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
            ("api:0000001", Some(Answer::NoVersion { header: SERVER, says: None }), ("url", "counts")),
            ("api:0000001", Some(Answer::Failed("answers 503".into())), ("url", "counts")),
            ("api:latest", shows("0000001"), ("url", "counts")),
            ("api:0000001", shows("abcdef1"), ("counts", "counts")),
            ("api:latest", shows("abcdef1aaaa"), ("counts", "counts")),
            ("api:abcdef1", shows("0000001"), ("url", "counts")),
            ("api:abcdef1", Some(Answer::NoVersion { header: SERVER, says: None }), ("counts", "counts")),
            ("api:abcdef1", Some(Answer::Failed("answers 503".into())), ("counts", "counts")),
        ] {
            assert_eq!(decided(from, answer.as_ref()), expected, "{from} {answer:?}");
        }
    }
}
