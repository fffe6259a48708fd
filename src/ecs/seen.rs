//! What ECS showed of a service, its deployments and its tasks, in gehen's own types.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use crate::git_sha::GitSha;

/// The ARN of a task definition's revision; shown as `family:revision`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TaskDefinitionArn(pub String);

impl TaskDefinitionArn {
    /// The family that the revision belongs to.
    pub fn family(&self) -> &str {
        let name = self.0.rsplit('/').next().unwrap_or_default();
        name.split_once(':').map_or(name, |(family, _)| family)
    }

    /// Whether it is that of one revision. EventBridge takes the ARN of a family, too, and has ECS run its newest.
    pub fn names_revision(&self) -> bool {
        self.to_string().contains(':')
    }
}

impl fmt::Display for TaskDefinitionArn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0.rsplit('/').next().unwrap_or_default())
    }
}

/// The id that ECS gives a deployment of a service: `ecs-svc/<number>` (API_Deployment).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DeploymentId(pub String);

impl fmt::Display for DeploymentId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The ARN of a service deployment: one attempt to bring a service to a revision, including the way back
/// (API_ServiceDeployment).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceDeploymentArn(pub String);

/// One look at a service that is ACTIVE and has a PRIMARY deployment.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of the service's own")]
pub struct Look {
    /// How many tasks the service is to run.
    pub desired: usize,
    /// The deployment that the service is moving to, or has arrived at.
    pub primary: SeenDeployment,
    /// Earlier deployments that still have tasks.
    pub others: Vec<SeenDeployment>,
    /// Whether tasks are registered with a load balancer.
    pub load_balanced: bool,
    /// Whether it runs one task on each container instance (`schedulingStrategy` DAEMON).
    pub is_daemon: bool,
    /// `deploymentConfiguration.minimumHealthyPercent`; ECS's default for a replica service is 100
    /// (API_DeploymentConfiguration).
    pub minimum_healthy_percent: i32,
    /// Whether alarms can end a deployment (`deploymentConfiguration.alarms`).
    pub has_alarms: bool,
    /// Whether ECS rolls back by itself where its circuit breaker or an alarm ends a deployment.
    pub rolls_back_itself: bool,
    /// How ECS exchanges versions.
    pub strategy: Strategy,
    /// The service deployment under way, or the last one; absent behind a Classic Load Balancer.
    pub service_deployment: Option<ServiceDeploymentArn>,
    /// The service events that are younger than the PRIMARY deployment, newest first.
    pub events: Vec<ServiceEvent>,
}

impl Look {
    /// All deployments, the PRIMARY first.
    pub fn deployments(&self) -> impl Iterator<Item = &SeenDeployment> {
        std::iter::once(&self.primary).chain(&self.others)
    }
}

/// How ECS exchanges versions (`deploymentConfiguration.strategy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// New tasks replace old ones.
    Rolling,
    /// Native blue/green, linear or canary: both versions run at full count while traffic moves and the new one bakes.
    Shifting {
        /// Which of them, for people.
        name: &'static str,
        /// How long the configured steps and bakes take together.
        takes: Duration,
    },
}

impl Strategy {
    /// How much longer than a rolling deployment it takes, by its configuration.
    pub fn takes(self) -> Duration {
        match self {
            Self::Rolling => Duration::ZERO,
            Self::Shifting { takes, .. } => takes,
        }
    }
}

/// One service event (API_ServiceEvent).
#[derive(Clone, Debug)]
pub struct ServiceEvent {
    /// Its id.
    pub id: String,
    /// What happened, in ECS's words.
    pub message: String,
}

/// A service deployment, as far as gehen asks for it (API_ServiceDeployment).
#[derive(Clone, Debug)]
pub struct ServiceDeployment {
    /// Whether ECS rolls it back, or has: any of the ROLLBACK states.
    pub is_rolled_back: bool,
    /// `lifecycleStage`, such as BAKE_TIME, where it has stages.
    pub stage: Option<String>,
    /// Why it is rolled back, or is in its state.
    pub reason: String,
}

/// One deployment as DescribeServices shows it (API_Deployment).
#[derive(Clone, Debug)]
pub struct SeenDeployment {
    /// Its id.
    pub id: DeploymentId,
    /// The task definition of its tasks.
    pub task_definition: TaskDefinitionArn,
    /// When it began.
    pub created: Option<SystemTime>,
    /// How many tasks it is to run.
    pub desired: usize,
    /// Tasks on their way to RUNNING.
    pub pending: usize,
    /// Tasks in RUNNING; those that leave the load balancer are not counted.
    pub running: usize,
    /// Tasks that failed to start, one after another; falls back to 0 when one runs.
    pub failed_tasks: usize,
    /// How far it is; absent behind a Classic Load Balancer.
    pub rollout: Option<Rollout>,
    /// Why the rollout is in its state.
    pub rollout_reason: String,
}

/// `rolloutState` (API_Deployment).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rollout {
    /// IN_PROGRESS, or a state that this gehen doesn't know.
    InProgress,
    /// COMPLETED: the service has reached a steady state.
    Completed,
    /// FAILED: the circuit breaker or an alarm ended it.
    Failed,
}

/// Which of a service's tasks to list (`desiredStatus` of API_ListTasks).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meant {
    /// Tasks that are to run.
    ToRun,
    /// Tasks that are to stop or have stopped within about the last hour.
    ToStop,
}

/// One task (API_Task).
#[derive(Clone, Debug)]
#[expect(clippy::struct_field_names, reason = "ECS calls it the task definition")]
pub struct Task {
    /// Its ARN.
    pub arn: String,
    /// The task definition that it runs.
    pub task_definition: TaskDefinitionArn,
    /// The id of the deployment that started it.
    pub started_by: Option<DeploymentId>,
    /// Where it is in its life, such as RUNNING, DEACTIVATING, STOPPED.
    pub status: String,
    /// Whether its container health checks say UNHEALTHY.
    pub unhealthy: bool,
    /// When ECS made it.
    pub created: Option<SystemTime>,
    /// When it came to RUNNING, if it did.
    pub started: Option<SystemTime>,
    /// Why it stopped or is stopping, with what its containers say.
    pub stopped: Option<Stopped>,
}

impl Task {
    /// The last part of its ARN.
    pub fn id(&self) -> &str {
        self.arn.rsplit('/').next().unwrap_or_default()
    }

    /// Whether `deployment` started it.
    pub fn is_of(&self, deployment: &DeploymentId) -> bool {
        self.started_by.as_ref() == Some(deployment)
    }
}

/// Who or what ended a task (`stopCode` of API_Task).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopCode {
    /// TaskFailedToStart.
    FailedToStart,
    /// EssentialContainerExited.
    ContainerExited,
    /// ServiceSchedulerInitiated: a replacement, or a health check that failed.
    ByScheduler,
    /// UserInitiated, SpotInterruption, TerminationNotice, InfrastructureHealth, or one that this gehen doesn't know.
    FromOutside,
}

/// How a task ended, or ends.
#[derive(Clone, Debug)]
pub struct Stopped {
    /// When it began to stop, where ECS says so.
    pub at: Option<SystemTime>,
    /// `stopCode`.
    pub code: Option<StopCode>,
    /// `stoppedReason`.
    pub reason: String,
    /// Per container that has something to say: its name, its exit code and its reason.
    pub containers: Vec<(String, Option<i32>, Option<String>)>,
}

impl fmt::Display for Stopped {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.reason)?;
        for (name, exit_code, reason) in &self.containers {
            let reason = reason.as_deref().filter(|reason| *reason != self.reason);
            if exit_code.is_none() && reason.is_none() {
                continue;
            }
            write!(formatter, "; container `{name}`")?;
            if let Some(code) = exit_code {
                write!(formatter, " exited with {code}")?;
            }
            if let Some(reason) = reason {
                write!(formatter, ": {reason}")?;
            }
        }
        Ok(())
    }
}

/// What a task definition runs, as far as gehen changes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageChange {
    /// The container's name.
    pub container: String,
    /// The image as it is.
    pub from: String,
    /// The image at the new version.
    pub to: String,
}

/// The versions that `images` are tagged with, for people: one Git SHA, or the tags side by side.
pub fn version_of<'a>(images: impl IntoIterator<Item = &'a str> + Clone) -> String {
    if let Some(sha) = crate::image::common_git_sha(images.clone()) {
        return GitSha::to_string(&sha);
    }
    let mut tags: Vec<_> = images
        .into_iter()
        .map(crate::image::Image::parse)
        .map(|image| image.tag.or(image.digest).unwrap_or("latest"))
        .collect();
    tags.dedup();
    tags.join(", ")
}
