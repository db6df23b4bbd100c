//! Ids and times in the store: as the UUID and the integer that they are.

use sqlx::{Database, Decode, Encode, Type, encode::IsNull, error::BoxDynError};
use uuid::Uuid;

use crate::{
    clock::Millis,
    id::{
        AccountId, ChallengeId, DeliveryId, EndpointId, EventId, KeyId, LeaseToken,
        SafeDeploymentId, TenantId, TransferId, WalletId,
    },
};

macro_rules! stored_as {
    ($inner:ty: $($name:ident),+ $(,)?) => { $(
        impl<DB: Database> Type<DB> for $name
        where
            $inner: Type<DB>,
        {
            fn type_info() -> DB::TypeInfo {
                <$inner as Type<DB>>::type_info()
            }

            fn compatible(ty: &DB::TypeInfo) -> bool {
                <$inner as Type<DB>>::compatible(ty)
            }
        }

        impl<'q, DB: Database> Encode<'q, DB> for $name
        where
            $inner: Encode<'q, DB>,
        {
            fn encode_by_ref(&self, buffer: &mut DB::ArgumentBuffer) -> Result<IsNull, BoxDynError> {
                self.0.encode_by_ref(buffer)
            }
        }

        impl<'r, DB: Database> Decode<'r, DB> for $name
        where
            $inner: Decode<'r, DB>,
        {
            fn decode(value: DB::ValueRef<'r>) -> Result<Self, BoxDynError> {
                <$inner as Decode<'r, DB>>::decode(value).map(Self)
            }
        }
    )+ };
}

stored_as!(i64: Millis);
stored_as!(
    Uuid: AccountId, ChallengeId, DeliveryId, EndpointId, EventId, KeyId, LeaseToken, SafeDeploymentId,
    TenantId, TransferId, WalletId,
);
