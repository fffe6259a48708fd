//! Native blue/green, linear and canary deployments (`dg/blue-green-deployment-how-it-works`).

use std::time::Duration;

use super::{
    At,
    configuration::Strategy,
    deployment::{Deployment, Rollout},
    service::{Balancing, Service, Status},
    task::Task,
};
use crate::settings::Settings;

/// All requests, in the tenths of a percent that shares of traffic are counted in.
pub(crate) const ALL: u32 = 1000;

/// A lifecycle stage, in the order in which a deployment goes through them (`API_ServiceDeployment`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    ReconcileService,
    PreScaleUp,
    ScaleUp,
    PostScaleUp,
    TestTrafficShift,
    PostTestTrafficShift,
    ProductionTrafficShift,
    PostProductionTrafficShift,
    BakeTime,
    CleanUp,
}

impl Stage {
    /// The name ECS gives it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ReconcileService => "RECONCILE_SERVICE",
            Self::PreScaleUp => "PRE_SCALE_UP",
            Self::ScaleUp => "SCALE_UP",
            Self::PostScaleUp => "POST_SCALE_UP",
            Self::TestTrafficShift => "TEST_TRAFFIC_SHIFT",
            Self::PostTestTrafficShift => "POST_TEST_TRAFFIC_SHIFT",
            Self::ProductionTrafficShift => "PRODUCTION_TRAFFIC_SHIFT",
            Self::PostProductionTrafficShift => "POST_PRODUCTION_TRAFFIC_SHIFT",
            Self::BakeTime => "BAKE_TIME",
            Self::CleanUp => "CLEAN_UP",
        }
    }
}

/// What comes next: a stage, the share of the traffic that the new version has in it, and how long it lasts at least.
type Step = (Stage, u32, Duration);

impl Service {
    /// Whether both versions run at full count until the new one has proven itself.
    pub(crate) fn is_blue_green(&self) -> bool {
        self.controller == super::service::Controller::Ecs && self.configuration.strategy() != Strategy::Rolling
    }

    /// The stage of the deployment under way, unless it goes back.
    pub(crate) fn stage(&self) -> Option<Stage> {
        let goes_on = self.primary().is_some_and(|primary| !primary.rolls_back);
        self.history.first().filter(|_| goes_on && self.is_blue_green()).and_then(|current| current.stage)
    }

    /// The stage that a new deployment begins with: with more than one old version about, ECS reconciles them first.
    pub(crate) fn first_stage(&self) -> Option<Stage> {
        let first = if self.deployments.len() > 1 { Stage::ReconcileService } else { Stage::PreScaleUp };
        self.is_blue_green().then_some(first)
    }

    /// Whether the new version's tasks may be started.
    pub(crate) fn may_scale_up(&self) -> bool {
        self.stage().is_none_or(|stage| stage >= Stage::ScaleUp)
    }

    /// Whether the old versions are kept at full count, which is so until the bake time is over.
    pub(crate) fn keeps_old(&self) -> bool {
        self.status == Status::Active && self.stage().is_some_and(|stage| stage < Stage::CleanUp)
    }

    /// Whether the old version of a native blue/green deployment may go.
    pub(crate) fn may_clean_up(&self, primary: &Deployment) -> bool {
        if primary.rolls_back {
            return primary.traffic == ALL;
        }
        self.status != Status::Active || self.stage().is_none_or(|stage| stage == Stage::CleanUp)
    }

    /// Goes on to the stages that are due, and moves the traffic with them.
    pub(crate) fn go_through_stages(&mut self, now: At, settings: &Settings) {
        let Some(primary) = self.primary().filter(|primary| primary.rollout == Rollout::InProgress) else {
            return;
        };
        let id = primary.id.clone();
        let desired = self.target_count(settings);
        let healthy = self.count(&id, Task::healthy);
        if self.is_blue_green() && primary.rolls_back {
            if healthy > 0 || desired == 0 {
                self.give_traffic(ALL);
            }
            return;
        }
        while let Some(stage) = self.stage() {
            let due = self.history.first().and_then(|current| current.stage_due);
            let is_over = match stage {
                Stage::ScaleUp => healthy >= desired,
                Stage::CleanUp => false,
                _ => due.is_none_or(|due| due <= now),
            };
            if !is_over {
                return;
            }
            let before = self.primary().map_or(0, |primary| primary.traffic);
            let (next, traffic, lasts) = self.step_after(stage, before, settings);
            self.give_traffic(traffic);
            if let Some(current) = self.history.first_mut() {
                current.stage = Some(next);
                current.stage_due = Some(now + lasts);
                current.updated = now;
            }
            self.rouse(now);
        }
    }

    /// Production traffic moves at once or in steps, each of which but the last is waited for; then both versions bake.
    fn step_after(&self, stage: Stage, traffic: u32, settings: &Settings) -> Step {
        let brief = settings.lifecycle_stage;
        match stage {
            Stage::ReconcileService => (Stage::PreScaleUp, traffic, brief),
            Stage::PreScaleUp => (Stage::ScaleUp, traffic, Duration::ZERO),
            Stage::ScaleUp => (Stage::PostScaleUp, traffic, brief),
            Stage::PostScaleUp => (Stage::TestTrafficShift, traffic, brief),
            Stage::TestTrafficShift => (Stage::PostTestTrafficShift, traffic, brief),
            Stage::PostTestTrafficShift | Stage::ProductionTrafficShift if traffic < ALL => {
                let (next, minutes) = match self.configuration.strategy() {
                    Strategy::Linear { step, minutes } => (traffic + step, minutes),
                    Strategy::Canary { percent, minutes } if traffic == 0 => (percent, minutes),
                    Strategy::Rolling | Strategy::BlueGreen | Strategy::Canary { .. } => (ALL, 0),
                };
                let lasts = if next < ALL { brief.max(settings.bake_minute * minutes) } else { brief };
                (Stage::ProductionTrafficShift, next.min(ALL), lasts)
            }
            Stage::PostTestTrafficShift | Stage::ProductionTrafficShift => {
                (Stage::PostProductionTrafficShift, ALL, brief)
            }
            Stage::PostProductionTrafficShift => {
                (Stage::BakeTime, ALL, settings.bake_minute * self.configuration.bake_minutes())
            }
            Stage::BakeTime | Stage::CleanUp => (Stage::CleanUp, ALL, Duration::ZERO),
        }
    }

    /// Gives the PRIMARY deployment this share of the traffic; the others divide the rest as they did before.
    fn give_traffic(&mut self, share: u32) {
        let Some((primary, others)) = self.deployments.split_first_mut() else {
            return;
        };
        let before = ALL - primary.traffic;
        primary.traffic = share;
        for other in others {
            other.traffic = (other.traffic * (ALL - share)).checked_div(before).unwrap_or(0);
        }
    }

    /// Has a rollback take over the tasks of the version it goes back to, which still run, and the traffic at once.
    pub(crate) fn take_back(&mut self, old: &str) {
        let Some(id) = self.primary().map(|primary| primary.id.clone()) else {
            return;
        };
        for task in self.tasks.iter_mut().filter(|task| task.deployment == old && task.wanted()) {
            task.deployment.clone_from(&id);
        }
        if self.count(&id, Task::healthy) > 0 {
            self.give_traffic(ALL);
        }
    }

    /// The deployment whose tasks are to answer the `turn`th request, when the load balancer tells versions apart.
    pub(crate) fn serving(&self, turn: usize) -> Option<&Deployment> {
        if !self.is_blue_green() || self.balancing == Balancing::None {
            return None;
        }
        // Whole percents come out exactly within a hundred turns, tenths within a thousand.
        let position = turn * 37 % 100 * 10 + turn / 100 * 7 % 10;
        let mut before = 0;
        self.deployments.iter().find(|deployment| {
            before += deployment.traffic as usize;
            position < before
        })
    }
}
