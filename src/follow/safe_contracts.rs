//! Which of Safe's own contracts stand on the chain: read when its follower begins, and once a day. Nobody waits for it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::task::AbortOnDropHandle;

use super::{Follower, TurnError};
use crate::{chain::Address, model::Cursor, store::safe_contract::Code, task::joined};

const REVISIT: Duration = Duration::from_hours(24);
/// After a reading that failed.
const PAUSE: Duration = Duration::from_mins(5);
/// How long a reading may take.
const PATIENCE: Duration = Duration::from_mins(2);

/// The reading under way, and when the next one is due.
#[derive(Default)]
pub(super) struct Contracts {
    task: Option<AbortOnDropHandle<Option<Vec<Code>>>>,
    due: Option<Instant>,
}

impl Follower {
    /// Takes in what was read, and reads again when it is time.
    pub(super) async fn read_safe_contracts(&mut self, cursor: &Cursor) -> Result<(), TurnError> {
        let contracts = &mut self.looking.contracts;
        if let Some(task) = &mut contracts.task {
            if !task.is_finished() {
                return Ok(());
            }
            let read = joined(task.await).flatten();
            contracts.task = None;
            let pause = if read.is_some() { REVISIT } else { PAUSE };
            contracts.due = Some(Instant::now() + pause);
            if let Some(codes) = read {
                self.committer.safe_contracts(cursor.no, &codes).await?;
            }
            return Ok(());
        }
        if contracts.due.is_some_and(|due| Instant::now() < due) {
            return Ok(());
        }
        let releases = self.config.family.safe_releases();
        let known = releases.iter().flat_map(|release| &release.contracts);
        let mut addresses: Vec<Address> = known.map(|contract| contract.address).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let (source, at) = (Arc::clone(&self.source), cursor.head.at);
        contracts.task = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let safes = source.safes()?;
            let read = tokio::time::timeout(PATIENCE, safes.code_hashes(&addresses, at)).await;
            Some(addresses.iter().copied().zip(read.ok()?.ok()?).collect())
        })));
        Ok(())
    }
}
