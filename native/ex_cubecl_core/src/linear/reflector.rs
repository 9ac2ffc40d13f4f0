//! Householder reflections I - tau v v', where v starts with 1.

use super::vectors::{add, dot, greatest, subtract};

pub struct Reflector {
    pub v: Vec<f64>,
    pub tau: f64,
    /// The first element of the reflected vector, whose others are 0.
    pub beta: f64,
}

impl Reflector {
    /// The reflection that takes `x` to `(beta, 0, 0, ...)`: the identity if it is so.
    pub fn of(mut x: Vec<f64>) -> Reflector {
        let Some((first, rest)) = x.split_first_mut() else {
            return Reflector {
                v: x,
                tau: 0.0,
                beta: 0.0,
            };
        };
        let alpha = std::mem::replace(first, 1.0);
        let largest = greatest(rest);
        if largest == 0.0 {
            return Reflector {
                v: x,
                tau: 0.0,
                beta: alpha,
            };
        }
        // Multiples of the smallest numbers are inexact: those of a vector whose greatest element is 1 are not.
        let scale = largest.max(alpha.abs());
        rest.iter_mut().for_each(|x| *x /= scale);
        let alpha = alpha / scale;
        let norm = (alpha * alpha + dot(rest, rest)).sqrt();
        let beta = if alpha > 0.0 { -norm } else { norm };
        let by = alpha - beta;
        rest.iter_mut().for_each(|x| *x /= by);
        Reflector {
            v: x,
            tau: (beta - alpha) / beta,
            beta: scale * beta,
        }
    }

    /// Reflects columns from `column` on of a matrix with rows of `width` elements, in the rows from `row` on. `sums` is
    /// memory that calls share.
    pub fn reflect(
        &self,
        a: &mut [f64],
        width: usize,
        (row, column): (usize, usize),
        sums: &mut Vec<f64>,
    ) {
        if self.tau == 0.0 || column >= width {
            return;
        }
        sums.clear();
        sums.resize(width - column, 0.0);
        let rows = a.chunks_exact(width).skip(row);
        for (row, x) in rows.zip(&self.v) {
            add(sums, *x, &row[column..]);
        }
        let rows = a.chunks_exact_mut(width).skip(row);
        for (row, x) in rows.zip(&self.v) {
            subtract(&mut row[column..], self.tau * x, sums);
        }
    }
}
