//! Service deployments and revisions: `API_ListServiceDeployments` and its kin.

use serde_json::{Value, json};

use super::{Answered, parameters};
use crate::model::{
    account::Account,
    arn,
    deployment::Deployment,
    failure::Failure,
    render::{Lens, balancers},
    service::{Service, Status as ServiceStatus},
    service_deployment::{ServiceDeployment, ServiceRevision, Status},
};

/// Every state that a service deployment can be in, as a filter may name it.
const STATES: [&str; 9] = [
    "PENDING",
    "SUCCESSFUL",
    "STOPPED",
    "STOP_REQUESTED",
    "IN_PROGRESS",
    "ROLLBACK_REQUESTED",
    "ROLLBACK_IN_PROGRESS",
    "ROLLBACK_SUCCESSFUL",
    "ROLLBACK_FAILED",
];

/// Lists a service's deployments, newest first, 20 a page unless told otherwise.
pub(crate) fn list(account: &mut Account, region: &str, body: &Value) -> Answered {
    let reference = parameters::required(body, "service", "Service")?;
    let service = account.service(region, cluster_of(body, reference)?, reference)?;
    let wanted = parameters::list(body, "status")?;
    if let Some(unknown) = wanted.iter().find(|status| !STATES.contains(status)) {
        return Err(Failure::invalid(format!("Invalid service deployment status {unknown}.")));
    }
    let created = body.get("createdAt").unwrap_or(&Value::Null);
    let (before, after) = (parameters::time(created, "before")?, parameters::time(created, "after")?);
    let lens = account.lens();
    let is_between = |past: &ServiceDeployment| {
        let at = lens.epoch(past.created).as_f64().unwrap_or_default();
        before.is_none_or(|before| at < before) && after.is_none_or(|after| at > after)
    };
    let briefs: Vec<Value> = service
        .history
        .iter()
        .filter(|past| wanted.is_empty() || wanted.contains(&past.status.name()))
        .filter(|past| is_between(past))
        .map(|past| brief(&lens, service, past))
        .collect();
    parameters::page_of(body, "serviceDeployments", &briefs, 20, 100)
}

/// Describes service deployments by ARN.
pub(crate) fn describe(account: &mut Account, region: &str, body: &Value) -> Answered {
    let wanted = parameters::list(body, "serviceDeploymentArns")?;
    if wanted.is_empty() || wanted.len() > 20 {
        return Err(Failure::invalid("Service deployment ARNs must have between 1 and 20 elements."));
    }
    let lens = account.lens();
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for reference in wanted {
        let service = owner(account, region, reference);
        match service.and_then(|service| Some((service, service.service_deployment(reference)?))) {
            Some((service, past)) => found.push(in_full(&lens, service, past)),
            None => failures.push(json!({"arn": reference, "reason": "MISSING"})),
        }
    }
    Ok(json!({"serviceDeployments": found, "failures": failures}))
}

/// Describes service revisions by ARN.
pub(crate) fn describe_revisions(account: &mut Account, region: &str, body: &Value) -> Answered {
    let wanted = parameters::list(body, "serviceRevisionArns")?;
    if wanted.is_empty() || wanted.len() > 20 {
        return Err(Failure::invalid("Service revision ARNs must have between 1 and 20 elements."));
    }
    let lens = account.lens();
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for reference in wanted {
        let service = owner(account, region, reference);
        let revision = service
            .and_then(|service| Some((service, service.revisions.iter().find(|revision| revision.arn == reference)?)));
        match revision {
            Some((service, revision)) => found.push(describe_revision(&lens, service, revision)),
            None => failures.push(json!({"arn": reference, "reason": "MISSING"})),
        }
    }
    Ok(json!({"serviceRevisions": found, "failures": failures}))
}

/// Stops a service deployment that is under way by rolling back; one that rolls back already goes on with it
/// (`dg/stop-service-deployment`).
pub(crate) fn stop(account: &mut Account, region: &str, body: &Value) -> Answered {
    let reference = parameters::required(body, "serviceDeploymentArn", "Service deployment ARN")?;
    let missing = || Failure::new("ServiceDeploymentNotFoundException", "Service deployment not found.");
    match parameters::text(body, "stopType")?.unwrap_or("ROLLBACK") {
        "ROLLBACK" => {}
        "ABORT" => return Err(Failure::invalid("Stop type ABORT is not supported.")),
        _ => return Err(Failure::invalid("Invalid stop type.")),
    }
    let service = owner(account, region, reference).ok_or_else(missing)?;
    let status = service.service_deployment(reference).ok_or_else(missing)?.status;
    if matches!(status, Status::RollbackRequested | Status::RollbackInProgress) {
        return Ok(json!({"serviceDeploymentArn": reference}));
    }
    if !status.is_open() {
        return Err(Failure::new(
            "ConflictException",
            format!("The service deployment cannot be stopped because its status is {}.", status.name()),
        ));
    }
    let (cluster, name) = (service.cluster.clone(), service.name.clone());
    let now = account.now;
    let (service, world) = account.service_mut(region, &cluster, &name)?;
    service.request_rollback(reference, now, world.settings);
    Ok(json!({"serviceDeploymentArn": reference}))
}

/// The cluster in a service's ARN, or the one the request names.
fn cluster_of<'a>(body: &'a Value, service: &'a str) -> Result<&'a str, Failure> {
    let path = arn::path(service);
    match path.split_once('/') {
        Some((cluster, _)) => Ok(cluster),
        None => parameters::cluster(body),
    }
}

/// The service that a service deployment or revision belongs to.
fn owner<'a>(account: &'a Account, region: &str, reference: &str) -> Option<&'a Service> {
    let (cluster, name) = arn::owner(reference)?;
    let service = account.service(region, cluster, name).ok()?;
    (!matches!(service.status, ServiceStatus::Inactive { .. })).then_some(service)
}

fn brief(lens: &Lens<'_>, service: &Service, past: &ServiceDeployment) -> Value {
    let mut shown = json!({
        "serviceDeploymentArn": past.arn,
        "serviceArn": service.arn(),
        "clusterArn": arn::ecs(&service.region, &format!("cluster/{}", service.cluster)),
        "status": past.status.name(),
        "targetServiceRevisionArn": past.target,
        "createdAt": lens.epoch(past.created),
    });
    if let Some(reason) = &past.reason {
        shown["statusReason"] = json!(reason);
    }
    for (key, at) in [("startedAt", past.started), ("finishedAt", past.finished)] {
        if let Some(at) = at {
            shown[key] = lens.epoch(at);
        }
    }
    shown
}

fn in_full(lens: &Lens<'_>, service: &Service, past: &ServiceDeployment) -> Value {
    let mut shown = brief(lens, service, past);
    if let Some(shown) = shown.as_object_mut() {
        shown.shift_remove("targetServiceRevisionArn");
    }
    shown["updatedAt"] = lens.epoch(past.updated);
    shown["targetServiceRevision"] = summary(lens, service, &past.target);
    let sources = past.source.iter().map(|source| summary(lens, service, source));
    shown["sourceServiceRevisions"] = sources.collect();
    shown["deploymentConfiguration"] = past.configuration.describe();
    shown["deploymentCircuitBreaker"] = breaker(service, past);
    if let Some(at) = past.stopped {
        shown["stoppedAt"] = lens.epoch(at);
    }
    if let Some(stage) = past.stage {
        shown["lifecycleStage"] = json!(stage.name());
    }
    shown["alarms"] = if past.configuration.alarms().is_some() {
        let names = past.configuration.alarm_names();
        let status = match (past.alarmed, past.status.is_open()) {
            (true, _) => "TRIGGERED",
            (false, true) => "MONITORING",
            (false, false) => "MONITORING_COMPLETE",
        };
        let triggered = if past.alarmed { names.clone() } else { json!([]) };
        json!({"status": status, "alarmNames": names, "triggeredAlarmNames": triggered})
    } else {
        json!({"status": "DISABLED"})
    };
    if let Some(rollback) = &past.rollback {
        shown["rollback"] = json!({
            "reason": rollback.reason,
            "startedAt": lens.epoch(rollback.at),
            "serviceRevisionArn": rollback.revision,
        });
    }
    shown
}

/// A revision's tasks, and its share of the traffic when that moves between revisions (`API_ServiceRevisionSummary`).
fn summary(lens: &Lens<'_>, service: &Service, revision: &str) -> Value {
    let mut shown = lens.revision_counts(service, revision);
    if service.is_blue_green() {
        let ours = service.deployments.iter().filter(|deployment| deployment.revision == revision);
        let tenths: u32 = ours.map(|deployment| deployment.traffic).sum();
        shown["requestedProductionTrafficWeight"] = json!(f64::from(tenths) / 10.0);
    }
    shown
}

fn breaker(service: &Service, past: &ServiceDeployment) -> Value {
    let running = service.deployments.iter().find(|deployment| deployment.id == past.deployment);
    let failures = past.tripped.unwrap_or(running.map_or(0, |deployment| deployment.failed_tasks));
    let status = match (past.configuration.breaker(), past.tripped, past.status.is_open()) {
        (None, ..) => "DISABLED",
        (_, Some(_), _) => "TRIGGERED",
        (_, None, true) => "MONITORING",
        (_, None, false) => "MONITORING_COMPLETE",
    };
    json!({"status": status, "failureCount": failures, "threshold": Deployment::threshold(service.desired)})
}

fn describe_revision(lens: &Lens<'_>, service: &Service, revision: &ServiceRevision) -> Value {
    let container = revision.blueprint.containers.first().map_or("", |(name, _)| name.as_str());
    let images: Vec<Value> = revision
        .blueprint
        .containers
        .iter()
        .map(|(name, image)| json!({"containerName": name, "image": image}))
        .collect();
    let kept = service.kept.get("loadBalancers").cloned();
    let mut shown = json!({
        "serviceRevisionArn": revision.arn,
        "serviceArn": service.arn(),
        "clusterArn": arn::ecs(&service.region, &format!("cluster/{}", service.cluster)),
        "taskDefinition": revision.blueprint.arn,
        "loadBalancers": kept.unwrap_or_else(|| balancers(&service.balancing, container, 80)),
        "containerImages": images,
        "guardDutyEnabled": false,
        "createdAt": lens.epoch(revision.created),
    });
    for key in
        ["launchType", "platformVersion", "networkConfiguration", "serviceRegistries", "capacityProviderStrategy"]
    {
        if let Some(value) = service.kept.get(key) {
            shown[key] = value.clone();
        }
    }
    shown
}
