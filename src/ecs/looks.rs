//! What is known about these services now: one DescribeServices serves all services of a cluster that wait for a look.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashSet},
    time::Duration,
};

use tokio::{sync::oneshot, time::sleep};

use super::{Ecs, Haste, Look, pace::ReadTurn};
use crate::{aws::Error, config::Service};

/// The most services that DescribeServices takes (API_DescribeServices).
const SERVICES_AT_ONCE: usize = 10;
/// How long a look waits for company: services that look at the same moment ask together.
const COMPANY: Duration = Duration::from_millis(5);

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
    /// One look at `service`, by a request that is sent from now on, never by one that was under way. Of those that wait,
    /// whoever has the first turn asks for all of its cluster; where that one gives up, the others ask again.
    pub async fn look(&self, ecs: &Ecs, service: &Service, haste: Haste) -> Result<Look, Error> {
        loop {
            let (answer, mut asked) = oneshot::channel();
            let (cluster, name) = (service.cluster.as_str().to_owned(), service.name.clone());
            self.waiting.borrow_mut().push(Waiting { cluster, service: name, answer });
            let turn = async {
                sleep(COMPANY).await;
                match haste {
                    Haste::None => Some(ecs.reads.turn().await),
                    Haste::Next => {
                        ecs.reads.free().await;
                        None
                    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{aws::Aws, config::UpdateStrategy};
    use aws_smithy_runtime_api::{
        client::{
            http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn},
            orchestrator::{HttpRequest, HttpResponse},
        },
        http::StatusCode,
    };
    use aws_smithy_types::body::SdkBody;
    use futures_util::future::join_all;
    use serde_json::{Value, json};
    use std::sync::{Arc, Mutex};
    use tokio::time::timeout;

    /// An ECS that knows every service that begins with `api`, takes a second for each answer, and notes what it was
    /// asked for. It denies to look at `denied`.
    #[derive(Clone, Debug, Default)]
    struct Canned(Arc<Mutex<Vec<Vec<String>>>>);

    impl HttpConnector for Canned {
        fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
            let body: Value = serde_json::from_slice(request.body().bytes().expect("a body")).expect("JSON");
            let names: Vec<String> = serde_json::from_value(body["services"].clone()).expect("names");
            self.0.lock().expect("a lock").push(names.clone());
            let (known, missing): (Vec<_>, Vec<_>) = names.iter().partition(|name| name.starts_with("api"));
            let (status, answer) = if names.iter().any(|name| name == "denied") {
                (400, json!({"__type": "AccessDeniedException", "message": "no"}))
            } else {
                let known: Vec<_> = known.into_iter().map(|name| service(name)).collect();
                let failure = |name| json!({"arn": format!("arn:aws:ecs:r:1:service/c/{name}"), "reason": "MISSING"});
                (200, json!({"services": known, "failures": missing.into_iter().map(failure).collect::<Vec<_>>()}))
            };
            HttpConnectorFuture::new(async move {
                sleep(Duration::from_secs(1)).await;
                let status = StatusCode::try_from(status).expect("a status");
                Ok(HttpResponse::new(status, SdkBody::from(answer.to_string())))
            })
        }
    }

    fn service(name: &str) -> Value {
        json!({
            "serviceName": name, "status": "ACTIVE", "desiredCount": 1,
            "deployments": [{"id": name, "status": "PRIMARY", "taskDefinition": "arn:aws:ecs:r:1:task-definition/x:1"}],
        })
    }

    fn named(name: &str) -> Service {
        Service {
            name: name.into(),
            cluster: "arn:aws:ecs:us-east-1:123456789012:cluster/staging".parse().expect("an ARN"),
            url: None,
            timeout: Duration::from_mins(1),
            header: reqwest::header::SERVER,
            update_strategy: UpdateStrategy::Current,
            containers: None,
        }
    }

    async fn connect(services: &[Service]) -> (Ecs, Canned) {
        let canned = Canned::default();
        let connector = SharedHttpConnector::new(canned.clone());
        let aws = Aws::canned(http_client_fn(move |_, _| connector.clone())).await;
        (Ecs::connect(&aws, services, []).expect("the region is known"), canned)
    }

    /// The id of the PRIMARY, or why there is none.
    fn told(look: Result<Look, Error>) -> String {
        look.map_or_else(|error| error.to_string(), |look| look.primary.id.0)
    }

    fn asked(canned: &Canned) -> Vec<usize> {
        canned.0.lock().expect("a lock").iter().map(Vec::len).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn services_that_look_at_the_same_moment_ask_together_and_each_learns_its_own() {
        let services: Vec<_> = (0..23).map(|number| named(&format!("api-{number}"))).collect();
        let (ecs, canned) = connect(&services).await;
        let looks = join_all(services.iter().map(|service| ecs.look(service, Haste::None))).await;
        for (look, service) in looks.into_iter().zip(&services) {
            assert_eq!(told(look), service.name);
        }
        assert_eq!(asked(&canned), [10, 10, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_is_missing_is_the_only_one_told_so() {
        let services = [named("api"), named("web")];
        let (ecs, canned) = connect(&services).await;
        let (api, web) = {
            let look = |service| ecs.look(service, Haste::None);
            futures_util::future::join(look(&services[0]), look(&services[1])).await
        };
        assert_eq!(told(api), "api");
        assert!(told(web).starts_with("DescribeServices: there is no service `web` in cluster `arn:"));
        assert_eq!(asked(&canned), [2]);
    }

    #[tokio::test(start_paused = true)]
    async fn where_one_may_not_be_looked_at_each_asks_for_itself_from_then_on() {
        let services = [named("api-1"), named("denied"), named("api-2")];
        let (ecs, canned) = connect(&services).await;
        for _ in 0..2 {
            let looks: Vec<_> = join_all(services.iter().map(|service| ecs.look(service, Haste::None))).await;
            let told: Vec<_> = looks.into_iter().map(told).collect();
            assert_eq!(told, ["api-1", "DescribeServices: AccessDeniedException: no", "api-2"]);
        }
        assert_eq!(asked(&canned), [3, 1, 1, 1, 1, 1, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn where_the_one_that_asks_gives_up_the_others_ask_again() {
        let services = [named("api-1"), named("api-2"), named("api-3")];
        let (ecs, canned) = connect(&services).await;
        let gives_up = timeout(Duration::from_millis(500), ecs.look(&services[0], Haste::None));
        let others = join_all(services[1..].iter().map(|service| ecs.look(service, Haste::Next)));
        let (gives_up, others) = futures_util::future::join(gives_up, others).await;
        assert!(gives_up.is_err());
        assert_eq!(others.into_iter().map(told).collect::<Vec<_>>(), ["api-2", "api-3"]);
        assert_eq!(asked(&canned), [3, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rollback_waits_for_no_turn_and_takes_those_that_wait_along() {
        let services = [named("api-1"), named("api-2")];
        let (ecs, canned) = connect(&services).await;
        for _ in 0..10 {
            ecs.reads.count();
        }
        let since = tokio::time::Instant::now();
        let (waits, in_haste) =
            futures_util::future::join(ecs.look(&services[0], Haste::None), ecs.look(&services[1], Haste::Rollback))
                .await;
        assert_eq!((told(waits).as_str(), told(in_haste).as_str()), ("api-1", "api-2"));
        assert_eq!((asked(&canned), since.elapsed().as_secs()), (vec![2], 1));
    }
}
