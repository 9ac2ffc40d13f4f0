//! What an algorithm cannot take.

/// What an algorithm finds in a matrix that it cannot take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Problem {
    /// An element of the operand with this index is NaN or infinite.
    NotFinite(usize),
    /// A result exceeds the range of 64-bit floats.
    Overflow,
    /// The pivot with this index is 0.
    Zero(usize),
    /// The pivot with this index is not positive.
    NotPositive(usize, f64),
    NoConvergence,
}

/// `Overflow` if a number is NaN or infinite.
pub fn finite(values: &[f64]) -> Result<(), Problem> {
    // One sum instead of many branches: it is NaN if a value is NaN or infinite.
    let wrong: f64 = values.iter().map(|x| x * 0.0).sum();
    if wrong == 0.0 {
        Ok(())
    } else {
        Err(Problem::Overflow)
    }
}
