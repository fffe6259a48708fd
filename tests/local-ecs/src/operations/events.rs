//! Amazon EventBridge: rules and their targets, by `API_PutRule`, `API_PutTargets` and their neighbours in its API
//! reference.

use serde_json::{Value, json};

use super::{Answered, parameters};
use crate::model::{
    account::Account,
    arn,
    failure::Failure,
    schedule::{DEFAULT_BUS, Rule},
};

/// The most targets that one request may put (`API_PutTargets`).
const MOST_ENTRIES: usize = 10;

/// Makes an event bus.
pub(crate) fn create_event_bus(account: &mut Account, region: &str, body: &Value) -> Answered {
    let name = required(body, "Name")?;
    if !account.region(region).buses.create(name) {
        return Err(Failure::new("ResourceAlreadyExistsException", format!("Event bus {name} already exists.")));
    }
    Ok(json!({"EventBusArn": arn::events(region, &format!("event-bus/{name}"))}))
}

/// Makes a rule, or says anew what an old one is; its targets stay.
pub(crate) fn put_rule(account: &mut Account, region: &str, body: &Value) -> Answered {
    let name = required(body, "Name")?;
    let bus = bus(body)?;
    let has = |key: &str| parameters::text(body, key).map(|text| text.is_some());
    if !has("ScheduleExpression")? && !has("EventPattern")? {
        return Err(invalid("Parameter(s) EventPattern or ScheduleExpression must be specified."));
    }
    if has("ScheduleExpression")? && bus != DEFAULT_BUS {
        return Err(invalid("ScheduleExpression is supported only on the default event bus."));
    }
    let rule = account.region(region).buses.bus(bus)?.entry(name.to_owned()).or_default();
    check_changeable(name, rule)?;
    let said = body.as_object().cloned().unwrap_or_default();
    rule.said = said.into_iter().filter(|(key, _)| key != "Name" && key != "EventBusName").collect();
    Ok(json!({"RuleArn": rule_arn(region, bus, name)}))
}

/// Says what a rule is, but not which targets it has.
pub(crate) fn describe_rule(account: &mut Account, region: &str, body: &Value) -> Answered {
    let (name, bus) = (required(body, "Name")?, bus(body)?);
    let rule = account.region(region).buses.rule(bus, name)?;
    let mut shown = json!({"State": "ENABLED", "CreatedBy": arn::ACCOUNT});
    for (key, value) in rule.said.iter().filter(|(key, _)| *key != "Tags") {
        shown[key.as_str()] = value.clone();
    }
    shown["Name"] = json!(name);
    shown["Arn"] = json!(rule_arn(region, bus, name));
    shown["EventBusName"] = json!(bus);
    if let Some(service) = &rule.managed_by {
        shown["ManagedBy"] = json!(service);
    }
    Ok(shown)
}

/// Deletes a rule that has no targets left; one that isn't there is deleted already.
pub(crate) fn delete_rule(account: &mut Account, region: &str, body: &Value) -> Answered {
    let (name, bus) = (required(body, "Name")?, bus(body)?);
    let rules = account.region(region).buses.bus(bus)?;
    if let Some(rule) = rules.get(name) {
        check_changeable(name, rule)?;
        if !rule.targets.is_empty() {
            return Err(invalid("Rule can't be deleted since it has targets."));
        }
        rules.remove(name);
    }
    Ok(json!({}))
}

/// Lists a rule's targets, a page at a time.
pub(crate) fn list_targets(account: &mut Account, region: &str, body: &Value) -> Answered {
    let (name, bus) = (required(body, "Rule")?, bus(body)?);
    let page = account.settings.targets_per_page;
    let limit = parameters::number(body, "Limit")?.unwrap_or(100);
    if limit == 0 || limit > 100 {
        let wanted = if limit == 0 { "greater than or equal to 1" } else { "less than or equal to 100" };
        return Err(unsatisfied(&limit.to_string(), "limit", &format!("have value {wanted}")));
    }
    let now = account.now;
    let targets = account.region(region).buses.rule(bus, name)?.shown(now);
    let start = match parameters::text(body, "NextToken")? {
        None => 0,
        Some(token) => {
            let offset = token.strip_prefix("from-").and_then(|offset| offset.parse::<usize>().ok());
            offset.filter(|offset| *offset <= targets.len()).ok_or_else(|| invalid("Invalid token."))?
        }
    };
    let end = targets.len().min(start + limit.min(page) as usize);
    let mut answer = json!({"Targets": targets[start..end]});
    if end < targets.len() {
        answer["NextToken"] = json!(format!("from-{end}"));
    }
    Ok(answer)
}

/// Adds targets to a rule; those whose id it has are replaced whole.
pub(crate) fn put_targets(account: &mut Account, region: &str, body: &Value) -> Answered {
    let (name, bus) = (required(body, "Rule")?, bus(body)?);
    let most = account.settings.targets_per_rule;
    let (now, stale_reads) = (account.now, account.settings.stale_reads);
    let targets = parameters::values(body, "Targets")?;
    if targets.is_empty() || targets.len() > MOST_ENTRIES {
        let wanted = if targets.is_empty() { "greater than or equal to 1" } else { "less than or equal to 10" };
        return Err(unsatisfied(&json!(targets).to_string(), "targets", &format!("have length {wanted}")));
    }
    for (index, target) in targets.iter().enumerate() {
        check_target(index, target)?;
    }
    let rule = account.region(region).buses.rule(bus, name)?;
    check_changeable(name, rule)?;
    let is_new = |target: &&Value| !rule.targets.iter().any(|held| held["Id"] == target["Id"]);
    if rule.targets.len() + targets.iter().filter(is_new).count() > most {
        let message = "The requested resource exceeds the maximum number allowed.";
        return Err(Failure::new("LimitExceededException", message));
    }
    rule.stale = Some((now + stale_reads, rule.shown(now).to_vec()));
    for target in targets {
        rule.put(target);
    }
    Ok(json!({"FailedEntryCount": 0, "FailedEntries": []}))
}

/// Takes targets from a rule; an id that it doesn't have is taken already.
pub(crate) fn remove_targets(account: &mut Account, region: &str, body: &Value) -> Answered {
    let (name, bus) = (required(body, "Rule")?, bus(body)?);
    let ids = parameters::list(body, "Ids")?;
    let rule = account.region(region).buses.rule(bus, name)?;
    check_changeable(name, rule)?;
    rule.targets.retain(|target| !target["Id"].as_str().is_some_and(|id| ids.contains(&id)));
    Ok(json!({"FailedEntryCount": 0, "FailedEntries": []}))
}

/// What `PutTargets` answers where these targets could not be put, for a reason of EventBridge's own.
pub(crate) fn failed_entries(targets: &[Value], failure: &Failure) -> Value {
    let entry =
        |target: &Value| json!({"TargetId": target["Id"], "ErrorCode": failure.kind, "ErrorMessage": failure.message});
    json!({"FailedEntryCount": targets.len(), "FailedEntries": targets.iter().map(entry).collect::<Vec<_>>()})
}

/// The ARN of a rule, which names its bus only where that isn't the default one.
pub(crate) fn rule_arn(region: &str, bus: &str, name: &str) -> String {
    let path = if bus == DEFAULT_BUS { format!("rule/{name}") } else { format!("rule/{bus}/{name}") };
    arn::events(region, &path)
}

/// The bus that a request means, by name or ARN.
pub(crate) fn bus(body: &Value) -> Result<&str, Failure> {
    Ok(parameters::text(body, "EventBusName")?.map_or(DEFAULT_BUS, arn::path))
}

/// Whether a target has ECS run tasks: it is a cluster.
fn is_cluster(target_arn: &str) -> bool {
    target_arn.contains(":ecs:") && target_arn.contains(":cluster/")
}

fn check_target(index: usize, target: &Value) -> Result<(), Failure> {
    let place = |key: &str| format!("targets.{}.member.{key}", index + 1);
    let id = parameters::text(target, "Id")?.ok_or_else(|| unsatisfied("null", &place("id"), "not be null"))?;
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    if id.len() > 64 || !id.chars().all(is_allowed) {
        let pattern = "satisfy regular expression pattern: [\\.\\-_A-Za-z0-9]+";
        return Err(unsatisfied(id, &place("id"), pattern));
    }
    let target_arn =
        parameters::text(target, "Arn")?.ok_or_else(|| unsatisfied("null", &place("arn"), "not be null"))?;
    let not_an_arn =
        |key: &str| invalid(&format!("Parameter {key} is not valid. Reason: Provided Arn is not in correct format."));
    if !target_arn.starts_with("arn:") {
        return Err(not_an_arn("Arn"));
    }
    if !is_cluster(target_arn) {
        return Ok(());
    }
    let Some(ecs) = target.get("EcsParameters") else {
        return Err(invalid(&format!("Parameter(s) EcsParameters must be specified for target: {id}.")));
    };
    if !parameters::text(ecs, "TaskDefinitionArn")?.is_some_and(|definition| definition.starts_with("arn:")) {
        return Err(not_an_arn("TaskDefinitionArn"));
    }
    match parameters::text(target, "RoleArn")? {
        Some(_) => Ok(()),
        None => Err(invalid(&format!("RoleArn is required for target {target_arn}."))),
    }
}

fn check_changeable(name: &str, rule: &Rule) -> Result<(), Failure> {
    match &rule.managed_by {
        None => Ok(()),
        Some(_) => Err(Failure::new("ManagedRuleException", format!("{name} is a managed rule."))),
    }
}

/// The name of a rule or a bus that must be there.
fn required<'a>(body: &'a Value, key: &str) -> Result<&'a str, Failure> {
    let parameter = key.to_lowercase();
    let name = parameters::text(body, key)?.ok_or_else(|| unsatisfied("null", &parameter, "not be null"))?;
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c)) {
        return Err(unsatisfied(name, &parameter, "satisfy regular expression pattern: [\\.\\-_A-Za-z0-9]+"));
    }
    Ok(name)
}

fn unsatisfied(value: &str, parameter: &str, constraint: &str) -> Failure {
    invalid(&format!(
        "1 validation error detected: Value '{value}' at '{parameter}' failed to satisfy constraint: Member must {constraint}"
    ))
}

fn invalid(message: &str) -> Failure {
    Failure::new("ValidationException", message)
}
