//! Safe deployments inside the ledger's transactions.

use serde_json::json;

use super::{ApplyError, MatchedBlock, book::Book};
use crate::{
    chain::{Address, BlockRef, ChainName, SafeProof, TxId},
    clock::Millis,
    event::{EventType, NewEvent},
    id::{AccountId, TenantId, WalletId},
    store::{
        Conn, StoreError,
        safe::{self, Deployment, DeploymentStatus},
        wallet::{self, NewWallet, WalletKind},
        watch,
    },
    view::{SafeDeploymentView, WalletData, WalletRefView, WalletView},
};

/// A Safe set up in a block, proven by the state after that block.
#[derive(Clone, Debug)]
pub struct FoundSafe {
    pub tx: TxId,
    pub address: Address,
    pub proof: SafeProof,
}

/// A deployment as it was read and as it is now known to be.
#[derive(Clone, Debug)]
pub struct DeploymentChange {
    pub seen: (DeploymentStatus, Millis),
    pub now: Deployment,
    /// What the state at the settled block proves, where it proves a Safe.
    pub proof: Option<SafeProof>,
}

impl Book {
    /// A block with tracked deployments or with Safes of registered owners was connected. Returns whether
    /// a wallet was made that waits to be watched.
    pub(super) async fn deployments_seen(
        &mut self,
        conn: &mut Conn<'_>,
        block: &MatchedBlock,
    ) -> Result<bool, ApplyError> {
        if block.tracked.is_empty() && block.safes.is_empty() {
            return Ok(false);
        }
        let name = self.chain.name.clone();
        let mut wishes = false;
        for mut row in safe::undecided(conn, &name).await? {
            let in_block = block.tracked.contains(&row.tx);
            if !in_block || row.status != DeploymentStatus::Pending {
                continue;
            }
            let seen = (row.status, row.updated_at);
            let found = block
                .safes
                .iter()
                .find(|s| s.tx == row.tx && row.address.is_none_or(|known| known == s.address));
            if let Some(found) = found {
                row.prove(found.address, &found.proof);
                wishes |= self.safe_wallet(conn, &mut row, &found.proof).await?;
            }
            self.processing(conn, row, block.header.at, Some(seen)).await?;
        }
        for found in &block.safes {
            wishes |= self.found_by_owner(conn, block.header.at, found).await?;
        }
        Ok(wishes)
    }

    /// Tracks a Safe for every tenant that has one of its owners registered and does not track it yet.
    async fn found_by_owner(
        &mut self,
        conn: &mut Conn<'_>,
        at: BlockRef,
        found: &FoundSafe,
    ) -> Result<bool, ApplyError> {
        let name = self.chain.name.clone();
        let owners = found.proof.owners.iter().copied().collect();
        let mut wishes = false;
        for watch in watch::open_by_address(conn, &name, &owners).await? {
            if !watch.is_eoa {
                continue;
            }
            let known = safe::by_tx(conn, watch.tenant_id, &name, &found.tx).await?;
            if known.iter().any(|row| row.address == Some(found.address)) {
                continue;
            }
            let mut row = Deployment {
                id: self.ids.next(),
                tenant_id: watch.tenant_id,
                chain: name.clone(),
                tx: found.tx,
                found_by_owner: true,
                status: DeploymentStatus::Processing,
                reason: None,
                address: None,
                wallet_id: None,
                owner_wallet: Some(watch.wallet_id),
                version: None,
                singleton: None,
                owners: Vec::new(),
                threshold: None,
                block: None,
                sender: None,
                nonce: None,
                missing_since: None,
                created_at: self.now,
                updated_at: self.now,
            };
            row.prove(found.address, &found.proof);
            wishes |= self.safe_wallet(conn, &mut row, &found.proof).await?;
            self.processing(conn, row, at, None).await?;
        }
        Ok(wishes)
    }

    async fn processing(
        &mut self,
        conn: &mut Conn<'_>,
        mut row: Deployment,
        at: BlockRef,
        seen: Option<(DeploymentStatus, Millis)>,
    ) -> Result<(), ApplyError> {
        row.status = DeploymentStatus::Processing;
        row.block = Some(at);
        row.missing_since = None;
        self.write_deployment(conn, row, seen).await
    }

    /// What the follower learned of tracked deployments: written, told, and given a wallet where proven.
    pub(super) async fn deployments_changed(
        &mut self,
        conn: &mut Conn<'_>,
        changes: Vec<DeploymentChange>,
    ) -> Result<bool, ApplyError> {
        let mut wishes = false;
        for DeploymentChange { seen, now: mut row, proof } in changes {
            if let Some(proof) = &proof {
                wishes |= self.safe_wallet(conn, &mut row, proof).await?;
            }
            self.write_deployment(conn, row, Some(seen)).await?;
        }
        Ok(wishes)
    }

    /// The blocks above `fork` are gone: their deployments are pending again.
    pub(super) async fn deployments_gone(
        &mut self,
        conn: &mut Conn<'_>,
        fork: u64,
    ) -> Result<(), ApplyError> {
        let name = self.chain.name.clone();
        for mut row in safe::processing_above(conn, &name, fork).await? {
            let seen = (row.status, row.updated_at);
            row.status = DeploymentStatus::Pending;
            row.block = None;
            self.write_deployment(conn, row, Some(seen)).await?;
        }
        Ok(())
    }

    /// Writes a deployment and tells of its status, if that is new and worth an event.
    async fn write_deployment(
        &mut self,
        conn: &mut Conn<'_>,
        mut row: Deployment,
        seen: Option<(DeploymentStatus, Millis)>,
    ) -> Result<(), ApplyError> {
        row.updated_at = self.now;
        safe::write(conn, &row, seen).await?;
        if seen.is_some_and(|(status, _)| status == row.status) {
            return Ok(());
        }
        let kind = match row.status {
            DeploymentStatus::Pending => return Ok(()),
            DeploymentStatus::Processing => EventType::SafeDeploymentProcessing,
            DeploymentStatus::Completed => EventType::SafeDeploymentCompleted,
            DeploymentStatus::Failed => EventType::SafeDeploymentFailed,
        };
        self.deployments.push(row.status.as_str());
        let family = self.chain.family;
        let wallet = match row.wallet_id {
            Some(id) => Some((id, self.wallet(conn, id).await?)),
            None => None,
        };
        let data = json!({
            "safeDeployment": SafeDeploymentView::new(&row, family),
            "wallet": wallet.map(|(id, wallet)| WalletRefView {
                id,
                address: family.format_address(&wallet.address),
                account_id: wallet.account_id,
                client_reference_id: wallet.client_reference_id,
            }),
        });
        self.events.push(NewEvent::new(row.tenant_id, row.wallet_id, kind, &data));
        Ok(())
    }

    /// The wallet of a proven Safe: the tenant's own at that address, else a new one in the account of the
    /// owner that led to it. Returns whether one was made.
    async fn safe_wallet(
        &mut self,
        conn: &mut Conn<'_>,
        row: &mut Deployment,
        proof: &SafeProof,
    ) -> Result<bool, ApplyError> {
        let Some(address) = row.address else { return Ok(false) };
        let name = self.chain.name.clone();
        let known = wallet::watching(conn, row.tenant_id, &name, &address).await?;
        let id = match known {
            Some(id) => id,
            None => self.register_safe(conn, row, &name, address).await?,
        };
        safe::write_proof(conn, id, proof, self.now).await?;
        if known.is_none() {
            self.tell_created(conn, row.tenant_id, id).await?;
        }
        row.wallet_id = Some(id);
        Ok(known.is_none())
    }

    async fn register_safe(
        &mut self,
        conn: &mut Conn<'_>,
        row: &mut Deployment,
        name: &ChainName,
        address: Address,
    ) -> Result<WalletId, ApplyError> {
        let new = NewWallet {
            id: self.ids.next(),
            tenant_id: row.tenant_id,
            account_id: self.owners_account(conn, row).await?,
            family: self.chain.family,
            address,
            kind: WalletKind::Safe,
            client_reference_id: None,
            nickname: None,
            is_primary: false,
        };
        wallet::insert(conn, &new, self.now).await?;
        if wallet::request_watch(conn, &new, name, None, self.now).await? {
            Ok(new.id)
        } else {
            Err(StoreError::Collision("the Safe was registered meanwhile".to_owned()).into())
        }
    }

    /// The account that an owner's wallet belongs to, if a registered owner has one.
    async fn owners_account(
        &mut self,
        conn: &mut Conn<'_>,
        row: &mut Deployment,
    ) -> Result<Option<AccountId>, StoreError> {
        let owner: Option<WalletId> = if let Some(owner) = row.owner_wallet {
            Some(owner)
        } else {
            let owners = row.owners.iter().copied().collect();
            let watches = watch::open_by_address(conn, &self.chain.name, &owners).await?;
            watches.iter().find(|w| w.tenant_id == row.tenant_id && w.is_eoa).map(|w| w.wallet_id)
        };
        row.owner_wallet = owner;
        match owner {
            Some(owner) => Ok(self.wallet(conn, owner).await?.account_id),
            None => Ok(None),
        }
    }

    async fn tell_created(
        &mut self,
        conn: &mut Conn<'_>,
        tenant: TenantId,
        id: WalletId,
    ) -> Result<(), ApplyError> {
        let row = wallet::by_id(conn, tenant, id).await?;
        let row = row.ok_or_else(|| StoreError::corrupt("a wallet vanished as it was made"))?;
        let data = WalletData { wallet: WalletView::from(&row) };
        self.events.push(NewEvent::new(tenant, Some(id), EventType::WalletCreated, &data));
        Ok(())
    }
}
