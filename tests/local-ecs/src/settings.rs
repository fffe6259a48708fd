//! How fast the model moves and which of ECS's rarer habits it shows.

use std::time::Duration;

/// How fast the model moves and which of ECS's rarer habits it shows.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a habit of its own, on or off")]
pub struct Settings {
    /// From a write until the service scheduler starts its first task.
    pub scheduling: Duration,
    /// How long a task is PROVISIONING.
    pub provisioning: Duration,
    /// Tasks started together are apart by up to this much.
    pub stagger: Duration,
    /// How long a task is PENDING while its image is pulled.
    pub pulling: Duration,
    /// How long a task is ACTIVATING while it registers with the load balancer.
    pub activating: Duration,
    /// From RUNNING until the health checks pass; without any, until the task counts as having started well.
    pub healthy_after: Duration,
    /// From RUNNING until failing health checks have a task stopped.
    pub unhealthy_after: Duration,
    /// How long a version that crashes on start is RUNNING before it exits; keep it below `healthy_after`.
    pub crashes_after: Duration,
    /// How long a task that leaves the load balancer is DEACTIVATING, unless the service says otherwise.
    pub deregistration_delay: Duration,
    /// How long a task is STOPPING.
    pub stopping: Duration,
    /// How long a task is DEPROVISIONING.
    pub deprovisioning: Duration,
    /// How long stopped tasks stay visible.
    pub stopped_visible: Duration,
    /// How long a deleted service is still described.
    pub inactive_visible: Duration,
    /// The delay after the first task that could not start; each further failure in a row triples it.
    pub failure_spacing: Duration,
    /// The longest such delay.
    pub longest_spacing: Duration,
    /// How long deployment alarms are watched after everything else is done.
    pub alarm_bake: Duration,
    /// How long one minute of a native blue/green deployment's bake time takes.
    pub bake_minute: Duration,
    /// How long each lifecycle stage of such a deployment takes in which there is nothing to wait for.
    pub lifecycle_stage: Duration,
    /// How long after `CreateService`, `UpdateService` and `PutTargets` reads still show the state before the write.
    pub stale_reads: Duration,
    /// Whether an old deployment without running tasks is shown as DRAINING rather than ACTIVE.
    pub draining_status: bool,
    /// How many container instances a cluster has: what a DAEMON service runs.
    pub container_instances: u32,
    /// Whether a task that ran and then exited counts in `failedTasks`; people have seen both.
    pub exits_count: bool,
    /// Whether described task definitions carry a system tag, whose key begins with `aws:`.
    pub system_tags: bool,
    /// Whether a deployment can end before its old tasks are gone (ECS's early success criteria).
    pub early_success: bool,
    /// The longest that temporary credentials last, whatever was asked for: down to seconds, which STS never gives.
    pub longest_session: Option<Duration>,
    /// How many targets a rule of EventBridge may have: 5, unless AWS granted more.
    pub targets_per_rule: usize,
    /// How many targets a page of `ListTargetsByRule` holds at most; AWS promises no more than that it is up to 100.
    pub targets_per_page: u32,
    /// The published limits of the API, enforced when present.
    pub limits: Option<Limits>,
}

/// Token buckets per region, as the request throttling page of the ECS API reference has them.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The share of each bucket that other tools in the account draw, from 0 to 1.
    pub used_by_others: f64,
}

impl Settings {
    /// A whole rollout behind a load balancer takes about a second.
    #[must_use]
    pub fn fast() -> Self {
        let ms = Duration::from_millis;
        Self {
            scheduling: ms(10),
            provisioning: ms(40),
            stagger: ms(15),
            pulling: ms(80),
            activating: ms(40),
            healthy_after: ms(120),
            unhealthy_after: ms(200),
            crashes_after: ms(60),
            deregistration_delay: ms(300),
            stopping: ms(60),
            deprovisioning: ms(30),
            stopped_visible: Duration::from_hours(1),
            inactive_visible: Duration::from_hours(1),
            failure_spacing: ms(20),
            longest_spacing: ms(300),
            alarm_bake: ms(200),
            bake_minute: ms(100),
            lifecycle_stage: ms(10),
            stale_reads: Duration::ZERO,
            draining_status: true,
            container_instances: 2,
            exits_count: true,
            system_tags: false,
            early_success: false,
            longest_session: None,
            targets_per_rule: 5,
            targets_per_page: 100,
            limits: None,
        }
    }

    /// The pace of AWS: a rollout behind a load balancer takes some seven minutes.
    #[must_use]
    pub fn realistic() -> Self {
        let s = Duration::from_secs;
        Self {
            scheduling: s(4),
            provisioning: s(12),
            stagger: s(3),
            pulling: s(20),
            activating: s(8),
            healthy_after: s(40),
            unhealthy_after: s(75),
            crashes_after: s(3),
            deregistration_delay: s(300),
            stopping: s(20),
            deprovisioning: s(10),
            failure_spacing: s(120),
            longest_spacing: s(900),
            alarm_bake: s(300),
            bake_minute: s(60),
            lifecycle_stage: s(5),
            ..Self::fast()
        }
    }
}
