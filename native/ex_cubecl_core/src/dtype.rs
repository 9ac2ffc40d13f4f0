//! The element types, one table row each. All properties of a type come from this table.

use std::fmt;

/// The type of a buffer's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    F16,
    Bf16,
    F32,
    F64,
    S8,
    S16,
    S32,
    S64,
    U8,
    U16,
    U32,
    U64,
}

/// How the bits of an element are interpreted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Float,
    Signed,
    Unsigned,
}

use DType::*;
use Kind::*;

const TABLE: [(DType, &str, Kind, u32); 12] = [
    (F16, "f16", Float, 2),
    (Bf16, "bf16", Float, 2),
    (F32, "f32", Float, 4),
    (F64, "f64", Float, 8),
    (S8, "s8", Signed, 1),
    (S16, "s16", Signed, 2),
    (S32, "s32", Signed, 4),
    (S64, "s64", Signed, 8),
    (U8, "u8", Unsigned, 1),
    (U16, "u16", Unsigned, 2),
    (U32, "u32", Unsigned, 4),
    (U64, "u64", Unsigned, 8),
];

impl DType {
    pub fn all() -> impl Iterator<Item = DType> {
        TABLE.iter().map(|row| row.0)
    }

    pub fn name(self) -> &'static str {
        TABLE[self as usize].1
    }

    pub fn kind(self) -> Kind {
        TABLE[self as usize].2
    }

    /// Bytes per element.
    pub fn size(self) -> u64 {
        u64::from(TABLE[self as usize].3)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_stands_in_the_order_of_the_enum() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.0 as usize, index);
        }
    }
}
