//! Looks at one service while a phase waits: what each look shows is told when it changes and remembered for the end.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    fmt::Write as _,
    time::Duration,
};

use reqwest::Url;
use tokio::time::{Instant, timeout};

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
    ecs::{Look, Meant, ServiceDeploymentArn, Strategy, Task},
    ping::Answer,
    poll::{Backoff, PACE},
    report::{self, Event},
    text::{counted, duration, excerpt},
};

/// How often a line is printed while nothing changes.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// How often the tasks that stop are listed while neither the counts nor the events of the service change.
const UNCHANGED: Duration = Duration::from_secs(3);
/// How long it may take to find out, for a last message, why tasks stopped: a rollback may wait for it.
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
    /// What the tasks that stop were last listed for, and when.
    listed: RefCell<Option<(Trace, Instant)>>,
    /// The tasks that stop, by ARN; those of ours that failed in full.
    stopping: RefCell<HashMap<String, Option<Task>>>,
}

/// What changes in a look when a task stops: how many run, are pending and have failed, and the newest service event.
type Trace = (usize, usize, usize, Option<String>);

/// The last line of one kind, and when it was printed.
#[derive(Default)]
struct Said(Option<(String, Instant)>);

impl Said {
    /// Prints `line` if it is worth it.
    fn say(&mut self, service: &Service, line: String) {
        if self.is_worth(&line) {
            report::say(&service.name, &Event::Seen(&line));
            self.0 = Some((line, Instant::now()));
        }
    }

    /// Whether `line` is new, or there has been silence for long.
    fn is_worth(&self, line: &str) -> bool {
        self.0.as_ref().is_none_or(|(before, at)| before != line || at.elapsed() >= HEARTBEAT)
    }
}

impl<'a> Watch<'a> {
    /// Begins to watch how `ours` does.
    pub fn new(clients: &'a Clients<'a>, service: &'a Service, ours: &'a Deployment) -> Self {
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
            listed: RefCell::default(),
            stopping: RefCell::default(),
        }
    }

    /// One look. A look that fails says nothing about the deployment: it gives the pause until the next.
    pub async fn look(&self) -> Result<Look, Duration> {
        match self.clients.ecs.look(self.service).await {
            Ok(look) => {
                self.backoff.borrow_mut().reset();
                self.said.borrow_mut().say(self.service, self.counts(&look));
                if look.primary.id == self.ours.id {
                    self.say_troubles(&look);
                    if let Some(arn) = self.ours.service_deployment_in(&look) {
                        *self.service_deployment.borrow_mut() = Some(arn.clone());
                    }
                }
                *self.last_look.borrow_mut() = Some((look.clone(), Instant::now()));
                Ok(look)
            }
            Err(error) => {
                let line = format!("ECS could not be asked ({}); trying again", excerpt(&error.to_string()));
                self.said.borrow_mut().say(self.service, line);
                Err(self.backoff.borrow_mut().pause().max(PACE))
            }
        }
    }

    /// Where ours stands, by this look. One that shows an earlier deployment as PRIMARY is stale, for as long as reads may
    /// be; after that, and once ours has been seen, it says that ECS or somebody made that one PRIMARY again.
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
        let tasks = self.clients.ecs.tasks(self.service, Meant::ToRun).await;
        let pause = || self.tasks_from.get().map_or(PACE, |from| from.saturating_duration_since(Instant::now()));
        self.noted(tasks).ok_or_else(|| pause().max(PACE))
    }

    /// Why the deployment is to be given up, by the tasks of ours that failed so far. To be asked after each `look` in
    /// which ours is the PRIMARY; tasks are listed when something has changed in it, and now and then. `was_live` says
    /// that the version has been seen live.
    pub async fn failure(&self, look: &Look, was_live: bool) -> Option<String> {
        let ours = &look.primary;
        let newest_event = look.events.first().map(|event| event.id.clone());
        let trace = (ours.running, ours.pending, ours.failed_tasks, newest_event);
        let unchanged = |(before, at): &(Trace, Instant)| *before == trace && at.elapsed() < UNCHANGED;
        let must_wait = self.tasks_from.get().is_some_and(|from| Instant::now() < from);
        if must_wait || self.listed.borrow().as_ref().is_some_and(unchanged) {
            return None;
        }
        self.list_stopping().await?;
        let failed: Vec<_> = self.stopping.borrow().values().flatten().cloned().collect();
        let living = if failures::can_be_enough(failed.len()) {
            self.noted(self.clients.ecs.tasks(self.service, Meant::ToRun).await)?
        } else {
            Vec::new()
        };
        let living: Vec<_> = living.into_iter().filter(|task| task.is_of(&self.ours.id)).collect();
        // Not before all has been seen: what a stumbling API kept back is asked for again with the next look.
        *self.listed.borrow_mut() = Some((trace, Instant::now()));
        failures::verdict(&failed, &living, ours.desired, was_live)
    }

    /// Brings what is known of the tasks that stop up to date. Each is described until its reason is known, once.
    async fn list_stopping(&self) -> Option<()> {
        let arns = self.noted(self.clients.ecs.task_arns(self.service, Meant::ToStop).await)?;
        let new: Vec<_> = arns.iter().filter(|arn| !self.stopping.borrow().contains_key(*arn)).cloned().collect();
        let described = self.noted(self.clients.ecs.describe_tasks(self.service, &new).await)?;
        let mut stopping = self.stopping.borrow_mut();
        let arns: HashSet<_> = arns.into_iter().collect();
        stopping.retain(|arn, _| arns.contains(arn));
        for task in described {
            let Some(stopped) = &task.stopped else { continue };
            let is_failure = task.is_of(&self.ours.id) && failures::end(stopped) != End::Ordinary;
            stopping.insert(task.arn.clone(), is_failure.then_some(task));
        }
        Some(())
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
                let error = error.in_short();
                let line = format!("ECS could not be asked for the tasks ({error}); trying again");
                self.said_of_tasks.borrow_mut().say(self.service, line);
                None
            }
        }
    }

    /// Tells the service events that came since the last look and speak of trouble, such as with placing tasks.
    fn say_troubles(&self, look: &Look) {
        let newest = self.newest_event.replace(look.events.first().map(|event| event.id.clone()));
        let new = look.events.iter().take_while(|event| Some(&event.id) != newest.as_ref());
        let troubles: Vec<_> = new.filter(|event| is_trouble(&event.message)).collect();
        for event in troubles.into_iter().rev() {
            self.said_of_events.borrow_mut().say(self.service, format!("ECS says: {}", excerpt(&event.message)));
        }
    }

    /// Tells in which stage a deployment is that has stages: blue/green, linear or canary. `look` shows it as PRIMARY.
    pub async fn say_stage(&self, look: &Look) {
        let (Strategy::Shifting { name, .. }, Some(arn)) = (look.strategy, self.ours.service_deployment_in(look))
        else {
            return;
        };
        if self.hides_stages.get() {
            return;
        }
        // It is only told, so nothing waits for it.
        let asked = timeout(PACE, self.clients.ecs.service_deployment(self.service, arn));
        let line = match asked.await.unwrap_or_else(|_| Err(Error::unknown("DescribeServiceDeployments", "no answer")))
        {
            Ok(seen) => match seen.stage {
                Some(stage) => format!("the {name} deployment is at stage {}", excerpt(&stage)),
                None => return,
            },
            Err(error) => {
                self.hides_stages.set(error.fate == Fate::Refused);
                let error = error.in_short();
                format!("the stage of the {name} deployment can't be told: {error}")
            }
        };
        self.said_of_stages.borrow_mut().say(self.service, line);
    }

    /// Tells what there is to wait for when nothing moves any more.
    pub fn say_awaited(&self, what: &str) {
        self.said_of_awaited.borrow_mut().say(self.service, format!("waiting until {what}"));
    }

    /// One request of the url.
    pub async fn ask(&self, url: &Url) -> Answer {
        let answer = self.clients.ping.get(url, &self.service.header, self.service.request_timeout()).await;
        self.said_of_answers.borrow_mut().say(self.service, format!("the url {answer}"));
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

    /// What was last seen, for the message that a wait is over: why tasks of ours stopped, the url's answer, the counts and
    /// how old they are, and ECS's newest events.
    pub async fn explain(&self) -> String {
        let mut facts = Vec::new();
        match timeout(LAST_QUESTION, self.list_stopping()).await {
            Ok(Some(())) => {}
            _ => facts.push("ECS could not be asked why tasks stopped".to_owned()),
        }
        if let Some(task) = self.last_failure().await {
            let stopped = task.stopped.map(|stopped| stopped.to_string()).unwrap_or_default();
            facts.push(format!("a new task stopped: {}", excerpt(&stopped)));
        }
        if let Some(answer) = &*self.last_answer.borrow() {
            facts.push(format!("the url {answer}"));
        }
        match &*self.last_look.borrow() {
            Some((look, at)) if at.elapsed() > 3 * PACE => {
                facts.push(format!("{} ago ECS showed: {}", duration(at.elapsed()), self.counts(look)));
            }
            Some((look, _)) => facts.push(self.counts(look)),
            None => facts.push("ECS answered no look".to_owned()),
        }
        let events = self.last_look().map(|look| look.events).unwrap_or_default();
        // Those that speak of trouble, if any do; the others say how far the rollout was.
        let speaks = events.iter().any(|event| is_trouble(&event.message));
        let events = events.iter().filter(|event| !speaks || is_trouble(&event.message)).take(NEWEST_EVENTS);
        let events: Vec<_> = events.map(|event| excerpt(&event.message)).collect();
        if !events.is_empty() {
            facts.push(format!("ECS's newest events: {}", events.join(" / ")));
        }
        facts.join("; ")
    }

    /// The last task of our deployment that failed, with its exit codes: they show only once its containers are gone, so
    /// one that has them goes before one that is still stopping.
    async fn last_failure(&self) -> Option<Task> {
        let arns: Vec<_> = self.stopping.borrow().values().flatten().map(|task| task.arn.clone()).collect();
        let known = || self.stopping.borrow().values().flatten().cloned().collect();
        let tasks = match timeout(LAST_QUESTION, self.clients.ecs.describe_tasks(self.service, &arns)).await {
            Ok(Ok(tasks)) => tasks,
            _ => known(),
        };
        let told = |task: &Task| task.stopped.as_ref().map(|stopped| (!stopped.containers.is_empty(), stopped.at));
        tasks.into_iter().max_by_key(told)
    }

    fn counts(&self, look: &Look) -> String {
        let Some(ours) = look.deployments().find(|deployment| deployment.id == self.ours.id) else {
            return format!("ECS doesn't show deployment {} (PRIMARY is {})", self.ours.id, look.primary.id);
        };
        let mut line = format!("{} of {} run {}", ours.running, counted(ours.desired, "task"), ours.task_definition);
        if ours.pending > 0 {
            let _ = write!(line, ", {} pending", ours.pending);
        }
        if ours.failed_tasks > 0 {
            let _ = write!(line, ", {} failed", ours.failed_tasks);
        }
        let others =
            look.deployments().filter(|other| other.id != ours.id).map(|other| match other.running + other.pending {
                0 => format!("those of {} are ending", other.task_definition),
                tasks => format!("{} of {}", counted(tasks, "task"), other.task_definition),
            });
        let others: Vec<_> = others.collect();
        if !others.is_empty() {
            let _ = write!(line, "; before it: {}", others.join(", "));
        }
        line
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

    #[tokio::test(start_paused = true)]
    async fn a_line_is_printed_when_it_changes_and_now_and_then_while_it_does_not() {
        assert!(Said::default().is_worth("2 of 2 tasks run"));
        let said = Said(Some(("2 of 2 tasks run".into(), Instant::now())));
        assert!(said.is_worth("1 of 2 tasks run"));
        tokio::time::advance(HEARTBEAT.saturating_sub(PACE)).await;
        assert!(!said.is_worth("2 of 2 tasks run"));
        tokio::time::advance(PACE).await;
        assert!(said.is_worth("2 of 2 tasks run"));
    }
}
