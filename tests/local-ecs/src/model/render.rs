//! Services and tasks as `DescribeServices` and `DescribeTasks` show them.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::{
    At, arn,
    deployment::Deployment,
    service::{Balancing, Controller, Service, Status},
    task::{Phase, Target, Task},
};
use crate::settings::Settings;

/// What rendering needs to know besides the thing itself.
pub(crate) struct Lens<'a> {
    /// The model's beginning, in seconds since the epoch.
    pub(crate) origin: f64,
    pub(crate) settings: &'a Settings,
}

impl Lens<'_> {
    /// A time as the protocol carries it: seconds since the epoch, to the millisecond.
    pub(crate) fn epoch(&self, at: At) -> Value {
        json!(((self.origin + at.as_secs_f64()) * 1000.0).round() / 1000.0)
    }

    /// A time as the Query protocol carries it, such as `2026-01-01T00:00:00Z`.
    pub(crate) fn timestamp(&self, at: At) -> Value {
        let time = UNIX_EPOCH + Duration::from_secs_f64(self.origin + at.as_secs_f64());
        json!(humantime::format_rfc3339_seconds(time).to_string())
    }

    /// A service (`API_Service`).
    pub(crate) fn service(&self, service: &Service, with_tags: bool) -> Value {
        let desired = service.target_count(self.settings);
        let running = service.tasks.iter().filter(|task| task.runs()).count();
        let pending = service.tasks.iter().filter(|task| task.pends()).count();
        let by_ecs = service.controller == Controller::Ecs;
        let deployments: Vec<Value> =
            service.deployments.iter().map(|deployment| self.deployment(service, deployment)).collect();
        let mut shown = Map::new();
        let mut put = |key: &str, value: Value| shown.insert(key.to_owned(), value);
        put("serviceArn", json!(service.arn()));
        put("serviceName", json!(service.name));
        put("clusterArn", json!(arn::ecs(&service.region, &format!("cluster/{}", service.cluster))));
        put("status", json!(service.status.name()));
        put("desiredCount", json!(desired));
        put("runningCount", json!(running));
        put("pendingCount", json!(pending));
        if let Some(primary) = service.primary().filter(|_| service.controller != Controller::External) {
            put("taskDefinition", json!(primary.blueprint.arn));
        }
        put("deploymentConfiguration", service.configuration.describe());
        put("schedulingStrategy", json!(if service.daemon { "DAEMON" } else { "REPLICA" }));
        put("deploymentController", json!({"type": service.controller.name()}));
        put("deployments", if by_ecs { json!(deployments) } else { json!([]) });
        if !by_ecs {
            put("taskSets", self.task_sets(service));
        }
        put(
            "events",
            service
                .events
                .iter()
                .map(|event| json!({"id": event.id, "createdAt": self.epoch(event.at), "message": event.message}))
                .collect(),
        );
        put("createdAt", self.epoch(service.created));
        put("createdBy", json!(arn::user(&service.region)));
        for (key, value) in [
            ("loadBalancers", json!([])),
            ("serviceRegistries", json!([])),
            ("placementConstraints", json!([])),
            ("placementStrategy", json!([])),
            ("enableECSManagedTags", json!(false)),
            ("propagateTags", json!("NONE")),
            ("enableExecuteCommand", json!(false)),
        ] {
            put(key, service.kept.get(key).cloned().unwrap_or(value));
        }
        for (key, value) in &service.kept {
            put(key, value.clone());
        }
        if by_ecs && service.shows_rollout() && service.status == Status::Active {
            self.current(service, &mut put);
        }
        if with_tags {
            put("tags", json!(service.tags));
        }
        Value::Object(shown)
    }

    /// The service deployment under way and the revisions that run.
    fn current(&self, service: &Service, put: &mut impl FnMut(&str, Value) -> Option<Value>) {
        if let Some(current) = service.history.first() {
            put("currentServiceDeployment", json!(current.arn));
        }
        let revisions: Vec<Value> = service
            .deployments
            .iter()
            .map(|deployment| self.revision_counts(service, &deployment.revision))
            .fold(Vec::new(), |mut distinct, counts| {
                if !distinct.contains(&counts) {
                    distinct.push(counts);
                }
                distinct
            });
        put("currentServiceRevisions", json!(revisions));
    }

    /// How many tasks of a service revision are requested, running and pending.
    pub(crate) fn revision_counts(&self, service: &Service, revision: &str) -> Value {
        let ids: Vec<&str> = service
            .deployments
            .iter()
            .filter(|deployment| deployment.revision == revision)
            .map(|deployment| deployment.id.as_str())
            .collect();
        let count = |is_so: &dyn Fn(&Task) -> bool| {
            service.tasks.iter().filter(|task| ids.contains(&task.deployment.as_str()) && is_so(task)).count()
        };
        let is_primary = service.primary().is_some_and(|primary| primary.revision == revision);
        let requested = if is_primary { service.target_count(self.settings) as usize } else { count(&Task::wanted) };
        json!({
            "arn": revision,
            "requestedTaskCount": requested,
            "runningTaskCount": count(&Task::runs),
            "pendingTaskCount": count(&Task::pends),
        })
    }

    fn deployment(&self, service: &Service, deployment: &Deployment) -> Value {
        let id = &deployment.id;
        let is_primary = service.primary().is_some_and(|primary| primary.id == *id);
        let running = service.count(id, Task::runs);
        let status = match (is_primary, running) {
            (true, _) => "PRIMARY",
            (false, 0) if self.settings.draining_status && service.tasks_of(id).any(|task| task.stop.is_some()) => {
                "DRAINING"
            }
            (false, _) => "ACTIVE",
        };
        let desired = if is_primary { service.target_count(self.settings) } else { service.count(id, Task::wanted) };
        let mut shown = json!({
            "id": id,
            "status": status,
            "taskDefinition": deployment.blueprint.arn,
            "desiredCount": desired,
            "pendingCount": service.count(id, Task::pends),
            "runningCount": running,
            "failedTasks": deployment.failed_tasks,
            "createdAt": self.epoch(deployment.created),
            "updatedAt": self.epoch(deployment.updated),
        });
        for key in
            ["launchType", "platformVersion", "platformFamily", "networkConfiguration", "capacityProviderStrategy"]
        {
            if let Some(value) = service.kept.get(key) {
                shown[key] = value.clone();
            }
        }
        if service.shows_rollout() {
            shown["rolloutState"] = json!(deployment.rollout.name());
            shown["rolloutStateReason"] = json!(deployment.reason);
        }
        shown
    }

    /// What services of other controllers have instead of deployments (`API_TaskSet`).
    fn task_sets(&self, service: &Service) -> Value {
        let sets = service.deployments.iter().enumerate().map(|(index, set)| {
            json!({
                "id": set.id,
                "taskSetArn": arn::ecs(&service.region, &format!("task-set/{}/{}/{}", service.cluster, service.name, set.id)),
                "serviceArn": service.arn(),
                "clusterArn": arn::ecs(&service.region, &format!("cluster/{}", service.cluster)),
                "status": if index == 0 { "PRIMARY" } else { "ACTIVE" },
                "taskDefinition": set.blueprint.arn,
                "computedDesiredCount": service.target_count(self.settings),
                "pendingCount": service.count(&set.id, Task::pends),
                "runningCount": service.count(&set.id, Task::runs),
                "createdAt": self.epoch(set.created),
                "updatedAt": self.epoch(set.updated),
                "stabilityStatus": if service.steady { "STEADY_STATE" } else { "STABILIZING" },
            })
        });
        sets.collect()
    }

    /// A task (`API_Task`).
    pub(crate) fn task(&self, service: &Service, task: &Task) -> Value {
        let task_arn = task_arn(service, task);
        let health = health(task);
        let mut shown = json!({
            "taskArn": task_arn,
            "clusterArn": arn::ecs(&service.region, &format!("cluster/{}", service.cluster)),
            "taskDefinitionArn": task.blueprint.arn,
            "group": format!("service:{}", service.name),
            "startedBy": task.started_by,
            "lastStatus": task.phase.name(),
            "desiredStatus": if task.wanted() { "RUNNING" } else { "STOPPED" },
            "healthStatus": health,
            "createdAt": self.epoch(task.created),
            "version": task.phase as u32 + 1,
            "launchType": service.kept.get("launchType").cloned().unwrap_or(json!("FARGATE")),
            "containers": task.blueprint.containers.iter().map(|(name, image)| container(task, &task_arn, name, image)).collect::<Vec<_>>(),
            "attachments": [],
            "overrides": {"containerOverrides": [], "inferenceAcceleratorOverrides": []},
            "tags": [],
        });
        let times = [
            ("startedAt", task.started),
            ("stoppingAt", task.stopping),
            ("executionStoppedAt", task.execution_stopped),
            ("stoppedAt", task.stopped),
        ];
        for (key, at) in times {
            if let Some(at) = at {
                shown[key] = self.epoch(at);
            }
        }
        for (key, value) in [("cpu", &task.blueprint.cpu), ("memory", &task.blueprint.memory)] {
            if let Some(value) = value {
                shown[key] = value.clone();
            }
        }
        if let Some(stop) = &task.stop {
            shown["stopCode"] = json!(stop.code);
            shown["stoppedReason"] = json!(stop.reason);
        }
        shown
    }
}

/// A task's ARN.
pub(crate) fn task_arn(service: &Service, task: &Task) -> String {
    arn::ecs(&service.region, &format!("task/{}/{}", service.cluster, task.id))
}

/// UNKNOWN without a container health check, whatever the load balancer thinks.
fn health(task: &Task) -> &'static str {
    match (task.blueprint.has_health_check && task.phase == Phase::Running, task.container_unhealthy) {
        (true, false) if task.settled || task.target == Target::Unhealthy => "HEALTHY",
        (_, true) => "UNHEALTHY",
        _ => "UNKNOWN",
    }
}

fn container(task: &Task, task_arn: &str, name: &str, image: &str) -> Value {
    let is_essential = image == task.blueprint.version_image;
    let status = match task.phase {
        Phase::Provisioning | Phase::Pending => "PENDING",
        Phase::Activating | Phase::Running | Phase::Deactivating | Phase::Stopping => "RUNNING",
        Phase::Deprovisioning | Phase::Stopped => "STOPPED",
    };
    let mut shown = json!({
        "containerArn": task_arn.replacen(":task/", ":container/", 1) + "/" + name,
        "taskArn": task_arn,
        "name": name,
        "image": image,
        "lastStatus": status,
        "healthStatus": if is_essential { health(task) } else { "UNKNOWN" },
        "networkBindings": [],
        "networkInterfaces": [],
        "cpu": "0",
    });
    if let Some(stop) = task.stop.as_ref().filter(|_| is_essential) {
        if let Some(reason) = &stop.container {
            shown["reason"] = json!(reason);
        }
        if let Some(code) = stop.exit_code.filter(|_| status == "STOPPED" && task.started.is_some()) {
            shown["exitCode"] = json!(code);
        }
    }
    shown
}

/// The names of what balances a service's load.
pub(crate) fn balancers(balancing: &Balancing, container: &str, port: u64) -> Value {
    match balancing {
        Balancing::None => json!([]),
        Balancing::TargetGroup(group) => {
            json!([{"targetGroupArn": group, "containerName": container, "containerPort": port}])
        }
        Balancing::Classic(name) => {
            json!([{"loadBalancerName": name, "containerName": container, "containerPort": port}])
        }
    }
}
