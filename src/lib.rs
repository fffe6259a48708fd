//! gehen puts a new version of a service onto AWS ECS and doesn't walk away until it is proven live or undone.
//!
//! The crate exists for the `gehen` binary, its tests and its demo; its one public function is [`run`].

mod aws;
mod cli;
mod config;
mod datadog;
mod deploy;
mod ecr;
mod ecs;
mod eventbridge;
mod git_sha;
mod image;
mod outcome;
mod ping;
mod poll;
mod report;
mod signals;
mod text;

use std::{ffi::OsString, process::ExitCode, sync::Arc};

use anyhow::Context as _;

use crate::{
    aws::Aws,
    cli::{Command, Request},
    datadog::Datadog,
    deploy::{Clients, NotBegun, Order},
    ecr::Ecr,
    ecs::Ecs,
    eventbridge::EventBridge,
    git_sha::GitSha,
    outcome::End,
    ping::Ping,
    report::About,
    signals::{Cancel, Listener},
};

/// Does what the arguments ask for; they are those that follow the program's name. Lines for people go to stderr,
/// results that a script reads to stdout. Gives 0 for deployed, 1 for failed, 2 for live but not drained.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<_> = arguments.into_iter().collect();
    let log_format = cli::log_format(&arguments);
    let request = match cli::parse(arguments) {
        Ok(Command::Deploy(request)) => request,
        Ok(Command::Print(text)) => {
            report::print(&text);
            return ExitCode::SUCCESS;
        }
        Err(mistake) => {
            report::start(log_format);
            return end(&End::Error(&mistake));
        }
    };
    report::start(request.log_format);
    report::deploys(&request.version);
    deploy(&request).unwrap_or_else(|error| match error.downcast_ref() {
        Some(refused) => end(&End::Refused(refused)),
        None => end(&End::Error(&format!("{error:#}"))),
    })
}

/// Tells how the run ended, and gives its exit code.
fn end(end: &End<'_>) -> ExitCode {
    report::end(end);
    ExitCode::from(end.exit_code())
}

fn deploy(request: &Request) -> anyhow::Result<ExitCode> {
    let config = config::load(&request.path)?.only(&request.only)?;
    let (services, scheduled_tasks) = (&config.services, &config.scheduled_tasks);
    let parts = services.iter().map(|service| About::Service(&service.name));
    let parts = parts.chain(scheduled_tasks.iter().map(|task| About::ScheduledTask(&task.rule)));
    report::begins(parts, &request.version, config.parallel == 1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    let datadog = if request.dry_run { None } else { tell_datadog(&request.version) };
    let code = runtime.block_on(async {
        let (listener, cancel) = (Listener::new()?, Cancel::default());
        let run = async {
            // First, because it says so where there are no CA certificates; the AWS SDK panics.
            let ping = Ping::new()?;
            let connected = async {
                let aws = Aws::load(&config, &request.version).await;
                let events = EventBridge::connect(&aws, scheduled_tasks);
                let ecs = Ecs::connect(&aws, services, events.regions())?;
                aws.assume_role().await?;
                anyhow::Ok((aws, ecs, events))
            };
            let (aws, ecs, events) = tokio::select! {
                biased;
                by = cancel.cancelled() => return Ok(end(&End::Cancelled(by))),
                connected = connected => connected?,
            };
            let clients = Clients::new(ecs, events, Ecr::new(&aws), ping);
            let order = Order { services, scheduled_tasks, version: &request.version, parallel: config.parallel };
            let ended = if request.dry_run {
                deploy::plan(&clients, &order, &cancel, aws.credentials_end()).await.map(|()| None)
            } else {
                deploy::deploy(&clients, &order, &cancel, aws.credentials_end()).await.map(Some)
            };
            Ok(match ended {
                Ok(Some(ended)) => end(&End::All(&ended)),
                Ok(None) => end(&End::Planned),
                Err(NotBegun::Problems(problems)) => end(&End::Problems(&problems)),
                Err(NotBegun::Cancelled(by)) => end(&End::Cancelled(by)),
            })
        };
        tokio::select! {
            code = run => code,
            () = listener.listen(&cancel) => Ok(end(&End::Abandoned)),
        }
    });
    // A name that is still being looked up must not hold up the exit.
    runtime.shutdown_background();
    if let Some(datadog) = datadog {
        datadog.finish();
    }
    code
}

/// Has the Datadog agent that the environment names, if it does, told what becomes of the services.
fn tell_datadog(version: &GitSha) -> Option<Arc<Datadog>> {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let host = set("DD_AGENT_HOST")?;
    let port = match set("DD_DOGSTATSD_PORT").map(|text| text.parse().map_err(|_| text)) {
        None => datadog::PORT,
        Some(Ok(port)) => port,
        Some(Err(text)) => {
            report::no_port(&text);
            return None;
        }
    };
    let datadog = Arc::new(Datadog::start(host, port, version.clone()));
    let hears = Arc::clone(&datadog);
    report::also_tell(move |service, event| hears.hear(service, event));
    Some(datadog)
}
