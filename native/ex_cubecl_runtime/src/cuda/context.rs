//! Copies from memory of other libraries by NVIDIA's C interface, beside CubeCL.

use std::ffi::{c_int, c_uint, c_void};
use std::marker::PhantomData;
use std::ptr::null_mut;

use ex_cubecl_core::error::{Error, Result};

use crate::cuda::driver_api::DriverApi;

// `CUpointer_attribute` of cuda.h.
const RANGE_START: c_uint = 11;
const RANGE_SIZE: c_uint = 12;

/// The primary context of a device, which CubeCL and the CUDA runtime of other libraries use too,
/// current on this thread until it is dropped.
pub struct Context<'a> {
    api: &'a DriverApi,
    device: c_int,
    /// Not `Send`: CUDA keeps the current context for each thread.
    thread: PhantomData<*const ()>,
}

impl<'a> Context<'a> {
    pub fn enter(api: &'a DriverApi, device: c_int) -> Result<Self> {
        let mut context: *mut c_void = null_mut();
        // SAFETY: `cuDevicePrimaryCtxRetain(CUcontext*, CUdevice)` as in cuda.h.
        let retained = unsafe { api.call2(b"cuDevicePrimaryCtxRetain", &raw mut context, device) };
        done("cuDevicePrimaryCtxRetain", retained)?;
        // SAFETY: `cuCtxPushCurrent_v2(CUcontext)` as in cuda.h; the context is retained until the drop.
        let pushed = unsafe { api.call1(b"cuCtxPushCurrent_v2", context) };
        if let Err(error) = done("cuCtxPushCurrent", pushed) {
            release(api, device);
            return Err(error);
        }
        Ok(Context {
            api,
            device,
            thread: PhantomData,
        })
    }

    /// Whether CUDA knows these bytes as one allocation, on any device or in host memory that is
    /// registered with it.
    pub fn covers(&self, address: u64, bytes: u64) -> bool {
        let (mut start, mut size) = (0u64, 0usize);
        // SAFETY: `cuPointerGetAttribute(void*, CUpointer_attribute, CUdeviceptr)` as in cuda.h, which
        // takes any address, and writes a `CUdeviceptr` for this attribute.
        let found = unsafe { self.attribute(&raw mut start, RANGE_START, address) };
        // SAFETY: as above; it writes a `size_t`.
        let sized = unsafe { self.attribute(&raw mut size, RANGE_SIZE, address) };
        let end = start.checked_add(size as u64);
        let inside = |end: u64| address >= start && bytes <= end.saturating_sub(address);
        found && sized && end.is_some_and(inside)
    }

    /// SAFETY: `T` must be the type that cuda.h gives for this attribute.
    unsafe fn attribute<T>(&self, value: *mut T, attribute: c_uint, address: u64) -> bool {
        let value = value.cast::<c_void>();
        // SAFETY: the types are those of cuda.h, the caller promises that of the value.
        let result = unsafe {
            self.api
                .call3(b"cuPointerGetAttribute", value, attribute, address)
        };
        result == Some(0)
    }

    /// Copies between two ranges of memory, and waits for the end of all work in the context.
    pub fn copy(&self, source: u64, target: u64, bytes: u64) -> Result<()> {
        // SAFETY: `cuMemcpy(CUdeviceptr, CUdeviceptr, size_t)` as in cuda.h. The caller has checked
        // the source by `covers`, and holds the target. If the owner of the source frees it during the
        // copy, CUDA reports an error of the device.
        let copied = unsafe { self.api.call3(b"cuMemcpy", target, source, bytes as usize) };
        done("cuMemcpy", copied)?;
        // SAFETY: `cuStreamSynchronize(CUstream)` as in cuda.h; null is the stream of `cuMemcpy`.
        let ended = unsafe { self.api.call1(b"cuStreamSynchronize", null_mut::<c_void>()) };
        done("cuStreamSynchronize", ended)
    }
}

impl Drop for Context<'_> {
    fn drop(&mut self) {
        let mut popped: *mut c_void = null_mut();
        // SAFETY: `cuCtxPopCurrent_v2(CUcontext*)` as in cuda.h; `enter` pushed the context on
        // this thread, because the type is not `Send`.
        unsafe { self.api.call1(b"cuCtxPopCurrent_v2", &raw mut popped) };
        release(self.api, self.device);
    }
}

fn release(api: &DriverApi, device: c_int) {
    // SAFETY: `cuDevicePrimaryCtxRelease_v2(CUdevice)` as in cuda.h, once for a retain.
    unsafe { api.call1(b"cuDevicePrimaryCtxRelease_v2", device) };
}

fn done(function: &str, result: Option<c_int>) -> Result<()> {
    match result {
        Some(0) => Ok(()),
        Some(code) => Err(Error::driver(format!("{function}: CUDA error {code}"))),
        None => Err(Error::driver(format!(
            "the CUDA driver has no function {function}"
        ))),
    }
}
