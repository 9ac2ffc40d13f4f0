//! Byte ranges. All bounds checks of the crate are in this file, and none of them can overflow.

use crate::error::{Error, Result};

/// `len` bytes from `offset` on, inside one storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub offset: u64,
    pub len: u64,
}

impl Span {
    pub fn whole(len: u64) -> Self {
        Span { offset: 0, len }
    }

    pub fn end(self) -> u64 {
        self.offset + self.len
    }

    /// `count` units of `unit` bytes at `offset` units from this span's start.
    pub fn narrow(self, offset: u64, count: u64, unit: u64) -> Result<Span> {
        let fault = Error::OutOfBounds {
            offset,
            count,
            size: self.len / unit,
        };
        let Some(end) = offset.checked_add(count) else {
            return Err(fault);
        };
        match end.checked_mul(unit) {
            Some(end_bytes) if end_bytes <= self.len => Ok(Span {
                offset: self.offset + offset * unit,
                len: count * unit,
            }),
            _ => Err(fault),
        }
    }

    pub fn overlaps(self, other: Span) -> bool {
        self.len > 0 && other.len > 0 && self.offset < other.end() && other.offset < self.end()
    }
}

/// The bytes of `count` elements of `size` bytes; `None` if the product overflows.
pub fn byte_count(count: u64, size: u64) -> Option<u64> {
    count
        .checked_mul(size)
        .filter(|bytes| *bytes <= i64::MAX as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_part_counts_from_the_inner_start() {
        let part = Span::whole(100).narrow(2, 10, 4).unwrap();
        assert_eq!(part, Span { offset: 8, len: 40 });
        assert_eq!(part.narrow(3, 2, 4).unwrap(), Span { offset: 20, len: 8 });
    }

    #[test]
    fn what_lies_outside_is_refused_also_where_the_sum_would_wrap() {
        let whole = Span::whole(16);
        for (offset, count) in [
            (0, 5),
            (4, 1),
            (u64::MAX, 2),
            (2, u64::MAX),
            (u64::MAX / 4, 1),
        ] {
            let expected = Error::OutOfBounds {
                offset,
                count,
                size: 4,
            };
            assert_eq!(whole.narrow(offset, count, 4), Err(expected));
        }
        assert!(whole.narrow(4, 0, 4).is_ok());
    }

    #[test]
    fn touching_and_empty_spans_do_not_overlap() {
        let a = Span { offset: 0, len: 8 };
        assert!(!a.overlaps(Span { offset: 8, len: 8 }));
        assert!(!a.overlaps(Span { offset: 4, len: 0 }));
        assert!(a.overlaps(Span { offset: 7, len: 1 }));
    }

    #[test]
    fn a_byte_count_that_does_not_fit_is_none() {
        assert_eq!(byte_count(1 << 62, 8), None);
        assert_eq!(byte_count(1 << 63, 1), None);
        assert_eq!(byte_count(3, 4), Some(12));
    }
}
