//! What ECS really does, step by step, with time driven by hand.

mod api;
mod blue_green;
mod events;
mod failures;
mod registry;
mod rollouts;
mod service_deployments;
mod sts;
mod tasks;

use std::time::Duration;

use serde_json::{Value, json};

use super::{account::Account, failure::Failure};
use crate::{
    behaviour::Behaviour,
    builder::{ServiceBuilder, image},
    operations,
    settings::Settings,
};

/// An account whose time stands still until told.
struct Lab(Account);

impl Lab {
    fn with(service: ServiceBuilder) -> Self {
        let settings = Settings { stagger: Duration::ZERO, ..Settings::fast() };
        let mut account = Account::new(settings, 1_767_225_600.0);
        service.build(&mut account).expect("the service of the test should be valid");
        Self(account)
    }

    fn version(&mut self, tag: &str, behaviour: Behaviour) {
        self.0.versions.insert(tag.to_owned(), behaviour);
    }

    fn pass(&mut self, milliseconds: u64) {
        let now = self.0.now + Duration::from_millis(milliseconds);
        self.0.advance(now);
    }

    fn try_to(&mut self, operation: &str, body: &Value) -> Result<Value, Failure> {
        let now = self.0.now;
        self.0.advance(now);
        operations::dispatch(&mut self.0, "us-east-1", operation, body)
    }

    fn ask(&mut self, operation: &str, body: &Value) -> Value {
        self.try_to(operation, body).expect("the request of the test should be valid")
    }

    fn refusal(&mut self, operation: &str, body: &Value) -> String {
        self.try_to(operation, body).expect_err("the request of the test should be refused").to_string()
    }

    /// Registers a version of `api` by hand and deploys it; gives the id of the new deployment.
    fn deploy(&mut self, tag: &str) -> String {
        let container = json!({
            "name": "api", "image": image("api", tag), "portMappings": [{"containerPort": 8080}],
            "healthCheck": {"command": ["CMD", "true"]},
        });
        let input = json!({"family": "api", "memory": "512", "containerDefinitions": [container]});
        self.ask("RegisterTaskDefinition", &input);
        let updated = self.update(&json!({"taskDefinition": "api"}));
        text(&updated["deployments"][0]["id"])
    }

    fn update(&mut self, change: &Value) -> Value {
        let mut body = json!({"cluster": "staging", "service": "api"});
        for (key, value) in change.as_object().into_iter().flatten() {
            body[key] = value.clone();
        }
        self.ask("UpdateService", &body)["service"].take()
    }

    fn service(&mut self) -> Value {
        self.ask("DescribeServices", &json!({"cluster": "staging", "services": ["api"]}))["services"][0].take()
    }

    /// Each deployment in short: status, rollout, running of desired, pending.
    fn deployments(&mut self) -> Vec<String> {
        let service = self.service();
        let deployments = service["deployments"].as_array().cloned().unwrap_or_default();
        let short = |deployment: &Value| {
            let revision = text(&deployment["taskDefinition"]);
            format!(
                "{} :{} {} {}/{} +{}",
                text(&deployment["status"]),
                revision.rsplit(':').next().unwrap_or_default(),
                deployment["rolloutState"].as_str().unwrap_or("-"),
                deployment["runningCount"],
                deployment["desiredCount"],
                deployment["pendingCount"],
            )
        };
        deployments.iter().map(short).collect()
    }

    /// The tasks with this desired status.
    fn tasks(&mut self, desired: &str) -> Vec<Value> {
        let listed =
            self.ask("ListTasks", &json!({"cluster": "staging", "serviceName": "api", "desiredStatus": desired}));
        let arns = listed["taskArns"].clone();
        if arns == json!([]) {
            return Vec::new();
        }
        let described = self.ask("DescribeTasks", &json!({"cluster": "staging", "tasks": arns}));
        described["tasks"].as_array().cloned().unwrap_or_default()
    }

    fn events(&mut self) -> String {
        let service = self.service();
        let events = service["events"].as_array().cloned().unwrap_or_default();
        events.iter().map(|event| text(&event["message"])).collect::<Vec<_>>().join("\n")
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
