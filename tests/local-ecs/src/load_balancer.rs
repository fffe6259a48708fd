//! The load balancer: which task answers a request, and how its version answers.

use std::time::Duration;

use crate::{
    behaviour::Behaviour,
    model::{account::Account, service::Service, task::Task},
};

/// How a request through the load balancer is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Answer { status: u16, headers: Vec<(String, String)>, body: String },
    Never,
    Trickle { headers: Vec<(String, String)>, every: Duration },
    Flood,
}

impl Reply {
    fn plain(status: u16, body: &str) -> Self {
        Self::Answer { status, headers: Vec::new(), body: body.to_owned() }
    }

    fn healthy(server: &str) -> Self {
        let headers = vec![("Server".to_owned(), server.to_owned())];
        Self::Answer { status: 200, headers, body: "pong".to_owned() }
    }
}

/// Answers `/lb/<region>/<cluster>/<service>/<path>`.
pub(crate) fn answer(account: &mut Account, path: &str) -> Reply {
    let mut parts = path.trim_start_matches("/lb/").splitn(4, '/');
    let (region, cluster, name) = (parts.next(), parts.next(), parts.next());
    let (Some(region), Some(cluster), Some(name)) = (region, cluster, name) else {
        return Reply::plain(404, "no such service");
    };
    let inner = parts.next().unwrap_or_default();
    let now = account.now;
    let Ok((service, world)) = account.service_mut(region, cluster, name) else {
        return Reply::plain(404, "no such service");
    };
    service.requests.push(now);
    let turn = service.turn;
    service.turn = turn.wrapping_add(1);
    let service = &*service;
    let Some(task) = pick(service, turn) else {
        return Reply::plain(503, "no healthy targets");
    };
    let behaviour = world.versions.get(&task.blueprint.tag).cloned().unwrap_or_default();
    let behaviour = match behaviour {
        Behaviour::Stale { server } if is_first(service, task) => return Reply::healthy(&server),
        behaviour => behaviour,
    };
    behave(behaviour, &server(task), path, inner)
}

/// The task whose `turn` it is among those that get new requests.
fn pick(service: &Service, turn: usize) -> Option<&Task> {
    let reachable = || service.tasks.iter().filter(|task| task.reachable());
    let mut tasks: Vec<&Task> = match service.serving(turn) {
        Some(serving) => reachable().filter(|task| task.deployment == serving.id).collect(),
        None => Vec::new(),
    };
    if tasks.is_empty() {
        tasks = reachable().collect();
    }
    tasks.get(turn % tasks.len().max(1)).copied()
}

/// How the tasks of a version name themselves.
fn server(task: &Task) -> String {
    format!("{}-{}", task.blueprint.family, task.blueprint.tag)
}

/// Whether `task` is the first of its version that gets requests.
fn is_first(service: &Service, task: &Task) -> bool {
    let mut peers = service.tasks.iter().filter(|peer| peer.reachable() && peer.blueprint.tag == task.blueprint.tag);
    peers.next().is_some_and(|first| first.id == task.id)
}

fn behave(behaviour: Behaviour, server: &str, path: &str, inner: &str) -> Reply {
    let named = || vec![("Server".to_owned(), server.to_owned())];
    let redirect = |to: String| {
        let mut headers = named();
        headers.push(("Location".to_owned(), to));
        Reply::Answer { status: 302, headers, body: String::new() }
    };
    match behaviour {
        Behaviour::Answers { status, headers, body } => Reply::Answer { status, headers, body },
        Behaviour::Hangs => Reply::Never,
        Behaviour::Floods => Reply::Flood,
        Behaviour::Trickles => Reply::Trickle { headers: named(), every: Duration::from_millis(50) },
        Behaviour::RedirectLoop => redirect(path.to_owned()),
        Behaviour::Redirects if !inner.ends_with("landed") => {
            let base = path.strip_suffix(inner).unwrap_or(path).trim_end_matches('/');
            redirect(format!("{base}/landed"))
        }
        _ => Reply::healthy(server),
    }
}
