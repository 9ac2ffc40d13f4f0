//! The QR decomposition, by Householder reflections.

use super::reflector::Reflector;
use super::vectors::identity;

/// The reflectors of a matrix of `m` rows of `n` elements, which becomes R, with as many rows as the matrix.
pub fn eliminate(r: &mut [f64], m: usize, n: usize) -> Vec<Reflector> {
    let mut sums = Vec::new();
    let steps = 0..m.min(n);
    steps
        .map(|k| {
            let column = r[k * n + k..].iter().step_by(n).copied().collect();
            let reflector = Reflector::of(column);
            reflector.reflect(r, n, (k, k + 1), &mut sums);
            let column = r[k * n + k..].iter_mut().step_by(n);
            column.for_each(|x| *x = 0.0);
            r[k * n + k] = reflector.beta;
            reflector
        })
        .collect()
}

/// Q and R of a matrix of `m` rows of `n` elements; `k` is the number of columns of Q: m, or the smaller of m and n.
pub fn factor(mut r: Vec<f64>, (m, n): (usize, usize), k: usize) -> [Vec<f64>; 2] {
    let reflectors = eliminate(&mut r, m, n);
    let mut q = identity(m, k);
    let mut sums = Vec::new();
    for (at, reflector) in reflectors.iter().enumerate().rev() {
        reflector.reflect(&mut q, k, (at, at), &mut sums);
    }
    r.truncate(k * n);
    [q, r]
}
