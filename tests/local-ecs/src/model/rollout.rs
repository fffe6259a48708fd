//! How a deployment ends: completed, given up, rolled back.

use super::{
    At,
    blue_green::{ALL, Stage},
    deployment::{Deployment, Rollout},
    events::What,
    service::{Service, Status, World},
    service_deployment::{Rollback, ServiceDeployment, Status as Progress},
    task::Task,
};
use crate::settings::Settings;

/// What ECS gives as the reason once somebody asked for the way back (hashicorp/terraform-provider-aws#49031).
const STOPPED_BY_USER: &str = "Service deployment rolled back by user.";

impl Service {
    /// Looks at what the scheduler has reached.
    pub(crate) fn conclude(&mut self, now: At, world: &mut World<'_>) {
        self.begin_service_deployment(now, world.settings);
        self.go_through_stages(now, world.settings);
        self.log_truth(now, world.settings);
        self.roll_back_on_request(now, world);
        self.give_up_if_need_be(now, world);
        self.forget_old_deployments();
        self.complete_if_done(now, world);
        self.end_if_deleted(now);
    }

    fn begin_service_deployment(&mut self, now: At, settings: &Settings) {
        let ready = now >= self.primary().map_or(now, |primary| primary.created + settings.scheduling);
        if let Some(current) = self.history.first_mut().filter(|current| ready && current.status == Progress::Pending) {
            current.status = Progress::InProgress;
            current.started = Some(now);
            current.updated = now;
        }
    }

    /// Trips the circuit breaker (`dg/deployment-circuit-breaker`) or heeds the alarms (`dg/deployment-alarm-failure`).
    fn give_up_if_need_be(&mut self, now: At, world: &mut World<'_>) {
        let desired = self.target_count(world.settings);
        let Some(primary) = self.primary() else {
            return;
        };
        if !self.shows_rollout() || primary.rollout != Rollout::InProgress || self.status != Status::Active {
            return;
        }
        let failures = primary.failed_tasks;
        if let Some(rollback) = self.configuration.breaker()
            && failures >= Deployment::threshold(desired)
        {
            if let Some(current) = self.history.first_mut() {
                current.tripped = Some(failures);
            }
            self.give_up("ECS deployment circuit breaker", "tasks failed to start.", rollback, now, world);
        } else if let Some(rollback) = self.configuration.alarms()
            && self.alarm
            && !primary.alarms_ignored
        {
            if let Some(current) = self.history.first_mut() {
                current.alarmed = true;
            }
            self.give_up("ECS deployment alarms", "alarm detected.", rollback, now, world);
        }
    }

    /// Marks the PRIMARY as failed and, if so configured, goes back to what completed last.
    pub(crate) fn give_up(&mut self, cause: &str, why: &str, rollback: bool, now: At, world: &mut World<'_>) {
        let keep: Vec<u32> =
            self.deployments.iter().map(|deployment| self.count(&deployment.id, Task::wanted)).collect();
        for (deployment, keep) in self.deployments.iter_mut().zip(keep) {
            deployment.keep = keep;
        }
        let Some(primary) = self.deployments.first_mut() else {
            return;
        };
        primary.rollout = Rollout::Failed;
        primary.reason = format!("{cause}: {why}");
        primary.updated = now;
        let (id, was_rollback) = (primary.id.clone(), primary.rolls_back);
        let service_deployment = primary.part_of.clone();
        self.note(now, &id, What::Failed);
        self.tell(now, world.ids, &format!("(deployment {id}) deployment failed: {why}"));
        let back_to = self.last_completed.clone().filter(|_| rollback && !was_rollback);
        let reason = format!("Service deployment failed: {cause}: {why}");
        let Some(current) = self.history.iter_mut().find(|past| past.arn == service_deployment) else {
            return;
        };
        let Some((old_id, blueprint, revision)) = back_to else {
            let status = if was_rollback { Progress::RollbackFailed } else { Progress::Stopped };
            current.end(status, Some(reason), now);
            return;
        };
        current.status = Progress::RollbackInProgress;
        current.reason = Some(reason.clone());
        current.updated = now;
        current.rollback = Some(Rollback { reason, at: now, revision: revision.clone() });
        self.tell(now, world.ids, &format!("rolling back to deployment {old_id}."));
        let reason = format!("{cause}: rolling back to deploymentId {old_id}.");
        let id = world.ids.deployment();
        self.become_primary(id, blueprint, reason, (service_deployment, revision), true, now, world.settings);
        if self.is_blue_green() {
            self.take_back(&old_id);
        }
    }

    /// An old deployment leaves the list once all its tasks are STOPPED.
    fn forget_old_deployments(&mut self) {
        let alive: Vec<String> =
            self.tasks.iter().filter(|task| task.stopped.is_none()).map(|task| task.deployment.clone()).collect();
        let mut index = 0;
        self.deployments.retain(|deployment| {
            index += 1;
            index == 1 || alive.contains(&deployment.id)
        });
    }

    fn complete_if_done(&mut self, now: At, world: &mut World<'_>) {
        let settings = world.settings;
        let desired = self.target_count(settings);
        let Some(primary) = self.primary() else {
            return;
        };
        let id = primary.id.clone();
        let in_progress = primary.rollout == Rollout::InProgress;
        let good = self.count(&id, |task| task.wanted() && task.healthy() && task.settled);
        let running = self.count(&id, Task::wanted);
        let old_gone = self.deployments.len() == 1
            || (settings.early_success
                && !self.is_blue_green()
                && !self.tasks.iter().any(|task| task.reachable() && task.deployment != id));
        let is_proven = self.stage().is_none_or(|stage| stage == Stage::CleanUp);
        if now < primary.created + settings.scheduling
            || !is_proven
            || good != desired
            || running != desired
            || !old_gone
        {
            return;
        }
        if in_progress && self.configuration.alarms().is_some() && !primary.alarms_ignored && !self.is_blue_green() {
            let until = primary.bake_until.unwrap_or(now + settings.alarm_bake);
            self.deployments[0].bake_until = Some(until);
            if now < until {
                return;
            }
        }
        if in_progress {
            self.complete(&id, now, world);
        }
        if !self.steady && !self.tasks.iter().any(|task| task.stopped.is_none() && task.deployment != id) {
            self.steady = true;
            self.tell(now, world.ids, "has reached a steady state.");
        }
    }

    fn complete(&mut self, id: &str, now: At, world: &mut World<'_>) {
        let primary = &mut self.deployments[0];
        primary.rollout = Rollout::Completed;
        primary.reason = format!("ECS deployment {id} completed.");
        primary.updated = now;
        primary.traffic = ALL;
        let service_deployment = primary.part_of.clone();
        let status = if primary.rolls_back { Progress::RollbackSuccessful } else { Progress::Successful };
        self.last_completed = Some((id.to_owned(), primary.blueprint.clone(), primary.revision.clone()));
        if let Some(current) = self.history.iter_mut().find(|past| past.arn == service_deployment) {
            if current.started.is_none() {
                current.started = Some(now);
            }
            current.stage = None;
            current.stage_due = None;
            current.end(status, None, now);
        }
        self.note(now, id, What::Completed);
        self.tell(now, world.ids, &format!("(deployment {id}) deployment completed."));
    }

    /// A deleted service drains and is then INACTIVE (`API_DeleteService`).
    fn end_if_deleted(&mut self, now: At) {
        if self.status == Status::Draining && self.tasks.iter().all(|task| task.stopped.is_some()) {
            self.status = Status::Inactive { since: now };
            self.deployments.clear();
        }
    }

    /// Writes down what a client could find out from now on.
    fn log_truth(&mut self, now: At, settings: &Settings) {
        let desired = self.target_count(settings);
        let Some(primary) = self.primary() else {
            return;
        };
        let (id, traffic) = (primary.id.clone(), primary.traffic);
        let serving = self.count(&id, Task::reachable);
        let takes_requests = !self.is_blue_green() || traffic > 0;
        if serving > 0 && takes_requests {
            self.note(now, &id, What::Proven);
        }
        if serving >= desired && takes_requests {
            self.note(now, &id, What::AllServing);
        }
        let old = self.tasks.iter().any(|task| task.reachable() && task.deployment != id);
        if serving > 0 && (!old || (self.is_blue_green() && traffic == ALL)) {
            self.note(now, &id, What::OldUnreachable);
        }
    }
}

/// The way back on request (`API_StopServiceDeployment`).
impl Service {
    /// Notes that somebody wants the way back, which begins a moment later.
    pub(crate) fn request_rollback(&mut self, arn: &str, now: At, settings: &Settings) {
        if let Some(past) = self.history.iter_mut().find(|past| past.arn == arn) {
            past.status = Progress::RollbackRequested;
            past.reason = Some(STOPPED_BY_USER.to_owned());
            past.updated = now;
            past.stopped = Some(now);
            past.rollback_due = Some(now + settings.scheduling);
        }
        self.rouse(now);
    }

    /// Goes back once that was requested.
    fn roll_back_on_request(&mut self, now: At, world: &mut World<'_>) {
        let is_requested = self.history.first().is_some_and(|current| {
            current.status == Progress::RollbackRequested && current.rollback_due.is_some_and(|due| due <= now)
        });
        if is_requested {
            self.give_up("ECS deployment stopped by user", "rollback requested.", true, now, world);
            if let Some(current) = self.history.first_mut() {
                current.rollback_due = None;
                current.reason = Some(STOPPED_BY_USER.to_owned());
                if let Some(rollback) = &mut current.rollback {
                    STOPPED_BY_USER.clone_into(&mut rollback.reason);
                }
            }
        }
    }

    /// The service deployment of this ARN.
    pub(crate) fn service_deployment(&self, arn: &str) -> Option<&ServiceDeployment> {
        self.history.iter().find(|past| past.arn == arn)
    }
}
