//! What the stories are told with: gehen.yml for services of a local ECS, and a run of the real binary.

use std::{
    fmt::Write as _,
    io::Read as _,
    process::{Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use local_ecs::{LocalEcs, ServiceBuilder, Settings};
use tempfile::TempDir;

/// The version that runs before a story begins.
pub const OLD: &str = "01d0000";
/// The version that a story deploys.
pub const NEW: &str = "ae30000";
/// `timeoutMinutes` of three seconds, for stories in which a check runs out of time.
pub const SHORT: &str = "timeoutMinutes: 0.05";

/// A fast local ECS with these services, each behind a load balancer unless it says otherwise.
pub fn ecs(services: impl IntoIterator<Item = ServiceBuilder>) -> LocalEcs {
    ecs_with(Settings::fast(), services)
}

/// A local ECS with these settings and services.
pub fn ecs_with(settings: Settings, services: impl IntoIterator<Item = ServiceBuilder>) -> LocalEcs {
    let ecs = LocalEcs::start(settings);
    for service in services {
        ecs.create(service);
    }
    ecs
}

/// A gehen.yml, and everything else that a run is given.
pub struct Gehen {
    folder: TempDir,
    environment: Vec<(String, String)>,
}

/// gehen.yml with the services `names` of `ecs`, in this order and with their urls, after the line `head`.
pub fn gehen_yml(ecs: &LocalEcs, head: &str, names: &[&str]) -> Gehen {
    let mut file = format!("{head}\nservices:\n");
    for name in names {
        let _ = write!(file, "  {name}:\n    cluster: {}\n    url: {}\n", ecs.cluster_arn(name), ecs.url(name));
    }
    gehen_file(ecs, &file)
}

/// As [`gehen_yml`], without urls.
pub fn gehen_yml_without_urls(ecs: &LocalEcs, head: &str, names: &[&str]) -> Gehen {
    let mut file = format!("{head}\nservices:\n");
    for name in names {
        let _ = write!(file, "  {name}:\n    cluster: {}\n", ecs.cluster_arn(name));
    }
    gehen_file(ecs, &file)
}

/// A gehen.yml with this text, and the environment in which the AWS SDK finds `ecs`.
pub fn gehen_file(ecs: &LocalEcs, text: &str) -> Gehen {
    let folder = tempfile::tempdir().expect("a folder for gehen.yml");
    std::fs::write(folder.path().join("gehen.yml"), text).expect("gehen.yml can be written");
    let gehen = Gehen { folder, environment: Vec::new() };
    gehen
        .with("AWS_ENDPOINT_URL", &ecs.endpoint())
        .with("AWS_ACCESS_KEY_ID", "local")
        .with("AWS_SECRET_ACCESS_KEY", "local")
        .with("AWS_EC2_METADATA_DISABLED", "true")
}

impl Gehen {
    /// Sets an environment variable; the run sees no others.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Runs `gehen -gitsha version`.
    pub fn deploy(&self, version: &str) -> Run {
        self.run(&["-gitsha", version])
    }

    /// Runs gehen with these arguments, in the folder of its gehen.yml.
    pub fn run(&self, arguments: &[&str]) -> Run {
        self.start(arguments).wait()
    }

    /// Starts gehen with these arguments.
    pub fn start(&self, arguments: &[&str]) -> Running {
        let since = Instant::now();
        let child = Command::new(env!("CARGO_BIN_EXE_gehen"))
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the gehen binary can be started");
        Running { child, since }
    }
}

/// A run that has not ended.
pub struct Running {
    pub child: std::process::Child,
    since: Instant,
}

impl Running {
    /// Waits for the end of the run.
    pub fn wait(mut self) -> Run {
        let mut stdout = self.child.stdout.take().expect("stdout is piped");
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).map(|_| text)
        });
        let mut stderr = String::new();
        let mut pipe = self.child.stderr.take().expect("stderr is piped");
        pipe.read_to_string(&mut stderr).expect("stderr is UTF-8");
        let stdout = reader.join().expect("the reader ends").expect("stdout is UTF-8");
        let status = self.child.wait().expect("the run ends");
        Run { status, stdout, stderr, took: self.since.elapsed() }
    }
}

/// A run that has ended.
#[derive(Debug)]
pub struct Run {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Run {
    /// Asserts the exit code; shows all that was printed where it is another.
    #[track_caller]
    pub fn exits(&self, code: i32) -> &Self {
        assert_eq!(self.status.code(), Some(code), "after {:?}:\n{}", self.took, self.stderr);
        self
    }

    /// Asserts that a line of stderr contains `text`.
    #[track_caller]
    pub fn says(&self, text: &str) -> &Self {
        assert!(self.stderr.contains(text), "`{text}` is not in:\n{}", self.stderr);
        self
    }

    /// Asserts that no line of stderr contains `text`.
    #[track_caller]
    pub fn never_says(&self, text: &str) -> &Self {
        assert!(!self.stderr.contains(text), "`{text}` is in:\n{}", self.stderr);
        self
    }

    /// stderr with what differs from run to run made equal: times, deployment and task ids, ports and durations.
    pub fn transcript(&self) -> String {
        self.stderr.lines().map(|line| steady(line) + "\n").collect()
    }
}

/// `line` without what differs from run to run.
fn steady(line: &str) -> String {
    let mut line = line.to_owned();
    if line.get(..20).is_some_and(|time| time.ends_with('Z')) {
        line.replace_range(..20, "TIME");
    }
    for (before, digits, placeholder) in [
        ("ecs-svc/", char::is_numeric as fn(char) -> bool, "ID"),
        ("(task ", |character: char| character.is_ascii_hexdigit(), "TASK"),
        ("127.0.0.1:", char::is_numeric, "PORT"),
    ] {
        let mut from = 0;
        while let Some(found) = line[from..].find(before) {
            let start = from + found + before.len();
            let end = line[start..].find(|character| !digits(character)).map_or(line.len(), |length| start + length);
            line.replace_range(start..end, placeholder);
            from = start + placeholder.len();
        }
    }
    line
}
