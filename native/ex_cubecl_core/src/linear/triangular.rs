//! Systems of a triangular matrix, by substitution. Right-hand sides `x` have `m` columns, and become the solutions.

use super::problem::Problem;
use super::vectors::{dot, subtract};

/// Reads the lower triangle; with `unit`, ones are on its diagonal.
pub fn lower(a: &[f64], n: usize, x: &mut [f64], m: usize, unit: bool) -> Result<(), Problem> {
    for (i, row) in a.chunks_exact(n.max(1)).enumerate() {
        let (solved, rest) = x.split_at_mut(i * m);
        let x = &mut rest[..m];
        eliminate(&row[..i], solved, x);
        if !unit {
            divide(row[i], i, x)?;
        }
    }
    Ok(())
}

/// Reads the upper triangle.
pub fn upper(a: &[f64], n: usize, x: &mut [f64], m: usize) -> Result<(), Problem> {
    for (i, row) in a.chunks_exact(n.max(1)).enumerate().rev() {
        let (rest, solved) = x.split_at_mut((i + 1) * m);
        let x = &mut rest[i * m..];
        eliminate(&row[i + 1..], solved, x);
        divide(row[i], i, x)?;
    }
    Ok(())
}

fn eliminate(factors: &[f64], solved: &[f64], x: &mut [f64]) {
    match x {
        [] => {}
        [x] => *x -= dot(factors, solved),
        _ => {
            for (factor, row) in factors.iter().zip(solved.chunks_exact(x.len())) {
                subtract(x, *factor, row);
            }
        }
    }
}

fn divide(diagonal: f64, k: usize, x: &mut [f64]) -> Result<(), Problem> {
    if diagonal == 0.0 {
        return Err(Problem::Zero(k));
    }
    x.iter_mut().for_each(|x| *x /= diagonal);
    Ok(())
}
