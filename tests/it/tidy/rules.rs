//! The rules of direction, as `src/lib.rs` says them. Whoever adds a module gives it its lines here.

/// Code that decides: it takes values and gives values.
pub const PURE: &[&str] = &[
    "amount",
    "api::wallet::register::decide",
    "delivery",
    "event",
    "follow::decide",
    "ledger",
    "model",
    "webhook::decide",
    "webhook::scheduler",
];

/// What only code that acts may name.
pub const ACTING: &[&str] = &[
    "async",
    "await",
    "axum",
    "crate::api::App",
    "crate::commit",
    "crate::chain::Source",
    "crate::chain::evm",
    "crate::chain::rpc",
    "crate::chain::solana",
    "crate::clock::Clock",
    "crate::config::Config",
    "crate::daemon",
    "crate::metrics",
    "crate::obstacle",
    "crate::registry",
    "crate::store",
    "crate::wake",
    "futures",
    "parking_lot",
    "rand",
    "reqwest",
    "sqlx",
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::process",
    "std::sync",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "tokio",
    "tokio_util",
];

/// `modules` never name `paths`.
pub struct Never {
    pub modules: &'static [&'static str],
    pub paths: &'static [&'static str],
    pub because: &'static str,
}

pub const NEVER: &[Never] = &[
    Never { modules: PURE, paths: ACTING, because: "what decides takes values and gives values" },
    Never {
        modules: &["chain"],
        paths: &[
            "crate::api",
            "crate::commit",
            "crate::daemon",
            "crate::event",
            "crate::follow",
            "crate::ledger",
            "crate::registry",
            "crate::store",
            "crate::view",
            "crate::webhook",
            "sqlx",
        ],
        because: "a chain knows no database and nothing of who watches it",
    },
    Never {
        modules: &["store"],
        paths: &[
            "alloy::consensus",
            "alloy::eips",
            "alloy::rlp",
            "alloy::rpc",
            "alloy::sol_types",
            "axum",
            "crate::api",
            "crate::commit",
            "crate::chain::Source",
            "crate::chain::evm",
            "crate::chain::rpc",
            "crate::chain::solana",
            "crate::daemon",
            "crate::follow",
            "crate::registry",
            "crate::view",
            "crate::webhook",
            "reqwest",
        ],
        because: "the store knows no node and nobody who uses it",
    },
    Never {
        modules: &["api", "commit", "event", "follow", "ledger", "registry", "view", "webhook"],
        paths: &["crate::chain::evm", "crate::chain::rpc", "crate::chain::solana"],
        because: "what differs between families is behind chain::Source and chain::Family",
    },
    Never {
        modules: &["api", "webhook"],
        paths: &["crate::commit", "crate::chain::Source", "crate::follow", "crate::registry"],
        because: "the API and the webhooks know the store only; what nodes prove comes by chain::Provers",
    },
    Never {
        modules: &["commit", "follow", "ledger", "registry"],
        paths: &["axum", "crate::api", "crate::webhook"],
        because: "money does not know who is told of it",
    },
    Never {
        modules: &["amount", "clock", "logging", "metrics", "random"],
        paths: &["crate"],
        because: "it stands below all others",
    },
];

/// Only these modules name `paths`, each for its reason.
pub struct Only {
    pub paths: &'static [&'static str],
    pub modules: &'static [(&'static str, &'static str)],
}

pub const ONLY: &[Only] = &[
    Only { paths: &["sqlx"], modules: &[("store", "all SQL is there")] },
    Only {
        paths: &["db.begin", "db.run_tx"],
        modules: &[
            ("api", "its own writes"),
            ("commit", "the commit point"),
            ("cli::keys", "the operator's own writes"),
            ("fleet", "signs of life and leases"),
            ("daemon", "gives back the leases of the process before"),
            ("retention", "deletes what is past its time"),
            ("webhook", "leases and outcomes"),
        ],
    },
    Only {
        paths: &["std::thread::spawn", "tokio::spawn", "tokio::task::spawn", "tasks.spawn"],
        modules: &[
            ("daemon", "starts, watches and stops every long-lived task"),
            ("dev", "the demo is its own little daemon"),
            ("follow::backfill", "questions to the node, ended when they are dropped"),
            ("follow::canary", "questions to the node, ended when they are dropped"),
            ("follow::deployments", "questions to the node, ended when they are dropped"),
            ("follow::early", "a question to the node, ended when it is dropped"),
            ("follow::lease", "signs of life, ended with the lease"),
            ("follow::quorum", "questions to the nodes, ended when they are dropped"),
            ("follow::safe_contracts", "questions to the node, ended when they are dropped"),
            ("follow::safe_states", "questions to the node, ended when they are dropped"),
            ("follow::safes", "questions to the node, ended when they are dropped"),
            ("follow::traces", "questions to the node, ended when they are dropped"),
            ("follow::prefetch", "fetching ahead, ended when it is dropped"),
            ("follow::settle", "a question to the node, ended when it is dropped"),
            ("follow::sweep", "a question to the node, ended when it is dropped"),
            ("commit::connect", "one transaction, which runs to its end whoever waits for it"),
            ("store::pool", "undoes what a lent connection left undone, within seconds"),
            ("webhook::dispatch", "sends in flight, ended with the dispatcher"),
        ],
    },
    Only {
        paths: &["rand"],
        modules: &[
            ("chain::sign_in", "takes the generator it is given"),
            ("dev", "names and ports of a demo"),
            ("fuzz", "of tests: takes its generator from a seed"),
            ("random", "hands randomness in"),
        ],
    },
    Only {
        paths: &["std::env", "std::process"],
        modules: &[
            ("cli", "what the operator says, and the exit code"),
            ("config", "TIDEMARK__… variables"),
            ("daemon", "the second signal ends the process"),
            ("dev", "starts nodes"),
            ("fuzz", "of tests: for how long, and from which seed"),
            ("logging", "NO_COLOR"),
            ("main", "the exit code"),
            ("seeds", "of tests: which seeds the simulations run"),
        ],
    },
    Only { paths: &["crate::daemon"], modules: &[("cli", "runs it"), ("dev", "runs it")] },
    Only { paths: &["crate::dev"], modules: &[("cli", "runs it")] },
    Only { paths: &["crate::cli"], modules: &[("main", "runs it")] },
    Only { paths: &["backoff"], modules: &[("retry", "what replaces it replaces it there")] },
];

/// What breaks a rule today: (module, path). It is to become empty, so what no longer does must go.
pub const BROKEN: &[(&str, &str)] = &[];

/// A longer file is two things.
pub const LONGEST_FILE: usize = 600;

/// Files that are longer today. It is to become empty.
pub const TOO_LONG: &[&str] = &[];
