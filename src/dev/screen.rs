//! What the terminal shows. Lines go to stdout; the daemon's log is on stderr.

use std::io::Write as _;

use serde_json::Value;

use super::{local::Facts, stage::Stage};

fn line(text: &str) {
    // A closed terminal is no reason to fail.
    let _ = writeln!(std::io::stdout(), "{text}");
}

pub(super) fn say(text: &str) {
    line(&format!("== {text}"));
}

pub(super) fn chain(text: &str) {
    line(&format!("chain    {text}"));
}

/// What happens among several daemons.
pub(super) fn fleet(text: &str) {
    line(&format!("fleet    {text}"));
}

/// Where everything is, and commands that work as pasted.
pub(super) fn introduce(stage: &Stage) {
    let customer = &stage.customer;
    let (base, key) = (customer.base(), customer.key());
    let (wallet, chain) = (stage.local.wallet(), stage.local.config().name);
    let Facts { node, token, other, command } = stage.local.facts(customer);
    line(&format!(
        "\
== ready
   node      {node}
   daemon    {base}
   store     {store}
   receiver  {receiver}
   token     {token} (Demo Dollar, DUSD)
   wallet    {wallet} ({wallet_id})
   API key   {key}

   In another terminal:
   curl -s -H 'X-API-Key: {key}' {base}/v1/wallets/{wallet}/balances
   curl -s -H 'X-API-Key: {key}' '{base}/v1/wallets/{wallet}/transfers?limit=5'
   curl -s -H 'X-API-Key: {key}' '{base}/v1/events?limit=5'
   {command}
   curl -s -H 'X-API-Key: {key}' -H 'Idempotency-Key: mine-1' -H 'Content-Type: application/json' \\
     -d '{{\"address\":\"{other}\",\"chains\":[\"{chain}\"]}}' {base}/v1/wallets
   curl -s {base}/v1/chains -H 'X-API-Key: {key}'
   curl -s {base}/metrics

   Ctrl-C ends it.
",
        store = stage.folder.0.display(),
        receiver = stage.receiver.url,
        wallet_id = stage.wallet_id,
    ));
}

/// The deployment that a `safe_deployment.*` event tells of.
pub(super) fn deployment(event: &Value) -> &Value {
    &event["data"]["safeDeployment"]
}

/// One event that came by webhook, verified.
pub(super) fn event(event: &Value) {
    let kind = event["type"].as_str().unwrap_or("?");
    line(&format!("webhook  {kind:<27} {}", describe(kind, event)));
}

fn describe(kind: &str, event: &Value) -> String {
    let data = &event["data"];
    let word = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    if kind.starts_with("safe_deployment.") {
        let safe = deployment(event);
        return format!("{} {}", word(&safe["address"]), word(&safe["reason"])).trim().to_owned();
    }
    let transfer = &data["transfer"];
    if transfer.is_object() {
        let sign = if transfer["direction"] == "out" { "-" } else { "+" };
        let balance = &data["balance"];
        return format!(
            "{sign}{} {:<5} available {}  pending {}  (block {})",
            word(&transfer["amount"]["amount"]),
            word(&transfer["asset"]["symbol"]),
            word(&balance["available"]["amount"]),
            word(&balance["pending"]["amount"]),
            word(&transfer["block"]["number"]),
        );
    }
    word(&data["wallet"]["address"])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_deposit_is_told_with_its_amount_and_the_balance_after_it() {
        let event = json!({"data": {
            "transfer": {"direction": "in", "amount": {"amount": "25.5"}, "asset": {"symbol": "DUSD"}, "block": {"number": 7}},
            "balance": {"available": {"amount": "0"}, "pending": {"amount": "25.5"}},
        }});
        assert_eq!(
            describe("deposit.pending", &event),
            "+25.5 DUSD  available 0  pending 25.5  (block 7)"
        );
    }
}
