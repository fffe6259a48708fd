//! Faults that tests put between a client and the service.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{
    model::{arn, failure::Failure},
    operations::{self, events},
    state::Incoming,
};

/// What a fault does to a request.
#[derive(Clone, Debug)]
enum Effect {
    Throttled,
    ServerError,
    Denied,
    ResetBefore,
    ResetAfter,
    None,
    Refused(Failure),
    Answers(Value),
    FailsEntries(Option<String>, Failure),
}

/// How often a fault acts.
#[derive(Clone, Copy, Debug)]
enum Extent {
    Times(u32),
    Always,
    For(Duration),
}

/// Something that goes wrong with requests; it acts once unless told otherwise, and throttles unless told otherwise.
#[derive(Clone, Debug)]
pub struct Fault {
    operation: Option<String>,
    region: Option<String>,
    service: Option<String>,
    effect: Effect,
    delay: Duration,
    extent: Extent,
    skip: u32,
    since: Option<Instant>,
}

/// What is to be done with a request.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    Answer(Failure),
    DropBefore,
    DropAfter,
    Pass,
    AnswerInstead(Value),
    FailEntries { id: Option<String>, failure: Failure },
}

impl Fault {
    /// A fault of one operation.
    #[must_use]
    pub fn on(operation: &str) -> Self {
        Self { operation: Some(operation.to_owned()), ..Self::on_any() }
    }

    /// A fault of every operation.
    #[must_use]
    pub fn on_any() -> Self {
        Self {
            operation: None,
            region: None,
            service: None,
            effect: Effect::Throttled,
            delay: Duration::ZERO,
            extent: Extent::Times(1),
            skip: 0,
            since: None,
        }
    }

    /// `ThrottlingException`: rate exceeded.
    #[must_use]
    pub fn throttled(self) -> Self {
        Self { effect: Effect::Throttled, ..self }
    }

    /// `ServerException` with HTTP status 500.
    #[must_use]
    pub fn server_error(self) -> Self {
        Self { effect: Effect::ServerError, ..self }
    }

    /// `AccessDeniedException`, naming the action.
    #[must_use]
    pub fn denied(self) -> Self {
        Self { effect: Effect::Denied, ..self }
    }

    /// The exception of this name and message.
    #[must_use]
    pub fn refused(self, kind: &str, message: &str) -> Self {
        Self { effect: Effect::Refused(Failure::new(kind, message)), ..self }
    }

    /// The connection is reset before anything happens.
    #[must_use]
    pub fn reset_before(self) -> Self {
        Self { effect: Effect::ResetBefore, ..self }
    }

    /// The request takes effect, then the connection is reset without an answer.
    #[must_use]
    pub fn reset_after(self) -> Self {
        Self { effect: Effect::ResetAfter, ..self }
    }

    /// The request is held back for so long, then carried out, or whatever else is told after this.
    #[must_use]
    pub fn slow(self, delay: Duration) -> Self {
        Self { effect: Effect::None, delay, ..self }
    }

    /// The request is carried out, but answered with this and status 200, whatever came of it.
    #[must_use]
    pub fn answers(self, answer: Value) -> Self {
        Self { effect: Effect::Answers(answer), ..self }
    }

    /// The targets of a `PutTargets` fail for this reason, in an answer with status 200.
    #[must_use]
    pub fn fails_entries(self, kind: &str, message: &str) -> Self {
        Self { effect: Effect::FailsEntries(None, Failure::new(kind, message)), ..self }
    }

    /// The same, for the target with this id only; the others are put.
    #[must_use]
    pub fn fails_entry(self, id: &str, kind: &str, message: &str) -> Self {
        Self { effect: Effect::FailsEntries(Some(id.to_owned()), Failure::new(kind, message)), ..self }
    }

    /// It acts so many times.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self { extent: Extent::Times(times), ..self }
    }

    /// It acts on every request.
    #[must_use]
    pub fn always(self) -> Self {
        Self { extent: Extent::Always, ..self }
    }

    /// It acts on every request for so long, from the moment it is set (after `after`: from the first it acts on).
    #[must_use]
    pub fn for_the_next(self, time: Duration) -> Self {
        Self { extent: Extent::For(time), ..self }
    }

    /// It lets the first requests pass.
    #[must_use]
    pub fn after(self, requests: u32) -> Self {
        Self { skip: requests, ..self }
    }

    /// It acts in one region only.
    #[must_use]
    pub fn in_region(self, region: &str) -> Self {
        Self { region: Some(region.to_owned()), ..self }
    }

    /// It acts only on requests about one service (or family, or rule, or image repository by the last part of its
    /// name), also when they only name its service deployments or revisions.
    #[must_use]
    pub fn about(self, service: &str) -> Self {
        Self { service: Some(service.to_owned()), ..self }
    }

    /// Whether it was set for this operation alone.
    pub(crate) fn is_on(&self, operation: &str) -> bool {
        self.operation.as_deref() == Some(operation)
    }

    /// Notes when it was set.
    pub(crate) fn set(mut self, now: Instant) -> Self {
        if self.skip == 0 {
            self.since = Some(now);
        }
        self
    }

    /// Takes notice of a request, and says for how long to hold it back and what is to be done with it then.
    pub(crate) fn strike(&mut self, incoming: &Incoming, now: Instant) -> Option<(Duration, Verdict)> {
        let Incoming { region, operation, body, .. } = incoming;
        let is = |wanted: &Option<String>, given: &str| wanted.as_deref().is_none_or(|wanted| wanted == given);
        if !is(&self.operation, operation) || !is(&self.region, region) || !self.concerns(body) {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        let since = *self.since.get_or_insert(now);
        match &mut self.extent {
            Extent::Times(0) => return None,
            Extent::Times(left) => *left -= 1,
            Extent::For(time) if now >= since + *time => return None,
            Extent::For(_) | Extent::Always => {}
        }
        Some((self.delay, self.verdict(incoming)))
    }

    fn concerns(&self, body: &Value) -> bool {
        let Some(service) = &self.service else {
            return true;
        };
        let single =
            ["service", "serviceName", "family", "repositoryName", "Rule"].iter().filter_map(|key| body.get(key));
        let several = body.get("services").and_then(Value::as_array).into_iter().flatten();
        single.chain(several).filter_map(Value::as_str).any(|given| arn::name(given) == service)
            || parts(body).any(|part| arn::owner(part).is_some_and(|(_, owner)| owner == service))
    }

    fn verdict(&self, incoming: &Incoming) -> Verdict {
        let Incoming { region, operation, body, identity, .. } = incoming;
        match &self.effect {
            Effect::Throttled => Verdict::Answer(Failure::new("ThrottlingException", "Rate exceeded")),
            Effect::ServerError => {
                Verdict::Answer(Failure::new("ServerException", "Service Unavailable. Please try again later."))
            }
            Effect::Refused(failure) => Verdict::Answer(failure.clone()),
            Effect::ResetBefore => Verdict::DropBefore,
            Effect::ResetAfter => Verdict::DropAfter,
            Effect::None => Verdict::Pass,
            Effect::FailsEntries(id, failure) => Verdict::FailEntries { id: id.clone(), failure: failure.clone() },
            Effect::Answers(answer) => Verdict::AnswerInstead(answer.clone()),
            Effect::Denied => {
                let named = |key: &str| body.get(key).and_then(Value::as_str);
                let rule = named("Rule").zip(events::bus(body).ok());
                let rule = rule.map(|(rule, bus)| events::rule_arn(region, bus, rule));
                let resource = match (named("service").or_else(|| parts(body).next()), named("repositoryName")) {
                    (Some(arn), _) if arn.starts_with("arn:") => arn.to_owned(),
                    (Some(service), _) => {
                        let cluster = arn::name(named("cluster").unwrap_or("default"));
                        arn::ecs(region, &format!("service/{cluster}/{}", arn::name(service)))
                    }
                    (None, Some(repository)) => {
                        arn::ecr(region, named("registryId").unwrap_or(arn::ACCOUNT), repository)
                    }
                    (None, None) => rule.unwrap_or_else(|| "*".to_owned()),
                };
                let action = format!("{}:{operation}", operations::service_name(operation));
                Verdict::Answer(Failure::new(
                    "AccessDeniedException",
                    format!(
                        "User: {identity} is not authorized to perform: {action} on resource: {resource} because no identity-based policy allows the {action} action"
                    ),
                ))
            }
        }
    }
}

/// The service deployments and revisions that a request names by ARN.
fn parts(body: &Value) -> impl Iterator<Item = &str> {
    let several = ["serviceDeploymentArns", "serviceRevisionArns"].into_iter();
    let several = several.filter_map(|key| body.get(key)).filter_map(Value::as_array).flatten();
    body.get("serviceDeploymentArn").into_iter().chain(several).filter_map(Value::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(region: &str, operation: &str, body: Value) -> Incoming {
        Incoming::local(region, operation, body)
    }

    #[test]
    fn strikes_as_often_as_told_after_what_it_lets_pass() {
        let now = Instant::now();
        let mut fault = Fault::on("UpdateService").times(2).after(1).in_region("us-east-1").set(now);
        let struck: Vec<bool> =
            (0..5).map(|_| fault.strike(&request("us-east-1", "UpdateService", json!({})), now).is_some()).collect();
        assert_eq!(struck, [false, true, true, false, false]);
        assert!(fault.strike(&request("eu-west-1", "UpdateService", json!({})), now).is_none());
    }

    #[test]
    fn a_request_may_be_late_and_then_go_wrong() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        for (fault, verdict) in [
            (Fault::on_any().slow(second), "Pass"),
            (Fault::on_any().slow(second).reset_after(), "DropAfter"),
            (Fault::on_any().reset_after().slow(second), "Pass"),
        ] {
            let struck =
                fault.set(now).strike(&request("r", "ListTasks", json!({})), now).expect("it fits any request");
            assert_eq!((struck.0, format!("{:?}", struck.1).as_str()), (second, verdict));
        }
    }

    #[test]
    fn ends_when_its_time_is_over() {
        let now = Instant::now();
        let mut fault = Fault::on_any().for_the_next(Duration::from_secs(1)).set(now);
        assert!(fault.strike(&request("r", "ListTasks", json!({})), now).is_some());
        assert!(fault.strike(&request("r", "ListTasks", json!({})), now + Duration::from_secs(2)).is_none());
    }

    #[test]
    fn may_concern_one_service() {
        let now = Instant::now();
        let mut fault = Fault::on_any().about("api").always().set(now);
        assert!(fault.strike(&request("r", "DescribeServices", json!({"services": ["web", "api"]})), now).is_some());
        assert!(fault.strike(&request("r", "UpdateService", json!({"service": "web"})), now).is_none());
        let part = |kind: &str, service: &str| format!("arn:aws:ecs:r:1:{kind}/staging/{service}/x");
        for (body, is_struck) in [
            (json!({"serviceDeploymentArns": [part("service-deployment", "api")]}), true),
            (json!({"serviceDeploymentArn": part("service-deployment", "api")}), true),
            (json!({"serviceRevisionArns": [part("service-revision", "web"), part("service-revision", "api")]}), true),
            (json!({"serviceRevisionArns": [part("service-revision", "web")]}), false),
            (json!({"repositoryName": "team/api"}), true),
            (json!({"Rule": "api"}), true),
            (json!({"Rule": "nightly"}), false),
        ] {
            assert_eq!(fault.strike(&request("r", "Any", body.clone()), now).is_some(), is_struck, "{body}");
        }
    }
}
