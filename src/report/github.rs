//! What GitHub Actions shows beside the log: a folded group per service, annotations, and the step's summary.
//!
//! The commands go to stderr like the lines that they fold: the runner reads both streams of a step.

use std::{
    env,
    fmt::Write as _,
    fs::OpenOptions,
    io::{self, Write as _},
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

use tracing::Level;

use super::{About, Event, LastWords, RuleEvent, last_words, progress::Board, verdict};
use crate::{
    outcome::End,
    text::{duration, escape, excerpt},
};

/// A run in GitHub Actions.
pub struct Github {
    /// The file that the summary of the step is appended to.
    step_summary: Option<PathBuf>,
    /// Whether the lines of one service follow one another, so that they can be folded.
    folds: AtomicBool,
    /// Whether a group is open.
    is_open: AtomicBool,
}

impl Github {
    /// This run, if it is one in GitHub Actions.
    pub fn find() -> Option<Self> {
        let is_github = env::var_os("GITHUB_ACTIONS").is_some_and(|value| value == "true");
        is_github.then(|| Self {
            step_summary: env::var_os("GITHUB_STEP_SUMMARY").filter(|path| !path.is_empty()).map(PathBuf::from),
            folds: AtomicBool::default(),
            is_open: AtomicBool::default(),
        })
    }

    /// Takes note of whether one service is deployed after another.
    pub fn one_at_a_time(&self, is_so: bool) {
        self.folds.store(is_so, Ordering::Relaxed);
    }

    /// The commands that go before an event's line: a group is open from a service's begin until just before it ends,
    /// so that how it ended is seen where the group is folded.
    pub fn around(&self, service: &str, event: &Event<'_>) -> String {
        match event {
            Event::Begins if self.folds.load(Ordering::Relaxed) => {
                let before = self.close();
                self.is_open.store(true, Ordering::Relaxed);
                before + &command("group", None, service)
            }
            Event::Ended { .. } | Event::OfRule(RuleEvent::Ended { .. }) => self.close(),
            _ => String::new(),
        }
    }

    /// The command that ends the group that is open, if one is.
    pub fn close(&self) -> String {
        let is_open = self.is_open.swap(false, Ordering::Relaxed);
        if is_open { command("endgroup", None, "") } else { String::new() }
    }

    /// Appends to the summary of the step how the run ended.
    pub fn summarise(&self, end: &End<'_>, board: &Board) -> io::Result<()> {
        let Some(path) = &self.step_summary else { return Ok(()) };
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        file.write_all(summary(end, board).as_bytes())
    }

    /// Where the summary goes, for people.
    pub fn place(&self) -> String {
        self.step_summary.as_ref().map(|path| excerpt(&path.display().to_string())).unwrap_or_default()
    }
}

/// The annotations: one for each failure, and a milder one for what was not drained.
pub fn annotations(end: &End<'_>) -> String {
    let one = |kind, service: &str, message: &str| command(kind, Some(&format!("gehen: {service}")), message);
    match end {
        End::Planned => String::new(),
        End::All(ended) => {
            let annotation = |words: LastWords<'_>| match (words.level, words.word) {
                (Level::ERROR, _) => one("error", words.about.name(), &words.text),
                (_, "undetermined") => one("warning", words.about.name(), &words.text),
                _ => String::new(),
            };
            last_words(ended).into_iter().map(annotation).collect()
        }
        End::Problems(problems) => {
            let text = |what: &str, hint: Option<&str>| match hint {
                Some(hint) => format!("{}\nhint: {hint}", excerpt(what)),
                None => excerpt(what),
            };
            let text =
                problems.iter().map(|(subject, problem)| (subject, text(&problem.what, problem.hint.as_deref())));
            text.map(|(subject, message)| one("error", subject.about().name(), &message)).collect()
        }
        End::Cancelled(_) | End::Abandoned | End::Refused(_) | End::Error(_) => {
            command("error", Some("gehen"), &verdict(end))
        }
    }
}

/// One workflow command, on a line of its own. `%`, CR and LF are escaped as the runner expects, in the title `:` and
/// `,` as well (ActionCommand.cs).
fn command(name: &str, title: Option<&str>, message: &str) -> String {
    let message: Vec<_> = message.lines().map(escape).collect();
    let message = message.join("\n").replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let title = title.map(|title| escape(title).replace('%', "%25").replace(':', "%3A").replace(',', "%2C"));
    let title = title.map(|title| format!(" title={title}")).unwrap_or_default();
    format!("::{name}{title}::{message}\n")
}

/// The summary of the step, in Markdown.
fn summary(end: &End<'_>, board: &Board) -> String {
    let subject = format!("gehen {}", board.version());
    let verdict = match end {
        End::Planned => "dry run, nothing has been changed".to_owned(),
        _ => verdict(end),
    };
    let mut text = format!("### {}: {}\n\n", markdown(&subject), markdown(&verdict));
    let rows = rows(end, board);
    if !rows.is_empty() {
        text += "| service | outcome | version | what runs now | time | reason |\n|---|---|---|---|---|---|\n";
    }
    for row in rows {
        let _ = writeln!(text, "| {} |", row.map(|cell| markdown(&cell)).join(" | "));
    }
    text + "\n"
}

fn rows(end: &End<'_>, board: &Board) -> Vec<[String; 6]> {
    let version = || board.version().to_owned();
    match end {
        End::All(ended) => {
            let row = |LastWords { about, word, now, took, reasons, .. }: LastWords<'_>| {
                [cell(about), word.replace('_', " "), version(), now, duration(took), reasons.join("\n")]
            };
            last_words(ended).into_iter().map(row).collect()
        }
        End::Problems(problems) => {
            let row = |about: About<'_>| {
                let of_it = problems.iter().filter(|(of, _)| of.about() == about).map(|(_, problem)| problem);
                let reasons: Vec<_> = of_it.map(|problem| problem.what.as_str()).collect();
                untouched(about, version(), reasons.join("\n"))
            };
            board.parts().map(|(about, _)| row(about)).collect()
        }
        End::Planned => {
            let row = |(about, plan): (About<'_>, &[String])| {
                [cell(about), "dry run".to_owned(), version(), String::new(), String::new(), plan.join("\n")]
            };
            board.plans().map(row).collect()
        }
        End::Cancelled(_) => board.parts().map(|(about, _)| untouched(about, version(), String::new())).collect(),
        End::Abandoned | End::Refused(_) | End::Error(_) => Vec::new(),
    }
}

fn untouched(about: About<'_>, version: String, reason: String) -> [String; 6] {
    [cell(about), "not touched".to_owned(), version, String::new(), String::new(), reason]
}

/// The name of a part, and what it is where that is no service.
fn cell(about: About<'_>) -> String {
    match about {
        About::ScheduledTask(rule) => format!("{rule} (scheduled task)"),
        About::Service(_) | About::Run => about.name().to_owned(),
    }
}

/// Text for a cell of a table in Markdown: nothing in it is markup, or HTML, or ends the cell.
fn markdown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for (index, line) in text.trim().lines().enumerate() {
        if index > 0 {
            shown += "<br>";
        }
        for character in escape(line).chars() {
            if character.is_ascii_punctuation() && !".,-/()'".contains(character) {
                let _ = write!(shown, "&#{};", u32::from(character));
            } else {
                shown.push(character);
            }
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_one_line_that_the_runner_reads_back() {
        for (title, message, line) in [
            (None, "api", "::error::api\n"),
            (None, "50 % of\r\nit: a, b", "::error::50 %25 of%0Ait: a, b\n"),
            (Some("gehen: a,b%"), "x", "::error title=gehen%3A a%2Cb%25::x\n"),
            (Some("a\nb"), "\u{1b}[2J", "::error title=a\\u{a}b::\\u{1b}[2J\n"),
            (None, "a\n::set-env::b", "::error::a%0A\\u{3a}:set-env::b\n"),
            (None, "##[error]x", "::error::#\\u{23}[error]x\n"),
        ] {
            assert_eq!(command("error", title, message), line);
        }
    }

    #[test]
    fn services_fold_only_where_one_follows_another() {
        let folded = |one_at_a_time: bool| {
            let github =
                Github { step_summary: None, folds: AtomicBool::new(one_at_a_time), is_open: AtomicBool::default() };
            let first = github.around("api", &Event::Begins);
            first
                + &github.around("api", &Event::Live { how: "" })
                + &github.around("web", &Event::Begins)
                + &github.close()
        };
        assert_eq!(folded(true), "::group::api\n::endgroup::\n::group::web\n::endgroup::\n");
        assert_eq!(folded(false), "");
    }

    #[test]
    fn nothing_from_outside_is_markup_in_the_summary() {
        for (text, shown) in [
            ("2 tasks of api-x/2 (900d111), now", "2 tasks of api-x/2 (900d111), now"),
            ("a|b", "a&#124;b"),
            ("`a` *b* _c_ ~d~", "&#96;a&#96; &#42;b&#42; &#95;c&#95; &#126;d&#126;"),
            ("<img src=x>&amp;", "&#60;img src&#61;x&#62;&#38;amp&#59;"),
            ("[a](b) ![c](d)", "&#91;a&#93;(b) &#33;&#91;c&#93;(d)"),
            ("https://x @a #1 \\|", "https&#58;//x &#64;a &#35;1 &#92;&#124;"),
            ("one\ntwo\r\nthree\n", "one<br>two<br>three"),
            ("a\u{1b}\u{2028}b", "a&#92;u&#123;1b&#125;&#92;u&#123;2028&#125;b"),
        ] {
            assert_eq!(markdown(text), shown);
        }
    }
}
