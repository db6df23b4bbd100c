//! Values kept in memory for a short time, and a bounded number of them.

use std::{collections::HashMap, hash::Hash, time::Duration};

use parking_lot::RwLock;

use crate::clock::Millis;

/// A map that forgets each value after a while, and everything when it is full.
#[derive(Debug)]
pub(super) struct Cache<K, V> {
    values: RwLock<HashMap<K, (V, Millis)>>,
    capacity: usize,
    lifetime: Duration,
}

impl<K: Hash + Eq, V: Clone> Cache<K, V> {
    pub fn new(capacity: usize, lifetime: Duration) -> Self {
        Self { values: RwLock::default(), capacity, lifetime }
    }

    pub fn get(&self, key: &K, now: Millis) -> Option<V> {
        let values = self.values.read();
        let (value, since) = values.get(key)?;
        (now.since(*since) < self.lifetime).then(|| value.clone())
    }

    pub fn put(&self, key: K, value: V, now: Millis) {
        let mut values = self.values.write();
        if values.len() >= self.capacity && !values.contains_key(&key) {
            values.retain(|_, (_, since)| now.since(*since) < self.lifetime);
            if values.len() >= self.capacity {
                values.clear();
            }
        }
        values.insert(key, (value, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_forgotten_in_time_and_the_number_of_values_is_bounded() {
        let cache = Cache::new(2, Duration::from_secs(5));
        cache.put("a", 1, Millis(0));
        assert_eq!(cache.get(&"a", Millis(4999)), Some(1));
        assert_eq!(cache.get(&"a", Millis(5000)), None);
        cache.put("b", 2, Millis(5000));
        cache.put("c", 3, Millis(5000));
        cache.put("d", 4, Millis(5000));
        assert_eq!(cache.get(&"d", Millis(5000)), Some(4));
        assert!(cache.values.read().len() <= 2);
    }
}
