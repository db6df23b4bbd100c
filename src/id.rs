//! Ids: UUIDs (RFC 9562) with a time in front, a prefix and 22 base62 digits on the wire.
//!
//! What a user makes (a wallet, an endpoint) gets a random id, version 7. What the chain tells (a transfer, its
//! events) gets a derived one, version 8: the same thing has the same id in every copy of the store, so a
//! database that was restored from a backup tells a deposit under the id that consumers know already.

use std::{fmt, str::FromStr, sync::Arc};

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::clock::{Clock, Millis};

/// In ASCII order, so that the text sorts as the id does.
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const LENGTH: usize = 22;
/// So many digits fit in 64 bits, in which division is ten times as fast.
const CHUNK: usize = 10;
const CHUNK_VALUE: u128 = 62u128.pow(10);

fn encode(value: u128) -> [u8; LENGTH] {
    let mut out = [b'0'; LENGTH];
    let mut rest = value;
    for chunk in out.rchunks_mut(CHUNK) {
        let mut digits = u64::try_from(rest % CHUNK_VALUE).unwrap_or(0);
        rest /= CHUNK_VALUE;
        for slot in chunk.iter_mut().rev() {
            *slot = DIGITS[usize::try_from(digits % 62).unwrap_or(0)];
            digits /= 62;
        }
    }
    out
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

/// What an id is derived from: a domain and the fields that name the thing, in order. Each field goes in with
/// its length, so that no two lists of fields are the same bytes.
#[derive(Clone)]
pub struct Naming(Vec<u8>);

impl Naming {
    #[must_use]
    pub fn new(domain: &'static str) -> Self {
        Self(Vec::with_capacity(192)).field(domain.as_bytes())
    }

    #[must_use]
    pub fn field(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
        self.0.extend_from_slice(bytes);
        self
    }

    /// A UUID of version 8: 48 bits of time in milliseconds, then 74 bits of SHA-256. A time that does not fit
    /// is cut to the nearest that does: blocks can claim any.
    #[must_use]
    pub fn at<T: From<Uuid>>(self, time: Millis) -> T {
        let time = u64::try_from(time.0).unwrap_or(0).min((1 << 48) - 1);
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&time.to_be_bytes()[2..]);
        bytes[6..].copy_from_slice(&Sha256::digest(&self.0)[..10]);
        T::from(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }
}

impl TransferId {
    /// What stays the same when another block holds the transfer: the id without its time, in 62 bits. Two
    /// transfers can share one if somebody takes the trouble; whoever looks up by it compares the rest.
    #[must_use]
    pub fn mark(self) -> i64 {
        self.0.as_u64_pair().1.cast_signed()
    }
}

impl TransferId {
    /// The time in front of the id.
    #[must_use]
    pub fn time(self) -> Millis {
        Millis(i64::try_from(self.0.as_u128() >> 80).unwrap_or(0))
    }

    /// The lowest and the highest id with this time in front.
    #[must_use]
    pub fn range(time: Millis) -> (Self, Self) {
        let time = u128::try_from(time.0).unwrap_or(0).min((1 << 48) - 1) << 80;
        (Self(Uuid::from_u128(time)), Self(Uuid::from_u128(time | ((1 << 80) - 1))))
    }
}

impl EventId {
    /// The time in front of the id.
    #[must_use]
    pub fn time(self) -> Millis {
        Millis(i64::try_from(self.0.as_u128() >> 80).unwrap_or(0))
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
                let digits = encode(self.0.as_u128());
                f.write_str(concat!($prefix, "_"))?;
                f.write_str(str::from_utf8(&digits).unwrap_or_default())
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

    fn named(fields: &[&[u8]], time: i64) -> EventId {
        fields.iter().fold(Naming::new("test"), |n, field| n.field(field)).at(Millis(time))
    }

    #[test]
    fn a_derived_id_is_the_same_everywhere_and_sorts_by_its_time() {
        let id = named(&[b"a", b"bc"], 1_768_469_400_123);
        assert_eq!(id, named(&[b"a", b"bc"], 1_768_469_400_123));
        assert_ne!(id, named(&[b"ab", b"c"], 1_768_469_400_123), "fields do not run together");
        assert_eq!(id.0.get_version_num(), 8);
        assert_eq!(id.0.get_variant(), uuid::Variant::RFC4122);
        assert_eq!(id.time(), Millis(1_768_469_400_123));
        assert!(named(&[b"z"], 5) < named(&[b"a"], 6));
        assert_eq!(named(&[], i64::MIN).time(), Millis(0));
        assert_eq!(named(&[], i64::MAX).time(), Millis((1 << 48) - 1));
        // Written down, so that no later version derives other ids.
        assert_eq!(id.to_string(), "evt_032AfKswHltGno38WIb1UL");
    }

    #[test]
    fn the_mark_of_a_transfer_does_not_know_its_time() {
        let at = |time| Naming::new("test").field(b"x").at::<TransferId>(Millis(time));
        assert_eq!(at(1).mark(), at(2).mark());
        assert_ne!(at(1), at(2));
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
