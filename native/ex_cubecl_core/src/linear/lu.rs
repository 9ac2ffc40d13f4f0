//! Gaussian elimination with partial pivoting.

use super::problem::Problem;
use super::triangular;
use super::vectors::{identity, subtract};

/// L below the diagonal, without its ones, and U from it on, of rows in another order.
pub struct Lu {
    pub n: usize,
    pub factors: Vec<f64>,
    /// Row i of L U is row `order[i]` of the matrix.
    pub order: Vec<usize>,
    /// Whether the order is an odd permutation.
    pub odd: bool,
}

impl Lu {
    /// A zero pivot, which only a singular matrix has, leaves zeros.
    pub fn of(mut a: Vec<f64>, n: usize) -> Lu {
        let mut order: Vec<usize> = (0..n).collect();
        let mut odd = false;
        for k in 0..n {
            let best = pivot(&a, n, k);
            if best != k {
                order.swap(k, best);
                odd = !odd;
                let (above, below) = a.split_at_mut(best * n);
                above[k * n..][..n].swap_with_slice(&mut below[..n]);
            }
            eliminate(&mut a, n, k);
        }
        Lu {
            n,
            factors: a,
            order,
            odd,
        }
    }

    fn rows(&self) -> impl Iterator<Item = &[f64]> {
        self.factors.chunks_exact(self.n.max(1))
    }

    /// The matrices P, L and U.
    pub fn parts(&self) -> [Vec<f64>; 3] {
        let n = self.n;
        let mut p = vec![0.0; n * n];
        let (mut l, mut u) = (identity(n, n), vec![0.0; n * n]);
        for (i, (row, origin)) in self.rows().zip(&self.order).enumerate() {
            p[origin * n + i] = 1.0;
            l[i * n..][..i].copy_from_slice(&row[..i]);
            u[i * n + i..][..n - i].copy_from_slice(&row[i..]);
        }
        [p, l, u]
    }

    /// The solutions of `m` columns of right-hand sides.
    pub fn solve(&self, b: &[f64], m: usize) -> Result<Vec<f64>, Problem> {
        // The substitution would find the last one.
        if let Some(k) = self.diagonal().position(|x| x == 0.0) {
            return Err(Problem::Zero(k));
        }
        let rows = self.order.iter().flat_map(|row| &b[row * m..][..m]);
        let mut x: Vec<f64> = rows.copied().collect();
        triangular::lower(&self.factors, self.n, &mut x, m, true)?;
        triangular::upper(&self.factors, self.n, &mut x, m)?;
        Ok(x)
    }

    pub fn determinant(&self) -> f64 {
        let sign = if self.odd { -1.0 } else { 1.0 };
        self.diagonal().fold(sign, |product, x| product * x)
    }

    fn diagonal(&self) -> impl Iterator<Item = f64> {
        self.rows().enumerate().map(|(i, row)| row[i])
    }
}

/// The first row from `k` on with the largest element in column `k`.
fn pivot(a: &[f64], n: usize, k: usize) -> usize {
    let column = a[k * n + k..].iter().step_by(n);
    let (mut best, mut most) = (k, -1.0);
    for (row, x) in (k..).zip(column) {
        if x.abs() > most {
            (best, most) = (row, x.abs());
        }
    }
    best
}

fn eliminate(a: &mut [f64], n: usize, k: usize) {
    let (above, below) = a.split_at_mut((k + 1) * n);
    let first = &above[k * n..];
    let pivot = first[k];
    for row in below.chunks_exact_mut(n) {
        let factor = if pivot == 0.0 { 0.0 } else { row[k] / pivot };
        row[k] = factor;
        if factor != 0.0 {
            subtract(&mut row[k + 1..], factor, &first[k + 1..]);
        }
    }
}
