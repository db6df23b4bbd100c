//! Ids: UUID version 7 (RFC 9562: time-ordered) in the store, a prefix and 22 base62 digits on the wire.

use std::{fmt, str::FromStr, sync::Arc};

use parking_lot::Mutex;
use uuid::Uuid;

use crate::clock::{Clock, Millis};

/// In ASCII order, so that the text sorts as the id does.
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const LENGTH: usize = 22;

fn encode(value: u128) -> String {
    let mut out = [b'0'; LENGTH];
    let mut rest = value;
    for slot in out.iter_mut().rev() {
        *slot = DIGITS[usize::try_from(rest % 62).unwrap_or(0)];
        rest /= 62;
    }
    out.iter().map(|&digit| char::from(digit)).collect()
}

fn decode(text: &str) -> Option<u128> {
    if text.len() != LENGTH {
        return None;
    }
    text.bytes().try_fold(0u128, |value, byte| {
        let digit = DIGITS.iter().position(|&d| d == byte)?;
        value.checked_mul(62)?.checked_add(u128::try_from(digit).ok()?)
    })
}

/// The text is not an id of the kind asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an id of the form {prefix}_ and 22 letters or digits")]
pub struct BadId {
    prefix: &'static str,
}

/// Makes ids; two from one generator are never equal, and a later one sorts after an earlier one.
#[derive(Clone)]
pub struct Ids {
    clock: Clock,
    context: Arc<Mutex<uuid::ContextV7>>,
}

impl Ids {
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, context: Arc::new(Mutex::new(uuid::ContextV7::new())) }
    }

    #[must_use]
    pub fn next<T: From<Uuid>>(&self) -> T {
        let Millis(now) = self.clock.now();
        let now = u64::try_from(now).unwrap_or(0);
        let nanos = u32::try_from(now % 1000).unwrap_or(0) * 1_000_000;
        let context = self.context.lock();
        T::from(Uuid::new_v7(uuid::Timestamp::from_unix(&*context, now / 1000, nanos)))
    }
}

impl fmt::Debug for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ids")
    }
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Uuid);

        impl $name {
            pub const PREFIX: &'static str = $prefix;
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "_{}"), encode(self.0.as_u128()))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                text.strip_prefix(concat!($prefix, "_"))
                    .and_then(decode)
                    .map(|value| Self(Uuid::from_u128(value)))
                    .ok_or(BadId { prefix: $prefix })
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )* };
}

ids! {
    /// A customer of the daemon.
    TenantId = "ten";
    /// An API key's public name; the key itself is never stored.
    KeyId = "key";
    /// An owner inside a tenant.
    AccountId = "acc";
    /// One address of one chain family, belonging to one tenant.
    WalletId = "wlt";
    /// One movement as one wallet sees it; stays the same when another block holds it.
    TransferId = "trf";
    /// Something that happened; what webhooks deliver.
    EventId = "evt";
    /// Where a tenant wants its events.
    EndpointId = "whe";
    /// One event on its way to one endpoint.
    DeliveryId = "whd";
    /// A Safe on its way to being deployed.
    SafeDeploymentId = "sfd";
    /// A message to be signed by the owner of an address.
    ChallengeId = "own";
    /// One attempt to do a piece of leased work.
    LeaseToken = "lse";
    /// One HTTP request, named in its answer and in the log.
    RequestId = "req";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_as_text_in_the_order_they_were_made() {
        let ids = Ids::new(Clock::manual(Millis(1_768_469_400_000)));
        let made: Vec<WalletId> = (0..1000).map(|_| ids.next()).collect();
        let mut sorted: Vec<String> = made.iter().map(ToString::to_string).collect();
        sorted.sort();
        sorted.dedup();
        assert_eq!(sorted, made.iter().map(ToString::to_string).collect::<Vec<_>>());
    }

    #[test]
    fn an_id_survives_its_text_and_refuses_another_kinds() {
        let ids = Ids::new(Clock::manual(Millis(1)));
        let id: WalletId = ids.next();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string().len(), 26);
        assert!(id.to_string().parse::<EventId>().is_err());
        assert!("wlt_zzzzzzzzzzzzzzzzzzzzzz".parse::<WalletId>().is_err(), "past 128 bits");
    }
}
