//! Accounts: the owners inside a tenant.

use crate::string_enum::string_enum;

string_enum! {
    /// What names an account besides its external id; each value names one account of a tenant.
    LocatorKind {
        Email = "email",
        UserId = "userId",
        PhoneNumber = "phoneNumber",
        X = "x",
    }
}
