//! This daemon among those that share a database: signs of life, a fair share of the chains, work that one does
//! for all, and one clock.
//!
//! Leases only keep daemons out of each other's way. What keeps money right is the fencing epoch that every commit
//! names ([`crate::store::lease`]). Everything here is decided from rows and by the database's clock.

mod chain_lease;
mod heartbeat;
mod named_lease;
mod plan;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

pub use chain_lease::ChainLease;
pub use heartbeat::HeartbeatError;
pub use named_lease::NamedLease;
use parking_lot::Mutex;
use tokio::sync::Notify;

use self::plan::{Member, plan};
use crate::{
    chain::{ChainName, DailyUse},
    clock::Clock,
    config::FleetConfig,
    metrics::Metrics,
    store::{Db, StoreError, daemon, lease},
    wake::Wake,
};

/// How old a picture may be for a chain that waits for its follower to end.
const RECENT: Duration = Duration::from_millis(200);
/// How long a free chain is left to the daemon that should follow it.
const COURTESY: Duration = Duration::from_secs(3);
/// A daemon younger than this is given no chain from another: it may be one that starts again and again.
const SETTLED_IN: Duration = Duration::from_secs(5);

/// The daemons of one database, as one of them sees them; cloning shares it.
#[derive(Clone)]
pub struct Fleet {
    shared: Arc<Shared>,
}

struct Shared {
    db: Db,
    /// Who this daemon is: told apart from all others, and the same after a restart.
    id: String,
    config: FleetConfig,
    clock: Clock,
    metrics: Metrics,
    wake: Wake,
    /// The leases of the chains that this daemon may follow.
    leases: Mutex<BTreeMap<ChainName, Arc<ChainLease>>>,
    budgets: Mutex<Vec<(ChainName, Arc<dyn DailyUse>)>>,
    /// One at a time looks; the others take over what it saw.
    picture: tokio::sync::Mutex<Option<Arc<Picture>>>,
    /// Since when chains have been seen without a follower.
    free_since: Mutex<BTreeMap<ChainName, Instant>>,
    /// Something has changed that the others should know at once.
    news: Notify,
    /// When this daemon entered, as the database has it; 0 before.
    entered_at: AtomicI64,
    /// Whether there is another daemon.
    has_others: AtomicBool,
}

/// The fleet at one time.
#[derive(Debug)]
struct Picture {
    at: Instant,
    members: Vec<Member>,
    /// Who follows each chain, under which epoch; only those whose lease holds.
    held: BTreeMap<ChainName, (String, i64)>,
    /// Who should.
    plan: BTreeMap<ChainName, String>,
    /// Those that have been there for a while.
    settled_in: BTreeSet<String>,
}

impl Fleet {
    /// `id` tells this daemon apart from all others, and is the same after a restart.
    #[must_use]
    pub fn new(
        db: Db,
        id: String,
        config: FleetConfig,
        clock: Clock,
        metrics: Metrics,
        wake: Wake,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                db,
                id,
                config,
                clock,
                metrics,
                wake,
                leases: Mutex::default(),
                budgets: Mutex::default(),
                picture: tokio::sync::Mutex::default(),
                free_since: Mutex::default(),
                news: Notify::new(),
                entered_at: AtomicI64::new(0),
                has_others: AtomicBool::new(false),
            }),
        }
    }

    /// The lease of a chain that this daemon is to follow.
    #[must_use]
    pub fn chain(&self, chain: &ChainName) -> Arc<ChainLease> {
        let Shared { db, id, config, metrics, .. } = &*self.shared;
        let lease = ChainLease::new(db.clone(), chain.clone(), id.clone(), config.lease, metrics);
        let lease = Arc::new(lease.among(self.clone()));
        self.shared.leases.lock().insert(chain.clone(), Arc::clone(&lease));
        lease
    }

    /// Shares the budgets for a day of a chain's endpoints with the other daemons.
    pub fn share(&self, chain: &ChainName, budgets: Vec<Arc<dyn DailyUse>>) {
        self.shared.budgets.lock().extend(budgets.into_iter().map(|one| (chain.clone(), one)));
    }

    /// The lease of a work that one daemon does for all.
    #[must_use]
    pub fn work(&self, name: &'static str) -> NamedLease {
        NamedLease::new(self.shared.db.clone(), name, self.shared.id.clone())
    }

    /// The fleet as it was a moment ago.
    async fn recent(&self) -> Result<Arc<Picture>, StoreError> {
        let mut picture = self.shared.picture.lock().await;
        if let Some(recent) = picture.as_ref().filter(|picture| picture.at.elapsed() < RECENT) {
            return Ok(Arc::clone(recent));
        }
        let looked = Arc::new(self.look().await?);
        *picture = Some(Arc::clone(&looked));
        Ok(looked)
    }

    /// Forgets the last picture: what it shows is known to have changed.
    async fn look_again(&self) {
        *self.shared.picture.lock().await = None;
    }

    async fn look(&self) -> Result<Picture, StoreError> {
        let Shared { db, config, metrics, .. } = &*self.shared;
        let mut session = db.read().await?;
        let conn = &mut session.conn();
        let live = daemon::live(conn, config.lease).await?;
        let holders = lease::holders(conn).await?;
        drop(session);
        let held: BTreeMap<ChainName, (String, i64)> = holders
            .into_iter()
            .filter_map(|chain| Some((chain.name, (chain.holder?, chain.fencing_epoch))))
            .collect();
        let settled_in = live.iter().filter(|row| row.age >= SETTLED_IN).map(|row| row.id.clone());
        let settled_in = settled_in.collect();
        metrics.fleet_daemons.set(i64::try_from(live.len()).unwrap_or(i64::MAX));
        self.shared.has_others.store(live.len() > 1, Ordering::Relaxed);
        let members: Vec<Member> =
            live.into_iter().map(|row| Member { id: row.id, chains: row.chains }).collect();
        let holders = held.iter().map(|(chain, (id, _))| (chain.clone(), id.clone())).collect();
        let plan = plan(&members, &holders)
            .into_iter()
            .map(|(chain, id)| (chain.clone(), id.to_owned()))
            .collect();
        let at = Instant::now();
        let mut free = self.shared.free_since.lock();
        let known: Vec<ChainName> = self.shared.leases.lock().keys().cloned().collect();
        free.retain(|chain, _| !held.contains_key(chain));
        for chain in known {
            if !held.contains_key(&chain) {
                free.entry(chain).or_insert(at);
            }
        }
        drop(free);
        Ok(Picture { at, members, held, plan, settled_in })
    }

    /// Whether this daemon should try to win a chain: nobody follows it, and it is the one that should, or whoever
    /// should has not come.
    async fn may_take(&self, chain: &ChainName) -> Result<bool, StoreError> {
        let picture = self.recent().await?;
        let id = &self.shared.id;
        if let Some((holder, _)) = picture.held.get(chain) {
            // Its own, from before a restart.
            return Ok(holder == id);
        }
        if picture.plan.get(chain).is_none_or(|planned| planned == id) {
            return Ok(true);
        }
        let since = self.shared.free_since.lock().get(chain).copied();
        Ok(since.is_some_and(|since| since.elapsed() >= COURTESY))
    }

    /// Whether another daemon could follow a chain in this one's place.
    async fn has_another(&self, chain: &ChainName) -> Result<bool, StoreError> {
        let picture = self.recent().await?;
        let mut others = picture.members.iter().filter(|member| member.id != self.shared.id);
        Ok(others.any(|member| member.chains.contains(chain)))
    }

    /// The chains that this daemon can follow now.
    fn able(&self) -> BTreeSet<ChainName> {
        let leases = self.shared.leases.lock();
        leases.iter().filter(|(_, lease)| lease.is_able()).map(|(chain, _)| chain.clone()).collect()
    }
}
