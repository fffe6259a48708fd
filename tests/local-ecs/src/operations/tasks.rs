//! `API_ListTasks`, `API_DescribeTasks` and `API_StopTask`.

use serde_json::{Value, json};

use super::{Answered, parameters};
use crate::model::{
    account::Account, arn, failure::Failure, fate::Stop, render::task_arn, service::Service, task::Task,
};

/// Lists task ARNs, 100 a page; `startedBy` must be the only filter.
pub(crate) fn list(account: &mut Account, region: &str, body: &Value) -> Answered {
    let cluster = account.cluster(region, parameters::cluster(body)?)?;
    let filter = |key: &str| parameters::text(body, key);
    let (service, family, started_by) = (filter("serviceName")?, filter("family")?, filter("startedBy")?);
    let (desired, launch_type) = (filter("desiredStatus")?, filter("launchType")?);
    if started_by.is_some() && [service, family, desired, launch_type].iter().any(Option::is_some) {
        return Err(Failure::invalid("startedBy must be the only filter when it is specified."));
    }
    let wanted = match desired {
        None | Some("RUNNING") => true,
        Some("STOPPED") => false,
        Some("PENDING") => return parameters::page(body, "taskArns", &[], 100),
        Some(other) => return Err(Failure::invalid(format!("Invalid desired status {other}."))),
    };
    let services: Vec<&Service> = match service {
        Some(name) => vec![cluster.services.get(arn::name(name)).ok_or_else(Failure::no_service)?],
        None => cluster.services.values().collect(),
    };
    let arns: Vec<Value> = services
        .into_iter()
        .filter(|service| {
            let is = service.kept.get("launchType").and_then(Value::as_str).unwrap_or("EC2");
            launch_type.is_none_or(|wanted| wanted == is)
        })
        .flat_map(|service| service.tasks.iter().map(move |task| (service, task)))
        .filter(|(_, task)| task.wanted() == wanted)
        .filter(|(_, task)| family.is_none_or(|family| task.blueprint.family == family))
        .filter(|(_, task)| started_by.is_none_or(|started_by| task.started_by == started_by))
        .map(|(service, task)| json!(task_arn(service, task)))
        .collect();
    parameters::page(body, "taskArns", &arns, 100)
}

/// Describes up to 100 tasks; missing ones are failures of a successful answer.
pub(crate) fn describe(account: &mut Account, region: &str, body: &Value) -> Answered {
    let cluster_name = parameters::cluster(body)?;
    let cluster = account.cluster(region, cluster_name)?;
    let wanted = parameters::list(body, "tasks")?;
    if wanted.is_empty() {
        return Err(Failure::invalid("Tasks cannot be empty."));
    }
    if wanted.len() > 100 {
        return Err(Failure::invalid("Tasks cannot have more than 100 elements."));
    }
    let lens = account.lens();
    let (mut tasks, mut failures) = (Vec::new(), Vec::new());
    for reference in wanted {
        let id = task_id(reference)?;
        let found = cluster.services.values().find_map(|service| Some((service, find(service, id)?)));
        if let Some((service, task)) = found {
            tasks.push(lens.task(service, task));
        } else {
            let path = format!("task/{}/{id}", arn::name(cluster_name));
            failures.push(json!({"arn": arn::ecs(region, &path), "reason": "MISSING"}));
        }
    }
    Ok(json!({"tasks": tasks, "failures": failures}))
}

/// Stops a task on request.
pub(crate) fn stop(account: &mut Account, region: &str, body: &Value) -> Answered {
    let cluster = parameters::cluster(body)?.to_owned();
    let id = task_id(parameters::required(body, "task", "Task")?)?.to_owned();
    let reason = parameters::text(body, "reason")?.unwrap_or("Task stopped by user").to_owned();
    let now = account.now;
    let not_found = || Failure::invalid("The referenced task was not found.");
    let cluster_of = account.cluster(region, &cluster)?;
    let service = cluster_of.services.values().find(|service| find(service, &id).is_some());
    let name = service.map(|service| service.name.clone()).ok_or_else(not_found)?;
    let (service, world) = account.service_mut(region, &cluster, &name)?;
    let rules = service.rules(world.settings);
    if let Some(task) = service.tasks.iter_mut().find(|task| task.id == id) {
        task.stop(Stop { code: "UserInitiated", ..Stop::by_scheduler(reason) }, now, &rules);
    }
    service.steady = false;
    service.rouse(now);
    let service = account.service(region, &cluster, &name)?;
    let task = find(service, &id).ok_or_else(not_found)?;
    Ok(json!({"task": account.lens().task(service, task)}))
}

/// The task of a service with this id.
pub(crate) fn find<'a>(service: &'a Service, id: &str) -> Option<&'a Task> {
    service.tasks.iter().find(|task| task.id == id)
}

/// The id in a task's id or ARN.
pub(crate) fn task_id(reference: &str) -> Result<&str, Failure> {
    let id = arn::name(reference);
    if matches!(id.len(), 32 | 36) && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        Ok(id)
    } else {
        Err(Failure::invalid("taskId length should be one of [32,36]"))
    }
}
