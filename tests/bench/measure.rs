//! One deploy by the real binary against a local ECS of its own, and what it cost.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use local_ecs::{Answer, Behaviour, LocalEcs, Request, ServiceBuilder, Settings, View, What, image};
use serde_json::json;

/// The version that runs before a deploy, as revision 1 of each service.
pub const OLD: &str = "01d0000";
/// The version that is deployed, as revision 2.
const NEW: &str = "ae30000";

/// How often a process is looked at while it runs. The most memory it had is kept by the kernel, so that only what it
/// takes after the last look is missed.
const LOOKS: Duration = Duration::from_millis(50);
/// What the kernel counts CPU time in: USER_HZ of proc(5), which is 100 on every platform that Linux still has.
const TICKS_A_SECOND: f64 = 100.0;
/// UpdateService's bucket is full again so long after any number of requests: it holds 50 and gets 5 a second.
const BUCKET_IS_FULL: Duration = Duration::from_secs(11);

/// One deploy to measure.
pub struct Trial {
    /// How fast ECS moves, and whether it enforces its limits.
    pub settings: Settings,
    /// The services of gehen.yml, by name; each runs [`OLD`].
    pub services: Vec<(String, ServiceBuilder)>,
    /// `parallel` of gehen.yml.
    pub parallel: usize,
    /// Whether each service's family has a revision of the new version already, so that nothing is registered.
    pub is_registered: bool,
    /// How the new version behaves.
    pub behaviour: Behaviour,
    /// What is to become of the deploy.
    pub ends: Ends,
}

/// What is to become of a deploy, and so what is measured of it.
#[derive(Clone, Copy)]
pub enum Ends {
    /// The new version is live everywhere.
    Deployed,
    /// It is rolled back at the failure of so many new tasks.
    TasksFailed(usize),
    /// It is rolled back when ECS gives the deployment up.
    GivenUp,
    /// It is cancelled so long after every service was updated.
    Cancelled(Duration),
}

/// What one deploy cost; times in seconds.
pub struct Figures {
    /// From the moment at which the last service's success could have been known until the process ended.
    pub after_success: Option<f64>,
    /// From the moment at which ECS knew of the failure that decides until the rollback's request arrived.
    pub to_notice: Option<f64>,
    /// From the signal until the request of the last rollback arrived.
    pub to_cancel: Option<f64>,
    /// Requests of each operation.
    pub calls: BTreeMap<String, Calls>,
    /// Requests that only read.
    pub reads: f64,
    /// The most of those within any second.
    pub reads_in_a_second: f64,
    /// The most requests within any second that the local ECS got, those through its load balancer included.
    pub requests_in_a_second: f64,
    /// Requests that ECS answered with a ThrottlingException.
    pub throttled: f64,
    /// From the start of the process to its end.
    pub wall: f64,
    /// From the first registration to the end, where there was one.
    pub since_registering: Option<f64>,
    /// From the update of a service until its success could have been known, of the service that took longest.
    pub rollout: Option<f64>,
    /// CPU time, in user and kernel.
    pub cpu: f64,
    /// The share of one core in the middle of a long wait, in per cent.
    pub cpu_waiting: Option<f64>,
    /// The most resident memory, in megabytes.
    pub memory: f64,
}

/// Requests of one operation.
pub struct Calls {
    /// In the whole run.
    pub total: f64,
    /// The most within any second.
    pub in_a_second: f64,
}

/// The binary that is measured.
pub fn gehen() -> PathBuf {
    std::env::var_os("GEHEN_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_gehen").into(), PathBuf::from)
}

impl Trial {
    /// Runs it and measures; an error if it didn't end as it was to.
    pub fn run(&self) -> Result<Figures> {
        let ecs = self.set_up()?;
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("gehen.yml"), self.gehen_yml(&ecs))?;
        let mut command = Command::new(gehen());
        command.args(["-gitsha", NEW]).current_dir(folder.path()).env_clear();
        command.envs([("AWS_ENDPOINT_URL", ecs.endpoint().as_str()), ("AWS_ACCESS_KEY_ID", "local")]);
        command.envs([("AWS_SECRET_ACCESS_KEY", "local"), ("AWS_EC2_METADATA_DISABLED", "true")]);
        let ran = self.watch(&ecs, command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()))?;
        self.judge(&ecs, &ran).map_err(|error| anyhow!("{error:#}; gehen said:\n{}", tail(&ran.said)))
    }

    fn set_up(&self) -> Result<LocalEcs> {
        let ecs = LocalEcs::start(self.settings.clone());
        for (name, service) in &self.services {
            ecs.create(service.clone());
            if self.is_registered {
                let container = json!({"name": name, "image": image(name, NEW), "essential": true, "memory": 128,
                    "portMappings": [{"containerPort": 8080}]});
                let revision = json!({"family": name, "containerDefinitions": [container]});
                ecs.call("us-east-1", "RegisterTaskDefinition", revision)?;
            }
        }
        ecs.version(NEW, self.behaviour.clone());
        Ok(ecs)
    }

    fn gehen_yml(&self, ecs: &LocalEcs) -> String {
        let strategy = if self.is_registered { "latest" } else { "current" };
        let mut file = format!("parallel: {}\nupdateStrategy: {strategy}\nservices:\n", self.parallel);
        for (name, _) in &self.services {
            let _ = write!(file, "  {name}:\n    cluster: {}\n    url: {}\n", ecs.cluster_arn(name), ecs.url(name));
        }
        file
    }

    /// Runs the process to its end while it is weighed, and cancelled if it is to be.
    fn watch(&self, ecs: &LocalEcs, command: &mut Command) -> Result<Ran> {
        let began = Instant::now();
        let mut child = command.spawn().context("gehen can't be started")?;
        let process = Path::new("/proc").join(child.id().to_string());
        let mut stderr = child.stderr.take().context("stderr is piped")?;
        let is_over = AtomicBool::new(false);
        let mut said = Vec::new();
        let (id, over) = (child.id(), &is_over);
        let (ended, weights, signalled) = thread::scope(|scope| {
            let scales = scope.spawn(|| weigh(&process));
            let canceller = scope.spawn(move || match self.ends {
                Ends::Cancelled(after) => self.cancel(ecs, after, id, over).map(Some),
                _ => Ok(None),
            });
            // The pipe closes when the process ends.
            let read = stderr.read_to_end(&mut said);
            let ended = Instant::now();
            is_over.store(true, Ordering::Relaxed);
            (read.map(|_| ended), scales.join(), canceller.join())
        });
        let cpu = cpu_of(&process).context("the process has no CPU time: this needs Linux's /proc")?;
        let code = child.wait()?.code();
        let weights = weights.map_err(|_| anyhow!("the scales broke"))?;
        ensure!(!weights.is_empty(), "/proc doesn't tell what the process weighs");
        let signalled = signalled.map_err(|_| anyhow!("the run could not be cancelled"))?;
        Ok(Ran { began, ended: ended?, signalled, code, said: String::from_utf8_lossy(&said).into(), cpu, weights })
    }

    /// Sends SIGTERM once every service has been updated for a while; gives when.
    fn cancel(&self, ecs: &LocalEcs, after: Duration, id: u32, is_over: &AtomicBool) -> Result<Instant> {
        let updates = |view: &View<'_>| view.writes().iter().filter(|write| write.starts_with("UpdateService")).count();
        let over = || is_over.load(Ordering::Relaxed);
        let is_due = |view: &View<'_>| over() || updates(view) == self.services.len();
        let are_updated = ecs.wait_until(Duration::from_mins(4), is_due);
        if self.settings.limits.is_some() {
            thread::sleep(BUCKET_IS_FULL);
        }
        thread::sleep(after);
        let at = Instant::now();
        ensure!(!over(), "the run ended before it was cancelled");
        let status = Command::new("kill").args(["-s", "TERM", &id.to_string()]).status()?;
        ensure!(status.success() && are_updated, "the run was cancelled before every service was updated");
        Ok(at)
    }

    /// What the run cost, if it ended as it was to.
    fn judge(&self, ecs: &LocalEcs, ran: &Ran) -> Result<Figures> {
        let signalled = ran.signalled.as_ref().map_err(|error| anyhow!("{error:#}"))?;
        let (code, version) = match self.ends {
            Ends::Deployed => (0, 2),
            _ => (1, 1),
        };
        ensure!(ran.code == Some(code), "the exit code is {:?}, not {code}", ran.code);
        let requests = ecs.requests();
        for (name, _) in &self.services {
            let runs = ecs.task_definition_of(name);
            ensure!(runs == format!("{name}:{version}"), "`{name}` was left at {runs}");
        }
        let rollouts = self.services.iter().map(|(name, _)| rollout(ecs, name));
        let mut figures = ran.figures(&requests, self.arrivals(ecs, &requests));
        match self.ends {
            Ends::Deployed => {
                let rollouts: Vec<_> = rollouts.collect::<Option<_>>().context("a rollout never ended")?;
                let done = rollouts.iter().map(|(_, done)| *done).max().context("no service")?;
                ensure!(ran.ended >= done, "the run ended before ECS had replaced every task");
                figures.after_success = Some(seconds(done, ran.ended));
                let slowest = rollouts.iter().map(|(begun, done)| seconds(*begun, *done)).reduce(f64::max);
                figures.rollout = slowest;
                figures.cpu_waiting = ran.cpu_between(rollouts[0].0, rollouts[0].1);
            }
            Ends::TasksFailed(nth) => figures.to_notice = Some(self.noticed(ecs, &requests, What::TaskFailed, nth)?),
            Ends::GivenUp => figures.to_notice = Some(self.noticed(ecs, &requests, What::Failed, 1)?),
            Ends::Cancelled(_) => {
                let signalled = signalled.context("no signal was sent")?;
                let back: Vec<_> = rollbacks(&requests).filter(|request| request.answer == Answer::Ok).collect();
                ensure!(back.len() == self.services.len(), "{} services went back", back.len());
                ensure!(back.iter().all(|request| request.at > signalled), "a rollback came before the signal");
                figures.to_cancel = back.iter().map(|request| seconds(signalled, request.at)).reduce(f64::max);
            }
        }
        Ok(figures)
    }

    /// When each request came, those through the load balancer included.
    fn arrivals(&self, ecs: &LocalEcs, requests: &[Request]) -> Vec<Instant> {
        let names = self.services.iter().map(|(name, _)| name);
        let asked = ecs.view(|view| names.flat_map(|name| view.lb_requests_at(name)).collect::<Vec<_>>());
        requests.iter().map(|request| request.at).chain(asked).collect()
    }

    /// From the `nth` time that this happened to the new version until the rollback's request.
    fn noticed(&self, ecs: &LocalEcs, requests: &[Request], what: What, nth: usize) -> Result<f64> {
        let (name, _) = self.services.first().context("no service")?;
        let new = format!("{name}:2");
        let moments = ecs.moments(name).into_iter();
        let mut known = moments.filter(|moment| moment.task_definition == new && moment.what == what);
        let known = known.nth(nth - 1).with_context(|| format!("{what:?} didn't come {nth} times"))?.at;
        let back = rollbacks(requests).next().context("no rollback was requested")?;
        if back.at < known {
            bail!("the rollback was requested before ECS knew of the failure that decides");
        }
        Ok(seconds(known, back.at))
    }
}

/// When a service's update took effect, and when it could be known that all new tasks serve and no old one can be
/// reached.
fn rollout(ecs: &LocalEcs, name: &str) -> Option<(Instant, Instant)> {
    let (moments, new) = (ecs.moments(name), format!("{name}:2"));
    let at = |what| {
        let moment = moments.iter().find(|moment| moment.task_definition == new && moment.what == what);
        moment.map(|moment| moment.at)
    };
    Some((at(What::UpdateRequested)?, at(What::AllServing)?.max(at(What::OldUnreachable)?)))
}

/// The requests that point a service back at what it ran.
fn rollbacks(requests: &[Request]) -> impl Iterator<Item = &Request> {
    let is_back = |request: &&Request| request.body["taskDefinition"].as_str().is_some_and(|to| to.ends_with(":1"));
    requests.iter().filter(|request| request.operation == "UpdateService").filter(is_back)
}

impl Figures {
    /// All requests.
    pub fn calls(&self) -> f64 {
        self.calls.values().map(|calls| calls.total).sum()
    }
}

impl Calls {
    fn of(at: Vec<Instant>) -> Self {
        Self { total: number(at.len()), in_a_second: number(worst_second(at)) }
    }
}

/// A run that has ended.
struct Ran {
    began: Instant,
    ended: Instant,
    /// When the signal was sent, if one was to be.
    signalled: Result<Option<Instant>>,
    code: Option<i32>,
    said: String,
    cpu: f64,
    weights: Vec<Weight>,
}

/// A look at a process: its CPU time until then, and the most memory it had.
struct Weight {
    at: Instant,
    cpu: f64,
    memory: f64,
}

impl Ran {
    /// What can be said of any run.
    fn figures(&self, requests: &[Request], arrivals: Vec<Instant>) -> Figures {
        let mut calls: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for request in requests {
            calls.entry(request.operation.clone()).or_default().push(request.at);
        }
        let is_read = |request: &&Request| ["Describe", "List"].iter().any(|verb| request.operation.starts_with(verb));
        let reads: Vec<_> = requests.iter().filter(is_read).map(|request| request.at).collect();
        let throttled = Answer::Error("ThrottlingException".to_owned());
        let registered = requests.iter().find(|request| request.operation == "RegisterTaskDefinition");
        Figures {
            after_success: None,
            to_notice: None,
            to_cancel: None,
            calls: calls.into_iter().map(|(operation, at)| (operation, Calls::of(at))).collect(),
            reads: number(reads.len()),
            reads_in_a_second: number(worst_second(reads)),
            requests_in_a_second: number(worst_second(arrivals)),
            throttled: number(requests.iter().filter(|request| request.answer == throttled).count()),
            wall: seconds(self.began, self.ended),
            since_registering: registered.map(|request| seconds(request.at, self.ended)),
            rollout: None,
            cpu: self.cpu,
            cpu_waiting: None,
            memory: self.weights.iter().map(|weight| weight.memory).fold(0.0, f64::max),
        }
    }

    /// The share of one core between two moments, in per cent, without the first and the last five seconds; only for a
    /// wait that is long enough for the kernel's ticks.
    fn cpu_between(&self, from: Instant, to: Instant) -> Option<f64> {
        let margin = Duration::from_secs(5);
        let within = |weight: &&Weight| weight.at > from + margin && weight.at + margin < to;
        let mut within = self.weights.iter().filter(within);
        let first = within.next()?;
        let last = within.next_back().filter(|last| last.at - first.at > Duration::from_mins(1))?;
        Some((last.cpu - first.cpu) / seconds(first.at, last.at) * 100.0)
    }
}

/// Looks at a process now and then until it has ended.
fn weigh(process: &Path) -> Vec<Weight> {
    let mut weights = Vec::new();
    // A process that has ended is still listed until it is waited for, but without its memory.
    while let Some(memory) = memory_of(process) {
        weights.extend(cpu_of(process).map(|cpu| Weight { at: Instant::now(), cpu, memory }));
        thread::sleep(LOOKS);
    }
    weights
}

/// The most resident memory that a process had, in megabytes.
fn memory_of(process: &Path) -> Option<f64> {
    let status = fs::read_to_string(process.join("status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    Some(line?.parse::<f64>().ok()? * 1024.0 / 1e6)
}

/// The CPU time of a process, also of one that has ended and is not waited for yet, in seconds.
fn cpu_of(process: &Path) -> Option<f64> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    // The program's name comes second, in parentheses, and may itself hold spaces; utime and stime are 14th and 15th.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11).map(str::parse::<f64>);
    Some((fields.next()?.ok()? + fields.next()?.ok()?) / TICKS_A_SECOND)
}

/// The most of these moments that lie within one second.
fn worst_second(mut moments: Vec<Instant>) -> usize {
    moments.sort();
    let until = |from: &Instant| moments.partition_point(|at| *at < *from + Duration::from_secs(1));
    moments.iter().enumerate().map(|(index, from)| until(from) - index).max().unwrap_or(0)
}

fn seconds(from: Instant, to: Instant) -> f64 {
    (to - from).as_secs_f64()
}

/// A count, as a number to reckon with.
pub fn number(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}

/// The last lines of what a process said.
fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
