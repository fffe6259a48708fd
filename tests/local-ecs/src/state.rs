//! All that the server's thread and the tests share.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::Value;

use crate::{
    faults::{Fault, Verdict},
    limits::Buckets,
    log::{Answer, Request, write_line},
    model::{account::Account, failure::Failure},
    operations::{self, events, sts},
    settings::Settings,
};

/// The account and what surrounds it.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) account: Account,
    pub(crate) faults: Vec<Fault>,
    pub(crate) requests: Vec<Request>,
    pub(crate) writes: Vec<String>,
    /// The operation of each request that has come, also of those that a fault holds back.
    pub(crate) arrived: Vec<String>,
    buckets: Buckets,
    began: Instant,
}

/// A request as it came over the wire.
#[derive(Clone, Debug)]
pub(crate) struct Incoming {
    pub(crate) at: Instant,
    pub(crate) region: String,
    pub(crate) operation: String,
    pub(crate) body: Value,
    /// The access key id that signed it.
    pub(crate) caller: String,
    /// The token of a session that came with it.
    pub(crate) token: String,
    /// Who that is, by ARN.
    pub(crate) identity: String,
    pub(crate) user_agent: String,
}

#[cfg(test)]
impl Incoming {
    /// A request of the user whose keys live long.
    pub(crate) fn local(region: &str, operation: &str, body: Value) -> Self {
        Self {
            at: Instant::now(),
            region: region.to_owned(),
            operation: operation.to_owned(),
            body,
            caller: "local".to_owned(),
            token: String::new(),
            identity: crate::model::arn::user(region),
            user_agent: String::new(),
        }
    }
}

impl State {
    fn new(settings: Settings) -> Self {
        let origin = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        Self {
            account: Account::new(settings, origin),
            faults: Vec::new(),
            requests: Vec::new(),
            writes: Vec::new(),
            arrived: Vec::new(),
            buckets: Buckets::default(),
            began: Instant::now(),
        }
    }

    /// Brings the model to the present.
    pub(crate) fn catch_up(&mut self) {
        self.account.advance(self.began.elapsed());
    }

    /// When a point of the model's time was.
    pub(crate) fn instant(&self, at: Duration) -> Instant {
        self.began + at
    }

    /// Takes notice of a request; says what a fault makes of it, and after how long, if any does.
    pub(crate) fn strike(&mut self, incoming: &Incoming) -> Option<(Duration, Verdict)> {
        self.arrived.push(incoming.operation.clone());
        self.faults.iter_mut().find_map(|fault| fault.strike(incoming, Instant::now()))
    }

    /// Finds out who asks, and notes the request if AWS wouldn't listen to them.
    pub(crate) fn identify(&mut self, incoming: Incoming) -> Result<Incoming, Failure> {
        let Incoming { caller, token, region, .. } = &incoming;
        match self.account.sessions.identify(caller, token, region, self.account.now) {
            Ok(identity) => Ok(Incoming { identity, ..incoming }),
            Err(failure) => {
                self.note(incoming, Answer::Error(failure.kind.clone()));
                Err(failure)
            }
        }
    }

    /// Carries out a request and notes it down, with what the client is told if that isn't what came of it.
    pub(crate) fn carry_out(&mut self, incoming: Incoming, told: Option<Answer>) -> Result<Value, Failure> {
        let Incoming { region, operation, body, identity, caller, .. } = &incoming;
        let limits = self.account.settings.limits;
        let now = self.account.now;
        let answer = if limits.is_some_and(|limits| !self.buckets.take(limits, region, operation, now)) {
            Err(Failure::new("ThrottlingException", "Rate exceeded"))
        } else if operations::service_name(operation) == "sts" {
            sts::dispatch(&mut self.account, identity, caller, operation, body)
        } else {
            operations::dispatch(&mut self.account, region, operation, body)
        };
        if answer.is_ok() {
            self.writes.extend(write_line(operation, body));
        }
        let came_of_it = match &answer {
            Ok(_) => Answer::Ok,
            Err(failure) => Answer::Error(failure.kind.clone()),
        };
        self.note(incoming, told.unwrap_or(came_of_it));
        answer
    }

    /// Carries out a `PutTargets` but for the target with this id, or for all, and says why not.
    pub(crate) fn carry_out_but(
        &mut self,
        incoming: Incoming,
        id: Option<&str>,
        why: &Failure,
    ) -> Result<Value, Failure> {
        let targets = incoming.body["Targets"].as_array().cloned().unwrap_or_default();
        let (failed, put): (Vec<Value>, Vec<Value>) =
            targets.into_iter().partition(|target| id.is_none_or(|id| target["Id"] == id));
        if !put.is_empty() {
            let mut rest = incoming.body.clone();
            rest["Targets"] = Value::Array(put);
            operations::dispatch(&mut self.account, &incoming.region, &incoming.operation, &rest)?;
            self.writes.extend(write_line(&incoming.operation, &rest));
        }
        self.note(incoming, Answer::Ok);
        Ok(events::failed_entries(&failed, why))
    }

    /// Notes a request and how it was answered.
    pub(crate) fn note(&mut self, incoming: Incoming, answer: Answer) {
        let Incoming { at, region, operation, body, caller, identity, user_agent, .. } = incoming;
        let service_name = operations::service_name(&operation);
        self.requests.push(Request { at, region, service_name, operation, body, answer, caller, identity, user_agent });
    }
}

/// The state behind a lock, and a bell that rings after every tick.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    ticked: Condvar,
}

impl Shared {
    /// A fresh state.
    pub(crate) fn new(settings: Settings) -> Self {
        Self { state: Mutex::new(State::new(settings)), ticked: Condvar::new() }
    }

    /// The state, brought to the present.
    pub(crate) fn now(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.catch_up();
        state
    }

    /// Brings the state to the present and rings the bell.
    pub(crate) fn tick(&self) {
        drop(self.now());
        self.ticked.notify_all();
    }

    /// Waits for the next tick, a little at most.
    pub(crate) fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let waited = self.ticked.wait_timeout(state, Duration::from_millis(20));
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.catch_up();
        state
    }
}
