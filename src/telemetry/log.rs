//! The log subscriber: one line an event on standard error, JSON or for people.
//!
//! Promises that without a terminal every line is one JSON object. What is logged is decided where it
//! happens; secrets never reach an event because their types cannot print.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::FormatTime;

use crate::clock::{Clock as _, SystemClock, iso8601};
use crate::config::{Log, LogFormat};

/// Sets the subscriber of the whole process; a second call has no effect. `color` says whether the
/// environment allows colours on a terminal (<https://no-color.org>).
pub fn init(settings: Log, color: bool) {
    let terminal = io::stderr().is_terminal();
    let pretty = match settings.format {
        LogFormat::Auto => terminal,
        LogFormat::Json => false,
        LogFormat::Pretty => true,
    };
    // Other crates' events are of no use to an operator below a warning.
    let filter = EnvFilter::new(format!("warn,ayova={}", settings.level));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_timer(Jakarta);
    // Failing means that a subscriber is set already, which is the embedding program's right.
    let _ = if pretty {
        builder.with_ansi(terminal && color).with_target(false).try_init()
    } else {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    };
}

struct Jakarta;

impl FormatTime for Jakarta {
    fn format_time(&self, writer: &mut tracing_subscriber::fmt::format::Writer<'_>) -> std::fmt::Result {
        writer.write_str(&iso8601(SystemClock.now()))
    }
}
