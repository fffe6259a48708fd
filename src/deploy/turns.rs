//! Whose turn it is, services side by side and then scheduled tasks, and the one place that decides to roll back.

use std::{fmt, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::Instant;

use super::{
    Clients,
    attempt::{Attempt, attempt},
    preflight::Snapshot,
    rollback::Sent,
    schedule::{self, Made, Schedule, ScheduleAttempt, ScheduleTurn},
};
use crate::{
    config::{Service, UpdateStrategy},
    report::{self, Event},
    signals::Cancel,
};

/// One service's turn.
#[derive(Default)]
pub struct Turn {
    /// When it began, if it did.
    pub since: Option<Instant>,
    /// How long it took.
    pub took: Duration,
    /// What was sent to ECS.
    pub sent: Option<Sent>,
    /// How its phases ended; none where the run ended before them.
    pub attempt: Option<Attempt>,
}

/// How the turns of a run ended.
pub enum End {
    /// Every service had its turn.
    AllBegun,
    /// No further service was begun; what is proven stays.
    NoneFurther,
    /// Every service updated in this run goes back.
    RollBack(Cause),
}

/// Why a run ended early.
#[derive(Clone, Debug)]
pub enum Cause {
    /// A service failed, by its name.
    Failed(String),
    /// A scheduled task failed, by its rule's name.
    ScheduleFailed(String),
    /// A signal ended the run, by its name.
    Cancelled(&'static str),
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(service) => write!(formatter, "service `{service}` failed"),
            Self::ScheduleFailed(rule) => write!(formatter, "scheduled task `{rule}` failed"),
            Self::Cancelled(by) => write!(formatter, "the run was cancelled by {by}"),
        }
    }
}

/// What follows for the run from how one service ended.
enum Next {
    /// The next service.
    GoOn,
    /// No further service is updated; what is proven stays, and what is under way goes on.
    NoUpdate,
    /// No further service; what is proven stays, and what is under way goes on.
    Stop,
    /// No further service; every service updated in this run goes back.
    RollBack,
}

fn next(attempt: &Attempt) -> Next {
    match attempt {
        Attempt::Live(_) => Next::GoOn,
        Attempt::NotProven(_) => Next::NoUpdate,
        Attempt::NotBegun(_) | Attempt::Superseded(_) => Next::Stop,
        Attempt::Failed(_) | Attempt::Interrupted(_) => Next::RollBack,
    }
}

/// Gives each service its turn, `parallel` of them at the same time, in their order. The first failure and a signal end
/// all turns that are under way.
pub async fn take_turns<'a>(
    clients: &Clients<'_>,
    snapshots: &mut [Snapshot<'a>],
    parallel: usize,
    cancel: &Cancel,
) -> (Vec<Turn>, End) {
    let services: Vec<&'a Service> = snapshots.iter().map(|snapshot| snapshot.service).collect();
    let mut turns: Vec<_> = snapshots.iter().map(|_| Turn::default()).collect();
    let mut waiting = snapshots.iter_mut().zip(&mut turns);
    let mut under_way = FuturesUnordered::new();
    let (mut may_begin, mut may_update) = (true, true);
    let cause = loop {
        while may_begin && under_way.len() < parallel {
            let may = |service: &Service| may_update || service.update_strategy == UpdateStrategy::None;
            let Some((snapshot, turn)) = waiting.find(|(snapshot, _)| may(snapshot.service)) else { break };
            under_way.push(take_turn(clients, snapshot, turn));
        }
        let ended = tokio::select! {
            biased;
            by = cancel.cancelled() => break Some(Cause::Cancelled(by)),
            ended = under_way.next() => ended,
        };
        match ended {
            None => break None,
            Some((_, Next::GoOn)) => {}
            Some((_, Next::NoUpdate)) => may_update = false,
            Some((_, Next::Stop)) => may_begin = false,
            Some((service, Next::RollBack)) => break Some(Cause::Failed(service.name.clone())),
        }
    };
    drop(under_way);
    drop(waiting);
    let end = match cause {
        Some(cause) => End::RollBack(cause),
        None if may_begin && may_update => End::AllBegun,
        None => End::NoneFurther,
    };
    if let End::RollBack(cause) = &end {
        for (service, turn) in services.into_iter().zip(&mut turns) {
            if turn.since.is_some() && turn.attempt.is_none() {
                turn.end(service, Attempt::Interrupted(cause.clone()));
            }
        }
    }
    (turns, end)
}

/// Takes one service through its phases, and says what follows from how they ended. What is to be undone is in `turn`
/// at any moment, even if this future is dropped.
async fn take_turn<'a>(clients: &Clients<'_>, snapshot: &mut Snapshot<'a>, turn: &mut Turn) -> (&'a Service, Next) {
    turn.since = Some(Instant::now());
    let attempt = attempt(clients, snapshot, &mut turn.sent).await;
    let next = next(&attempt);
    turn.end(snapshot.service, attempt);
    (snapshot.service, next)
}

impl Turn {
    fn end(&mut self, service: &Service, attempt: Attempt) {
        self.took = self.since.map(|since| since.elapsed()).unwrap_or_default();
        let event = Event::Ended { attempt: &attempt, took: self.took, strategy: service.update_strategy };
        report::say(&service.name, &event);
        self.attempt = Some(attempt);
    }
}

/// What was registered for the services, for scheduled tasks that are made from the same revision.
pub fn made_for(clients: &Clients<'_>, snapshots: &[Snapshot<'_>], turns: &[Turn]) -> Made {
    let mut made = Made::default();
    for (snapshot, turn) in snapshots.iter().zip(turns).filter(|(snapshot, _)| snapshot.ready().is_none()) {
        if let Some(sent) = turn.sent.as_ref().filter(|_| snapshot.service.update_strategy.makes_revision()) {
            let (region, containers) = (clients.ecs.region(snapshot.service), snapshot.service.containers.as_deref());
            made.add(region, &snapshot.base().arn, containers, sent.task_definition.clone());
        }
    }
    made
}

/// The families, with their regions, for which a service that was not updated may have asked to register a revision.
pub fn unanswered(clients: &Clients<'_>, snapshots: &[Snapshot<'_>], turns: &[Turn]) -> Vec<(String, String)> {
    let begun = snapshots.iter().zip(turns).filter(|(snapshot, turn)| {
        snapshot.registers()
            && turn.sent.is_none()
            && matches!(turn.attempt, Some(Attempt::Failed(_) | Attempt::Interrupted(_)))
    });
    let family = |snapshot: &Snapshot<'_>| snapshot.base().arn.family().to_owned();
    begun.map(|(snapshot, _)| (clients.ecs.region(snapshot.service).to_owned(), family(snapshot))).collect()
}

/// Gives each scheduled task its turn, one after another. The first that fails and a signal end them.
pub async fn update_schedules(
    clients: &Clients<'_>,
    schedules: &[Schedule<'_>],
    turns: &mut [ScheduleTurn],
    made: &mut Made,
    cancel: &Cancel,
) -> End {
    for (schedule, turn) in schedules.iter().zip(turns).filter(|(schedule, _)| !schedule.stays()) {
        turn.since = Some(Instant::now());
        schedule.say(&Event::Begins);
        let attempt = tokio::select! {
            biased;
            by = cancel.cancelled() => ScheduleAttempt::Interrupted(Cause::Cancelled(by)),
            attempt = schedule::update(clients, schedule, made, &mut turn.written) => attempt,
        };
        let end = match &attempt {
            ScheduleAttempt::Updated(_) | ScheduleAttempt::UpToDate => None,
            ScheduleAttempt::Superseded(_) => Some(End::NoneFurther),
            ScheduleAttempt::Failed(_) => Some(End::RollBack(Cause::ScheduleFailed(schedule.task.rule.clone()))),
            ScheduleAttempt::Interrupted(cause) => Some(End::RollBack(cause.clone())),
        };
        turn.end(schedule, attempt);
        if let Some(end) = end {
            return end;
        }
    }
    End::AllBegun
}
