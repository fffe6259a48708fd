//! The events that a Datadog agent gets.

use std::{io::Write as _, net::UdpSocket, time::Duration};

use local_ecs::{Behaviour, Fault, image, service};
use serde_json::{Value, json};

use crate::support::{Gehen, NEW, OLD, SHORT, ecs, gehen_yml, kill};

/// A Datadog agent, as far as it takes datagrams.
struct Agent(UdpSocket);

/// One event of DogStatsD's protocol.
#[derive(Debug)]
struct Event {
    title: String,
    text: String,
    tags: Vec<String>,
}

impl Agent {
    fn at(address: &str) -> std::io::Result<Self> {
        let socket = UdpSocket::bind((address, 0))?;
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    fn port(&self) -> String {
        self.0.local_addr().expect("a socket has an address").port().to_string()
    }

    /// What has come, each datagram read to its last byte as "_e{<title's bytes>,<text's
    /// bytes>}:<title>|<text>|#<tags>".
    fn events(&self) -> Vec<Event> {
        let mut buffer = vec![0; 65536];
        let mut events = Vec::new();
        while let Ok(length) = self.0.recv(&mut buffer) {
            assert!(length <= 8192, "an agent would read 8192 bytes of {length}");
            let datagram = std::str::from_utf8(&buffer[..length]).expect("an event is UTF-8");
            assert!(!datagram.contains('\n'), "a second event begins in {datagram:?}");
            let (lengths, rest) = datagram.strip_prefix("_e{").and_then(|rest| rest.split_once("}:")).expect("lengths");
            let (title, text) = lengths.split_once(',').expect("two lengths");
            let [title, text] = [title, text].map(|length| length.parse::<usize>().expect("a length is a number"));
            let (title, rest) = rest.split_at(title);
            let (text, rest) = rest.strip_prefix('|').expect("a text after the title").split_at(text);
            let tags = match rest {
                "" => Vec::new(),
                rest => rest.strip_prefix("|#").expect("tags at the end").split(',').map(str::to_owned).collect(),
            };
            assert!(!tags.iter().any(|tag| tag.contains('|')), "a field follows the tags of {datagram:?}");
            events.push(Event { title: title.into(), text: text.into(), tags });
        }
        events
    }

    /// The titles of the events about `service`.
    fn titles(&self, service: &str) -> Vec<String> {
        let about = format!("service {service}");
        self.events().into_iter().filter(|event| event.text.contains(&about)).map(|event| event.title).collect()
    }
}

impl Gehen {
    fn telling(self, agent: &Agent) -> Self {
        self.with("DD_AGENT_HOST", "127.0.0.1").with("DD_DOGSTATSD_PORT", &agent.port())
    }
}

/// A task definition whose first container has these labels, and whose second has others.
fn labelled(labels: &Value) -> Value {
    let container = |name: &str, labels: &Value| {
        json!({"name": name, "image": image("api", OLD), "memory": 128, "dockerLabels": labels,
            "portMappings": if name == "api" { json!([{"containerPort": 8080}]) } else { json!([]) }})
    };
    json!({"family": "api", "containerDefinitions": [container("api", labels), container("worker", &json!({"tier": "2"}))]})
}

const DEPLOYED: [&str; 3] = ["gehen.deploys.started", "gehen.deploys.draining", "gehen.deploys.completed"];
const UNDONE: [&str; 4] =
    ["gehen.deploys.started", "gehen.rollbacks.started", "gehen.rollbacks.draining", "gehen.rollbacks.completed"];

#[test]
fn each_service_that_is_deployed_has_three_events_with_the_labels_of_its_first_container() {
    let labels = json!({"team": "web", "com.example/url": "https://example.com"});
    let ecs = ecs([service("api").task_definition(labelled(&labels)), service("web").running(OLD)]);
    let agent = Agent::at("127.0.0.1").expect("a local port is free");
    gehen_yml(&ecs, "", &["api", "web"]).telling(&agent).deploy(NEW).exits(0).never_says("Datadog");
    let events = agent.events();
    let titles: Vec<_> = events.iter().map(|event| event.title.as_str()).collect();
    assert_eq!(titles, [DEPLOYED, DEPLOYED].concat());
    for (index, event) in events.iter().enumerate() {
        let (service, tags) = if index < 3 {
            ("api", &["com.example/url:https://example.com", "team:web"][..])
        } else {
            ("web", &[][..])
        };
        assert!(event.text.contains(&format!("service {service}")) && event.text.contains(NEW), "{event:?}");
        let mut told = event.tags.clone();
        told.sort();
        assert_eq!(told, tags, "{event:?}");
    }
}

#[test]
fn a_deploy_that_is_undone_has_started_and_the_rollback_has_three_events() {
    let ecs = ecs([service("api").task_definition(labelled(&json!({"team": "web"})))]);
    ecs.version(NEW, Behaviour::CrashesOnStart { exit_code: 1 });
    let agent = Agent::at("127.0.0.1").expect("a local port is free");
    let run = gehen_yml(&ecs, "", &["api"]).telling(&agent).deploy(NEW);
    run.exits(1).ends("api", "ROLLED BACK").says("api: updated back to api:1: deployment ecs-svc/");
    let events = agent.events();
    assert_eq!(events.iter().map(|event| event.title.as_str()).collect::<Vec<_>>(), UNDONE);
    assert!(events.iter().all(|event| event.tags == ["team:web"] && event.text.contains(NEW)), "{events:?}");
}

#[test]
fn a_rollback_of_ecs_has_the_events_of_a_rollback() {
    let ecs = ecs([service("api").running(OLD).circuit_breaker(true)]);
    ecs.version(NEW, Behaviour::CrashesOnStart { exit_code: 1 });
    // Until ECS has gone back by itself.
    ecs.fault(Fault::on("DescribeServices").server_error().after(3).for_the_next(Duration::from_secs(4)));
    let agent = Agent::at("127.0.0.1").expect("a local port is free");
    gehen_yml(&ecs, "", &["api"]).telling(&agent).deploy(NEW).exits(1).says("ECS rolls back to api:1 by itself");
    assert_eq!(agent.titles("api"), UNDONE);
}

#[test]
fn a_run_that_is_cancelled_tells_that_the_rollback_has_started() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.version(NEW, Behaviour::NeverStarts);
    let agent = Agent::at("127.0.0.1").expect("a local port is free");
    let gehen = gehen_yml(&ecs, "", &["api"]).telling(&agent);
    let run = gehen.start(&["-gitsha", NEW]).until_it_says("deploy check: ");
    kill("TERM", run.child.id());
    run.wait().exits(1).ends("api", "ROLLBACK REQUESTED");
    assert_eq!(agent.titles("api"), ["gehen.deploys.started", "gehen.rollbacks.started"]);
}

#[test]
fn a_rollback_that_was_not_drained_is_not_completed_and_an_update_that_was_refused_is_no_event() {
    let agent = Agent::at("127.0.0.1").expect("a local port is free");
    let draining = ecs([service("api").running(OLD)]);
    draining.protect_tasks("api");
    gehen_yml(&draining, SHORT, &["api"]).telling(&agent).deploy(NEW).exits(2);
    assert_eq!(agent.titles("api"), DEPLOYED[..2]);

    let denying = ecs([service("api").running(OLD)]);
    denying.fault(Fault::on("UpdateService").denied());
    gehen_yml(&denying, SHORT, &["api"]).telling(&agent).deploy(NEW).exits(1).ends("api", "NOT UPDATED");
    assert_eq!(agent.titles("api"), [""; 0]);
}

#[test]
fn no_label_forges_an_event_and_long_ones_are_cut() {
    let mut labels = json!({
        "a": "1,admin:true", "b": "2|t:error", "c": "3\n_e{1,1}:x|y", "d": "ß".repeat(400), "e": "\u{1b}[2J",
    });
    for number in 0..60 {
        labels[format!("many{number}")] = "x".repeat(190).into();
    }
    let ecs = ecs([service("api").task_definition(labelled(&labels))]);
    let agent = Agent::at("127.0.0.1").expect("a local port is free");
    gehen_yml(&ecs, "", &["api"]).telling(&agent).deploy(NEW).exits(0);
    let events = agent.events();
    assert_eq!(events.len(), 3, "{events:?}");
    for event in events {
        let has = |tag: &str| event.tags.iter().any(|told| told == tag);
        assert!(has("a:1_admin:true") && has("b:2_t:error") && has("c:3__e{1_1}:x_y") && has("e:_[2J"), "{event:?}");
        assert!(event.tags.iter().all(|tag| tag.chars().count() <= 200), "{event:?}");
        assert!(event.tags.len() > 30, "{event:?}");
    }
}

#[test]
fn an_agent_that_is_not_there_changes_nothing() {
    let ecs = ecs([service("api").running(OLD)]);
    let port = Agent::at("127.0.0.1").expect("a local port is free").port();
    let gehen = gehen_yml(&ecs, "", &["api"]).with("DD_AGENT_HOST", "127.0.0.1").with("DD_DOGSTATSD_PORT", &port);
    gehen.deploy(NEW).exits(0).never_says("warning");
    assert_eq!(ecs.runs("api"), NEW);
}

#[test]
fn an_agent_whose_name_is_unknown_is_one_line() {
    for (host, port, said) in [
        ("agent.invalid", "8125", "the Datadog agent at agent.invalid gets no events: "),
        ("a b\n", "8125", "the Datadog agent at a b\\u{a} gets no events: "),
        ("127.0.0.1", "http", "DD_DOGSTATSD_PORT is `http`, which is no port"),
        ("127.0.0.1", "81250", "DD_DOGSTATSD_PORT is `81250`, which is no port"),
    ] {
        let ecs = ecs([service("api").running(OLD)]);
        let gehen = gehen_yml(&ecs, "", &["api"]).with("DD_AGENT_HOST", host).with("DD_DOGSTATSD_PORT", port);
        let run = gehen.deploy(NEW);
        run.exits(0).ends("api", "DEPLOYED");
        let told = run.stderr.matches("Datadog").count();
        // A name may still be being looked up when the deploy is over, also one that is none.
        assert!(told == 1 || (told == 0 && host.starts_with('a')), "{}", run.stderr);
        if told == 1 {
            run.says(said);
        } else {
            skipped(&format!("an_agent_whose_name_is_unknown_is_one_line: {host:?} was still being looked up"));
        }
    }
}

#[test]
fn an_empty_host_is_none() {
    let ecs = ecs([service("api").running(OLD)]);
    let agent = Agent::at("127.0.0.1").expect("a local port is free");
    let gehen = gehen_yml(&ecs, "", &["api"]).with("DD_AGENT_HOST", "").with("DD_DOGSTATSD_PORT", &agent.port());
    gehen.deploy(NEW).exits(0).never_says("Datadog");
    assert_eq!(agent.titles("api"), [""; 0]);
}

#[test]
fn an_agent_may_have_an_address_of_ipv6() {
    // A machine without IPv6 has no such agent.
    let Ok(agent) = Agent::at("::1") else { return skipped("an_agent_may_have_an_address_of_ipv6: no ::1 here") };
    for host in ["::1", "[::1]"] {
        let ecs = ecs([service("api").running(OLD)]);
        let gehen = gehen_yml(&ecs, "", &["api"]).with("DD_AGENT_HOST", host);
        gehen.with("DD_DOGSTATSD_PORT", &agent.port()).deploy(NEW).exits(0);
        assert_eq!(agent.titles("api"), DEPLOYED, "{host}");
    }
}

/// Tells what a test could not see here, past libtest, which keeps what print! writes in a test that passes.
fn skipped(what: &str) {
    std::io::stdout().write_all(format!("NOT CHECKED: {what}\n").as_bytes()).expect("stdout takes a line");
}
