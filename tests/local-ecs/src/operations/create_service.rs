//! `API_CreateService`.

use std::{collections::HashMap, time::Duration};

use serde_json::{Map, Value, json};

use super::{Answered, parameters};
use crate::model::{
    account::Account,
    arn,
    configuration::Configuration,
    events::Events,
    failure::Failure,
    service::{Balancing, Controller, Service, Status},
    task_definition::{Blueprint, check_tags},
};

/// What is kept and shown, but means nothing to the model.
pub(crate) const KEPT: [&str; 18] = [
    "availabilityZoneRebalancing",
    "capacityProviderStrategy",
    "enableECSManagedTags",
    "enableExecuteCommand",
    "healthCheckGracePeriodSeconds",
    "launchType",
    "loadBalancers",
    "networkConfiguration",
    "placementConstraints",
    "placementStrategy",
    "platformVersion",
    "platformFamily",
    "propagateTags",
    "role",
    "serviceConnectConfiguration",
    "serviceRegistries",
    "volumeConfigurations",
    "vpcLatticeConfigurations",
];

/// Creates a service, whose first deployment begins at once.
pub(crate) fn create(account: &mut Account, region: &str, body: &Value) -> Answered {
    let cluster = arn::name(parameters::cluster(body)?).to_owned();
    let name = parameters::required(body, "serviceName", "Service name")?.to_owned();
    if name.len() > 255 || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
        return Err(Failure::invalid("Service name is not valid."));
    }
    let existing = account.cluster(region, &cluster)?.services.get(&name).map(|service| service.status);
    match existing {
        Some(Status::Active) => {
            return Err(Failure::invalid("Creation of service was not idempotent."));
        }
        Some(Status::Draining) => {
            return Err(Failure::invalid("Unable to Start a service that is still Draining."));
        }
        Some(Status::Inactive { .. }) | None => {}
    }
    let reference = parameters::required(body, "taskDefinition", "TaskDefinition")?;
    let blueprint = super::update_service::usable(account, region, reference)?;
    let now = account.now;
    let mut service = blank(region, &cluster, &name, body, &blueprint)?;
    service.created = now;
    service.go_stale(None, now, &account.settings);
    let Some(target) = account.region(region).clusters.get_mut(&cluster) else {
        return Err(Failure::no_cluster());
    };
    target.services.insert(name.clone(), service);
    let (service, mut world) = account.service_mut(region, &cluster, &name)?;
    service.deploy(blueprint, now, &mut world);
    let service = account.service(region, &cluster, &name)?;
    Ok(json!({"service": account.lens().service(service, true)}))
}

/// A service as requested, without deployments.
fn blank(region: &str, cluster: &str, name: &str, body: &Value, blueprint: &Blueprint) -> Result<Service, Failure> {
    let daemon = match parameters::text(body, "schedulingStrategy")? {
        None | Some("REPLICA") => false,
        Some("DAEMON") => true,
        Some(_) => {
            return Err(Failure::invalid("schedulingStrategy must be REPLICA or DAEMON."));
        }
    };
    let controller = body.get("deploymentController").and_then(|controller| controller.get("type"));
    let controller = match controller.and_then(Value::as_str) {
        None => Controller::Ecs,
        Some(name) => Controller::named(name).ok_or_else(|| Failure::invalid("Unknown deployment controller."))?,
    };
    let desired = parameters::number(body, "desiredCount")?;
    if daemon && desired.is_some() {
        return Err(Failure::invalid("The daemon scheduling strategy does not support a desired count for services."));
    }
    if !daemon && desired.is_none() && controller == Controller::Ecs {
        return Err(Failure::invalid("Desired count cannot be null when the scheduling strategy is REPLICA."));
    }
    let mut configuration = Configuration::new(daemon);
    if let Some(given) = body.get("deploymentConfiguration") {
        configuration.merge(given)?;
    }
    let tags = parameters::values(body, "tags")?;
    check_tags(&tags)?;
    let mut kept = Map::new();
    for key in KEPT {
        if let Some(value) = body.get(key).filter(|value| !value.is_null()) {
            kept.insert(key.to_owned(), value.clone());
        }
    }
    if !kept.contains_key("capacityProviderStrategy") {
        kept.entry("launchType").or_insert(json!("EC2"));
    }
    let role = kept.shift_remove("role");
    if let Some(role) = role {
        kept.insert("roleArn".to_owned(), role);
    }
    let grace = parameters::number(body, "healthCheckGracePeriodSeconds")?.unwrap_or(0);
    Ok(Service {
        name: name.to_owned(),
        cluster: cluster.to_owned(),
        region: region.to_owned(),
        status: Status::Active,
        desired: desired.unwrap_or(0),
        daemon,
        controller,
        balancing: balancing(body, blueprint)?,
        deregistration_delay: None,
        grace: Duration::from_secs(grace.into()),
        configuration,
        kept,
        tags,
        deployments: Vec::new(),
        tasks: Vec::new(),
        history: Vec::new(),
        revisions: Vec::new(),
        events: Events::default(),
        happened: Vec::new(),
        noted: std::collections::HashSet::new(),
        last_completed: None,
        attempts: HashMap::new(),
        stale: None,
        alarm: false,
        steady: false,
        requests: Vec::new(),
        turn: 0,
        created: Duration::ZERO,
        wake: None,
    })
}

/// Where tasks register; the container must exist (`API_LoadBalancer`).
pub(crate) fn balancing(body: &Value, blueprint: &Blueprint) -> Result<Balancing, Failure> {
    let balancers = parameters::values(body, "loadBalancers")?;
    let Some(balancer) = balancers.first() else {
        return Ok(Balancing::None);
    };
    let container = parameters::text(balancer, "containerName")?
        .ok_or_else(|| Failure::invalid("Container name cannot be null or empty when specifying a load balancer."))?;
    if !blueprint.containers.iter().any(|(name, _)| name == container) {
        return Err(Failure::invalid(format!("The container {container} does not exist in the task definition.")));
    }
    match (parameters::text(balancer, "targetGroupArn")?, parameters::text(balancer, "loadBalancerName")?) {
        (Some(_), Some(_)) => Err(Failure::invalid("targetGroupArn and loadBalancerName cannot both be set.")),
        (Some(group), None) => Ok(Balancing::TargetGroup(group.to_owned())),
        (None, Some(name)) => Ok(Balancing::Classic(name.to_owned())),
        (None, None) => Err(Failure::invalid("Load balancer name or target group ARN must be set.")),
    }
}
