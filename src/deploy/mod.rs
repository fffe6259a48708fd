//! The sequence over all services, and the one place that decides to roll back.

mod check;
mod drain;
mod failures;
mod known_good;
#[cfg(test)]
mod odd_answers;
mod preflight;
mod prove;
mod register;
mod replaced;
mod rollback;
mod standing;
mod update;
mod watch;

use std::time::{Duration, SystemTime};

use futures_util::{
    StreamExt as _,
    future::{join, join_all},
    stream,
};
use tokio::time::{Instant, timeout};

pub use check::Proof;
pub use preflight::{Problem, Remark};
pub use replaced::Replacement;
pub use rollback::{Returned, RolledBack};

use self::{
    drain::Old,
    preflight::{Proofs, Snapshot, look_again, preflight},
    prove::{Proven, prove},
    register::register,
    rollback::{Place, Sent, roll_back},
    update::{NotUpdated, update},
};
use crate::{
    aws::{Error, Fate},
    config::Service,
    ecr::Ecr,
    ecs::{Ecs, SeenDeployment, TaskDefinitionArn},
    git_sha::GitSha,
    outcome::{Ended, Outcome},
    ping::Ping,
    poll,
    report::{self, Event},
    signals::Cancel,
    text::excerpt,
};

/// How many services are looked at side by side, before and after the run: well within the burst of DescribeServices and
/// DescribeTaskDefinition.
const LOOKS_AT_ONCE: usize = 10;
/// How long a request outside of a check is tried while ECS stumbles: RegisterTaskDefinition, for one, has a bucket that
/// refills once a second.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long the last look of the run is tried.
const LAST_LOOK_PATIENCE: Duration = Duration::from_secs(10);

/// Whom the phases ask.
pub struct Clients<'a> {
    /// ECS.
    pub ecs: Ecs,
    /// ECR, about images.
    pub ecr: Ecr<'a>,
    /// The services' urls.
    pub ping: Ping,
}

/// What preflight found that must be mended before anything is changed: the service, and what is wrong.
pub type Problems = Vec<(String, Problem)>;

/// Why a run ended before anything was changed.
pub enum NotBegun {
    /// Preflight found problems.
    Problems(Problems),
    /// A signal, by its name.
    Cancelled(&'static str),
}

/// Deploys `version` to `services`, one after another, and gives how each ended, in their order. A signal that `cancel`
/// knows of undoes what was begun, as a failure does, without waiting for proof. `credentials_end` resolves to the time
/// when the AWS credentials end, where that is known.
pub async fn deploy(
    clients: &Clients<'_>,
    services: &[Service],
    version: &GitSha,
    cancel: &Cancel,
    credentials_end: impl Future<Output = Option<SystemTime>>,
) -> Result<Vec<Ended>, NotBegun> {
    let looks = join(look_at_all(clients, services, version), credentials_end);
    let (looks, credentials_end) = tokio::select! {
        biased;
        by = cancel.cancelled() => return Err(NotBegun::Cancelled(by)),
        looks = looks => looks,
    };
    let mut snapshots = looks.map_err(NotBegun::Problems)?;
    let (left, longest) = (credentials_end.map(time_left), longest(&snapshots));
    if let Some(left) = left.filter(|left| *left < longest) {
        report::credentials_end_early(left, longest);
    }
    let mut turns: Vec<Turn> = Vec::new();
    let mut then = Next::GoOn;
    for snapshot in &mut snapshots {
        let (since, mut sent) = (Instant::now(), None);
        let attempt = tokio::select! {
            biased;
            by = cancel.cancelled() => Attempt::Cancelled(by),
            attempt = attempt(clients, snapshot, &mut sent) => attempt,
        };
        then = next(&attempt);
        report::say(&snapshot.service.name, &Event::Ended { attempt: &attempt, took: since.elapsed() });
        turns.push(Turn { took: since.elapsed(), sent, attempt });
        if !matches!(then, Next::GoOn) {
            break;
        }
    }
    let mut rollbacks = match then {
        Next::RollBack => roll_all_back(clients, &snapshots, &turns, cancel).await,
        Next::GoOn | Next::Stop => turns.iter().map(|_| None).collect(),
    }
    .into_iter();
    let why = turns.iter().zip(&snapshots).next_back().and_then(|(turn, snapshot)| match &turn.attempt {
        Attempt::Failed(_) => Some(format!("service `{}` failed", snapshot.service.name)),
        Attempt::Cancelled(by) => Some(format!("the run was cancelled by {by}")),
        Attempt::Live(_) | Attempt::NotBegun(_) | Attempt::Superseded(_) => None,
    });
    let why = why.unwrap_or_default();
    let patience = if cancel.is_cancelled() { LAST_LOOK_PATIENCE / 4 } else { LAST_LOOK_PATIENCE };
    let mut turns = turns.into_iter();
    let conclusions = snapshots.iter().map(|snapshot| {
        let turn = turns.next();
        let (rollback, undoing) = rollbacks.next().flatten().unzip();
        let took = turn.as_ref().map(|turn| turn.took).unwrap_or_default() + undoing.unwrap_or_default();
        let ours = turn.as_ref().and_then(|turn| turn.sent.as_ref()?.deployment.as_ref());
        let displaced = ours.map(|ours| ours.displaced.clone()).unwrap_or_default();
        let updated_to = turn.as_ref().and_then(|turn| Some(turn.sent.as_ref()?.task_definition.clone()));
        let outcome = turn.map_or(Outcome::NotReached, |turn| outcome(turn, rollback, &why));
        conclude(clients, snapshot, outcome, (updated_to, displaced), took, patience)
    });
    let conclusions: Vec<_> = conclusions.collect();
    Ok(stream::iter(conclusions).buffered(LOOKS_AT_ONCE).collect().await)
}

/// Preflight of all services, so that all problems are known before the first write.
async fn look_at_all<'a>(
    clients: &Clients<'_>,
    services: &'a [Service],
    version: &'a GitSha,
) -> Result<Vec<Snapshot<'a>>, Problems> {
    let looks = services.iter().map(|service| async move { (service, preflight(clients, service, version).await) });
    let looks: Vec<_> = stream::iter(looks).buffered(LOOKS_AT_ONCE).collect().await;
    let (mut snapshots, mut problems) = (Vec::new(), Problems::new());
    for (service, look) in looks {
        match look {
            Ok(snapshot) => snapshots.push(snapshot),
            Err(found) => problems.extend(found.into_iter().map(|problem| (service.name.clone(), problem))),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    for Snapshot { service, running, remarks, .. } in &snapshots {
        report::say(&service.name, &Event::Runs { running: &running.arn, version: &running.version() });
        for remark in remarks {
            report::say(&service.name, &Event::Remark(remark));
        }
    }
    Ok(snapshots)
}

/// How long from now until `end`; nothing if it has passed.
fn time_left(end: SystemTime) -> Duration {
    end.duration_since(SystemTime::now()).unwrap_or_default()
}

/// The longest that a run may take: each service in turn, with two writes and two checks, the last of which fails when its
/// time is over; then all of them going back side by side.
fn longest(snapshots: &[Snapshot<'_>]) -> Duration {
    let check = |snapshot: &Snapshot<'_>| snapshot.service.timeout + snapshot.strategy.takes();
    let forth: Duration = snapshots.iter().map(|snapshot| 2 * PATIENCE + 2 * check(snapshot)).sum();
    let back = snapshots.iter().map(|snapshot| 2 * snapshot.service.timeout.max(PATIENCE) + 2 * check(snapshot)).max();
    forth + back.unwrap_or_default()
}

/// One service's turn: what was sent to ECS, and how its phases ended.
struct Turn {
    took: Duration,
    sent: Option<Sent>,
    attempt: Attempt,
}

/// How the phases of one service ended, before anything is undone.
pub enum Attempt {
    /// Both checks passed, or only the draining ran out of time.
    Live(Outcome),
    /// It failed, and why.
    Failed(String),
    /// Nothing of it was tried, because ECS could not be asked, and why.
    NotBegun(String),
    /// Somebody else's deployment has taken over.
    Superseded(Replacement),
    /// A signal ended the run, by its name.
    Cancelled(&'static str),
}

/// What follows for the run from how one service ended.
enum Next {
    /// The next service.
    GoOn,
    /// No further service; what is proven stays.
    Stop,
    /// No further service; every service updated in this run goes back.
    RollBack,
}

fn next(attempt: &Attempt) -> Next {
    match attempt {
        Attempt::Live(_) => Next::GoOn,
        Attempt::NotBegun(_) | Attempt::Superseded(_) => Next::Stop,
        Attempt::Failed(_) | Attempt::Cancelled(_) => Next::RollBack,
    }
}

/// Takes one service through register, update, deploy check and drain check. `sent` tells, at any moment and even if
/// this future is dropped, what there is to undo; `snapshot` learns what has completed since preflight.
async fn attempt(clients: &Clients<'_>, snapshot: &mut Snapshot<'_>, sent: &mut Option<Sent>) -> Attempt {
    let service = snapshot.service;
    let say = |event: &Event<'_>| report::say(&service.name, event);
    let (before, proofs) = match look_again(clients, snapshot).await {
        Ok((look, proofs)) if look.primary.id == snapshot.primary => (look, proofs),
        Ok((look, _)) => return Attempt::Superseded(Replacement::by_primary_of(&look, None)),
        Err(error) => return Attempt::NotBegun(explain(&error)),
    };
    let snapshot = &*snapshot;
    let revision = match register(clients, snapshot).await {
        Ok(revision) => revision,
        Err(error) => return Attempt::Failed(explain(&error)),
    };
    if revision.is_new {
        say(&Event::Registered { revision: &revision.arn, changes: &snapshot.changes });
    } else {
        say(&Event::NothingToRegister { running: &revision.arn });
    }
    let Proofs { new: proof, previous: proof_of_previous } = proofs;
    if service.url.is_some() && matches!(proof, Proof::Counts) {
        say(&Event::UrlProvesNothing { version: snapshot.version });
    }
    // Registering may have taken a while: what is displaced must be what was looked at.
    let before = match answered(service, async || clients.ecs.look(service).await).await {
        Ok(look) if look.primary.id == before.primary.id => look,
        Ok(look) => return Attempt::Superseded(Replacement::by_primary_of(&look, None)),
        Err(error) => return Attempt::NotBegun(explain(&error)),
    };
    let replaced = |replacement: Replacement| {
        if !replacement.undoes(&revision.arn, snapshot.previous().map(|previous| &previous.arn)) {
            Attempt::Superseded(replacement)
        } else if replacement.by_ecs {
            Attempt::Failed(format!("ECS ended the deployment: {}", excerpt(&replacement.reason)))
        } else {
            let by = &replacement.by;
            Attempt::Failed(format!("the service was put back to {} by deployment {}", by.task_definition, by.id))
        }
    };
    let ids = before.deployments().map(|deployment| deployment.id.clone()).collect();
    *sent = Some(Sent {
        task_definition: revision.arn.clone(),
        before: ids,
        earlier: before.service_deployment.clone(),
        proof_of_previous,
        deployment: None,
    });
    let ours = match update(clients, service, &revision.arn, &before, &[], PATIENCE).await {
        Ok(deployment) => deployment,
        Err(NotUpdated::Unclear(error)) => return Attempt::Failed(explain(&error)),
        Err(NotUpdated::Refused(error)) => {
            *sent = None;
            return Attempt::Failed(explain(&error));
        }
        Err(NotUpdated::Superseded(replacement)) => return replaced(replacement),
    };
    if let Some(sent) = sent {
        sent.deployment = Some(ours.clone());
    }
    say(&Event::Updated { deployment: &ours.id, task_definition: &ours.task_definition });

    let task_definition = ours.task_definition.clone();
    match prove(clients, service, &ours, &proof, Old::Every).await {
        Proven::Complete { leaving } => Attempt::Live(Outcome::Deployed { task_definition, leaving }),
        Proven::NotDrained(remaining) => Attempt::Live(Outcome::Undetermined { task_definition, remaining }),
        Proven::Failed(why) => Attempt::Failed(why),
        Proven::Replaced(replacement) => replaced(replacement),
    }
}

/// Tries a request that may safely be repeated for as long as [`PATIENCE`], and tells why when it has to be repeated.
async fn answered<T>(service: &Service, mut request: impl AsyncFnMut() -> Result<T, Error>) -> Result<T, Error> {
    let mut is_told = false;
    let telling = async || {
        let answer = request().await;
        if let Err(error) = &answer
            && error.fate != Fate::Refused
            && !std::mem::replace(&mut is_told, true)
        {
            let event = Event::TriesAgain { error: &excerpt(&error.to_string()), limit: PATIENCE };
            report::say(&service.name, &event);
        }
        answer
    };
    poll::answered(PATIENCE, telling).await
}

/// An error of ECS's with the way out, in one line.
fn explain(error: &Error) -> String {
    let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
    format!("{}{hint}", excerpt(&error.to_string()))
}

/// Undoes every update of this run, side by side, the newest requested first. Gives what became of each turn's service
/// and how long that took, in the order of the turns; none for those that were not updated.
async fn roll_all_back(
    clients: &Clients<'_>,
    snapshots: &[Snapshot<'_>],
    turns: &[Turn],
    cancel: &Cancel,
) -> Vec<Option<(RolledBack, Duration)>> {
    let since = Instant::now();
    let mut places = vec![Place::default()];
    for _ in 1..turns.len() {
        let newer = places.last_mut().expect("there is a first place");
        let place = Place::behind(newer);
        places.push(place);
    }
    let newest_first = snapshots[..turns.len()].iter().zip(turns).rev();
    let rollbacks = newest_first.zip(places).map(async |((snapshot, turn), place)| match &turn.sent {
        Some(sent) => Some((roll_back(clients, snapshot, sent, place, cancel).await, since.elapsed())),
        None => None,
    });
    let mut rollbacks = join_all(rollbacks).await;
    rollbacks.reverse();
    rollbacks
}

/// How a service ended, all told; `ended` is why the whole run did.
fn outcome(turn: Turn, rollback: Option<RolledBack>, ended: &str) -> Outcome {
    match (turn.attempt, rollback) {
        (
            Attempt::Live(Outcome::Deployed { task_definition, .. } | Outcome::Undetermined { task_definition, .. }),
            Some(RolledBack::NothingToReturnTo(nothing)),
        ) => Outcome::Kept { task_definition, nothing, why: ended.to_owned() },
        (Attempt::Failed(why), Some(rollback)) => Outcome::RolledBack { why, rollback },
        (_, Some(rollback)) => Outcome::RolledBack { why: ended.to_owned(), rollback },
        (Attempt::Live(outcome), None) => outcome,
        (Attempt::Failed(why) | Attempt::NotBegun(why), None) => Outcome::NotUpdated { why },
        (Attempt::Cancelled(_), None) => Outcome::NotUpdated { why: ended.to_owned() },
        (Attempt::Superseded(replacement), None) => Outcome::Superseded(replacement),
    }
}

/// Adds what the last line says. What runs now is what a last look shows, and nothing else.
async fn conclude(
    clients: &Clients<'_>,
    snapshot: &Snapshot<'_>,
    outcome: Outcome,
    (updated_to, displaced): (Option<TaskDefinitionArn>, Vec<SeenDeployment>),
    took: Duration,
    patience: Duration,
) -> Ended {
    let service = snapshot.service;
    let last_look = timeout(patience, poll::answered(patience, async || clients.ecs.look(service).await)).await;
    let last_look = match last_look {
        Ok(Ok(look)) => Ok(look),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("ECS gave no answer within {} s", patience.as_secs_f64())),
    };
    let way_back = snapshot.previous().map_or("<family>:<revision>", |previous| &previous.arn.0);
    Ended {
        service: service.name.clone(),
        outcome,
        updated_to,
        displaced,
        last_look,
        known: snapshot.versions(),
        version: snapshot.version.clone(),
        took,
        way_back: format!(
            "aws ecs update-service --region {} --cluster {} --service {} --task-definition {way_back} \
             --force-new-deployment",
            clients.ecs.region(service),
            service.cluster.as_str(),
            service.name,
        ),
    }
}
