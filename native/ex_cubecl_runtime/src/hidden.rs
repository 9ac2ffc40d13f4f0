//! Types that a device computes and claims not to, so that tests on a device with all types cover devices that lack some.

use std::sync::LazyLock;

use ex_cubecl_core::dtype::DType;

/// Names of types, separated by commas; read when the first device is opened.
const VARIABLE: &str = "EX_CUBECL_TEST_HIDDEN_DTYPES";

static HIDDEN: LazyLock<Vec<DType>> = LazyLock::new(|| {
    let names = std::env::var(VARIABLE).unwrap_or_default();
    parsed(&names)
});

pub fn is_hidden(dtype: DType) -> bool {
    HIDDEN.contains(&dtype)
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
