//! CubeCL as its documentation shows it, with its default pools, on one stream.

use cubecl::future::block_on;
use cubecl::prelude::*;
use cubecl::stream_id::StreamId;
use cubecl::wgpu::{WgpuDevice, WgpuRuntime};

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
    });
}
