//! Gauges that are set when they are scraped: one that is not set then is gone, not frozen.
//!
//! Promises that whatever an earlier scrape has shown is removed by the next that does not set it, also where
//! two scrapes cross each other. Knows no metric.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

/// Labels of gauges that are all set when they are scraped.
#[derive(Debug)]
pub(super) struct Shown<L>(Mutex<HashSet<L>>);

impl<L> Default for Shown<L> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<L: Eq + Hash + Clone> Shown<L> {
    /// Sets those of this scrape and removes those of earlier ones that are not among them.
    pub(super) fn scraped<V>(&self, now: impl IntoIterator<Item = (L, V)>, set: impl Fn(&L, V), remove: impl Fn(&L)) {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut current = HashSet::with_capacity(shown.len());
        for (labels, value) in now {
            set(&labels, value);
            current.insert(labels);
        }
        shown.difference(&current).for_each(remove);
        *shown = current;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn what_a_scrape_does_not_set_is_removed_once() {
        let (shown, done) = (Shown::default(), RefCell::new(Vec::new()));
        for scrape in [&["a", "b"][..], &["b"], &["b", "c"], &[]] {
            let set = |labels: &&str, ()| done.borrow_mut().push(format!("+{labels}"));
            let remove = |labels: &&str| done.borrow_mut().push(format!("-{labels}"));
            shown.scraped(scrape.iter().map(|labels| (*labels, ())), set, remove);
        }
        done.borrow_mut()[6..].sort();
        assert_eq!(done.take().join(" "), "+a +b +b -a +b +c -b -c");
    }
}
