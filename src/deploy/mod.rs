//! The whole run: preflight, everybody's turn, what goes back, and how each service and scheduled task ended.

mod attempt;
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
mod schedule;
mod standing;
mod turns;
mod update;
mod watch;

use std::{
    cell::Cell,
    collections::HashMap,
    fmt,
    pin::pin,
    time::{Duration, SystemTime},
};

use futures_util::{
    StreamExt as _,
    future::{join, join_all},
    stream,
};
use tokio::time::{Instant, timeout};

pub use attempt::Attempt;
pub use check::Proof;
pub use preflight::{Problem, Remark, Snapshot, WayBack};
pub use replaced::Replacement;
pub use rollback::{Returned, RolledBack};
pub use schedule::{Job, PutBack, Schedule, ScheduleAttempt};
pub use turns::Cause;
pub use watch::{Counts, LastSeen};

use self::{
    preflight::preflight,
    rollback::{Place, roll_back},
    schedule::{Families, ScheduleTurn, put_back},
    turns::{End, Turn, made_for, take_turns, unanswered, update_schedules},
    watch::with_beats,
};
use crate::{
    aws::{Error, Fate},
    config::{ScheduledTask, Service, UpdateStrategy},
    ecr::Ecr,
    ecs::{Ecs, Haste, SeenDeployment, TaskDefinitionArn},
    eventbridge::EventBridge,
    git_sha::GitSha,
    outcome::{AllEnded, Ended, Outcome, Reason},
    ping::Ping,
    poll,
    report::{self, About, Event, Phase, RuleEvent},
    signals::Cancel,
    text::excerpt,
};

/// How many services are looked at side by side, before and after the run: enough that those of a cluster are asked for
/// together, and few enough that each, even if it is asked for alone, has its turn within the patience of a last look.
const LOOKS_AT_ONCE: usize = 50;
/// How long a request outside of a check is tried while ECS stumbles: RegisterTaskDefinition, for one, has a bucket
/// that refills once a second.
const PATIENCE: Duration = Duration::from_mins(1);
/// What waits longer than this for its turn says so.
const MOMENT: Duration = Duration::from_secs(1);
/// How long the last look of the run is tried.
const LAST_LOOK_PATIENCE: Duration = Duration::from_secs(10);

/// Whom the phases ask.
pub struct Clients<'a> {
    /// ECS.
    pub ecs: Ecs,
    /// EventBridge, about scheduled tasks.
    pub events: EventBridge,
    /// ECR, about images.
    pub ecr: Ecr<'a>,
    /// The services' urls.
    pub ping: Ping,
    /// When the run began.
    since: Instant,
    /// How many services are watched.
    watches: Cell<usize>,
}

impl<'a> Clients<'a> {
    /// Those of a run that begins now.
    pub fn new(ecs: Ecs, events: EventBridge, ecr: Ecr<'a>, ping: Ping) -> Self {
        Self { ecs, events, ecr, ping, since: Instant::now(), watches: Cell::default() }
    }
}

/// What preflight found that must be mended before anything is changed: where, and what is wrong.
pub type Problems = Vec<(Subject, Problem)>;

/// What a problem is about, by its name.
pub enum Subject {
    /// A service.
    Service(String),
    /// The rule of a scheduled task.
    ScheduledTask(String),
}

impl Subject {
    /// The same, as lines name it.
    pub fn about(&self) -> About<'_> {
        match self {
            Self::Service(name) => About::Service(name),
            Self::ScheduledTask(rule) => About::ScheduledTask(rule),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => write!(formatter, "service `{name}`"),
            Self::ScheduledTask(rule) => write!(formatter, "scheduled task `{rule}`"),
        }
    }
}

/// Why a run ended before anything was changed.
pub enum NotBegun {
    /// Preflight found problems.
    Problems(Problems),
    /// A signal, by its name.
    Cancelled(&'static str),
}

/// What is to be deployed.
pub struct Order<'a> {
    /// To which services.
    pub services: &'a [Service],
    /// To which scheduled tasks, once all services are proven.
    pub scheduled_tasks: &'a [ScheduledTask],
    /// The version.
    pub version: &'a GitSha,
    /// How many services may be deployed at the same time.
    pub parallel: usize,
}

/// Deploys what `order` says, and gives how each part ended, in their order. A signal that `cancel` knows of undoes
/// what was begun, as a failure does, without waiting for proof. `credentials_end` resolves to the time when the AWS
/// credentials end, where that is known.
pub async fn deploy(
    clients: &Clients<'_>,
    order: &Order<'_>,
    cancel: &Cancel,
    credentials_end: impl Future<Output = Option<SystemTime>>,
) -> Result<AllEnded, NotBegun> {
    let Begun { mut snapshots, schedules } = begin(clients, order, cancel, credentials_end).await?;
    let (turns, mut end) = take_turns(clients, &mut snapshots, order.parallel, cancel).await;
    let mut schedule_turns: Vec<_> = schedules.iter().map(|_| ScheduleTurn::default()).collect();
    if matches!(end, End::AllBegun) {
        let mut made = made_for(clients, &snapshots, &turns);
        end = update_schedules(clients, &schedules, &mut schedule_turns, &mut made, cancel).await;
    }
    let (rollbacks, schedules_back) = match end {
        End::RollBack(_) => {
            let families = Families { unanswered: unanswered(clients, &snapshots, &turns), ..Families::default() };
            let services = roll_all_back(clients, &snapshots, &turns, cancel);
            join(services, put_all_back(clients, &schedules, &schedule_turns, &families, cancel)).await
        }
        End::NoneFurther => {
            let families = Families { proven: proven(&turns, &schedule_turns), ..Families::default() };
            let back = put_followers_back(clients, &schedules, &schedule_turns, &families, cancel).await;
            (turns.iter().map(|_| None).collect(), back)
        }
        End::AllBegun => (turns.iter().map(|_| None).collect(), schedules.iter().map(|_| None).collect()),
    };
    let (mut rollbacks, schedules_back) = (rollbacks.into_iter(), schedules_back.into_iter());
    let why = match &end {
        End::RollBack(cause) => cause.to_string(),
        End::NoneFurther => "the run ended before its turn".to_owned(),
        End::AllBegun => String::new(),
    };
    let (patience, haste) = if cancel.is_cancelled() {
        (LAST_LOOK_PATIENCE / 4, Haste::Rollback)
    } else {
        (LAST_LOOK_PATIENCE, Haste::None)
    };
    let conclusions = snapshots.iter().zip(turns).map(|(snapshot, turn)| {
        let (rollback, undoing) = rollbacks.next().flatten().unzip();
        let took = turn.took + undoing.unwrap_or_default();
        let displaced = turn.sent.as_ref().and_then(|sent| Some(sent.deployment.as_ref()?.displaced.clone()));
        let updated_to = turn.sent.as_ref().map(|sent| sent.task_definition.clone());
        let outcome = outcome(turn, rollback, &why);
        conclude(clients, snapshot, outcome, (updated_to, displaced.unwrap_or_default()), took, (patience, haste))
    });
    let conclusions: Vec<_> = conclusions.collect();
    let schedules = schedules.iter().zip(schedule_turns).zip(schedules_back);
    let schedules = schedules
        .map(|((schedule, turn), back)| schedule::conclude(clients, schedule, turn, back, &why, patience))
        .collect::<Vec<_>>();
    let services = stream::iter(conclusions).buffered(LOOKS_AT_ONCE).collect();
    let (services, schedules) = join(services, stream::iter(schedules).buffered(LOOKS_AT_ONCE).collect()).await;
    Ok(AllEnded { services, schedules })
}

/// Preflight of what `order` says, and nothing else: says what deploying would do.
pub async fn plan(
    clients: &Clients<'_>,
    order: &Order<'_>,
    cancel: &Cancel,
    credentials_end: impl Future<Output = Option<SystemTime>>,
) -> Result<(), NotBegun> {
    let Begun { snapshots, schedules } = begin(clients, order, cancel, credentials_end).await?;
    for snapshot in snapshots {
        report::say(&snapshot.service.name, &Event::WouldDeploy(&snapshot));
        if snapshot.service.update_strategy != UpdateStrategy::None {
            report::say(&snapshot.service.name, &Event::WouldReturn(&snapshot));
        }
    }
    for schedule in schedules.iter().filter(|schedule| !schedule.stays()) {
        schedule.tell(RuleEvent::WouldRun(schedule));
        schedule.tell(RuleEvent::WouldReturn(schedule));
    }
    Ok(())
}

/// What preflight saw.
struct Begun<'a> {
    snapshots: Vec<Snapshot<'a>>,
    schedules: Vec<Schedule<'a>>,
}

/// Preflight, which a signal ends.
async fn begin<'a>(
    clients: &Clients<'_>,
    order: &Order<'a>,
    cancel: &Cancel,
    credentials_end: impl Future<Output = Option<SystemTime>>,
) -> Result<Begun<'a>, NotBegun> {
    let looks = join(look_at_all(clients, order), credentials_end);
    let (looks, credentials_end) = tokio::select! {
        biased;
        by = cancel.cancelled() => return Err(NotBegun::Cancelled(by)),
        looks = looks => looks,
    };
    let begun = looks.map_err(NotBegun::Problems)?;
    let longest = longest(&begun, order.parallel) + registrations_take(clients, &begun.snapshots);
    let left = credentials_end.map(time_left);
    if let Some(left) = left.filter(|left| *left < longest) {
        report::credentials_end_early(left, longest);
    }
    Ok(begun)
}

/// Preflight of all services and scheduled tasks, so that all problems are known before the first write.
async fn look_at_all<'a>(clients: &Clients<'_>, order: &Order<'a>) -> Result<Begun<'a>, Problems> {
    let Order { services, scheduled_tasks, version, .. } = *order;
    let looks = services.iter().map(|service| async move { (service, preflight(clients, service, version).await) });
    let looks = stream::iter(looks).buffered(LOOKS_AT_ONCE).collect::<Vec<_>>();
    let at_rules =
        scheduled_tasks.iter().map(|task| async move { (task, schedule::preflight(clients, task, version).await) });
    let at_rules = stream::iter(at_rules).buffered(LOOKS_AT_ONCE).collect::<Vec<_>>();
    let (looks, at_rules) = join(looks, at_rules).await;
    let (mut snapshots, mut schedules, mut problems) = (Vec::new(), Vec::new(), Problems::new());
    for (service, look) in looks {
        match look {
            Ok(snapshot) => snapshots.push(snapshot),
            Err(found) => {
                problems.extend(found.into_iter().map(|problem| (Subject::Service(service.name.clone()), problem)));
            }
        }
    }
    for (task, look) in at_rules {
        match look {
            Ok(mut schedule) => {
                if services.is_empty() && schedule.changes() {
                    schedule.remarks.push(Remark::NothingProvesFirst);
                }
                schedules.push(schedule);
            }
            Err(found) => {
                problems.extend(found.into_iter().map(|problem| (Subject::ScheduledTask(task.rule.clone()), problem)));
            }
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    for snapshot @ Snapshot { service, running, has_tasks, remarks, .. } in &snapshots {
        let base = snapshot.base();
        let (running, version, has_tasks) = (&running.arn, &*running.version(), *has_tasks);
        report::say(&service.name, &Event::Runs { running, version, base, has_tasks });
        for remark in remarks {
            report::say(&service.name, &Event::Remark(remark));
        }
    }
    for schedule in &schedules {
        schedule.tell(RuleEvent::Runs(schedule));
        for remark in &schedule.remarks {
            schedule.say(&Event::Remark(remark));
        }
    }
    Ok(Begun { snapshots, schedules })
}

/// How long from now until `end`; nothing if it has passed.
fn time_left(end: SystemTime) -> Duration {
    end.duration_since(SystemTime::now()).unwrap_or_default()
}

/// The longest that a run may take: each service in its turn, `parallel` of them at the same time, with two writes and
/// two checks, the last of which fails when its time is over; then one scheduled task after another; then everything
/// going back side by side.
fn longest(Begun { snapshots, schedules }: &Begun<'_>, parallel: usize) -> Duration {
    let check = |snapshot: &Snapshot<'_>| snapshot.service.timeout + snapshot.strategy.takes();
    let mut turns = vec![Duration::ZERO; parallel];
    for snapshot in snapshots {
        let first_to_end = turns.iter_mut().min().expect("at least one service may be deployed at a time");
        *first_to_end += 2 * PATIENCE + 2 * check(snapshot);
    }
    let forth = turns.into_iter().max().unwrap_or_default();
    let back = snapshots.iter().map(|snapshot| 2 * snapshot.service.timeout.max(PATIENCE) + 2 * check(snapshot));
    let (rules_forth, rules_back) = schedule::longest(schedules);
    forth + rules_forth + back.chain([rules_back]).max().unwrap_or_default()
}

/// How long the services of a region wait for each other to register, at most.
fn registrations_take(clients: &Clients<'_>, snapshots: &[Snapshot<'_>]) -> Duration {
    let mut counts: HashMap<_, usize> = HashMap::new();
    for snapshot in snapshots.iter().filter(|snapshot| snapshot.registers()) {
        *counts.entry(clients.ecs.region(snapshot.service)).or_default() += 1;
    }
    let waits = counts.into_iter().map(|(region, count)| clients.ecs.registrations_take(region, count));
    waits.max().unwrap_or_default()
}

/// Tries a request that may safely be repeated for as long as [`PATIENCE`], and tells why when it has to be repeated.
async fn answered<T>(service: &Service, request: impl AsyncFnMut() -> Result<T, Error>) -> Result<T, Error> {
    answered_telling(|event| report::say(&service.name, event), request).await
}

/// As [`answered`], for whatever it is that `tell` tells of.
async fn answered_telling<T>(
    tell: impl Fn(&Event<'_>),
    request: impl AsyncFnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    answered_but_for(&Cell::default(), tell, request).await
}

/// As [`answered_telling`], for a request that waits for something else first: what it adds to `waited` doesn't count.
async fn answered_but_for<T>(
    waited: &Cell<Duration>,
    tell: impl Fn(&Event<'_>),
    mut request: impl AsyncFnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    let mut is_told = false;
    let telling = async || {
        let answer = request().await;
        if let Err(error) = &answer
            && error.fate != Fate::Refused
            && !std::mem::replace(&mut is_told, true)
        {
            tell(&Event::TriesAgain { error: &excerpt(&error.to_string()), limit: PATIENCE });
        }
        answer
    };
    poll::answered_within(|| PATIENCE + waited.get(), telling).await
}

/// Waits for the `turn` to make the write of `phase`, and tells so where that takes longer than a moment.
async fn awaited_turn<T>(tell: impl Fn(&Event<'_>), phase: Phase, turn: impl Future<Output = T>) -> T {
    let mut turn = pin!(turn);
    if let Ok(turn) = timeout(MOMENT, &mut turn).await {
        return turn;
    }
    let tell_of = |took| tell(&Event::AwaitsTurn { phase, took });
    tell_of(MOMENT);
    let turn = with_beats(turn, |took| tell_of(MOMENT + took)).await;
    tell(&Event::TurnCame);
    turn
}

/// An error of ECS's with the way out, in one line.
fn explain(error: &Error) -> Reason {
    let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
    format!("{}{hint}", excerpt(&error.to_string())).into()
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
        Some(sent) => {
            let rollback = roll_back(clients, snapshot, sent, place, cancel).await;
            report::say(&snapshot.service.name, &Event::RollbackEnded(&rollback));
            Some((rollback, since.elapsed()))
        }
        None => None,
    });
    let mut rollbacks = join_all(rollbacks).await;
    rollbacks.reverse();
    rollbacks
}

/// As [`roll_all_back`], for the rules of scheduled tasks; what is proven of `families` may stay.
async fn put_all_back(
    clients: &Clients<'_>,
    schedules: &[Schedule<'_>],
    turns: &[ScheduleTurn],
    families: &Families,
    cancel: &Cancel,
) -> Vec<Option<(PutBack, Duration)>> {
    let backs =
        schedules.iter().zip(turns).map(|(schedule, turn)| put_one_back(clients, schedule, turn, families, cancel));
    join_all(backs).await
}

/// As [`put_all_back`], where everything proven stays: only the rules that had no turn, and run what was registered
/// because they follow its family.
async fn put_followers_back(
    clients: &Clients<'_>,
    schedules: &[Schedule<'_>],
    turns: &[ScheduleTurn],
    families: &Families,
    cancel: &Cancel,
) -> Vec<Option<(PutBack, Duration)>> {
    let backs = schedules.iter().zip(turns).map(async |(schedule, turn)| match turn.attempt {
        None => put_one_back(clients, schedule, turn, families, cancel).await,
        Some(_) => None,
    });
    join_all(backs).await
}

async fn put_one_back(
    clients: &Clients<'_>,
    schedule: &Schedule<'_>,
    turn: &ScheduleTurn,
    families: &Families,
    cancel: &Cancel,
) -> Option<(PutBack, Duration)> {
    let since = Instant::now();
    let back = put_back(clients, schedule, turn.written.as_ref(), families, cancel).await?;
    schedule.tell(RuleEvent::RollbackEnded(&back));
    Some((back, since.elapsed()))
}

/// What this run has proven, or has had rules run once everything was.
fn proven(turns: &[Turn], schedule_turns: &[ScheduleTurn]) -> Vec<TaskDefinitionArn> {
    let services = turns.iter().filter_map(|turn| match &turn.attempt {
        Some(Attempt::Live(
            Outcome::Deployed { task_definition, .. } | Outcome::Undetermined { task_definition, .. },
        )) => Some(task_definition),
        _ => None,
    });
    let rules = schedule_turns.iter().flat_map(|turn| match &turn.attempt {
        Some(ScheduleAttempt::Updated(to)) => &**to,
        _ => &[],
    });
    services.chain(rules).cloned().collect()
}

/// How a service ended, all told; `ended` is why the whole run did.
fn outcome(turn: Turn, rollback: Option<RolledBack>, ended: &str) -> Outcome {
    let Some(attempt) = turn.attempt else { return Outcome::NotReached };
    match (attempt, rollback) {
        (
            Attempt::Live(
                Outcome::Deployed { task_definition, version, .. }
                | Outcome::Undetermined { task_definition, version, .. },
            ),
            Some(RolledBack::NothingToReturnTo(nothing)),
        ) => Outcome::Kept { task_definition, version, nothing, why: ended.to_owned().into() },
        (Attempt::Failed(why), Some(rollback)) => Outcome::RolledBack { why, rollback },
        (_, Some(rollback)) => Outcome::RolledBack { why: ended.to_owned().into(), rollback },
        (Attempt::Live(outcome), None) => outcome,
        (Attempt::Failed(why) | Attempt::NotBegun(why), None) => Outcome::NotUpdated { why },
        (Attempt::NotProven(why), None) => Outcome::NotProven { why },
        (Attempt::Interrupted(_), None) => Outcome::NotUpdated { why: ended.to_owned().into() },
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
    (patience, haste): (Duration, Haste),
) -> Ended {
    let service = snapshot.service;
    let last_look = timeout(patience, poll::answered(patience, async || clients.ecs.look(service, haste).await)).await;
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
        had_tasks: snapshot.has_tasks,
        version: snapshot.version.clone(),
        update_strategy: service.update_strategy,
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
