//! The synchronous model: an account whose services move when it is advanced to an instant.

pub(crate) mod account;
pub(crate) mod arn;
pub(crate) mod blue_green;
pub(crate) mod configuration;
pub(crate) mod deployment;
pub(crate) mod events;
pub(crate) mod failure;
pub(crate) mod fate;
pub(crate) mod ids;
pub(crate) mod registry;
pub(crate) mod render;
pub(crate) mod rollout;
pub(crate) mod schedule;
pub(crate) mod scheduler;
pub(crate) mod service;
pub(crate) mod service_deployment;
pub(crate) mod sessions;
pub(crate) mod task;
pub(crate) mod task_definition;
#[cfg(test)]
mod tests;

use std::time::Duration;

/// A point in the model's time: how long after its beginning.
pub(crate) type At = Duration;
