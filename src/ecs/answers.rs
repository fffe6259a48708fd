//! Answers of ECS in gehen's own types. What can't be understood is an error here, so that no phase meets it.

use std::time::{Duration, SystemTime};

use aws_sdk_ecs::{
    operation::describe_services::DescribeServicesOutput,
    primitives::DateTime,
    types::{
        CanaryConfiguration, Deployment, DeploymentConfiguration, DeploymentRolloutState, DeploymentStrategy, Failure,
        HealthStatus, LinearConfiguration, SchedulingStrategy, Service, ServiceDeploymentStatus, TaskStopCode,
    },
};

use super::seen::{
    DeploymentId, Look, Rollout, SeenDeployment, ServiceDeployment, ServiceDeploymentArn, ServiceEvent, StopCode,
    Stopped, Strategy, Task, TaskDefinitionArn,
};
use crate::aws::Error;

/// An answer of DescribeServices.
pub(super) struct Described {
    cluster: String,
    answer: DescribeServicesOutput,
}

impl Described {
    pub(super) const OPERATION: &str = "DescribeServices";

    /// The answer for services of `cluster`.
    pub(super) fn new(cluster: &str, answer: DescribeServicesOutput) -> Self {
        Self { cluster: cluster.to_owned(), answer }
    }

    /// What it says of one of the services that were asked for.
    pub(super) fn look_at(&self, name: &str) -> Result<Look, Error> {
        if let Some(seen) = self.answer.services().iter().find(|seen| seen.service_name() == Some(name)) {
            return look(Self::OPERATION, seen);
        }
        let is_its = |failure: &&Failure| failure.arn().is_none_or(|arn| arn.rsplit('/').next() == Some(name));
        let failure = self.answer.failures().iter().find(is_its).map(Failure::reason);
        Err(Error::refused(
            Self::OPERATION,
            match failure {
                Some(Some("MISSING")) => format!(
                    "there is no service `{name}` in cluster `{}`; gehen deploys services that exist",
                    self.cluster
                ),
                Some(reason) => format!("ECS can't describe the service: {}", reason.unwrap_or("without a reason")),
                None => "the answer doesn't hold the service".to_owned(),
            },
        ))
    }
}

/// The look that `service` is, if it can be deployed to and watched.
pub(super) fn look(operation: &'static str, service: &Service) -> Result<Look, Error> {
    let status = service.status().unwrap_or("unknown");
    if status != "ACTIVE" {
        return Err(Error::refused(operation, format!("the service is {status}, not ACTIVE; it has been deleted")));
    }
    let controller = service.deployment_controller().map_or("ECS", |controller| controller.r#type().as_str());
    if controller != "ECS" {
        let instead = match controller {
            "CODE_DEPLOY" => {
                "deploy it with AWS CodeDeploy, or move the service to the ECS controller, which has blue/green of its own"
            }
            _ => "deploy it with the tool that manages its task sets",
        };
        return Err(Error::refused(
            operation,
            format!(
                "the service's deployment controller is {controller}; gehen deploys services whose controller is ECS: \
                 {instead}"
            ),
        ));
    }
    let (primary, others): (Vec<_>, Vec<_>) =
        service.deployments().iter().partition(|deployment| deployment.status() == Some("PRIMARY"));
    let [primary] = primary[..] else {
        return Err(Error::refused(operation, "the service has no PRIMARY deployment"));
    };
    let since = primary.created_at();
    let events = service.events().iter().filter(|event| event.created_at() >= since);
    let configuration = service.deployment_configuration();
    let alarms = configuration.and_then(DeploymentConfiguration::alarms).filter(|alarms| alarms.enable);
    let breaker = configuration.and_then(DeploymentConfiguration::deployment_circuit_breaker);
    Ok(Look {
        desired: count(service.desired_count()),
        primary: deployment(operation, primary)?,
        others: others.into_iter().map(|other| deployment(operation, other)).collect::<Result<_, _>>()?,
        load_balanced: !service.load_balancers().is_empty(),
        is_daemon: service.scheduling_strategy() == Some(&SchedulingStrategy::Daemon),
        minimum_healthy_percent: configuration
            .and_then(DeploymentConfiguration::minimum_healthy_percent)
            .unwrap_or(100),
        has_alarms: alarms.is_some(),
        rolls_back_itself: alarms.is_some_and(|alarms| alarms.rollback)
            || breaker.is_some_and(|breaker| breaker.enable && breaker.rollback),
        strategy: configuration.map_or(Strategy::Rolling, strategy),
        service_deployment: service.current_service_deployment().map(|arn| ServiceDeploymentArn(arn.to_owned())),
        events: events
            .filter_map(|event| {
                let id = event.id().unwrap_or_default().to_owned();
                Some(ServiceEvent { id, message: event.message()?.to_owned() })
            })
            .collect(),
    })
}

/// How the versions are exchanged, and how long the configured steps and bakes take together
/// (API_DeploymentConfiguration, API_LinearConfiguration, API_CanaryConfiguration).
fn strategy(configuration: &DeploymentConfiguration) -> Strategy {
    // No step and no bake takes longer than a day (API_DeploymentConfiguration).
    let minutes = |count: Option<i32>| Duration::from_mins(u64::try_from(count.unwrap_or(0)).unwrap_or(0).min(1440));
    let bake = minutes(configuration.bake_time_in_minutes());
    match configuration.strategy() {
        Some(DeploymentStrategy::BlueGreen) => Strategy::Shifting { name: "blue/green", takes: bake },
        Some(DeploymentStrategy::Linear) => {
            let linear = configuration.linear_configuration();
            let percent = linear.and_then(LinearConfiguration::step_percent).filter(|percent| *percent >= 1.0);
            // The percentages that ECS takes are between 3 and 100, so the number of steps is small.
            let steps = (1..=100).find(|steps| f64::from(*steps) * percent.unwrap_or(10.0) >= 100.0).unwrap_or(100);
            let step = minutes(Some(linear.and_then(LinearConfiguration::step_bake_time_in_minutes).unwrap_or(6)));
            Strategy::Shifting { name: "linear", takes: bake + step * (steps - 1) }
        }
        Some(DeploymentStrategy::Canary) => {
            let canary = configuration.canary_configuration();
            let step = minutes(Some(canary.and_then(CanaryConfiguration::canary_bake_time_in_minutes).unwrap_or(10)));
            Strategy::Shifting { name: "canary", takes: bake + step }
        }
        _ => Strategy::Rolling,
    }
}

fn deployment(operation: &'static str, seen: &Deployment) -> Result<SeenDeployment, Error> {
    let (Some(id), Some(task_definition)) = (seen.id(), seen.task_definition()) else {
        return Err(Error::refused(operation, "a deployment has no id or no task definition"));
    };
    Ok(SeenDeployment {
        id: DeploymentId(id.to_owned()),
        task_definition: TaskDefinitionArn(task_definition.to_owned()),
        created: time(seen.created_at()),
        desired: count(seen.desired_count()),
        pending: count(seen.pending_count()),
        running: count(seen.running_count()),
        failed_tasks: count(seen.failed_tasks()),
        rollout: seen.rollout_state().map(|state| match state {
            DeploymentRolloutState::Completed => Rollout::Completed,
            DeploymentRolloutState::Failed => Rollout::Failed,
            _ => Rollout::InProgress,
        }),
        rollout_reason: seen.rollout_state_reason().unwrap_or_default().to_owned(),
    })
}

/// A service deployment, as far as it says whether ECS rolls back.
pub(super) fn service_deployment(seen: &aws_sdk_ecs::types::ServiceDeployment) -> ServiceDeployment {
    let rollback = seen.rollback().and_then(|rollback| rollback.reason());
    ServiceDeployment {
        is_rolled_back: matches!(
            seen.status(),
            Some(
                ServiceDeploymentStatus::RollbackRequested
                    | ServiceDeploymentStatus::RollbackInProgress
                    | ServiceDeploymentStatus::RollbackSuccessful
                    | ServiceDeploymentStatus::RollbackFailed
            )
        ),
        stage: seen.lifecycle_stage().map(|stage| stage.as_str().to_owned()),
        reason: rollback.or(seen.status_reason()).unwrap_or_default().to_owned(),
    }
}

/// A task.
pub(super) fn task(seen: &aws_sdk_ecs::types::Task) -> Task {
    let containers =
        seen.containers().iter().filter(|container| container.exit_code().is_some() || container.reason().is_some());
    let ends = seen.last_status() == Some("STOPPED") || seen.desired_status() == Some("STOPPED");
    let stopped = (ends && (seen.stop_code().is_some() || seen.stopped_reason().is_some())).then(|| Stopped {
        at: time(seen.stopping_at()).or(time(seen.stopped_at())),
        code: seen.stop_code().map(|code| match code {
            TaskStopCode::TaskFailedToStart => StopCode::FailedToStart,
            TaskStopCode::EssentialContainerExited => StopCode::ContainerExited,
            TaskStopCode::ServiceSchedulerInitiated => StopCode::ByScheduler,
            _ => StopCode::FromOutside,
        }),
        reason: seen.stopped_reason().unwrap_or("stopped without a reason").to_owned(),
        containers: containers
            .map(|container| {
                let name = container.name().unwrap_or_default().to_owned();
                (name, container.exit_code(), container.reason().map(str::to_owned))
            })
            .collect(),
    });
    Task {
        arn: seen.task_arn().unwrap_or_default().to_owned(),
        task_definition: TaskDefinitionArn(seen.task_definition_arn().unwrap_or_default().to_owned()),
        started_by: seen.started_by().map(|id| DeploymentId(id.to_owned())),
        status: seen.last_status().unwrap_or_default().to_owned(),
        unhealthy: seen.health_status() == Some(&HealthStatus::Unhealthy),
        created: time(seen.created_at()),
        started: time(seen.started_at()),
        stopped,
    }
}

/// A time that this machine can express; ECS says it in seconds since 1970.
fn time(at: Option<&DateTime>) -> Option<SystemTime> {
    at.and_then(|at| SystemTime::try_from(*at).ok())
}

/// ECS counts tasks in signed numbers that are never negative.
fn count(number: i32) -> usize {
    usize::try_from(number).unwrap_or(0)
}
