//! Eigenvalues and eigenvectors of a symmetric matrix, of which the lower triangle is read: reduction to a tridiagonal matrix by
//! Householder reflections, then the QL algorithm with implicit shifts.

use super::problem::Problem;
use super::reflector::Reflector;
use super::vectors::{add, dot, greatest, identity, rotate, scale, subtract};

/// Iterations for one eigenvalue; nearly all take fewer than four.
const MOST: usize = 60;

/// The values in ascending order, and the matrix whose columns are the vectors.
pub fn decompose(mut a: Vec<f64>, n: usize) -> Result<[Vec<f64>; 2], Problem> {
    let rows = a.chunks_exact(n.max(1)).enumerate();
    let scale = scale(rows.fold(0.0, |most: f64, (i, row)| most.max(greatest(&row[..=i]))));
    a.iter_mut().for_each(|x| *x /= scale);
    let mut tridiagonal = Tridiagonal::of(&mut a, n);
    tridiagonal.converge()?;
    Ok(tridiagonal.sorted(scale))
}

struct Tridiagonal {
    n: usize,
    diagonal: Vec<f64>,
    /// What is beside the diagonal, and a zero.
    beside: Vec<f64>,
    /// The rows are the vectors.
    vectors: Vec<f64>,
}

impl Tridiagonal {
    fn of(a: &mut [f64], n: usize) -> Tridiagonal {
        let reflectors: Vec<Reflector> = (0..n.saturating_sub(1))
            .map(|k| {
                let column = a[(k + 1) * n + k..].iter().step_by(n).copied();
                let reflector = Reflector::of(column.collect());
                both_sides(a, n, k + 1, &reflector);
                reflector
            })
            .collect();
        let mut beside: Vec<f64> = reflectors.iter().map(|reflector| reflector.beta).collect();
        beside.resize(n, 0.0);
        Tridiagonal {
            n,
            diagonal: a.iter().step_by(n + 1).copied().collect(),
            beside,
            vectors: product(&reflectors, n),
        }
    }

    /// The QL algorithm.
    fn converge(&mut self) -> Result<(), Problem> {
        for l in 0..self.n {
            let mut left = MOST;
            loop {
                let m = (l..self.n - 1).find(|m| self.is_negligible(*m));
                let m = m.unwrap_or(self.n - 1);
                if m == l {
                    break;
                }
                left = left.checked_sub(1).ok_or(Problem::NoConvergence)?;
                self.sweep(l, m);
            }
        }
        Ok(())
    }

    fn is_negligible(&self, m: usize) -> bool {
        let scale = self.diagonal[m].abs() + self.diagonal[m + 1].abs();
        let beside = self.beside[m].abs();
        beside < f64::MIN_POSITIVE || beside + scale == scale
    }

    /// Rotations of neighbours from `m` to `l`, with the shift of Wilkinson.
    fn sweep(&mut self, l: usize, m: usize) {
        let (d, e) = (&mut self.diagonal, &mut self.beside);
        let g = (d[l + 1] - d[l]) / (2.0 * e[l]);
        let r = g.hypot(1.0);
        let mut g = d[m] - d[l] + e[l] / if g < 0.0 { g - r } else { g + r };
        let (mut sine, mut cosine, mut p) = (1.0, 1.0, 0.0);
        for i in (l..m).rev() {
            let (f, b) = (sine * e[i], cosine * e[i]);
            let r = f.hypot(g);
            e[i + 1] = r;
            if r == 0.0 {
                d[i + 1] -= p;
                e[m] = 0.0;
                return;
            }
            (sine, cosine) = (f / r, g / r);
            g = d[i + 1] - p;
            let r = (d[i] - g) * sine + 2.0 * cosine * b;
            p = sine * r;
            d[i + 1] = g + p;
            g = cosine * r - b;
            let pair = &mut self.vectors[i * self.n..(i + 2) * self.n];
            let (low, high) = pair.split_at_mut(self.n);
            rotate(low, high, sine, cosine);
        }
        d[l] -= p;
        e[l] = g;
        e[m] = 0.0;
    }

    fn sorted(&self, scale: f64) -> [Vec<f64>; 2] {
        let mut order: Vec<usize> = (0..self.n).collect();
        order.sort_by(|a, b| self.diagonal[*a].total_cmp(&self.diagonal[*b]));
        let values = order.iter().map(|at| self.diagonal[*at] * scale).collect();
        let mut vectors = Vec::with_capacity(self.n * self.n);
        for row in 0..self.n {
            vectors.extend(order.iter().map(|at| self.vectors[at * self.n + row]));
        }
        [values, vectors]
    }
}

/// H A H of the rows and columns from `k` on, as A - v w' - w v'.
fn both_sides(a: &mut [f64], n: usize, k: usize, Reflector { v, tau, .. }: &Reflector) {
    if *tau == 0.0 {
        return;
    }
    let mut w = vec![0.0; v.len()];
    for (i, row) in a.chunks_exact(n).skip(k).enumerate() {
        let left = &row[k..k + i];
        w[i] += dot(left, &v[..i]) + row[k + i] * v[i];
        add(&mut w[..i], v[i], left);
    }
    w.iter_mut().for_each(|x| *x *= tau);
    let half = tau / 2.0 * dot(&w, v);
    subtract(&mut w, half, v);
    for (i, row) in a.chunks_exact_mut(n).skip(k).enumerate() {
        let (x, y) = (v[i], w[i]);
        for ((element, v), w) in row[k..=k + i].iter_mut().zip(v).zip(&w) {
            *element -= x * w + y * v;
        }
    }
}

/// The columns of the product of the reflectors, as rows. The one at `k` changes elements from `k + 1` on.
fn product(reflectors: &[Reflector], n: usize) -> Vec<f64> {
    let mut columns = identity(n, n);
    for (k, Reflector { v, tau, .. }) in reflectors.iter().enumerate().rev() {
        if *tau == 0.0 {
            continue;
        }
        for column in columns.chunks_exact_mut(n).skip(k + 1) {
            let part = &mut column[k + 1..];
            subtract(part, tau * dot(v, part), v);
        }
    }
    columns
}
