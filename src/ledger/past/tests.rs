use proptest::prelude::*;

use super::*;

const CHAINS: [ChainNo; 2] = [ChainNo(1), ChainNo(2)];

/// Transfers of two assets on one chain and of one on another; two or three blocks share each time.
fn weights() -> impl Strategy<Value = Vec<Weight>> {
    let one = (0u64..3, 0u64..40, any::<bool>(), 0u8..6, 1u64..1000).prop_map(
        |(asset, block, is_in, status, amount)| Weight {
            asset: AssetNo::nth(CHAINS[usize::from(asset == 2)], asset).unwrap(),
            block,
            time: Millis(i64::try_from(block / 3).unwrap() * 1000),
            direction: if is_in { Direction::In } else { Direction::Out },
            status: match status {
                0 => Status::Orphaned,
                1 | 2 => Status::Pending,
                _ => Status::Settled,
            },
            early: is_in && status == 2,
            amount: amount.into(),
        },
    );
    prop::collection::vec(one, 0..40)
}

fn sums<'a>(weights: impl IntoIterator<Item = &'a Weight>) -> BTreeMap<AssetNo, Position> {
    let mut sums: BTreeMap<AssetNo, Replay> = BTreeMap::new();
    for Weight { asset, direction, status, early, amount, .. } in weights {
        let kind = match status {
            Status::Orphaned => continue,
            Status::Pending => EntryKind::Connect,
            Status::Settled => EntryKind::ConnectSettled,
        };
        let sum = sums.entry(*asset).or_default();
        sum.add(kind, *direction, *amount);
        if *early {
            sum.add(EntryKind::Early, *direction, *amount);
        }
    }
    sums.into_iter().map(|(asset, sum)| (asset, sum.position())).collect()
}

/// Walks over the parts of a history, each of all blocks of some times; gives the figures and how many it passed.
fn walked(mut walk: Walk, weights: &[Weight], part: usize) -> (BTreeMap<AssetNo, Position>, usize) {
    let mut times: Vec<Millis> = weights.iter().map(|weight| weight.time).collect();
    times.sort_unstable();
    times.dedup();
    if walk.way() == Way::Down {
        times.reverse();
    }
    let mut passed = 0;
    for times in times.chunks(part) {
        let own = weights.iter().filter(|weight| times.contains(&weight.time));
        let own: Vec<Weight> = own.copied().collect();
        walk.pass(&own);
        passed += own.len();
        if walk.is_over() {
            break;
        }
    }
    (walk.positions(), passed)
}

fn without_nothing(mut positions: BTreeMap<AssetNo, Position>) -> BTreeMap<AssetNo, Position> {
    positions.retain(|_, position| *position != Position::default());
    positions
}

proptest! {
    #[test]
    fn both_ends_of_a_history_lead_to_what_stood_at_every_block_and_time(
        weights in weights(),
        moved in weights(),
        part in 1usize..4,
    ) {
        let moments = (0..41)
            .flat_map(|block| CHAINS.map(|chain| Moment::Block(chain, block)))
            .chain((-1i64..15).map(|second| Moment::Time(Millis(second * 1000))));
        let all = || weights.iter().chain(&moved);
        for moment in moments {
            let holds = |weight: &&Weight| {
                moment.concerns(weight.asset.chain()) && moment.reaches(weight.block, weight.time)
            };
            let expected = without_nothing(sums(all().filter(holds)));
            let mut down = Walk::down(moment, sums(all()));
            let mut up = Walk::up(moment, &[]);
            for weight in &moved {
                down.weigh(weight);
                up.weigh(weight);
            }
            for walk in [down, up] {
                let way = walk.way();
                let (found, _) = walked(walk, &weights, part);
                prop_assert_eq!(without_nothing(found), expected.clone(), "{:?} {:?}", way, moment);
            }
        }
    }
}

#[test]
fn a_walk_ends_at_the_moment_and_not_at_the_other_end() {
    let weight = |block: u64| Weight {
        asset: AssetNo::nth(CHAINS[0], 0).unwrap(),
        block,
        time: Millis(i64::try_from(block).unwrap() * 1000),
        direction: Direction::In,
        status: Status::Settled,
        early: false,
        amount: 1.into(),
    };
    let weights: Vec<Weight> = (0..1000).map(weight).collect();
    for moment in [Moment::Block(CHAINS[0], 990), Moment::Time(Millis(990_000))] {
        let (_, down) = walked(Walk::down(moment, sums(&weights)), &weights, 1);
        let (_, up) = walked(Walk::up(moment, &[]), &weights, 1);
        assert_eq!((down, up), (10, 992), "{moment:?}");
    }
}

#[test]
fn an_opening_counts_from_where_the_balance_is_known() {
    let on = |history, method, covered_from| WalletChain {
        chain: crate::chain::ChainName::new("a"),
        status: crate::model::WatchStatus::Open,
        from_block: Some(5),
        history,
        history_method: method,
        opened: Some(20),
        opened_time: Some(Millis(20_000)),
        covered_from,
        untraced: None,
        head: Some(100),
        deployment: None,
        safe: None,
    };
    let complete = Some(HistoryStatus::Complete);
    let from = |on: &WalletChain, is_coin| Coverage::of_chain(on, is_coin).map(|known| known.from);
    let blocks = on(complete, Some(HistoryMethod::Blocks), Some(5));
    assert_eq!((from(&blocks, true), from(&blocks, false)), (Some(4), Some(4)));
    let running = on(Some(HistoryStatus::Wanted), Some(HistoryMethod::Blocks), Some(12));
    assert_eq!(from(&running, true), Some(11), "what was read so far is explained");
    let untraced = |number| WalletChain { untraced: Some(number), ..blocks.clone() };
    assert_eq!(from(&untraced(9), true), Some(9), "who knows what moved below?");
    assert_eq!(from(&untraced(9), false), Some(4));
    assert_eq!((from(&untraced(3), true), from(&untraced(20), true)), (Some(4), Some(20)));
    let logs = on(complete, Some(HistoryMethod::Logs), Some(5));
    assert_eq!((from(&logs, true), from(&logs, false)), (Some(20), Some(4)));
    let unproven = on(Some(HistoryStatus::Wanted), Some(HistoryMethod::Logs), Some(5));
    assert_eq!(from(&unproven, false), Some(20));
    let future = on(complete, Some(HistoryMethod::Blocks), Some(21));
    assert_eq!(Coverage::of_chain(&future, true).unwrap().since, Some(Millis(20_000)));
    let known = Coverage::of_chain(&blocks, true).unwrap();
    assert!(
        known.covers(Moment::Block(CHAINS[0], 4)) && !known.covers(Moment::Block(CHAINS[0], 3))
    );
    assert!(
        known.covers(Moment::Time(Millis(20_000))) && !known.covers(Moment::Time(Millis(19_999)))
    );
    assert!(known.seen(Millis(7_000)).covers(Moment::Time(Millis(7_000))));
}
