use super::vectors::{greatest, identity, transpose};
use super::*;
use crate::dtype::DType;

/// Numbers between -1 and 1.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    fn matrix(&mut self, rows: usize, columns: usize) -> Vec<f64> {
        (0..rows * columns).map(|_| self.next()).collect()
    }
}

fn product(a: &[f64], b: &[f64], inner: usize, columns: usize) -> Vec<f64> {
    let mut out = Vec::new();
    let rows = a.len().checked_div(inner).unwrap_or(0);
    for i in 0..rows {
        for j in 0..columns {
            out.push(
                (0..inner)
                    .map(|k| a[i * inner + k] * b[k * columns + j])
                    .sum(),
            );
        }
    }
    out
}

#[track_caller]
fn close(a: &[f64], b: &[f64], n: usize) {
    assert_eq!(a.len(), b.len());
    let difference: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    let bound = 10.0 * (n + 1) as f64 * f64::EPSILON * greatest(b);
    assert!(
        greatest(&difference) <= bound,
        "{} > {bound}",
        greatest(&difference)
    );
}

/// The columns of `q` are orthonormal.
#[track_caller]
fn orthonormal(q: &[f64], rows: usize, columns: usize) {
    if rows > 0 {
        close(
            &product(&transpose(q, columns), q, rows, columns),
            &identity(columns, columns),
            rows,
        );
    }
}

fn scaled_columns(a: &[f64], factors: &[f64]) -> Vec<f64> {
    let factors = factors.iter().cycle();
    a.iter()
        .zip(factors)
        .map(|(x, factor)| x * factor)
        .collect()
}

fn calculate(
    operation: Operation,
    a: &[f64],
    shape: (usize, usize),
) -> Result<Vec<Vec<f64>>, Problem> {
    operation.calculate(&[a.to_vec()], &[shape])
}

/// Random matrices, some of a low rank, some with columns of very different lengths.
fn matrices(random: &mut Random, m: usize, n: usize) -> Vec<Vec<f64>> {
    let rank = m.min(n) / 2;
    let low = product(&random.matrix(m, rank), &random.matrix(rank, n), rank, n);
    let low = if rank == 0 { vec![0.0; m * n] } else { low };
    let lengths: Vec<f64> = (0..n).map(|k| 10f64.powi(-(k as i32))).collect();
    let graded = scaled_columns(&random.matrix(m, n), &lengths);
    let full = random.matrix(m, n);
    let scaled = |factor: f64| full.iter().map(|x| x * factor).collect();
    vec![
        scaled(1e-150),
        scaled(1e150),
        low,
        graded,
        vec![1.0; m * n],
        full,
    ]
}

fn symmetric(a: &[f64], n: usize) -> Vec<f64> {
    a.iter().zip(transpose(a, n)).map(|(x, y)| x + y).collect()
}

fn sizes() -> impl Iterator<Item = usize> {
    (0..20).chain((21..71).step_by(7))
}

#[test]
fn the_product_of_the_factors_of_lu_is_the_matrix() {
    let mut random = Random(1);
    for n in sizes() {
        for a in matrices(&mut random, n, n) {
            let parts = calculate(Operation::Lu, &a, (n, n)).unwrap();
            let [p, l, u] = [&parts[0], &parts[1], &parts[2]];
            close(&product(p, &product(l, u, n, n), n, n), &a, 4 * n);
            assert!(greatest(l) <= 1.0);
            for (i, j) in (0..n).flat_map(|i| (0..i).map(move |j| (i, j))) {
                assert_eq!((l[j * n + i], u[i * n + j]), (0.0, 0.0));
            }
        }
    }
}

#[test]
fn cholesky_factors_positive_matrices() {
    let mut random = Random(2);
    for n in sizes() {
        let a = random.matrix(n, n);
        let mut a = product(&a, &transpose(&a, n), n, n);
        a.iter_mut().step_by(n + 1).for_each(|x| *x += 1.0);
        let l = calculate(Operation::Cholesky, &a, (n, n))
            .unwrap()
            .remove(0);
        close(&product(&l, &transpose(&l, n), n, n), &a, n);
    }
    let found = calculate(Operation::Cholesky, &[1.0, 9.0, 2.0, 1.0], (2, 2));
    assert_eq!(found, Err(Problem::NotPositive(1, -3.0)));
}

#[test]
fn q_is_orthonormal_and_q_r_is_the_matrix() {
    let mut random = Random(3);
    for (m, n) in sizes().flat_map(|m| [0, 1, 2, 5, m, m + 3].map(|n| (m, n))) {
        for a in matrices(&mut random, m, n) {
            for complete in [false, true] {
                let k = if complete { m } else { m.min(n) };
                let parts = calculate(Operation::Qr { complete }, &a, (m, n)).unwrap();
                orthonormal(&parts[0], m, k);
                if k > 0 {
                    close(&product(&parts[0], &parts[1], k, n), &a, m);
                }
                for (i, j) in (0..k).flat_map(|i| (0..i.min(n)).map(move |j| (i, j))) {
                    assert_eq!(parts[1][i * n + j], 0.0);
                }
            }
        }
    }
}

#[test]
fn eigenvectors_are_orthonormal_and_belong_to_their_values() {
    let mut random = Random(4);
    for n in sizes() {
        for a in matrices(&mut random, n, n) {
            let a = symmetric(&a, n);
            let parts = calculate(Operation::Eigh, &a, (n, n)).unwrap();
            let [values, vectors] = [&parts[0], &parts[1]];
            assert!(values.is_sorted());
            orthonormal(vectors, n, n);
            let scale = greatest(values).max(f64::MIN_POSITIVE);
            let divided = |x: &[f64]| x.iter().map(|x| x / scale).collect::<Vec<f64>>();
            let turned = product(&divided(&a), vectors, n, n);
            let expected = scaled_columns(vectors, &divided(values));
            let difference: Vec<f64> = turned.iter().zip(expected).map(|(a, b)| a - b).collect();
            assert!(greatest(&difference) <= 10.0 * (n + 1) as f64 * f64::EPSILON);
        }
    }
}

#[test]
fn eigenvalues_that_are_known() {
    // Only the lower triangle is read. Those of the second difference are 2 - 2 cos(k pi / (n + 1)).
    let n = 40;
    let mut a = vec![5.0; n * n];
    for (i, j) in (0..n).flat_map(|i| (0..=i).map(move |j| (i, j))) {
        a[i * n + j] = [2.0, -1.0].get(i - j).copied().unwrap_or(0.0);
    }
    let values = calculate(Operation::Eigh, &a, (n, n)).unwrap().remove(0);
    for (k, value) in values.iter().enumerate() {
        let angle = (k + 1) as f64 * std::f64::consts::PI / (n + 1) as f64;
        assert!((value - 2.0 + 2.0 * angle.cos()).abs() < 1e-14);
    }
    // Eigenvalues that are there several times.
    let values = calculate(Operation::Eigh, &vec![1.0; n * n], (n, n))
        .unwrap()
        .remove(0);
    assert!((values[n - 1] - n as f64).abs() < 1e-12);
    assert!(greatest(&values[..n - 1]) < 1e-13);
}

#[test]
fn singular_vectors_are_orthonormal_and_their_product_is_the_matrix() {
    let mut random = Random(5);
    for (m, n) in sizes().flat_map(|m| [0, 1, 2, 5, m, m + 3].map(|n| (m, n))) {
        for a in matrices(&mut random, m, n) {
            for complete in [false, true] {
                let least = m.min(n);
                let (columns, rows) = if complete { (m, n) } else { (least, least) };
                let parts = calculate(Operation::Svd { complete }, &a, (m, n)).unwrap();
                let [u, values, vt] = [&parts[0], &parts[1], &parts[2]];
                assert!(values.is_sorted_by(|a, b| a >= b) && values.iter().all(|x| *x >= 0.0));
                orthonormal(u, m, columns);
                orthonormal(&transpose(vt, n), n, rows);
                if least > 0 {
                    let kept: Vec<f64> = u
                        .chunks_exact(columns)
                        .flat_map(|row| row[..least].to_vec())
                        .collect();
                    let scaled = scaled_columns(&kept, values);
                    close(&product(&scaled, &vt[..least * n], least, n), &a, m + n);
                }
                let same = calculate(Operation::SingularValues, &a, (m, n)).unwrap();
                assert_eq!(&same[0], values);
            }
        }
    }
}

#[test]
fn small_singular_values_keep_their_digits() {
    let n = 30;
    let lengths: Vec<f64> = (0..n).map(|k| 10f64.powi(-k)).collect();
    let n = n as usize;
    let a = scaled_columns(&identity(n, n), &lengths);
    let values = calculate(Operation::SingularValues, &a, (n, n))
        .unwrap()
        .remove(0);
    for (value, expected) in values.iter().zip(lengths) {
        assert!((value / expected - 1.0).abs() < 1e-14);
    }
}

#[test]
fn solutions_of_systems() {
    let mut random = Random(6);
    for n in sizes() {
        let mut a = random.matrix(n, n);
        a.iter_mut()
            .step_by(n + 1)
            .for_each(|x| *x += 2.0 * n as f64);
        for m in [0, 1, 2, 9] {
            let b = random.matrix(n, m);
            let operands = [a.clone(), b.clone()];
            let x = Operation::Solve
                .calculate(&operands, &[(n, n), (n, m)])
                .unwrap()
                .remove(0);
            close(&product(&a, &x, n, m), &b, n);
            triangular_systems(&a, &b, n, m);
        }
        let inverse = calculate(Operation::Inverse, &a, (n, n)).unwrap().remove(0);
        close(&product(&a, &inverse, n, n), &identity(n, n), n);
    }
}

fn triangular_systems(a: &[f64], b: &[f64], n: usize, m: usize) {
    for case in 0..8 {
        let [lower, turned, left] = [1, 2, 4].map(|bit| case & bit > 0);
        let mut triangle = a.to_vec();
        for (at, x) in triangle.iter_mut().enumerate() {
            let (i, j) = (at / n, at % n);
            if (lower && j > i) || (!lower && j < i) {
                *x = 0.0;
            }
        }
        let triangle = if turned {
            transpose(&triangle, n)
        } else {
            triangle
        };
        let operation = Operation::Triangular {
            lower,
            transpose: turned,
            left,
        };
        let sides = if left { (n, m) } else { (m, n) };
        let x = operation
            .calculate(&[a.to_vec(), b.to_vec()], &[(n, n), sides])
            .unwrap()
            .remove(0);
        if n > 0 && m > 0 {
            let found = if left {
                product(&triangle, &x, n, m)
            } else {
                product(&x, &triangle, n, n)
            };
            close(&found, b, n);
        }
    }
}

#[test]
fn determinants_and_zero_pivots() {
    let of = |a: &[f64], n| calculate(Operation::Determinant, a, (n, n)).map(|x| x[0][0]);
    assert_eq!(of(&[], 0), Ok(1.0));
    assert_eq!(of(&[0.0, 2.0, 3.0, 0.0], 2), Ok(-6.0));
    assert_eq!(of(&[1.0, 2.0, 2.0, 4.0], 2), Ok(0.0));
    let singular = calculate(Operation::Inverse, &[1.0, 2.0, 2.0, 4.0], (2, 2));
    assert_eq!(singular, Err(Problem::Zero(1)));
    let singular = calculate(Operation::Inverse, &[1.0; 9], (3, 3));
    assert_eq!(singular, Err(Problem::Zero(1)));
}

fn bytes(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_ne_bytes()).collect()
}

fn batch(operation: Operation, n: u64, count: u64) -> Batch {
    let matrices = Matrices {
        dtype: DType::F64,
        rows: n,
        columns: n,
    };
    Batch::new(operation, &[matrices], count, DType::F64).unwrap()
}

#[test]
fn a_batch_is_calculated_in_parts_and_names_the_matrix_of_a_problem() {
    let data = bytes(&[1.0, 0.0, 0.0, 2.0, 3.0, 0.0, 0.0, 4.0]);
    let determinants = batch(Operation::Determinant, 2, 2);
    let done = |count, values: &[f64]| Ok(Outcome::Done(count, vec![bytes(values)]));
    assert_eq!(determinants.run(&[&data], 0, 9), done(2, &[2.0, 12.0]));
    assert_eq!(determinants.run(&[&data], 1, 1), done(1, &[12.0]));
    assert_eq!(
        determinants.run(&[&data], 2, 1),
        Ok(Outcome::Done(0, vec![]))
    );
    for (bad, problem) in [
        (f64::NAN, Problem::NotFinite(0)),
        (f64::NEG_INFINITY, Problem::NotFinite(0)),
        (1e308, Problem::Overflow),
    ] {
        let data = bytes(&[1.0, 0.0, 0.0, 2.0, bad, 0.0, 0.0, 4.0]);
        assert_eq!(
            determinants.run(&[&data], 0, 2),
            Ok(Outcome::Found(problem, 1))
        );
    }
    let huge = bytes(&[1e308, 1e308, -1e308, 1e308]);
    assert_eq!(
        batch(Operation::Lu, 2, 1).run(&[&huge], 0, 1),
        Ok(Outcome::Found(Problem::Overflow, 0))
    );
}

#[test]
fn every_type_is_read_and_floats_are_rounded_once() {
    for dtype in DType::all() {
        let mut one = Vec::new();
        let bits = crate::element::of_int(dtype, 3).unwrap().to_ne_bytes();
        one.extend_from_slice(&bits[..dtype.size() as usize]);
        let matrices = Matrices {
            dtype,
            rows: 1,
            columns: 1,
        };
        for to in [DType::F16, DType::Bf16, DType::F32, DType::F64] {
            let batch = Batch::new(Operation::Inverse, &[matrices], 1, to).unwrap();
            let third = crate::element::of_float(to, 1.0 / 3.0)
                .unwrap()
                .to_ne_bytes();
            let third = third[..to.size() as usize].to_vec();
            assert_eq!(batch.run(&[&one], 0, 1), Ok(Outcome::Done(1, vec![third])));
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let matrices = |rows, columns| Matrices {
        dtype: DType::F32,
        rows,
        columns,
    };
    let of = |operation, operands: &[Matrices]| Batch::new(operation, operands, 1, DType::F32);
    assert!(of(Operation::Lu, &[matrices(2, 3)]).is_err());
    assert!(of(Operation::Solve, &[matrices(2, 2)]).is_err());
    assert!(of(Operation::Solve, &[matrices(2, 2), matrices(3, 2)]).is_err());
    assert!(of(Operation::Lu, &[]).is_err());
    assert!(of(Operation::Qr { complete: true }, &[matrices(u64::MAX, 0)]).is_err());
    assert!(Batch::new(Operation::Lu, &[matrices(1, 1)], 1, DType::S32).is_err());
    let lu = of(Operation::Lu, &[matrices(1, 1)]).unwrap();
    assert!(lu.run(&[&[0; 3]], 0, 1).is_err());
    assert!(lu.run(&[], 0, 1).is_err());
    let empty = Batch::new(
        Operation::Lu,
        &[matrices(u64::MAX, 0)],
        u64::MAX,
        DType::F32,
    );
    assert!(empty.is_err());
}
