//! Whole deploys against answers of AWS in which fields are missing or odd: no panic, no unbounded work.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_smithy_runtime_api::{
    client::{
        http::{HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn},
        orchestrator::{HttpRequest, HttpResponse},
    },
    http::StatusCode,
};
use aws_smithy_types::body::SdkBody;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::{Clients, NotBegun, Order, deploy};
use crate::{
    aws::Aws,
    config::{ScheduledTask, Service, UpdateStrategy},
    ecr::Ecr,
    ecs::Ecs,
    eventbridge::EventBridge,
    git_sha::GitSha,
    ping::Ping,
    report,
    signals::Cancel,
};

/// How long a deploy is watched, in the tests' own time. An odd bake time can have it wait for days.
const WATCHED: Duration = Duration::from_secs(20);
/// How many requests a deploy may make in each second, and how many more in its first.
const MOST_REQUESTS: (usize, usize) = (8, 60);

/// An AWS with one answer for each operation. Only what it shows of the service changes, with each write that moves it.
#[derive(Clone, Debug, Default)]
struct Canned(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    answers: Value,
    requests: usize,
    /// How often the service was moved, by an update or by stopping its deployment.
    moves: usize,
    /// How often the rule's targets were put.
    puts: usize,
}

impl State {
    /// The service as it is after so many moves; the answers hold it as it is at first, updated, and back again.
    fn service(&self) -> &Value {
        &self.answers[["service", "updated", "back"][self.moves.min(2)]]
    }

    fn answer(&mut self, operation: &str) -> Value {
        self.requests += 1;
        self.moves += usize::from(["UpdateService", "StopServiceDeployment"].contains(&operation));
        self.puts += usize::from(operation == "PutTargets");
        match operation {
            "ListTargetsByRule" => {
                let targets = &self.answers[["targets", "put", "targets"][self.puts.min(2)]];
                json!({"Targets": targets, "NextToken": self.answers["NextToken"]})
            }
            "DescribeServices" => json!({"services": [self.service()], "failures": self.answers["failures"]}),
            "UpdateService" => json!({"service": self.service()}),
            _ => self.answers[operation].clone(),
        }
    }
}

impl HttpConnector for Canned {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let body = self.state().answer(target.rsplit('.').next().unwrap_or_default()).to_string();
        let status = StatusCode::try_from(200).expect("200 is a status");
        HttpConnectorFuture::ready(Ok(HttpResponse::new(status, SdkBody::from(body))))
    }
}

impl Canned {
    fn http_client(&self) -> SharedHttpClient {
        let connector = SharedHttpConnector::new(self.clone());
        http_client_fn(move |_, _| connector.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn deployment(id: u32, status: &str, rollout: &str) -> Value {
    json!({
        "id": format!("ecs-svc/{id}"), "status": status, "desiredCount": 2, "pendingCount": 0, "runningCount": 2,
        "taskDefinition": format!("arn:aws:ecs:us-east-1:123456789012:task-definition/api:{id}"),
        "failedTasks": 0, "createdAt": 1_700_000_000 + id, "rolloutState": rollout, "rolloutStateReason": "reason",
    })
}

fn service(deployments: &Value) -> Value {
    json!({
        "serviceName": "api", "status": "ACTIVE", "desiredCount": 2, "deployments": deployments,
        "deploymentController": {"type": "ECS"}, "schedulingStrategy": "REPLICA",
        "loadBalancers": [{"targetGroupArn": "arn", "containerName": "api", "containerPort": 80}],
        "currentServiceDeployment": "arn:aws:ecs:us-east-1:123456789012:service-deployment/staging/api/1",
        "deploymentConfiguration": {
            "minimumHealthyPercent": 100, "strategy": "CANARY", "bakeTimeInMinutes": 0,
            "alarms": {"alarmNames": [], "enable": false, "rollback": false},
            "canaryConfiguration": {"canaryPercent": 5.0, "canaryBakeTimeInMinutes": 0},
            "linearConfiguration": {"stepPercent": 10.0, "stepBakeTimeInMinutes": 1},
        },
        "events": [{"id": "1", "createdAt": 1_700_000_009, "message": "(service api) was unable to place a task"}],
    })
}

fn targets(revision: u32) -> Value {
    let arn = format!("arn:aws:ecs:us-east-1:123456789012:task-definition/api:{revision}");
    json!([
        {"Id": "api", "Arn": "arn:cluster", "RoleArn": "arn:role", "EcsParameters": {"TaskDefinitionArn": arn, "TaskCount": 1}},
        {"Id": "queue", "Arn": "arn:queue"},
    ])
}

/// Answers as ECS, ECR and EventBridge give them in the middle of a deploy.
fn usual() -> Value {
    let arn = |id: u32| format!("arn:aws:ecs:us-east-1:123456789012:task-definition/api:{id}");
    let running = json!([deployment(1, "PRIMARY", "IN_PROGRESS"), deployment(0, "ACTIVE", "IN_PROGRESS")]);
    let updated = json!([deployment(2, "PRIMARY", "IN_PROGRESS"), deployment(1, "ACTIVE", "COMPLETED")]);
    let mut back = json!([deployment(3, "PRIMARY", "COMPLETED"), deployment(2, "ACTIVE", "FAILED")]);
    back[0]["taskDefinition"] = json!(arn(1));
    json!({
        "service": service(&running), "updated": service(&updated), "back": service(&back), "failures": [],
        "DescribeTaskDefinition": {"taskDefinition": {
            "taskDefinitionArn": arn(1), "family": "api", "status": "ACTIVE", "containerDefinitions": [
                {"name": "api", "image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/api:0000001"},
            ],
        }, "tags": [{"key": "team", "value": "a"}]},
        "RegisterTaskDefinition": {"taskDefinition": {"taskDefinitionArn": arn(2), "status": "ACTIVE"}},
        "ListTasks": {"taskArns": ["arn/1", "arn/2"], "nextToken": null},
        "DescribeTasks": {"tasks": [{
            "taskArn": "arn/1", "taskDefinitionArn": arn(2), "startedBy": "ecs-svc/2", "lastStatus": "STOPPED",
            "desiredStatus": "STOPPED", "healthStatus": "UNHEALTHY", "stopCode": "EssentialContainerExited",
            "stoppedReason": "Essential container in task exited", "createdAt": 1_700_000_003, "startedAt": 1_700_000_004,
            "stoppingAt": 1_700_000_005, "stoppedAt": 1_700_000_006,
            "containers": [{"name": "api", "exitCode": 1, "reason": "OutOfMemoryError"}],
        }], "failures": []},
        "ListServiceDeployments": {"serviceDeployments": [{
            "status": "SUCCESSFUL", "createdAt": 1_700_000_000, "targetServiceRevisionArn": "arn/revision",
        }], "nextToken": null},
        "DescribeServiceRevisions": {"serviceRevisions": [{"taskDefinition": arn(1)}]},
        "DescribeServiceDeployments": {"serviceDeployments": [{
            "status": "IN_PROGRESS", "lifecycleStage": "BAKE_TIME", "statusReason": "reason",
            "rollback": {"reason": "reason", "serviceRevisionArn": "arn/revision"},
        }]},
        "StopServiceDeployment": {"serviceDeploymentArn": "arn"},
        "BatchGetImage": {"images": [{"imageId": {}}], "failures": [{"failureCode": "ImageNotFound", "failureReason": "reason"}]},
        "targets": targets(1), "put": targets(2), "NextToken": null,
        "PutTargets": {"FailedEntryCount": 0, "FailedEntries": [{"TargetId": "api", "ErrorCode": "InternalException"}]},
        "DescribePullThroughCacheRules": {"pullThroughCacheRules": [{"ecrRepositoryPrefix": "api"}], "nextToken": null},
    })
}

/// The places of all values below `value`, as JSON pointers.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    let below: Vec<(String, &Value)> = match value {
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), value)).collect(),
        Value::Array(list) => list.iter().enumerate().map(|(index, value)| (index.to_string(), value)).collect(),
        _ => Vec::new(),
    };
    for (key, value) in below {
        let place = format!("{at}/{key}");
        places(value, &place, found);
        found.push(place);
    }
}

/// A value that ECS should never send in the place of another.
fn odd() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        prop_oneof![Just(0), Just(-1), Just(1), Just(i64::from(i32::MAX)), Just(i64::MAX), Just(i64::MIN)]
            .prop_map(Value::from),
        prop_oneof![Just(0.5), Just(-1e300), Just(1e300)].prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        prop_oneof![
            Just(""),
            Just("PRIMARY"),
            Just("ACTIVE"),
            Just("COMPLETED"),
            Just("FAILED"),
            Just("STOPPED"),
            Just("ROLLBACK_SUCCESSFUL"),
            Just("DAEMON"),
            Just("BLUE_GREEN"),
            Just("LINEAR"),
            Just("TaskFailedToStart"),
            Just("ecs-svc/1"),
            Just("ecs-svc/2"),
            Just("CannotPullContainerError: not found"),
            Just("next"),
            Just("\u{1b}[2J\r\n\u{202e}"),
        ]
        .prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        Just(json!([null, {}, [], "x", 1])),
    ]
}

/// Puts `value` at `place`, or takes away what is there.
fn change(answers: &mut Value, place: &str, value: Option<Value>) {
    let Some((above, key)) = place.rsplit_once('/') else { return };
    match (answers.pointer_mut(above), value) {
        (Some(Value::Object(map)), Some(value)) => {
            map.insert(key.to_owned(), value);
        }
        (Some(Value::Object(map)), None) => {
            map.remove(key);
        }
        (Some(Value::Array(list)), value) => {
            if let Some(item) = key.parse().ok().and_then(|index: usize| list.get_mut(index)) {
                *item = value.unwrap_or_default();
            }
        }
        _ => {}
    }
}

/// What a canned AWS is asked through; made once, because making clients takes longer than a deploy.
struct Bench {
    runtime: tokio::runtime::Runtime,
    canned: Canned,
    clients: Clients<'static>,
    services: Vec<Service>,
    scheduled_tasks: Vec<ScheduledTask>,
}

impl Bench {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        let runtime = runtime.expect("a runtime can be built");
        let canned = Canned::default();
        let aws: &'static Aws = Box::leak(Box::new(runtime.block_on(Aws::canned(canned.http_client()))));
        let cluster = "arn:aws:ecs:us-east-1:123456789012:cluster/staging".parse().expect("an ARN");
        let services = vec![Service {
            name: "api".into(),
            cluster,
            url: None,
            timeout: Duration::from_millis(1500),
            header: reqwest::header::SERVER,
            update_strategy: UpdateStrategy::Current,
            containers: None,
        }];
        let scheduled_tasks = vec![ScheduledTask {
            rule: "nightly".into(),
            event_bus: None,
            region: Some("us-east-1".into()),
            update_strategy: UpdateStrategy::Latest,
            containers: None,
        }];
        let events = EventBridge::connect(aws, &scheduled_tasks);
        let ecs = Ecs::connect(aws, &services, events.regions()).expect("the region is known");
        let _inside = runtime.enter();
        let clients = Clients::new(ecs, events, Ecr::new(aws), Ping::new().expect("TLS roots"));
        Self { runtime, canned, clients, services, scheduled_tasks }
    }

    /// Deploys while AWS gives these answers, with the service or the scheduled task alone. Gives how many requests
    /// that took and how long, in the tests' own time.
    fn deploy(&self, answers: Value, has_service: bool) -> (usize, Duration) {
        *self.canned.state() = State { answers, ..State::default() };
        let took = self.runtime.block_on(async {
            let since = Instant::now();
            let version: GitSha = "abcdef1".parse().expect("a Git SHA");
            let credentials_end = async { None };
            let cancel = Cancel::default();
            let services = if has_service { &*self.services } else { &[] };
            let order = Order { services, scheduled_tasks: &self.scheduled_tasks, version: &version, parallel: 1 };
            let run = deploy(&self.clients, &order, &cancel, credentials_end);
            match timeout(WATCHED, run).await {
                Err(_) => {}
                Ok(Ok(ended)) => assert!(report::conclusions(&ended).iter().all(|said| !said.is_empty())),
                Ok(Err(NotBegun::Problems(problems))) => {
                    assert!(!problems.is_empty(), "a run that doesn't begin says why");
                }
                Ok(Err(NotBegun::Cancelled(_))) => panic!("nobody cancelled"),
            }
            since.elapsed()
        });
        (self.canned.state().requests, took)
    }
}

thread_local!(static BENCH: Bench = Bench::new());

proptest! {
    // Each case is a whole deploy.
    #![proptest_config(ProptestConfig::with_cases((ProptestConfig::default().cases / 100).max(32)))]

    #[test]
    fn no_answer_makes_a_deploy_panic_or_go_on_for_ever(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), proptest::option::weighted(0.7, odd())), 1..6),
        has_service in proptest::bool::weighted(0.7),
    ) {
        let mut answers = usual();
        for (place, value) in changes {
            let mut found = Vec::new();
            places(&answers, "", &mut found);
            if !found.is_empty() {
                change(&mut answers, place.get::<String>(&found), value);
            }
        }
        let shown = answers.to_string();
        let (requests, took) = BENCH.with(|bench| bench.deploy(answers, has_service));
        let (a_second, at_first) = MOST_REQUESTS;
        let seconds = usize::try_from(took.as_secs()).expect("a run is watched for seconds");
        prop_assert!(requests <= at_first + a_second * seconds, "{requests} requests in {took:?} for {shown}");
    }
}

#[test]
fn the_usual_answers_make_a_deploy_that_begins() {
    let (requests, _) = BENCH.with(|bench| bench.deploy(usual(), true));
    assert!(requests > 14, "{requests}");
    let (requests, _) = BENCH.with(|bench| bench.deploy(usual(), false));
    assert!(requests > 7, "{requests}");
}
