use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::chain::BlockHash;

/// Blocks per run.
const MOST: u64 = 10;

fn at(number: u64) -> BlockRef {
    let mut hash = [7; 32];
    hash[..8].copy_from_slice(&number.to_be_bytes());
    BlockRef { number, hash: BlockHash(hash) }
}

impl<L: Copy + Ord> Plan<L> {
    /// Adds requests; they join a scan of their lane that stands at the same block.
    fn insert(&mut self, lane: L, scan: Scan) {
        self.put(lane, State { scan, rest: None }, Lane::default);
    }

    /// When the first of the scans that rest may be tried again.
    fn wakes(&self) -> Option<Instant> {
        let scans = self.lanes.values().flat_map(|lane| lane.scans.values());
        scans.filter_map(|state| Some(state.rest?.until)).min()
    }
}

fn scan(next: u64, from: u64) -> Scan {
    Scan { no: ScanNo(0), next: at(next), from, alone: false }
}

#[derive(Clone, Debug)]
struct Request {
    lane: u8,
    opened: u64,
    from: u64,
    /// The blocks that it was given, as they came.
    got: Vec<u64>,
    /// The next block that it needs; `None` when it has all.
    next: Option<u64>,
}

impl Request {
    fn new(lane: u8, opened: u64, from: u64) -> Self {
        Self { lane, opened, from, got: Vec::new(), next: Some(opened) }
    }
}

/// What follower, node and store do together around a plan.
struct World {
    plan: Plan<u8>,
    requests: Vec<Request>,
    /// Blocks that no node has.
    lost: BTreeSet<u64>,
    now: Instant,
    /// Whose turn it was, and what was read.
    read: Vec<Run<u8>>,
}

impl World {
    fn new(requests: Vec<Request>) -> Self {
        let mut plan = Plan::default();
        for request in &requests {
            plan.insert(request.lane, scan(request.opened, request.from));
        }
        Self { plan, requests, lost: BTreeSet::new(), now: Instant::now(), read: Vec::new() }
    }

    fn open(&mut self, request: Request) {
        self.plan.insert(request.lane, scan(request.opened, request.from));
        self.requests.push(request);
    }

    /// The scans as the store has them.
    fn stored(&self) -> Vec<(u8, Scan)> {
        let requests = self.requests.iter();
        requests
            .filter_map(|request| Some((request.lane, scan(request.next?, request.from))))
            .collect()
    }

    /// One run, read and committed; `false` if there was nothing to read.
    fn turn(&mut self, settled: u64) -> bool {
        let Some(run) = self.plan.next(settled, self.now, |_, _| Some(MOST)) else { return false };
        self.read.push(run);
        let hi = run.scan.next.number;
        assert!(run.lo <= hi && hi <= settled && hi - run.lo < MOST);
        let below = run.lo - 1;
        let advances = self.plan.advances(run.lo, hi, at(below), |_, _| true);
        assert!(advances.iter().any(|one| one.lane == run.lane && one.scan == run.scan));
        if self.lost.range(run.lo..=hi).next().is_some() {
            self.plan.rest(run.lane, &run.scan, self.now);
            return true;
        }
        for advance in &advances {
            self.plan.advanced(advance, at(below), false);
        }
        for request in &mut self.requests {
            let Some(next) = request.next.filter(|next| (run.lo..=hi).contains(next)) else {
                continue;
            };
            request.got.extend((run.lo.max(request.from)..=next).rev());
            request.next = Some(below).filter(|below| *below >= request.from);
        }
        true
    }

    /// Turns until nothing is left to be read.
    fn finish(&mut self, settled: u64) {
        for _ in 0..100_000 {
            if !self.turn(settled) {
                match self.plan.wakes() {
                    Some(wakes) => self.now = self.now.max(wakes),
                    None => return,
                }
            }
        }
        panic!("it never ends");
    }

    fn blocks_read(&self) -> u64 {
        self.read.iter().map(|run| run.scan.next.number - run.lo + 1).sum()
    }

    fn assert_complete(&self) {
        for request in &self.requests {
            let expected: Vec<u64> = (request.from..=request.opened).rev().collect();
            assert_eq!(request.got, expected, "every block once, downwards, without a gap");
        }
    }
}

fn requests(lanes: u8) -> impl Strategy<Value = Vec<Request>> {
    let request = (0..lanes, 1..300_u64, 1..300_u64)
        .prop_map(|(lane, a, b)| Request::new(lane, a.max(b), a.min(b)));
    proptest::collection::vec(request, 1..30)
}

proptest! {
    #[test]
    fn every_request_gets_each_of_its_blocks_once_and_downwards(
        requests in requests(4),
        late in requests(4),
        pauses in proptest::collection::vec(0..20_usize, 30),
        reloads in any::<bool>(),
    ) {
        let mut world = World::new(requests);
        for (request, turns) in late.into_iter().zip(pauses) {
            for _ in 0..turns {
                world.turn(300);
                if reloads {
                    world.plan.reload(world.stored());
                }
            }
            world.open(request);
        }
        world.finish(300);
        world.assert_complete();
        prop_assert!(world.plan.is_empty());
    }

    #[test]
    fn requests_of_one_tenant_that_are_there_together_cost_one_pass(requests in requests(1)) {
        let needed: BTreeSet<u64> =
            requests.iter().flat_map(|request| request.from..=request.opened).collect();
        let mut world = World::new(requests);
        world.finish(300);
        world.assert_complete();
        prop_assert_eq!(world.blocks_read(), needed.len() as u64);
    }

    #[test]
    fn requests_of_several_tenants_cost_no_more_than_a_pass_for_each(requests in requests(4)) {
        let needed: BTreeSet<(u8, u64)> = requests
            .iter()
            .flat_map(|request| (request.from..=request.opened).map(|block| (request.lane, block)))
            .collect();
        let mut world = World::new(requests);
        world.finish(300);
        prop_assert!(world.blocks_read() <= needed.len() as u64);
    }

    #[test]
    fn a_tenant_waits_for_one_turn_of_every_other_at_most(requests in requests(4)) {
        let mut world = World::new(requests);
        let mut waited: BTreeMap<u8, usize> = BTreeMap::new();
        while let waiting = world.stored().into_iter().map(|(lane, _)| lane).collect::<BTreeSet<_>>()
            && world.turn(300)
        {
            let turn = world.read.last().unwrap().lane;
            for lane in waiting {
                let turns = waited.entry(lane).or_default();
                *turns = if lane == turn { 0 } else { *turns + 1 };
                prop_assert!(*turns <= 3, "tenant {lane} waits");
            }
        }
    }

    #[test]
    fn what_cannot_be_read_holds_nobody_else_up(
        requests in requests(3),
        lost in proptest::collection::btree_set(1..300_u64, 1..4),
    ) {
        let mut world = World::new(requests);
        // A run that ends right above what is lost is not lost itself.
        let free = |request: &Request| lost.range(..=request.opened).next_back().is_none_or(|lost| {
            lost + MOST < request.from
        });
        world.lost.clone_from(&lost);
        for _ in 0..1000 {
            if !world.turn(300) {
                break;
            }
        }
        for request in world.requests.iter().filter(|request| free(request)) {
            prop_assert_eq!(request.next, None, "without any waiting");
        }
        // The blocks come back: nothing was given up.
        world.lost.clear();
        world.finish(300);
        world.assert_complete();
    }

    #[test]
    fn no_stream_of_new_requests_holds_up_an_old_one(every in 1..5_u64, from in 1..200_u64) {
        let mut world = World::new(vec![Request::new(0, 400, from)]);
        let runs = (400 - from) / MOST + 1;
        let mut top = 400;
        // The first of the stream is there before the sweep begins.
        for turn in 0..2 * (runs + 1) {
            if turn % every == 0 {
                top += 7;
                world.open(Request::new(0, top, 1));
            }
            world.turn(top);
        }
        prop_assert_eq!(world.requests[0].next, None, "every other turn is the sweep's");
    }

    #[test]
    fn a_short_request_does_not_wait_for_a_long_one(length in 1..50_u64, head_start in 1..50_usize) {
        let mut world = World::new(vec![Request::new(0, 10_000, 1)]);
        for _ in 0..head_start {
            world.turn(20_000);
        }
        world.open(Request::new(0, 20_000, 20_000 - length));
        for _ in 0..2 * (length / MOST + 1) {
            world.turn(20_000);
        }
        prop_assert_eq!(world.requests[1].next, None);
    }
}

#[test]
fn nothing_above_the_settled_block_is_read() {
    let mut plan = Plan::default();
    plan.insert(0, scan(100, 1));
    let now = Instant::now();
    assert_eq!(plan.next(99, now, |_, _| Some(MOST)), None);
    assert_eq!(plan.wakes(), None, "the settled block is waited for, not a time");
    let run = plan.next(100, now, |_, _| Some(MOST)).unwrap();
    assert_eq!((run.lo, run.scan.next.number), (91, 100));
}

#[test]
fn a_scan_that_fails_again_rests_longer_and_is_forgiven_when_it_advances() {
    let mut plan = Plan::default();
    plan.insert(0, scan(100, 1));
    let mut now = Instant::now();
    let mut pauses = Vec::new();
    for failures in 1..=8 {
        plan.rest(0, &scan(100, 1), now);
        assert_eq!(plan.next(100, now, |_, _| Some(MOST)), None);
        let until = plan.wakes().unwrap();
        pauses.push(until.duration_since(now).as_secs());
        now = until;
        let run = plan.next(100, now, |_, _| Some(MOST)).unwrap();
        assert_eq!(run.failures, failures, "so that less is tried");
    }
    assert_eq!(pauses, [15, 30, 60, 120, 240, 480, 600, 600]);
    let advances = plan.advances(91, 100, at(90), |_, _| true);
    plan.advanced(&advances[0], at(90), false);
    plan.rest(0, &scan(90, 1), now);
    assert_eq!(plan.wakes().unwrap().duration_since(now).as_secs(), 15);
}

#[test]
fn scans_that_fail_are_counted_until_they_move_on_or_are_gone() {
    let now = Instant::now();
    let mut plan = Plan::default();
    for lane in 0..3 {
        plan.insert(lane, scan(100, 1));
        plan.rest(lane, &scan(100, 1), now);
    }
    plan.insert(0, scan(50, 1));
    assert_eq!(plan.backing_off(), 3);
    plan.rest(0, &scan(100, 1), now);
    plan.rest(0, &scan(70, 1), now);
    assert_eq!(plan.backing_off(), 3, "one that fails again, and one that is not there");
    let advances = plan.advances(91, 100, at(90), |lane, _| lane == 0);
    plan.advanced(&advances[0], at(90), false);
    assert_eq!(plan.backing_off(), 2);
    plan.reload([(0, scan(90, 1)), (1, scan(100, 1))]);
    assert_eq!(plan.backing_off(), 1);
}

#[test]
fn what_the_store_says_replaces_the_scans_and_keeps_turns_and_rests() {
    let now = Instant::now();
    let mut plan = Plan::default();
    for lane in 0..3 {
        plan.insert(lane, scan(100, 1));
    }
    assert_eq!(plan.next(100, now, |_, _| Some(MOST)).unwrap().lane, 0);
    plan.rest(1, &scan(100, 1), now);
    plan.reload([(0, scan(90, 1)), (1, scan(100, 1)), (1, scan(50, 1)), (3, scan(10, 1))]);
    let turns: Vec<(u8, u64)> = (0..4)
        .map(|_| {
            plan.next(100, now, |_, _| Some(MOST))
                .map(|run| (run.lane, run.scan.next.number))
                .unwrap()
        })
        .collect();
    assert_eq!(turns, [(1, 50), (0, 90), (3, 10), (1, 50)]);
    plan.reload([]);
    assert!(plan.is_empty() && plan.next(100, now, |_, _| Some(MOST)).is_none());
}

#[test]
fn requests_that_are_looked_up_alone_take_turns_and_none_rides_with_another() {
    let now = Instant::now();
    let mut plan = Plan::default();
    let alone = |no| Scan { no: ScanNo(no), alone: true, ..scan(100, 1) };
    for wallet in 1..=3 {
        plan.insert(0, alone(wallet));
    }
    plan.insert(1, alone(4));
    assert!(plan.advances(1, 100, at(0), |_, _| true).is_empty());
    let next = |plan: &mut Plan<u8>| plan.next(100, now, |_, _| Some(u64::MAX));
    let mut served = Vec::new();
    plan.rest(0, &alone(2), now);
    while let Some(run) = next(&mut plan) {
        assert_eq!(run.lo, 1);
        served.push(run.scan.no.0);
        let advance = Advance { lane: run.lane, scan: run.scan, absorbs: Vec::new() };
        plan.advanced(&advance, at(0), false);
    }
    assert_eq!(served, [3, 4, 1], "a tenant's many do not hold up another's one");
    assert!(!plan.is_empty(), "the one that rests is not forgotten");
}

#[test]
fn what_may_not_be_read_now_is_passed_over() {
    let mut plan = Plan::default();
    let alone = |no| Scan { no: ScanNo(no), alone: true, ..scan(100, 1) };
    for wallet in 1..=3 {
        plan.insert(0, alone(wallet));
    }
    plan.insert(1, alone(4));
    let mut begun: Vec<i64> = Vec::new();
    while let Some(run) = plan
        .next(100, Instant::now(), |_, scan| Some(u64::MAX).filter(|_| !begun.contains(&scan.no.0)))
    {
        begun.push(run.scan.no.0);
    }
    begun.sort_unstable();
    assert_eq!(begun, [1, 2, 3, 4], "each once");
}

#[test]
fn a_scan_that_nobody_takes_part_in_any_more_is_gone() {
    let mut plan = Plan::default();
    plan.insert(0, scan(100, 1));
    let run = plan.next(100, Instant::now(), |_, _| Some(MOST)).unwrap();
    let advances = plan.advances(run.lo, 100, at(90), |_, _| true);
    assert!(advances[0].moves(&run) && plan.has(0, &run.scan));
    plan.advanced(&advances[0], at(90), true);
    assert!(!plan.has(0, &scan(90, 1)) && plan.is_empty());
}

#[test]
fn a_run_goes_on_when_it_has_taken_up_a_deeper_scan() {
    let mut plan = Plan::default();
    let numbered = |no, next, from| Scan { no: ScanNo(no), ..scan(next, from) };
    plan.insert(0, numbered(1, 100, 92));
    plan.insert(0, numbered(2, 98, 1));
    let mut run = plan.next(100, Instant::now(), |_, _| Some(MOST)).unwrap();
    for below in [95, 91] {
        let advances = plan.advances(below + 1, run.scan.next.number, at(below), |_, _| true);
        assert!(advances[0].moves(&run), "{below}");
        plan.advanced(&advances[0], at(below), false);
        run.scan.next = at(below);
        assert!(plan.has(0, &run.scan), "{below}");
    }
}

#[test]
fn scans_that_meet_are_one_and_a_scan_at_another_block_of_that_height_stays() {
    let mut plan = Plan::default();
    let numbered = |no, next, from| Scan { no: ScanNo(no), ..scan(next, from) };
    let other = BlockRef { hash: BlockHash([1; 32]), ..at(95) };
    plan.insert(0, numbered(1, 100, 50));
    plan.insert(0, numbered(2, 97, 20));
    plan.insert(0, numbered(3, 90, 80));
    plan.insert(0, Scan { next: other, ..numbered(4, 95, 1) });
    plan.insert(1, numbered(5, 91, 91));
    let advances = plan.advances(91, 100, at(90), |_, read| read == at(read.number));
    let told: Vec<(u8, i64, Vec<i64>)> = advances
        .iter()
        .map(|one| (one.lane, one.scan.no.0, one.absorbs.iter().map(|scan| scan.no.0).collect()))
        .collect();
    assert_eq!(told, [(0, 1, vec![2, 3]), (1, 5, vec![])]);
    for advance in &advances {
        plan.advanced(advance, at(90), false);
    }
    let now = Instant::now();
    let turns = [(); 3].map(|()| plan.next(100, now, |_, _| Some(100)).unwrap());
    let of = |run: Run<u8>| (run.lane, run.scan.no.0, run.lo, run.scan.next);
    assert_eq!(of(turns[0]), (0, 4, 1, other), "the sweep begins at the top");
    assert_eq!(turns[1].scan.no, ScanNo(4), "which is the highest, too");
    assert_eq!(of(turns[2]), (0, 4, 1, other));
    plan.rest(0, &turns[0].scan, now);
    let run = plan.next(100, now, |_, _| Some(100)).unwrap();
    assert_eq!(
        of(run),
        (0, 1, 20, at(90)),
        "the three are one, and the other tenant has all it wants"
    );
}
