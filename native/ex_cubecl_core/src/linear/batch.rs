//! An operation for each matrix of a batch, from bytes to bytes.

use super::elements;
use super::operation::Operation;
use super::problem::{Problem, finite};
use crate::dtype::{DType, Kind};
use crate::error::{Error, Result};

/// The matrices of an operand.
#[derive(Debug, Clone, Copy)]
pub struct Matrices {
    pub dtype: DType,
    pub rows: u64,
    pub columns: u64,
}

#[derive(Debug)]
pub struct Batch {
    operation: Operation,
    dtypes: Vec<DType>,
    shapes: Vec<(usize, usize)>,
    count: usize,
    /// The float type of the results.
    dtype: DType,
}

#[derive(Debug, PartialEq)]
pub enum Outcome {
    /// The results of so many matrices, each as the bytes of all of them.
    Done(usize, Vec<Vec<u8>>),
    /// What is wrong with the matrix of this index.
    Found(Problem, usize),
}

impl Batch {
    pub fn new(
        operation: Operation,
        operands: &[Matrices],
        count: u64,
        dtype: DType,
    ) -> Result<Batch> {
        let length = |length: u64| usize::try_from(length).ok();
        let shapes: Option<Vec<_>> = operands
            .iter()
            .map(|a| length(a.rows).zip(length(a.columns)))
            .collect();
        let shapes = shapes.filter(|shapes| operation.takes(shapes));
        let (Some(shapes), Some(count)) = (shapes, length(count)) else {
            return Err(mismatch(operation.operands(), operands.len()));
        };
        if dtype.kind() != Kind::Float {
            return Err(Error::TypeMismatch {
                expected: DType::F64,
                actual: dtype,
            });
        }
        let batch = Batch {
            operation,
            dtypes: operands.iter().map(|a| a.dtype).collect(),
            shapes,
            count,
            dtype,
        };
        batch.check_memory()?;
        Ok(batch)
    }

    pub fn count(&self) -> usize {
        self.count
    }

    /// About how many nanoseconds one matrix takes.
    pub fn nanoseconds(&self) -> f64 {
        let shape = self.shapes.first().copied().unwrap_or_default();
        self.operation.nanoseconds(shape, self.sides())
    }

    /// The elements of the right-hand sides of one matrix.
    fn sides(&self) -> usize {
        self.shapes.get(1).map_or(0, |b| b.0.saturating_mul(b.1))
    }

    /// An allocation that fails would end the process: one of the size of all that a matrix needs is tried before.
    fn check_memory(&self) -> Result<()> {
        let shape = self.shapes.first().copied().unwrap_or_default();
        let inputs = self.shapes.iter().map(|a| {
            let area = a.0.saturating_mul(a.1);
            area.saturating_add(a.0).saturating_add(a.1)
        });
        let inputs = inputs.fold(0, usize::saturating_add);
        let results = self.operation.results(shape, self.sides());
        let elements = inputs.saturating_add(results).saturating_mul(3);
        match Vec::<f64>::new().try_reserve_exact(elements) {
            Ok(()) => Ok(()),
            Err(_) => Err(Error::driver(format!(
                "the host has no memory left for a matrix of {} rows of {} elements",
                shape.0, shape.1
            ))),
        }
    }

    /// Results from the matrix with the index `first` on, of at most `most` matrices. `data` has the bytes of each operand.
    pub fn run(&self, data: &[&[u8]], first: usize, most: usize) -> Result<Outcome> {
        let sizes = self.sizes(data)?;
        let most = most.min(self.count.saturating_sub(first));
        let mut results: Vec<Vec<u8>> = Vec::new();
        for index in first..first + most {
            let matrices = data.iter().zip(&sizes).zip(&self.dtypes);
            let operands: Vec<Vec<f64>> = matrices
                .map(|((bytes, size), dtype)| {
                    elements::decode(&bytes[index * size..][..*size], *dtype)
                })
                .collect();
            match self.one(&operands) {
                Err(problem) => return Ok(Outcome::Found(problem, index)),
                Ok(matrix) => {
                    results.resize_with(matrix.len(), Vec::new);
                    for (values, bytes) in matrix.iter().zip(&mut results) {
                        elements::encode(values, self.dtype, bytes);
                    }
                }
            }
        }
        Ok(Outcome::Done(most, results))
    }

    fn one(&self, operands: &[Vec<f64>]) -> std::result::Result<Vec<Vec<f64>>, Problem> {
        for (at, operand) in operands.iter().enumerate() {
            finite(operand).map_err(|_| Problem::NotFinite(at))?;
        }
        let results = self.operation.calculate(operands, &self.shapes)?;
        results.iter().try_for_each(|values| finite(values))?;
        Ok(results)
    }

    /// The bytes of one matrix of each operand.
    fn sizes(&self, data: &[&[u8]]) -> Result<Vec<usize>> {
        if data.len() != self.shapes.len() {
            return Err(mismatch(self.shapes.len(), data.len()));
        }
        let operands = self.shapes.iter().zip(&self.dtypes).zip(data);
        operands
            .map(|(((rows, columns), dtype), bytes)| {
                let elements = rows.checked_mul(*columns);
                let size = elements.and_then(|n| n.checked_mul(dtype.size() as usize));
                let size = size.unwrap_or(usize::MAX);
                if size.checked_mul(self.count) == Some(bytes.len()) {
                    return Ok(size);
                }
                Err(mismatch(size.saturating_mul(self.count), bytes.len()))
            })
            .collect()
    }
}

fn mismatch(expected: usize, actual: usize) -> Error {
    Error::ShapeMismatch {
        expected: expected as u64,
        actual: actual as u64,
    }
}
