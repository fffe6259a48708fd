//! What the stories are told with: gehen.yml for services of a local ECS, and a run of the real binary.

use std::{
    fmt::Write as _,
    io::{self, Read as _},
    net::{Shutdown, TcpListener, TcpStream},
    process::{Command, ExitStatus, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use local_ecs::{LocalEcs, Moment, ServiceBuilder, Settings, What, image};
use serde_json::json;
use tempfile::TempDir;

/// The version that runs before a story begins.
pub const OLD: &str = "01d0000";
/// The version that a story deploys.
pub const NEW: &str = "ae30000";
/// The version that a colleague deploys.
pub const THEIRS: &str = "c011ea6";
/// `timeoutMinutes` of six seconds, for stories in which a check runs out of time: those of a rollback must not, and a
/// machine that is busy with other tests takes some seconds for them.
pub const SHORT: &str = "timeoutMinutes: 0.1";

/// `timeoutMinutes` of half a minute, for stories in which no check runs out of time.
pub const AMPLE: &str = "timeoutMinutes: 0.5";

/// Long enough for anything that a story awaits, on any machine.
pub const LONG: Duration = Duration::from_mins(1);

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

/// As [`gehen_yml`], with a line of more keys for each service.
pub fn gehen_yml_with(ecs: &LocalEcs, head: &str, services: &[(&str, &str)]) -> Gehen {
    let mut file = format!("{head}\nservices:\n");
    for (name, more) in services {
        let (cluster, url) = (ecs.cluster_arn(name), ecs.url(name));
        let _ = write!(file, "  {name}:\n    cluster: {cluster}\n    url: {url}\n    {more}\n");
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
        self.spawn(Command::new(env!("CARGO_BIN_EXE_gehen")).args(arguments))
    }

    /// Starts a shell that runs `script`, in which `"$0" "$@"` is gehen with these arguments.
    pub fn start_by(&self, script: &str, arguments: &[&str]) -> Running {
        let shell = ["-c", script, env!("CARGO_BIN_EXE_gehen")];
        self.spawn(Command::new("/bin/sh").args(shell).args(arguments))
    }

    /// As [`Self::start`], with a terminal as stdin. The terminal is the other end, to be kept until the run ends.
    #[cfg(target_os = "linux")]
    pub fn start_at_terminal(&self, arguments: &[&str]) -> (Running, std::os::fd::OwnedFd) {
        let (terminal, stdin) = crate::terminal::open();
        let mut command = Command::new(env!("CARGO_BIN_EXE_gehen"));
        (self.spawn_with(command.args(arguments), stdin.into()), terminal)
    }

    /// Readies `command` to run as gehen does in this story.
    pub fn prepare<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.current_dir(self.folder.path()).env_clear().envs(self.environment.iter().cloned())
    }

    fn spawn(&self, command: &mut Command) -> Running {
        self.spawn_with(command, Stdio::null())
    }

    fn spawn_with(&self, command: &mut Command, stdin: Stdio) -> Running {
        let since = Instant::now();
        let child = self
            .prepare(command)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command can be started");
        Running { child, since, said: Vec::new(), _counted: Counted::begin() }
    }
}

/// A run that has not ended.
pub struct Running {
    pub child: std::process::Child,
    since: Instant,
    said: Vec<u8>,
    _counted: Counted,
}

/// How many runs are under way, in all stories that are told at this time.
static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

/// A run that is under way.
struct Counted;

impl Counted {
    fn begin() -> Self {
        UNDER_WAY.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The tries of a story that measures how fast gehen is; the first that does it counts. Other stories take their share
/// of the machine at the same time: each try but the first waits until few of them do, for three minutes at most.
pub fn tries() -> impl Iterator<Item = ()> {
    (0..4).map(|turn| {
        let since = Instant::now();
        while turn > 0 && UNDER_WAY.load(Ordering::Relaxed) > 2 && since.elapsed() < 3 * LONG {
            std::thread::sleep(Duration::from_millis(50));
        }
    })
}

impl Running {
    /// Waits until stderr contains `text`; the run goes on.
    #[track_caller]
    pub fn until_it_says(mut self, text: &str) -> Self {
        let pipe = self.child.stderr.as_mut().expect("stderr is piped");
        let mut byte = [0];
        while !self.said.ends_with(text.as_bytes()) {
            let read = pipe.read(&mut byte).expect("stderr can be read");
            assert!(read > 0, "the run ended without `{text}`:\n{}", String::from_utf8_lossy(&self.said));
            self.said.push(byte[0]);
        }
        self
    }

    /// Waits for the end of the run.
    pub fn wait(mut self) -> Run {
        let mut stdout = self.child.stdout.take().expect("stdout is piped");
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).map(|_| text)
        });
        let mut stderr = String::from_utf8(self.said).expect("stderr is UTF-8");
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

    /// The line in which the run's end tells of `service`, and those below it that tell why and what to do.
    #[track_caller]
    pub fn end_of(&self, service: &str) -> String {
        let lines = self.stderr.lines().filter_map(|line| line.strip_prefix(&format!("{service}: ")));
        let end = lines.collect::<Vec<_>>().join("\n");
        assert!(!end.is_empty(), "no last line tells of `{service}` in:\n{}", self.stderr);
        end
    }

    /// Asserts that the end of `service` begins with `text`.
    #[track_caller]
    pub fn ends(&self, service: &str, text: &str) -> &Self {
        let end = self.end_of(service);
        assert!(end.starts_with(text), "the end of `{service}` is not `{text}` but:\n{end}\nin:\n{}", self.stderr);
        self
    }

    /// stderr with what differs from run to run made equal: times, deployment and task ids, ports and durations.
    pub fn transcript(&self) -> String {
        self.stderr.lines().map(|line| steady(line) + "\n").collect()
    }
}

/// `line` without what differs from run to run.
pub fn steady(line: &str) -> String {
    let mut line = line.to_owned();
    if line.get(..20).is_some_and(|time| time.ends_with('Z')) {
        line.replace_range(..20, "TIME");
    }
    for (before, digits, placeholder) in [
        ("ecs-svc/", char::is_numeric as fn(char) -> bool, "ID"),
        ("(task ", |character: char| character.is_ascii_hexdigit(), "TASK"),
        ("127.0.0.1:", char::is_numeric, "PORT"),
        (" in ", char::is_numeric, "SECONDS"),
        (" after ", char::is_numeric, "SECONDS"),
    ] {
        let mut from = 0;
        while let Some(found) = line[from..].find(before) {
            let start = from + found + before.len();
            let end = line[start..].find(|character| !digits(character)).map_or(line.len(), |length| start + length);
            if start == end {
                from = start;
                continue;
            }
            line.replace_range(start..end, placeholder);
            from = start + placeholder.len();
        }
    }
    line
}

impl Gehen {
    /// Puts a file into the folder that the run starts in, over the one that is there.
    pub fn with_file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        let path = self.folder.path().join(name);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).expect("a folder in the run's own folder can be made");
        }
        std::fs::write(path, content).expect("a file in the run's own folder can be written");
        self
    }

    /// As [`Self::with_file`], a shell script that can be started.
    #[cfg(unix)]
    pub fn with_program(self, name: &str, script: &str) -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        let gehen = self.with_file(name, format!("#!/bin/sh\n{script}\n"));
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(gehen.place_of(name), executable).expect("a file can be made executable");
        gehen
    }

    /// The place of a file in the folder that the run starts in.
    pub fn place_of(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Runs gehen with these arguments while nobody reads what it prints: both pipes are closed at the other end.
    pub fn run_unheard(&self, arguments: &[&str]) -> ExitStatus {
        let closed = || {
            let (reader, writer) = std::io::pipe().expect("a pipe can be made");
            drop(reader);
            writer
        };
        self.prepare(Command::new(env!("CARGO_BIN_EXE_gehen")).args(arguments))
            .stdin(Stdio::null())
            .stdout(closed())
            .stderr(closed())
            .status()
            .expect("the gehen binary can be started")
    }
}

impl Run {
    /// Asserts that all that was printed is this one line on stderr.
    #[track_caller]
    pub fn says_only(&self, line: &str) -> &Self {
        assert_eq!((self.stderr.as_str(), self.stdout.as_str()), (format!("{line}\n").as_str(), ""));
        self
    }

    /// Asserts that `line` is a whole line of stderr.
    #[track_caller]
    pub fn says_line(&self, line: &str) -> &Self {
        assert!(self.stderr.lines().any(|said| said == line), "`{line}` is no line of:\n{}", self.stderr);
        self
    }
}

/// The bodies of the requests of this operation, in their order.
pub fn bodies(ecs: &LocalEcs, operation: &str) -> Vec<serde_json::Value> {
    ecs.requests().into_iter().filter(|request| request.operation == operation).map(|request| request.body).collect()
}

/// As [`gehen_yml`], with one service, whose url is this one.
pub fn gehen_yml_with_url(ecs: &LocalEcs, head: &str, name: &str, url: &str) -> Gehen {
    gehen_file(ecs, &format!("{head}\nservices:\n  {name}:\n    cluster: {}\n    url: {url}\n", ecs.cluster_arn(name)))
}

impl Gehen {
    /// Makes the CA of `ecs` the only one in the root store that the run sees.
    pub fn trusting(self, ecs: &LocalEcs) -> Self {
        let place = self.place_of("ca.pem");
        self.with_file("ca.pem", ecs.certificate_authority()).with("SSL_CERT_FILE", &place)
    }
}

impl Running {
    /// Waits for the end of the run; also gives the most memory that it had resident, in kB (VmHWM of proc(5)).
    pub fn wait_and_weigh(self) -> (Run, u64) {
        let status = format!("/proc/{}/status", self.child.id());
        // A process that has ended is still listed until it is waited for, but without its memory.
        let peak = move || {
            let text = std::fs::read_to_string(&status).ok()?;
            text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok())
        };
        let scales = std::thread::spawn(move || {
            let mut most = 0;
            while let Some(now) = peak() {
                most = now;
                std::thread::sleep(Duration::from_millis(5));
            }
            most
        });
        let run = self.wait();
        (run, scales.join().expect("the scales end with the run"))
    }
}

/// A server that breaks HTTP's rules: has `answer` write whatever it likes to each connection, once a request has
/// come; the number says how many connections came before. It hangs up on whoever stays for longer than 15 seconds, so
/// that a run that waits too long ends too late rather than never. Gives its url, and serves until the tests end.
pub fn rude_server(answer: impl Fn(usize, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a local port is free");
    let url = format!("http://{}/ping", listener.local_addr().expect("a listener has an address"));
    let answer = std::sync::Arc::new(answer);
    std::thread::spawn(move || {
        for (turn, stream) in listener.incoming().flatten().enumerate() {
            let answer = std::sync::Arc::clone(&answer);
            let connection = stream.try_clone();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_secs(15));
                connection?.shutdown(Shutdown::Both)
            });
            std::thread::spawn(move || {
                let mut stream = stream;
                let mut request = Vec::new();
                let mut byte = [0];
                while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte)? > 0 {
                    request.push(byte[0]);
                }
                answer(turn, &mut stream)?;
                stream.shutdown(Shutdown::Both)
            });
        }
    });
    url
}

/// Sends the signal `name` to the process `id`.
pub fn kill(name: &str, id: u32) {
    let status = Command::new("kill").args(["-s", name, &id.to_string()]).status();
    assert!(status.expect("kill can be started").success(), "{name} could not be sent to {id}");
}

/// A colleague's deploy of [`THEIRS`].
pub fn colleague_deploys(ecs: &LocalEcs, service: &str) {
    let revision = colleague_registers(ecs, service, THEIRS);
    let update = json!({"cluster": "staging", "service": service, "taskDefinition": revision});
    ecs.call("us-east-1", "UpdateService", update).expect("the service can be updated");
}

/// Registers a revision of this version for a service, and gives its ARN.
pub fn colleague_registers(ecs: &LocalEcs, service: &str, version: &str) -> String {
    let definition = json!({
        "family": service,
        "containerDefinitions": [{"name": service, "image": image(service, version), "essential": true, "memory": 512,
            "portMappings": [{"containerPort": 8080, "protocol": "tcp"}]}],
    });
    let registered = ecs.call("us-east-1", "RegisterTaskDefinition", definition).expect("a good task definition");
    registered["taskDefinition"]["taskDefinitionArn"].as_str().expect("an ARN").to_owned()
}

/// When this happened to the deployments of `task_definition`, in order.
pub fn moments(ecs: &LocalEcs, service: &str, task_definition: &str, what: What) -> Vec<Instant> {
    let is_it = |moment: &Moment| moment.task_definition == task_definition && moment.what == what;
    ecs.moments(service).into_iter().filter(is_it).map(|moment| moment.at).collect()
}

/// The writes other than registrations, in order.
pub fn updates(ecs: &LocalEcs) -> Vec<String> {
    ecs.writes().into_iter().filter(|write| !write.starts_with("RegisterTaskDefinition")).collect()
}

/// `seconds` from now, as AWS writes it.
pub fn in_seconds(seconds: u64) -> String {
    humantime::format_rfc3339_seconds(std::time::SystemTime::now() + Duration::from_secs(seconds)).to_string()
}
