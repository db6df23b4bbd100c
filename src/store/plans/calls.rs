//! Runs each statement of the store once, over the rows of `rows.sql`, and undoes it.
//!
//! Tenant 1 has wallet 10, which is watched on chain 1, wallet 50, which waits to be closed, and wallet 100, which
//! waits to be opened.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use uuid::Uuid;

use crate::{
    amount::Amount,
    chain::{
        Address, AssetKey, BlockHash, BlockRef, ChainName, Family, Header, HistoryMethod,
        SafePlugs, TxId,
    },
    clock::{Clock, Millis},
    delivery::{Attempt, DeliveryOutcome, DeliveryStatus, DisabledReason},
    event::{EventType, EventWallet, NewEvent, Told},
    id::{Ids, LeaseToken, TenantId},
    ledger::changes::{
        AssetChange, AssetOpening, BalanceChange, DeploymentChange, HistoryEnd, LookChanges,
        NewBlock, ProofChange, SafeProof, SafeRead, SafeStateChanges, ScanChange, TransferUpdate,
        WatchChanges,
    },
    ledger::past::Way,
    model::{
        AdoptSafes, Asset, AssetNo, Balance, BlockPoint, ChainNo, CommitKind, DeploymentStatus,
        Direction, Entry, EntryKind, HistoryStatus, JournalCommit, JournalHash, LocatorKind,
        NewWallet, NewWatch, Registrations, Rewind, RewindOrder, SafeLook, SafeOnChain, ScanNo,
        SettledBy, Status, TenantNo, TransferNo, WaitingSafe, WalletKind, WalletNo, WalletStatus,
    },
    store::{
        Conn, StoreError, account, asset, asset_opening, audit, balance, canary, chain, correction,
        daemon, delivery, early, endpoint, event, feed,
        history::{self, TransferFilter, past},
        idempotency, journal, key, lease, on, ownership, participant, registration,
        retention::{self, Expiring},
        safe, safe_contract, safe_look, safe_state, scan, setting, settling, transfer, wal,
        wallet::{self, AccountFilter, WalletChanges, WalletFilter},
        watch, watch_count, watch_load,
    },
};

const TENANT: TenantId = TenantId(Uuid::from_u128(1));
const CHAIN: ChainNo = ChainNo(1);
const ASSET: AssetNo = AssetNo(1 << 32 | 1);
const WALLET: WalletNo = WalletNo(10);
const LEASE: Duration = Duration::from_secs(10);
const NOW: Millis = Millis(100_000);
const PAGE: i64 = 10;

fn id<T: From<Uuid>>(n: u128) -> T {
    Uuid::from_u128(n).into()
}

fn bytes<const N: usize>(n: u8) -> [u8; N] {
    let mut bytes = [0; N];
    bytes[N - 1] = n;
    bytes
}

fn address(n: u8) -> Address {
    Address::from(bytes::<20>(n))
}

fn block(number: u8) -> BlockRef {
    BlockRef { number: number.into(), hash: BlockHash(bytes(number)) }
}

fn transfer_no(n: i64) -> TransferNo {
    TransferNo(CHAIN.0 << 44 | n)
}

async fn raw(conn: &mut Conn<'_>, sql: &'static str) {
    on!(conn, c => sqlx::raw_sql(sql).execute(c).await.map(|_| ())).unwrap();
}

/// Each of them finds the store as it was.
macro_rules! run {
    ($conn:ident: $($call:expr),+ $(,)?) => {$(
        raw($conn, "SAVEPOINT call").await;
        if let Err(error) = $call.await {
            panic!("{}: {error}", stringify!($call));
        }
        raw($conn, "ROLLBACK TO call; RELEASE call").await;
    )+};
}

pub(super) async fn run(conn: &mut Conn<'_>) {
    raw(conn, "BEGIN").await;
    tenants(conn).await;
    wallets(conn).await;
    registrations(conn).await;
    watches(conn).await;
    scans(conn).await;
    chains(conn).await;
    transfers(conn).await;
    events(conn).await;
    safes(conn).await;
    webhooks(conn).await;
    retained(conn).await;
    raw(conn, "ROLLBACK").await;
}

async fn tenants(conn: &mut Conn<'_>) {
    let key = (TENANT, "key 10".to_owned());
    let challenge = ownership::get(conn, TENANT, id(10)).await.unwrap().unwrap();
    run!(conn:
        key::ensure_tenant(conn, id(11), "new", NOW),
        key::lock_tenant(conn, TENANT),
        key::insert_key(conn, id(1), TENANT, &[1; 32], "admin", NOW),
        key::valid_key(conn, &[1; 32]),
        key::keys(conn, None),
        key::keys(conn, Some("tenant 1")),
        key::revoke_key(conn, id(1), NOW),
        account::lock(conn, TENANT, id(10), NOW),
        idempotency::take(conn, vec![(&key, &[1; 32])], NOW, NOW),
        idempotency::first_answers(conn, &[&key]),
        idempotency::keep_answers(conn, &[(&key, 200, "{}")]),
        idempotency::give_back(conn, &[&key]),
        ownership::insert(conn, &ownership::Challenge { id: id(0), ..challenge.clone() }),
        ownership::use_up(conn, TENANT, id(20), Millis(20)),
    );
}

async fn wallets(conn: &mut Conn<'_>) {
    let filter = WalletFilter::default;
    let of = |account| WalletFilter { account: Some(account), ..WalletFilter::default() };
    let filters = [
        filter(),
        WalletFilter { id: Some(id(10)), ..filter() },
        WalletFilter { before: Some(id(10)), ..filter() },
        WalletFilter { address: Some(address(10)), ..filter() },
        WalletFilter { address: Some(address(10)), before: Some(id(11)), ..filter() },
        WalletFilter { client_reference_id: Some("reference 10".to_owned()), ..filter() },
        WalletFilter { chain: Some(ChainName::new("a")), ..filter() },
        WalletFilter { family: Some(Family::Evm), kind: Some(WalletKind::Eoa), ..filter() },
        WalletFilter { status: Some(WalletStatus::Pending), ..filter() },
        WalletFilter { status: Some(WalletStatus::Active), ..filter() },
        WalletFilter { status: Some(WalletStatus::Disabled), ..filter() },
        of(AccountFilter::Id(id(10))),
        of(AccountFilter::External("user 10".to_owned())),
        of(AccountFilter::Locator(LocatorKind::UserId, "user 10".to_owned())),
    ];
    for filter in filters {
        run!(conn: wallet::list(conn, TENANT, &filter, PAGE));
        if filter.is_narrow() {
            run!(conn:
                wallet::matching(conn, TENANT, &filter),
                balance::holdings(conn, TENANT, &filter),
            );
        }
    }
    let changes = WalletChanges {
        client_reference_id: Some(Some("other".to_owned())),
        ..WalletChanges::default()
    };
    run!(conn:
        wallet::by_id(conn, TENANT, id(10)),
        wallet::demote_others(conn, TENANT, id(10), Family::Evm, id(10), NOW),
        wallet::update(conn, TENANT, id(10), &changes, NOW),
        wallet::delete(conn, TENANT, id(30), NOW),
        watch_count::per_chain(conn, TENANT),
        watch_count::wrong(conn, &ChainName::new("a")),
    );
}

async fn registrations(conn: &mut Conn<'_>) {
    let name = ChainName::new("a");
    let new = |n| NewWallet {
        id: id(n),
        tenant: TenantNo(1),
        tenant_id: TENANT,
        account_id: None,
        family: Family::Evm,
        address: address(1),
        kind: WalletKind::Eoa,
        safe: None,
        client_reference_id: None,
        nickname: None,
        is_primary: false,
    };
    let key = (TenantNo(1), CHAIN, address(1));
    let all = Registrations {
        accounts: vec![((TENANT, "new".to_owned()), id(6000))],
        locators: vec![((TENANT, LocatorKind::X, "new".to_owned()), id(6000))],
        wallets: vec![new(6000)],
        watches: vec![NewWatch { key, wallet: id(6000), from_block: Some(0) }],
        primaries: vec![(id(10), Family::Evm)],
    };
    run!(conn:
        registration::tenants(conn, &BTreeSet::from([TENANT])),
        registration::chains(conn, &BTreeSet::from([name.clone()])),
        registration::watched(conn, &[(TenantNo(1), CHAIN, address(10))]),
        registration::accounts(conn, &BTreeSet::from([(TENANT, "user 10".to_owned())])),
        registration::locators(
            conn,
            &BTreeSet::from([(TENANT, LocatorKind::UserId, "user 10".to_owned())]),
        ),
        registration::insert(conn, &all, NOW),
        event::numbers(conn, &[id(10)]),
        event::tenant_no(conn, TENANT),
    );
}

async fn watches(conn: &mut Conn<'_>) {
    let name = ChainName::new("a");
    let changes = WatchChanges {
        opened: vec![(WalletNo(100), address(100))],
        closed: vec![(WalletNo(50), address(50))],
        ..WatchChanges::default()
    };
    let last = watch::watched(conn, CHAIN, &[WALLET], 5000).await.unwrap()[&WALLET];
    let head = BlockPoint { at: block(10), time: NOW };
    run!(conn:
        watch::to_do(conn, CHAIN, Family::Evm, crate::model::WatchStatus::Requested, WALLET, PAGE),
        watch::open_by_address(conn, CHAIN, &[address(10)], Some(4990)),
        watch::open_between(conn, CHAIN, Family::Evm, WALLET, WALLET, PAGE),
        watch::still_open(conn, CHAIN, &[address(10)]),
        watch::write(conn, CHAIN, &head, &changes, NOW),
        async {
            let reopened = Some((3990, watch::opened_above(conn, CHAIN, 3990).await?));
            let changes = WatchChanges { reopened, ..WatchChanges::default() };
            watch::write(conn, CHAIN, &head, &changes, NOW).await
        },
        watch::newest_opening(conn, CHAIN, 5000),
        watch::watched_after(conn, CHAIN, Some(&last), 5000, PAGE),
        watch::count_open(conn, &name),
        watch::watching(conn, CHAIN, Family::Evm, &[address(10)]),
        watch::shown(conn, Family::Evm, &[id(10)]),
        async {
            let nothing = &[0_u8; 0][..];
            let (_, _): (i64, Option<Vec<u8>>) = on!(conn, c => sqlx::query_as(watch_load::LOWEST)
                .bind(CHAIN.0)
                .bind(nothing)
                .bind(&[0xff_u8; 33][..])
                .bind(PAGE)
                .bind(nothing)
                .fetch_one(c)
                .await)?;
            Ok::<(), StoreError>(())
        },
    );
}

async fn scans(conn: &mut Conn<'_>) {
    let ended = HistoryEnd {
        wallet: WalletNo(2),
        address: address(2),
        status: HistoryStatus::Complete,
        covered_from: Some(1),
    };
    let change = ScanChange { no: ScanNo(2), seen: block(2), absorbs: vec![ScanNo(4)] };
    let changes = WatchChanges {
        scans: Some((block(1), vec![change])),
        ahead: Some((1, vec![WalletNo(2)])),
        ended: vec![ended],
        untraced: BTreeMap::from([(1, vec![ScanNo(2)])]),
        ..WatchChanges::default()
    };
    run!(conn:
        scan::is_one_missing(conn, ChainNo(2)),
        scan::enlist(conn, ChainNo(2), HistoryMethod::Blocks, PAGE, NOW),
        scan::all(conn, CHAIN),
        scan::delete_empty(conn, CHAIN),
        scan::write(conn, CHAIN, &changes, NOW),
        participant::addresses(conn, CHAIN),
        participant::participants(conn, CHAIN, &[(ScanNo(2), 1)], &[address(2)]),
        participant::whose(conn, ScanNo(2)),
        participant::unproven(conn, CHAIN, WalletNo(0), PAGE),
    );
}

async fn chains(conn: &mut Conn<'_>) {
    let name = ChainName::new("a");
    let cursor = chain::cursor(conn, &name).await.unwrap().unwrap();
    let opening =
        AssetOpening { asset: ASSET, from: WalletNo(0), to: WALLET, block: 5001, time: NOW };
    let header = Header { at: block(2), parent: block(1), time: 0 };
    let of = |n: u8| Asset {
        no: AssetNo(CHAIN.0 << 32 | i64::from(n)),
        chain: name.clone(),
        key: AssetKey::from_bytes(&bytes::<20>(2 * n)).unwrap(),
        caip19: "other".to_owned(),
        symbol: None,
        name: None,
        decimals: Some(18),
        verified: true,
        quarantine: None,
        version: 0,
        listing: None,
    };
    let changed = AssetChange::Changed { before: of(1), after: Asset { version: 1, ..of(1) } };
    run!(conn:
        chain::ensure(conn, &name),
        chain::cursors(conn),
        chain::insert_cursor(conn, &cursor, NOW),
        chain::move_cursor(conn, &cursor, &cursor, NOW, LEASE),
        chain::halt(conn, CHAIN, 0, "reason", NOW),
        lease::win(conn, CHAIN, "daemon", LEASE),
        lease::renew(conn, &[CHAIN], "daemon", LEASE),
        lease::holders(conn),
        lease::requests(conn, "daemon"),
        lease::win_named(conn, "work", "daemon", LEASE),
        lease::give_back_named(conn, "work", "daemon"),
        daemon::beat(conn, "daemon", "1", &BTreeSet::new()),
        daemon::live(conn, LEASE),
        daemon::leave(conn, "daemon"),
        daemon::is_superseded(conn),
        daemon::count_calls(conn, &ChainName::new("base"), "first", 1, 2),
        lease::give_back(conn, CHAIN, 1),
        wal::position(conn),
        asset_opening::above(conn, CHAIN, 5000),
        asset_opening::of_wallet(conn, WALLET),
        balance::holders(conn, CHAIN, (WALLET, ASSET), PAGE),
        asset_opening::insert(conn, CHAIN, &[opening]),
        asset_opening::delete_above(conn, CHAIN, 5000),
        asset_opening::newest_wallet(conn),
        asset_opening::unopened(conn, CHAIN),
        transfer::settled_openings_above(conn, CHAIN, &opening, 4990),
        chain::write_tracing(conn, CHAIN, 1, &[crate::chain::TraceAbility::Debug]),
        chain::tracing(conn),
        chain::accept_differences(conn, CHAIN),
        chain::differences_accepted(conn, CHAIN),
        chain::insert_blocks(conn, CHAIN, &[NewBlock { header, untraced: true }]),
        chain::untraced_blocks(conn, CHAIN, 4990),
        chain::mark_traced(conn, CHAIN, &[block(2)]),
        canary::newest(conn, CHAIN, PAGE),
        canary::read_by(conn, CHAIN),
        canary::was_read_by(conn, CHAIN, 0, "1.0.0"),
        chain::block_at_or_below(conn, CHAIN, 5000),
        chain::blocks_from(conn, CHAIN, 4990),
        chain::delete_blocks_above(conn, CHAIN, 4990),
        chain::delete_blocks(conn, CHAIN, 0, 4909),
        asset::by_keys(conn, CHAIN, &[of(1).key]),
        asset::by_numbers(conn, &[ASSET]),
        asset::listed(conn),
        asset::listed_on(conn, CHAIN),
        asset::past(conn, &[ASSET]),
        asset::write(conn, CHAIN, &[AssetChange::New(of(60)), changed.clone()], NOW),
    );
}

/// New transfers with their entries, which are made of their rows.
async fn booked(
    conn: &mut Conn<'_>,
    new: &[crate::model::Transfer],
    entries: &[Entry],
) -> Result<(), StoreError> {
    transfer::insert(conn, CHAIN, new).await?;
    transfer::insert_entries(conn, entries, new, 1, NOW).await
}

async fn transfers(conn: &mut Conn<'_>) {
    let settled = transfer::settled_of(conn, CHAIN, &[WALLET]).await.unwrap().remove(0);
    let new = crate::model::Transfer { no: transfer_no(30_000), counted: true, ..settled };
    let updates = [
        TransferUpdate::Settled(transfer_no(19_610), SettledBy::Tier(3)),
        TransferUpdate::Early(transfer_no(19_630), SettledBy::Tier(3)),
        TransferUpdate::Replaced(transfer_no(100)),
        TransferUpdate::Orphaned { no: transfer_no(19_620), mark: 1, reason: None },
    ];
    let entry = Entry { transfer: transfer_no(10), kind: EntryKind::Settle, amount: Amount::ZERO };
    let connected = Entry { transfer: new.no, kind: EntryKind::ConnectSettled, amount: new.amount };
    let balance = Balance { version: 1, ..Balance::default() };
    let change = BalanceChange {
        wallet: WALLET,
        asset: ASSET,
        balance,
        block: 10,
        proof: ProofChange::Kept,
    };
    let order = RewindOrder { by: None, reason: "reason".to_owned() };
    let commit = JournalCommit {
        number: 6000,
        kind: CommitKind::Rewind,
        head: block(2),
        settled: block(1),
        transfers: 0,
        entries: 0,
        time: NOW,
        rewind: Some(Rewind { from: 3, order }),
        hash: JournalHash([1; 32]),
    };
    run!(conn:
        transfer::marked(conn, vec![1]),
        transfer::has_unsettled(conn),
        transfer::pending_up_to(conn, CHAIN, 4990),
        transfer::pending_above(conn, CHAIN, 4990),
        transfer::settled_above(conn, CHAIN, 4890),
        transfer::openings(conn, CHAIN, &[WALLET]),
        correction::unfinished(conn, CHAIN, &[WALLET], 4990),
        correction::corrected_from(conn, CHAIN, &[WALLET], 4990),
        correction::pending_of(conn, CHAIN, &[WALLET], 4990),
        correction::adjustments_at(conn, &[WALLET], NOW),
        settling::balances(conn, CHAIN, 5000, PAGE),
        early::waiting(conn, CHAIN, 4990, 5000, PAGE),
        settling::block_behind(conn, CHAIN, 5000, PAGE),
        settling::block_before(conn, CHAIN, 4990, PAGE),
        transfer::update(conn, &updates, NOW),
        booked(conn, std::slice::from_ref(&new), &[entry, connected]),
        settling::newest_block(conn, CHAIN, 5000),
        balance::of_wallets(conn, CHAIN, &[WALLET]),
        balance::tenants_holding(conn, ASSET),
        balance::agreement(conn, WALLET, ASSET),
        balance::write(conn, &[change], NOW),
        audit::replayed(conn, CHAIN, WALLET),
        transfer::by_numbers(conn, [transfer_no(10)]),
        balance::all(conn, (WALLET, ASSET), PAGE),
        wallet::owners(conn, [WALLET]),
        journal::insert(conn, CHAIN, std::slice::from_ref(&commit)),
        journal::commits(conn, CHAIN, 10, PAGE),
        journal::entries(conn, (transfer_no(10), 0), transfer_no(20), PAGE),
        journal::later_entries(conn, CHAIN, 10, 20),
    );
    let filter = TransferFilter::default;
    let filters = [
        filter(),
        TransferFilter { status: Some(Status::Settled), before: Some(id(1)), ..filter() },
        TransferFilter { status: Some(Status::Pending), ..filter() },
        TransferFilter { status: Some(Status::Orphaned), ..filter() },
        TransferFilter { from: Some(Millis(1)), to: Some(NOW), ..filter() },
        TransferFilter { assets: Some(vec![ASSET]), chain: Some(CHAIN), ..filter() },
        TransferFilter { direction: Some(Direction::In), ..filter() },
    ];
    for filter in filters {
        run!(conn: history::page(conn, WALLET, &filter, PAGE));
    }
    let span = past::span(conn, WALLET, Way::Up, None, PAGE).await.unwrap();
    let listed = past::transfers(conn, WALLET, ASSET, span).await.unwrap();
    // One that came back in another block.
    let replaced = listed.first().unwrap().clone();
    let again =
        crate::model::Transfer { no: transfer_no(30_001), connection: 2, ..replaced.clone() };
    transfer::update(conn, &[TransferUpdate::Replaced(replaced.no)], NOW).await.unwrap();
    transfer::insert(conn, CHAIN, &[again]).await.unwrap();
    assert_eq!(past::moved(conn, WALLET, PAGE).await.unwrap().unwrap().len(), 1);
    run!(conn:
        past::span(conn, WALLET, Way::Down, Some(NOW), PAGE),
        past::weights(conn, WALLET, span),
        past::moved(conn, WALLET, PAGE),
        past::entries(conn, &listed),
    );
}

async fn events(conn: &mut Conn<'_>) {
    let ids = Ids::new(Clock::System);
    let new = NewEvent {
        tenant: TenantNo(1),
        wallet: Some(EventWallet::Id(id(10))),
        time: NOW,
        told: Told::Data { kind: EventType::WalletCreated, id: id(1), data: "{}".to_owned() },
    };
    let types = [EventType::DepositPending];
    run!(conn:
        event::append(conn, &ids, NOW, std::slice::from_ref(&new)),
        feed::event(conn, TENANT, id(10 << 80)),
        feed::may_have_been(conn, TENANT, id(10 << 80)),
        feed::bodies(conn, TENANT, &[10]),
        feed::after(conn, TENANT, 10, &[], PAGE),
        feed::after(conn, TENANT, 10, &types, PAGE),
        feed::count_between(conn, TENANT, Millis(0), NOW, PAGE),
        feed::between(conn, TENANT, Millis(0), NOW, &types, PAGE),
    );
}

async fn safes(conn: &mut Conn<'_>) {
    let name = ChainName::new("a");
    let tx = TxId::from(bytes::<32>(10));
    let pending = Some(DeploymentStatus::Pending);
    let state = SafeOnChain {
        version: "1.4.1".to_owned(),
        singleton: address(1),
        trusted: true,
        owners: vec![address(2)],
        threshold: 1,
        plugs: SafePlugs::default(),
        at: block(10),
    };
    let (wallet, tenant) = (id(10), TenantNo(1));
    let proof = SafeProof { wallet, tenant, state: state.clone(), found_by_owner: true };
    let now = safe::get(conn, TENANT, id(10)).await.unwrap().unwrap();
    let change = DeploymentChange { seen: Some(now.revision), now };
    run!(conn:
        safe::of_transactions(conn, CHAIN, &[tx]),
        safe::insert_by_hash(conn, id(6000), TENANT, &name, &tx, NOW),
        safe::by_tx(conn, TENANT, &name, &tx),
        safe::list(conn, TENANT, None, None, None, PAGE),
        safe::list(conn, TENANT, Some(&name), pending, Some(id(10)), PAGE),
        safe::processing_above(conn, CHAIN, 10),
        safe::found_by_owners(conn, CHAIN, [wallet]),
        safe::write(conn, CHAIN, &change),
        safe::hold_tenants(conn, &BTreeSet::from([TenantNo(1)])),
        safe::write_proof(conn, &proof, NOW),
        setting::adopt_safes(conn, TENANT),
        setting::adopt_safes_of(conn, [TenantNo(1)]),
        setting::set_adopt_safes(conn, TENANT, AdoptSafes::Any),
    );
    let due = safe_look::due_safes(conn, CHAIN, NOW, 2).await.unwrap();
    let [judged, put_off] = <[_; 2]>::try_from(due).unwrap();
    let new = WaitingSafe { place: 1, ..judged.clone() };
    let looks = LookChanges {
        waiting: vec![new],
        judged: vec![judged.clone()],
        put_off: vec![put_off],
        deployments: vec![(id(10), 0, NOW, 1)],
    };
    run!(conn:
        safe_look::pending(conn, CHAIN, (Millis(0), id(0)), PAGE),
        safe_look::next_tenant(conn, CHAIN, None),
        safe_look::due_deployments(conn, CHAIN, TENANT, NOW, PAGE),
        safe_look::undecided(conn, TENANT, &name, PAGE),
        safe_look::look_at_settled(conn, CHAIN, 100, NOW),
        safe_look::waits(conn, CHAIN, &judged),
        safe_look::write(conn, CHAIN, &looks),
        safe_look::delete_above(conn, CHAIN, 4990),
    );
    let due = safe_state::due(conn, CHAIN, NOW, 2).await.unwrap();
    let [before, gone] = <[_; 2]>::try_from(due).unwrap();
    let now = Some(SafeLook { known: Some(state.clone()), ..before.clone() });
    let states = SafeStateChanges {
        ran: vec![address(2)],
        begun: vec![(address(3), state)],
        read: vec![SafeRead { before, now }, SafeRead { before: gone, now: None }],
    };
    run!(conn:
        safe_state::due(conn, CHAIN, NOW, PAGE),
        safe_state::of(conn, CHAIN, &[address(10)]),
        safe_state::everywhere(conn, &[address(10)]),
        safe_state::write(conn, CHAIN, &states, NOW),
        safe_state::watched_from_now(conn, CHAIN, [address(10)], NOW),
        safe_state::doubt_above(conn, CHAIN, 4990, NOW),
        safe_contract::write(conn, CHAIN, &[(address(1), Some([1; 32])), (address(2), None)], NOW),
        safe_contract::of(conn, &name),
    );
}

async fn webhooks(conn: &mut Conn<'_>) {
    let old = endpoint::by_id(conn, TENANT, id(100)).await.unwrap().unwrap();
    let new = endpoint::EndpointRow { id: id(6000), ..old };
    let lease = delivery::Lease { token: id::<LeaseToken>(1), until: NOW };
    let attempt =
        Attempt { number: 2, started_at: NOW, latency_ms: 1, status_code: None, error: None };
    let claimed = delivery::Claimed {
        id: id(100),
        endpoint: id(100),
        tenant: TENANT,
        event_position: 10,
        attempts: 0,
        created_at: NOW,
        lease,
    };
    let pending = Some(DeliveryStatus::Pending);
    run!(conn:
        endpoint::insert(conn, &new),
        endpoint::insert_secret(conn, id(100), "new", NOW),
        endpoint::expire_secrets(conn, id(100), NOW),
        endpoint::list(conn, TENANT, None, PAGE),
        endpoint::delete(conn, TENANT, id(100), NOW),
        endpoint::note_success(conn, id(100)),
        endpoint::note_failure(conn, id(100), NOW),
        endpoint::disable(conn, id(100), DisabledReason::Gone, NOW),
        delivery::due_endpoints(conn, NOW, None, PAGE),
        delivery::request(conn, &claimed, NOW),
        async {
            let claimed = delivery::claim(conn, id(100), NOW, lease, PAGE).await?.remove(0);
            delivery::record(conn, &claimed, &attempt, DeliveryOutcome::Delivered, NOW).await
        },
        delivery::release(conn, &claimed),
        delivery::release_all(conn, NOW),
        delivery::fail_pending(conn, id(100), NOW),
        delivery::closed_with_pending(conn, NOW, PAGE),
        delivery::next_due(conn, Millis(0)),
        delivery::backlog(conn),
        delivery::list(conn, TENANT, id(100), None, None, PAGE),
        delivery::list(conn, TENANT, id(100), pending, Some(id(10_000)), PAGE),
    );
}

async fn retained(conn: &mut Conn<'_>) {
    run!(conn:
        retention::delete_attempts(conn, id(0), NOW, PAGE),
        retention::delete_deliveries(conn, id(0), NOW, PAGE),
        retention::delete_expired(conn, Expiring::IdempotencyKeys, Millis(0), NOW, PAGE),
        retention::delete_expired(conn, Expiring::Secrets, Millis(0), NOW, PAGE),
        retention::delete_expired(conn, Expiring::Challenges, Millis(0), NOW, PAGE),
        retention::delete_expired(conn, Expiring::WorthlessTransfers, Millis(0), NOW, PAGE),
        retention::tenants_with_events(conn, id(0), NOW, PAGE),
        async {
            retention::feed_page(conn, TENANT, PAGE).await?;
            retention::cut_feed(conn, TENANT, 10).await
        },
    );
}
