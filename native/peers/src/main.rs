//! `peers measure` prints one line for each measurement, `key<TAB>microseconds`, each a median.
//! `peers plot IN OUT` draws lines `group<TAB>label<TAB>ratio` as bars. For `make bench`.

// A benchmark that cannot continue stops with a message.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cube;
mod plot;
mod raw;

use std::time::Instant;

pub const SIZES: [(&str, usize); 4] = [
    ("1 KiB", 1 << 10),
    ("4 KiB", 4 << 10),
    ("1 MiB", 1 << 20),
    ("64 MiB", 64 << 20),
];
pub const LIVE: [usize; 3] = [1_000, 10_000, 60_000];

/// The number of repetitions: enough for a reliable median in a reasonable time.
pub fn repetitions(bytes: usize) -> usize {
    (256 << 20 >> bytes.ilog2().max(18)).clamp(15, 400)
}

pub fn report(key: &str, times: usize, call: impl FnMut()) {
    report_each(key, times, 1, call);
}

/// As `report`, for a call that performs the measured operation `each` times.
pub fn report_each(key: &str, times: usize, each: usize, mut call: impl FnMut()) {
    call();
    let mut taken: Vec<f64> = (0..times)
        .map(|_| {
            let start = Instant::now();
            call();
            start.elapsed().as_secs_f64() * 1e6 / each as f64
        })
        .collect();
    taken.sort_by(f64::total_cmp);
    println!("{key}\t{:.3}", taken[taken.len() / 2]);
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["measure"] => {
            raw::measure();
            cube::measure();
        }
        ["plot", input, output] => plot::draw(input, output),
        _ => panic!("peers measure | peers plot IN OUT"),
    }
}
