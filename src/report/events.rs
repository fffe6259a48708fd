//! What happens to a service or a scheduled task while a run goes on, and the words for it.

use std::{fmt, time::Duration};

use reqwest::Url;
use tracing::Level;

use super::schedule::RuleEvent;
use crate::{
    config::UpdateStrategy,
    deploy::{Attempt, Cause, Counts, LastSeen, Proof, Remark, Replacement, RolledBack, Snapshot, WayBack},
    ecs::{DeploymentId, ImageChange, SeenDeployment, TaskDefinition, TaskDefinitionArn},
    git_sha::GitSha,
    outcome::{Outcome, Reason},
    ping::Answer,
    text::{counted, duration, excerpt},
};

/// Something that happened to one service or scheduled task.
pub enum Event<'a> {
    /// Its turn to be deployed has come.
    Begins,
    /// What preflight found.
    Runs { running: &'a TaskDefinitionArn, version: &'a str, base: &'a TaskDefinition, has_tasks: bool },
    /// What preflight found that doesn't keep the service from being deployed.
    Remark(&'a Remark),
    /// It waits until it may make the write of this phase, for so long by now.
    AwaitsTurn { phase: Phase, took: Duration },
    /// It may make it.
    TurnCame,
    /// A new revision was registered.
    Registered { revision: &'a TaskDefinitionArn, changes: &'a [ImageChange] },
    /// What is there will do: it is at the version already, or is to be deployed as it is.
    NothingToRegister { ready: &'a TaskDefinitionArn, strategy: UpdateStrategy },
    /// What a run that changes nothing found: what would be deployed.
    WouldDeploy(&'a Snapshot<'a>),
    /// What a run that changes nothing found: where a rollback would go.
    WouldReturn(&'a Snapshot<'a>),
    /// The url can't tell the new version from the old one.
    UrlProvesNothing { version: &'a GitSha },
    /// UpdateService was answered.
    Updated { deployment: &'a DeploymentId, task_definition: &'a TaskDefinitionArn },
    /// ECS will move traffic and bake, so that the checks may take so much longer.
    ShiftsTraffic { name: &'static str, takes: Duration },
    /// The deploy check begins.
    Checking { proof: &'a Proof, timeout: Duration },
    /// The deploy check has passed.
    Live { how: &'a str },
    /// The drain check begins.
    Draining { proof: &'a Proof, timeout: Duration },
    /// The drain check has passed.
    Drained { how: &'a str },
    /// A look shows other counts than the one before.
    Counted(Counts<'a>),
    /// The url answers otherwise than before.
    UrlAnswered(&'a Answer),
    /// ECS did not answer a look.
    EcsNotAnswered(&'a str),
    /// A rollback can't be requested before ECS answers a look, and why it hasn't.
    RollbackAwaitsEcs { to: &'a TaskDefinitionArn, error: &'a str },
    /// ECS did not answer what was asked about tasks.
    TasksNotAnswered(&'a str),
    /// An event of the service's speaks of trouble.
    EcsSays(&'a str),
    /// A deployment that moves traffic has come to another stage.
    AtStage { name: &'static str, stage: &'a str },
    /// In which stage it is can't be told, and why.
    StageUnknown { name: &'static str, error: &'a str },
    /// Nothing but ECS's COMPLETED is waited for, and why.
    AwaitsCompleted(&'a str),
    /// A check goes on.
    StillWaits { took: Duration, left: Duration, seen: &'a LastSeen },
    /// A write was not answered as it should be.
    Stumbled(&'a str),
    /// A request was not answered, and is tried again for so long.
    TriesAgain { error: &'a str, limit: Duration },
    /// The phases of the service have ended.
    Ended { attempt: &'a Attempt, took: Duration, strategy: UpdateStrategy },
    /// A rollback is about to be requested.
    RollingBack { to: &'a TaskDefinitionArn, version: &'a str },
    /// The request to roll back was answered; with the deployment, where the answer tells it.
    RollbackRequested { to: &'a TaskDefinitionArn, deployment: Option<&'a DeploymentId> },
    /// The task definition to return to had been deregistered, and was registered again.
    RegisteredAgain { previous: &'a TaskDefinitionArn, copy: &'a TaskDefinitionArn },
    /// ECS has not yet taken the request to roll back by itself, and why.
    NotYetStopped(&'a str),
    /// ECS did not take it, and why.
    NotStopped(&'a str),
    /// The service goes back without gehen's doing.
    GoesBackByItself { to: &'a TaskDefinitionArn, by_ecs: bool },
    /// ECS has begun the rollback that it was asked for.
    GoesBackAsAsked { to: &'a TaskDefinitionArn },
    /// The update took the place of a deployment that somebody else began a moment before.
    Displaced(&'a SeenDeployment),
    /// The rollback has ended.
    RollbackEnded(&'a RolledBack),
    /// Something that happens only to the rule of a scheduled task.
    OfRule(RuleEvent<'a>),
}

/// The parts of a run, in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    #[default]
    Preflight,
    Register,
    Update,
    DeployCheck,
    DrainCheck,
    Rollback,
    End,
}

impl fmt::Display for Phase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Preflight => "preflight",
            Self::Register => "register",
            Self::Update => "update",
            Self::DeployCheck => "deploy check",
            Self::DrainCheck => "drain check",
            Self::Rollback => "rollback",
            Self::End => "end",
        })
    }
}

impl Event<'_> {
    /// The phase that it belongs to; none if it can happen in several, and then the service is in that one already.
    pub fn phase(&self) -> Option<Phase> {
        match self {
            Self::OfRule(event) => event.phase(),
            Self::AwaitsTurn { phase, .. } => Some(*phase),
            Self::Runs { .. } | Self::Remark(_) | Self::WouldDeploy(_) | Self::WouldReturn(_) => Some(Phase::Preflight),
            Self::Begins | Self::Registered { .. } | Self::NothingToRegister { .. } | Self::UrlProvesNothing { .. } => {
                Some(Phase::Register)
            }
            Self::Updated { .. } | Self::Stumbled(_) | Self::Displaced(_) => Some(Phase::Update),
            Self::ShiftsTraffic { .. } | Self::Checking { .. } | Self::Live { .. } => Some(Phase::DeployCheck),
            Self::Draining { .. } | Self::Drained { .. } => Some(Phase::DrainCheck),
            Self::RollingBack { .. }
            | Self::RollbackRequested { .. }
            | Self::RollbackAwaitsEcs { .. }
            | Self::RegisteredAgain { .. }
            | Self::NotYetStopped(_)
            | Self::NotStopped(_)
            | Self::GoesBackByItself { .. }
            | Self::GoesBackAsAsked { .. }
            | Self::RollbackEnded(_) => Some(Phase::Rollback),
            Self::Ended { .. }
            | Self::Counted(_)
            | Self::UrlAnswered(_)
            | Self::EcsNotAnswered(_)
            | Self::TasksNotAnswered(_)
            | Self::EcsSays(_)
            | Self::AtStage { .. }
            | Self::StageUnknown { .. }
            | Self::AwaitsCompleted(_)
            | Self::StillWaits { .. }
            | Self::TurnCame
            | Self::TriesAgain { .. } => None,
        }
    }

    /// How loud it is told. What the lines around it say as well is for those who ask for DEBUG.
    pub fn level(&self) -> Level {
        match self {
            Self::Begins | Self::TurnCame | Self::RollbackEnded(_) => Level::DEBUG,
            Self::Ended {
                attempt:
                    Attempt::Failed(_)
                    | Attempt::NotProven(_)
                    | Attempt::NotBegun(_)
                    | Attempt::Superseded(_)
                    | Attempt::Interrupted(_),
                ..
            } => Level::ERROR,
            Self::OfRule(event) => event.level(),
            Self::Ended { attempt: Attempt::Live(Outcome::Undetermined { .. }), .. }
            | Self::Stumbled(_)
            | Self::TriesAgain { .. }
            | Self::UrlProvesNothing { .. }
            | Self::RollingBack { .. }
            | Self::RollbackAwaitsEcs { .. }
            | Self::NotYetStopped(_)
            | Self::NotStopped(_)
            | Self::RegisteredAgain { .. }
            | Self::GoesBackByItself { .. }
            | Self::Displaced(_) => Level::WARN,
            Self::Remark(remark) => match remark {
                Remark::ImagesUnknown(..)
                | Remark::Deregistered(_)
                | Remark::HasCompleted(_)
                | Remark::MadeFromNewest(_) => Level::INFO,
                _ => Level::WARN,
            },
            _ => Level::INFO,
        }
    }
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runs { running, version, has_tasks, .. } => runs(formatter, running, version, *has_tasks),
            Self::Remark(remark) => remark.fmt(formatter),
            Self::Registered { revision, changes } => write!(formatter, "registered {revision}: {}", Images(changes)),
            Self::NothingToRegister { ready, strategy: UpdateStrategy::Redeploy } => {
                write!(formatter, "{ready} is deployed anew as it is, as `updateStrategy: redeploy` says")
            }
            Self::NothingToRegister { ready, .. } => {
                write!(formatter, "all images of {ready} are at this version already; no new revision is needed")
            }
            Self::WouldDeploy(snapshot) => would_deploy(formatter, snapshot),
            Self::WouldReturn(snapshot) => would_return(formatter, snapshot),
            Self::UrlProvesNothing { version } => write!(
                formatter,
                "the version before is {version} too, so the url can't tell them apart; ECS's counts will decide"
            ),
            Self::Updated { deployment, task_definition } => {
                write!(formatter, "updated to {task_definition}: deployment {deployment}")
            }
            Self::ShiftsTraffic { name, takes } => write!(
                formatter,
                "this is a {name} deployment: it is done when ECS says COMPLETED; each check may take {} longer, for its \
                 steps and bake time",
                duration(*takes)
            ),
            Self::Checking { proof: Proof::Url { url: address, version }, timeout } => {
                write!(
                    formatter,
                    "deploy check: waiting up to {} until {} shows {version}",
                    duration(*timeout),
                    url(address)
                )
            }
            Self::Checking { proof: Proof::Counts, timeout } => {
                write!(formatter, "deploy check: waiting up to {} until all new tasks run", duration(*timeout))
            }
            Self::Live { how } => write!(formatter, "deploy check passed: {how}"),
            Self::Draining { proof: Proof::Url { url: address, version }, timeout } => write!(
                formatter,
                "drain check: waiting up to {} until {} shows nothing but {version} and no old task runs",
                duration(*timeout),
                url(address)
            ),
            Self::Draining { proof: Proof::Counts, timeout } => {
                write!(formatter, "drain check: waiting up to {} until no old task runs", duration(*timeout))
            }
            Self::Drained { how } => write!(formatter, "drain check passed: {how}"),
            Self::Begins | Self::TurnCame => formatter.write_str("its turn has come"),
            Self::Counted(counts) => counts.fmt(formatter),
            Self::UrlAnswered(answer) => write!(formatter, "the url {answer}"),
            Self::RollbackAwaitsEcs { to, error } => {
                write!(formatter, "to be rolled back to {to} as soon as ECS says what runs ({error}); trying again")
            }
            Self::EcsNotAnswered(error) => write!(formatter, "ECS could not be asked ({error}); trying again"),
            Self::TasksNotAnswered(error) => {
                write!(formatter, "ECS could not be asked for the tasks ({error}); trying again")
            }
            Self::EcsSays(message) => write!(formatter, "ECS says: {}", excerpt(message)),
            Self::AtStage { name, stage } => {
                write!(formatter, "the {name} deployment is at stage {}", excerpt(stage))
            }
            Self::StageUnknown { name, error } => {
                write!(formatter, "the stage of the {name} deployment can't be told: {error}")
            }
            Self::AwaitsCompleted(why) => write!(formatter, "waiting until ECS says COMPLETED: {why}"),
            Self::StillWaits { took, left, seen } => {
                write!(formatter, "still waiting, {} gone, up to {} left: {seen}", duration(*took), duration(*left))
            }
            Self::AwaitsTurn { phase, took } => awaits_turn(formatter, *phase, *took),
            Self::TriesAgain { error, limit } => {
                write!(formatter, "{error}; trying again for up to {}", duration(*limit))
            }
            Self::Stumbled(error) => write!(formatter, "{error}; looking whether it happened"),
            Self::Ended { attempt, took, strategy } => ended(formatter, attempt, &duration(*took), *strategy),
            Self::RollingBack { to, version } => write!(formatter, "rolling back to {to} ({})", excerpt(version)),
            Self::RollbackRequested { to, deployment } => requested(formatter, to, *deployment),
            Self::RegisteredAgain { previous, copy } => {
                write!(formatter, "{previous} has been deregistered; registered {copy}, which is identical")
            }
            Self::NotYetStopped(why) => write!(formatter, "{why}; asking again"),
            Self::NotStopped(why) => write!(
                formatter,
                "ECS doesn't roll the deployment back on request ({why}); updating the service instead, which starts a \
                 whole new cycle"
            ),
            Self::GoesBackByItself { to, by_ecs } => goes_back(formatter, to, *by_ecs),
            Self::GoesBackAsAsked { to } => {
                write!(formatter, "ECS rolls back to {to}, as asked; watching until that is proven")
            }
            Self::Displaced(other) => write!(
                formatter,
                "this update displaced deployment {} of {}, which somebody else began a moment before and which is lost \
                 now: tell them",
                other.id, other.task_definition
            ),
            Self::RollbackEnded(RolledBack::Proven(_)) => formatter.write_str("the rollback is proven"),
            Self::RollbackEnded(_) => formatter.write_str("the rollback has ended"),
            Self::OfRule(event) => event.fmt(formatter),
        }
    }
}

impl fmt::Display for Counts<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(ours) = self.ours() else {
            let (ours, primary) = (self.deployment, &self.look.primary.id);
            return write!(formatter, "ECS doesn't show deployment {ours} (PRIMARY is {primary})");
        };
        write!(formatter, "{} of {} run {}", ours.running, counted(ours.desired, "task"), ours.task_definition)?;
        if ours.pending > 0 {
            write!(formatter, ", {} pending", ours.pending)?;
        }
        if ours.failed_tasks > 0 {
            write!(formatter, ", {} failed", ours.failed_tasks)?;
        }
        for (index, other) in self.others().enumerate() {
            let lead = if index == 0 { "; before it:" } else { "," };
            match other.running + other.pending {
                0 => write!(formatter, "{lead} those of {} are ending", other.task_definition),
                tasks => write!(formatter, "{lead} {} of {}", counted(tasks, "task"), other.task_definition),
            }?;
        }
        Ok(())
    }
}

impl fmt::Display for LastSeen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(answer) = &self.answer {
            write!(formatter, "the url {answer}; ")?;
        }
        let Some((look, age)) = &self.look else { return formatter.write_str("ECS answered no look") };
        if Self::is_old(*age) {
            write!(formatter, "{} ago ECS showed: ", duration(*age))?;
        }
        Counts { deployment: &self.deployment, look }.fmt(formatter)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.what)?;
        if !self.seen.is_empty() {
            write!(formatter, "; at last: {}", self.seen)?;
        }
        Ok(())
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReturnsElsewhere { to: (to, version), assumed: None } => write!(
                formatter,
                "what runs now has not completed a deployment; if this run fails, the service returns to {to} ({}), \
                 which has",
                excerpt(version)
            ),
            Self::ReturnsElsewhere { to: (to, version), assumed: Some(why) } => write!(
                formatter,
                "what runs now has not completed a deployment; if this run fails, the service returns to {to} ({}), \
                 which ran before; whether that ever completed one can't be told: {why}",
                excerpt(version)
            ),
            Self::HasCompleted(running) => write!(
                formatter,
                "{running} has completed its deployment by now; if this run fails, the service returns to it"
            ),
            Self::NothingToReturnTo(why) => {
                write!(
                    formatter,
                    "there is nothing to return to if this run fails: {why}; the service would be left as it is"
                )
            }
            Self::Deregistered(previous) => write!(
                formatter,
                "{previous} has been deregistered; if this run fails, an identical revision is registered to return to"
            ),
            Self::MadeFromNewest(newest) => {
                write!(formatter, "the new revision is made from {newest}, the newest of its family")
            }
            Self::UnderWay(deployment) => write!(
                formatter,
                "deployment {} of {} is still in progress; this run replaces it",
                deployment.id, deployment.task_definition
            ),
            Self::UrlShowsNoVersion(address, answer) => {
                write!(formatter, "today {} {answer}; the deploy check needs it to show the version", url(address))
            }
            Self::NamesNoRevision { family, stays } => write!(
                formatter,
                "a target names no revision of {}, so it runs the newest from the moment that one is registered, also \
                 for a service and before it is proven; {}",
                excerpt(&family.to_string()),
                if *stays { "gehen leaves it so, whatever becomes of that one" } else { "gehen will have it name one" }
            ),
            Self::NothingProvesFirst => {
                formatter.write_str("no service of this run proves the version first: the rule gets it unproven")
            }
            Self::PreviousImageGone(image) => write!(
                formatter,
                "image {} is gone from ECR: if this run fails, no task of the version to return to can start",
                excerpt(image)
            ),
            Self::ImagesUnknown(images, why) => {
                let (noun, verb) = if images.len() == 1 { ("image", "exists") } else { ("images", "exist") };
                let images: Vec<_> = images.iter().map(|image| excerpt(image)).collect();
                write!(formatter, "whether {noun} {} {verb} can't be told ({why}); going on", images.join(", "))
            }
        }
    }
}

/// That the turn for the write of `phase` is waited for.
fn awaits_turn(formatter: &mut fmt::Formatter<'_>, phase: Phase, took: Duration) -> fmt::Result {
    write!(formatter, "waiting for its turn to {phase}, {} gone", duration(took))
}

/// What was answered to the request to roll back.
fn requested(
    formatter: &mut fmt::Formatter<'_>,
    to: &TaskDefinitionArn,
    deployment: Option<&DeploymentId>,
) -> fmt::Result {
    match deployment {
        Some(deployment) => write!(formatter, "updated back to {to}: deployment {deployment}"),
        None => write!(formatter, "ECS has been asked to roll back to {to}"),
    }
}

/// That the service goes back without gehen's doing.
fn goes_back(formatter: &mut fmt::Formatter<'_>, to: &TaskDefinitionArn, by_ecs: bool) -> fmt::Result {
    if by_ecs {
        write!(formatter, "ECS rolls back to {to} by itself; watching until that is proven")
    } else {
        write!(formatter, "a deployment of {to} has begun already; watching until it is proven")
    }
}

/// What preflight found of what runs.
fn runs(
    formatter: &mut fmt::Formatter<'_>,
    running: &TaskDefinitionArn,
    version: &str,
    has_tasks: bool,
) -> fmt::Result {
    let version = excerpt(version);
    if has_tasks {
        write!(formatter, "runs {running} ({version})")
    } else {
        write!(formatter, "is to run {running} ({version}), of which no task runs")
    }
}

/// How the phases of a service ended, after `took`. What was seen at last stands in the lines before this one, and in
/// the last ones.
fn ended(formatter: &mut fmt::Formatter<'_>, attempt: &Attempt, took: &str, strategy: UpdateStrategy) -> fmt::Result {
    match attempt {
        Attempt::Live(Outcome::Undetermined { remaining, .. }) => {
            write!(formatter, "live, but not drained after {took}: {}", remaining.what)
        }
        Attempt::Live(_) if strategy == UpdateStrategy::None => write!(formatter, "found live in {took}"),
        Attempt::Live(_) => write!(formatter, "deployed in {took}"),
        Attempt::Failed(why) | Attempt::NotProven(why) | Attempt::NotBegun(why) => {
            write!(formatter, "failed after {took}: {}", why.what)
        }
        Attempt::Interrupted(Cause::Cancelled(by)) => write!(formatter, "cancelled by {by} after {took}"),
        Attempt::Interrupted(cause) => write!(formatter, "given up after {took}, because {cause}"),
        Attempt::Superseded(replacement) => {
            write!(formatter, "{} ({}); leaving the service alone", Who(replacement), replacement.by.id)
        }
    }
}

/// What deploying would do.
fn would_deploy(formatter: &mut fmt::Formatter<'_>, snapshot: &Snapshot<'_>) -> fmt::Result {
    let (base, version) = (&snapshot.base().arn, snapshot.version);
    match (snapshot.service.update_strategy, snapshot.ready()) {
        (UpdateStrategy::None, _) => {
            write!(formatter, "would only check that {version} is live as {base}, as `updateStrategy: none` says")
        }
        (UpdateStrategy::Redeploy, _) => {
            write!(formatter, "would deploy {base} anew as it is, as `updateStrategy: redeploy` says")
        }
        (_, Some(ready)) => write!(formatter, "would deploy {}, whose images are at this version already", ready.arn),
        (_, None) => write!(formatter, "would deploy a new revision of {base}: {}", Images(&snapshot.changes)),
    }
}

/// Where a rollback would go.
fn would_return(formatter: &mut fmt::Formatter<'_>, snapshot: &Snapshot<'_>) -> fmt::Result {
    match (&snapshot.way_back, snapshot.previous()) {
        (WayBack::Nowhere(why), _) => write!(formatter, "a rollback would have nothing to return to: {why}"),
        (_, Some(to)) => write!(formatter, "a rollback would go to {} ({})", to.arn, excerpt(&to.version())),
        (_, None) => Ok(()),
    }
}

/// What changes of the images of a task definition.
pub struct Images<'a>(pub &'a [ImageChange]);

impl fmt::Display for Images<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let changes = self.0.iter().map(|change| format!("{} -> {}", excerpt(&change.from), excerpt(&change.to)));
        formatter.write_str(&changes.collect::<Vec<_>>().join(", "))
    }
}

/// Who deployed what took the place of our deployment, as far as that is known.
pub struct Who<'a>(pub &'a Replacement);

impl fmt::Display for Who<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Replacement { by, by_ecs, .. } = self.0;
        let who = if *by_ecs { "ECS rolled back to" } else { "somebody else deployed" };
        write!(formatter, "{who} {}", by.task_definition)
    }
}

/// A url for people: without a password, and without what could move the cursor.
pub fn url(address: &Url) -> String {
    let mut shown = address.clone();
    if shown.password().is_some() {
        let _ = shown.set_password(Some("***"));
    }
    excerpt(shown.as_str())
}
