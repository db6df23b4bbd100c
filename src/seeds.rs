//! Seeds of simulations: how many are run, and how one that failed is run again.
//!
//! `TIDEMARK_SEEDS=100000 cargo test --lib simulation` runs so many, from 0 on, and `TIDEMARK_SEEDS=17..18` the
//! one in it. What a seed does depends on nothing but the seed.

use std::{
    env,
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

const VARIABLE: &str = "TIDEMARK_SEEDS";

/// Says which seed failed, when that unwinds.
struct Failing(u64);

impl Drop for Failing {
    fn drop(&mut self) {
        if thread::panicking() {
            let (seed, end) = (self.0, self.0 + 1);
            println!(
                "seed {seed} failed: {VARIABLE}={seed}..{end} cargo test --lib simulation runs it again"
            );
        }
    }
}

/// Runs `simulate` on each seed below `usual`, or on those that the environment names, on all cores.
///
/// # Panics
/// If one of them fails, or if the environment's text names no seeds.
pub(crate) fn each(usual: u64, simulate: impl Fn(u64) + Sync) {
    let seeds = match env::var(VARIABLE) {
        Ok(text) => read(&text).unwrap_or_else(|| panic!("{VARIABLE}={text}: not N and not N..M")),
        Err(_) => 0..usual,
    };
    let next = AtomicU64::new(seeds.start);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let _failing = Failing(seed);
            simulate(seed);
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(work);
        }
    });
}

fn read(text: &str) -> Option<Range<u64>> {
    Some(match text.split_once("..") {
        Some((from, to)) => from.parse().ok()?..to.parse().ok()?,
        None => 0..text.parse().ok()?,
    })
}

#[test]
fn seeds_are_a_count_or_a_range() {
    assert_eq!(read("1000"), Some(0..1000));
    assert_eq!(read("17..18"), Some(17..18));
    assert_eq!(read("17.."), None);
    assert_eq!(read("many"), None);
}
