//! What a version of a service does once ECS is told to run it.

use std::time::Duration;

/// What a version does once ECS is told to run it; a version is known by the tag of its image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Behaviour {
    /// Starts, passes every health check and answers 200 with `Server: <family>-<tag>` and `pong`.
    #[default]
    Healthy,
    /// The registry has no such image.
    ImageMissing,
    /// Is RUNNING for a moment, then its container exits.
    CrashesOnStart {
        /// The exit code of the container.
        exit_code: i32,
    },
    /// Fails to start because a secret can't be read.
    ResourceInitialization,
    /// Stays PENDING for ever, while the service's events complain that no task can be placed.
    NeverStarts,
    /// No container instance has room: no task is ever made, only the event tells.
    NoCapacity,
    /// Runs, but its target never becomes healthy; without a load balancer it is healthy.
    FailsLoadBalancerHealthCheck,
    /// Runs, but its container's health check fails; without one in the task definition it is healthy.
    FailsContainerHealthCheck,
    /// Healthy for ECS, and answers every request like this; there is no `Server` header unless listed.
    Answers {
        /// The HTTP status.
        status: u16,
        /// Header names and values, sent as they are; only values HTTP can carry.
        headers: Vec<(String, String)>,
        /// The body.
        body: String,
    },
    /// Healthy for ECS; takes requests and never answers them.
    Hangs,
    /// Healthy for ECS; answers with headers and a body that never ends.
    Trickles,
    /// Healthy for ECS; answers without a `Server` header and with as much body as the client will take, without end.
    Floods,
    /// Healthy for ECS, but the first of its tasks that can be reached names itself like this in its `Server` header.
    Stale {
        /// The `Server` header of that task.
        server: String,
    },
    /// Healthy for ECS; redirects every path to itself.
    RedirectLoop,
    /// Healthy for ECS; redirects to `…/landed`, which answers normally.
    Redirects,
    /// Healthy at first; each task exits this long after it began to run.
    CrashesAfter(Duration),
    /// The first tasks of a service crash on start, the later ones are healthy.
    FailsFirst {
        /// How many tasks crash.
        tasks: u32,
    },
}
