mod database;
mod fuzz;
mod settlement;

use std::{io::Write as _, path::Path};

use super::*;
use crate::chain::SettlementTag;

const ENDPOINT: &str = "endpoints = [{ url = \"https://rpc.example.com\" }]\n";

fn good(text: &str) -> Config {
    Config::from_toml(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn chain(name: &str, lines: &str) -> ChainConfig {
    let config = good(&format!("[chains.{name}]\n{ENDPOINT}{lines}"));
    config.chains.get(name).cloned().expect("the chain that was configured")
}

/// The error must name the key and say all the words.
fn refused(text: &str, key: &str, words: &[&str]) {
    let error = Config::from_toml(text).expect_err(text);
    let message = error.to_string();
    assert!(message.starts_with(&format!("{key}: ")), "{key} is not named by: {message}");
    for word in words {
        assert!(message.contains(word), "{word:?} is not in: {message}");
    }
}

fn chain_refused(name: &str, lines: &str, key: &str, words: &[&str]) {
    refused(&format!("[chains.{name}]\n{ENDPOINT}{lines}"), &format!("chains.{name}{key}"), words);
}

fn endpoint_refused(inline: &str, key: &str, words: &[&str]) {
    refused(
        &format!("[chains.base]\nendpoints = [{inline}]"),
        &format!("chains.base.endpoints{key}"),
        words,
    );
}

fn with_environment(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("room for it");
    let variables = variables.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Config::load_with(Some(file.path()), variables)
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let config = good("");
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.server.max_body_bytes, 1024 * 1024);
    assert_eq!(config.server.request_timeout, Duration::from_secs(30));
    assert_eq!(config.database_url.expose(), "sqlite://data/tidemark.db");
    assert!(config.chains.is_empty());
    assert_eq!(config.fleet.follow, None);
    assert_eq!(config.fleet.lease, Duration::from_secs(10));
    assert_eq!(config.fleet.heartbeat, Duration::from_secs(3));
    assert_eq!(config.fleet.rebalance, Duration::from_mins(1));
    assert!(!config.webhooks.allow_http && !config.webhooks.allow_private_addresses);
    let schedule: Vec<_> = config.webhooks.retry_schedule.iter().map(Duration::as_secs).collect();
    assert_eq!(schedule, [5, 30, 120, 600, 3600, 10800, 21600, 43200, 86400, 86400]);
    assert_eq!(config.webhooks.request_timeout, Duration::from_secs(15));
    assert_eq!(config.webhooks.max_in_flight, 256);
    assert_eq!(config.webhooks.max_in_flight_per_endpoint, 8);
    assert_eq!(config.webhooks.disable_after, Duration::from_hours(5 * 24));
    let days = |days: u64| Some(Duration::from_hours(24 * days));
    assert_eq!(config.retention.events, None);
    assert_eq!(config.retention.deliveries, days(90));
    assert_eq!(config.retention.delivery_attempts, days(30));
    assert_eq!(config.retention.idempotency_keys, Duration::from_hours(24));
    assert_eq!(config.retention.expired_secrets, days(7));
    assert_eq!(config.retention.expired_challenges, days(1));
    assert_eq!(config.retention.worthless_transfers, days(90));
}

#[test]
fn a_daemon_may_follow_some_chains_or_none() {
    let chains = format!("[chains.base]\n{ENDPOINT}[chains.ethereum]\n{ENDPOINT}");
    let (base, ethereum) = (ChainName::new("base"), ChainName::new("ethereum"));
    let follows = |follow: &str| {
        let fleet = good(&format!("{follow}\n{chains}")).fleet;
        [fleet.follows(&base), fleet.follows(&ethereum)]
    };
    assert_eq!(follows(""), [true, true]);
    assert_eq!(follows("follow = [\"base\"]"), [true, false]);
    assert_eq!(follows("follow = []"), [false, false]);
    refused(&format!("follow = [\"bnb\"]\n{chains}"), "follow[0]", &["bnb", "not configured"]);
    let variable = ("TIDEMARK__FOLLOW", "[\"ethereum\"]");
    assert!(!with_environment(&chains, &[variable]).unwrap().fleet.follows(&base));
}

#[test]
fn a_lease_outlasts_two_signs_of_life() {
    let fleet = good("[fleet]\nlease_seconds = 2\nheartbeat_seconds = 1").fleet;
    assert_eq!((fleet.lease.as_secs(), fleet.heartbeat.as_secs()), (2, 1));
    let late = "[fleet]\nlease_seconds = 5";
    refused(late, "fleet.heartbeat_seconds", &["half of a lease of 5 s"]);
    refused("[fleet]\nlease_seconds = 1", "fleet.lease_seconds", &["from 2 to 300"]);
}

#[test]
fn retention_is_set_for_each_kind_and_zero_is_for_ever() {
    let config =
        good("[retention]\nevents_days = 400\ndeliveries_days = 0\nidempotency_keys_hours = 48");
    assert_eq!(config.retention.events, Some(Duration::from_hours(24 * 400)));
    assert_eq!(config.retention.deliveries, None);
    assert_eq!(config.retention.idempotency_keys, Duration::from_hours(48));
    let environment = [("TIDEMARK__RETENTION__DELIVERY_ATTEMPTS_DAYS", "3")];
    let config = with_environment("", &environment).expect("a good environment");
    assert_eq!(config.retention.delivery_attempts, Some(Duration::from_hours(72)));

    let refused = |line: &str, key: &str, words: &[&str]| {
        refused(&format!("[retention]\n{line}"), key, words);
    };
    refused("idempotency_keys_hours = 0", "retention.idempotency_keys_hours", &["from 1 to 8760"]);
    refused("events_days = 36501", "retention.events_days", &["from 0 to 36500"]);
    refused("events_days = 0.5", "retention.events_days", &["whole number"]);
    refused("event_days = 1", "retention", &["unknown field", "events_days"]);
}

#[test]
fn the_examples_in_the_default_file_hold() {
    // A commented-out line of TOML has no blank after the #, or two; secrets come from files that exist
    // only where the example is used.
    let text: String = load::defaults()
        .lines()
        .map(|line| {
            let prose = line.starts_with("# ") && !line.starts_with("#  ");
            line.strip_prefix('#').filter(|_| !prose).unwrap_or(line)
        })
        .map(|line| {
            line.replace(
                "url_file = \"/run/secrets/ethereum-rpc\"",
                "url = \"https://a.example.com\"",
            )
            .replace("ws_file = \"/run/secrets/ethereum-ws\"", "ws = \"wss://a.example.com\"")
                + "\n"
        })
        .collect();
    let config = good(&text);
    let names: Vec<_> = config.chains.keys().map(ChainName::as_str).collect();
    assert_eq!(names, ["ethereum", "my-chain", "my-cluster"]);
    let mine = &config.chains["my-chain"];
    assert_eq!(mine.settlement, Settlement::Confirmations(12));
    assert_eq!(mine.tokens.len(), 1);
    // What the example says of an endpoint's limits are their defaults.
    let (said, silent) = (&config.chains["ethereum"].endpoints[1], &mine.endpoints[0]);
    assert_eq!(said.connect_timeout, silent.connect_timeout);
    assert_eq!(said.request_timeout, silent.request_timeout);
    assert_eq!(said.max_response_bytes, silent.max_response_bytes);
    assert_eq!(said.max_batch, silent.max_batch);
    let planned = &config.chains["ethereum"].endpoints[0];
    assert_eq!(planned.max_requests_per_second, Some(25));
    assert_eq!(planned.max_requests_per_day, Some(1_000_000));
    assert_eq!(silent.max_requests_per_day, None);
}

#[test]
fn a_known_chain_needs_only_endpoints() {
    let bnb = chain("bnb", "");
    assert_eq!((bnb.chain_id, bnb.caip2.as_str()), (56, "eip155:56"));
    assert_eq!((bnb.native.symbol.as_str(), bnb.native.slip44), ("BNB", 714));
    assert_eq!(bnb.settlement, Settlement::Tag(SettlementTag::Finalized));
    let usdc = bnb.tokens.iter().find(|token| token.symbol == "USDC").expect("USDC on BNB");
    assert_eq!(usdc.decimals, 18);
    assert_eq!((bnb.batch_blocks, bnb.start_block), (100, None));
    assert_eq!(bnb.dropped_after, Duration::from_hours(1));
    assert_eq!(bnb.sweep_per_minute, 600);
    assert_eq!(bnb.worthless_transfers, 10);
    assert_eq!(bnb.safes_per_owner, 1_000);
    assert_eq!(chain("ethereum", "").verification, Verification::Full);
    assert_eq!(chain("sei", "").verification, Verification::Links);
    let node = &bnb.endpoints[0];
    assert_eq!((node.name.as_str(), node.weight, node.max_batch), ("endpoint-1", 1, 500));
    assert_eq!(node.max_response_bytes, 64 * 1024 * 1024);
}

#[test]
fn files_lie_beside_the_database_or_in_a_folder_of_their_own() {
    let folder = |url: &str| good(&format!("[database]\nurl = \"{url}\"\n")).data_folder();
    assert_eq!(good("").data_folder(), Path::new("data"));
    assert_eq!(folder("sqlite:///var/lib/tidemark/t.db"), Path::new("/var/lib/tidemark"));
    assert_eq!(folder("sqlite://t.db"), Path::new(""));
    assert_eq!(folder("postgres://u:p@host/name"), Path::new("data"));
}

#[test]
fn every_known_chain_can_be_configured_with_endpoints_alone() {
    for known in known::CHAINS {
        let chain = chain(known.name, "");
        assert_eq!(chain.tokens.len(), known.tokens.len(), "{}", known.name);
        assert_eq!(chain.native.decimals, chain.family.defaults().native.decimals);
    }
}

#[test]
fn an_unknown_chain_gets_cautious_defaults() {
    let mine = chain("mine", "family = \"evm\"\nchain_id = 31337\n");
    assert_eq!(mine.caip2, "eip155:31337");
    assert_eq!((mine.native.symbol.as_str(), mine.native.slip44), ("ETH", 60));
    assert_eq!(mine.settlement, Settlement::Tag(SettlementTag::Finalized));
    assert_eq!(mine.verification, Verification::Full);
    assert!(mine.tokens.is_empty());
}

#[test]
fn an_unknown_chain_needs_its_family_and_id() {
    chain_refused("mine", "chain_id = 5", ".family", &["missing", "family = \"evm\"", "base"]);
    chain_refused("mine", "family = \"evm\"", ".chain_id", &["missing", "EIP-155"]);
    chain_refused("mine", "family = \"evm\"\nchain_id = 0", ".chain_id", &["from 1"]);
    chain_refused("mine", "family = \"bitcoin\"", ".family", &["bitcoin", "\"evm\" or \"solana\""]);
}

#[test]
fn families_to_come_are_refused_by_name() {
    let words = ["not supported by this version"];
    chain_refused("mine", "family = \"tron\"", ".family", &words);
    chain_refused("tron", "", ".family", &words);
}

#[test]
fn solana_needs_only_endpoints_and_settles_when_finalized() {
    let solana = chain("solana", "");
    assert_eq!(solana.caip2, "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp");
    assert_eq!((solana.native.symbol.as_str(), solana.native.decimals), ("SOL", 9));
    assert_eq!(solana.settlement, Settlement::Tag(SettlementTag::Finalized));
    for lines in ["settlement = \"safe\"", "settlement = { confirmations = 32 }"] {
        chain_refused("solana", lines, ".settlement", &["finalized"]);
    }
    chain_refused("solana", "chain_id = 101", ".chain_id", &["genesis"]);
    chain_refused("solana", "verification = \"bloom\"", ".verification", &["full"]);
    chain_refused("solana", "family = \"evm\"", ".family", &["another name"]);
}

#[test]
fn another_solana_chain_is_named_by_its_genesis() {
    let genesis = "EtWTRABZaYq6iMfeYKouRu166VU2xqa1wcaWoxPkrZBG";
    let mine = chain("mine", &format!("family = \"solana\"\ngenesis = \"{genesis}\""));
    assert_eq!(mine.caip2, "solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1");
    chain_refused("mine", "family = \"solana\"", ".genesis", &["missing", "getGenesisHash"]);
    chain_refused("mine", "family = \"solana\"\ngenesis = \"0x12\"", ".genesis", &["base58"]);
    let other = format!("genesis = \"{genesis}\"");
    chain_refused("solana", &other, ".genesis", &["another name"]);
}

#[test]
fn a_known_chain_keeps_its_id() {
    assert_eq!(chain("base", "chain_id = 8453").chain_id, 8453);
    chain_refused("base", "chain_id = 1", ".chain_id", &["8453", "another name"]);
}

#[test]
fn one_chain_cannot_be_followed_twice() {
    refused(
        &format!(
            "[chains.base]\n{ENDPOINT}[chains.mine]\nfamily = \"evm\"\nchain_id = 8453\n{ENDPOINT}"
        ),
        "chains.mine.chain_id",
        &["also the chain base"],
    );
}

#[test]
fn a_33rd_chain_is_refused() {
    let chains = |count: u32| -> String {
        let one = |n| format!("[chains.c{n}]\nfamily = \"evm\"\nchain_id = {}\n{ENDPOINT}", n + 1);
        (0..count).map(one).collect()
    };
    assert_eq!(good(&chains(32)).chains.len(), 32);
    refused(&chains(33), "chains", &["33", "at most 32"]);
}

#[test]
fn chain_names_are_short_and_plain() {
    for name in ["Base", "my_chain", "\"a b\"", "abcdefghijklmnopqrstuvwxyz-0123456"] {
        let text = format!("[chains.{name}]\n{ENDPOINT}");
        let message = Config::from_toml(&text).expect_err(name).to_string();
        assert!(message.starts_with("chains.") && message.contains("a-z, 0-9 and -"), "{message}");
    }
}

#[test]
fn the_sweep_can_be_switched_off_and_has_a_limit() {
    assert_eq!(chain("base", "sweep_per_minute = 0").sweep_per_minute, 0);
    assert_eq!(chain("base", "sweep_per_minute = 60000").sweep_per_minute, 60_000);
    chain_refused("base", "sweep_per_minute = 60001", ".sweep_per_minute", &["from 0 to 60000"]);
}

#[test]
fn what_is_no_money_can_be_left_out_and_has_a_limit() {
    assert_eq!(chain("base", "worthless_transfers = 0").worthless_transfers, 0);
    assert_eq!(chain("base", "worthless_transfers = 1000").worthless_transfers, 1000);
    chain_refused(
        "base",
        "worthless_transfers = 1001",
        ".worthless_transfers",
        &["from 0 to 1000"],
    );
}

#[test]
fn safes_of_an_owner_can_be_left_to_registration_and_have_a_limit() {
    assert_eq!(chain("base", "max_safes_per_owner = 0").safes_per_owner, 0);
    chain_refused(
        "base",
        "max_safes_per_owner = 100001",
        ".max_safes_per_owner",
        &["from 0 to 100000"],
    );
}

#[test]
fn verification_is_one_of_three_words() {
    assert_eq!(chain("base", "verification = \"links\"").verification, Verification::Links);
    chain_refused("base", "verification = \"none\"", ".verification", &["none", "full", "bloom"]);
}

#[test]
fn a_token_of_the_file_replaces_the_known_one_and_others_are_added() {
    let known = chain("base", "").tokens;
    let config = chain(
        "base",
        "tokens = [
            { contract = \"0x833589fcd6edb6e08f4c7c32d4f71b54bda02913\", symbol = \"USDX\", decimals = 6 },
            { contract = \"0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed\", symbol = \"TEST\", decimals = 2, name = \"Test\" },
        ]",
    );
    assert_eq!(config.tokens.len(), known.len() + 1);
    assert_eq!(config.tokens[0].symbol, "USDX");
    assert_eq!(config.tokens[0].name, "USDX");
    assert_eq!(config.tokens[0].contract, known[0].contract);
    let added = config.tokens.last().expect("the added one");
    assert_eq!((added.symbol.as_str(), added.name.as_str(), added.decimals), ("TEST", "Test", 2));
}

#[test]
fn a_token_with_a_wrong_checksum_is_refused_with_the_right_one() {
    chain_refused(
        "base",
        "tokens = [{ contract = \"0x5aaeb6053F3E94C9b9A09f33669435E7Ef1BeAed\", symbol = \"T\", decimals = 2 }]",
        ".tokens[0].contract",
        &["checksum", "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"],
    );
}

#[test]
fn a_token_must_be_whole() {
    let token = |fields: &str| format!("tokens = [{{ {fields} }}]");
    let contract = "contract = \"0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed\"";
    let refused = |fields: String, key: &str, words: &[&str]| {
        chain_refused("base", &token(&fields), &format!(".tokens[0]{key}"), words);
    };
    refused(format!("{contract}, symbol = \"T\""), ".decimals", &["missing"]);
    refused(format!("{contract}, symbol = \"T\", decimals = 78"), ".decimals", &["0 to 77"]);
    refused(format!("{contract}, symbol = \"T\", decimals = 6.7"), ".decimals", &["whole number"]);
    refused(format!("{contract}, symbol = \"a,b\", decimals = 6"), ".symbol", &["not a symbol"]);
    refused("contract = \"usdc\", symbol = \"T\", decimals = 6".to_owned(), ".contract", &["0x"]);
}

#[test]
fn the_same_token_twice_is_refused() {
    let token = "{ contract = \"0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed\", symbol = \"T\", decimals = 2 }";
    let twice = format!("tokens = [{token}, {token}]");
    chain_refused("base", &twice, ".tokens[1].contract", &["same contract", "entry 0"]);
}

#[test]
fn the_native_coin_of_polygon_is_no_token() {
    let line = "tokens = [{ contract = \"0x0000000000000000000000000000000000001010\", symbol = \"POL\", decimals = 18 }]";
    chain_refused("polygon", line, ".tokens[0].contract", &["native coin", "twice"]);
    assert!(chain("base", line).tokens.iter().any(|token| token.symbol == "POL"));
}

#[test]
fn a_chain_without_endpoints_is_refused() {
    refused("[chains.base]\n", "chains.base.endpoints", &["0 endpoints", "url"]);
    endpoint_refused("", "", &["0 endpoints"]);
    endpoint_refused("{ weight = 1 }", "[0]", &["neither url nor url_file"]);
}

#[test]
fn endpoints_of_a_chain_have_different_plain_names() {
    let url = "url = \"https://rpc.example.com/\"";
    endpoint_refused(
        &format!("{{ {url}, name = \"a\" }}, {{ {url}, name = \"a\" }}"),
        "[1].name",
        &["another endpoint", "\"a\""],
    );
    endpoint_refused(
        &format!("{{ {url}, name = \"endpoint-2\" }}, {{ {url} }}"),
        "[1].name",
        &["another endpoint"],
    );
    endpoint_refused(&format!("{{ {url}, name = \"My Node\" }}"), "[0].name", &["a-z, 0-9"]);
}

#[test]
fn an_endpoint_is_reached_by_http_and_announces_by_websocket() {
    endpoint_refused("{ url = \"ftp://n.example.com\" }", "[0].url", &["http:// or https://"]);
    endpoint_refused("{ url = \"wss://n.example.com\" }", "[0].url", &["WebSocket", "under ws"]);
    endpoint_refused("{ url = \"n.example.com\" }", "[0].url", &["not a URL"]);
    endpoint_refused(
        "{ url = \"https://n.example.com\", ws = \"https://n.example.com\" }",
        "[0].ws",
        &["ws:// or wss://"],
    );
}

#[test]
fn endpoint_limits_and_headers_are_checked() {
    let with = |field: &str| format!("{{ url = \"https://n.example.com\", {field} }}");
    endpoint_refused(&with("max_batch = 0"), "[0].max_batch", &["from 1"]);
    endpoint_refused(
        &with("max_requests_per_second = 0"),
        "[0].max_requests_per_second",
        &["from 1"],
    );
    for calls in ["0", "8640000001"] {
        endpoint_refused(
            &with(&format!("max_requests_per_day = {calls}")),
            "[0].max_requests_per_day",
            &["from 1"],
        );
    }
    endpoint_refused(
        &with("request_timeout_seconds = 0"),
        "[0].request_timeout_seconds",
        &["from 1"],
    );
    endpoint_refused(&with("max_response_bytes = 1"), "[0].max_response_bytes", &["from 1024"]);
    endpoint_refused(&with("headers = { \"a b\" = \"c\" }"), "[0].headers.a b", &["HTTP header"]);
    endpoint_refused(
        &with("headers = { x-key = \"hunter2\\n\" }"),
        "[0].headers.x-key",
        &["one line"],
    );
}

#[test]
fn an_unknown_key_is_refused_with_the_allowed_ones() {
    refused("[server]\nport = 1", "server", &["`port`", "`listen`", "max_body_bytes"]);
    refused("[chain.base]\n", "the configuration", &["`chain`", "`chains`"]);
    chain_refused("base", "finality = 1", "", &["`finality`", "`settlement`"]);
    endpoint_refused("{ uri = \"https://hunter2.example.com\" }", "[0]", &["`uri`", "`url_file`"]);
}

#[test]
fn a_value_of_the_wrong_shape_is_named_by_its_key() {
    refused("[server]\nmax_body_bytes = \"much\"", "server.max_body_bytes", &["whole number"]);
    refused("[server]\nmax_body_bytes = -1", "server.max_body_bytes", &["not negative"]);
    refused("[server]\nlisten = \"8080\"", "server.listen", &["8080", "127.0.0.1:8080"]);
    refused(
        "[webhooks]\nmax_in_flight_per_endpoint = 300",
        "webhooks.max_in_flight_per_endpoint",
        &["256"],
    );
    refused(
        "[webhooks]\nretry_schedule_seconds = [5, 0]",
        "webhooks.retry_schedule_seconds[1]",
        &["from 1"],
    );
    refused("[webhooks]\nallow_http = \"maybe\"", "webhooks.allow_http", &["a text is given"]);
    refused("[database]\nurl = \"mysql://hunter2\"", "database.url", &["sqlite://", "postgres://"]);
}

#[test]
fn no_error_repeats_a_secret() {
    for text in [
        "[chains.base]\nendpoints = [\"https://hunter2.example.com\"]",
        "[chains.base]\nendpoints = \"https://hunter2.example.com\"",
        "[chains.base]\nendpoints = [{ url = \"hunter2\" }]",
        "[chains.base]\nendpoints = [{ url = \"ftp://hunter2.example.com/\" }]",
        "[chains.base]\nendpoints = [{ url = \"https://a.b\", headers = \"hunter2\" }]",
        "[chains.base]\nendpoints = [{ url = \"https://a.b\", headers = { a = \"hunter2\\r\" } }]",
        "[chains.base]\nendpoints = [{ url = \"https://a.b\", weight = \"hunter2\" }]",
        "[chains.base]\nendpoints = [{ url = \"https://hunter2.example.com\" }",
        "[database]\nurl = \"hunter2\"",
        "[database]\nread_url = \"hunter2\"",
        "[database]\nread_url = \"postgres://u:hunter2@h/d\"",
    ] {
        let error = Config::from_toml(text).expect_err(text);
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}

#[test]
fn a_good_configuration_prints_no_secret() {
    let config = good(
        "database.url = \"postgres://u:hunter2@h/d\"
        [chains.base]
        endpoints = [{ url = \"https://hunter2.example.com\", ws = \"wss://hunter2.example.com\", headers = { k = \"hunter2\" } }]",
    );
    assert!(!format!("{config:?}").contains("hunter2"), "{config:?}");
}

#[test]
fn a_missing_file_and_a_syntax_error_name_the_file() {
    let error = Config::load_with(Some(Path::new("no/such/file.toml")), std::iter::empty());
    let message = error.expect_err("no such file").to_string();
    assert!(message.contains("no/such/file.toml") && message.contains("--config"), "{message}");

    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(b"[server]\nlisten = hunter2").expect("room for it");
    let message =
        Config::load_with(Some(file.path()), std::iter::empty()).expect_err("no TOML").to_string();
    assert!(message.contains(&file.path().display().to_string()), "{message}");
    assert!(message.contains("line 2") && !message.contains("hunter2"), "{message}");
}

#[test]
fn secrets_come_from_files_without_their_line_end() {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(b" https://rpc.example.com/key\n").expect("room for it");
    let path = file.path().display();
    let config = good(&format!("[chains.base]\nendpoints = [{{ url_file = \"{path}\" }}]"));
    assert_eq!(config.chains["base"].endpoints[0].url.expose(), "https://rpc.example.com/key");

    endpoint_refused("{ url_file = \"no/such\" }", "[0].url_file", &["no/such", "cannot be read"]);
    let both = format!("{{ url = \"https://a.b\", url_file = \"{path}\" }}");
    endpoint_refused(&both, "[0].url", &["both url and url_file"]);
    let empty = tempfile::NamedTempFile::new().expect("a temporary file");
    let empty = format!("{{ url_file = \"{}\" }}", empty.path().display());
    endpoint_refused(&empty, "[0].url_file", &["empty"]);
}

#[test]
fn the_environment_wins_over_the_file() {
    let config = with_environment(
        "[server]\nlisten = \"127.0.0.1:1\"\n[chains.base]\nendpoints = [{ url = \"https://file.example.com\" }]",
        &[
            ("TIDEMARK__SERVER__LISTEN", "[::1]:8080"),
            ("TIDEMARK__SERVER__MAX_BODY_BYTES", "2048"),
            ("TIDEMARK__WEBHOOKS__ALLOW_HTTP", "true"),
            ("TIDEMARK__WEBHOOKS__RETRY_SCHEDULE_SECONDS", "[1, 2]"),
            ("TIDEMARK__CHAINS__BASE__ENDPOINTS", "[{ url = \"https://env.example.com\" }]"),
            ("TIDEMARK__CHAINS__BASE__SETTLEMENT__CONFIRMATIONS", "7"),
            ("TIDEMARK__CHAINS__BASE__VERIFICATION", ""),
        ],
    )
    .expect("a good environment");
    assert_eq!(config.server.listen.to_string(), "[::1]:8080");
    assert_eq!(config.server.max_body_bytes, 2048);
    assert!(config.webhooks.allow_http);
    assert_eq!(config.webhooks.retry_schedule.len(), 2);
    let base = &config.chains["base"];
    assert_eq!(base.endpoints.len(), 1);
    assert_eq!(base.endpoints[0].url.expose(), "https://env.example.com");
    assert_eq!(base.settlement, Settlement::Confirmations(7));
}

#[test]
fn variables_without_the_double_underscore_are_not_ours() {
    let config =
        with_environment("", &[("TIDEMARK_TEST_POSTGRES", "x"), ("TIDEMARK", "y"), ("PATH", "[")]);
    assert!(config.is_ok());
    let error = with_environment("", &[("TIDEMARK__SERVER__LISTENN", "x")]).expect_err("a typo");
    assert!(error.to_string().starts_with("server: unknown field `listenn`"), "{error}");
}
