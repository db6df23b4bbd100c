//! The envelope of an answer, and what an error in it means, whatever a server sends.

use alloy::primitives::bytes::Bytes;

use super::{Dialect, Failure, split};
use crate::{
    chain::{evm, solana},
    fuzz::run,
};

fn told(failure: &Failure) -> String {
    let detail = failure.detail();
    assert!(!detail.contains("://") && detail.len() < 1100, "a node's text is repeated: {detail}");
    assert!(!matches!(failure, Failure::Bug(_) | Failure::WrongChain(_)), "{failure:?}");
    format!("{} {}", failure.outcome(), detail.chars().take(8).collect::<String>())
}

#[test]
fn an_answer_is_one_result_for_each_call_or_a_failure_that_repeats_no_url() {
    let dialects: [&Dialect; 2] = [&evm::DIALECT, &solana::DIALECT];
    run("rpc_answer", Vec::new(), |input| {
        let body = Bytes::copy_from_slice(input);
        let mut outcome = String::new();
        for (dialect, calls) in dialects.iter().flat_map(|dialect| [(dialect, 1), (dialect, 3)]) {
            match split(dialect, &body, calls) {
                Ok(answers) => {
                    assert_eq!(answers.len(), calls);
                    for answer in &answers {
                        outcome += &match answer {
                            Ok(answer) => {
                                let json = serde_json::from_slice::<serde::de::IgnoredAny>(
                                    answer.as_bytes(),
                                );
                                assert!(json.is_ok(), "no JSON");
                                let _ = (dialect.caip2)(answer)
                                    .inspect_err(|failure| drop(told(failure)));
                                "result".to_owned()
                            }
                            Err(failure) => told(failure),
                        };
                    }
                }
                Err(failure) => outcome += &told(&failure),
            }
        }
        outcome
    });
}
