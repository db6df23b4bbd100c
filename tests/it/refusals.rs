//! Bad input and a bad world: each is refused with an error that says what to do, and nothing is lost.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    time::Duration,
};

use alloy::primitives::{Address, U256};
use reqwest::{Method, header::CONTENT_TYPE};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection, SqliteConnection};
use tempfile::TempDir;
use tidemark::dev::anvil::Options;
use tokio::process::Command;

use crate::harness::{
    CHAIN, Daemon, Gate, Node, Settings, Store, eventually, on_both_stores, own_port, tidemark,
};

/// A command that fails does so at once; a daemon that starts all the same would run for ever.
const AT_ONCE: Duration = Duration::from_secs(30);
const SCOPES: &str = "wallets:read,wallets:write,webhooks:write";

/// A folder with a configuration in it, and commands that run there.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new(listen: u16, database_url: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let toml = format!(
            "[server]\nlisten = \"127.0.0.1:{listen}\"\n[database]\nurl = \"{database_url}\"\n{more}\n"
        );
        fs::write(folder.path().join("tidemark.toml"), toml).unwrap();
        Self { folder }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = tidemark();
        command.current_dir(self.folder.path()).args(["--config", "tidemark.toml"]).args(arguments);
        command
    }

    /// What a command that must succeed prints.
    async fn done(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().await.unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The error of a command that must fail.
    async fn refused(&self, arguments: &[&str], code: i32, words: &[&str]) {
        refused(self.command(arguments), code, words).await;
    }
}

/// Runs what must fail at once, with this exit code and one error with all these words in it.
async fn refused(mut command: Command, code: i32, words: &[&str]) {
    let output = tokio::time::timeout(AT_ONCE, command.output())
        .await
        .unwrap_or_else(|_| panic!("{command:?} goes on as if nothing were wrong"))
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{said}");
    let error = said.lines().find(|line| line.starts_with("error: ")).expect("an error");
    for word in words {
        assert!(error.contains(word), "{word:?} is not in: {said}");
    }
}

#[tokio::test]
async fn an_unknown_configuration_key_is_refused_with_2() {
    let words = ["server", "listn", "listen", "Correct the name or remove it"];
    let place = Place::new(own_port(), "sqlite://t.db", "");
    for command in ["run", "check-config", "migrate"] {
        let mut command = place.command(&[command]);
        command.env("TIDEMARK__SERVER__LISTN", "127.0.0.1:1");
        refused(command, 2, &words).await;
    }
    let place = Place::new(own_port(), "sqlite://t.db", "[webhook]\nallow_http = true");
    place.refused(&["run"], 2, &["webhook", "webhooks", "Correct the name or remove it"]).await;
    assert!(!place.folder.path().join("t.db").exists(), "nothing was begun");
}

#[tokio::test]
async fn differences_of_a_chain_that_was_never_followed_cannot_be_accepted() {
    let chain = "[chains.local]\nfamily = \"evm\"\nchain_id = 31337\n\
                 endpoints = [{ url = \"http://127.0.0.1:1\" }]";
    let place = Place::new(own_port(), "sqlite://t.db", chain);
    let accept = ["accept-differences", "--chain", "local"];
    place.refused(&accept, 1, &["local has not been followed yet"]).await;
    let accept = ["accept-differences", "--chain", "other"];
    place.refused(&accept, 2, &["no chain \"other\"", "local"]).await;
}

#[tokio::test]
async fn a_missing_configuration_file_is_refused_with_2() {
    let mut command = tidemark();
    command.args(["--config", "nowhere.toml", "run"]);
    refused(command, 2, &["nowhere.toml", "--config"]).await;
}

/// Runs statements behind the daemon's back.
async fn tamper(store: &Store, sql: &'static str) {
    match store {
        Store::Sqlite { .. } => {
            let mut connection = SqliteConnection::connect(&store.url()).await.unwrap();
            sqlx::query(sql).execute(&mut connection).await.unwrap();
            connection.close().await.unwrap();
        }
        Store::Postgres { url } => {
            let mut connection = PgConnection::connect(url).await.unwrap();
            sqlx::query(sql).execute(&mut connection).await.unwrap();
            connection.close().await.unwrap();
        }
    }
}

on_both_stores! {
    async fn a_database_from_a_newer_version_is_refused_and_left_alone(store) {
        let place = Place::new(own_port(), &store.url(), "");
        place.done(&["keys", "create", "--tenant", "acme", "--scopes", SCOPES]).await;
        tamper(
            &store,
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             SELECT 9999, 'from the future', success, checksum, execution_time
             FROM _sqlx_migrations WHERE version = 1",
        )
        .await;
        let words = ["a newer version of tidemark", "schema 9999", "start that version"];
        for command in [&["run"][..], &["migrate"], &["keys", "list"]] {
            place.refused(command, 1, &words).await;
        }
        tamper(&store, "DELETE FROM _sqlx_migrations WHERE version = 9999").await;
        assert!(place.done(&["keys", "list"]).await.contains("acme"), "nothing is lost");
    }
}

#[tokio::test]
async fn a_data_folder_that_cannot_be_made_is_refused() {
    let place = Place::new(own_port(), "sqlite://tidemark.toml/data/t.db", "");
    let words = ["tidemark.toml/data cannot be written", "Make it writable", "database.url"];
    place.refused(&["run"], 1, &words).await;
    // The kernel's own folder refuses everybody, root included.
    let place = Place::new(own_port(), "sqlite:///proc/t.db", "");
    let words = ["/proc/t.db cannot be opened", "Check that its folder exists and can be written"];
    place.refused(&["run"], 1, &words).await;
}

/// The same command for somebody whom permissions bind.
fn bound_by_permissions(command: Command) -> Command {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return command;
    }
    let plain = command.as_std();
    let mut bound = Command::new("setpriv");
    bound.args(["--bounding-set", "-dac_override,-dac_read_search", "--"]);
    bound.arg(plain.get_program()).args(plain.get_args());
    bound.current_dir(plain.get_current_dir().unwrap()).kill_on_drop(true);
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => bound.env(name, value),
            None => bound.env_remove(name),
        };
    }
    bound
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn a_data_folder_that_became_read_only_is_refused_and_nothing_is_lost() {
    let place = Place::new(own_port(), "sqlite://data/t.db", "");
    place.done(&["keys", "create", "--tenant", "acme", "--scopes", SCOPES]).await;
    let folder = place.folder.path().join("data");
    let files: Vec<_> = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
    for file in &files {
        set_mode(file, 0o444);
    }
    set_mode(&folder, 0o555);
    let command = bound_by_permissions(place.command(&["run"]));
    refused(command, 1, &["data/t.db", "can", "be written"]).await;
    set_mode(&folder, 0o755);
    for file in &files {
        set_mode(file, 0o644);
    }
    assert!(place.done(&["keys", "list"]).await.contains("acme"), "nothing is lost");
}

#[tokio::test]
async fn a_port_that_is_taken_is_refused() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let place = Place::new(port, "sqlite://t.db", "");
    let address = format!("cannot listen on 127.0.0.1:{port}");
    place.refused(&["run"], 1, &[&address, "Set server.listen to a free address"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_daemon_on_one_sqlite_file_is_refused_and_the_first_goes_on() {
    let (node, store) = (Node::start().await, Store::sqlite());
    let daemon = Daemon::start(&node, &store).await;
    let second = Place::new(own_port(), &store.url(), "");
    let words = ["another tidemark daemon runs on this database", "stop it first", "PostgreSQL"];
    second.refused(&["run"], 1, &words).await;
    let api = daemon.customer("acme").await;
    let wallet = Node::stranger();
    api.watch(wallet).await;
    node.mint(wallet, 3).await;
    assert_eq!(api.balance_at_head(wallet, "DUSD", &node).await.total, U256::from(3));
}

on_both_stores! {
    async fn a_node_that_is_unreachable_at_the_start_only_delays_its_chain(store) {
        let node = Node::start().await;
        let gate = Gate::to(node.url()).await;
        gate.close();
        let mut settings = Settings::new(&node, &store);
        settings.node_url = gate.url();
        settings.node_ws = Some(gate.ws_url());
        let mut daemon = Daemon::prepare(settings);
        daemon.begin().await;
        let api = daemon.customer("acme").await;
        let wallet = Node::stranger();
        let registered = api.register(wallet).await;
        assert_eq!(registered["status"], "pending");
        node.mint(wallet, 3).await;
        let (status, chain) = api.readiness(CHAIN).await;
        assert_eq!((status, &chain["ready"]), (503, &json!(false)));
        assert!(chain["reason"].as_str().is_some_and(|reason| reason.contains("no block")));
        eventually("the warning", || async {
            daemon.log().contains("the endpoint failed").then_some(())
        })
        .await;
        assert_eq!(api.balance(wallet, "DUSD").await.total, U256::ZERO, "nobody can know");

        gate.open(node.url());
        daemon.ready().await;
        api.active(wallet).await;
        assert_eq!(api.balance_at_head(wallet, "DUSD", &node).await.total, U256::from(3));
        node.mint(wallet, 4).await;
        assert_eq!(api.balance_at_head(wallet, "DUSD", &node).await.total, U256::from(7));
        let events = api.events().await;
        let active = events.iter().filter(|event| event["type"] == "wallet.activated").count();
        assert_eq!(active, 1);
    }

    async fn another_chain_behind_a_url_is_never_followed(store) {
        let node = Node::start().await;
        let options = Options {
            chain_id: Some(31338),
            slots_in_an_epoch: Some(2),
            ..Options::default()
        };
        let stranger = Node::start_with(options).await;
        let gate = Gate::to(stranger.url()).await;
        let mut settings = Settings::new(&node, &store);
        settings.node_url = gate.url();
        settings.node_ws = Some(gate.ws_url());
        let mut daemon = Daemon::prepare(settings);
        daemon.begin().await;
        let api = daemon.customer("acme").await;
        let wallet = Node::stranger();
        api.register(wallet).await;
        stranger.mint(wallet, 1000).await;
        node.mint(wallet, 3).await;
        eventually("both chain ids and the endpoint in the log", || async {
            let log = daemon.log();
            log.lines()
                .any(|line| ["local-node", "31338", "31337"].iter().all(|word| line.contains(word)))
                .then_some(())
        })
        .await;
        let (status, chain) = api.readiness(CHAIN).await;
        assert_eq!((status, &chain["ready"]), (503, &json!(false)));
        assert!(!daemon.metrics().await.contains("tidemark_chain_applied_block{"));
        let kept = api.get(&format!("/v1/wallets/{wallet}")).await.ok();
        assert_eq!(kept["status"], "pending");

        gate.open(node.url());
        daemon.ready().await;
        api.active(wallet).await;
        assert_eq!(api.balance_at_head(wallet, "DUSD", &node).await.total, U256::from(3));

        // Behind a URL the node can change. The newest block is not old yet: nothing else would show it.
        gate.open(stranger.url());
        eventually("the reason", || async {
            let (status, chain) = api.readiness(CHAIN).await;
            let reason = chain["reason"].as_str()?;
            let words = ["local-node", "31338", "31337"].iter().all(|word| reason.contains(word));
            (status == 503 && words).then_some(())
        })
        .await;
        stranger.mint(wallet, 1000).await;
        stranger.mine(40).await.unwrap();
        tokio::time::sleep(Duration::from_secs(3)).await;
        let (_, chain) = api.readiness(CHAIN).await;
        assert!(!chain["reason"].as_str().unwrap_or_default().contains("halted"), "no rewind for that");
        gate.open(node.url());
        daemon.ready().await;
        node.mint(wallet, 4).await;
        assert_eq!(api.balance_at_head(wallet, "DUSD", &node).await.total, U256::from(7));
    }
}

/// A registration's body for the chain that every test has.
fn register(address: &str) -> Value {
    json!({"address": address, "chains": [CHAIN]})
}

/// What a rewind says that it would do.
async fn foretold(operator: &Place, rewind: &[&str]) -> String {
    let said = operator.done(&[rewind, &["--dry-run"]].concat()).await;
    let (foretold, nothing) = said.split_once("Nothing was changed.").expect("what it did not do");
    assert!(nothing.trim().is_empty());
    assert!(foretold.starts_with("tenant acme\n"), "{foretold}");
    let balance = "deposits 1 (10), withdrawals 0 (0); balance 10, then 0";
    assert!(foretold.contains(balance), "{foretold}");
    foretold.to_owned()
}

/// The journal is sound, and says why the chain was taken back.
async fn kept(operator: &Place, to: u64) {
    let said = operator.done(&["verify-journal", "--chain", CHAIN]).await;
    assert!(said.contains(&format!(" to {to}, ")), "{said}");
    assert!(said.contains(": the chain went back"), "{said}");
}

on_both_stores! {
    async fn a_bad_request_says_what_to_do_and_changes_nothing(store) {
        let node = Node::start().await;
        let daemon = Daemon::start(&node, &store).await;
        let api = daemon.customer("acme").await;
        let good = Node::stranger();
        let first = api.post_as("first", "/v1/wallets", &register(&good.to_checksum(None))).await.ok();
        let events = api.events().await.len();

        let checksum = "0x742d35cC6634c0532925a3b844bc9E7595F2Bd18";
        let solana = "4Nd1mBQtrMJVYVfKf2PJy9NZUZdTAsp7D4xWLs4gDB4T";
        let tron = "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t";
        let other = Node::stranger().to_checksum(None);
        let mut unknown_chain = register(&other);
        unknown_chain["chains"] = json!(["atlantis"]);
        let mut unknown_field = register(&other);
        unknown_field["adress"] = json!(other);
        // What is sent, the status, the code, and words of the detail.
        let cases = [
            (register(checksum), 400, "invalid_address", &["address", "checksum"][..]),
            (register(&Address::ZERO.to_string()), 400, "invalid_address", &["zero address"]),
            (register(solana), 400, "invalid_address", &["address", "0x"]),
            (register(tron), 400, "invalid_address", &["address", "0x"]),
            (register("0x1234"), 400, "invalid_address", &["address"]),
            (unknown_chain, 400, "unknown_chain", &["chains[0]", "atlantis", CHAIN]),
            (unknown_field, 400, "invalid_request", &["adress", "address"]),
            (json!({"chains": [CHAIN]}), 400, "invalid_request", &["address", "missing"]),
            (json!([]), 400, "invalid_request", &["body"]),
            (
                register(&good.to_checksum(None)),
                409,
                "wallet_exists",
                &[first["id"].as_str().unwrap(), "delete it first"],
            ),
        ];
        for (body, status, code, words) in &cases {
            let answer = api.post("/v1/wallets", body).await;
            answer.is_error(*status, code);
            let detail = answer.body["detail"].as_str().unwrap();
            for word in *words {
                assert!(detail.contains(word), "{word:?} is not in {detail:?}");
            }
        }
        let taken = api.post("/v1/wallets", &register(&good.to_checksum(None))).await;
        assert_eq!(taken.body["existingId"], first["id"]);

        let raw = async |key: &str, body: &str| {
            let request = api.request(Method::POST, "/v1/wallets").header("Idempotency-Key", key);
            api.send(request.header(CONTENT_TYPE, "application/json").body(body.to_owned())).await
        };
        raw("m-1", "{\"address\": ").await.is_error(400, "invalid_request");
        raw("m-2", "").await.is_error(400, "invalid_request");
        // More than once: an answer to a body that is still being sent is easily lost.
        for n in 0..10 {
            let large = raw(&format!("l-{n}"), &" ".repeat(2_000_000)).await;
            large.is_error(413, "payload_too_large");
        }
        let no_key = api.request(Method::POST, "/v1/wallets").json(&register(&other));
        api.send(no_key).await.is_error(400, "idempotency_key_required");
        let reused = api.post_as("first", "/v1/wallets", &register(&other)).await;
        reused.is_error(422, "idempotency_key_reused");
        let again = api.post_as("first", "/v1/wallets", &register(&good.to_checksum(None))).await;
        assert_eq!(again.ok()["id"], first["id"], "the same request again has the first answer");
        let reader = daemon.customer_with("acme", "wallets:read").await;
        reader.post("/v1/wallets", &register(&other)).await.is_error(403, "forbidden");

        let wallets = api.get("/v1/wallets").await.ok();
        assert_eq!(wallets["data"].as_array().map(Vec::len), Some(1), "{wallets}");
        api.active(good).await;
        assert_eq!(api.events().await.len(), events.max(2), "created and activated, no more");
        // A refused request does not use up its idempotency key.
        api.post_as("m-1", "/v1/wallets", &register(&other)).await.ok();
    }

    async fn a_halted_chain_goes_on_after_a_rewind_and_the_other_never_stopped(store) {
        let node = Node::start().await;
        let options = Options {
            chain_id: Some(31338),
            slots_in_an_epoch: Some(2),
            ..Options::default()
        };
        let second = Node::start_with(options).await;
        let mut settings = Settings::new(&node, &store);
        // Of a batch that settles, no block is remembered.
        settings.chain.push_str("batch_blocks = 2");
        settings.more = format!(
            r#"
[chains.second]
family = "evm"
chain_id = 31338
poll_interval_ms = 100
lag_limit_seconds = 3600
endpoints = [{{ url = "{}" }}]
[[chains.second.tokens]]
contract = "{}"
symbol = "DUSD"
decimals = 6
"#,
            second.url(),
            second.token.to_checksum(None)
        );
        let mut daemon = Daemon::start_with(settings).await;
        let api = daemon.customer("acme").await;
        let (early, late, elsewhere) = (Node::stranger(), Node::stranger(), Node::stranger());
        api.watch(early).await;
        let body = json!({"address": elsewhere.to_checksum(None), "chains": ["second"]});
        api.post("/v1/wallets", &body).await.ok();
        api.active(elsewhere).await;
        let agreed = node.head().await.unwrap().number.to::<u64>();

        // Money that settles while nobody looks, so that its block is not remembered; a watch above it.
        daemon.terminate().await;
        node.pay(node.accounts[0], early, 10).await;
        node.mint(late, 50).await;
        node.mine(6).await.unwrap();
        daemon.begin().await;
        daemon.ready().await;
        assert_eq!(api.balance_at_head(early, "ETH", &node).await.total, U256::from(10));
        api.watch(late).await;
        assert_eq!(api.balance_at_head(late, "DUSD", &node).await.total, U256::from(50));
        node.mine(6).await.unwrap();
        assert_eq!(api.balance_settled(early, "ETH", &node).await.available, U256::from(10));
        let deep = node.head().await.unwrap().number.to::<u64>() - agreed;
        node.reorg(deep, &[(node.minting(early, 7), 1)]).await.unwrap();
        node.mine(1).await.unwrap();

        eventually("the halt", || async {
            let (status, chain) = api.readiness(CHAIN).await;
            let halted = chain["reason"].as_str().is_some_and(|reason| reason.contains("halted"));
            (status == 503 && halted).then_some(())
        })
        .await;
        assert!(daemon.log().contains("tidemark rewind --chain local --to"), "the way out is told");
        assert_eq!(api.balance(early, "ETH").await.available, U256::from(10), "kept until then");
        assert_eq!(api.readiness("second").await.1["ready"], true);
        second.mint(elsewhere, 5).await;
        let other = api.balance_at_head(elsewhere, "DUSD", &second).await;
        assert_eq!(other.total, U256::from(5), "the other chain goes on");

        // Only a block of both branches is a way out.
        let chain = format!(
            "[chains.{CHAIN}]\nfamily = \"evm\"\nchain_id = 31337\nendpoints = [{{ url = \"{}\" }}]",
            node.url()
        );
        let operator = Place::new(own_port(), &store.url(), &chain);
        let rewind = ["rewind", "--chain", CHAIN, "--reason", "the chain went back", "--to"];
        let to = |block: u64| [&rewind[..], &[block.to_string().leak()]].concat();
        let no_reason = ["rewind", "--chain", CHAIN, "--to", "1"];
        operator.refused(&no_reason, 2, &["required"]).await;
        operator.refused(&to(1_000_000), 1, &["1000000", "choose one that it has"]).await;
        operator.refused(&to(agreed + 1), 1, &["rewind to"]).await;
        node.mine(20).await.unwrap();
        let ahead = node.head().await.unwrap().number.to::<u64>();
        operator.refused(&to(ahead), 1, &["rewind to a lower block"]).await;
        let elsewhere_to = ["rewind", "--chain", "mars", "--to", "1", "--dry-run"];
        operator.refused(&elsewhere_to, 2, &["mars", CHAIN]).await;
        assert_eq!(daemon.readiness().await, 503, "a refused rewind changes nothing");
        assert_eq!(api.balance(early, "ETH").await.available, U256::from(10));

        let foretold = foretold(&operator, &to(agreed)).await;
        assert_eq!(daemon.readiness().await, 503, "only said, not done");
        assert_eq!(api.balance(early, "ETH").await.available, U256::from(10));
        let said = operator.done(&to(agreed)).await;
        assert!(said.starts_with(&foretold), "{said} is not what was foretold: {foretold}");
        assert!(said.contains(&format!("stands at block {agreed}")), "{said}");
        kept(&operator, agreed).await;
        eventually("readiness", || async { (daemon.readiness().await == 200).then_some(()) }).await;
        for wallet in [early, late] {
            api.active(wallet).await;
            let balance = api.balance_at_head(wallet, "ETH", &node).await;
            assert_eq!(balance.total, node.balance(wallet).await.unwrap());
            let balance = api.balance_settled(wallet, "DUSD", &node).await;
            assert_eq!((balance.total, balance.pending), (node.token_balance(wallet).await, U256::ZERO));
        }
        assert_eq!(api.balance(early, "DUSD").await.available, U256::from(7));
        api.event("deposit.orphaned").await;
        node.mint(late, 9).await;
        assert_eq!(api.balance_at_head(late, "DUSD", &node).await.total, U256::from(9));
    }
}
