//! End-to-end tests: the real gehen binary against the local ECS, each a story of one deploy.

mod readme;
mod support;
#[cfg(target_os = "linux")]
mod terminal;

mod by_ecs;
mod config;
mod containers;
mod datadog;
mod deploys;
mod drains;
mod dry_run;
mod failures;
mod fault_table;
mod faults;
mod known_good;
mod parallel;
mod preflight;
mod role;
mod rollbacks;
mod scheduled_tasks;
mod signals;
mod superseded;
mod task_definitions;
mod twice;
mod untypical;
mod update_strategies;
mod urls;
mod usage;
mod watching;
mod when_things_go_wrong;
