//! `API_UpdateService`.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};

use super::{Answered, create_service, parameters};
use crate::model::{
    account::Account,
    arn,
    failure::Failure,
    service::{Controller, Service, Status},
    task_definition::Blueprint,
};

/// What makes a new deployment when it changes (`API_UpdateService`).
const DEPLOYED: [&str; 9] = [
    "capacityProviderStrategy",
    "enableExecuteCommand",
    "loadBalancers",
    "networkConfiguration",
    "platformVersion",
    "serviceConnectConfiguration",
    "serviceRegistries",
    "volumeConfigurations",
    "vpcLatticeConfigurations",
];

/// Changes a service; a new deployment begins when what its tasks run changes, or by force.
pub(crate) fn update(account: &mut Account, region: &str, body: &Value) -> Answered {
    let cluster = parameters::cluster(body)?.to_owned();
    let name = parameters::required(body, "service", "Service")?.to_owned();
    let force = parameters::flag(body, "forceNewDeployment")?;
    let desired = parameters::number(body, "desiredCount")?;
    let service = account.service(region, &cluster, &name)?;
    if service.status != Status::Active {
        return Err(Failure::new("ServiceNotActiveException", "Service was not ACTIVE."));
    }
    let reference = parameters::text(body, "taskDefinition")?;
    check(service, reference, force, desired)?;
    let blueprint = match reference {
        Some(reference) => Some(usable(account, region, reference)?),
        None => None,
    };
    let now = account.now;
    let service = account.service(region, &cluster, &name)?;
    let before = (!account.settings.stale_reads.is_zero()).then(|| account.lens().service(service, true));
    let (service, mut world) = account.service_mut(region, &cluster, &name)?;
    apply(service, body, desired, blueprint, force, now, &mut world)?;
    service.rouse(now);
    service.go_stale(before, now, world.settings);
    let service = account.service(region, &cluster, &name)?;
    Ok(json!({"service": account.lens().service(service, false)}))
}

fn check(service: &Service, reference: Option<&str>, force: bool, desired: Option<u32>) -> Result<(), Failure> {
    let controller = service.controller;
    if controller != Controller::Ecs {
        let way_out = match controller {
            Controller::CodeDeploy => " Use AWS CodeDeploy to trigger a new deployment.",
            _ => "",
        };
        let refuse = |what: &str| {
            let name = controller.name();
            Err(Failure::invalid(format!("{what} on services with a {name} deployment controller.{way_out}")))
        };
        if reference.is_some() {
            return refuse("Unable to update task definition");
        }
        if force {
            return refuse("Cannot force a new deployment");
        }
    }
    if service.daemon && desired.is_some() {
        return Err(Failure::invalid("The daemon scheduling strategy does not support a desired count for services."));
    }
    Ok(())
}

fn apply(
    service: &mut Service,
    body: &Value,
    desired: Option<u32>,
    blueprint: Option<Arc<Blueprint>>,
    force: bool,
    now: Duration,
    world: &mut crate::model::service::World<'_>,
) -> Result<(), Failure> {
    let current = service.primary().map(|primary| Arc::clone(&primary.blueprint));
    let next = blueprint.or_else(|| current.clone());
    let balancing = match (&next, body.get("loadBalancers")) {
        (Some(next), Some(_)) => Some(create_service::balancing(body, next)?),
        _ => None,
    };
    if let Some(given) = body.get("deploymentConfiguration") {
        service.configuration.merge(given)?;
    }
    if let Some(balancing) = balancing {
        service.balancing = balancing;
    }
    if let Some(desired) = desired {
        service.desired = desired;
    }
    if let Some(grace) = parameters::number(body, "healthCheckGracePeriodSeconds")? {
        service.grace = Duration::from_secs(grace.into());
    }
    let mut changes = force || next.as_ref().map(|next| &next.arn) != current.as_ref().map(|current| &current.arn);
    for key in create_service::KEPT {
        if let Some(value) = body.get(key).filter(|value| !value.is_null()) {
            let replaced = service.kept.insert(key.to_owned(), value.clone());
            changes |= DEPLOYED.contains(&key) && replaced.as_ref() != Some(value);
        }
    }
    if let (true, Some(next)) = (changes, next) {
        service.deploy(next, now, world);
    }
    Ok(())
}

/// What a reference to a task definition means, unless it is missing or INACTIVE.
pub(crate) fn usable(account: &Account, region: &str, reference: &str) -> Result<Arc<Blueprint>, Failure> {
    let definition = account.task_definition(region, reference);
    match definition {
        Some(definition) if definition.is_active() => Ok(Arc::clone(&definition.blueprint)),
        Some(_) => Err(Failure::client("TaskDefinition is inactive")),
        None => {
            let family = arn::name(reference).split(':').next().unwrap_or_default();
            let families = account.regions.get(region).map(|region| &region.families);
            let all_inactive = families.is_some_and(|families| families.contains_key(family));
            let is_family = family == arn::name(reference);
            Err(Failure::client(if all_inactive && is_family {
                "TaskDefinition is inactive"
            } else {
                "TaskDefinition not found."
            }))
        }
    }
}
