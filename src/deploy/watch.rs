//! Looks at one service while a phase waits: what each look shows is told when it changes and remembered for the end.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    convert::Infallible,
    pin::{Pin, pin},
    time::Duration,
};

use reqwest::Url;
use tokio::time::{Instant, sleep, timeout};

use super::{
    Clients,
    failures::{self, End},
    replaced::Replacement,
    standing::{Deployment, Standing, judge},
    update::READS_MAY_BE_STALE,
};
use crate::{
    aws::{Error, Fate},
    config::Service,
    ecs::{DeploymentId, Haste, Look, Meant, SeenDeployment, ServiceDeploymentArn, Strategy, Task},
    outcome::Reason,
    ping::Answer,
    poll::{Backoff, PACE},
    report::{self, Event},
    text::excerpt,
};

/// How often it is told that a wait goes on.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// How often to look while nothing but a failure can show.
const SELDOM: Duration = Duration::from_secs(2);
/// How often to look while the end may come at any moment.
const OFTEN: Duration = Duration::from_millis(500);
/// How often to look once that has taken longer than [`SOON`], and when tasks have begun to fail.
const RATHER_OFTEN: Duration = Duration::from_millis(800);
/// See [`RATHER_OFTEN`].
const SOON: Duration = Duration::from_secs(10);
/// How often the tasks that stop are listed though nothing in the looks hints at one.
const WITHOUT_HINT: Duration = Duration::from_secs(6);
/// What is asked for now and then, of one service at a time, is asked for no more often than this by all together.
const EACH: Duration = Duration::from_secs(1);
/// How long it may take to find out what is only told, such as why tasks stopped: a rollback may wait for it.
const LAST_QUESTION: Duration = Duration::from_secs(3);
/// How many of the newest service events a last message carries.
const NEWEST_EVENTS: usize = 3;

/// What is known of one service during one wait.
pub struct Watch<'a> {
    /// Whom to ask.
    pub clients: &'a Clients<'a>,
    /// The service that is watched.
    pub service: &'a Service,
    ours: &'a Deployment,
    last_look: RefCell<Option<(Look, Instant)>>,
    last_answer: RefCell<Option<Answer>>,
    said: RefCell<Said>,
    said_of_tasks: RefCell<Said>,
    said_of_answers: RefCell<Said>,
    said_of_events: RefCell<Said>,
    said_of_stages: RefCell<Said>,
    said_of_awaited: RefCell<Said>,
    /// When the stage was last asked for.
    stage_asked: Cell<Option<Instant>>,
    /// Whether ECS has refused to tell stages, which is then not asked again.
    hides_stages: Cell<bool>,
    backoff: RefCell<Backoff>,
    backoff_of_tasks: RefCell<Backoff>,
    /// Since when looks have shown an earlier deployment as PRIMARY, and whether one before showed ours.
    not_shown_since: Cell<Option<Instant>>,
    was_shown: Cell<bool>,
    /// The service deployment that ours is part of.
    service_deployment: RefCell<Option<ServiceDeploymentArn>>,
    /// When tasks may be asked for again, after that failed.
    tasks_from: Cell<Option<Instant>>,
    /// The newest service event that has been read.
    newest_event: RefCell<Option<String>>,
    /// Since when the end has been near.
    near_since: Cell<Option<Instant>>,
    /// What the last look counted.
    counted: Cell<Counted>,
    /// Whether ECS has told that it started tasks of ours.
    has_started: Cell<bool>,
    /// When the counts last hinted at a failed task that no list has shown yet.
    hinted: Cell<Option<Instant>>,
    /// Whether events hint at one since the last list.
    has_news: Cell<bool>,
    /// When the tasks that stop were last listed; none if they are to be listed at once.
    listed: Cell<Option<Instant>>,
    /// The tasks that stop, by ARN; those of ours that failed in full.
    stopping: RefCell<HashMap<String, Option<Task>>>,
    /// Whether they have been listed once.
    has_listed: Cell<bool>,
}

/// What a look counts of ours.
#[derive(Clone, Copy, Default)]
struct Counted {
    /// Tasks on their way, or running.
    alive: usize,
    /// Those that failed one after another.
    failed: usize,
}

impl Counted {
    fn of(ours: &SeenDeployment) -> Self {
        Self { alive: ours.running + ours.pending, failed: ours.failed_tasks }
    }

    /// Whether this, counted after `before`, hints at a task that failed: there are fewer, or more that failed.
    fn hints(self, before: Self) -> bool {
        self.alive < before.alive || self.failed > before.failed
    }
}

/// What a phase waits for when it looks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// Its end, which may come at any moment.
    End,
    /// Nothing that a look could show but a failure.
    Failure,
}

/// What one look says about the tasks of ours and of the deployments before it.
#[derive(Clone, Copy)]
pub struct Counts<'a> {
    /// The id of ours.
    pub deployment: &'a DeploymentId,
    /// The look.
    pub look: &'a Look,
}

impl<'a> Counts<'a> {
    /// Ours, unless ECS doesn't show it.
    pub fn ours(self) -> Option<&'a SeenDeployment> {
        self.look.deployments().find(|deployment| deployment.id == *self.deployment)
    }

    /// The deployments other than ours.
    pub fn others(self) -> impl Iterator<Item = &'a SeenDeployment> {
        self.look.deployments().filter(move |other| other.id != *self.deployment)
    }
}

/// What was last seen of a service.
pub struct LastSeen {
    /// The id of our deployment.
    pub deployment: DeploymentId,
    /// The last look that succeeded, and how old it is.
    pub look: Option<(Look, Duration)>,
    /// The url's last answer.
    pub answer: Option<Answer>,
}

impl LastSeen {
    /// Whether looks have failed since the last one that succeeded, so that its age matters.
    pub fn is_old(age: Duration) -> bool {
        age > 2 * SELDOM
    }
}

/// The last line of one kind.
#[derive(Default)]
struct Said(Option<String>);

impl Said {
    /// Tells `event`, unless it says the same as the one before.
    fn say(&mut self, service: &Service, event: &Event<'_>) {
        let line = event.to_string();
        if self.0.as_ref() != Some(&line) {
            report::say(&service.name, event);
            self.0 = Some(line);
        }
    }
}

impl<'a> Watch<'a> {
    /// Begins to watch how `ours` does.
    pub fn new(clients: &'a Clients<'a>, service: &'a Service, ours: &'a Deployment) -> Self {
        clients.watches.update(|watches| watches + 1);
        Self {
            clients,
            service,
            ours,
            last_look: RefCell::default(),
            last_answer: RefCell::default(),
            said: RefCell::default(),
            said_of_tasks: RefCell::default(),
            said_of_answers: RefCell::default(),
            said_of_events: RefCell::default(),
            said_of_stages: RefCell::default(),
            said_of_awaited: RefCell::default(),
            hides_stages: Cell::default(),
            backoff: RefCell::default(),
            backoff_of_tasks: RefCell::default(),
            not_shown_since: Cell::default(),
            was_shown: Cell::default(),
            service_deployment: RefCell::default(),
            tasks_from: Cell::default(),
            newest_event: RefCell::default(),
            near_since: Cell::default(),
            counted: Cell::default(),
            has_started: Cell::default(),
            hinted: Cell::default(),
            has_news: Cell::default(),
            stage_asked: Cell::default(),
            // Where it was there before, what stopped before is to be told from what stops now.
            listed: Cell::new((!ours.was_there).then(Instant::now)),
            stopping: RefCell::default(),
            has_listed: Cell::default(),
        }
    }

    /// One look. A look that fails says nothing about the deployment: it gives the pause until the next.
    pub async fn look(&self) -> Result<Look, Duration> {
        match self.clients.ecs.look(self.service, Haste::None).await {
            Ok(look) => {
                self.backoff.borrow_mut().reset();
                let counts = Counts { deployment: &self.ours.id, look: &look };
                self.said.borrow_mut().say(self.service, &Event::Counted(counts));
                if look.primary.id == self.ours.id {
                    let counted = Counted::of(&look.primary);
                    if counted.hints(self.counted.replace(counted)) {
                        self.hinted.set(Some(Instant::now()));
                    }
                    if self.read_events(&look) {
                        self.has_news.set(true);
                    }
                    if let Some(arn) = self.ours.service_deployment_in(&look) {
                        *self.service_deployment.borrow_mut() = Some(arn.clone());
                    }
                }
                *self.last_look.borrow_mut() = Some((look.clone(), Instant::now()));
                Ok(look)
            }
            Err(error) => {
                let error = excerpt(&error.to_string());
                self.said.borrow_mut().say(self.service, &Event::EcsNotAnswered(&error));
                Err(self.backoff.borrow_mut().pause().max(PACE))
            }
        }
    }

    /// The pause until the next look. Those of all services that are as long end at the same moment, so that one request
    /// serves many.
    pub fn pause(&self, awaited: Awaited) -> Duration {
        let pace = match awaited {
            Awaited::Failure if self.has_failures() => RATHER_OFTEN,
            Awaited::Failure => SELDOM,
            Awaited::End => {
                let near_since = self.near_since.get().unwrap_or_else(Instant::now);
                self.near_since.set(Some(near_since));
                if near_since.elapsed() < SOON { OFTEN } else { RATHER_OFTEN }
            }
        };
        until_beat(self.clients.since.elapsed(), pace)
    }

    /// Whether tasks of ours have failed.
    fn has_failures(&self) -> bool {
        self.counted.get().failed > 0 || self.stopping.borrow().values().any(Option::is_some)
    }

    /// Where ours stands, by this look. One that shows an earlier deployment as PRIMARY is stale, for as long as reads
    /// may be; after that, and once ours has been seen, it says that ECS or somebody made that one PRIMARY again.
    pub fn judge<'b>(&self, look: &'b Look) -> Standing<'b> {
        let standing = judge(self.ours, look);
        if !matches!(standing, Standing::NotShownYet) {
            self.not_shown_since.set(None);
            self.was_shown.set(true);
            return standing;
        }
        let since = self.not_shown_since.get().unwrap_or_else(Instant::now);
        self.not_shown_since.set(Some(since));
        if self.was_shown.get() && since.elapsed() >= READS_MAY_BE_STALE {
            return Standing::Replaced(Replacement::by_primary_of(look, Some(&self.ours.id)));
        }
        standing
    }

    /// The service deployment that ours is part of, where ECS has said so by now.
    pub fn service_deployment(&self) -> Option<ServiceDeploymentArn> {
        self.service_deployment.borrow().clone().or_else(|| self.ours.service_deployment.clone())
    }

    /// The tasks that are to run; a failed look gives the pause until the next.
    pub async fn tasks(&self) -> Result<Vec<Task>, Duration> {
        let tasks = self.clients.ecs.tasks(self.service, Meant::ToRun, Haste::None).await;
        let pause = || self.tasks_from.get().map_or(PACE, |from| from.saturating_duration_since(Instant::now()));
        self.noted(tasks).ok_or_else(|| pause().max(PACE))
    }

    /// Why the deployment is to be given up, by the tasks of ours that failed so far. To be asked after each `look` in
    /// which ours is the PRIMARY; tasks are listed when something in it hints at one that stopped, and now and then.
    /// `was_live` says that the version has been seen live.
    pub async fn failure(&self, look: &Look, was_live: bool) -> Option<String> {
        let ours = &look.primary;
        let must_wait = self.tasks_from.get().is_some_and(|from| Instant::now() < from);
        // A list may be from before what the look hints at.
        let is_hinted = self.hinted.get().is_some_and(|hinted| {
            hinted.elapsed() < READS_MAY_BE_STALE || self.listed.get().is_none_or(|listed| listed < hinted)
        });
        let every = WITHOUT_HINT.max(self.each_in_turn());
        let is_due = self.has_news.get() || self.listed.get().is_none_or(|at| at.elapsed() >= every);
        if must_wait || !(is_hinted || is_due) {
            return None;
        }
        let shows_failure = self.list_stopping(if is_hinted { Haste::Next } else { Haste::None }).await?;
        let failed: Vec<_> = self.stopping.borrow().values().flatten().cloned().collect();
        let living = if failures::can_be_enough(failed.len()) {
            self.noted(self.clients.ecs.tasks(self.service, Meant::ToRun, Haste::Next).await)?
        } else {
            Vec::new()
        };
        let living: Vec<_> = living.into_iter().filter(|task| task.is_of(&self.ours.id)).collect();
        // Not before all has been seen: what a stumbling API kept back is asked for again with the next look.
        self.listed.set(Some(Instant::now()));
        self.has_news.set(false);
        if shows_failure {
            self.hinted.set(None);
        }
        failures::verdict(&failed, &living, ours.desired, was_live)
    }

    /// Brings what is known of the tasks that stop up to date. Each is described until its reason is known, once; says
    /// whether another one of ours has failed, and the reason of none is still to come.
    async fn list_stopping(&self, haste: Haste) -> Option<bool> {
        let arns = self.noted(self.clients.ecs.task_arns(self.service, Meant::ToStop, haste).await)?;
        let new: Vec<_> = arns.iter().filter(|arn| !self.stopping.borrow().contains_key(*arn)).cloned().collect();
        let described = self.noted(self.clients.ecs.describe_tasks(self.service, &new, haste).await)?;
        let mut stopping = self.stopping.borrow_mut();
        let arns: HashSet<_> = arns.into_iter().collect();
        stopping.retain(|arn, _| arns.contains(arn));
        let is_old = self.ours.was_there && !self.has_listed.replace(true);
        let (mut all_known, mut shows_failure) = (true, false);
        for task in described {
            let Some(stopped) = &task.stopped else {
                all_known = false;
                continue;
            };
            let is_failure = !is_old && task.is_of(&self.ours.id) && failures::end(stopped) != End::Ordinary;
            shows_failure |= is_failure;
            stopping.insert(task.arn.clone(), is_failure.then_some(task));
        }
        Some(all_known && shows_failure)
    }

    /// The answer of a request about tasks. One that failed says nothing about the deployment; it is told.
    fn noted<T>(&self, answer: Result<T, Error>) -> Option<T> {
        match answer {
            Ok(answer) => {
                self.backoff_of_tasks.borrow_mut().reset();
                self.tasks_from.set(None);
                Some(answer)
            }
            Err(error) => {
                self.tasks_from.set(Some(Instant::now() + self.backoff_of_tasks.borrow_mut().pause()));
                if error.fate == Fate::Refused {
                    self.hinted.set(None); // No haste will help.
                }
                let error = error.in_short();
                self.said_of_tasks.borrow_mut().say(self.service, &Event::TasksNotAnswered(&error));
                None
            }
        }
    }

    /// Tells the service events that came since the last look and speak of trouble, such as with placing tasks. Says
    /// whether any hints at a task that stopped: trouble, or that ECS started tasks again.
    fn read_events(&self, look: &Look) -> bool {
        let newest = self.newest_event.replace(look.events.first().map(|event| event.id.clone()));
        let new: Vec<_> = look.events.iter().take_while(|event| Some(&event.id) != newest.as_ref()).collect();
        let mut is_hint = false;
        for event in new.into_iter().rev() {
            if is_trouble(&event.message) {
                self.said_of_events.borrow_mut().say(self.service, &Event::EcsSays(&event.message));
                is_hint = true;
            }
            // "(service api) has started 2 tasks: …" (dg/service-event-messages)
            if event.message.contains("has started") {
                is_hint |= self.has_started.replace(true);
            }
        }
        is_hint
    }

    /// How long each service must wait between two questions that are not shared, so that all of them together ask no
    /// more often than every [`EACH`].
    fn each_in_turn(&self) -> Duration {
        EACH.saturating_mul(u32::try_from(self.clients.watches.get()).unwrap_or(u32::MAX))
    }

    /// Tells in which stage a deployment is that has stages: blue/green, linear or canary. `look` shows it as PRIMARY.
    pub async fn say_stage(&self, look: &Look) {
        let (Strategy::Shifting { name, .. }, Some(arn)) = (look.strategy, self.ours.service_deployment_in(look))
        else {
            return;
        };
        let is_early = self.stage_asked.get().is_some_and(|at| at.elapsed() + EACH < self.each_in_turn());
        if self.hides_stages.get() || is_early {
            return;
        }
        self.stage_asked.set(Some(Instant::now()));
        // It is only told, so nothing waits long for it.
        let asked = timeout(LAST_QUESTION, self.clients.ecs.service_deployment(self.service, arn, Haste::None));
        let Ok(stage) = asked.await else { return };
        let mut said = self.said_of_stages.borrow_mut();
        match stage {
            Ok(seen) => {
                if let Some(stage) = &seen.stage {
                    said.say(self.service, &Event::AtStage { name, stage });
                }
            }
            Err(error) => {
                self.hides_stages.set(error.fate == Fate::Refused);
                said.say(self.service, &Event::StageUnknown { name, error: &error.in_short() });
            }
        }
    }

    /// Tells that ECS's COMPLETED is waited for when nothing else is, and why.
    pub fn say_awaits_completed(&self, why: &str) {
        self.said_of_awaited.borrow_mut().say(self.service, &Event::AwaitsCompleted(why));
    }

    /// Does `work`, which may take as long as `limit`, and tells now and then that it goes on and what was last seen.
    pub async fn with_heartbeat<T>(&self, limit: Duration, work: impl Future<Output = T>) -> T {
        let tell = |took| {
            let event = Event::StillWaits { took, left: limit.saturating_sub(took), seen: &self.last_seen() };
            report::say(&self.service.name, &event);
        };
        with_beats(work, tell).await
    }

    /// One request of the url.
    pub async fn ask(&self, url: &Url) -> Answer {
        let answer = self.clients.ping.get(url, &self.service.header, self.service.request_timeout()).await;
        self.said_of_answers.borrow_mut().say(self.service, &Event::UrlAnswered(&answer));
        *self.last_answer.borrow_mut() = Some(answer.clone());
        answer
    }

    /// The last look that succeeded.
    pub fn last_look(&self) -> Option<Look> {
        self.last_look.borrow().as_ref().map(|(look, _)| look.clone())
    }

    /// The url's last answer.
    pub fn last_answer(&self) -> Option<Answer> {
        self.last_answer.borrow().clone()
    }

    /// What was last seen.
    fn last_seen(&self) -> LastSeen {
        let look = self.last_look.borrow().as_ref().map(|(look, at)| (look.clone(), at.elapsed()));
        LastSeen { deployment: self.ours.id.clone(), look, answer: self.last_answer() }
    }

    /// Adds to `what`, which ended a wait, why tasks of ours stopped and what was seen at last: the url's answer, the
    /// counts and how old they are, and ECS's newest events.
    pub async fn explain(&self, mut what: String) -> Reason {
        let mut seen = Vec::new();
        match timeout(LAST_QUESTION, self.list_stopping(Haste::Next)).await {
            Ok(Some(_)) => {}
            _ => seen.push("ECS could not be asked why tasks stopped".to_owned()),
        }
        if let Some(task) = self.last_failure().await {
            let stopped = task.stopped.map(|stopped| stopped.to_string()).unwrap_or_default();
            what = format!("{what}; a new task stopped: {}", excerpt(&stopped));
        }
        seen.push(self.last_seen().to_string());
        let events = self.last_look().map(|look| look.events).unwrap_or_default();
        // Those that speak of trouble, if any do; the others say how far the rollout was.
        let speaks = events.iter().any(|event| is_trouble(&event.message));
        let events = events.iter().filter(|event| !speaks || is_trouble(&event.message)).take(NEWEST_EVENTS);
        let events: Vec<_> = events.map(|event| excerpt(&event.message)).collect();
        if !events.is_empty() {
            seen.push(format!("ECS's newest events: {}", events.join(" / ")));
        }
        Reason { what, seen: seen.join("; ") }
    }

    /// The last task of our deployment that failed, with its exit codes: they show only once its containers are gone,
    /// so one that has them goes before one that is still stopping.
    async fn last_failure(&self) -> Option<Task> {
        let arns: Vec<_> = self.stopping.borrow().values().flatten().map(|task| task.arn.clone()).collect();
        let known = || self.stopping.borrow().values().flatten().cloned().collect();
        let tasks =
            match timeout(LAST_QUESTION, self.clients.ecs.describe_tasks(self.service, &arns, Haste::Next)).await {
                Ok(Ok(tasks)) => tasks,
                _ => known(),
            };
        let told = |task: &Task| task.stopped.as_ref().map(|stopped| (!stopped.containers.is_empty(), stopped.at));
        tasks.into_iter().max_by_key(told)
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.clients.watches.update(|watches| watches - 1);
    }
}

/// How long it is until the next beat, where there is one after each `pace` since the run began `past` ago.
fn until_beat(past: Duration, pace: Duration) -> Duration {
    let beats = past.as_nanos() / pace.as_nanos();
    let next = pace.saturating_mul(u32::try_from(beats + 1).unwrap_or(u32::MAX));
    next.saturating_sub(past)
}

/// Does `work`, and calls `beat` every [`HEARTBEAT`] with how long it has taken so far.
pub async fn with_beats<T>(work: impl Future<Output = T>, mut beat: impl FnMut(Duration)) -> T {
    let since = Instant::now();
    let beats = async {
        loop {
            sleep(HEARTBEAT).await;
            beat(since.elapsed());
        }
    };
    let beats: Pin<&mut dyn Future<Output = Infallible>> = pin!(beats);
    tokio::select! {
        biased;
        done = work => done,
        never = beats => match never {},
    }
}

/// Whether a service event speaks of something that keeps a deployment from going on, such as
/// "was unable to place a task" (dg/service-event-messages).
fn is_trouble(message: &str) -> bool {
    ["unable to", "unhealthy", "failed"].iter().any(|word| message.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_trouble_from_the_usual_events() {
        for trouble in [
            "(service api) was unable to place a task because no container instance met all of its requirements.",
            "(service api) is unable to consistently start tasks successfully.",
            "(service api) (port 80) is unhealthy in (target-group x)",
            "(service api) (deployment ecs-svc/1) deployment failed: tasks failed to start.",
        ] {
            assert!(is_trouble(trouble), "{trouble}");
        }
        for usual in ["(service api) has started 1 tasks: (task 1).", "(service api) has reached a steady state."] {
            assert!(!is_trouble(usual), "{usual}");
        }
    }

    #[test]
    fn fewer_tasks_or_more_failures_hint_at_a_task_that_failed() {
        let count = |alive, failed| Counted { alive, failed };
        for (before, now, is_hint) in [
            (count(0, 0), count(2, 0), false),
            (count(2, 0), count(2, 0), false),
            (count(2, 0), count(1, 0), true),
            (count(2, 0), count(2, 1), true),
            (count(2, 1), count(2, 1), false),
            (count(2, 2), count(2, 0), false),
        ] {
            assert_eq!(now.hints(before), is_hint, "{}/{} {}/{}", before.alive, before.failed, now.alive, now.failed);
        }
    }

    #[test]
    fn pauses_of_all_services_end_on_the_same_beats() {
        let ms = Duration::from_millis;
        for (past, pause) in [(0, 500), (1, 499), (499, 1), (500, 500), (1230, 270)] {
            assert_eq!(until_beat(ms(past), OFTEN), ms(pause), "{past}");
        }
        assert_eq!(until_beat(Duration::from_hours(24) + ms(700), SELDOM), ms(1300));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_is_heard_of_every_thirty_seconds_until_it_ends() {
        let mut beats = Vec::new();
        with_beats(sleep(Duration::from_secs(100)), |took| beats.push(took.as_secs())).await;
        assert_eq!(beats, [30, 60, 90]);
    }
}
