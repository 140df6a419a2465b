//! Series that count something at every request, each found by its labels only once.
//!
//! A family finds a series by hashing its labels under a lock. Where the labels are of closed sets their
//! place is known beforehand. A series exists from its first use on, as in a family.

use std::fmt;
use std::hash::Hash;
use std::sync::OnceLock;

use prometheus_client::metrics::family::{Family, MetricConstructor};

/// A family with a place for every series.
pub(super) struct Kept<L, M, C = fn() -> M> {
    family: Family<L, M, C>,
    places: Box<[OnceLock<M>]>,
}

impl<L, M, C> fmt::Debug for Kept<L, M, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("places", &self.places.len()).finish_non_exhaustive()
    }
}

impl<L, M, C> Kept<L, M, C>
where
    L: Clone + Eq + Hash + 'static,
    M: Clone + 'static,
    C: MetricConstructor<M>,
{
    /// With so many places.
    pub(super) fn new(family: Family<L, M, C>, places: usize) -> Self {
        Self { family, places: (0..places).map(|_| OnceLock::new()).collect() }
    }

    /// To be registered.
    pub(super) const fn family(&self) -> &Family<L, M, C> {
        &self.family
    }

    /// The series at a place, which is always that of the same labels.
    pub(super) fn with(&self, place: usize, labels: impl FnOnce() -> L, count: impl FnOnce(&M)) {
        match self.places.get(place) {
            Some(kept) => count(kept.get_or_init(|| self.family.get_or_create_owned(&labels()))),
            None => count(&self.family.get_or_create_owned(&labels())),
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn a_place_and_its_labels_are_one_series_and_exist_from_their_first_use() {
        let kept: Kept<Vec<(String, String)>, Counter> = Kept::new(Family::default(), 2);
        let labels = |name: &str| vec![("name".to_owned(), name.to_owned())];
        assert!(kept.family().get(&labels("a")).is_none());
        for (place, name) in [(0, "a"), (1, "b"), (1, "b"), (7, "beyond"), (7, "beyond")] {
            kept.with(
                place,
                || labels(name),
                |counter| {
                    counter.inc();
                },
            );
        }
        let count = |name: &str| kept.family().get(&labels(name)).map(|counter| counter.get());
        assert_eq!([count("a"), count("b"), count("beyond")], [Some(1), Some(2), Some(2)]);
    }
}
