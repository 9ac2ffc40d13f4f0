//! The Cholesky decomposition, of the lower triangle.

use super::problem::Problem;
use super::vectors::dot;

/// L with A = L L'.
pub fn factor(mut a: Vec<f64>, n: usize) -> Result<Vec<f64>, Problem> {
    for i in 0..n {
        let (above, below) = a.split_at_mut(i * n);
        let row = &mut below[..n];
        for (j, other) in above.chunks_exact(n).enumerate() {
            let (left, right) = row.split_at_mut(j);
            right[0] = (right[0] - dot(left, &other[..j])) / other[j];
        }
        let (left, right) = row.split_at_mut(i);
        let pivot = right[0] - dot(left, left);
        if !pivot.is_finite() {
            return Err(Problem::Overflow);
        }
        if pivot <= 0.0 {
            return Err(Problem::NotPositive(i, pivot));
        }
        right.fill(0.0);
        right[0] = pivot.sqrt();
    }
    Ok(a)
}
