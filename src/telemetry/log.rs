//! The log subscriber: one line an event on standard error, JSON or for people.
//!
//! Promises that without a terminal every line is one JSON object, and that nobody who logs ever waits
//! for whoever reads: lines go through a bounded queue to a thread that writes them. What does not fit
//! is counted, and told of as soon as lines flow again. What is logged is decided where it happens;
//! secrets never reach an event because their types cannot print.

use std::fmt;
use std::io::{self, IsTerminal as _, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, park_timeout};
use std::time::Duration;

use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::FormatTime;

use super::panics;
use crate::clock::{Clock as _, SystemClock, iso8601};
use crate::config::{Log, LogFormat};

/// Sets the subscriber of the whole process; a second call has no effect. `color` says whether the
/// environment allows colours on a terminal (<https://no-color.org>). What is logged while the guard
/// lives is written before it is gone, if anybody reads.
///
/// # Errors
/// Where no thread can be started.
pub fn init(settings: Log, color: bool) -> io::Result<Guard> {
    let terminal = io::stderr().is_terminal();
    let pretty = match settings.format {
        LogFormat::Auto => terminal,
        LogFormat::Json => false,
        LogFormat::Pretty => true,
    };
    let (queue, lines) = Queue::new(LINES_MAX);
    let state = Arc::clone(&queue.state);
    Builder::new().name("ayova-log".to_owned()).spawn(move || write(&lines, &state, io::stderr(), pretty))?;
    let state = Arc::clone(&queue.state);
    let making = move || queue.clone();
    let builder = tracing_subscriber::fmt().with_env_filter(filter(settings.level)).with_writer(making);
    let builder = builder.with_timer(Jakarta);
    // Failing means that a subscriber is set already, which is the embedding program's right.
    let (ours, level): (_, SetLevel) = if pretty {
        let builder = builder.with_ansi(terminal && color).with_target(false).with_filter_reloading();
        let handle = builder.reload_handle();
        (builder.try_init(), Box::new(move |level| drop(handle.reload(filter(level)))))
    } else {
        let builder =
            builder.json().flatten_event(true).with_current_span(false).with_span_list(false).with_filter_reloading();
        let handle = builder.reload_handle();
        (builder.try_init(), Box::new(move |level| drop(handle.reload(filter(level)))))
    };
    if ours.is_ok() {
        panics::log();
    }
    Ok(Guard { state, level })
}

/// Other crates' events are of no use to an operator below a warning.
fn filter(level: Level) -> EnvFilter {
    EnvFilter::new(format!("warn,ayova={level}"))
}

type SetLevel = Box<dyn Fn(Level) + Send + Sync>;

/// Lets what is queued be written when it is dropped, within a bound, and nothing after that.
#[must_use]
pub struct Guard {
    state: Arc<State>,
    level: SetLevel,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Guard {
    /// From now on lines of this severity are written.
    pub fn set_level(&self, level: Level) {
        (self.level)(level);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut looks = FLUSH_PATIENCE.as_millis() / LOOK.as_millis();
        while self.state.waiting.load(Ordering::Acquire) > 0 && looks > 0 {
            park_timeout(LOOK);
            looks -= 1;
        }
        self.state.is_over.store(true, Ordering::Release);
    }
}

#[derive(Debug, Default)]
struct State {
    /// Lines that are not written yet.
    waiting: AtomicUsize,
    /// Lines there was no room for and nobody was told of.
    lost: AtomicUsize,
    /// Nothing more is written: what the process says last stays the last.
    is_over: AtomicBool,
}

/// Takes whole lines and never waits.
#[derive(Clone, Debug)]
struct Queue {
    lines: SyncSender<Vec<u8>>,
    state: Arc<State>,
}

impl Queue {
    fn new(room: usize) -> (Self, Receiver<Vec<u8>>) {
        let (lines, waiting) = sync_channel(room);
        (Self { lines, state: Arc::default() }, waiting)
    }
}

/// The subscriber writes each event at once.
impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.state.waiting.fetch_add(1, Ordering::AcqRel);
        if self.lines.try_send(line.to_vec()).is_err() {
            self.state.waiting.fetch_sub(1, Ordering::AcqRel);
            self.state.lost.fetch_add(1, Ordering::AcqRel);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes line after line, and what was lost when a line has got through.
fn write(lines: &Receiver<Vec<u8>>, state: &State, mut out: impl Write, pretty: bool) {
    for line in lines {
        if state.is_over.load(Ordering::Acquire) {
            return;
        }
        // A log nobody can read any more is no reason to stop.
        let _ = out.write_all(&line);
        let lost = state.lost.swap(0, Ordering::AcqRel);
        if lost > 0 {
            let _ = out.write_all(loss(lost, pretty).as_bytes());
        }
        state.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// As the subscriber would write it; it cannot, since its line might be lost too.
fn loss(lost: usize, pretty: bool) -> String {
    let time = iso8601(SystemClock.now());
    let message = "lines of the log were lost: nobody read them in time";
    if pretty {
        return format!("{time}  WARN {message} lost={lost}\n");
    }
    let target = module_path!();
    let line = serde_json::json!({
        "timestamp": time, "level": "WARN", "message": message, "lost": lost, "target": target
    });
    format!("{line}\n")
}

/// Lines that wait at most: some megabytes.
const LINES_MAX: usize = 8192;

/// How long the end waits for whoever reads.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(2);

struct Jakarta;

impl FormatTime for Jakarta {
    fn format_time(&self, writer: &mut tracing_subscriber::fmt::format::Writer<'_>) -> std::fmt::Result {
        writer.write_str(&iso8601(SystemClock.now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_counted_and_told() {
        let (mut queue, lines) = Queue::new(2);
        for n in 0..5 {
            queue.write_all(format!("{{\"n\":{n}}}\n").as_bytes()).unwrap();
        }
        let state = Arc::clone(&queue.state);
        drop(queue);
        let mut out = Vec::new();
        write(&lines, &state, &mut out, false);
        let out = String::from_utf8(out).unwrap();
        let lines: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((&lines[0]["n"], &lines[1]["lost"], &lines[2]["n"]), (&0.into(), &3.into(), &1.into()), "{out}");
        assert_eq!(lines.len(), 3);
        assert_eq!(state.waiting.load(Ordering::Acquire), 0);
    }
}
