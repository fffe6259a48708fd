//! The handle that tests hold: a local ECS on a thread of its own.

use std::{
    borrow::Borrow,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use hyper::header::{HeaderName, HeaderValue};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::{
    behaviour::Behaviour,
    builder::{ServiceBuilder, ecr_image},
    faults::Fault,
    log::{Moment, Request},
    model::{
        account::Account,
        arn,
        fate::Stop,
        service::{Service, World},
    },
    operations,
    rule::RuleBuilder,
    server,
    settings::Settings,
    state::Shared,
    tls::Tls,
    view::View,
};

/// Why a test stops a service's tasks from outside (`API_Task`, `stopCode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopCode {
    /// Somebody called `StopTask`.
    UserInitiated,
    /// Fargate Spot or a Spot instance was taken away.
    SpotInterruption,
    /// The same, as the notice names it on EC2.
    TerminationNotice,
    /// The infrastructure under the task failed.
    InfrastructureHealth,
}

/// An ECS on 127.0.0.1; it stops when dropped.
#[derive(Debug)]
pub struct LocalEcs {
    pub(crate) shared: Arc<Shared>,
    pub(crate) tls: Tls,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl LocalEcs {
    /// Starts an empty one on a free port.
    ///
    /// # Panics
    ///
    /// If there is no free port or no thread to be had.
    #[must_use]
    pub fn start(settings: Settings) -> Self {
        Self::start_on(0, settings).expect("a local port and a thread should be free")
    }

    /// Starts an empty one on this port.
    ///
    /// # Errors
    ///
    /// If the port is taken.
    pub fn start_on(port: u16, settings: Settings) -> Result<Self> {
        let listener =
            TcpListener::bind(("127.0.0.1", port)).with_context(|| format!("cannot listen on port {port}"))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::new(settings));
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (served, tls) = (Arc::clone(&shared), Tls::new(runtime.handle().clone()));
        let thread = thread::Builder::new().name("local-ecs".to_owned()).spawn(move || {
            drop(runtime.block_on(server::serve(served, listener, stopped)));
            runtime.shutdown_background();
        })?;
        Ok(Self { shared, tls, address, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens, for `AWS_ENDPOINT_URL`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Makes a service that already runs and is steady.
    ///
    /// # Panics
    ///
    /// If ECS would refuse it.
    pub fn create(&self, service: ServiceBuilder) {
        let made = service.build(&mut self.shared.now().account);
        made.expect("ECS should accept the service that the test describes");
    }

    /// Makes a rule of EventBridge with its targets.
    ///
    /// # Panics
    ///
    /// If EventBridge would refuse it.
    pub fn schedule(&self, rule: RuleBuilder) {
        let made = rule.build(&mut self.shared.now().account);
        made.expect("EventBridge should accept the rule that the test describes");
    }

    /// The URL that a service answers on, through its load balancer if it has one.
    #[must_use]
    pub fn url(&self, service: &str) -> String {
        let endpoint = self.endpoint();
        self.view(|view| {
            let Service { region, cluster, name, .. } = view.service(service);
            format!("{endpoint}/lb/{region}/{cluster}/{name}/ping")
        })
    }

    /// The ARN of a service's cluster.
    #[must_use]
    pub fn cluster_arn(&self, service: &str) -> String {
        self.view(|view| {
            let service = view.service(service);
            arn::ecs(&service.region, &format!("cluster/{}", service.cluster))
        })
    }

    /// Says how a version behaves, wherever its tag is deployed from now on; its answers change at once.
    ///
    /// # Panics
    ///
    /// If it answers with headers that HTTP can't carry.
    pub fn version(&self, tag: &str, behaviour: Behaviour) {
        if let Behaviour::Answers { status, headers, .. } = &behaviour {
            assert!((200..1000).contains(status), "an answer can't have status {status}");
            for (name, value) in headers {
                let (name_fits, value_fits) = (
                    HeaderName::from_bytes(name.as_bytes()).is_ok(),
                    HeaderValue::from_bytes(value.as_bytes()).is_ok(),
                );
                assert!(name_fits && value_fits, "HTTP can't carry header `{name}`");
            }
        }
        self.shared.now().account.versions.insert(tag.to_owned(), behaviour);
    }

    /// Makes a repository of Amazon ECR that holds images under these tags; asked again, it adds tags.
    ///
    /// From then on a task whose image lies in it fails to start unless it holds the image or a cache rule covers it.
    pub fn repository(&self, account: &str, region: &str, name: &str, tags: &[&str]) {
        let mut state = self.shared.now();
        let Account { registries, ids, .. } = &mut state.account;
        registries.push(account, region, name, tags, ids);
    }

    /// Takes an image out of a repository.
    ///
    /// # Panics
    ///
    /// If the repository doesn't hold it.
    pub fn remove_image(&self, account: &str, region: &str, name: &str, tag: &str) {
        let is_removed = self.shared.now().account.registries.remove(account, region, name, tag);
        assert!(is_removed, "there is no image `{}`", ecr_image(account, region, name, tag));
    }

    /// The digest of an image, `sha256:…`, if its repository holds it.
    #[must_use]
    pub fn image_digest(&self, account: &str, region: &str, name: &str, tag: &str) -> Option<String> {
        let state = self.shared.now();
        let registry = state.account.registries.get(account, region)?;
        registry.repositories.get(name)?.get(tag).cloned()
    }

    /// Makes a pull-through cache rule for the repositories under a prefix, or for all if that is `ROOT`.
    pub fn pull_through_cache(&self, account: &str, region: &str, prefix: &str) {
        let mut state = self.shared.now();
        let now = state.account.now;
        state.account.registries.cover(account, region, prefix, now);
    }

    /// Lets nobody assume this role from now on; sessions that it gave before go on.
    pub fn refuse_role(&self, role_arn: &str) {
        self.shared.now().account.sessions.unassumable.insert(role_arn.to_owned());
    }

    /// Puts a fault between the clients and the service; the first that fits a request acts.
    pub fn fault(&self, fault: Fault) {
        self.shared.now().faults.push(fault.set(Instant::now()));
    }

    /// Takes all faults away.
    pub fn clear_faults(&self) {
        self.shared.now().faults.clear();
    }

    /// Takes away the faults that were set for this operation.
    pub fn clear_fault(&self, operation: &str) {
        self.shared.now().faults.retain(|fault| !fault.is_on(operation));
    }

    /// Carries out an operation as if somebody else had asked; it isn't noted among the requests.
    ///
    /// # Errors
    ///
    /// The failure that ECS would answer, as a [`crate::Failure`].
    pub fn call(&self, region: &str, operation: &str, body: impl Borrow<Value>) -> Result<Value> {
        let answer = operations::dispatch(&mut self.shared.now().account, region, operation, body.borrow());
        Ok(answer?)
    }

    /// Every request that came over the wire.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.view(|view| view.requests().to_vec())
    }

    /// The writes that came over the wire and took effect, such as `UpdateService api -> api:2`, in order.
    #[must_use]
    pub fn writes(&self) -> Vec<String> {
        self.view(|view| view.writes().to_vec())
    }

    /// See [`View::runs`].
    #[must_use]
    pub fn runs(&self, service: &str) -> String {
        self.view(|view| view.runs(service))
    }

    /// See [`View::task_definition_of`].
    #[must_use]
    pub fn task_definition_of(&self, service: &str) -> String {
        self.view(|view| view.task_definition_of(service))
    }

    /// See [`View::lb_requests`].
    #[must_use]
    pub fn lb_requests(&self, service: &str) -> usize {
        self.view(|view| view.lb_requests(service))
    }

    /// See [`View::targets`].
    #[must_use]
    pub fn targets(&self, rule: &str) -> Vec<Value> {
        self.view(|view| view.targets(rule))
    }

    /// See [`View::schedules`].
    #[must_use]
    pub fn schedules(&self, rule: &str) -> Vec<String> {
        self.view(|view| view.schedules(rule))
    }

    /// See [`View::moments`].
    #[must_use]
    pub fn moments(&self, service: &str) -> Vec<Moment> {
        self.view(|view| view.moments(service))
    }

    /// Looks at the account as it is now.
    pub fn view<T>(&self, look: impl FnOnce(&View<'_>) -> T) -> T {
        look(&View(&self.shared.now()))
    }

    /// Waits until something is so, looking after every tick; false when time is up.
    pub fn wait_until(&self, patience: Duration, is_so: impl Fn(&View<'_>) -> bool) -> bool {
        let deadline = Instant::now() + patience;
        let mut state = self.shared.now();
        loop {
            if is_so(&View(&state)) {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            state = self.shared.wait(state);
        }
    }

    /// Has a service's deployment alarms ring.
    pub fn set_alarm(&self, service: &str) {
        self.change(service, |service, _, _| service.alarm = true);
    }

    /// Has a service's deployment alarms fall silent.
    pub fn clear_alarm(&self, service: &str) {
        self.change(service, |service, _, _| service.alarm = false);
    }

    /// Protects all of a service's tasks from being stopped for a deployment or scale-in.
    pub fn protect_tasks(&self, service: &str) {
        self.change(service, |service, now, _| {
            service.tasks.iter_mut().for_each(|task| task.protected_until = Some(now + Duration::from_hours(2)));
        });
    }

    /// Ends the protection of a service's tasks.
    pub fn unprotect_tasks(&self, service: &str) {
        self.change(service, |service, _, _| {
            service.tasks.iter_mut().for_each(|task| task.protected_until = None);
        });
    }

    /// Stops all of a service's running tasks from outside; the scheduler replaces them.
    pub fn interrupt_tasks(&self, service: &str, code: StopCode) {
        let (code, reason) = match code {
            StopCode::UserInitiated => ("UserInitiated", "Task stopped by user"),
            StopCode::SpotInterruption => ("SpotInterruption", "Your Spot Task was interrupted."),
            StopCode::TerminationNotice => ("TerminationNotice", "Your Spot Task was interrupted."),
            StopCode::InfrastructureHealth => {
                ("InfrastructureHealth", "Host EC2 (instance i-0123456789abcdef0) terminated.")
            }
        };
        self.change(service, |service, now, world| {
            let rules = service.rules(world.settings);
            for task in service.tasks.iter_mut().filter(|task| task.runs()) {
                task.stop(Stop { code, ..Stop::by_scheduler(reason) }, now, &rules);
            }
            service.steady = false;
        });
    }

    /// Has so many of the newest running tasks of a service's PRIMARY deployment exit now, by themselves.
    ///
    /// # Panics
    ///
    /// If fewer are running.
    pub fn crash_tasks(&self, service: &str, count: usize, exit_code: i32) {
        self.change(service, |service, now, _| {
            let primary = service.primary().map(|primary| primary.id.clone()).unwrap_or_default();
            let running = service.tasks.iter_mut().rev().filter(|task| task.runs() && task.deployment == primary);
            let crashed = running.take(count).map(|task| task.crash(exit_code, now)).count();
            assert_eq!(crashed, count, "so many tasks of the PRIMARY deployment of `{}` run", service.name);
        });
    }

    /// Makes a task definition (`family:revision`) INACTIVE in every region that has it.
    ///
    /// # Panics
    ///
    /// If no region has it.
    pub fn deregister(&self, task_definition: &str) {
        let mut state = self.shared.now();
        let account = &mut state.account;
        let regions: Vec<String> = account.regions.keys().cloned().collect();
        let body = serde_json::json!({"taskDefinition": task_definition});
        let done = regions
            .iter()
            .filter(|region| operations::dispatch(account, region, "DeregisterTaskDefinition", &body).is_ok())
            .count();
        assert!(done > 0, "there is no task definition `{task_definition}`");
    }

    /// Changes the settings from now on.
    pub fn settings_mut(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.shared.now().account.settings);
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Service, Duration, &mut World<'_>)) {
        let mut state = self.shared.now();
        let (region, cluster, own) = {
            let view = View(&state);
            let Service { region, cluster, name, .. } = view.service(name);
            (region.clone(), cluster.clone(), name.clone())
        };
        let now = state.account.now;
        if let Ok((service, mut world)) = state.account.service_mut(&region, &cluster, &own) {
            change(service, now, &mut world);
            service.rouse(now);
        }
    }
}

impl Drop for LocalEcs {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
