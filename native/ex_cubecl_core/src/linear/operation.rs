//! The operations on a matrix, and their results.

use super::lu::Lu;
use super::problem::{Problem, finite};
use super::vectors::{identity, transpose};
use super::{cholesky, eigh, qr, svd, triangular};

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Operation {
    /// P, L and U.
    Lu,
    /// L.
    Cholesky,
    /// Q and R; a complete Q is square.
    Qr {
        complete: bool,
    },
    /// Eigenvalues and eigenvectors of a symmetric matrix.
    Eigh,
    /// U, the singular values, and V'; complete ones are square.
    Svd {
        complete: bool,
    },
    SingularValues,
    /// The solutions x of a x = b or, with `left` false, of x a = b. `lower` is about the triangle before `transpose`.
    Triangular {
        lower: bool,
        transpose: bool,
        left: bool,
    },
    Solve,
    Inverse,
    Determinant,
}

impl Operation {
    /// The number of operands.
    pub fn operands(self) -> usize {
        match self {
            Operation::Triangular { .. } | Operation::Solve => 2,
            _ => 1,
        }
    }

    /// Whether there are results for operands of these rows and columns.
    pub fn takes(self, operands: &[(usize, usize)]) -> bool {
        operands.len() == self.operands()
            && match (self, operands) {
                (Operation::Qr { .. } | Operation::Svd { .. } | Operation::SingularValues, [_]) => {
                    true
                }
                (Operation::Triangular { left: false, .. }, [a, b]) => a.0 == a.1 && b.1 == a.0,
                (Operation::Triangular { .. } | Operation::Solve, [a, b]) => {
                    a.0 == a.1 && b.0 == a.0
                }
                (_, [a]) => a.0 == a.1,
                _ => false,
            }
    }

    /// The elements of the results for a matrix of `m` rows of `n` elements.
    pub fn results(self, (m, n): (usize, usize), sides: usize) -> usize {
        let square = |n: usize| n.saturating_mul(n);
        let least = m.min(n);
        let area = m.saturating_mul(n);
        match self {
            Operation::Lu => area.saturating_mul(3),
            Operation::Qr { complete: true } => square(m).saturating_add(area),
            Operation::Svd { complete: true } => square(m).saturating_add(square(n)),
            Operation::Triangular { .. } | Operation::Solve => sides,
            _ => area.saturating_add(square(least)).saturating_add(least),
        }
    }

    /// About how many nanoseconds, as measured on a CPU of 2020, a matrix of `m` rows of `n` elements takes, with right-hand sides of so many elements.
    pub fn nanoseconds(self, (m, n): (usize, usize), sides: usize) -> f64 {
        let (most, least) = (m.max(n) as f64, m.min(n) as f64);
        let (area, sides) = (most * least, sides as f64);
        let work = match self {
            Operation::Lu | Operation::Determinant => 0.15 * area * least,
            Operation::Cholesky => 0.1 * area * least,
            Operation::Qr { complete: false } => 0.5 * area * least,
            Operation::Qr { complete: true } => 0.5 * area * m as f64,
            Operation::Eigh => 2.0 * area * least,
            Operation::Svd { complete } => {
                let longer = if complete { most } else { least };
                (8.0 * least * least + most * longer) * least
            }
            Operation::SingularValues => (6.0 * least * least + most * least) * least,
            Operation::Triangular { .. } => 0.25 * least * sides,
            Operation::Solve => 0.15 * area * least + 0.5 * least * sides,
            Operation::Inverse => 0.6 * area * least,
        };
        work + 5.0 * (area + sides) + 500.0
    }

    /// The results for one matrix, whose operands have these elements, rows and columns.
    pub fn calculate(
        self,
        operands: &[Vec<f64>],
        shapes: &[(usize, usize)],
    ) -> Result<Vec<Vec<f64>>, Problem> {
        let (Some(a), Some((m, n))) = (operands.first(), shapes.first().copied()) else {
            return Ok(Vec::new());
        };
        let sides = operands.get(1).zip(shapes.get(1).copied());
        let a = a.clone();
        Ok(match self {
            Operation::Lu => Lu::of(a, n).parts().into(),
            Operation::Cholesky => vec![cholesky::factor(a, n)?],
            Operation::Qr { complete } => {
                let k = if complete { m } else { m.min(n) };
                qr::factor(a, (m, n), k).into()
            }
            Operation::Eigh => eigh::decompose(a, n)?.into(),
            Operation::Svd { complete } => svd_of(&a, (m, n), complete)?.into(),
            Operation::SingularValues if m >= n => vec![svd::values(a, (m, n))?],
            Operation::SingularValues => vec![svd::values(transpose(&a, n), (n, m))?],
            Operation::Inverse => vec![factored(a, n)?.solve(&identity(n, n), n)?],
            Operation::Determinant => vec![vec![factored(a, n)?.determinant()]],
            Operation::Solve => match sides {
                Some((b, (_, columns))) => vec![factored(a, n)?.solve(b, columns)?],
                None => Vec::new(),
            },
            Operation::Triangular {
                lower,
                transpose,
                left,
            } => match sides {
                Some((b, (_, columns))) if left => {
                    vec![triangular_system(
                        a,
                        n,
                        lower,
                        transpose,
                        b.clone(),
                        columns,
                    )?]
                }
                // x a = b is a' x' = b'.
                Some((b, (rows, _))) => {
                    let b = super::vectors::transpose(b, n);
                    let x = triangular_system(a, n, lower, !transpose, b, rows)?;
                    vec![super::vectors::transpose(&x, rows)]
                }
                None => Vec::new(),
            },
        })
    }
}

/// The factors of a matrix; `Overflow` if they are not finite.
fn factored(a: Vec<f64>, n: usize) -> Result<Lu, Problem> {
    let lu = Lu::of(a, n);
    finite(&lu.factors)?;
    Ok(lu)
}

fn triangular_system(
    a: Vec<f64>,
    n: usize,
    lower: bool,
    transposed: bool,
    mut x: Vec<f64>,
    columns: usize,
) -> Result<Vec<f64>, Problem> {
    let a = if transposed { transpose(&a, n) } else { a };
    if lower != transposed {
        triangular::lower(&a, n, &mut x, columns, false)?;
    } else {
        triangular::upper(&a, n, &mut x, columns)?;
    }
    Ok(x)
}

/// U, the values and V'. A = U S V' with more columns than rows is that of the transposed matrix: A' = V S U'.
fn svd_of(a: &[f64], (m, n): (usize, usize), complete: bool) -> Result<[Vec<f64>; 3], Problem> {
    let count = if complete { m.max(n) } else { m.min(n) };
    if m >= n {
        return svd::decompose(a.to_vec(), (m, n), count);
    }
    let [u, values, v] = svd::decompose(transpose(a, n), (n, m), count)?;
    Ok([transpose(&v, m), values, transpose(&u, count)])
}
