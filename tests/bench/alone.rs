//! What is measured while nothing else runs: the weight of the binary, and what the local ECS can bear; and how far the
//! runs side by side disturb each other.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use local_ecs::{LocalEcs, Settings, service};

use crate::{
    measure::{gehen, number},
    tables::median,
};

/// How often each program is started.
const STARTS: usize = 300;
/// How long the local ECS is asked.
const ASKED: Duration = Duration::from_secs(2);
/// How many services it has meanwhile: as many as the largest scenario.
const SERVICES: usize = 500;

/// What the binary weighs.
pub struct Weight {
    /// Its size, in megabytes.
    pub size: f64,
    /// How long `-version` takes, process creation included, in milliseconds.
    pub version: f64,
    /// How long a program takes that does nothing.
    pub nothing: f64,
}

/// Weighs the binary.
pub fn weigh() -> Result<Weight> {
    #[expect(clippy::cast_precision_loss, reason = "a size in megabytes needs no more than 52 bits")]
    let size = gehen().metadata().context("there is no binary")?.len() as f64 / 1e6;
    let (mut versions, mut nothings) = (Vec::new(), Vec::new());
    // By turns, so that whatever else the machine does comes upon both.
    for _ in 0..STARTS {
        versions.push(start(Command::new(gehen()).arg("-version"))?);
        nothings.push(start(&mut Command::new(Path::new("/bin/true")))?);
    }
    Ok(Weight { size, version: median(&versions), nothing: median(&nothings) })
}

/// How long a program takes, in milliseconds.
fn start(command: &mut Command) -> Result<f64> {
    let since = Instant::now();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().context("cannot be started")?;
    let took = since.elapsed().as_secs_f64() * 1e3;
    ensure!(status.success(), "{command:?} failed");
    Ok(took)
}

/// How many requests a second the local ECS answers to one client, over one connection.
pub struct Capacity {
    /// DescribeServices of one service.
    pub of_one: f64,
    /// DescribeServices of ten services.
    pub of_ten: f64,
}

/// Asks a local ECS as fast as it answers.
pub fn capacity() -> Result<Capacity> {
    let ecs = LocalEcs::start(Settings::fast());
    for number in 0..SERVICES {
        ecs.create(service(&format!("s{number}")));
    }
    Ok(Capacity { of_one: rate(&ecs, 1)?, of_ten: rate(&ecs, 10)? })
}

/// How often a second it answers a DescribeServices of so many services.
fn rate(ecs: &LocalEcs, services: usize) -> Result<f64> {
    let names: Vec<_> = (0..services).map(|number| format!("\"s{number}\"")).collect();
    let body = format!(r#"{{"cluster": "staging", "services": [{}]}}"#, names.join(", "));
    let request = format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-amz-json-1.1\r\n\
         X-Amz-Target: AmazonEC2ContainerServiceV20141113.DescribeServices\r\n\
         Authorization: AWS4-HMAC-SHA256 Credential=local/20260101/us-east-1/ecs/aws4_request\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let endpoint = ecs.endpoint();
    let stream = TcpStream::connect(endpoint.trim_start_matches("http://"))?;
    stream.set_nodelay(true)?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let (mut stream, since, mut count) = (stream, Instant::now(), 0);
    while since.elapsed() < ASKED {
        stream.write_all(request.as_bytes())?;
        let answer = read_answer(&mut answers)?;
        ensure!(answer.matches("\"serviceName\"").count() == services, "the local ECS answered {answer}");
        count += 1;
    }
    Ok(number(count) / since.elapsed().as_secs_f64())
}

/// Reads one answer and gives its body.
fn read_answer(answers: &mut BufReader<TcpStream>) -> Result<String> {
    let mut length = None;
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        ensure!(answers.read_line(&mut line)? > 0, "the local ECS hung up");
        let header = line.to_ascii_lowercase();
        length = header.strip_prefix("content-length:").and_then(|length| length.trim().parse().ok()).or(length);
    }
    let mut body = vec![0; length.context("an answer has a length")?];
    answers.read_exact(&mut body)?;
    Ok(String::from_utf8(body)?)
}

/// How late a thread woke up that slept while all else was measured, in milliseconds.
pub struct Lateness {
    /// All but one of a hundred times less than this.
    pub seldom: f64,
    /// The worst time.
    pub worst: f64,
}

/// Does `work`, and tells how busy the machine was meanwhile: what is late there was late everywhere.
pub fn lateness<T>(work: impl FnOnce() -> T) -> (T, Lateness) {
    const NAP: Duration = Duration::from_millis(10);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| {
            let mut late = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                let since = Instant::now();
                thread::sleep(NAP);
                late.push(since.elapsed().saturating_sub(NAP).as_secs_f64() * 1e3);
            }
            late.sort_by(f64::total_cmp);
            late
        });
        let done = work();
        is_over.store(true, Ordering::Relaxed);
        let late = sleeper.join().unwrap_or_default();
        let at = |share: usize| late.get((late.len() * share / 100).min(late.len().saturating_sub(1)));
        (done, Lateness { seldom: at(99).copied().unwrap_or(0.0), worst: at(100).copied().unwrap_or(0.0) })
    })
}
