//! Panics as lines of the log.
//!
//! Promises one event that says where and in which thread, in place of the default's several lines of
//! text. What was said is left out: it may quote a value.

use std::panic::{PanicHookInfo, set_hook};

/// From now on a panic anywhere in the process is one event.
pub(super) fn log() {
    set_hook(Box::new(note));
}

fn note(info: &PanicHookInfo<'_>) {
    let location = info.location().map(|location| (location.file(), location.line()));
    let (file, line) = location.unwrap_or(("unknown", 0));
    tracing::error!(file, line, thread = std::thread::current().name().unwrap_or("unnamed"), "panic");
}

#[cfg(test)]
mod tests {
    use std::panic::{catch_unwind, take_hook};
    use std::sync::{Arc, Mutex};
    use std::thread::{Builder, current};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_panic_is_one_line_that_quotes_nothing() {
        const NAME: &str = "panics-here";
        let before = take_hook();
        // Other tests may panic meanwhile.
        set_hook(Box::new(|info| if current().name() == Some(NAME) { note(info) } else { eprintln!("{info}") }));
        let written = Written::default();
        let out = written.clone();
        let panicking = Builder::new().name(NAME.to_owned()).spawn(move || {
            let subscriber = tracing_subscriber::fmt().json().flatten_event(true);
            let subscriber = subscriber.with_writer(move || out.clone()).finish();
            tracing::subscriber::with_default(subscriber, || catch_unwind(|| panic!("secret\nof Budi")).is_err())
        });
        assert!(panicking.unwrap().join().unwrap());
        set_hook(before);
        let written = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let line: serde_json::Value = serde_json::from_str(&written).unwrap();
        assert_eq!(
            (&line["message"], &line["thread"], &line["level"]),
            (&"panic".into(), &NAME.into(), &"ERROR".into())
        );
        assert!(line["file"].as_str().unwrap().ends_with("panics.rs") && line["line"].is_number());
        assert!(!written.contains("Budi") && !written.contains("secret"), "{written}");
    }
}
