//! The lines while a run goes on: which of them are shown, and how one is laid out for people.

use std::{
    fmt,
    io::{self, IsTerminal as _},
    time::SystemTime,
};

use tracing::{Level, Metadata, Subscriber, field::Field};
use tracing_subscriber::{
    Layer as _,
    filter::{FilterFn, Targets},
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    layer::SubscriberExt as _,
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

use super::json;
use crate::{cli::LogFormat, text::escape};

/// Sends gehen's own lines to stderr. RUST_LOG may quiet them, as in `RUST_LOG=warn`; it never lets lines of libraries
/// through, because the AWS SDK logs whole requests, and those hold the values of environment variables.
pub fn start(format: LogFormat) {
    let asked = std::env::var("RUST_LOG").ok().and_then(|text| text.parse::<Targets>().ok()).unwrap_or_default();
    let speaks_of_gehen =
        asked.default_level().is_some() || asked.iter().any(|(target, _)| target.starts_with("gehen"));
    let levels = if speaks_of_gehen { asked } else { Targets::new().with_default(Level::INFO) };
    let own = FilterFn::new(|metadata: &Metadata<'_>| metadata.target().starts_with("gehen"));
    let lines = tracing_subscriber::fmt::layer()
        .event_format(Lines { format, colour: is_colourful() })
        .log_internal_errors(false)
        .with_writer(|| Stderr);
    let _ = tracing_subscriber::registry().with(lines.with_filter(levels).with_filter(own)).try_init();
}

/// Whether stderr is a terminal that can do more than print.
pub fn is_terminal() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb")
}

/// Colour only on a terminal that can show it, and only where nobody has asked for none (no-color.org).
pub fn is_colourful() -> bool {
    is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Takes one whole line with each call.
struct Stderr;

impl io::Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        super::write(&String::from_utf8_lossy(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One event a line: when, which service, what.
struct Lines {
    format: LogFormat,
    colour: bool,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &tracing::Event<'_>,
    ) -> fmt::Result {
        let mut said = Said::default();
        event.record(&mut said);
        let level = *event.metadata().level();
        if self.format == LogFormat::Json {
            return writeln!(writer, "{}", json::line(level, &said));
        }
        let (paint, label) = match level {
            Level::ERROR => ("\x1b[31m", "error: "),
            Level::WARN => ("\x1b[33m", "warning: "),
            _ => ("", ""),
        };
        let (dim, bold, end) = if self.colour { ("\x1b[2m", "\x1b[1m", "\x1b[0m") } else { ("", "", "") };
        let paint = if self.colour { paint } else { "" };
        let time = humantime::format_rfc3339_seconds(SystemTime::now());
        write!(writer, "{dim}{time}{end} ")?;
        if !said.name.is_empty() {
            write!(writer, "{bold}{}{end}: ", escape(&said.name))?;
        }
        writeln!(writer, "{paint}{label}{}{end}", escape(&said.message))
    }
}

/// The fields of one event.
#[derive(Default)]
pub struct Said {
    /// What it is about, as JSON's key for its name; empty for what concerns the whole run.
    pub kind: String,
    /// The name of that.
    pub name: String,
    /// The phase's word.
    pub phase: String,
    /// The event's word.
    pub event: String,
    /// The event's own fields, as a JSON object; empty where nobody reads JSON.
    pub fields: String,
    /// What happened, in words.
    pub message: String,
}

impl tracing::field::Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        let kept = match field.name() {
            "kind" => &mut self.kind,
            "name" => &mut self.name,
            "phase" => &mut self.phase,
            "event" => &mut self.event,
            "fields" => &mut self.fields,
            _ => return,
        };
        value.clone_into(kept);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        }
    }
}
