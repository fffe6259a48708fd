//! Every word the user sees: the lines while a run goes on, and the last ones.

mod lines;

use std::{fmt, io::Write as _, time::Duration};

use reqwest::Url;
use tracing::Level;

pub use lines::start;

use crate::{
    deploy::{Attempt, Problems, Proof, RolledBack},
    ecs::{DeploymentId, ImageChange, Look, SeenDeployment, TaskDefinitionArn},
    git_sha::GitSha,
    outcome::{Ended, Outcome},
    text::{counted, duration, escape, excerpt},
};

/// Something that happened to one service.
pub enum Event<'a> {
    /// What preflight found.
    Runs { running: &'a TaskDefinitionArn, version: &'a str },
    /// A new revision was registered.
    Registered { revision: &'a TaskDefinitionArn, changes: &'a [ImageChange] },
    /// The running revision is at the version already.
    NothingToRegister { running: &'a TaskDefinitionArn },
    /// The url can't tell the new version from the old one.
    UrlProvesNothing { version: &'a GitSha },
    /// UpdateService was answered.
    Updated { deployment: &'a DeploymentId, task_definition: &'a TaskDefinitionArn },
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
    /// The phases of the service have ended.
    Ended { attempt: &'a Attempt, took: Duration },
    /// A rollback is about to be requested.
    RollingBack { to: &'a TaskDefinitionArn, version: &'a str },
    /// The service goes back without gehen's doing.
    GoesBackByItself { to: &'a TaskDefinitionArn, by_ecs: bool },
    /// The update took the place of a deployment that somebody else began a moment before.
    Displaced(&'a SeenDeployment),
}

impl Event<'_> {
    fn level(&self) -> Level {
        match self {
            Self::Ended {
                attempt: Attempt::Failed(_) | Attempt::NotBegun(_) | Attempt::Superseded(_) | Attempt::Cancelled(_),
                ..
            } => Level::ERROR,
            Self::Ended { attempt: Attempt::Live(Outcome::Undetermined { .. }), .. }
            | Self::Stumbled(_)
            | Self::UrlProvesNothing { .. }
            | Self::RollingBack { .. }
            | Self::GoesBackByItself { .. }
            | Self::Displaced(_) => Level::WARN,
            _ => Level::INFO,
        }
    }
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runs { running, version } => write!(formatter, "runs {running} ({})", excerpt(version)),
            Self::Registered { revision, changes } => {
                write!(formatter, "registered {revision}")?;
                for (index, change) in changes.iter().enumerate() {
                    let lead = if index == 0 { ":" } else { "," };
                    write!(formatter, "{lead} {} -> {}", excerpt(&change.from), excerpt(&change.to))?;
                }
                Ok(())
            }
            Self::NothingToRegister { running } => {
                write!(formatter, "all images of {running} are at this version already; no new revision is needed")
            }
            Self::UrlProvesNothing { version } => write!(
                formatter,
                "the version before is {version} too, so the url can't tell them apart; ECS's counts will decide"
            ),
            Self::Updated { deployment, task_definition } => {
                write!(formatter, "updated to {task_definition}: deployment {deployment}")
            }
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
            Self::Stumbled(error) => write!(formatter, "{error}; looking whether it happened"),
            Self::Ended { attempt: Attempt::Live(Outcome::Undetermined { remaining, .. }), took } => {
                write!(formatter, "live, but not drained after {}: {remaining}", duration(*took))
            }
            Self::Ended { attempt: Attempt::Live(_), took } => write!(formatter, "deployed in {}", duration(*took)),
            Self::Ended { attempt: Attempt::Failed(why) | Attempt::NotBegun(why), took } => {
                write!(formatter, "failed after {}: {why}", duration(*took))
            }
            Self::Ended { attempt: Attempt::Cancelled(by), took } => {
                write!(formatter, "cancelled by {by} after {}", duration(*took))
            }
            Self::Ended { attempt: Attempt::Superseded(replacement), .. } => write!(
                formatter,
                "somebody else deployed {} ({}); leaving the service alone",
                replacement.by.task_definition, replacement.by.id
            ),
            Self::RollingBack { to, version } => write!(formatter, "rolling back to {to} ({})", excerpt(version)),
            Self::GoesBackByItself { to, by_ecs: true } => {
                write!(formatter, "ECS rolls back to {to} by itself; watching until that is proven")
            }
            Self::GoesBackByItself { to, by_ecs: false } => {
                write!(formatter, "a deployment of {to} has begun already; watching until it is proven")
            }
            Self::Displaced(other) => write!(
                formatter,
                "this update displaced deployment {} of {}, which somebody else began a moment before",
                other.id, other.task_definition
            ),
        }
    }
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
    for (service, error) in problems {
        last(&format!("error: service `{service}`: {}", excerpt(&error.to_string())));
        if let Some(hint) = error.hint() {
            last(&format!("hint: {hint}"));
        }
    }
    last("nothing has been changed");
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
        for line in Conclusion(ended).to_string().lines() {
            last(&format!("{}: {line}", ended.service));
        }
    }
}

/// The last lines about one service.
struct Conclusion<'a>(&'a Ended);

impl fmt::Display for Conclusion<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ended { outcome, last_look, previous, version, took, way_back, .. } = self.0;
        let took = duration(*took);
        let now = Now(last_look.as_ref(), self.0);
        let before = self.named(&previous.0);
        match outcome {
            Outcome::Deployed { task_definition, leaving } => {
                write!(formatter, "DEPLOYED {version} as {task_definition} in {took}; {now}")?;
                if *leaving > 0 {
                    let balanced = last_look.as_ref().is_some_and(|look| look.load_balanced);
                    let delay = if balanced { ", for the load balancer's deregistration delay" } else { "" };
                    write!(formatter, "; {} out of reach and still ending{delay}", counted(*leaving, "old task"))?;
                }
                Ok(())
            }
            Outcome::Undetermined { task_definition, remaining } => write!(
                formatter,
                "LIVE, BUT NOT DRAINED after {took}: {version} is live as {task_definition}, and the time for the old \
                 version to go ran out; {now}\nwhy: {remaining}"
            ),
            Outcome::RolledBack { why, rollback } => {
                match rollback {
                    RolledBack::Proven(to) => {
                        write!(formatter, "ROLLED BACK to {} in {took}, proven live again", self.named(to))
                    }
                    RolledBack::NotDrained(to, what) => {
                        write!(
                            formatter,
                            "ROLLED BACK to {} in {took}, live again but not drained: {what}",
                            self.named(to)
                        )
                    }
                    RolledBack::Requested(to) => {
                        let to = self.named(to);
                        write!(formatter, "ROLLBACK REQUESTED after {took}, not proven: ECS is putting {to} back")
                    }
                    RolledBack::Unchanged => {
                        write!(formatter, "NOT UPDATED after {took}: the update did not happen, {before} stayed")
                    }
                    RolledBack::NothingToReturnTo => {
                        write!(formatter, "NOTHING TO RETURN TO after {took}: {before} is what ran before, too")
                    }
                    RolledBack::Superseded(by) => {
                        let by = &by.by.task_definition;
                        write!(formatter, "FAILED after {took} and left alone: somebody else deployed {by} meanwhile")
                    }
                    RolledBack::Failed(what) => {
                        write!(formatter, "FAILED after {took}, AND THE ROLLBACK to {before} FAILED TOO: {what}")
                    }
                }?;
                write!(formatter, "; {now}\nwhy: {why}")?;
                match rollback {
                    RolledBack::Failed(_) => write!(formatter, "\nto go back by hand: {way_back}"),
                    RolledBack::NothingToReturnTo => {
                        write!(formatter, "\nto deploy another revision, name it at the end of: {way_back}")
                    }
                    _ => Ok(()),
                }
            }
            Outcome::NotUpdated { why } => write!(formatter, "NOT UPDATED after {took}; {now}\nwhy: {why}"),
            Outcome::Superseded(by) => write!(
                formatter,
                "LEFT ALONE after {took}: somebody else deployed {} meanwhile; {now}",
                by.by.task_definition
            ),
            Outcome::NotReached => write!(formatter, "NOT TOUCHED: the run ended before its turn; {now}"),
        }
    }
}

impl Conclusion<'_> {
    /// A task definition, with its version where that is known.
    fn named(&self, task_definition: &TaskDefinitionArn) -> String {
        let (previous, version) = &self.0.previous;
        if task_definition == previous {
            format!("{task_definition} ({})", excerpt(version))
        } else {
            task_definition.to_string()
        }
    }
}

/// What ECS showed at the end of the run.
struct Now<'a>(Option<&'a Look>, &'a Ended);

impl fmt::Display for Now<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Some(look), ended) = self else {
            return formatter.write_str("ECS could not be asked what runs now");
        };
        let running: Vec<_> = look
            .deployments()
            .filter(|deployment| deployment.running > 0)
            .map(|seen| {
                format!("{} of {}", counted(seen.running, "task"), Conclusion(ended).named(&seen.task_definition))
            })
            .collect();
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
