//! A service's events and the truth log that benches compare against.

use std::collections::VecDeque;

use super::At;

/// One line of a service's events.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// A UUID.
    pub(crate) id: String,
    /// When it was written.
    pub(crate) at: At,
    /// The text.
    pub(crate) message: String,
}

/// A service's events, newest first, at most 100 (`API_Service`).
#[derive(Clone, Debug, Default)]
pub(crate) struct Events(VecDeque<Event>);

impl Events {
    /// Writes a line.
    pub(crate) fn push(&mut self, id: String, at: At, message: String) {
        self.0.push_front(Event { id, at, message });
        self.0.truncate(100);
    }

    /// The lines, newest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Event> {
        self.0.iter()
    }

    /// Whether the newest line says this.
    pub(crate) fn newest_is(&self, message: &str) -> bool {
        self.0.front().is_some_and(|event| event.message == message)
    }
}

/// What truly happened to a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// The write that made the deployment took effect.
    UpdateRequested,
    /// The first of its tasks can be reached.
    Proven,
    /// As many of its tasks can be reached as are desired.
    AllServing,
    /// No task of another deployment gets new requests any more.
    OldUnreachable,
    /// One of its tasks failed; noted each time.
    TaskFailed,
    /// ECS gave it up.
    Failed,
    /// ECS called it completed.
    Completed,
}

/// Something that happened to a deployment, in the model's time.
#[derive(Clone, Debug)]
pub(crate) struct Happened {
    /// When.
    pub(crate) at: At,
    /// The deployment's id.
    pub(crate) deployment: String,
    /// The task definition it runs, as `family:revision`.
    pub(crate) task_definition: String,
    /// What.
    pub(crate) what: What,
}
