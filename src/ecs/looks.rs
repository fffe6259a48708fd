//! What is known about these services now: one DescribeServices serves all services of a cluster that wait for a look.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashSet},
    time::Duration,
};

use tokio::{sync::oneshot, time::sleep};

use super::{Ecs, Look, pace::ReadTurn};
use crate::{aws::Error, config::Service};

/// The most services that DescribeServices takes (API_DescribeServices).
const SERVICES_AT_ONCE: usize = 10;
/// How long a look waits for company: services that look at the same moment ask together.
const COMPANY: Duration = Duration::from_millis(5);

/// Whether a look waits for its turn among all reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Haste {
    /// It does.
    None,
    /// It doesn't, since a service is to be put back.
    Rollback,
}

/// The looks that are waited for.
#[derive(Debug, Default)]
pub(super) struct Looks {
    waiting: RefCell<Vec<Waiting>>,
    /// The clusters whose services are asked for one by one, because the role may not look at every one of them.
    one_by_one: RefCell<HashSet<String>>,
}

/// One service that waits for a look.
#[derive(Debug)]
struct Waiting {
    cluster: String,
    service: String,
    answer: oneshot::Sender<Result<Look, Error>>,
}

impl Looks {
    /// One look at `service`, made from now on. Of those that wait, whoever has the first turn asks for all of its
    /// cluster; where that one gives up, the others ask again.
    pub async fn look(&self, ecs: &Ecs, service: &Service, haste: Haste) -> Result<Look, Error> {
        loop {
            let (answer, mut asked) = oneshot::channel();
            let (cluster, name) = (service.cluster.as_str().to_owned(), service.name.clone());
            self.waiting.borrow_mut().push(Waiting { cluster, service: name, answer });
            let turn = async {
                sleep(COMPANY).await;
                match haste {
                    Haste::None => Some(ecs.reads.turn().await),
                    Haste::Rollback => None,
                }
            };
            tokio::select! {
                biased;
                answer = &mut asked => match answer {
                    Ok(answer) => return answer,
                    Err(_) => continue,
                },
                turn = turn => {
                    let together = self.take(service);
                    if !together.is_empty() {
                        turn.map_or_else(|| ecs.reads.count(), ReadTurn::take);
                        self.ask(ecs, service, together).await;
                    }
                }
            }
            if let Ok(answer) = asked.await {
                return answer;
            }
        }
    }

    /// Those of `service`'s cluster that wait, the longest first, and `service` among them; none if another asks for it
    /// already.
    fn take(&self, service: &Service) -> Vec<Waiting> {
        let mut waiting = self.waiting.borrow_mut();
        waiting.retain(|waiting| !waiting.answer.is_closed());
        let cluster = service.cluster.as_str();
        let is_it = |waiting: &Waiting| waiting.cluster == cluster && waiting.service == service.name;
        if !waiting.iter().any(is_it) {
            return Vec::new();
        }
        let mut names = BTreeSet::from([service.name.clone()]);
        let at_once = if self.one_by_one.borrow().contains(cluster) { 1 } else { SERVICES_AT_ONCE };
        let is_taken = |waiting: &mut Waiting| {
            waiting.cluster == cluster
                && (names.contains(&waiting.service)
                    || (names.len() < at_once && names.insert(waiting.service.clone())))
        };
        waiting.extract_if(.., is_taken).collect()
    }

    /// Asks for all of these, which wait for the same cluster as `service`, and tells each what it is to know.
    async fn ask(&self, ecs: &Ecs, service: &Service, together: Vec<Waiting>) {
        let names: BTreeSet<_> = together.iter().map(|waiting| waiting.service.as_str()).collect();
        let described = ecs.describe(service, &names).await;
        if names.len() > 1 && described.as_ref().is_err_and(Error::is_denied) {
            // A role may be allowed to look at some services only (service authorization reference of Amazon ECS).
            self.one_by_one.borrow_mut().insert(service.cluster.as_str().to_owned());
            return;
        }
        for waiting in together {
            let look = described.as_ref().map_err(Error::clone).and_then(|all| all.look_at(&waiting.service));
            // Nobody waits for it any more.
            drop(waiting.answer.send(look));
        }
    }
}
