//! Enums whose variants are words: of the API, the configuration, the store and the metrics.

/// Declares one:
/// ```text
/// string_enum! {
///     /// Whether money comes to the wallet or leaves it.
///     Direction {
///         In = "in",
///         Out = "out",
///     }
/// }
/// ```
/// It knows `ALL` its variants, and a word each way: `as_str`, `parse`, `Display`, `Serialize` and
/// `TryFrom<String>`.
macro_rules! string_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(
            Clone,
            Copy,
            Debug,
            PartialEq,
            Eq,
            PartialOrd,
            Ord,
            Hash,
            strum::Display,
            strum::IntoStaticStr,
            strum::VariantArray,
        )]
        #[strum(const_into_str)]
        pub enum $name { $($(#[$vdoc])* #[strum(serialize = $word)] $variant,)* }

        impl $name {
            /// Every variant, in the order of declaration.
            pub const ALL: &'static [Self] = <Self as strum::VariantArray>::VARIANTS;

            #[must_use]
            pub const fn as_str(self) -> &'static str {
                self.into_str()
            }

            #[must_use]
            pub fn parse(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|variant| variant.as_str() == word)
            }
        }

        impl TryFrom<String> for $name {
            type Error = $crate::chain::BadValue;

            fn try_from(word: String) -> Result<Self, Self::Error> {
                Self::parse(&word).ok_or($crate::chain::BadValue(stringify!($name)))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}
pub(crate) use string_enum;

#[cfg(test)]
mod tests {

    string_enum! {
        Colour {
            /// As the sky.
            LightBlue = "light.blue",
            Red = "red",
        }
    }

    #[test]
    fn a_word_stands_for_its_variant_and_back() {
        assert_eq!(Colour::ALL, [Colour::LightBlue, Colour::Red]);
        for colour in Colour::ALL {
            assert_eq!(Colour::parse(colour.as_str()), Some(*colour));
            assert_eq!(Colour::try_from(colour.to_string()), Ok(*colour));
        }
        assert_eq!(serde_json::json!(Colour::LightBlue), "light.blue");
        for wrong in ["", "Red", "red ", "blue"] {
            assert_eq!(Colour::parse(wrong), None);
            assert!(Colour::try_from(wrong.to_owned()).is_err());
        }
    }
}
