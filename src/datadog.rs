//! The events that a Datadog agent gets of each deploy and rollback, and the only module that names its client library.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use dogstatsd::{Client, OptionsBuilder};

use crate::{
    git_sha::GitSha,
    report::{self, Event},
};

/// Where an agent listens by default.
pub const PORT: u16 = 8125;
/// How long the end of a run waits for events that have not been sent. Those before the last were sent while it went
/// on.
const PATIENCE: Duration = Duration::from_millis(500);
/// Most characters of a tag (Datadog documentation, "Getting Started with Tags").
const LONGEST_TAG: usize = 200;
/// Most bytes that the tags of one event take together: what an agent reads at once by default
/// (`dogstatsd_buffer_size`, 8192), with room for the title, the text and the tags that the library adds.
const MOST_TAGS: usize = 7000;

/// Tells a Datadog agent by UDP what becomes of the services of one run. Nothing that it meets holds up or fails the
/// run: a thread of its own looks up the agent's name and sends.
pub struct Datadog {
    version: GitSha,
    services: Mutex<HashMap<String, Told>>,
    queue: mpsc::Sender<Message>,
    /// Whether the run's last line has been written, after which none may follow.
    is_over: Arc<AtomicBool>,
}

/// What is known of one service.
#[derive(Default)]
struct Told {
    stage: Stage,
    tags: Vec<String>,
}

/// What becomes of a service, as far as events tell it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Nothing has begun.
    #[default]
    Nothing,
    /// It is being deployed.
    Deploy,
    /// It goes back.
    Rollback,
}

/// How far that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// ECS has taken the request.
    Started,
    /// The deploy check has passed.
    Draining,
    /// The drain check has passed.
    Completed,
}

/// What the thread is asked to do.
enum Message {
    /// Send this event.
    Send { title: &'static str, text: String, tags: Vec<String> },
    /// Say that all before it was sent.
    Answer(mpsc::Sender<()>),
}

impl Datadog {
    /// Begins to tell the agent at `host`, a name or an address, of the deploy of `version`.
    pub fn start(host: String, port: u16, version: GitSha) -> Self {
        Self::sending_to(host.clone(), move || resolve(&host, port), version)
    }

    fn sending_to(
        host: String,
        address: impl FnOnce() -> io::Result<SocketAddr> + Send + 'static,
        version: GitSha,
    ) -> Self {
        let (queue, messages) = mpsc::channel();
        let is_over = Arc::new(AtomicBool::new(false));
        let sender = {
            let is_over = Arc::clone(&is_over);
            move || match address().and_then(|address| send(address, messages)) {
                Err(error) if !is_over.load(Ordering::Relaxed) => report::no_events(&host, &error),
                _ => {}
            }
        };
        // Without a thread there is nobody to receive, which hear doesn't mind.
        drop(thread::Builder::new().name("datadog".into()).spawn(sender));
        Self { version, services: Mutex::default(), queue, is_over }
    }

    /// Takes note of what happened to `service`, and has an event sent where it is one.
    pub fn hear(&self, service: &str, event: &Event<'_>) {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        let told = services.entry(service.to_owned()).or_default();
        if let Event::Runs { base, .. } = event {
            told.tags = tags(base.docker_labels());
        }
        if let Some((stage, step)) = next(told.stage, event) {
            told.stage = stage;
            let (title, text) = words(stage, step, service, &self.version);
            let _ = self.queue.send(Message::Send { title, text, tags: told.tags.clone() });
        }
    }

    /// Waits until everything is sent, but not for long. The run's last line has been written.
    pub fn finish(&self) {
        self.is_over.store(true, Ordering::Relaxed);
        let (answer, answered) = mpsc::channel();
        if self.queue.send(Message::Answer(answer)).is_ok() {
            let _ = answered.recv_timeout(PATIENCE);
        }
    }
}

/// The agent's address. Where a name has several, one of IPv4: `localhost` is usually both, and agents listen there.
fn resolve(host: &str, port: u16) -> io::Result<SocketAddr> {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let addresses: Vec<_> = (host, port).to_socket_addrs()?.collect();
    let first = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
    first.copied().ok_or_else(|| io::Error::other("the name has no address"))
}

/// Sends to `address` what it is asked to, until nobody is left to ask. The error is the first; what can't be sent is
/// lost.
fn send(address: SocketAddr, messages: mpsc::Receiver<Message>) -> io::Result<()> {
    let own: SocketAddr =
        if address.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    // Written as numbers, so that the library has no name to look up each time.
    let options = OptionsBuilder::new().from_addr(own.to_string()).to_addr(address.to_string()).build();
    let client = Client::new(options).map_err(io::Error::other)?;
    for message in messages {
        match message {
            Message::Send { title, text, tags } => client.event(title, text, tags).map_err(io::Error::other)?,
            Message::Answer(answer) => drop(answer.send(())),
        }
    }
    Ok(())
}

/// What `event` makes of a service, if anything that a Datadog event tells. The checks of a service that is not updated
/// are no deploy.
fn next(stage: Stage, event: &Event<'_>) -> Option<(Stage, Step)> {
    match event {
        Event::Updated { .. } => Some((Stage::Deploy, Step::Started)),
        Event::RollbackRequested { .. } | Event::GoesBackByItself { .. } if stage != Stage::Rollback => {
            Some((Stage::Rollback, Step::Started))
        }
        Event::Live { .. } if stage != Stage::Nothing => Some((stage, Step::Draining)),
        Event::Drained { .. } if stage != Stage::Nothing => Some((stage, Step::Completed)),
        _ => None,
    }
}

/// The title of an event, and its text.
fn words(stage: Stage, step: Step, service: &str, version: &GitSha) -> (&'static str, String) {
    let is_rollback = stage == Stage::Rollback;
    match (is_rollback, step) {
        (false, Step::Started) => {
            ("gehen.deploys.started", format!("{version} is being deployed to service {service}"))
        }
        (false, Step::Draining) => {
            ("gehen.deploys.draining", format!("{version} is live in service {service}, and the old version drains"))
        }
        (false, Step::Completed) => {
            ("gehen.deploys.completed", format!("{version} is live in service {service}, and the old version is gone"))
        }
        (true, Step::Started) => {
            ("gehen.rollbacks.started", format!("service {service} goes back to what ran before {version}"))
        }
        (true, Step::Draining) => (
            "gehen.rollbacks.draining",
            format!("what ran before {version} is live in service {service} again, and {version} drains"),
        ),
        (true, Step::Completed) => (
            "gehen.rollbacks.completed",
            format!("what ran before {version} is live in service {service} again, and {version} is gone"),
        ),
    }
}

/// Docker labels as tags, `label:value`. What ends a tag, a field or an event in the protocol becomes `_`; what is
/// longer than Datadog takes is cut, and what the agent would not read is left out.
fn tags<'a>(labels: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    let ends_something = |character: char| character.is_control() || matches!(character, ',' | '|');
    let tag = |(label, value): (&str, &str)| -> String {
        let text = format!("{label}:{value}");
        text.chars()
            .map(|character| if ends_something(character) { '_' } else { character })
            .take(LONGEST_TAG)
            .collect()
    };
    let mut room = MOST_TAGS;
    let fits = |tag: &String| {
        let left = room.checked_sub(tag.len() + 1);
        room = left.unwrap_or(room);
        left.is_some()
    };
    labels.map(tag).filter(fits).collect()
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, time::Instant};

    use proptest::prelude::*;

    use super::*;
    use crate::ecs::{DeploymentId, TaskDefinitionArn};

    fn version() -> GitSha {
        "abcdef1".parse().expect("a Git SHA")
    }

    #[test]
    fn only_what_was_updated_or_goes_back_makes_events() {
        use self::{
            Stage::{Deploy, Nothing, Rollback},
            Step::{Completed, Draining, Started},
        };
        let (arn, id) = (TaskDefinitionArn("task-definition/api:2".into()), DeploymentId("ecs-svc/1".into()));
        let updated = Event::Updated { deployment: &id, task_definition: &arn };
        let requested = Event::RollbackRequested { to: &arn, deployment: Some(&id) };
        let by_ecs = Event::GoesBackByItself { to: &arn, by_ecs: true };
        let (live, drained) = (Event::Live { how: "" }, Event::Drained { how: "" });
        for (stage, event, expected) in [
            (Nothing, &updated, Some((Deploy, Started))),
            (Nothing, &live, None),
            (Nothing, &drained, None),
            (Deploy, &live, Some((Deploy, Draining))),
            (Deploy, &drained, Some((Deploy, Completed))),
            (Deploy, &requested, Some((Rollback, Started))),
            (Deploy, &by_ecs, Some((Rollback, Started))),
            (Nothing, &requested, Some((Rollback, Started))),
            (Rollback, &by_ecs, None),
            (Rollback, &live, Some((Rollback, Draining))),
            (Rollback, &drained, Some((Rollback, Completed))),
            (Rollback, &Event::RollingBack { to: &arn, version: "" }, None),
            (Deploy, &Event::EcsSays(""), None),
        ] {
            assert_eq!(next(stage, event), expected, "{stage:?}: {event}");
        }
    }

    #[test]
    fn a_label_is_a_tag() {
        let long = "ß".repeat(300);
        for (label, value, tag) in [
            ("team", "web", "team:web"),
            ("com.example/url", "https://example.com", "com.example/url:https://example.com"),
            ("a,b|c\n", "\r\n_e{1,1}:a|b", "a_b_c_:___e{1_1}:a_b"),
            ("", "", ":"),
            ("long", &long, &format!("long:{}", "ß".repeat(195))),
        ] {
            assert_eq!(tags([(label, value)].into_iter()), [tag]);
        }
    }

    proptest! {
        #[test]
        fn no_label_ends_its_tag(labels in proptest::collection::vec((any::<String>(), any::<String>()), 0..6)) {
            // Often enough to fill an event; making so many texts would take minutes.
            let many = labels.iter().cycle().take(labels.len() * 30);
            let tags = tags(many.map(|(label, value)| (label.as_str(), value.as_str())));
            prop_assert!(!tags.iter().any(|tag| tag.contains([',', '|', '\n', '\r'])));
            prop_assert!(tags.join(",").len() <= MOST_TAGS);
        }
    }

    #[test]
    fn nobody_waits_for_a_name_that_is_being_looked_up() {
        let (resolve, resolved) = mpsc::channel::<SocketAddr>();
        let agent = UdpSocket::bind("127.0.0.1:0").expect("a local port is free");
        let slow = move || resolved.recv().map_err(io::Error::other);
        let datadog = Datadog::sending_to("agent".into(), slow, version());
        let (arn, id) = (TaskDefinitionArn("task-definition/api:2".into()), DeploymentId("ecs-svc/1".into()));
        let since = Instant::now();
        datadog.hear("api", &Event::Updated { deployment: &id, task_definition: &arn });
        datadog.finish();
        assert!(since.elapsed() < PATIENCE + Duration::from_secs(5), "{:?}", since.elapsed());
        // What waited is not lost.
        resolve.send(agent.local_addr().expect("an address")).expect("the thread waits");
        agent.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout can be set");
        let mut datagram = [0; 1000];
        let length = agent.recv(&mut datagram).expect("an event comes");
        let text = "abcdef1 is being deployed to service api";
        let expected = format!("_e{{21,{}}}:gehen.deploys.started|{text}", text.len());
        assert_eq!(String::from_utf8_lossy(&datagram[..length]), expected);
    }

    #[test]
    fn an_address_needs_no_looking_up_in_any_spelling() {
        for (host, address) in [("127.0.0.1", "127.0.0.1:8125"), ("::1", "[::1]:8125"), ("[::1]", "[::1]:8125")] {
            assert_eq!(resolve(host, 8125).map(|address| address.to_string()).ok().as_deref(), Some(address));
        }
        assert!(resolve("no such host", 8125).is_err());
    }
}
