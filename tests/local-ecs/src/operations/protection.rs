//! Task scale-in protection: `API_UpdateTaskProtection` and `API_GetTaskProtection`.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    Answered, parameters,
    tasks::{find, task_id},
};
use crate::model::{account::Account, arn, failure::Failure, render::task_arn};

/// Protects tasks for two hours unless told otherwise, or no longer.
pub(crate) fn update(account: &mut Account, region: &str, body: &Value) -> Answered {
    let cluster = parameters::required(body, "cluster", "Cluster")?.to_owned();
    let enabled = parameters::flag(body, "protectionEnabled")?;
    let minutes = parameters::number(body, "expiresInMinutes")?.unwrap_or(120);
    if minutes == 0 || minutes > 2880 {
        return Err(Failure::invalid("expiresInMinutes must be between 1 and 2880."));
    }
    let until = account.now + Duration::from_secs(u64::from(minutes) * 60);
    each(account, region, &cluster, body, Some(if enabled { until } else { Duration::ZERO }))
}

/// Tells which tasks are protected, all of a list or of a cluster.
pub(crate) fn get(account: &mut Account, region: &str, body: &Value) -> Answered {
    let cluster = parameters::required(body, "cluster", "Cluster")?.to_owned();
    each(account, region, &cluster, body, None)
}

/// Answers for each task of the request, after protecting it until a time, or no longer if that is zero.
fn each(account: &mut Account, region: &str, cluster: &str, body: &Value, change: Option<Duration>) -> Answered {
    let now = account.now;
    account.cluster(region, cluster)?;
    let wanted = parameters::list(body, "tasks")?;
    if change.is_some() && (wanted.is_empty() || wanted.len() > 10) {
        return Err(Failure::invalid("Tasks must have between 1 and 10 elements."));
    }
    let (mut protected, mut failures) = (Vec::new(), Vec::new());
    for reference in wanted {
        let id = task_id(reference)?;
        let services = account.cluster(region, cluster)?.services.values();
        let name = services.into_iter().find(|service| find(service, id).is_some()).map(|found| found.name.clone());
        let Some(name) = name else {
            let arn = arn::ecs(region, &format!("task/{}/{id}", arn::name(cluster)));
            failures.push(json!({"arn": arn, "reason": "MISSING"}));
            continue;
        };
        let (service, _) = account.service_mut(region, cluster, &name)?;
        if let (Some(change), Some(task)) = (change, service.tasks.iter_mut().find(|task| task.id == id)) {
            task.protected_until = Some(change).filter(|until| !until.is_zero());
        }
        service.rouse(now);
        let service = account.service(region, cluster, &name)?;
        if let Some(task) = find(service, id) {
            let mut shown = json!({"taskArn": task_arn(service, task), "protectionEnabled": task.protected(now)});
            if let Some(until) = task.protected_until {
                shown["expirationDate"] = account.lens().epoch(until);
            }
            protected.push(shown);
        }
    }
    Ok(json!({"protectedTasks": protected, "failures": failures}))
}
