//! The demo of the README: gehen deploys two services of a local ECS, then a broken version, which it undoes.

use std::{
    fmt,
    process::{Command, ExitCode},
    time::Duration,
};

use local_ecs::{Behaviour, LocalEcs, Settings, service};

const OLD: &str = "01d0000";
const GOOD: &str = "900d111";
const BROKEN: &str = "bad2222";

/// Set in the processes in which this program is gehen.
const AS_GEHEN: &str = "GEHEN_DEMO_IS_GEHEN";

fn main() -> ExitCode {
    if std::env::var_os(AS_GEHEN).is_some() {
        return gehen::run(std::env::args_os().skip(1));
    }
    match demo() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("the demo went wrong: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn demo() -> anyhow::Result<()> {
    let mut settings = Settings::fast();
    settings.pulling = Duration::from_secs(1);
    let ecs = LocalEcs::start(settings);
    ecs.create(service("api").running(OLD).cluster("demo"));
    ecs.create(service("web").running(OLD).cluster("demo").circuit_breaker(false));
    ecs.version(BROKEN, Behaviour::CrashesOnStart { exit_code: 1 });

    let folder = tempfile::tempdir()?;
    let path = folder.path().join("gehen.yml");
    let file = format!(
        "timeoutMinutes: 0.1\nservices:\n  api:\n    cluster: {}\n    url: {}\n  web:\n    cluster: {}\n    url: {}\n",
        ecs.cluster_arn("api"),
        ecs.url("api"),
        ecs.cluster_arn("web"),
        ecs.url("web")
    );
    std::fs::write(&path, &file)?;
    say(format_args!("A local ECS runs two services, `api` and `web`, at version {OLD}. This is gehen.yml:\n\n{file}"));

    for (version, what, expected) in [(GOOD, "a good version", 0), (BROKEN, "a version that crashes", 1)] {
        say(format_args!("$ gehen -gitsha {version}    # {what}"));
        let status = Command::new(std::env::current_exe()?)
            .env(AS_GEHEN, "1")
            .env("AWS_ENDPOINT_URL", ecs.endpoint())
            .env("AWS_ACCESS_KEY_ID", "local")
            .env("AWS_SECRET_ACCESS_KEY", "local")
            .args(["-gitsha", version, "-path"])
            .arg(&path)
            .status()?;
        anyhow::ensure!(status.code() == Some(expected), "gehen ended with {status}, not with exit code {expected}");
        say(format_args!("exit code {expected}\n"));
        for name in ["api", "web"] {
            anyhow::ensure!(ecs.runs(name) == GOOD, "{name} runs {}, not {GOOD}", ecs.runs(name));
        }
    }
    say(format_args!(
        "Now with your own services:\n\n  cargo install --locked --path .\n  cp gehen.example.yml gehen.yml    # then name your cluster and services\n  \
         gehen -gitsha \"$(git rev-parse HEAD)\""
    ));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "what the demo says is for people")]
fn say(text: fmt::Arguments<'_>) {
    println!("{text}");
}
