//! A map with room for so many bytes: what was not asked for the longest makes room.
//!
//! Knows nothing of what it holds but its weight. Not shared: whoever has one locks it.

use std::fmt;

use hashlink::LinkedHashMap;

/// See the module.
pub(super) struct Shelf<V> {
    entries: LinkedHashMap<Box<str>, (V, usize)>,
    bytes: usize,
    most: usize,
}

impl<V> fmt::Debug for Shelf<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shelf")
            .field("entries", &self.entries.len())
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl<V> Shelf<V> {
    /// An empty one that holds at most so many bytes.
    pub(super) fn new(most: usize) -> Self {
        Self { entries: LinkedHashMap::new(), bytes: 0, most }
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// What they weigh.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// An entry, which counts as asked for.
    pub(super) fn get(&mut self, key: &str) -> Option<&V> {
        Some(&self.entries.to_back(key)?.0)
    }

    /// Enters what weighs so many bytes, in the place of what has the key.
    pub(super) fn put(&mut self, key: String, value: V, bytes: usize) {
        self.bytes += bytes;
        if let Some((_, before)) = self.entries.insert(key.into_boxed_str(), (value, bytes)) {
            self.bytes -= before;
        }
        self.make_room(|_| false);
    }

    /// Takes an entry out.
    pub(super) fn remove(&mut self, key: &str) {
        if let Some((_, bytes)) = self.entries.remove(key) {
            self.bytes -= bytes;
        }
    }

    /// Lets go of the entries asked for the longest ago, as long as there are too many or they are over.
    pub(super) fn make_room(&mut self, is_over: impl Fn(&V) -> bool) {
        while let Some((_, (value, bytes))) = self.entries.front()
            && (self.bytes > self.most || is_over(value))
        {
            self.bytes -= bytes;
            self.entries.pop_front();
        }
    }

    /// Every entry.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &V)> {
        self.entries.iter().map(|(key, (value, _))| (&**key, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(shelf: &Shelf<u32>) -> Vec<&str> {
        shelf.iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn what_was_asked_for_last_stays() {
        let mut shelf = Shelf::new(30);
        for (n, key) in (0..).zip(["a", "b", "c"]) {
            shelf.put(key.to_owned(), n, 10);
        }
        assert_eq!(shelf.get("a"), Some(&0));
        shelf.put("d".to_owned(), 3, 10);
        assert_eq!(keys(&shelf), ["c", "a", "d"]);
        assert_eq!((shelf.bytes(), shelf.get("b")), (30, None));
    }

    #[test]
    fn an_entry_weighs_once() {
        let mut shelf = Shelf::new(30);
        shelf.put("a".to_owned(), 1, 10);
        shelf.put("a".to_owned(), 2, 25);
        assert_eq!((shelf.len(), shelf.bytes()), (1, 25));
        shelf.remove("a");
        shelf.remove("a");
        assert_eq!((shelf.len(), shelf.bytes()), (0, 0));
        shelf.put("too large".to_owned(), 1, 31);
        assert_eq!((shelf.len(), shelf.bytes()), (0, 0), "it would leave no room for anything");
    }

    #[test]
    fn what_is_over_goes_without_being_asked_for() {
        let mut shelf = Shelf::new(100);
        for (n, key) in (0..).zip(["a", "b", "c"]) {
            shelf.put(key.to_owned(), n, 10);
        }
        shelf.make_room(|n| *n < 2);
        assert_eq!((keys(&shelf), shelf.bytes()), (vec!["c"], 10));
    }
}
