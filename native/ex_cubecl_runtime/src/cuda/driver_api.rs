//! NVIDIA's C interface, loaded by symbol name: which devices there are, and what they are.

use std::ffi::{CStr, c_char, c_int, c_uint};
use std::sync::OnceLock;

use libloading::Library;

const DRIVER: &[&str] = &["libcuda.so.1", "libcuda.so", "nvcuda.dll"];
const COMPILER: &[&str] = &[
    "libnvrtc.so",
    "libnvrtc.so.13",
    "libnvrtc.so.12",
    "libnvrtc.so.11.2",
    "nvrtc64_130_0.dll",
    "nvrtc64_120_0.dll",
    "nvrtc64_112_0.dll",
];

fn load(names: &[&str]) -> Option<Library> {
    names.iter().find_map(|name| {
        // SAFETY: NVIDIA's libraries have no load-time effects that a program must prepare for.
        let library = unsafe { Library::new(name) };
        library.ok()
    })
}

/// CubeCL compiles its kernels with NVRTC and panics without it. It stays loaded, as libcuda does.
pub fn has_compiler() -> bool {
    static FOUND: OnceLock<Option<Library>> = OnceLock::new();
    FOUND.get_or_init(|| load(COMPILER)).is_some()
}

/// The calls of the driver's C interface that enumerate and describe devices.
pub struct DriverApi {
    library: Library,
}

impl DriverApi {
    /// The driver, which is never unloaded: it has threads and exit handlers from `cuInit` on.
    pub fn get() -> Option<&'static Self> {
        static LOADED: OnceLock<Option<DriverApi>> = OnceLock::new();
        LOADED.get_or_init(DriverApi::open).as_ref()
    }

    fn open() -> Option<Self> {
        let api = DriverApi {
            library: load(DRIVER)?,
        };
        // SAFETY: `cuInit(unsigned)` as in cuda.h.
        let ready = unsafe { api.call1(b"cuInit", 0 as c_uint) };
        if ready != Some(0) {
            // A driver that failed to start may have started threads all the same.
            std::mem::forget(api);
            return None;
        }
        Some(api)
    }

    /// SAFETY: the symbol must be a function of one argument of type `A` that returns a `CUresult`.
    pub(super) unsafe fn call1<A>(&self, symbol: &[u8], a: A) -> Option<c_int> {
        // SAFETY: promised by the caller.
        unsafe {
            let function = self
                .library
                .get::<unsafe extern "C" fn(A) -> c_int>(symbol)
                .ok()?;
            Some(function(a))
        }
    }

    /// SAFETY: as `call1`, with two arguments.
    pub(super) unsafe fn call2<A, B>(&self, symbol: &[u8], a: A, b: B) -> Option<c_int> {
        // SAFETY: promised by the caller.
        unsafe {
            let function = self
                .library
                .get::<unsafe extern "C" fn(A, B) -> c_int>(symbol)
                .ok()?;
            Some(function(a, b))
        }
    }

    /// SAFETY: as `call1`, with three arguments.
    pub(super) unsafe fn call3<A, B, C>(&self, symbol: &[u8], a: A, b: B, c: C) -> Option<c_int> {
        // SAFETY: promised by the caller.
        unsafe {
            let function = self
                .library
                .get::<unsafe extern "C" fn(A, B, C) -> c_int>(symbol)
                .ok()?;
            Some(function(a, b, c))
        }
    }

    pub fn count(&self) -> u32 {
        let mut count: c_int = 0;
        // SAFETY: `cuDeviceGetCount(int*)` as in cuda.h.
        let result = unsafe { self.call1(b"cuDeviceGetCount", &raw mut count) };
        match result {
            Some(0) => count.max(0) as u32,
            _ => 0,
        }
    }

    pub fn version(&self) -> String {
        let mut version: c_int = 0;
        // SAFETY: `cuDriverGetVersion(int*)` as in cuda.h.
        unsafe { self.call1(b"cuDriverGetVersion", &raw mut version) };
        format!("CUDA {}.{}", version / 1000, version % 1000 / 10)
    }

    pub fn memory(&self, device: c_int) -> Option<u64> {
        let mut bytes = 0usize;
        // SAFETY: `cuDeviceTotalMem_v2(size_t*, CUdevice)` as in cuda.h.
        let result = unsafe { self.call2(b"cuDeviceTotalMem_v2", &raw mut bytes, device) };
        (result? == 0).then_some(bytes as u64)
    }

    /// The text that `symbol` writes about a device: its name or its PCI address.
    pub fn text(&self, symbol: &[u8], device: c_int) -> Option<String> {
        let mut text = [0 as c_char; 256];
        // SAFETY: `cuDeviceGetName` and `cuDeviceGetPCIBusId` take `(char*, int, CUdevice)` and
        // write a terminated string of at most that length.
        unsafe {
            type GetText = unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int;
            let function = self.library.get::<GetText>(symbol).ok()?;
            let result = function(text.as_mut_ptr(), text.len() as c_int - 1, device);
            let text = CStr::from_ptr(text.as_ptr()).to_string_lossy().into_owned();
            (result == 0).then_some(text)
        }
    }
}
