//! The singular value decomposition of a matrix with at least as many rows as columns: A = Q R by reflections, then the rows of R are
//! rotated by the one-sided Jacobi method until they are orthogonal. Their lengths are the singular values, also the small ones to
//! nearly all bits.

use super::problem::Problem;
use super::qr;
use super::vectors::{dot, greatest, identity, rotate, scale, transpose};

/// Sweeps; random matrices of 100 rows take six.
const MOST: usize = 40;

/// Squares of lengths below this one count as zero: the greatest length is about 1.
const LEAST: f64 = 1.0e-280;

/// A row of R, and that of the product of rotations.
struct Row {
    square: f64,
    row: Vec<f64>,
    turned: Vec<f64>,
}

/// U of `m` rows and `k` columns, the values in descending order, and V' of `n` rows.
pub fn decompose(
    mut a: Vec<f64>,
    (m, n): (usize, usize),
    k: usize,
) -> Result<[Vec<f64>; 3], Problem> {
    let scale = scaled(&mut a);
    let [q, r] = qr::factor(a, (m, n), k);
    let unit = identity(n, n);
    let units = unit.chunks_exact(n.max(1));
    let rows = r.chunks_exact(n.max(1)).zip(units);
    let rows = rows.map(|(row, unit)| Row::new(row, unit.to_vec()));
    let rows = sweeps(rows.collect(), n)?;
    Ok([left(&q, &rows, k), lengths(&rows, scale), right(&rows, n)])
}

/// The singular values of a matrix of `m` rows of `n` elements, in descending order.
pub fn values(mut a: Vec<f64>, (m, n): (usize, usize)) -> Result<Vec<f64>, Problem> {
    let scale = scaled(&mut a);
    qr::eliminate(&mut a, m, n);
    let rows = a.chunks_exact(n.max(1)).take(n);
    let rows = rows.map(|row| Row::new(row, Vec::new()));
    Ok(lengths(&sweeps(rows.collect(), n)?, scale))
}

fn scaled(a: &mut [f64]) -> f64 {
    let scale = scale(greatest(a));
    a.iter_mut().for_each(|x| *x /= scale);
    scale
}

fn lengths(rows: &[Row], scale: f64) -> Vec<f64> {
    rows.iter().map(|row| scale * row.square.sqrt()).collect()
}

/// Sweeps over all pairs until none is rotated.
fn sweeps(mut rows: Vec<Row>, n: usize) -> Result<Vec<Row>, Problem> {
    let limit = f64::EPSILON * (n as f64).sqrt().max(4.0);
    for _ in 0..MOST {
        rows.sort_by(|a, b| b.square.total_cmp(&a.square));
        let mut rotated = false;
        let mut rest = rows.as_mut_slice();
        while let Some((one, others)) = rest.split_first_mut() {
            for other in &mut *others {
                rotated |= one.orthogonalise(other, limit);
            }
            rest = others;
        }
        if !rotated {
            return Ok(rows);
        }
    }
    Err(Problem::NoConvergence)
}

impl Row {
    fn new(row: &[f64], turned: Vec<f64>) -> Row {
        Row {
            square: dot(row, row),
            row: row.to_vec(),
            turned,
        }
    }

    /// Whether the pair had to be rotated.
    fn orthogonalise(&mut self, other: &mut Row, limit: f64) -> bool {
        let (a, b) = (self.square, other.square);
        if a < LEAST || b < LEAST {
            return false;
        }
        let product = dot(&self.row, &other.row);
        if product.abs() <= limit * a.sqrt() * b.sqrt() {
            return false;
        }
        let tangent = tangent((b - a) / (2.0 * product));
        let cosine = 1.0 / (1.0 + tangent * tangent).sqrt();
        let sine = tangent * cosine;
        rotate(&mut self.row, &mut other.row, sine, cosine);
        rotate(&mut self.turned, &mut other.turned, sine, cosine);
        self.square = dot(&self.row, &self.row);
        other.square = dot(&other.row, &other.row);
        true
    }
}

fn tangent(ratio: f64) -> f64 {
    if ratio.abs() > 1.0e100 {
        return 0.5 / ratio;
    }
    let tangent = 1.0 / (ratio.abs() + (1.0 + ratio * ratio).sqrt());
    if ratio < 0.0 { -tangent } else { tangent }
}

/// The first columns are those of Q, turned.
fn left(q: &[f64], rows: &[Row], k: usize) -> Vec<f64> {
    let mut u = Vec::with_capacity(q.len());
    for q in q.chunks_exact(k.max(1)) {
        let (first, last) = q.split_at(rows.len());
        u.extend(rows.iter().map(|row| dot(&row.turned, first)));
        u.extend_from_slice(last);
    }
    u
}

/// Rows that count as zero have no direction: theirs are what the others leave.
fn right(rows: &[Row], n: usize) -> Vec<f64> {
    let known = rows.iter().filter(|row| row.square >= LEAST);
    let divided = known.flat_map(|row| {
        let length = row.square.sqrt();
        row.row.iter().map(move |x| x / length)
    });
    let mut v: Vec<f64> = divided.collect();
    if v.len() < n * n {
        let rank = v.len() / n;
        let [q, _] = qr::factor(transpose(&v, n), (n, rank), n);
        v.extend_from_slice(&transpose(&q, n)[rank * n..]);
    }
    v
}
