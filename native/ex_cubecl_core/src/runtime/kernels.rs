use crate::dtype::DType;
use cubecl::prelude::*;
use cubecl::server::Handle;
pub struct Window {
    pub handle: Handle,
    pub words: u32,
    pub offset: u32,
}
type R0 = Result<(), String>;
pub fn fill<R: Runtime>(_c: &ComputeClient<R>, _w: Window, _len: u64, _p: u64, _s: u32) -> R0 {
    Err("stub".into())
}
pub fn iota<R: Runtime>(_c: &ComputeClient<R>, _w: Window, _n: u64, _d: DType) -> R0 {
    Err("stub".into())
}
pub fn copy<R: Runtime>(_c: &ComputeClient<R>, _a: Window, _b: Window, _len: u64) -> R0 {
    Err("stub".into())
}
pub fn copy_within<R: Runtime>(
    _c: &ComputeClient<R>,
    _a: Window,
    _f: u32,
    _t: u32,
    _len: u64,
) -> R0 {
    Err("stub".into())
}
pub fn convert<R: Runtime>(
    _c: &ComputeClient<R>,
    _a: Window,
    _f: DType,
    _b: Window,
    _t: DType,
    _n: u64,
) -> R0 {
    Err("stub".into())
}
pub fn supports_u64<R: Runtime>(_c: &ComputeClient<R>) -> bool {
    true
}
