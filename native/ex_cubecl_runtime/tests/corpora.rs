//! Runs the checks of the fuzz targets over their stored corpora. `make fuzz` searches for new
//! inputs.

#![allow(clippy::unwrap_used, clippy::panic)] // also in helpers that are not test functions

#[path = "../../fuzz/src/checks.rs"]
mod checks;

fn each(corpus: &str, check: fn(&[u8])) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/");
    let mut seen = 0;
    for entry in std::fs::read_dir(format!("{folder}{corpus}")).unwrap() {
        check(&std::fs::read(entry.unwrap().path()).unwrap());
        seen += 1;
    }
    assert!(seen > 10, "only {seen} inputs for {corpus}");
}

#[test]
fn shapes_and_spans() {
    each("spans", checks::spans);
}

#[test]
fn elements_and_conversions() {
    each("elements", checks::elements);
}

#[test]
fn what_is_allocated() {
    each("allocator", checks::allocator);
}
