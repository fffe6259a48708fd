//! A local ECS for use by hand: prints what to export, and runs until interrupted.

use std::{env, process::ExitCode, thread, time::Duration};

use anyhow::{Context, Result, bail};
use local_ecs::{Behaviour, LocalEcs, Settings};

/// The account that the local ECS is of.
const ACCOUNT: &str = "123456789012";

const HELP: &str = "\
usage: local-ecs [--port PORT] [--speed fast|realistic] [--version-behaves TAG=BEHAVIOUR]...
                 [--ecr-image REGION/NAME:TAG]... [--pull-through-cache REGION/PREFIX]...

behaviours: healthy, missing, crash, no-secret, never-starts, no-capacity, fails-lb, fails-container, hangs, trickles,
            redirect-loop, redirects, status-CODE";

#[expect(clippy::print_stderr, reason = "the program's own word about what went wrong")]
fn main() -> ExitCode {
    match run(env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "what a shell is to evaluate")]
fn run(mut arguments: impl Iterator<Item = String>) -> Result<()> {
    let (mut port, mut settings, mut versions) = (0, Settings::fast(), Vec::new());
    let (mut images, mut rules) = (Vec::new(), Vec::new());
    while let Some(flag) = arguments.next() {
        if flag == "--help" || flag == "-h" {
            println!("{HELP}");
            return Ok(());
        }
        let (flag, inline) = match flag.split_once('=') {
            Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
            None => (flag, None),
        };
        let mut value = || inline.clone().or_else(|| arguments.next()).with_context(|| format!("{flag} needs a value"));
        match flag.as_str() {
            "--port" => port = value()?.parse().context("--port needs a number")?,
            "--speed" => {
                settings = match value()?.as_str() {
                    "fast" => Settings::fast(),
                    "realistic" => Settings::realistic(),
                    other => bail!("--speed is fast or realistic, not `{other}`"),
                };
            }
            "--version-behaves" => versions.push(version(&value()?)?),
            "--ecr-image" => images.push(value()?),
            "--pull-through-cache" => rules.push(value()?),
            other => bail!("unknown flag `{other}`\n{HELP}"),
        }
    }
    let ecs = LocalEcs::start_on(port, settings)?;
    for (tag, behaviour) in versions {
        ecs.version(&tag, behaviour);
    }
    for image in images {
        let parts = image.split_once('/').and_then(|(region, image)| Some((region, image.rsplit_once(':')?)));
        let (region, (name, tag)) = parts.with_context(|| format!("`{image}` is not REGION/NAME:TAG"))?;
        ecs.repository(ACCOUNT, region, name, &[tag]);
    }
    for rule in rules {
        let (region, prefix) = rule.split_once('/').with_context(|| format!("`{rule}` is not REGION/PREFIX"))?;
        ecs.pull_through_cache(ACCOUNT, region, prefix);
    }
    println!("export AWS_ENDPOINT_URL={}", ecs.endpoint());
    println!(
        "export AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local AWS_REGION=us-east-1 AWS_DEFAULT_REGION=us-east-1"
    );
    loop {
        thread::sleep(Duration::from_hours(1));
    }
}

/// Reads `TAG=BEHAVIOUR`.
fn version(text: &str) -> Result<(String, Behaviour)> {
    let (tag, behaviour) = text.split_once('=').with_context(|| format!("`{text}` is not TAG=BEHAVIOUR"))?;
    let behaviour = match behaviour {
        "healthy" => Behaviour::Healthy,
        "missing" => Behaviour::ImageMissing,
        "crash" => Behaviour::CrashesOnStart { exit_code: 1 },
        "no-secret" => Behaviour::ResourceInitialization,
        "never-starts" => Behaviour::NeverStarts,
        "no-capacity" => Behaviour::NoCapacity,
        "fails-lb" => Behaviour::FailsLoadBalancerHealthCheck,
        "fails-container" => Behaviour::FailsContainerHealthCheck,
        "hangs" => Behaviour::Hangs,
        "trickles" => Behaviour::Trickles,
        "redirect-loop" => Behaviour::RedirectLoop,
        "redirects" => Behaviour::Redirects,
        other => {
            let status = other.strip_prefix("status-").and_then(|code| code.parse().ok());
            let Some(status) = status.filter(|status| (100..1000).contains(status)) else {
                bail!("unknown behaviour `{other}`\n{HELP}");
            };
            Behaviour::Answers { status, headers: Vec::new(), body: String::new() }
        }
    };
    Ok((tag.to_owned(), behaviour))
}
