//! The local ECS over a real socket.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::TcpStream,
    time::Duration,
};

use local_ecs::{
    Answer, Behaviour, Fault, Limits, LocalEcs, Settings, StopCode, What, ecr_image, image, rule, service,
};
use serde_json::{Value, json};

/// Sends one request and reads all that comes back; a broken connection gives nothing.
fn send(ecs: &LocalEcs, head: &str, body: &str) -> String {
    try_to_send(ecs, head, body).unwrap_or_default()
}

fn try_to_send(ecs: &LocalEcs, head: &str, body: &str) -> io::Result<String> {
    let address = ecs.endpoint().replace("http://", "");
    let mut stream = TcpStream::connect(address).expect("the server should listen");
    let length = body.len();
    let request = format!("{head} HTTP/1.1\r\nHost: local\r\nConnection: close\r\nContent-Length: {length}\r\n");
    let signature = "Authorization: AWS4-HMAC-SHA256 Credential=AKID/20260101/eu-west-1/ecs/aws4_request, Signature=x";
    let operation = head.split('#').nth(1).unwrap_or_default();
    let api = match operation {
        "BatchGetImage" | "DescribePullThroughCacheRules" => "AmazonEC2ContainerRegistry_V20150921",
        "ListTargetsByRule" | "PutTargets" => "AWSEvents",
        _ => "AmazonEC2ContainerServiceV20141113",
    };
    let target = format!("Content-Type: application/x-amz-json-1.1\r\nX-Amz-Target: {api}.");
    let request = request.replace(&format!("#{operation}"), "");
    let request = format!("{request}{signature}\r\n{target}{operation}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).expect("the server should take a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map(|_| answer)
}

fn ask(ecs: &LocalEcs, operation: &str, body: &Value) -> String {
    send(ecs, &format!("POST /#{operation}"), &body.to_string())
}

fn get(ecs: &LocalEcs, service: &str) -> String {
    let url = ecs.url(service).replace(&ecs.endpoint(), "");
    send(ecs, &format!("GET {url}"), "")
}

#[test]
fn answers_in_the_region_of_the_signature() {
    let ecs = LocalEcs::start(Settings::fast());
    ecs.create(service("api").region("eu-west-1"));
    let answer = ask(&ecs, "ListServices", &json!({"cluster": "staging"}));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("x-amzn-requestid: "), "{answer}");
    assert!(answer.contains("arn:aws:ecs:eu-west-1:123456789012:service/staging/api"), "{answer}");
    assert_eq!(ecs.requests()[0].region, "eu-west-1");
    assert_eq!(ecs.requests()[0].caller, "AKID");
}

#[test]
fn errors_carry_their_type() {
    let ecs = LocalEcs::start(Settings::fast());
    let answer = ask(&ecs, "ListServices", &json!({"cluster": "none"}));
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.ends_with(r#"{"__type":"ClusterNotFoundException","message":"Cluster not found."}"#), "{answer}");
    ecs.fault(Fault::on("ListServices").server_error());
    assert!(ask(&ecs, "ListServices", &json!({})).starts_with("HTTP/1.1 500"));
}

#[test]
fn a_request_may_take_effect_without_an_answer_or_not_at_all() {
    let ecs = LocalEcs::start(Settings::fast());
    ecs.fault(Fault::on("CreateCluster").reset_after());
    assert_eq!(ask(&ecs, "CreateCluster", &json!({"clusterName": "a"})), "");
    ecs.fault(Fault::on("CreateCluster").reset_before());
    assert_eq!(ask(&ecs, "CreateCluster", &json!({"clusterName": "b"})), "");
    assert_eq!(ecs.writes(), ["CreateCluster a"]);
    assert!(ecs.requests().iter().all(|request| request.answer == Answer::Dropped));
}

#[test]
fn a_dropped_connection_is_reset_and_an_answered_one_closed_in_order() {
    let ecs = LocalEcs::start(Settings::fast());
    let list = || try_to_send(&ecs, "POST /#ListClusters", "{}");
    ecs.fault(Fault::on("ListClusters").reset_before());
    ecs.fault(Fault::on("ListClusters").reset_after());
    for _ in 0..2 {
        assert_eq!(list().map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
    }
    assert!(list().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")));
}

#[test]
fn a_rollout_by_the_clock_takes_about_a_second_and_leaves_its_truth() {
    let ecs = LocalEcs::start(Settings::fast());
    ecs.create(service("api").running("old").region("eu-west-1"));
    assert!(get(&ecs, "api").contains("server: api-old"));
    let container = json!({"name": "api", "image": image("api", "new"), "memory": 64});
    ask(&ecs, "RegisterTaskDefinition", &json!({"family": "api", "containerDefinitions": [container]}));
    ask(&ecs, "UpdateService", &json!({"cluster": "staging", "service": "api", "taskDefinition": "api:2"}));
    assert!(ecs.wait_until(Duration::from_mins(1), |view| view.rollout_of("api") == "COMPLETED"));
    assert_eq!(ecs.runs("api"), "new");
    assert_eq!(ecs.task_definition_of("api"), "api:2");
    assert!(get(&ecs, "api").contains("server: api-new"));
    assert_eq!(ecs.lb_requests("api"), 2);
    assert_eq!(ecs.writes(), ["RegisterTaskDefinition api", "UpdateService api -> api:2"]);
    let moments = ecs.moments("api");
    let what: Vec<What> = moments.iter().map(|moment| moment.what).collect();
    let wanted = [What::UpdateRequested, What::Proven, What::AllServing, What::OldUnreachable, What::Completed];
    assert!(wanted.iter().all(|wanted| what.contains(wanted)), "{what:?}");
    let took = moments[moments.len() - 1].at - moments[0].at;
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn versions_answer_as_told() {
    let ecs = LocalEcs::start(Settings::fast());
    ecs.create(service("api").running("v"));
    ecs.version(
        "v",
        Behaviour::Answers {
            status: 500,
            headers: vec![("Server".to_owned(), "other-1".to_owned())],
            body: "oops".to_owned(),
        },
    );
    let answer = get(&ecs, "api");
    assert!(answer.starts_with("HTTP/1.1 500") && answer.contains("other-1") && answer.ends_with("oops"), "{answer}");
    ecs.version("v", Behaviour::Redirects);
    assert!(get(&ecs, "api").contains("location: /lb/us-east-1/staging/api/landed"));
    let _ = ecs.call("us-east-1", "UpdateService", json!({"cluster": "staging", "service": "api", "desiredCount": 0}));
    assert!(ecs.wait_until(Duration::from_mins(1), |view| view.runs("api").is_empty()));
    let answer = get(&ecs, "api");
    assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with("no healthy targets"), "{answer}");
}

#[test]
fn what_happens_to_tasks_from_outside_is_seen_and_mended() {
    let ecs = LocalEcs::start(Settings::fast());
    ecs.create(service("api").running("v"));
    ecs.interrupt_tasks("api", StopCode::SpotInterruption);
    ecs.view(|view| {
        assert_eq!(view.running_count("api"), 0);
        let tasks = view.tasks("api");
        assert_eq!(tasks.iter().filter(|task| task["stopCode"] == "SpotInterruption").count(), 2);
    });
    assert!(ecs.wait_until(Duration::from_mins(1), |view| view.is_steady("api")));
    assert_eq!(ecs.view(|view| view.running_count("api")), 2);
}

#[test]
fn limits_and_missing_permissions_are_exceptions() {
    let ecs = LocalEcs::start(Settings { limits: Some(Limits { used_by_others: 0.99 }), ..Settings::fast() });
    assert!(ask(&ecs, "ListTasks", &json!({})).contains("ClusterNotFoundException"));
    assert!(ask(&ecs, "ListTasks", &json!({})).contains("ThrottlingException"));
    ecs.fault(Fault::on("UpdateService").denied().always());
    let answer = ask(&ecs, "UpdateService", &json!({"cluster": "staging", "service": "api"}));
    assert!(answer.contains("AccessDeniedException"), "{answer}");
    assert!(answer.contains("not authorized to perform: ecs:UpdateService on resource: arn:aws:ecs:eu-west-1:"));
}

#[test]
fn a_deregistered_task_definition_cannot_be_deployed_in_its_region() {
    let ecs = LocalEcs::start(Settings::fast());
    ecs.create(service("api"));
    ecs.deregister("api:1");
    let body = json!({"cluster": "staging", "service": "api", "taskDefinition": "api:1"});
    let refusal = ecs.call("us-east-1", "UpdateService", &body).expect_err("the revision is inactive");
    assert_eq!(refusal.to_string(), "ClientException: TaskDefinition is inactive");
    assert!(ecs.requests().is_empty() && ecs.writes().is_empty());
}

#[test]
fn the_registry_speaks_the_same_protocol() {
    let ecs = LocalEcs::start(Settings::fast());
    ecs.create(service("api").region("eu-west-1").in_ecr("eu-west-1", "team/api").running("old"));
    ecs.repository("210987654321", "eu-west-1", "base", &["1", "2"]);
    ecs.remove_image("210987654321", "eu-west-1", "base", "1");
    let ids = json!([{"imageTag": "1"}, {"imageTag": "2"}]);
    let body = json!({"registryId": "210987654321", "repositoryName": "base", "imageIds": ids});
    let answer = ask(&ecs, "BatchGetImage", &body);
    let digest = ecs.image_digest("210987654321", "eu-west-1", "base", "2").expect("the image is still there");
    assert!(answer.contains(&digest) && answer.contains("\"failureCode\":\"ImageNotFound\""), "{answer}");
    let own = json!({"repositoryName": "team/api", "imageIds": [{"imageTag": "old"}]});
    assert!(ask(&ecs, "BatchGetImage", &own).starts_with("HTTP/1.1 200"));
    let definition = ecs.call("eu-west-1", "DescribeTaskDefinition", json!({"taskDefinition": "api"}));
    let definition = definition.expect("the service has one");
    assert_eq!(
        definition["taskDefinition"]["containerDefinitions"][0]["image"],
        ecr_image("123456789012", "eu-west-1", "team/api", "old")
    );
    ecs.pull_through_cache("123456789012", "eu-west-1", "ROOT");
    assert!(ask(&ecs, "DescribePullThroughCacheRules", &json!({})).contains("\"ecrRepositoryPrefix\":\"ROOT\""));
    ask(&ecs, "ListServices", &json!({"cluster": "staging"}));
    let seen: Vec<String> =
        ecs.requests().iter().map(|request| format!("{}:{}", request.service_name, request.operation)).collect();
    assert_eq!(
        seen,
        ["ecr:BatchGetImage", "ecr:BatchGetImage", "ecr:DescribePullThroughCacheRules", "ecs:ListServices"]
    );
    assert!(ecs.writes().is_empty());
}

#[test]
fn faults_act_on_the_registry_too() {
    let ecs = LocalEcs::start(Settings::fast());
    ecs.repository("123456789012", "eu-west-1", "team/api", &["a"]);
    ecs.fault(Fault::on("BatchGetImage").about("api").denied());
    let body = json!({"repositoryName": "team/api", "imageIds": [{"imageTag": "a"}]});
    let answer = ask(&ecs, "BatchGetImage", &body);
    let denied = "not authorized to perform: ecr:BatchGetImage on resource: arn:aws:ecr:eu-west-1:123456789012:repository/team/api because no identity-based policy allows the ecr:BatchGetImage action";
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains(denied), "{answer}");
    assert!(ask(&ecs, "BatchGetImage", &body).starts_with("HTTP/1.1 200"));
}

#[test]
fn an_answer_may_be_odd_although_the_request_took_effect() {
    let ecs = LocalEcs::start(Settings::fast());
    ecs.fault(Fault::on("CreateCluster").answers(json!({"cluster": {}})));
    ecs.fault(Fault::on("ListServices").answers(json!([])));
    let answer = ask(&ecs, "CreateCluster", &json!({"clusterName": "a"}));
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("{\"cluster\":{}}"), "{answer}");
    let answer = ask(&ecs, "ListServices", &json!({"cluster": "none"}));
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("[]"), "{answer}");
    assert_eq!(ecs.writes(), ["CreateCluster a"]);
    assert!(ecs.requests().iter().all(|request| request.answer == Answer::Ok));
    assert!(ask(&ecs, "ListServices", &json!({"cluster": "a"})).contains("serviceArns"));
}

#[test]
fn interrupted_tasks_are_no_failures() {
    let codes = [
        StopCode::UserInitiated,
        StopCode::SpotInterruption,
        StopCode::TerminationNotice,
        StopCode::InfrastructureHealth,
    ];
    for code in codes {
        let ecs = LocalEcs::start(Settings::fast());
        ecs.create(service("api").running("v").circuit_breaker(true));
        let body = json!({"cluster": "staging", "service": "api", "forceNewDeployment": true});
        ecs.call("us-east-1", "UpdateService", body).expect("the service exists");
        for _ in 0..3 {
            let patience = Duration::from_mins(1);
            assert!(ecs.wait_until(patience, |view| view.described("api")["deployments"][0]["runningCount"] == 2));
            ecs.interrupt_tasks("api", code);
            ecs.view(|view| {
                assert_eq!(view.described("api")["deployments"][0]["failedTasks"], 0);
                let is_shown =
                    |task: &Value| task["stopCode"] == format!("{code:?}") && task["desiredStatus"] == "STOPPED";
                assert!(view.tasks("api").iter().any(is_shown), "{code:?}");
            });
        }
        assert!(ecs.wait_until(Duration::from_mins(1), |view| view.is_steady("api")));
        assert_eq!(ecs.view(|view| view.rollout_of("api")), "COMPLETED");
    }
}

#[test]
fn the_newest_running_tasks_can_be_made_to_crash() {
    let ecs = LocalEcs::start(Settings::fast());
    ecs.create(service("api").desired(3).running("v"));
    let newest: Vec<Value> =
        ecs.view(|view| view.tasks("api")[1..].iter().map(|task| task["taskArn"].clone()).collect());
    ecs.crash_tasks("api", 2, 139);
    let exited = |task: &&Value| task["stopCode"] == "EssentialContainerExited";
    assert!(ecs.wait_until(Duration::from_mins(1), |view| view.tasks("api").iter().filter(exited).count() == 2));
    ecs.view(|view| {
        let tasks = view.tasks("api");
        let gone: Vec<&Value> = tasks.iter().filter(exited).collect();
        assert_eq!(gone.iter().map(|task| task["taskArn"].clone()).collect::<Vec<_>>(), newest);
        assert!(gone.iter().all(|task| task["containers"][0]["exitCode"] == 139));
    });
    assert!(ecs.wait_until(Duration::from_mins(1), |view| view.is_steady("api")));
    assert_eq!(ecs.view(|view| view.running_count("api")), 3);
}

#[test]
fn a_request_that_is_held_back_is_carried_out_though_the_client_hangs_up() {
    let ecs = LocalEcs::start(Settings::fast());
    ecs.create(service("api").region("eu-west-1"));
    ecs.fault(Fault::on("UpdateService").slow(Duration::from_secs(2)));
    let body = json!({"cluster": "staging", "service": "api", "forceNewDeployment": true}).to_string();
    let address = ecs.endpoint().replace("http://", "");
    let mut stream = TcpStream::connect(address).expect("the server should listen");
    let head = format!(
        "POST / HTTP/1.1\r\nHost: local\r\nContent-Length: {}\r\nAuthorization: AWS4-HMAC-SHA256 \
         Credential=AKID/20260101/eu-west-1/ecs/aws4_request, Signature=x\r\n\
         X-Amz-Target: AmazonEC2ContainerServiceV20141113.UpdateService\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("the server should take a request");
    assert!(ecs.wait_until(Duration::from_mins(1), |view| view.arrived("UpdateService") == 1));
    drop(stream);
    assert_eq!(ecs.writes(), [] as [&str; 0]);
    assert!(ecs.wait_until(Duration::from_mins(1), |view| view.writes() == ["UpdateService api"]));
}

#[test]
fn rules_are_asked_for_in_the_same_protocol_and_faults_act_on_them() {
    let ecs = LocalEcs::start(Settings { limits: Some(Limits { used_by_others: 0.99 }), ..Settings::fast() });
    let queue = json!({"Id": "queue", "Arn": "arn:aws:sqs:eu-west-1:123456789012:jobs"});
    ecs.schedule(rule("nightly").region("eu-west-1").task("report", "v1").target(queue.clone()));
    let listed = ask(&ecs, "ListTargetsByRule", &json!({"Rule": "nightly"}));
    assert!(listed.starts_with("HTTP/1.1 200") && listed.contains("\"Id\":\"queue\""), "{listed}");
    let mut target = ecs.targets("nightly")[0].clone();
    target["EcsParameters"]["TaskDefinitionArn"] = json!("arn:aws:ecs:eu-west-1:123456789012:task-definition/report:2");
    let put = json!({"Rule": "nightly", "Targets": [target, queue]});

    ecs.fault(Fault::on("PutTargets").about("nightly").denied());
    let denied = "not authorized to perform: events:PutTargets on resource: arn:aws:events:eu-west-1:123456789012:rule/nightly because";
    assert!(ask(&ecs, "PutTargets", &put).contains(denied));
    let failed = |id: &str| {
        format!(r#"{{"TargetId":"{id}","ErrorCode":"ConcurrentModificationException","ErrorMessage":"Busy."}}"#)
    };
    ecs.fault(Fault::on("PutTargets").fails_entries("ConcurrentModificationException", "Busy."));
    let answer = ask(&ecs, "PutTargets", &put);
    let all = format!(r#"{{"FailedEntryCount":2,"FailedEntries":[{},{}]}}"#, failed("report"), failed("queue"));
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(&all), "{answer}");
    assert_eq!((ecs.writes(), ecs.schedules("nightly")), (vec![], vec!["report:1".to_owned()]));
    ecs.fault(Fault::on("PutTargets").fails_entry("queue", "ConcurrentModificationException", "Busy."));
    let answer = ask(&ecs, "PutTargets", &put);
    assert!(answer.contains(r#""FailedEntryCount":1"#) && answer.contains(&failed("queue")), "{answer}");
    assert_eq!(ecs.writes(), ["PutTargets nightly -> report:2"]);
    assert_eq!(ecs.schedules("eu-west-1/default/nightly"), ["report:2"]);

    let asked = |operation: &str| ecs.requests().into_iter().filter(|request| request.operation == operation).count();
    assert_eq!((asked("ListTargetsByRule"), asked("PutTargets")), (1, 3));
    let names: Vec<_> = ecs.requests().iter().map(|request| request.service_name).collect();
    assert_eq!(names, ["events"; 4]);
    let is_throttled = || ask(&ecs, "ListTargetsByRule", &json!({"Rule": "nightly"})).contains("ThrottlingException");
    assert!((0..10).any(|_| is_throttled()), "another token comes only after two seconds");
}

/// Posts a body, with the key and the token that sign it.
fn post(ecs: &LocalEcs, kind: &str, body: &str, (key, token): (&str, &str)) -> String {
    let address = ecs.endpoint().replace("http://", "");
    let mut stream = TcpStream::connect(address).expect("the server should listen");
    let request = format!(
        "POST / HTTP/1.1\r\nHost: local\r\nConnection: close\r\nContent-Length: {}\r\n{kind}\r\nAuthorization: \
         AWS4-HMAC-SHA256 Credential={key}/20260101/eu-west-1/any/aws4_request, Signature=x\r\n\
         X-Amz-Security-Token: {token}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).expect("the server should take a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map(|_| answer).unwrap_or_default()
}

const FORM: &str = "Content-Type: application/x-www-form-urlencoded";

/// The text of an element of an answer in XML.
fn element<'a>(answer: &'a str, name: &str) -> &'a str {
    let inner = answer.split_once(&format!("<{name}>")).and_then(|(_, rest)| rest.split("</").next());
    inner.unwrap_or_else(|| panic!("there is no {name} in {answer}"))
}

#[test]
fn a_role_is_assumed_in_the_query_protocol_and_its_session_ends() {
    let ecs = LocalEcs::start(Settings::fast());
    let user = ("AKID", "");
    let form = "Action=AssumeRole&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fdeployer&RoleSessionName=gehen-1";
    let answer = post(&ecs, FORM, form, user);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("content-type: text/xml"), "{answer}");
    let session = (element(&answer, "AccessKeyId"), element(&answer, "SessionToken"));
    let arn = "arn:aws:sts::123456789012:assumed-role/deployer/gehen-1";
    let who = "Action=GetCallerIdentity&Version=2011-06-15";
    assert_eq!(element(&post(&ecs, FORM, who, session), "Arn"), arn);
    assert_eq!(element(&post(&ecs, FORM, who, (session.0, "other")), "Code"), "InvalidClientTokenId");
    let list = "X-Amz-Target: AmazonEC2ContainerServiceV20141113.ListClusters";
    assert!(post(&ecs, list, "{}", session).starts_with("HTTP/1.1 200"));
    ecs.settings_mut(|settings| settings.longest_session = Some(Duration::ZERO));
    let answer = post(&ecs, FORM, form, user);
    let ended = (element(&answer, "AccessKeyId"), element(&answer, "SessionToken"));
    let answer = post(&ecs, list, "{}", ended);
    let expired =
        r#"{"__type":"ExpiredTokenException","message":"The security token included in the request is expired"}"#;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.ends_with(expired), "{answer}");
    let answer = post(&ecs, FORM, who, ended);
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("<Code>ExpiredToken</Code>"), "{answer}");

    ecs.refuse_role("arn:aws:iam::123456789012:role/deployer");
    let answer = post(&ecs, FORM, form, user);
    let denied = "User: arn:aws:iam::123456789012:user/local is not authorized to perform: sts:AssumeRole on resource: arn:aws:iam::123456789012:role/deployer";
    assert!(answer.starts_with("HTTP/1.1 403") && element(&answer, "Message") == denied, "{answer}");
    assert_eq!(element(&post(&ecs, FORM, "Action=ListUsers", user), "Code"), "InvalidAction");
    ecs.fault(Fault::on("AssumeRole").throttled());
    assert_eq!(element(&post(&ecs, FORM, form, user), "Code"), "Throttling");

    let requests = ecs.requests();
    assert_eq!((requests[0].service_name, requests[0].operation.as_str()), ("sts", "AssumeRole"));
    assert_eq!(requests[0].body["RoleSessionName"], "gehen-1");
    assert_eq!(requests[0].identity, "arn:aws:iam::123456789012:user/local");
    let listed: Vec<_> = requests.iter().filter(|request| request.operation == "ListClusters").collect();
    assert_eq!((listed[0].identity.as_str(), &listed[0].answer), (arn, &Answer::Ok));
    assert_eq!(listed[1].answer, Answer::Error("ExpiredTokenException".to_owned()));
    assert_eq!([listed[0], listed[1]].map(|request| request.caller.as_str()), [session.0, ended.0]);
}
