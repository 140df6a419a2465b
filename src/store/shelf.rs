//! Records with room for so many bytes: what was not asked for the longest makes room.
//!
//! A record is found by what it says itself, so that there is one piece of memory for it and none for a
//! key. Knows nothing of what it holds but its weight. Not shared: whoever has one locks it.

use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};

use hashlink::linked_hash_map::{RawEntryMut, RawOccupiedEntryMut};
use hashlink::{DefaultHashBuilder, LinkedHashMap};

/// See the module.
pub(super) struct Shelf<V> {
    slots: LinkedHashMap<Slot<V>, (), BuildHasherDefault<AsIs>>,
    hashing: DefaultHashBuilder,
    /// Of the next slot.
    number: u64,
    bytes: usize,
    most: usize,
}

/// The hash of what a record is found by; of one shelf, which seeds its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u64);

struct Slot<V> {
    place: Place,
    /// No other slot has it.
    number: u64,
    bytes: usize,
    record: V,
}

impl<V> PartialEq for Slot<V> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<V> Eq for Slot<V> {}

impl<V> Hash for Slot<V> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.place.0);
    }
}

/// Takes a hash for what it is.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    // Slots write one number.
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }
}

impl<V> fmt::Debug for Shelf<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shelf").field("records", &self.len()).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl<V> Shelf<V> {
    /// An empty one that holds at most so many bytes.
    pub(super) fn new(most: usize) -> Self {
        Self { slots: LinkedHashMap::default(), hashing: DefaultHashBuilder::default(), number: 0, bytes: 0, most }
    }

    /// How many records there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// What they weigh.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where records are that are found by this.
    pub(super) fn place(&self, by: impl Hash) -> Place {
        Place(self.hashing.hash_one(by))
    }

    /// The record there that is the one meant; it counts as asked for.
    pub(super) fn get(&mut self, place: Place, is_meant: impl Fn(&V) -> bool) -> Option<&V> {
        let mut found = self.find(place, is_meant)?;
        found.to_back();
        Some(&found.into_key().record)
    }

    /// Enters a record that weighs so many bytes, in the place of the one meant. One that there is no room
    /// for even alone is not entered, since nothing else could stay.
    pub(super) fn put(&mut self, place: Place, record: V, bytes: usize, is_meant: impl Fn(&V) -> bool) {
        self.remove(place, is_meant);
        if bytes > self.most {
            return;
        }
        let slot = Slot { place, number: self.number, bytes, record };
        self.number += 1;
        self.bytes += bytes;
        self.slots.insert(slot, ());
        self.make_room(|_| false);
    }

    /// Takes a record out.
    pub(super) fn remove(&mut self, place: Place, is_meant: impl Fn(&V) -> bool) -> Option<V> {
        let (slot, ()) = self.find(place, is_meant)?.remove_entry();
        self.bytes -= slot.bytes;
        Some(slot.record)
    }

    /// Lets go of the records asked for the longest ago, as long as there are too many or they are over.
    pub(super) fn make_room(&mut self, is_over: impl Fn(&V) -> bool) {
        while let Some((slot, ())) = self.slots.front()
            && (self.bytes > self.most || is_over(&slot.record))
        {
            self.bytes -= slot.bytes;
            self.slots.pop_front();
        }
    }

    /// Every record.
    pub(super) fn iter(&self) -> impl Iterator<Item = &V> {
        self.slots.keys().map(|slot| &slot.record)
    }

    fn find(
        &mut self,
        place: Place,
        is_meant: impl Fn(&V) -> bool,
    ) -> Option<RawOccupiedEntryMut<'_, Slot<V>, (), BuildHasherDefault<AsIs>>> {
        let is_there = |slot: &Slot<V>| slot.place == place && is_meant(&slot.record);
        match self.slots.raw_entry_mut().from_hash(place.0, is_there) {
            RawEntryMut::Occupied(found) => Some(found),
            RawEntryMut::Vacant(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Named = (&'static str, u32);

    fn put(shelf: &mut Shelf<Named>, (name, n): Named, bytes: usize) {
        shelf.put(shelf.place(name), (name, n), bytes, |known| known.0 == name);
    }

    fn get(shelf: &mut Shelf<Named>, name: &str) -> Option<u32> {
        shelf.get(shelf.place(name), |known| known.0 == name).map(|(_, n)| *n)
    }

    fn names(shelf: &Shelf<Named>) -> Vec<&str> {
        shelf.iter().map(|(name, _)| *name).collect()
    }

    #[test]
    fn what_was_asked_for_last_stays() {
        let mut shelf = Shelf::new(30);
        for (n, name) in (0..).zip(["a", "b", "c"]) {
            put(&mut shelf, (name, n), 10);
        }
        assert_eq!(get(&mut shelf, "a"), Some(0));
        put(&mut shelf, ("d", 3), 10);
        assert_eq!(names(&shelf), ["c", "a", "d"]);
        assert_eq!((shelf.bytes(), get(&mut shelf, "b")), (30, None));
    }

    #[test]
    fn a_record_weighs_once() {
        let mut shelf = Shelf::new(30);
        put(&mut shelf, ("a", 1), 10);
        put(&mut shelf, ("a", 2), 25);
        assert_eq!((shelf.len(), shelf.bytes(), get(&mut shelf, "a")), (1, 25, Some(2)));
        let place = shelf.place("a");
        assert_eq!(shelf.remove(place, |known| known.0 == "a"), Some(("a", 2)));
        assert_eq!(shelf.remove(place, |known| known.0 == "a"), None);
        assert_eq!((shelf.len(), shelf.bytes()), (0, 0));
    }

    #[test]
    fn what_is_too_large_drives_nothing_out() {
        let mut shelf = Shelf::new(30);
        put(&mut shelf, ("a", 1), 10);
        put(&mut shelf, ("b", 2), 10);
        put(&mut shelf, ("b", 3), 31);
        assert_eq!((names(&shelf), shelf.bytes()), (vec!["a"], 10), "an older one would be wrong");
    }

    #[test]
    fn what_is_over_goes_without_being_asked_for() {
        let mut shelf = Shelf::new(100);
        for (n, name) in (0..).zip(["a", "b", "c"]) {
            put(&mut shelf, (name, n), 10);
        }
        shelf.make_room(|(_, n)| *n < 2);
        assert_eq!((names(&shelf), shelf.bytes()), (vec!["c"], 10));
    }

    #[test]
    fn two_at_one_place_are_told_apart() {
        let mut shelf = Shelf::new(100);
        let place = shelf.place("anything");
        for record in [("a", 1), ("b", 2)] {
            shelf.put(place, record, 10, |known| known.0 == record.0);
        }
        for (name, n) in [("a", 1), ("b", 2)] {
            assert_eq!(shelf.get(place, |known| known.0 == name), Some(&(name, n)));
        }
        shelf.remove(place, |known| known.0 == "a");
        assert_eq!(names(&shelf), ["b"]);
    }
}
