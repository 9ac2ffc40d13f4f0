//! Loops over rows, in forms that the compiler vectorises.

/// The sum of products of vectors of the same length, as eight sums: the compiler may not reorder one.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a_parts, a_rest) = a.as_chunks::<8>();
    let (b_parts, b_rest) = b.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for (a, b) in a_parts.iter().zip(b_parts) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}

/// a + factor * b.
pub fn add(a: &mut [f64], factor: f64, b: &[f64]) {
    for (a, b) in a.iter_mut().zip(b) {
        *a += factor * b;
    }
}

/// a - factor * b.
pub fn subtract(a: &mut [f64], factor: f64, b: &[f64]) {
    for (a, b) in a.iter_mut().zip(b) {
        *a -= factor * b;
    }
}

/// Rotates two vectors in their plane.
pub fn rotate(x: &mut [f64], y: &mut [f64], sine: f64, cosine: f64) {
    for (x, y) in x.iter_mut().zip(y) {
        (*x, *y) = (cosine * *x - sine * *y, sine * *x + cosine * *y);
    }
}

pub fn greatest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |most: f64, x| most.max(x.abs()))
}

/// A power of two near a greatest magnitude: squares of numbers divided by it neither overflow nor vanish.
pub fn scale(greatest: f64) -> f64 {
    if greatest == 0.0 {
        return 1.0;
    }
    2f64.powi(greatest.log2().ceil().clamp(-1000.0, 1000.0) as i32)
}

/// The identity matrix, or its first columns or rows.
pub fn identity(rows: usize, columns: usize) -> Vec<f64> {
    let mut unit = vec![0.0; rows * columns];
    let diagonal = unit.iter_mut().step_by(columns + 1).take(rows.min(columns));
    diagonal.for_each(|x| *x = 1.0);
    unit
}

/// The matrix with rows and columns exchanged, of which `columns` are given.
pub fn transpose(a: &[f64], columns: usize) -> Vec<f64> {
    (0..columns)
        .flat_map(|column| a.iter().skip(column).step_by(columns).copied())
        .collect()
}
