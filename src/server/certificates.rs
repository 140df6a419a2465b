//! A listener's certificate, and the authorities of its clients', read again when their files change.
//!
//! Promises that new content counts within seconds, through Kubernetes' swapped links too, since it is
//! the content that is compared; that what cannot be used changes nothing but is logged and counted
//! once; and that who connected before is not disturbed, but for one whose certificate no authority of
//! the new set vouches for: that does not count from then on, and the connection is to end. Who is there
//! is looked at again only where the set is another one, and not all at the same moment. A new
//! certificate forgets the sessions of the old one, so that nobody resumes what a removed authority had
//! vouched for.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::ClientNames;
use crate::telemetry::metrics::Metrics;
use crate::tls::{self, ServerFiles, ServerTerms, ServerTexts, Trouble};

/// What new connections shake hands with, and what those that are there are held to.
pub struct Certificates {
    current: ArcSwap<Current>,
    /// The present generation, for who waits for the next one.
    generation: watch::Sender<u64>,
    /// Clients' certificates so far; counted round and round.
    shown: AtomicU32,
}

struct Current {
    terms: ServerTerms,
    /// How often the authorities for clients have changed.
    generation: u64,
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
        let current = Arc::new(Current { terms: texts.terms()?, generation: 0 });
        let (generation, shown) = (watch::Sender::new(0), AtomicU32::new(0));
        let certificates = Arc::new(Self { current: ArcSwap::new(current), generation, shown });
        let judged = texts.digest();
        let authorities = texts.authorities()?;
        Ok((Arc::clone(&certificates), Watch { files, certificates, judged, seen: judged, authorities }))
    }

    /// The present one, and what a certificate that is shown to it will be held to.
    pub(super) fn current(self: &Arc<Self>) -> (Arc<ServerConfig>, Doorkeeper) {
        let current = self.current.load();
        let config = Arc::clone(&current.terms.config);
        (config, Doorkeeper { certificates: Arc::clone(self), generation: current.generation })
    }

    fn replace(&self, terms: ServerTerms, has_other_authorities: bool) {
        let generation = self.current.load().generation + u64::from(has_other_authorities);
        self.current.store(Arc::new(Current { terms, generation }));
        // Last: who hears of it looks at the above.
        self.generation.send_if_modified(|known| std::mem::replace(known, generation) != generation);
    }
}

/// The authorities a handshake begins with.
pub(super) struct Doorkeeper {
    certificates: Arc<Certificates>,
    generation: u64,
}

impl Doorkeeper {
    /// What a client has shown and they have verified.
    pub(super) fn verified(self, chain: &[CertificateDer<'static>]) -> Option<Arc<Shown>> {
        let names = ClientNames(tls::names(chain.first()?).into());
        let verified = AtomicU64::new(self.generation);
        let number = self.certificates.shown.fetch_add(1, Ordering::Relaxed);
        Some(Arc::new(Shown { names, chain: chain.into(), certificates: self.certificates, verified, number }))
    }
}

/// The certificate of a connection's client.
pub(super) struct Shown {
    names: ClientNames,
    chain: Box<[CertificateDer<'static>]>,
    certificates: Arc<Certificates>,
    /// The generation that was asked last and vouches for it.
    verified: AtomicU64,
    /// How many were shown before.
    number: u32,
}

impl Shown {
    /// Its names, for as long as it counts.
    pub(super) fn names(&self) -> Option<&ClientNames> {
        let now = self.certificates.current.load();
        if self.verified.load(Ordering::Relaxed) != now.generation {
            if !now.terms.admits(&self.chain) {
                return None;
            }
            self.verified.store(now.generation, Ordering::Relaxed);
        }
        Some(&self.names)
    }

    /// Waits until it does not count any more, and then for its turn: verifying thousands at once would hold
    /// up requests. Those on its own connection are held to `names` meanwhile.
    pub(super) async fn withdrawn(&self) {
        let mut news = self.certificates.generation.subscribe();
        while self.names().is_some() {
            if news.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            sleep(self.turn()).await;
        }
    }

    /// When it is looked at again after a change: numbers that follow on each other are far apart.
    fn turn(&self) -> Duration {
        TURNS.mul_f64(f64::from(self.number.wrapping_mul(GOLDEN)) / 2_f64.powi(32))
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
    /// The authorities for clients in use.
    authorities: HashSet<CertificateDer<'static>>,
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
        match read.and_then(|texts| Ok((texts.terms()?, texts.authorities()?))) {
            Ok((terms, authorities)) => {
                let is_other = authorities != self.authorities;
                self.authorities = authorities;
                self.certificates.replace(terms, is_other);
                Look::Taken
            }
            Err(trouble) => Look::Refused(trouble),
        }
    }
}

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The time over which connections are looked at again.
const TURNS: Duration = Duration::from_secs(2);

/// The golden section of 2^32; its multiples lie evenly, however many there are.
const GOLDEN: u32 = 0x9E37_79B9;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use futures_util::future::join_all;
    use rustls_pki_types::pem::PemObject as _;
    use tempfile::TempDir;
    use tokio::time::Instant;

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
        let first = certificates.current().0;
        assert!(matches!(look(&mut watch), Look::Nothing));
        write(folder.path());
        assert!(matches!(look(&mut watch), Look::Nothing));
        assert!(matches!(look(&mut watch), Look::Taken));
        assert!(matches!(look(&mut watch), Look::Nothing));
        let second = certificates.current().0;
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
            assert!(Arc::ptr_eq(&second, &certificates.current().0));
        }
        // Back to what was good: taken again, which is harmless.
        fs::write(folder.path().join("key"), good).unwrap();
        assert!(matches!(look(&mut watch), Look::Nothing));
        assert!(matches!(look(&mut watch), Look::Taken));
    }

    #[test]
    fn clients_are_looked_at_again_where_their_authorities_have_changed() {
        let (folder, others) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let path = |name: &str| folder.path().join(name);
        write(folder.path());
        write(others.path());
        fs::copy(path("cert"), path("clients")).unwrap();
        let files = ServerFiles { cert: path("cert"), key: path("key"), client_ca: Some(path("clients")) };
        let (certificates, mut watch) = Certificates::open(files).unwrap();
        let generation = |watch: &mut Watch| {
            assert!(matches!(look(watch), Look::Nothing));
            assert!(matches!(look(watch), Look::Taken));
            certificates.current().1.generation
        };
        write(folder.path());
        assert_eq!(generation(&mut watch), 0);
        fs::copy(others.path().join("cert"), path("clients")).unwrap();
        assert_eq!(generation(&mut watch), 1);
        write(folder.path());
        assert_eq!(generation(&mut watch), 1);
        // Nobody is looked at where the file only puts the same authorities otherwise.
        let (old, new) = (fs::read_to_string(path("cert")).unwrap(), fs::read_to_string(path("clients")).unwrap());
        for (text, expected) in [
            (format!("# the clients'\n{new}"), 1),
            (format!("{new}{old}"), 2),
            (format!("{old}\n{new}{old}"), 2),
            (old, 3),
        ] {
            fs::write(path("clients"), text).unwrap();
            assert_eq!(generation(&mut watch), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn connections_are_looked_at_one_after_the_other() {
        let folder = TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name);
        write(folder.path());
        fs::copy(path("cert"), path("clients")).unwrap();
        let files = ServerFiles { cert: path("cert"), key: path("key"), client_ca: Some(path("clients")) };
        let (certificates, mut watch) = Certificates::open(files).unwrap();
        let chain = [CertificateDer::from_pem_file(path("cert")).unwrap()];
        let shown: Vec<_> = (0..100).map(|_| certificates.current().1.verified(&chain).unwrap()).collect();
        assert!(shown.iter().all(|shown| shown.names().is_some()));
        let waiting = shown.iter().map(|shown| async {
            shown.withdrawn().await;
            Instant::now()
        });
        let change = async {
            sleep(Duration::from_secs(60)).await;
            write(folder.path());
            fs::copy(path("cert"), path("clients")).unwrap();
            look(&mut watch);
            assert!(matches!(look(&mut watch), Look::Taken));
            assert!(shown.iter().all(|shown| shown.names().is_none()), "none counts from that moment on");
            Instant::now()
        };
        let (mut ended, changed) = tokio::join!(join_all(waiting), change);
        ended.sort();
        // A fifth of the time, a fifth of the connections.
        for (fifth, ended) in (1..).zip(ended.chunks(20)) {
            let last = (ended[19] - changed).as_millis();
            assert!((fifth * 400 - 60..=fifth * 400 + 60).contains(&last), "{last} ms in fifth {fifth}");
        }
    }
}
