//! Balances of the past, and why a balance is what it is, as a tenant reads them over what a follower wrote.

use serde_json::Value;

use super::*;
use crate::api::tests::reading::Reading;

/// What a tenant reads of one wallet.
pub(super) struct Account<'a> {
    pub reading: &'a Reading,
    pub rig: &'a Rig,
    pub wallet: WalletId,
    pub address: Address,
}

/// What a tenant reads of all that a follower writes.
pub(super) async fn reading(store: &TestStore, rig: &Rig, tenant: TenantId) -> Reading {
    Reading::new(&store.db, &rig.follower.config, &tenant.to_string()).await
}

fn raw(amount: &Value) -> Option<Amount> {
    let digits = amount["raw"].as_str()?;
    Some(Amount::new(digits.parse().expect("digits")))
}

impl Account<'_> {
    async fn balances(&self, query: &str) -> (u16, Value) {
        self.reading.get(&format!("/v1/wallets/{}/balances?{query}", self.wallet)).await
    }

    /// Where the balances are known: at a block and at its time they are the chain's own. Where they are not, the
    /// answer says so, and the first block from which they are.
    pub(super) async fn assert_past(&self, at: u64) {
        let path = format!("/v1/wallets/{}", self.wallet);
        let (_, shown) = self.reading.get(&path).await;
        let from = shown["chains"][0]["coveredFrom"].as_u64().map(|from| from.saturating_sub(1));
        let time = crate::clock::Millis::from_seconds(1_700_000_000 + at);
        let by_block = self.balances(&format!("tokens=eth,usd&at={at}")).await;
        let by_time = self.balances(&format!("tokens=eth,usd&at={time}")).await;
        if from.is_none_or(|from| at < from) {
            assert_eq!((by_block.0, &by_block.1["code"]), (409, &"not_covered".into()), "{at}");
            if let Some(from) = from {
                assert_eq!(by_block.1["covered"][0]["from"]["number"], from);
                assert_eq!(by_time.0, 409, "{at}");
            }
            return;
        }
        assert_eq!(by_block.0, 200, "{at} {}", by_block.1);
        for (index, asset) in [AssetKey::Native, token()].into_iter().enumerate() {
            let chain = self.rig.chain.balance_at(at, self.address, asset);
            let shown = &by_block.1["balances"][index];
            assert_eq!(raw(&shown["total"]), Some(chain), "{asset:?} after block {at}");
            assert_eq!(by_block.1["asOf"][0]["at"]["number"], at);
            if by_time.0 == 200 {
                assert_eq!(by_time.1["balances"][index]["total"], shown["total"], "at its time");
            }
        }
        // What began with a history of nothing shows no time before its first transfer, and the newest block's time may
        // be that of others to come.
        let is_newest = at == self.rig.chain.head().at.number;
        let has_history = shown["chains"][0]["fromBlock"].is_u64();
        assert!(is_newest || has_history || by_time.0 == 200, "{}", by_time.1);
        assert!(!is_newest || by_time.0 == 409);
    }

    /// The pages of an explanation, of so many transfers each, lead from nothing to the balance.
    pub(super) async fn assert_explained(&self, asset: &str, limit: u64) -> Vec<Value> {
        let path = format!("/v1/wallets/{}/balances/{asset}/explain?limit={limit}", self.wallet);
        let (mut entries, mut cursor) = (Vec::new(), String::new());
        let mut before = Some(Amount::ZERO);
        loop {
            let (status, page) = self.reading.get(&format!("{path}{cursor}")).await;
            if status == 409 && page["code"] == "not_covered" {
                return entries;
            }
            assert_eq!(status, 200, "{page}");
            for entry in page["entries"].as_array().expect("entries") {
                let amount = raw(&entry["amount"]).expect("an amount");
                let effect = entry["effect"].as_str().expect("an effect");
                let is_in = entry["direction"] == "in";
                let after = raw(&entry["totalAfter"]);
                if let (Some(before), Some(after)) = (before, after) {
                    let expected = match (effect, is_in != effect.starts_with("disconnect")) {
                        ("settle" | "early" | "early_over", _) => Some(before),
                        (_, true) => before.checked_add(amount),
                        (_, false) => before.checked_sub(amount),
                    };
                    assert_eq!(expected, Some(after), "{entry}");
                }
                before = after;
                entries.push(entry.clone());
            }
            let Some(next) = page["nextCursor"].as_str() else {
                assert_eq!(page["agrees"], true, "{page}");
                assert_eq!(page["total"], page["balance"]);
                assert!(entries.is_empty() || raw(&page["total"]) == before, "{page}");
                return entries;
            };
            cursor = format!("&cursor={next}");
            assert!(page["agrees"].is_null() && page["total"].is_null(), "not before the end");
        }
    }
}

#[tokio::test]
async fn a_deposit_that_comes_back_in_another_block_counts_from_that_one() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (tenant, wallet) = one_wallet(&store, &mut rig).await;
        let deposit = |tx, amount| Payment {
            tx,
            from: None,
            to: Some(who(9)),
            asset: AssetKey::Native,
            amount,
        };
        rig.chain.mine(&[deposit(1, 100)]);
        rig.chain.mine(&[deposit(2, 7)]);
        rig.follow().await.unwrap();
        // The first comes four blocks later, the second is gone, and something is spent of what came in between.
        rig.chain.cut(0);
        rig.chain.mine(&[deposit(3, 30)]);
        rig.chain.mine(&[]);
        let spent = Payment { tx: 4, from: Some(who(9)), ..deposit(4, 20) };
        rig.chain.mine(&[Payment { to: Some(who(8)), ..spent }]);
        rig.chain.mine(&[]);
        rig.chain.mine(&[deposit(1, 100)]);
        rig.chain.mine(&[]);
        rig.follow().await.unwrap();
        let reading = reading(&store, &rig, tenant).await;
        for settled in [0, 3, 6] {
            rig.chain.settle(settled);
            rig.follow().await.unwrap();
            let account = Account { reading: &reading, rig: &rig, wallet, address: who(9) };
            for at in 0..=rig.chain.head().at.number {
                account.assert_past(at).await;
            }
            for limit in 1..9 {
                let entries = account.assert_explained("eth", limit).await;
                let totals: Vec<_> =
                    entries.iter().map(|entry| raw(&entry["totalAfter"])).collect();
                assert!(
                    totals.iter().all(Option::is_some),
                    "in the order of the blocks that stand"
                );
            }
        }
        store.close().await;
    }
}
