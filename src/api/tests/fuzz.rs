//! What a client writes into a path or a query.

use super::super::{error::Problem, locator::Locator, page::Window, request::Fields};
use crate::{
    chain::Family,
    fuzz::run,
    id::{EventId, WalletId},
    store::wallet::AccountFilter,
};

fn refused(problem: &Problem) -> String {
    assert!(problem.status.is_client_error(), "{problem:?}");
    format!("{:?}", problem.code)
}

#[test]
fn a_locator_means_what_it_says_or_is_the_clients_mistake() {
    run("locator", Vec::new(), |input| {
        let text = String::from_utf8_lossy(input).into_owned();
        let locator = match Locator::parse(text.clone()) {
            Ok(locator) => locator,
            Err(problem) => return refused(&problem),
        };
        let filter = &locator.filter;
        match (&filter.id, &filter.address, &filter.account) {
            (Some(id), None, None) => assert_eq!(id.to_string(), text),
            (None, Some(address), None) => {
                let family = filter.family.expect("the family of the address");
                let written = family.format_address(address);
                assert!(written.eq_ignore_ascii_case(&text), "{written}");
                assert_eq!(family.parse_address(&written).as_ref(), Ok(address));
            }
            (None, None, Some(AccountFilter::External(id))) => {
                assert_eq!(format!("external:{id}"), text);
            }
            (None, None, Some(AccountFilter::Locator(kind, value))) => {
                let family = filter.family.expect("a family");
                let same = format!("{}:{value}:{family}", kind.as_str());
                assert!(text.to_lowercase().starts_with(&same.to_lowercase()), "{same}");
            }
            other => panic!("names several things, or none: {other:?}"),
        }
        format!("{:?} {:?}", filter.family, filter.kind)
    });
}

#[test]
fn a_cursor_is_one_that_was_given_out_or_is_refused() {
    run("cursor", Vec::new(), |input| {
        let text = String::from_utf8_lossy(input);
        let mut fields = Fields::default();
        let window = Window::read(&mut fields, Some(&text), Some(&text));
        assert!((1..=200).contains(&window.limit()));
        if let Some(before) = window.before {
            assert_eq!(Window::cursor(before), text, "two cursors for one place");
        }
        let event = text.parse::<EventId>();
        if let Ok(id) = &event {
            assert_eq!(id.to_string(), text, "two texts for one event");
        }
        assert!(event.is_err() || text.parse::<WalletId>().is_err());
        let problem = fields.finish().err();
        let problem = problem.as_ref().map(refused);
        format!("{problem:?} {:?} {}", window.before.is_some(), event.is_ok())
    });
}

#[test]
fn an_address_a_transaction_and_a_block_have_one_way_to_be_written() {
    run("names", Vec::new(), |input| {
        let text = String::from_utf8_lossy(input);
        let told = Family::ALL.iter().map(|family| {
            // Hexadecimal digits have two cases.
            let same = |written: &str| match family {
                Family::Evm => written.eq_ignore_ascii_case(&text),
                Family::Solana => written == text,
            };
            let tx = family.parse_tx(&text);
            assert!(tx.is_none_or(|tx| same(&family.format_tx(&tx))));
            let hash = family.parse_block_hash(&text);
            assert!(hash.is_none_or(|hash| same(&family.format_block_hash(&hash))));
            let address = family.parse_address(&text);
            assert!(address.as_ref().map_or(true, |address| same(&family.format_address(address))));
            let network = family.network(&text).is_some();
            format!("{:?} {} {network}", address.err(), tx.is_some())
        });
        told.collect()
    });
}
