//! Types and operations that a device has and claims not to have, so that tests cover devices that lack them.

use std::sync::LazyLock;

use ex_cubecl_core::dtype::DType;

/// Names of types, separated by commas; read when the first device is opened.
const DTYPES: &str = "EX_CUBECL_TEST_HIDDEN_DTYPES";

/// If it is set and not empty, no device has operations on planes.
const PLANES: &str = "EX_CUBECL_TEST_HIDDEN_PLANES";

static HIDDEN: LazyLock<Vec<DType>> = LazyLock::new(|| {
    let names = std::env::var(DTYPES).unwrap_or_default();
    parsed(&names)
});

pub fn is_hidden(dtype: DType) -> bool {
    HIDDEN.contains(&dtype)
}

static PLANES_HIDDEN: LazyLock<bool> =
    LazyLock::new(|| std::env::var_os(PLANES).is_some_and(|value| !value.is_empty()));

pub fn planes_are_hidden() -> bool {
    *PLANES_HIDDEN
}

fn parsed(names: &str) -> Vec<DType> {
    let names: Vec<_> = names.split(',').map(str::trim).collect();
    DType::all()
        .filter(|dtype| names.contains(&dtype.name()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_separated_by_commas_and_others_are_ignored() {
        assert_eq!(parsed(""), []);
        let hidden = parsed("f64, s64,u128,f6");
        assert_eq!(hidden.len(), 2);
        assert!(hidden.contains(&DType::F64) && hidden.contains(&DType::S64));
    }
}
