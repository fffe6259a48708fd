//! One deployment of a service, as `API_Deployment` describes it.

use std::sync::Arc;

use super::{At, task_definition::Blueprint};
use crate::settings::Settings;

/// A deployment's `rolloutState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rollout {
    InProgress,
    Completed,
    Failed,
}

impl Rollout {
    /// The name ECS gives it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::InProgress => "IN_PROGRESS",
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
        }
    }
}

/// One deployment of a service.
#[derive(Clone, Debug)]
pub(crate) struct Deployment {
    /// `ecs-svc/…`.
    pub(crate) id: String,
    pub(crate) blueprint: Arc<Blueprint>,
    pub(crate) rollout: Rollout,
    pub(crate) reason: String,
    /// Failures in a row (`failedTasks`).
    pub(crate) failed_tasks: u32,
    /// Tasks in a row that could not even start, which spaces out the next ones (`dg/service-throttle-logic`).
    pub(crate) start_failures: u32,
    /// No task is started before this.
    pub(crate) not_before: At,
    /// How many tasks an old deployment is to keep while the newer one has been given up or has yet to prove itself.
    pub(crate) keep: u32,
    /// The service deployment it belongs to.
    pub(crate) part_of: String,
    /// The service revision it runs.
    pub(crate) revision: String,
    /// Whether it is ECS's own rollback.
    pub(crate) rolls_back: bool,
    /// Whether alarms were ringing before it began, in which case ECS ignores them.
    pub(crate) alarms_ignored: bool,
    /// Until when its alarms are watched, once everything else is done.
    pub(crate) bake_until: Option<At>,
    /// The tenths of a percent of the requests that its tasks get in a native blue/green deployment.
    pub(crate) traffic: u32,
    pub(crate) created: At,
    pub(crate) updated: At,
}

impl Deployment {
    /// Whether ECS gave it up.
    pub(crate) fn is_given_up(&self) -> bool {
        self.rollout == Rollout::Failed
    }

    /// Notes that a task could not start, and when the next may try.
    pub(crate) fn space_out(&mut self, now: At, settings: &Settings) {
        let delay = settings.failure_spacing * 3_u32.saturating_pow(self.start_failures.min(10));
        self.start_failures += 1;
        self.not_before = now + delay.min(settings.longest_spacing);
    }

    /// How many failures in a row trip the circuit breaker: half the desired count, from 3 to 200
    /// (`dg/deployment-circuit-breaker`).
    pub(crate) fn threshold(desired: u32) -> u32 {
        desired.div_ceil(2).clamp(3, 200)
    }
}
