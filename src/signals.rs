//! Whether the user or the CI system wants the run to end: SIGINT, SIGTERM, SIGHUP, and under CI the parent's death.

use std::{cell::Cell, io::IsTerminal as _, time::Duration};

use anyhow::Context as _;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::Notify,
    time::Instant,
};

/// The signals that end a run, by name and number.
const ENDING: [(&str, SignalKind); 3] =
    [("SIGINT", SignalKind::interrupt()), ("SIGTERM", SignalKind::terminate()), ("SIGHUP", SignalKind::hangup())];

/// A terminal sends Ctrl-C to a whole group of processes, and some of them pass it on: what comes so soon after the
/// first is the same.
const SAME_CTRL_C: Duration = Duration::from_millis(500);

/// Knows whether a signal has asked for the end of the run.
#[derive(Default)]
pub struct Cancel {
    by: Cell<Option<&'static str>>,
    news: Notify,
}

impl Cancel {
    /// Waits for the first signal that ends the run, and gives its name; at once if it has come already.
    pub async fn cancelled(&self) -> &'static str {
        loop {
            let news = self.news.notified();
            if let Some(by) = self.by.get() {
                return by;
            }
            news.await;
        }
    }

    fn cancel(&self, by: &'static str) {
        self.by.set(Some(by));
        self.news.notify_waiters();
    }

    /// Whether a signal has asked for the end of the run.
    pub fn is_cancelled(&self) -> bool {
        self.by.get().is_some()
    }
}

/// Listens for signals from now on. A signal that was ignored when gehen was started (as `nohup` does with SIGHUP)
/// stays ignored.
pub struct Listener {
    signals: Vec<(&'static str, Signal)>,
    orphaned: bool,
}

impl Listener {
    /// Begins to listen; nothing that arrives from here on is lost. Errors: the system refuses a handler.
    pub fn new() -> anyhow::Result<Self> {
        let ignored = ignored_signals();
        let mut signals = Vec::new();
        for (name, kind) in ENDING {
            if ignored & (1 << (kind.as_raw_value() - 1)) == 0 {
                signals.push((name, signal(kind).with_context(|| format!("cannot listen for {name}"))?));
            }
        }
        Ok(Self { signals, orphaned: std::env::var_os("CI").is_some_and(|ci| !ci.is_empty()) && follow_parent() })
    }

    /// Tells `cancel` of the first signal. Returns only when a person at a terminal presses Ctrl-C a second time; other
    /// further signals change nothing, because CI systems send several.
    pub async fn listen(mut self, cancel: &Cancel) {
        if self.orphaned {
            cancel.cancel("the death of the process that started gehen");
        }
        let mut interrupted: Option<Instant> = None;
        loop {
            let received = self.signals.iter_mut().map(|(name, signal)| {
                Box::pin(async {
                    signal.recv().await;
                    *name
                })
            });
            let received: Vec<_> = received.collect();
            if received.is_empty() {
                return std::future::pending().await; // All of them were ignored from the start.
            }
            let (name, ..) = futures_util::future::select_all(received).await;
            if !cancel.is_cancelled() {
                cancel.cancel(name);
            }
            if name == "SIGINT" && std::io::stdin().is_terminal() {
                if interrupted.is_some_and(|first| first.elapsed() >= SAME_CTRL_C) {
                    return;
                }
                interrupted.get_or_insert_with(Instant::now);
            }
        }
    }
}

/// A bit for each signal that is ignored, the lowest for signal 1, as Linux shows it in `/proc/self/status`. Elsewhere
/// none is known to be.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Asks Linux for a SIGTERM when the parent dies: a CI system that kills the shell of a step would otherwise leave
/// gehen running unseen. Gives whether the parent had died already, in which case no signal would come.
#[cfg(target_os = "linux")]
fn follow_parent() -> bool {
    let parent = rustix::process::getppid();
    let asked = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
    asked.is_ok() && rustix::process::getppid() != parent
}

/// Other systems have no such signal.
#[cfg(not(target_os = "linux"))]
fn follow_parent() -> bool {
    false
}
