//! Looks at one service while a phase waits: what each look shows is told when it changes and remembered for the end.

use std::{cell::RefCell, fmt::Write as _, time::Duration};

use reqwest::Url;
use tokio::time::Instant;

use super::{Clients, standing::Deployment};
use crate::{
    config::Service,
    ecs::{Look, Meant, Stopped, Task},
    ping::Answer,
    poll::{Backoff, PACE},
    report::{self, Event},
    text::{counted, duration, excerpt},
};

/// How often a line is printed while nothing changes.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// What is known of one service during one wait.
pub struct Watch<'a> {
    /// Whom to ask.
    pub clients: &'a Clients,
    /// The service that is watched.
    pub service: &'a Service,
    ours: &'a Deployment,
    last_look: RefCell<Option<(Look, Instant)>>,
    last_answer: RefCell<Option<Answer>>,
    said: RefCell<Said>,
    said_of_tasks: RefCell<Said>,
    said_of_answers: RefCell<Said>,
    backoff: RefCell<Backoff>,
    backoff_of_tasks: RefCell<Backoff>,
}

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
    pub fn new(clients: &'a Clients, service: &'a Service, ours: &'a Deployment) -> Self {
        Self {
            clients,
            service,
            ours,
            last_look: RefCell::default(),
            last_answer: RefCell::default(),
            said: RefCell::default(),
            said_of_tasks: RefCell::default(),
            said_of_answers: RefCell::default(),
            backoff: RefCell::default(),
            backoff_of_tasks: RefCell::default(),
        }
    }

    /// One look. A look that fails says nothing about the deployment: it gives the pause until the next.
    pub async fn look(&self) -> Result<Look, Duration> {
        match self.clients.ecs.look(self.service).await {
            Ok(look) => {
                self.backoff.borrow_mut().reset();
                self.said.borrow_mut().say(self.service, self.counts(&look));
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

    /// The tasks that are to run; a failed look gives the pause until the next.
    pub async fn tasks(&self) -> Result<Vec<Task>, Duration> {
        match self.clients.ecs.tasks(self.service, Meant::ToRun).await {
            Ok(tasks) => {
                self.backoff_of_tasks.borrow_mut().reset();
                Ok(tasks)
            }
            Err(error) => {
                let error = excerpt(&error.to_string());
                let line = format!("ECS could not be asked for the tasks ({error}); trying again");
                self.said_of_tasks.borrow_mut().say(self.service, line);
                Err(self.backoff_of_tasks.borrow_mut().pause().max(PACE))
            }
        }
    }

    /// One request of the url.
    pub async fn ask(&self, url: &Url) -> Answer {
        let answer = self.clients.ping.get(url, self.service.request_timeout()).await;
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

    /// What was last seen, for the message that a wait is over: the url's answer, the counts and how old they are, why
    /// tasks of ours stopped, and ECS's newest event.
    pub async fn explain(&self) -> String {
        let mut facts = Vec::new();
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
        if let Some(stopped) = self.why_tasks_stopped().await {
            facts.push(format!("a new task stopped: {}", excerpt(&stopped.to_string())));
        }
        if let Some(event) = self.last_look().and_then(|look| look.newest_event) {
            facts.push(format!("ECS's newest event: {}", excerpt(&event)));
        }
        facts.join("; ")
    }

    /// How the last task of our deployment ended that ended otherwise than by being replaced.
    async fn why_tasks_stopped(&self) -> Option<Stopped> {
        let tasks = self.clients.ecs.tasks(self.service, Meant::ToStop).await.ok()?;
        tasks
            .into_iter()
            .filter(|task| task.is_of(&self.ours.id))
            .filter_map(|task| task.stopped)
            .filter(|stopped| !stopped.reason.starts_with("Scaling activity initiated by"))
            .max_by_key(|stopped| stopped.at)
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

#[cfg(test)]
mod tests {
    use super::*;

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
