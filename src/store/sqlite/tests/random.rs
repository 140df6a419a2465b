//! Random work with random ends of the process, held against the memory store.
//!
//! The memory store is the model: it passes the same suite and never ends here. A process ends by
//! being closed, or killed: then the next one gets the files as they are on the disk at that moment.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;
use crate::document::Meaning;
use crate::store::memory::MemoryStore;

/// Says which seed failed.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}", self.0);
        }
    }
}

struct World {
    random: StdRng,
    model: MemoryStore,
    store: Option<SqliteStore>,
    folder: TempDir,
    seconds: i64,
    /// Begun and not ended, with the process that began it.
    open: BTreeMap<(String, String), (Intent, u32)>,
    process: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            random: StdRng::seed_from_u64(seed),
            model: MemoryStore::new(64 << 20, 64 << 20),
            store: Some(open(&folder)),
            folder,
            seconds: 0,
            open: BTreeMap::new(),
            process: 0,
        }
    }

    fn store(&self) -> &SqliteStore {
        self.store.as_ref().unwrap()
    }

    fn now(&self) -> jiff::Timestamp {
        at(self.seconds)
    }

    fn intent(&mut self) -> Intent {
        let n = self.random.random_range(0..8);
        let merchant = if self.random.random_bool(0.8) { "sample" } else { "other" };
        // Another body under the same ids, now and then.
        let meaning = Meaning([u8::from(self.random.random_bool(0.1)); 32]);
        let transaction = format!("T{}", n / 2);
        Intent { merchant: merchant.into(), meaning, ..create(&format!("E{n}"), &transaction) }
    }

    async fn step(&mut self) {
        self.seconds += self.random.random_range(0..40);
        match self.random.random_range(0..20) {
            0..7 => self.begin().await,
            7..12 => self.finish().await,
            12..14 => self.remember().await,
            14..18 => self.look().await,
            18 => self.end(false),
            _ => self.end(true),
        }
    }

    async fn begin(&mut self) {
        let intent = self.intent();
        let found = self.store().begin(&intent, self.now()).await.unwrap();
        let expected = self.model.begin(&intent, self.now()).await.unwrap();
        assert_eq!(format!("{found:?}"), format!("{expected:?}"), "{intent:?}");
        // As the caller goes on: a doubt under the first one's ids.
        let intent = match found {
            Begun::Fresh => intent,
            Begun::InDoubt(sent) => Intent { id: sent.header.clone().unwrap(), sent, ..intent },
            Begun::Answered(_) | Begun::Conflict => return,
        };
        let key = (intent.merchant.to_string(), intent.id.to_string());
        self.open.entry(key).or_insert((intent, self.process));
    }

    async fn finish(&mut self) {
        let keys: Vec<_> = self.open.keys().cloned().collect();
        if keys.is_empty() {
            return;
        }
        let key = &keys[self.random.random_range(0..keys.len())];
        let (intent, _) = self.open.remove(key).unwrap();
        let end = match self.random.random_range(0..4) {
            0 | 1 => End::Answered(answer(["one", "two"][self.random.random_range(0..2)])),
            2 => End::InDoubt,
            _ => End::Released,
        };
        let learned = self.random.random_bool(0.5).then(|| self.account());
        self.store().finish(&intent, end.clone(), learned.clone(), self.now()).await.unwrap();
        self.model.finish(&intent, end, learned, self.now()).await.unwrap();
    }

    fn account(&mut self) -> Arc<Account> {
        let prefix = ["14629", "13925"][self.random.random_range(0..2)];
        let own = self.random.random_range(0..4);
        let created = self.random.random_range(0..1_000);
        account(&format!("   {prefix}{own:011}"), &format!("R{created}"), at(created))
    }

    async fn remember(&mut self) {
        let account = self.account();
        self.store().remember(Arc::clone(&account)).await.unwrap();
        self.model.remember(account).await.unwrap();
    }

    async fn look(&mut self) {
        let account = self.account();
        let digits = if self.random.random_bool(0.5) { account.digits() } else { &account.own_digits };
        let query = by_number(digits);
        let found = self.store().account("sample", Dialect::Snap, &query).await.unwrap();
        assert_eq!(found, self.model.account("sample", Dialect::Snap, &query).await.unwrap());
        let sorted = |accounts: Vec<Arc<Account>>| {
            let mut texts: Vec<String> = accounts.iter().map(|account| format!("{account:?}")).collect();
            texts.sort();
            texts
        };
        let (found, expected) = (self.store().accounts(digits).await, self.model.accounts(digits).await);
        assert_eq!(sorted(found.unwrap()), sorted(expected.unwrap()));

        let id = self.intent().id;
        let described =
            |known: Vec<Known>| -> BTreeSet<String> { known.iter().map(|known| format!("{known:?}")).collect() };
        let (found, expected) = (self.store().known(&id, self.now()).await, self.model.known(&id, self.now()).await);
        assert_eq!(described(found.unwrap()), described(expected.unwrap()));

        let key = |doubt: &Doubt| (doubt.intent.merchant.to_string(), doubt.intent.id.clone());
        let found: BTreeSet<_> = self.store().doubts(100).await.unwrap().iter().map(key).collect();
        let mut expected: BTreeSet<_> = self.model.doubts(100).await.unwrap().iter().map(key).collect();
        // The model's process never ended; this one's did.
        let lost = self.open.iter().filter(|(_, (_, process))| *process < self.process);
        expected.extend(lost.map(|(key, _)| (key.0.clone(), key.1.as_str().into())));
        assert_eq!(found, expected);
    }

    fn end(&mut self, killed: bool) {
        self.process += 1;
        if killed {
            let left = super::killed(&self.folder);
            drop(self.store.take());
            self.folder = left;
        } else {
            drop(self.store.take());
        }
        self.store = Some(open(&self.folder));
    }
}

#[tokio::test]
async fn random_work_ends_as_in_memory() {
    for seed in 0..25 {
        let seed = Seed(seed);
        let mut world = World::new(seed.0);
        for _ in 0..80 {
            world.step().await;
        }
    }
}
