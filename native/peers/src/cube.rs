//! CubeCL used as its documentation shows, with its default pools, on one stream.

use cubecl::future::block_on;
use cubecl::prelude::*;
use cubecl::server::Handle;
use cubecl::stream_id::StreamId;
use cubecl::wgpu::{WgpuDevice, WgpuRuntime};
use cubek_matmul::definition::MatmulElems;
use cubek_matmul::launch::{Strategy, launch_ref};
use cubek_std::InputBinding;

use crate::{LIVE, SIZES, repetitions, report, report_each};

pub fn measure() {
    StreamId { value: 0 }.executes(|| {
        let client = WgpuRuntime::client(&WgpuDevice::DefaultDevice);
        let sync = || block_on(client.sync()).unwrap();
        for (name, bytes) in SIZES {
            let data = vec![7u8; bytes];
            let times = repetitions(bytes).min(200);
            report(&format!("cubecl upload {name}"), times, || {
                let handle = client.create_from_slice(&data);
                sync();
                drop(handle);
            });
            let handle = client.create_from_slice(&data);
            report(&format!("cubecl read {name}"), times, || {
                assert_eq!(client.read_one(handle.clone()).unwrap()[bytes - 1], 7);
            });
        }
        for live in LIVE {
            let kept: Vec<_> = (0..live).map(|_| client.empty(256)).collect();
            sync();
            report_each(&format!("cubecl create {live}"), 20, 50, || {
                (0..50).for_each(|_| drop(client.empty(256)));
                sync();
            });
            drop(kept);
            client.memory_cleanup();
        }
        matmul(&client);
    });
}

/// 1024 by 1024, with unmodified cubek, which does not check lengths.
#[allow(unsafe_code)]
fn matmul(client: &ComputeClient<WgpuRuntime>) {
    const N: usize = 1024;
    let data: Vec<f32> = (0..N * N).map(|n| (n % 1000) as f32 / 1000.0).collect();
    let [left, right] = [0, 1].map(|_| client.create_from_slice(f32::as_bytes(&data)));
    let out = client.empty(4 * N * N);
    let ty = f32::as_type_native_unchecked();
    let matrix = |handle: &Handle| {
        let (strides, shape) = ([N, 1].into(), [N, N].into());
        // SAFETY: each handle has N * N elements.
        unsafe { TensorBinding::<WgpuRuntime>::from_raw_parts(handle.clone(), strides, shape) }
    };
    report("cubecl matmul", 7, || {
        launch_ref(
            &Strategy::Auto,
            client,
            InputBinding::new(matrix(&left), ty.storage_type()),
            InputBinding::new(matrix(&right), ty.storage_type()),
            matrix(&out),
            &mut MatmulElems::from_single_dtype(ty),
        )
        .unwrap();
        block_on(client.sync()).unwrap();
    });
}
