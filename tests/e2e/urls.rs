//! Urls that aren't typical: how each is named, and that none holds gehen up, fattens it or garbles its lines.

use std::{io::Write as _, net::TcpListener, time::Duration};

use local_ecs::{Behaviour, Certificate, LocalEcs, service};

use crate::support::{
    Gehen, LONG, NEW, OLD, Run, SHORT, ecs, gehen_yml, gehen_yml_with, gehen_yml_with_url, rude_server,
};

/// What a deploy of `api` writes that is undone.
const UNDONE: [&str; 3] = ["RegisterTaskDefinition api", "UpdateService api -> api:2", "UpdateService api -> api:1"];
/// The longest that a run with [`SHORT`] may take in which the url is no good from the beginning: three requests of
/// 1.5 s before the update, 6 s of deploy check, and a rollback that the tasks prove, which takes 6 s at most; the rest
/// is for a machine that is busy with other tests. Three requests that waited for [`rude_server`] would take longer.
const SOON: Duration = Duration::from_secs(40);

/// gehen.yml with `api` at this url and checks of six seconds; the CA of `ecs` is trusted, and no other.
fn gehen(ecs: &LocalEcs, url: &str) -> Gehen {
    gehen_yml_with_url(ecs, SHORT, "api", url).trusting(ecs)
}

/// Asserts that `run` failed, went back, was proven by the tasks, and all that soon.
#[track_caller]
fn assert_rolled_back(ecs: &LocalEcs, run: &Run) {
    run.exits(1).ends("api", &format!("ROLLED BACK to api:1 ({OLD})"));
    assert_eq!(ecs.writes(), UNDONE, "{}", run.stderr);
    assert_eq!(ecs.runs("api"), OLD);
    assert!(run.took < SOON, "{:?}:\n{}", run.took, run.stderr);
}

/// Deploys with this url, which is no good, and asserts that both the lines on the way and the last ones say why.
#[track_caller]
fn fails_because(url: &str, why: &str) -> Run {
    let ecs = ecs([service("api").running(OLD)]);
    let run = gehen(&ecs, url).deploy(NEW);
    assert_rolled_back(&ecs, &run);
    run.says(&format!("api: the url {why}"));
    let end = run.end_of("api");
    assert!(end.contains(&format!("; at last: the url {why}")), "{end}");
    run
}

/// As [`fails_because`], for HTTPS with a certificate that is no good.
#[track_caller]
fn is_refused_because(certificate: Certificate, why: &str) {
    let ecs = ecs([service("api").running(OLD)]);
    let run = gehen(&ecs, &ecs.https_url("api", certificate)).deploy(NEW);
    assert_rolled_back(&ecs, &run);
    let end = run.end_of("api");
    assert!(end.contains(&format!("; at last: the url gives no answer: TLS: {why}; ")), "{end}");
}

/// Asserts that nothing in `run`'s lines can move a terminal's cursor, command a CI system or fill a screen.
#[track_caller]
fn assert_readable(run: &Run) {
    for line in run.stderr.lines() {
        assert!(!line.contains(|character: char| character.is_control() || "\u{202e}\u{2028}".contains(character)));
        assert!(!line.trim_start().starts_with("::"), "{line}");
        assert!(line.chars().count() < 6000, "{} characters: {line}", line.chars().count());
    }
}

#[test]
#[cfg(target_os = "linux")] // Elsewhere the root store is not a file that a variable could name.
fn a_certificate_of_a_ca_in_the_operating_systems_root_store_is_trusted() {
    let ecs = ecs([service("api").running(OLD)]);
    let url = ecs.https_url("api", Certificate::Good);
    let run = gehen_yml_with_url(&ecs, "", "api", &url).trusting(&ecs).deploy(NEW);
    run.exits(0).says(&format!("until {url} shows {NEW}")).ends("api", &format!("DEPLOYED {NEW}"));
    assert_eq!(ecs.runs("api"), NEW);
}

#[test]
fn a_certificate_of_a_ca_that_is_not_in_the_root_store_is_not_trusted() {
    let ecs = ecs([service("api").running(OLD)]);
    let url = ecs.https_url("api", Certificate::Good);
    let run = gehen_yml_with_url(&ecs, SHORT, "api", &url).deploy(NEW);
    assert_rolled_back(&ecs, &run);
    run.says("no CA in the operating system's root store vouches for it");
}

#[test]
#[cfg(target_os = "linux")]
fn an_expired_certificate_is_named() {
    is_refused_because(Certificate::Expired, "it shows a certificate that expired at 2021-01-01T00:00:00Z");
}

#[test]
#[cfg(target_os = "linux")]
fn a_certificate_that_is_not_valid_yet_is_named() {
    is_refused_because(Certificate::NotYetValid, "it shows a certificate that isn't valid before 2999-01-01T00:00:00Z");
}

#[test]
#[cfg(target_os = "linux")]
fn a_certificate_of_an_unknown_issuer_is_named() {
    is_refused_because(
        Certificate::UnknownIssuer,
        "it shows a certificate of an unknown issuer: no CA in the operating system's root store vouches for it",
    );
}

#[test]
#[cfg(target_os = "linux")]
fn a_self_signed_certificate_is_named() {
    is_refused_because(
        Certificate::SelfSigned,
        "it shows the certificate of a CA, probably a self-signed one, instead of one for its host",
    );
}

#[test]
#[cfg(target_os = "linux")]
fn a_certificate_for_another_host_is_named_with_the_hosts_that_it_is_for() {
    is_refused_because(
        Certificate::WrongHost,
        "it shows a certificate for another host: for www.example.com, *.example.org, not localhost",
    );
}

#[test]
fn https_where_http_is_spoken_is_named() {
    let ecs = ecs([service("api").running(OLD)]);
    let run = gehen(&ecs, &ecs.url("api").replace("http://", "https://")).deploy(NEW);
    assert_rolled_back(&ecs, &run);
    run.says("gives no answer: TLS: what listens on that port doesn't speak TLS; is the url to begin with http://?");
}

#[test]
fn a_host_that_does_not_exist_is_named_and_the_password_is_not() {
    let run = fails_because(
        "http://somebody:hunter2@api.invalid/ping",
        "gives no answer: its host name can't be resolved (DNS): ",
    );
    run.never_says("hunter2");
}

#[test]
fn a_port_on_which_nobody_listens_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a local port is free");
    let address = listener.local_addr().expect("a listener has an address");
    drop(listener);
    fails_because(&format!("http://{address}/"), "gives no answer: connection refused");
}

#[test]
fn a_redirect_to_a_server_that_is_gone_is_named_without_its_path() {
    let url = rude_server(|_, stream| {
        stream.write_all(b"HTTP/1.1 302 Found\r\nLocation: http://u:hunter2@127.0.0.1:1/login?token=hunter2\r\n\r\n")
    });
    let why = "gives no answer: connection refused (after a redirect to http://127.0.0.1:1)";
    fails_because(&url, why).never_says("hunter2");
}

#[test]
fn a_server_that_never_answers_is_not_waited_for_beyond_the_deadline() {
    let url = rude_server(|_, _| {
        std::thread::sleep(Duration::from_mins(1));
        Ok(())
    });
    fails_because(&url, "gives no answer within 1.5 s");
}

#[test]
fn a_server_that_hangs_up_is_named() {
    let url = rude_server(|_, _| Ok(()));
    fails_because(&url, "gives no answer: connection closed before message completed");
}

#[test]
fn a_body_that_trickles_is_not_waited_for_beyond_the_deadline() {
    let url = rude_server(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")?;
        loop {
            stream.write_all(b".")?;
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    fails_because(&url, "shows no version (no Server header)");
}

#[test]
fn preliminary_answers_without_end_are_not_waited_for_beyond_the_deadline() {
    let url = rude_server(|_, stream| {
        loop {
            stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n")?;
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    fails_because(&url, "gives no answer within 1.5 s");
}

#[test]
fn a_url_that_redirects_for_ever_is_not_followed_beyond_the_deadline() {
    let url = rude_server(|_, stream| stream.write_all(b"HTTP/1.1 302 Found\r\nLocation: /ping\r\n\r\n"));
    fails_because(&url, "gives no answer: too many redirects");
}

/// The most memory, in kB, that a run of the debug build may have resident. It was measured to be 24 000, and and
/// 180 000 when the body was kept.
#[cfg(target_os = "linux")]
const MOST_MEMORY: u64 = 40_000;

#[test]
#[cfg(target_os = "linux")]
fn a_body_without_end_takes_no_memory() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.version(NEW, Behaviour::Floods);
    let gehen = gehen_yml(&ecs, SHORT, &["api"]);
    let (run, memory) = gehen.start(&["-gitsha", NEW]).wait_and_weigh();
    assert_rolled_back(&ecs, &run);
    run.says("the url shows no version (no Server header)");
    assert!(memory < MOST_MEMORY, "{memory} kB");
}

#[test]
#[cfg(target_os = "linux")]
fn headers_without_end_take_no_memory() {
    let url = rude_server(|turn, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
        // Either ever more headers, or one that goes on and on.
        let more = if turn % 2 == 0 { &b"X-More: of it\r\n".repeat(1000) } else { &b"-".repeat(10_000) };
        loop {
            stream.write_all(more)?;
        }
    });
    let ecs = ecs([service("api").running(OLD)]);
    let gehen = gehen(&ecs, &url);
    let (run, memory) = gehen.start(&["-gitsha", NEW]).wait_and_weigh();
    assert_rolled_back(&ecs, &run);
    run.says("the url gives no answer: message head is too large");
    assert!(memory < MOST_MEMORY, "{memory} kB");
}

#[test]
fn hostile_headers_are_shown_harmless_and_short() {
    fn server(value: &[u8]) -> Vec<u8> {
        [b"HTTP/1.1 200 OK\r\nServer: ", value, b"\r\nContent-Length: 0\r\n\r\n"].concat()
    }
    let hostile = [
        server("\u{202e}\u{2028}".repeat(50_000).as_bytes()),
        server(b"\x1b[2J\x1b]0;owned\x07"),
        server(b"\xc2\x9b2J\xff\xfe"),
        server(b"::error::gotcha"),
        [b"HTTP/1.1 200 OK\r\n".to_vec(), b"X-One: of many\r\n".repeat(5000), b"\r\n".to_vec()].concat(),
        b"HTTP/1.1 503 \x1b[2J\r\nServer: \x1b[2J\r\n\r\n".to_vec(),
        b"HTTP/1.1 503 \xc2\x9b2J\r\n\r\n".to_vec(),
        b"HTTP/1.1 302 Found\r\nLocation: http://\xc2\x9b2J.invalid/\r\n\r\n".to_vec(),
        b"\x1b[2J\x1b[2J\x1b[2J\r\n\r\n".to_vec(),
    ];
    let answers = hostile.len();
    let url = rude_server(move |turn, stream| stream.write_all(&hostile[turn % answers]));
    let ecs = ecs([service("api").running(OLD)]);
    // Eighteen seconds: the url is asked once a second, and so gives each of the answers.
    let run = gehen_yml_with_url(&ecs, "timeoutMinutes: 0.3", "api", &url).deploy(NEW);
    run.exits(1).ends("api", &format!("ROLLED BACK to api:1 ({OLD})"));
    run.says("(Server: \\u{202e}\\u{2028}")
        .says("(Server: \\u{9b}2J\u{fffd}\u{fffd})")
        .says("(Server: \\u{3a}:error::gotcha)")
        .says("gives no answer: message head is too large")
        .says("answers 503 Service Unavailable");
    assert_readable(&run);
    assert!(run.took < LONG, "{:?}", run.took);
}

/// One of the two tasks of [`NEW`] answers like the version before.
fn stale() -> Behaviour {
    Behaviour::Stale { server: format!("api-{OLD}") }
}

#[test]
fn a_target_that_shows_the_old_version_is_waited_for() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.version(NEW, stale());
    let gehen = gehen_yml(&ecs, "timeoutMinutes: 1", &["api"]);
    let run = gehen.start(&["-gitsha", NEW]).until_it_says("drain check: ");
    // By now ECS is done; only the url can tell.
    assert!(ecs.wait_until(LONG, |view| view.rollout_of("api") == "COMPLETED"));
    let asked = ecs.lb_requests("api");
    assert!(ecs.wait_until(LONG, |view| view.lb_requests("api") > asked + 8));
    ecs.version(NEW, Behaviour::Healthy);
    let run = run.wait();
    run.exits(0).ends("api", &format!("DEPLOYED {NEW}"));
    assert!(run.took > Duration::from_secs(2), "{:?}", run.took);
}

#[test]
fn a_target_that_shows_the_old_version_after_ecs_is_done_leaves_the_run_undetermined_too() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.version(NEW, stale());
    let run = gehen_yml(&ecs, "timeoutMinutes: 0.1", &["api"]).deploy(NEW);
    run.exits(2).ends("api", "LIVE, BUT NOT DRAINED");
    let end = run.end_of("api");
    assert!(end.contains(&format!("the url shows {OLD}")), "{end}");
    assert_eq!(ecs.view(|view| view.rollout_of("api")), "COMPLETED");
}

#[test]
fn a_target_that_shows_the_old_version_for_ever_leaves_the_run_undetermined() {
    let ecs = ecs([service("api").running(OLD).deregistration_delay(Duration::from_mins(1))]);
    ecs.version(NEW, stale());
    let run = gehen_yml(&ecs, "timeoutMinutes: 0.1", &["api"]).deploy(NEW);
    run.exits(2).ends("api", "LIVE, BUT NOT DRAINED");
    let end = run.end_of("api");
    assert!(end.contains(&format!("the url shows {OLD}")), "{end}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_machine_without_ca_certificates_is_told_before_anything_is_changed() {
    let ecs = ecs([service("api").running(OLD)]);
    let run = gehen_yml(&ecs, "", &["api"]).with_file("empty.pem", "").with("SSL_CERT_FILE", "empty.pem").deploy(NEW);
    run.exits(1).says("install the package ca-certificates, or set SSL_CERT_FILE").never_says("panicked");
    assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    assert_eq!(ecs.writes(), [] as [&str; 0]);
}

/// What a version behind a proxy answers, which has the `Server` header for itself.
fn proxied(version: &str) -> Behaviour {
    let headers = vec![("Server".to_owned(), "proxy".to_owned()), ("X-Version".to_owned(), version.to_owned())];
    Behaviour::Answers { status: 200, headers, body: String::new() }
}

#[test]
fn another_header_may_name_the_version() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.version(OLD, proxied("api-01d0000"));
    ecs.version(NEW, proxied("api-ae30000"));
    let run = gehen_yml_with(&ecs, "", &[("api", "header: x-version")]).deploy(NEW);
    run.exits(0).says("deploy check passed: the url shows ae30000").never_says("warning");
    ecs.version(OLD, proxied("01d0000"));
    let run = gehen_yml_with(&ecs, "", &[("api", "header: X-Version")]).deploy(OLD);
    run.exits(0).says("deploy check passed: the url shows 01d0000");
}

#[test]
fn a_header_that_is_not_there_is_named() {
    let ecs = ecs([service("api").running(OLD)]);
    let run = gehen_yml_with(&ecs, SHORT, &[("api", "header: x-version")]).deploy(NEW);
    run.exits(1)
        .says("today ")
        .says(" shows no version (no X-Version header); the deploy check needs it to show the version");
    run.ends("api", &format!("ROLLED BACK to api:1 ({OLD})"));
}
