//! Every word the user sees: the lines while a run goes on, and the last ones.

mod lines;

use std::{fmt, io::Write as _, time::Duration};

use reqwest::Url;
use tracing::Level;

pub use lines::start;

use crate::{
    config::UpdateStrategy,
    deploy::{Attempt, Cause, Problems, Proof, Remark, Replacement, Returned, RolledBack, Snapshot, WayBack},
    ecs::{DeploymentId, ImageChange, Look, SeenDeployment, TaskDefinitionArn},
    git_sha::GitSha,
    outcome::{Ended, Outcome},
    text::{counted, duration, escape, excerpt},
};

/// Something that happened to one service.
pub enum Event<'a> {
    /// What preflight found.
    Runs { running: &'a TaskDefinitionArn, version: &'a str },
    /// What preflight found that doesn't keep the service from being deployed.
    Remark(&'a Remark),
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
    /// A look or an answer of the url that differs from the one before, or the same after a while.
    Seen(&'a str),
    /// A write was not answered as it should be.
    Stumbled(&'a str),
    /// A request was not answered, and is tried again for so long.
    TriesAgain { error: &'a str, limit: Duration },
    /// The phases of the service have ended.
    Ended { attempt: &'a Attempt, took: Duration, strategy: UpdateStrategy },
    /// A rollback is about to be requested.
    RollingBack { to: &'a TaskDefinitionArn, version: &'a str },
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
}

impl Event<'_> {
    fn level(&self) -> Level {
        match self {
            Self::Ended {
                attempt:
                    Attempt::Failed(_)
                    | Attempt::NotProven(_)
                    | Attempt::NotBegun(_)
                    | Attempt::Superseded(_)
                    | Attempt::Interrupted(_),
                ..
            } => Level::ERROR,
            Self::Ended { attempt: Attempt::Live(Outcome::Undetermined { .. }), .. }
            | Self::Stumbled(_)
            | Self::TriesAgain { .. }
            | Self::UrlProvesNothing { .. }
            | Self::RollingBack { .. }
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
            Self::Runs { running, version } => write!(formatter, "runs {running} ({})", excerpt(version)),
            Self::Remark(remark) => remark.fmt(formatter),
            Self::Registered { revision, changes } => {
                write!(formatter, "registered {revision}: {}", Images(changes))
            }
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
            Self::Seen(what) => formatter.write_str(what),
            Self::TriesAgain { error, limit } => {
                write!(formatter, "{error}; trying again for up to {}", duration(*limit))
            }
            Self::Stumbled(error) => write!(formatter, "{error}; looking whether it happened"),
            Self::Ended { attempt, took, strategy } => ended(formatter, attempt, &duration(*took), *strategy),
            Self::RollingBack { to, version } => write!(formatter, "rolling back to {to} ({})", excerpt(version)),
            Self::RegisteredAgain { previous, copy } => {
                write!(formatter, "{previous} has been deregistered; registered {copy}, which is identical")
            }
            Self::NotYetStopped(why) => write!(formatter, "{why}; asking again"),
            Self::NotStopped(why) => write!(
                formatter,
                "ECS doesn't roll the deployment back on request ({why}); updating the service instead, which starts a \
                 whole new cycle"
            ),
            Self::GoesBackByItself { to, by_ecs: true } => {
                write!(formatter, "ECS rolls back to {to} by itself; watching until that is proven")
            }
            Self::GoesBackByItself { to, by_ecs: false } => {
                write!(formatter, "a deployment of {to} has begun already; watching until it is proven")
            }
            Self::GoesBackAsAsked { to } => {
                write!(formatter, "ECS rolls back to {to}, as asked; watching until that is proven")
            }
            Self::Displaced(other) => write!(
                formatter,
                "this update displaced deployment {} of {}, which somebody else began a moment before and which is lost \
                 now: tell them",
                other.id, other.task_definition
            ),
        }
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

/// How the phases of a service ended, after `took`.
fn ended(formatter: &mut fmt::Formatter<'_>, attempt: &Attempt, took: &str, strategy: UpdateStrategy) -> fmt::Result {
    match attempt {
        Attempt::Live(Outcome::Undetermined { remaining, .. }) => {
            write!(formatter, "live, but not drained after {took}: {remaining}")
        }
        Attempt::Live(_) if strategy == UpdateStrategy::None => write!(formatter, "found live in {took}"),
        Attempt::Live(_) => write!(formatter, "deployed in {took}"),
        Attempt::Failed(why) | Attempt::NotProven(why) | Attempt::NotBegun(why) => {
            write!(formatter, "failed after {took}: {why}")
        }
        Attempt::Interrupted(Cause::Cancelled(by)) => write!(formatter, "cancelled by {by} after {took}"),
        Attempt::Interrupted(cause @ Cause::Failed(_)) => write!(formatter, "given up after {took}, because {cause}"),
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
struct Images<'a>(&'a [ImageChange]);

impl fmt::Display for Images<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let changes = self.0.iter().map(|change| format!("{} -> {}", excerpt(&change.from), excerpt(&change.to)));
        formatter.write_str(&changes.collect::<Vec<_>>().join(", "))
    }
}

/// Who deployed what took the place of our deployment, as far as that is known.
struct Who<'a>(&'a Replacement);

impl fmt::Display for Who<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Replacement { by, by_ecs, .. } = self.0;
        let who = if *by_ecs { "ECS rolled back to" } else { "somebody else deployed" };
        write!(formatter, "{who} {}", by.task_definition)
    }
}

/// Warns that the credentials end in `left`, while the run may take as long as `longest`.
pub fn credentials_end_early(left: Duration, longest: Duration) {
    if left.is_zero() {
        tracing::warn!(
            "the AWS credentials have expired, by what their source says: what this run begins may not be undone"
        );
        return;
    }
    tracing::warn!(
        "the AWS credentials end in {}, and this run may take {}: unless they are renewed, what it begins may not be undone",
        duration(left),
        duration(longest)
    );
}

/// Prints one line about `service`.
pub fn say(service: &str, event: &Event<'_>) {
    match event.level() {
        Level::ERROR => tracing::error!(service, "{event}"),
        Level::WARN => tracing::warn!(service, "{event}"),
        _ => tracing::info!(service, "{event}"),
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

/// The end of a run in which nothing was changed: every problem that preflight found.
pub fn problems(problems: &Problems) {
    for (service, problem) in problems {
        last(&format!("error: service `{service}`: {}", excerpt(&problem.what)));
        if let Some(hint) = &problem.hint {
            last(&format!("hint: {hint}"));
        }
    }
    last("nothing has been changed");
}

/// The end of a run that was only to say what it would do.
pub fn planned() {
    last("nothing has been changed: this was a dry run");
}

/// The end of a run that a signal ended before anything was changed.
pub fn cancelled_before_the_first_write(by: &str) {
    last(&format!("error: cancelled by {by}; nothing has been changed"));
}

/// The end of a run that a person ended while a cancelled run was being undone.
pub fn abandoned() {
    last("error: ended by a second Ctrl-C while services were going back: check what each of them runs");
}

/// The end of a run that could not begin.
pub fn error(message: &str) {
    last(&format!("error: {message}"));
}

/// The end of a run: one line per service of how it ended, what runs now and how long it took, with the reason and the
/// way out below where it failed.
pub fn summary(ended: &[Ended]) {
    for ended in ended {
        for line in conclusion(ended).lines() {
            last(&format!("{}: {line}", ended.service));
        }
    }
}

/// How one service ended, in one or more lines.
pub fn conclusion(ended: &Ended) -> String {
    let displaced = ended.displaced.iter().map(|other| format!("\nwarning: {}", Event::Displaced(other)));
    Conclusion(ended).to_string() + &displaced.collect::<String>()
}

/// The last lines about one service.
struct Conclusion<'a>(&'a Ended);

impl fmt::Display for Conclusion<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ended { outcome, last_look, known, took, way_back, update_strategy, .. } = self.0;
        let took = duration(*took);
        let now = Now(last_look, self.0);
        let before = known.first().map(|(before, _)| self.named(before)).unwrap_or_default();
        match outcome {
            Outcome::Deployed { task_definition, version, leaving } => {
                let done = match update_strategy {
                    UpdateStrategy::Current | UpdateStrategy::Latest => "DEPLOYED",
                    UpdateStrategy::Redeploy => "DEPLOYED ANEW:",
                    UpdateStrategy::None => "FOUND LIVE:",
                };
                write!(formatter, "{done} {} in {took}; {now}", Live(version.as_ref(), task_definition))?;
                // They were counted when the drain check passed; the service may have had time since.
                if *leaving > 0 && last_look.as_ref().is_ok_and(|look| !look.others.is_empty()) {
                    let balanced = last_look.as_ref().is_ok_and(|look| look.load_balanced);
                    let delay = if balanced { ", for the load balancer's deregistration delay" } else { "" };
                    write!(formatter, "; {} out of reach and still ending{delay}", counted(*leaving, "old task"))?;
                }
                Ok(())
            }
            Outcome::Undetermined { task_definition, version, remaining } => write!(
                formatter,
                "LIVE, BUT NOT DRAINED after {took}: {}, and the time for the old version to go ran out; {now}\nwhy: \
                 {remaining}",
                match version {
                    Some(version) => format!("{version} was seen live as {task_definition}"),
                    None => format!("{task_definition} was seen live"),
                }
            ),
            Outcome::RolledBack { why, rollback } => {
                match rollback {
                    RolledBack::Proven(to) => {
                        write!(formatter, "ROLLED BACK to {} in {took}, proven live again", self.returned(to))
                    }
                    RolledBack::NotDrained(to, what) => {
                        write!(
                            formatter,
                            "ROLLED BACK to {} in {took}, live again but not drained: {what}",
                            self.returned(to)
                        )
                    }
                    RolledBack::Requested(to) => {
                        let to = self.returned(to);
                        write!(formatter, "ROLLBACK REQUESTED after {took}, not proven: ECS is putting {to} back")
                    }
                    RolledBack::Unchanged => {
                        write!(formatter, "NOT UPDATED after {took}: the update did not happen, {before} stayed")
                    }
                    RolledBack::NothingToReturnTo(why) => {
                        write!(formatter, "FAILED after {took}, WITH NOTHING TO RETURN TO: {why}")
                    }
                    RolledBack::Superseded(by) => {
                        write!(formatter, "FAILED after {took} and left alone: {} meanwhile", Who(by))
                    }
                    RolledBack::Failed(what) => {
                        let good = known.last().map(|(good, _)| self.named(good)).unwrap_or_default();
                        write!(formatter, "FAILED after {took}, AND THE ROLLBACK to {good} FAILED TOO: {what}")
                    }
                }?;
                write!(formatter, "; {now}\nwhy: {why}")?;
                match rollback {
                    RolledBack::Failed(_) => write!(formatter, "\nto go back by hand: {way_back}"),
                    RolledBack::NothingToReturnTo(_) => {
                        write!(formatter, "\nto deploy another revision, name it in: {way_back}")
                    }
                    _ => Ok(()),
                }
            }
            Outcome::Kept { task_definition, version, nothing, why } => write!(
                formatter,
                "NOT ROLLED BACK after {took}: {} stays live{}: there is nothing to return to ({nothing}); {now}\nwhy: \
                 {why}\nto deploy another revision, name it in: {way_back}",
                version.as_ref().map_or_else(|| task_definition.to_string(), ToString::to_string),
                version.as_ref().map_or_else(String::new, |_| format!(" as {task_definition}")),
            ),
            Outcome::NotUpdated { why } => write!(formatter, "NOT UPDATED after {took}; {now}\nwhy: {why}"),
            Outcome::NotProven { why } => {
                write!(formatter, "NOT PROVEN LIVE after {took}, and nothing was changed; {now}\nwhy: {why}")
            }
            Outcome::Superseded(by) => write!(formatter, "LEFT ALONE after {took}: {} meanwhile; {now}", Who(by)),
            Outcome::NotReached => write!(formatter, "NOT TOUCHED: the run ended before its turn; {now}"),
        }
    }
}

/// What is live: the version, where anything names one, and the task definition.
struct Live<'a>(Option<&'a GitSha>, &'a TaskDefinitionArn);

impl fmt::Display for Live<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self(Some(version), task_definition) => write!(formatter, "{version} as {task_definition}"),
            Self(None, task_definition) => task_definition.fmt(formatter),
        }
    }
}

impl Conclusion<'_> {
    /// A task definition, with its version where that is known.
    fn named(&self, task_definition: &TaskDefinitionArn) -> String {
        match self.0.known.iter().find(|(known, _)| known == task_definition) {
            Some((_, version)) => format!("{task_definition} ({})", excerpt(version)),
            None if self.0.updated_to.as_ref() == Some(task_definition) => {
                format!("{task_definition} ({})", self.0.version)
            }
            None => task_definition.to_string(),
        }
    }

    /// What a service returned to.
    fn returned(&self, Returned { to, copy_of }: &Returned) -> String {
        match copy_of {
            Some(original) => format!("{to}, a copy of {}", self.named(original)),
            None => self.named(to),
        }
    }
}

/// What ECS showed at the end of the run.
struct Now<'a>(&'a Result<Look, String>, &'a Ended);

impl fmt::Display for Now<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(look, ended) = self;
        let look = match look {
            Ok(look) => look,
            Err(why) => return write!(formatter, "what runs now is not known: {}", excerpt(why)),
        };
        let mut running: Vec<(&TaskDefinitionArn, usize)> = Vec::new();
        for seen in look.deployments().filter(|deployment| deployment.running > 0) {
            match running.iter_mut().find(|(known, _)| *known == &seen.task_definition) {
                Some((_, tasks)) => *tasks += seen.running,
                None => running.push((&seen.task_definition, seen.running)),
            }
        }
        let named = |(of, tasks)| format!("{} of {}", counted(tasks, "task"), Conclusion(ended).named(of));
        let running: Vec<_> = running.into_iter().map(named).collect();
        if running.is_empty() {
            return write!(formatter, "now no task runs; {} is to run", look.primary.task_definition);
        }
        write!(formatter, "now run {}", running.join(" and "))
    }
}

/// Writes a line to stderr as it is. A stderr that is closed is no reason to stop.
fn last(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", escape(line));
}

/// Writes the result that a script reads to stdout, if anybody still listens.
pub fn print(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}
