//! Every query of the dashboard and of the alerts is one that a real Prometheus answers.

use std::{collections::BTreeSet, fs, path::PathBuf, process::Stdio};

use alloy::primitives::U256;
use serde_json::{Value, json};
use tidemark::{dev::anvil::Request, dev::contracts::SafeSetup, metrics::Metrics};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use crate::harness::{CHAIN, Daemon, Node, Receiver, Store, eventually};

fn dashboards(file: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/dashboards")).join(file)
}

fn overview() -> Value {
    serde_json::from_str(&fs::read_to_string(dashboards("overview.json")).unwrap()).unwrap()
}

fn panels(overview: &Value) -> Vec<&Value> {
    let all = overview["panels"].as_array().unwrap();
    all.iter().filter(|panel| panel["type"] != "row").collect()
}

/// The title of the panel and the query, as Grafana would send it.
fn queries(overview: &Value) -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for panel in panels(overview) {
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap();
            let query = query.replace("$chain", ".*").replace("$__rate_interval", "1m");
            assert!(!query.contains('$'), "an unknown variable in {query}");
            queries.push((panel["title"].as_str().unwrap().to_owned(), query));
        }
    }
    assert!(queries.len() > 25);
    queries
}

/// The words of a text that look like our metrics, without the suffixes that histograms add.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("tidemark_"))
        .map(|word| {
            let histogram = ["_bucket", "_count", "_sum"]
                .iter()
                .find_map(|suffix| word.strip_suffix(suffix))
                .filter(|base| Metrics::names().contains(base));
            histogram.unwrap_or(word)
        })
        .collect()
}

#[test]
fn every_metric_in_dashboards_and_alerts_exists() {
    for file in ["overview.json", "alerts.yml"] {
        let text = fs::read_to_string(dashboards(file)).unwrap();
        let used = metrics_in(&text);
        assert!(used.len() > 10, "{used:?}");
        for metric in used {
            assert!(Metrics::names().contains(&metric), "{metric} in {file} does not exist");
        }
    }
}

#[test]
fn every_panel_says_what_it_shows() {
    let overview = overview();
    let ids: BTreeSet<_> =
        overview["panels"].as_array().unwrap().iter().map(|p| p["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), overview["panels"].as_array().unwrap().len(), "ids are unique");
    for panel in panels(&overview) {
        for field in ["title", "description"] {
            assert!(panel[field].as_str().is_some_and(|text| !text.is_empty()), "{panel}");
        }
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{panel}");
    }
    let variables = overview["templating"]["list"].as_array().unwrap();
    assert!(variables.iter().any(|variable| variable["name"] == "chain"));
}

#[tokio::test]
async fn each_alert_fires_when_it_should_and_none_on_a_healthy_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let cases = include_str!("alerts.test.yml");
    let alerts = dashboards("alerts.yml");
    let cases = cases.replace("ALERTS]", &format!("{}]", alerts.display()));
    let file = folder.path().join("alerts.test.yml");
    fs::write(&file, cases).unwrap();
    for arguments in
        [["check", "rules", alerts.to_str().unwrap()], ["test", "rules", file.to_str().unwrap()]]
    {
        let output =
            Command::new("promtool").args(arguments).output().await.expect("run tests/run");
        assert!(
            output.status.success(),
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// Each counter of which an alert asks the increase, with what it asks for of the labels.
fn increases(alerts: &str) -> BTreeSet<(&str, Option<&str>)> {
    let asked = alerts.split("increase(").skip(1);
    asked
        .map(|rest| {
            let counter = rest.split('[').next().unwrap();
            counter.split_once('{').map_or((counter, None), |(name, of)| (name, Some(of)))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_alert_counts_is_there_before_it_happens() {
    let node = Node::start().await;
    let daemon = Daemon::start(&node, &Store::sqlite()).await;
    let metrics = daemon.metrics().await;
    let alerts = fs::read_to_string(dashboards("alerts.yml")).unwrap();
    let counted = increases(&alerts);
    assert!(counted.len() > 10, "{counted:?}");
    for (name, labels) in counted {
        // Of these there are too many; a new one is an alert itself.
        if name == "tidemark_verification_failures_total" {
            assert!(alerts.contains(&format!("{name} unless {name} offset")));
            continue;
        }
        let word = labels.and_then(|labels| labels.split(['"', '|']).nth(1));
        let is_there = metrics.lines().any(|line| {
            line.strip_prefix(name).is_some_and(|rest| {
                rest.starts_with([' ', '{']) && word.is_none_or(|word| rest.contains(word))
            })
        });
        assert!(is_there, "{name} {labels:?}: {metrics}");
    }
}

struct Prometheus {
    base: String,
    client: reqwest::Client,
    _folder: tempfile::TempDir,
    _child: Child,
}

impl Prometheus {
    /// Scrapes the daemon every second and evaluates the alerts.
    async fn start(daemon: &Daemon) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [dashboards("alerts.yml")],
            "scrape_configs": [{
                "job_name": "tidemark",
                "static_configs": [{"targets": [daemon.base().trim_start_matches("http://")]}],
            }],
        });
        // JSON is YAML.
        fs::write(folder.path().join("prometheus.yml"), config.to_string()).unwrap();
        let mut child = Command::new("prometheus")
            .current_dir(folder.path())
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
            .arg("--web.listen-address=127.0.0.1:0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("run tests/run");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines.next_line().await.unwrap().expect("prometheus listens");
            if line.contains("msg=\"Listening on\"") {
                break line.split("address=").nth(1).unwrap().trim().to_owned();
            }
        };
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self {
            base: format!("http://{address}"),
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            _folder: folder,
            _child: child,
        }
    }

    async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let url = url::Url::parse_with_params(&format!("{}{path}", self.base), parameters).unwrap();
        let Ok(response) = self.client.get(url).send().await else { return Value::Null };
        response.json().await.unwrap_or(Value::Null)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_prometheus_answers_every_query_of_a_running_daemon() {
    let node = Node::start().await;
    let safe = node.deploy_safe_1_4_1().await;
    let store = Store::sqlite();
    let daemon = Daemon::start(&node, &store).await;
    let api = daemon.customer("acme").await;
    let receiver = Receiver::start().await;
    receiver.subscribe(&api, "hook", &["*"]).await;

    // A life with everything in it that a dashboard shows.
    let wallet = node.accounts[1];
    api.watch(wallet).await;
    node.mint(wallet, 1000).await;
    node.pay(wallet, Node::stranger(), 5).await;
    let setup = SafeSetup { owners: vec![wallet], threshold: 1, salt_nonce: 1 };
    let deployment = safe.deployment(&node, node.accounts[0], &setup).await.unwrap();
    node.block_with(std::slice::from_ref(&deployment.request)).await;
    node.settle().await;
    api.balance_at_head(wallet, "DUSD", &node).await;
    let other = Request::pay(node.accounts[0], wallet, U256::from(33)).with_gas(21_000);
    node.reorg(2, &[(other, 1)]).await.unwrap();
    node.settle().await;
    receiver.event("hook", "deposit.available").await;
    receiver.event("hook", "safe_deployment.completed").await;

    let prometheus = Prometheus::start(&daemon).await;
    for (panel, query) in queries(&overview()) {
        eventually(&format!("data for {panel:?}: {query}"), || async {
            // Rates need something to go on happening.
            node.mine(1).await.unwrap();
            let answer = prometheus.get("/api/v1/query", &[("query", &query)]).await;
            assert!(answer["status"] != "error", "{panel:?}: {query}: {answer}");
            answer["data"]["result"].as_array().filter(|result| !result.is_empty()).map(|_| ())
        })
        .await;
    }
    let chains =
        prometheus.get("/api/v1/label/chain/values", &[("match[]", "tidemark_chain_halted")]).await;
    assert_eq!(chains["data"], json!([CHAIN]), "the dashboard's variable finds the chain");

    let rules = eventually("the alerts' evaluation", || async {
        let answer = prometheus.get("/api/v1/rules", &[]).await;
        let groups = answer["data"]["groups"].as_array()?;
        let rules: Vec<Value> = groups
            .iter()
            .filter_map(|group| group["rules"].as_array())
            .flatten()
            .cloned()
            .collect();
        rules.iter().all(|rule| rule["health"] != "unknown").then_some(rules)
    })
    .await;
    assert!(rules.len() > 15);
    for rule in rules {
        assert_eq!(rule["health"], "ok", "{rule}");
        for label in ["summary", "description"] {
            assert!(rule["annotations"][label].is_string(), "{rule}");
        }
        assert_ne!(rule["state"], "firing", "a healthy daemon raises no alarm: {rule}");
    }
    // The alert on deep reorgs counts those above 8 by this label, as the library writes it.
    assert!(
        daemon
            .metrics()
            .await
            .contains("tidemark_reorg_depth_blocks_bucket{chain=\"local\",le=\"8\"}")
    );
}
