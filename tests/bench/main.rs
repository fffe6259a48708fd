//! `cargo bench`: what a deploy by the real binary costs, beside the least that it could, and whether that is as little
//! as it is to be.
//!
//! `cargo bench -- WORD` runs the scenarios whose names contain the word, `-- --runs 3` each so often, `-- --list` names
//! them. The environment variable `GEHEN_BINARY` has another binary measured.

mod alone;
mod measure;
mod tables;
mod targets;

use std::{
    process::ExitCode,
    sync::{Condvar, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use local_ecs::{Behaviour, Limits, ServiceBuilder, Settings, service};

use crate::{
    measure::{Ends, Figures, OLD, Trial, number},
    tables::say,
};

/// How often each scenario is run unless `--runs` says otherwise.
const RUNS: usize = 10;
/// How much load at a time doesn't disturb what is measured, in [`Scenario::load`]s, on two cores.
const MOST_LOAD: usize = 20;
/// Runs begin so far apart, lest they all start their processes in one moment.
const APART: Duration = Duration::from_millis(150);

/// What is measured again and again.
struct Scenario {
    name: String,
    /// The load of one run, by the measure of one deploy of one service.
    load: usize,
    /// Makes a run; the moments of each are to fall elsewhere between two of gehen's looks, by this much.
    trial: Box<dyn Fn(Duration) -> Trial + Sync>,
}

/// A scenario with the figures of its runs.
pub struct Measured {
    /// What it is called.
    pub name: String,
    /// Of the runs that ended as they were to.
    pub figures: Vec<Figures>,
    /// Why the others didn't.
    pub failures: Vec<String>,
}

/// All scenarios, in the order in which they begin: what lasts long first, and what is a load last.
fn scenarios() -> Vec<Scenario> {
    let rollouts = [120, 20, 2].map(|lasts| {
        let lasts = Duration::from_secs(lasts);
        scenario(format!("rollout of {} s", lasts.as_secs()), 1, move |phase| one(paced(lasts, phase)))
    });
    let third = Ends::TasksFailed(3);
    let failures = [
        ("image not found", Behaviour::ImageMissing, Ends::TasksFailed(1)),
        ("container crashes on start", Behaviour::CrashesOnStart { exit_code: 1 }, third),
        ("container health check", Behaviour::FailsContainerHealthCheck, third),
        ("load balancer health check", Behaviour::FailsLoadBalancerHealthCheck, third),
        ("secret not found", Behaviour::ResourceInitialization, third),
        // Without any task that fails, only the deployment itself tells.
        ("circuit breaker says FAILED", Behaviour::NoCapacity, Ends::GivenUp),
    ];
    let failures = failures.map(|(name, behaviour, ends)| {
        scenario(format!("failure: {name}"), 1, move |phase| {
            let settings = paced(Duration::from_secs(4), phase);
            let service = if matches!(ends, Ends::GivenUp) { api().circuit_breaker(false) } else { api() };
            Trial { behaviour: behaviour.clone(), ends, services: vec![("api".to_owned(), service)], ..one(settings) }
        })
    });
    let cancelled = |trial: Trial, phase| Trial {
        behaviour: Behaviour::NeverStarts,
        ends: Ends::Cancelled(Duration::from_secs(1) + phase),
        ..trial
    };
    let signals = [
        scenario("signal, 1 service", 1, move |phase| cancelled(one(paced(Duration::from_secs(5), phase)), phase)),
        scenario("signal, 50 services", 4, move |phase| {
            let limits = Some(Limits { used_by_others: 0.0 });
            cancelled(Trial { is_registered: true, ..fleet(50, 1, limits, phase) }, phase)
        }),
    ];
    let half = Some(Limits { used_by_others: 0.5 });
    let alone = scenario("1 service, rollout of 5 s", 1, move |phase| fleet(1, 1, None, phase));
    let fleets = [500, 100, 10].into_iter().flat_map(|count| {
        [(1, None, "1 cluster, no limits"), (3, half, "3 clusters, limits half used")].map(
            |(clusters, limits, what)| {
                // 500 registrations would take more than a quarter of an hour, by the bucket alone.
                let is_registered = count == 500;
                let trial = move |phase| Trial { is_registered, ..fleet(count, clusters, limits, phase) };
                let ready = if is_registered { " with revisions ready" } else { "" };
                scenario(format!("{count} services{ready}, {what}"), 2, trial)
            },
        )
    });
    // Registered already and long enough that all are under way together, however they are paced.
    let together = scenario("together: 100 services, 3 clusters, rollout of 60 s, limits half used", 3, move |phase| {
        let trial = fleet(100, 3, half, phase);
        let settings = Settings { limits: half, ..paced(Duration::from_mins(1), phase) };
        Trial { is_registered: true, settings, ..trial }
    });
    rollouts.into_iter().chain([alone]).chain(failures).chain(signals).chain([together]).chain(fleets).collect()
}

fn scenario(name: impl Into<String>, load: usize, trial: impl Fn(Duration) -> Trial + Sync + 'static) -> Scenario {
    Scenario { name: name.into(), load, trial: Box::new(trial) }
}

/// Rollouts that last so long until the last new task is healthy: most of it for the image, then the health checks. Old
/// tasks then drain for AWS's five minutes.
fn paced(lasts: Duration, phase: Duration) -> Settings {
    let ms = Duration::from_millis;
    let (scheduling, activating, provisioning) = (ms(100), ms(100), lasts / 8);
    let healthy_after = (lasts / 4).min(Duration::from_secs(10));
    Settings {
        scheduling: scheduling + phase,
        provisioning,
        stagger: ms(200),
        pulling: lasts.saturating_sub(scheduling + provisioning + activating + healthy_after),
        activating,
        healthy_after,
        unhealthy_after: healthy_after * 2,
        crashes_after: healthy_after / 2,
        deregistration_delay: Duration::from_mins(5),
        stopping: Duration::from_secs(2),
        deprovisioning: Duration::from_secs(1),
        failure_spacing: ms(500),
        ..Settings::fast()
    }
}

fn api() -> ServiceBuilder {
    service("api").running(OLD)
}

/// A good version of one service with a url.
fn one(settings: Settings) -> Trial {
    Trial {
        settings,
        services: vec![("api".to_owned(), api())],
        parallel: 1,
        is_registered: false,
        behaviour: Behaviour::Healthy,
        ends: Ends::Deployed,
    }
}

/// A good version of so many services, all at once, each with a rollout of 5 s.
fn fleet(count: usize, clusters: usize, limits: Option<Limits>, phase: Duration) -> Trial {
    let services = (0..count).map(|number| {
        let name = format!("s{number:03}");
        let service = service(&name).running(OLD).cluster(&format!("fleet-{}", number % clusters));
        (name, service)
    });
    let settings = Settings { limits, ..paced(Duration::from_secs(5), phase) };
    Trial { services: services.collect(), parallel: count, ..one(settings) }
}

/// What the command line asks for.
struct Asked {
    runs: usize,
    lists: bool,
    words: Vec<String>,
}

impl Asked {
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut asked = Self { runs: RUNS, lists: false, words: Vec::new() };
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                // What cargo itself gives to every benchmark.
                "--bench" => {}
                "--list" => asked.lists = true,
                "--runs" => {
                    let runs = arguments.next().context("--runs needs a number")?;
                    asked.runs = runs.parse().ok().filter(|runs| *runs > 0).context("--runs needs a number")?;
                }
                flag if flag.starts_with('-') => bail!("unknown flag `{flag}`; there are --runs NUMBER and --list"),
                word => asked.words.push(word.to_owned()),
            }
        }
        Ok(asked)
    }

    fn wants(&self, name: &str) -> bool {
        self.words.is_empty() || self.words.iter().any(|word| name.contains(word))
    }
}

#[expect(clippy::print_stderr, reason = "how far the runs are is not part of the result")]
fn tell(text: std::fmt::Arguments<'_>) {
    eprintln!("{text}");
}

fn main() -> ExitCode {
    let is_good = Asked::read(std::env::args().skip(1)).and_then(|asked| figures(&asked));
    match is_good {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            tell(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Measures what was asked for and prints it; false where a run went wrong or a target was missed.
fn figures(asked: &Asked) -> Result<bool> {
    let (weight, capacity) = ("weight of the binary", "capacity of the local ECS");
    let scenarios: Vec<_> = scenarios().into_iter().filter(|scenario| asked.wants(&scenario.name)).collect();
    let alone: Vec<_> = [weight, capacity].into_iter().filter(|name| asked.wants(name)).collect();
    if asked.lists {
        let names = scenarios.iter().map(|scenario| scenario.name.as_str()).chain(alone);
        names.for_each(say);
        return Ok(true);
    }
    let since = Instant::now();
    let weight = alone.contains(&weight).then(alone::weigh).transpose()?;
    let capacity = alone.contains(&capacity).then(alone::capacity).transpose()?;
    let (measured, late) = alone::lateness(|| measure_all(&scenarios, asked.runs));
    let is_dev = if cfg!(debug_assertions) { ", in a build for development" } else { "" };
    say(&format!("Median / worst of {} runs{is_dev}, in {} s.\n", asked.runs, since.elapsed().as_secs()));
    tables::print(&measured);
    tables::print_alone(weight.as_ref(), capacity.as_ref(), &late, &measured);
    let good = targets::check(&measured, weight.as_ref(), asked.words.is_empty());
    Ok(good && measured.iter().all(|one| one.failures.is_empty()))
}

/// Runs everything, as much at a time as there is room for.
fn measure_all(scenarios: &[Scenario], runs: usize) -> Vec<Measured> {
    let (since, room) = (Instant::now(), Room::default());
    let begin =
        |scenario: &Scenario| Measured { name: scenario.name.clone(), figures: Vec::new(), failures: Vec::new() };
    let measured: Vec<_> = scenarios.iter().map(|scenario| Mutex::new(begin(scenario))).collect();
    thread::scope(|scope| {
        for (scenario, measured) in scenarios.iter().zip(&measured) {
            for nth in 0..runs {
                let taken = room.take(scenario.load);
                let phase = Duration::from_secs_f64(number(nth) / number(runs));
                scope.spawn(move || {
                    let figures = (scenario.trial)(phase).run();
                    drop(taken);
                    let mut measured = measured.lock().unwrap_or_else(PoisonError::into_inner);
                    let seconds = since.elapsed().as_secs();
                    match figures {
                        Ok(figures) => measured.figures.push(figures),
                        Err(error) => {
                            let why = format!("{error:#}");
                            tell(format_args!("{seconds:4} s: {} went wrong: {why}", scenario.name));
                            measured.failures.push(why.lines().next().unwrap_or_default().to_owned());
                        }
                    }
                    let ended = measured.figures.len() + measured.failures.len();
                    tell(format_args!("{seconds:4} s: {}: {ended} of {runs}", scenario.name));
                });
                thread::sleep(APART);
            }
        }
    });
    measured.into_iter().map(|one| one.into_inner().unwrap_or_else(PoisonError::into_inner)).collect()
}

/// How much of [`MOST_LOAD`] is taken.
#[derive(Default)]
struct Room {
    taken: Mutex<usize>,
    left: Condvar,
}

impl Room {
    /// Waits until there is room for this load, and takes it until the guard is dropped.
    fn take(&self, load: usize) -> Taken<'_> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = self.left.wait_while(taken, |taken| *taken + load > MOST_LOAD);
        *taken.unwrap_or_else(PoisonError::into_inner) += load;
        Taken { room: self, load }
    }
}

/// Room that is taken.
struct Taken<'a> {
    room: &'a Room,
    load: usize,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        *self.room.taken.lock().unwrap_or_else(PoisonError::into_inner) -= self.load;
        self.room.left.notify_all();
    }
}
