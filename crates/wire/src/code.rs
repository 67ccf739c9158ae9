//! Result codes: a table for each action, on each wire.

use crate::Language;

/// One row of a table of result codes, as it goes on the wire. Rows of different tables with the same
/// number have nothing in common; only the engine's projection makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResultCode {
    /// The number sent, as text.
    pub number: i8,
    /// Whether the published table charges an answer with this code.
    pub charged: bool,
    zh: &'static str,
    en: &'static str,
}

impl ResultCode {
    pub(crate) const fn new(number: i8, charged: bool, zh: &'static str, en: &'static str) -> ResultCode {
        ResultCode { number, charged, zh, en }
    }

    /// The text sent beside the number.
    pub const fn text(&self, language: Language) -> &'static str {
        match language {
            Language::Chinese => self.zh,
            Language::English => self.en,
        }
    }
}

/// Makes the type of one table: a variant for each code, whose discriminant is the number. Each table
/// is a type of its own so that no number of one action can be sent for another.
macro_rules! result_codes {
    ($(#[$about:meta])* $table:ident {
        $($(#[$doc:meta])* $code:ident = $number:literal, $charge:ident, $zh:literal, $en:literal;)*
    }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(i8)]
        pub enum $table { $($(#[$doc])* $code = $number,)* }

        impl $table {
            /// Every code, in the order of the numbers away from 0.
            pub const ALL: [$table; [$($number as i8),*].len()] = [$($table::$code),*];

            /// The number sent, as text.
            pub const fn number(self) -> i8 {
                self as i8
            }

            /// The code of that number, for connectors and sandbox scripts.
            pub fn numbered(number: i8) -> Option<Self> {
                Self::ALL.into_iter().find(|code| code.number() == number)
            }

            /// Whether the published table charges an answer with this code.
            pub const fn charged(self) -> bool {
                self.row().charged
            }

            /// The published text, word for word: client code compares it.
            pub const fn text(self, language: $crate::Language) -> &'static str {
                self.row().text(language)
            }

            /// The row of the table.
            pub const fn row(self) -> $crate::code::ResultCode {
                match self {
                    $($table::$code => $crate::code::ResultCode::new(
                        $number, $crate::code::is_charged!($charge), $zh, $en,
                    ),)*
                }
            }
        }
    };
}

macro_rules! is_charged {
    (charged) => {
        true
    };
    (free) => {
        false
    };
}

pub(crate) use {is_charged, result_codes};
