//! A listener's certificate, read again when its files change.
//!
//! Promises that new content counts within seconds, through Kubernetes' swapped links too, since it is
//! the content that is compared; that what cannot be used changes nothing but is logged and counted
//! once; and that who connected before is not disturbed. A new certificate forgets the sessions of the
//! old one, so that nobody resumes what a removed authority had vouched for.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::telemetry::metrics::Metrics;
use crate::tls::{ServerFiles, ServerTexts, Trouble};

/// What new connections shake hands with.
pub struct Certificates {
    current: ArcSwap<ServerConfig>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificates")
    }
}

impl Certificates {
    /// Reads the files, and lets them be watched.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn open(files: ServerFiles) -> io::Result<(Arc<Self>, Watch)> {
        let texts = files.read()?;
        let certificates = Arc::new(Self { current: ArcSwap::new(texts.config()?) });
        let judged = texts.digest();
        Ok((Arc::clone(&certificates), Watch { files, certificates, judged, seen: judged }))
    }

    /// The present one.
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }
}

/// Looks at the files from time to time.
#[derive(Debug)]
pub struct Watch {
    files: ServerFiles,
    certificates: Arc<Certificates>,
    /// The content that was last taken or refused.
    judged: [u8; 32],
    /// The content at the last look.
    seen: [u8; 32],
}

/// What a look has found.
#[derive(Debug)]
enum Look {
    /// What is known, or what is still being written.
    Nothing,
    Taken,
    Refused(Trouble),
}

impl Watch {
    /// Watches until told to stop.
    pub async fn run(mut self, listener: &'static str, metrics: Arc<Metrics>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = sleep(LOOK_EVERY) => {}
                () = stop.cancelled() => return,
            }
            let files = self.files.clone();
            // Files may be on a disk that hangs; the task that reads them may, too.
            let Ok(read) = spawn_blocking(move || files.read()).await else { return };
            match self.judge(read) {
                Look::Nothing => {}
                Look::Taken => {
                    metrics.certificates_reloaded(listener, true);
                    tracing::info!(listener, "a new certificate is used from now on");
                }
                Look::Refused(trouble) => {
                    metrics.certificates_reloaded(listener, false);
                    tracing::warn!(listener, %trouble, "a new certificate cannot be used; the old one stays");
                }
            }
        }
    }

    /// New content counts once two looks have seen the same: files are not replaced all at once.
    fn judge(&mut self, read: Result<ServerTexts, Trouble>) -> Look {
        let found = match &read {
            Ok(texts) => texts.digest(),
            // Which file is missing is a content as well.
            Err(trouble) => ServerTexts::of(trouble).digest(),
        };
        let is_settled = std::mem::replace(&mut self.seen, found) == found;
        if !is_settled || found == self.judged {
            return Look::Nothing;
        }
        self.judged = found;
        match read.and_then(|texts| texts.config()) {
            Ok(config) => {
                self.certificates.current.store(config);
                Look::Taken
            }
            Err(trouble) => Look::Refused(trouble),
        }
    }
}

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use tempfile::TempDir;

    use super::*;

    fn write(folder: &Path) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        fs::write(folder.join("cert"), made.cert.pem()).unwrap();
        fs::write(folder.join("key"), made.signing_key.serialize_pem()).unwrap();
    }

    fn look(watch: &mut Watch) -> Look {
        let read = watch.files.read();
        watch.judge(read)
    }

    #[test]
    fn new_content_counts_at_the_second_look_and_bad_content_is_refused_once() {
        let folder = TempDir::new().unwrap();
        write(folder.path());
        let files = ServerFiles { cert: folder.path().join("cert"), key: folder.path().join("key"), client_ca: None };
        let (certificates, mut watch) = Certificates::open(files).unwrap();
        let first = certificates.current();
        assert!(matches!(look(&mut watch), Look::Nothing));
        write(folder.path());
        assert!(matches!(look(&mut watch), Look::Nothing));
        assert!(matches!(look(&mut watch), Look::Taken));
        assert!(matches!(look(&mut watch), Look::Nothing));
        let second = certificates.current();
        assert!(!Arc::ptr_eq(&first, &second));
        let good = fs::read(folder.path().join("key")).unwrap();
        for bad in [Some("no key"), None] {
            match bad {
                Some(text) => fs::write(folder.path().join("key"), text).unwrap(),
                None => fs::remove_file(folder.path().join("key")).unwrap(),
            }
            assert!(matches!(look(&mut watch), Look::Nothing));
            assert!(matches!(look(&mut watch), Look::Refused(_)));
            assert!(matches!(look(&mut watch), Look::Nothing));
            assert!(Arc::ptr_eq(&second, &certificates.current()));
        }
        // Back to what was good: taken again, which is harmless.
        fs::write(folder.path().join("key"), good).unwrap();
        assert!(matches!(look(&mut watch), Look::Nothing));
        assert!(matches!(look(&mut watch), Look::Taken));
    }
}
