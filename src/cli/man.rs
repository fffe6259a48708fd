//! The man page: the definition of the flags, and around it what else a page of section 1 tells.

use clap_mangen::{
    Man,
    roff::{Inline, Roff, bold, roman},
};

use super::EXIT_CODES;

/// When the page was last changed by more than a flag.
const DATE: &str = "2026-11-23";

/// What a deploy is, below the sentence that is the help's.
const DESCRIPTION: &str = "Of each service that the file lists, it registers a new revision of the running task definition \
    with the version as the tag of its images, and updates the service to that. Then it waits until the service shows the \
    new version and the old one can't be reached any more. Scheduled tasks of EventBridge, which the file may list too, get \
    new revisions once all services are proven. An updateStrategy in the file says whether the revision is made from the \
    running one or from the family's newest, or that what is there is deployed anew, or only checked. If any of this fails, \
    or if the run is cancelled, everything that was updated goes back to what ran before. Lines for people go to stderr, results for scripts to stdout.";

/// What gehen reads from the environment.
const ENVIRONMENT: [(&str, &str); 14] = [
    (
        "AWS_PROFILE, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN and others of the AWS SDKs",
        "Credentials, profile and region, as for the aws CLI.",
    ),
    (
        "AWS_CREDENTIAL_EXPIRATION",
        "When the credentials in AWS_ACCESS_KEY_ID end: gehen warns where that is before the run may be over.",
    ),
    ("AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_ECS and so on", "Where requests go instead of to AWS."),
    ("HTTPS_PROXY, HTTP_PROXY, NO_PROXY", "The proxies for requests to AWS and to urls."),
    (
        "SSL_CERT_FILE, SSL_CERT_DIR",
        "Where the certificates of the trusted authorities are, instead of the usual place.",
    ),
    (
        "DD_AGENT_HOST",
        "The host of a Datadog agent that gets the events of deploys and rollbacks by UDP; none without.",
    ),
    ("DD_DOGSTATSD_PORT", "The port of that agent; 8125 by default."),
    ("DD_ENV, DD_SERVICE, DD_VERSION", "Tags of those events, beside the docker labels of the container."),
    ("RUST_LOG", "Which lines are shown: RUST_LOG=warn quiets those of a deploy that goes well."),
    ("NO_COLOR", "Where it is set and not empty, no line is coloured."),
    ("TERM", "A terminal that is \"dumb\" gets neither colours nor live lines."),
    ("GITHUB_ACTIONS", "Where it is \"true\", each service folds into a group and a failure is an annotation, too."),
    ("GITHUB_STEP_SUMMARY", "In GitHub Actions, the file that gets a table of how each service ended."),
    ("CI", "Where it is set and not empty, on Linux, the death of the process that started gehen counts as SIGTERM."),
];

/// Files that gehen reads.
const FILES: [(&str, &str); 2] = [
    (
        "gehen.yml",
        "The services and scheduled tasks to deploy, in the directory that gehen is started in, or where -path says. gehen.example.yml, which \
         comes with gehen, shows every key.",
    ),
    ("~/.aws/config, ~/.aws/credentials", "Profiles of AWS, as for the aws CLI."),
];

/// What to type.
const EXAMPLE: [&str; 8] = [
    "$ cat gehen.yml",
    "services:",
    "  api-staging:",
    "    cluster: arn:aws:ecs:us-east-1:123456789012:cluster/staging",
    "    url: https://staging.example.com/ping",
    "$ gehen -gitsha \"$(git rev-parse HEAD)\"",
    "$ echo $?",
    "0",
];

/// The page as roff, with a section for each thing that the flags of `definition` don't tell.
pub fn page(definition: clap::Command) -> String {
    let page = Man::new(definition)
        .title("GEHEN")
        .date(DATE)
        .source(concat!("gehen ", env!("CARGO_PKG_VERSION")))
        .manual("User Commands");
    let mut text = Vec::new();
    page.render_title(&mut text)
        .and_then(|()| page.render_name_section(&mut text))
        .and_then(|()| page.render_synopsis_section(&mut text))
        .and_then(|()| page.render_description_section(&mut text))
        .and_then(|()| description().to_writer(&mut text))
        .and_then(|()| page.render_options_section(&mut text))
        .and_then(|()| rest().to_writer(&mut text))
        .expect("writing to memory never fails");
    // clap spells a flag with two dashes, which roff writes as two escaped hyphens.
    String::from_utf8(text).expect("clap's texts are UTF-8").replace(r"\-\-", r"\-")
}

/// The second paragraph of the description.
fn description() -> Roff {
    let mut roff = Roff::new();
    roff.control("PP", []).text([roman(DESCRIPTION)]);
    roff
}

/// The sections below the flags.
fn rest() -> Roff {
    let mut roff = Roff::new();
    let codes = EXIT_CODES.map(|(code, meaning)| (code.to_string(), format!("{meaning}.")));
    list(&mut roff, "EXIT STATUS", codes.iter().map(|(code, meaning)| (code.as_str(), meaning.as_str())));
    roff.control("PP", []).text([roman("Of several services the worst decides: 1, then 2, then 0.")]);
    list(&mut roff, "ENVIRONMENT", ENVIRONMENT);
    list(&mut roff, "FILES", FILES);
    roff.control("SH", ["EXAMPLES"]).text([roman("A file with one service, and its deploy:")]);
    roff.control("PP", []).control("nf", []).control("RS", ["4"]);
    for line in EXAMPLE {
        roff.text([roman(line)]);
    }
    roff.control("RE", []).control("fi", []);
    roff.control("SH", ["SEE ALSO"]);
    roff.text([
        bold("aws"),
        roman("(1), and the README of gehen, which says what a deploy does and which permissions it needs."),
    ]);
    roff
}

/// A section of things, each with what there is to say of it.
fn list<'a>(roff: &mut Roff, title: &str, entries: impl IntoIterator<Item = (&'a str, &'a str)>) {
    roff.control("SH", [title]);
    for (name, meaning) in entries {
        let name: Vec<Inline> = vec![bold(name)];
        roff.control("TP", []).text(name).text([roman(meaning)]);
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::super::{Flags, as_shown};
    use super::*;

    #[test]
    fn the_page_has_its_sections_and_every_flag_with_a_single_dash() {
        let page = page(as_shown(Flags::command()));
        let sections: Vec<_> = page.lines().filter_map(|line| line.strip_prefix(".SH ")).collect();
        assert_eq!(
            sections,
            [
                "NAME",
                "SYNOPSIS",
                "DESCRIPTION",
                "OPTIONS",
                "\"EXIT STATUS\"",
                "ENVIRONMENT",
                "FILES",
                "EXAMPLES",
                "\"SEE ALSO\""
            ]
        );
        for flag in Flags::command().get_arguments().filter_map(|flag| flag.get_long().map(str::to_owned)) {
            let header = format!(".TP\n\\fB\\-{}\\fR", flag.replace('-', r"\-"));
            assert!(page.contains(&header), "{header} is not in:\n{page}");
        }
        assert!(!page.contains("--"), "{page}");
        assert!(page.contains("Scheduled tasks") && page.contains("updateStrategy"), "{page}");
    }

    #[test]
    fn every_variable_that_the_sources_read_is_on_the_page() {
        fn sources(folder: &std::path::Path) -> String {
            let entries =
                std::fs::read_dir(folder).expect("src is a folder").map(|entry| entry.expect("an entry").path());
            let read = |path: std::path::PathBuf| {
                if path.is_dir() { sources(&path) } else { std::fs::read_to_string(path).expect("a source is a text") }
            };
            entries.map(read).collect()
        }
        let sources = sources(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
        let mut read = 0;
        for call in ["env::var(\"", "env::var_os(\"", "set(\"", "environment(\""] {
            for name in sources.split(call).skip(1).filter_map(|rest| rest.split_once('"').map(|(name, _)| name)) {
                let is_told = ENVIRONMENT.iter().any(|(names, _)| names.split(", ").any(|told| told == name));
                assert!(is_told || !name.chars().all(|letter| letter.is_ascii_uppercase() || letter == '_'), "{name}");
                read += 1;
            }
        }
        assert!(read >= 8, "{read}");
    }
}
