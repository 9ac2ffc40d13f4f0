//! Benchmarks of core without Erlang, with Criterion: `cargo bench -p peers`.

// A benchmark that cannot continue stops with a message.
#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ex_cubecl_core::device::Device;
use ex_cubecl_core::registry;
use ex_cubecl_core::{Buffer, DType};

fn open() -> Arc<Device> {
    ex_cubecl_runtime::install();
    registry::open(registry::default_id().unwrap()).unwrap()
}

fn bytes(device: &Arc<Device>, data: &[u8]) -> Buffer {
    Buffer::from_bytes(device.clone(), DType::U8, data).unwrap()
}

/// The cost of an allocation must not depend on how many blocks are live.
fn allocation(criterion: &mut Criterion) {
    let device = open();
    let mut group = criterion.benchmark_group("allocate and drop 256 bytes");
    for live in [1_000, 10_000, 100_000] {
        let kept: Vec<Buffer> = (0..live).map(|_| bytes(&device, &[1; 256])).collect();
        group.bench_function(BenchmarkId::new("live", live), |bencher| {
            bencher.iter(|| bytes(&device, &[1; 256]));
        });
        drop(kept);
    }
    group.finish();
}

fn transfers(criterion: &mut Criterion) {
    let device = open();
    let mut group = criterion.benchmark_group("transfer");
    for size in [4 << 10, 1 << 20, 64 << 20] {
        let data = vec![7; size];
        let buffer = bytes(&device, &data);
        group
            .throughput(Throughput::Bytes(size as u64))
            .sample_size(20);
        group.bench_function(BenchmarkId::new("write", size), |bencher| {
            bencher.iter(|| {
                buffer.write(0, &data).unwrap();
                device.synchronize().unwrap();
            });
        });
        group.bench_function(BenchmarkId::new("read", size), |bencher| {
            bencher.iter(|| black_box(buffer.read(0, size as u64).unwrap()[size - 1]));
        });
    }
    group.finish();
}

fn views(criterion: &mut Criterion) {
    let buffer = bytes(&open(), &[1; 4096]);
    criterion.bench_function("view", |bencher| bencher.iter(|| buffer.view(100, 200)));
}

criterion_group!(core, allocation, transfers, views);
criterion_main!(core);
