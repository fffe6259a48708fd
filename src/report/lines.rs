//! The lines while a run goes on: which of them are shown, and how each is laid out on stderr.

use std::{fmt, io::IsTerminal as _, time::SystemTime};

use tracing::{Level, Metadata, Subscriber, field::Field};
use tracing_subscriber::{
    Layer as _,
    filter::{FilterFn, Targets},
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    layer::SubscriberExt as _,
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

use crate::text::escape;

/// Sends gehen's own lines to stderr. RUST_LOG may quiet them, as in `RUST_LOG=warn`; it never lets lines of libraries
/// through, because the AWS SDK logs whole requests, and those hold the values of environment variables.
pub fn start() {
    let asked = std::env::var("RUST_LOG").ok().and_then(|text| text.parse::<Targets>().ok()).unwrap_or_default();
    let speaks_of_gehen =
        asked.default_level().is_some() || asked.iter().any(|(target, _)| target.starts_with("gehen"));
    let levels = if speaks_of_gehen { asked } else { Targets::new().with_default(Level::INFO) };
    let own = FilterFn::new(|metadata: &Metadata<'_>| metadata.target().starts_with("gehen"));
    let lines = tracing_subscriber::fmt::layer()
        .event_format(Lines { colour: is_colourful() })
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    let _ = tracing_subscriber::registry().with(lines.with_filter(levels).with_filter(own)).try_init();
}

/// Colour only on a terminal that can show it, and only where nobody has asked for none (no-color.org).
fn is_colourful() -> bool {
    let unset = |name| std::env::var_os(name).is_none_or(|value| value.is_empty());
    std::io::stderr().is_terminal() && unset("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// One event a line: when, which service, what.
struct Lines {
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
        let (paint, label) = match *event.metadata().level() {
            Level::ERROR => ("\x1b[31m", "error: "),
            Level::WARN => ("\x1b[33m", "warning: "),
            _ => ("", ""),
        };
        let (dim, bold, end) = if self.colour { ("\x1b[2m", "\x1b[1m", "\x1b[0m") } else { ("", "", "") };
        let paint = if self.colour { paint } else { "" };
        let time = humantime::format_rfc3339_seconds(SystemTime::now());
        write!(writer, "{dim}{time}{end} ")?;
        if !said.service.is_empty() {
            write!(writer, "{bold}{}{end}: ", escape(&said.service))?;
        }
        writeln!(writer, "{paint}{label}{}{end}", escape(&said.message))
    }
}

/// The fields of one event.
#[derive(Default)]
struct Said {
    service: String,
    message: String,
}

impl tracing::field::Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "service" {
            value.clone_into(&mut self.service);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        }
    }
}
