//! `API_DescribeServices`, `API_ListServices` and `API_DeleteService`.

use serde_json::{Value, json};

use super::{Answered, parameters};
use crate::model::{account::Account, arn, failure::Failure, service::Status};

/// Describes up to ten services; missing ones are failures of a successful answer.
pub(crate) fn describe(account: &mut Account, region: &str, body: &Value) -> Answered {
    let cluster = parameters::cluster(body)?;
    let wanted = parameters::list(body, "services")?;
    let with_tags = parameters::includes(body, "TAGS")?;
    if wanted.is_empty() {
        return Err(Failure::invalid("Services cannot be empty."));
    }
    if wanted.len() > 10 {
        return Err(Failure::invalid("Services cannot have more than 10 elements."));
    }
    account.cluster(region, cluster)?;
    let (mut services, mut failures) = (Vec::new(), Vec::new());
    for reference in wanted {
        if let Some(service) = shown(account, region, cluster, reference, with_tags) {
            services.push(service);
        } else {
            let path = format!("service/{}/{}", arn::name(cluster), arn::name(reference));
            failures.push(json!({"arn": arn::ecs(region, &path), "reason": "MISSING"}));
        }
    }
    Ok(json!({"services": services, "failures": failures}))
}

/// A service as reads show it: for a while after a write, as it was before.
fn shown(account: &Account, region: &str, cluster: &str, reference: &str, with_tags: bool) -> Option<Value> {
    let service = account.service(region, cluster, reference).ok()?;
    match &service.stale {
        Some(stale) if stale.until > account.now => {
            let mut before = stale.shown.clone()?;
            if let Some(before) = before.as_object_mut().filter(|_| !with_tags) {
                before.shift_remove("tags");
            }
            Some(before)
        }
        _ => Some(account.lens().service(service, with_tags)),
    }
}

/// Lists the ARNs of active services.
pub(crate) fn list(account: &mut Account, region: &str, body: &Value) -> Answered {
    let cluster = account.cluster(region, parameters::cluster(body)?)?;
    let launch_type = parameters::text(body, "launchType")?;
    let strategy = parameters::text(body, "schedulingStrategy")?;
    let arns: Vec<Value> = cluster
        .services
        .values()
        .filter(|service| service.status == Status::Active)
        .filter(|service| {
            launch_type.is_none_or(|wanted| service.kept.get("launchType").is_some_and(|is| is == wanted))
        })
        .filter(|service| strategy.is_none_or(|wanted| (wanted == "DAEMON") == service.daemon))
        .map(|service| json!(service.arn()))
        .collect();
    parameters::page_of(body, "serviceArns", &arns, 10, 100)
}

/// Deletes a service: it drains, and is INACTIVE once its tasks are gone.
pub(crate) fn delete(account: &mut Account, region: &str, body: &Value) -> Answered {
    let cluster = parameters::cluster(body)?.to_owned();
    let name = parameters::required(body, "service", "Service")?.to_owned();
    let force = parameters::flag(body, "force")?;
    let now = account.now;
    let (service, _) = account.service_mut(region, &cluster, &name)?;
    if service.status != Status::Active {
        return Err(Failure::new("ServiceNotActiveException", "Service was not ACTIVE."));
    }
    if service.desired > 0 && !service.daemon && !force {
        return Err(Failure::invalid("The service cannot be stopped while it is scaled above 0."));
    }
    service.status = Status::Draining;
    service.desired = 0;
    service.rouse(now);
    let service = account.service(region, &cluster, &name)?;
    Ok(json!({"service": account.lens().service(service, true)}))
}
