//! A device with its meter and its heaps, and the registry that opens each device once.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Arc, Weak};

use std::time::Instant;

use parking_lot::{Mutex, RwLock};

use crate::driver::{Driver, Timing};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::fault::{Stage, point};
use crate::heap::{Block, Heap, PageInfo, Use};
use crate::ledger::{Entry, Report, Spec};
use crate::meter::{Meter, Reservation, Usage};
use crate::runtime;
use crate::shared_pools;
use crate::worker::Worker;

/// Which kind of driver a device is reached through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Runtime {
    Vulkan,
    Metal,
    Dx12,
    Cuda,
}

impl Runtime {
    pub const ALL: [Runtime; 4] = [
        Runtime::Vulkan,
        Runtime::Metal,
        Runtime::Dx12,
        Runtime::Cuda,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Runtime::Vulkan => "vulkan",
            Runtime::Metal => "metal",
            Runtime::Dx12 => "dx12",
            Runtime::Cuda => "cuda",
        }
    }
}

/// The short name of a device: its runtime and its index in that runtime's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeviceId {
    pub runtime: Runtime,
    pub index: u32,
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.runtime.name(), self.index)
    }
}

/// The kind of hardware. Lavapipe reports itself as a CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hardware {
    DiscreteGpu,
    IntegratedGpu,
    VirtualGpu,
    Cpu,
    Other,
}

/// The properties of a device that are available without opening it.
#[derive(Debug, Clone)]
pub struct Info {
    pub id: DeviceId,
    /// The physical device that this one runs on. It is `id` itself, except for a logical device.
    pub card: DeviceId,
    pub name: String,
    pub hardware: Hardware,
    pub driver: String,
    /// The largest buffer in bytes.
    pub max_buffer: u64,
    /// The memory of the device in bytes, if the driver reports it.
    pub total_memory: Option<u64>,
    /// The types that kernels can calculate with natively.
    pub dtypes: Vec<DType>,
    /// Identifies the card, the same in each runtime that reaches it: its PCI address if it has one.
    pub adapter: String,
}

/// Holds unused memory that it can free on request, such as a pool.
pub(crate) trait Reclaim: Send + Sync {
    fn reclaim(&self);
}

/// An open device. It lives until it is lost and its last buffer is dropped.
pub struct Device {
    pub info: Info,
    /// Distinguishes this device from an earlier one of the same id that was lost.
    pub generation: u64,
    /// `None` only while the device is dropped.
    driver: Option<Arc<dyn Driver>>,
    /// Set by `reset`. The next generation of the device uses the same driver.
    retired: AtomicBool,
    meter: Arc<Meter>,
    heap: Arc<Heap>,
    /// For long-lived buffers, so that they do not keep the slabs of short-lived ones from being freed.
    persistent: Arc<Heap>,
    hoarders: Mutex<Vec<Weak<dyn Reclaim>>>,
    worker: Worker,
}

impl Device {
    fn new(info: Info, driver: Arc<dyn Driver>, limit: Option<u64>) -> Arc<Self> {
        static GENERATIONS: AtomicU64 = AtomicU64::new(1);
        Arc::new(Device {
            generation: GENERATIONS.fetch_add(1, Relaxed),
            heap: Heap::new(driver.limits()),
            persistent: Heap::new(driver.limits()),
            hoarders: Mutex::default(),
            meter: Meter::new(limit),
            worker: Worker::new(info.id.to_string()),
            retired: AtomicBool::new(false),
            driver: Some(driver),
            info,
        })
    }

    pub fn is_lost(&self) -> bool {
        let driver = self.driver.as_ref();
        self.retired.load(Acquire) || driver.is_none_or(|driver| driver.is_lost())
    }

    pub fn id(&self) -> DeviceId {
        self.info.id
    }

    /// The driver, unless the device was lost: the driver of a lost device is never called again.
    pub fn driver(&self) -> Result<&dyn Driver> {
        match &self.driver {
            Some(driver) if !self.is_lost() => Ok(&**driver),
            _ => Err(Error::DeviceLost { device: self.id() }),
        }
    }

    /// Turns a driver error into `DeviceLost` if the device was lost during the call.
    pub fn explain<T>(&self, result: Result<T>) -> Result<T> {
        match result {
            Err(Error::Driver { .. } | Error::OutOfMemory { .. }) if self.is_lost() => {
                Err(Error::DeviceLost { device: self.id() })
            }
            // The driver may have been opened for another logical device, which the error then names.
            Err(error) => Err(error.on(self.id())),
            done => done,
        }
    }

    pub fn worker(&self) -> &Worker {
        &self.worker
    }

    /// The ledger entry of a storage.
    pub(crate) fn entry(&self, id: u64, spec: &Spec, bytes: u64) -> Entry {
        Entry {
            id,
            device: self.id(),
            bytes,
            spec: spec.clone(),
            since: Instant::now(),
            place: None,
        }
    }

    /// Allocates and counts the memory of an entry. The limit is checked first, so that an allocation
    /// that exceeds it never reaches the device.
    pub(crate) fn alloc(&self, entry: Entry) -> Result<(Block, Reservation)> {
        let driver = self.driver()?;
        let bytes = entry.bytes;
        self.check_size(bytes)?;
        let heap = if entry.spec.persistent {
            &self.persistent
        } else {
            &self.heap
        };
        let reservation = self.reserve(entry)?;
        point(Stage::Reserved);
        let block = heap.alloc(driver, bytes).or_else(|error| {
            if !matches!(error, Error::OutOfMemory { .. }) {
                return Err(error);
            }
            self.let_go()?;
            heap.alloc(driver, bytes)
        });
        let block = self.explain(block)?;
        point(Stage::Allocated);
        reservation.settle(block.place());
        Ok((block, reservation))
    }

    /// As `alloc`, but returns `None` if it would wait for the device, or would fail.
    pub(crate) fn try_alloc(&self, entry: Entry) -> Option<(Block, Reservation)> {
        let bytes = entry.bytes;
        if entry.spec.persistent {
            return None;
        }
        let reservation = self.meter.reserve(entry).ok()?;
        let block = self.heap.try_alloc(bytes)?;
        reservation.settle(block.place());
        Some((block, reservation))
    }

    pub(crate) fn check_size(&self, bytes: u64) -> Result<()> {
        let limit = self.driver()?.limits().max_page;
        match bytes > limit {
            true => Err(Error::TooLarge {
                requested: bytes,
                limit,
                device: self.id(),
            }),
            false => Ok(()),
        }
    }

    pub(crate) fn reserve(&self, entry: Entry) -> Result<Reservation> {
        let bytes = entry.bytes;
        self.meter
            .reserve(entry)
            .map_err(|refused| Error::LimitExceeded {
                requested: bytes,
                live: refused.live,
                limit: refused.limit,
                device: self.id(),
            })
    }

    /// The usage of the device, and the bytes that its runtime holds for it.
    pub fn usage(&self) -> Result<(Usage, u64)> {
        let reserved = self.driver().and_then(|driver| driver.reserved());
        Ok((self.meter.usage(), self.explain(reserved)?))
    }

    /// The usage of the device, without calling its driver.
    pub fn account(&self) -> Usage {
        self.meter.usage()
    }

    /// The `most` largest allocations, and the sums of all.
    pub fn report(&self, most: usize) -> Report {
        self.meter.report(most)
    }

    /// The pages of the device and the `most` largest allocations on them.
    pub fn map(&self, most: usize) -> (Vec<PageInfo>, Vec<Entry>) {
        let entries = self.meter.report(most).largest;
        let mut pages = self.heap.pages();
        pages.extend(self.persistent.pages());
        let known: HashSet<u64> = pages.iter().map(|page| page.page).collect();
        let places = entries.iter().filter_map(|entry| entry.place);
        let own = places.filter(|place| !known.contains(&place.page));
        pages.extend(own.map(|place| PageInfo {
            page: place.page,
            bytes: place.page_bytes,
            used: place.page_bytes,
            kind: Use::Own,
        }));
        (pages, entries)
    }

    /// Counts an allocation that failed and is not retried.
    pub fn count_failure(&self) {
        self.meter.count_failure();
    }

    pub fn set_limit(&self, limit: Option<u64>) {
        self.meter.set_limit(limit);
    }

    pub fn reset_peak(&self) {
        self.meter.reset_peak();
    }

    /// Registers a holder of unused memory, which `trim` and `reclaim` ask to free it.
    pub(crate) fn add_hoarder(&self, hoarder: Weak<dyn Reclaim>) {
        let mut hoarders = self.hoarders.lock();
        hoarders.retain(|known| known.strong_count() > 0);
        hoarders.push(hoarder);
    }

    fn let_go(&self) -> Result<()> {
        let driver = self.driver()?;
        self.persistent.trim(driver)?;
        self.heap.trim(driver)
    }

    /// Gives unused memory back to the driver, and returns how many bytes it gave back.
    pub fn trim(&self) -> Result<u64> {
        let driver = self.driver()?;
        let before = driver.reserved()?;
        let hoarders = self.hoarders.lock().clone();
        for hoarder in hoarders.iter().filter_map(Weak::upgrade) {
            hoarder.reclaim();
        }
        self.let_go()?;
        Ok(before.saturating_sub(driver.reserved()?))
    }

    /// As `trim`, for an allocation that does not fit. The meter counts it.
    pub fn reclaim(&self) -> Result<u64> {
        self.meter.count_reclaim();
        self.trim()
    }

    /// Abandons everything on the device. Calls on its buffers then return `DeviceLost`; the next use of
    /// the id starts with an empty meter, and memory is freed as the old handles are dropped.
    pub fn reset(&self) -> Result<()> {
        let trimmed = self.trim();
        self.retired.store(true, Release);
        shared_pools::forget_lost();
        trimmed.map(|_| ())
    }

    pub fn start_timing(&self) -> Result<u64> {
        self.explain(self.driver().and_then(|driver| driver.start_timing()))
    }

    pub fn stop_timing(&self, number: u64) -> Result<Timing> {
        self.explain(self.driver().and_then(|driver| driver.stop_timing(number)))
    }

    pub fn synchronize(&self) -> Result<()> {
        self.explain(self.driver().and_then(|driver| driver.sync()))
    }
}

/// The last reference can be dropped by a destructor on a BEAM scheduler, and closing a driver waits
/// for its device: the device's worker thread closes it instead.
impl Drop for Device {
    fn drop(&mut self) {
        let driver = self.driver.take();
        let Some(limits) = driver.as_ref().map(|driver| driver.limits()) else {
            return;
        };
        let pages = std::mem::replace(&mut self.heap, Heap::new(limits));
        let persistent = std::mem::replace(&mut self.persistent, Heap::new(limits));
        let _ = self.worker.run(move || drop((pages, persistent, driver)));
    }
}

static OPEN: RwLock<Vec<Arc<Device>>> = RwLock::new(Vec::new());
/// Held while a device is opened, which is slow. Callers of devices that are open do not take it; a
/// second caller of the device that is being opened waits.
static OPENING: Mutex<()> = Mutex::new(());

/// Logical devices: further devices on the cards of this machine.
static LOGICAL: Mutex<Vec<Info>> = Mutex::new(Vec::new());
/// The largest number of logical devices: each has a thread and a queue.
const MOST_LOGICAL: usize = 64;

/// Drivers of logical devices that were removed, with their cards. CubeCL never ends the thread of a
/// device, so the next logical device on the card reuses the driver.
static SPARE: Mutex<Vec<(DeviceId, Arc<dyn Driver>)>> = Mutex::new(Vec::new());

/// How often devices may be opened during the life of an OS process. CubeCL 0.10 never ends the thread
/// of a lost device, with its queue of a quarter of a MiB, and numbers devices with 16 bits.
const MOST_OPENED: u64 = 1000;

/// All devices of this machine, including added logical devices. It opens none of them.
pub fn list() -> Result<Vec<Info>> {
    let mut found = runtime::enumerate();
    found.extend(LOGICAL.lock().iter().cloned());
    match found.is_empty() {
        true => Err(Error::NoDevice {
            reason: runtime::missing(),
        }),
        false => Ok(found),
    }
}

/// Adds `id` as a logical device on the card of device `on`. It has its own queue and meter, and
/// shares the memory of the card.
pub fn add(on: DeviceId, id: DeviceId) -> Result<Info> {
    let devices = list()?;
    let taken = devices.iter().any(|info| info.id == id);
    if taken || id.runtime != on.runtime {
        return Err(Error::BadDeviceId { device: id, on });
    }
    let known = devices.iter().map(|info| info.id).collect();
    let Some(card) = devices.into_iter().find(|info| info.id == on) else {
        return Err(Error::UnknownDevice { device: on, known });
    };
    let info = Info { id, ..card };
    let mut logical = LOGICAL.lock();
    // A concurrent call may have added the same id since the check above.
    if logical.iter().any(|info| info.id == id) {
        return Err(Error::BadDeviceId { device: id, on });
    }
    if logical.len() >= MOST_LOGICAL {
        let max = MOST_LOGICAL as u64;
        return Err(Error::TooManyDevices { max });
    }
    logical.push(info.clone());
    Ok(info)
}

/// Removes a logical device that has no live buffers. Calls on remaining handles without memory
/// return `DeviceLost`.
pub fn remove(id: DeviceId) -> Result<()> {
    // Keeps other threads from opening the device meanwhile.
    let _only_one = OPENING.lock();
    let devices = list()?;
    let Some(info) = devices.iter().find(|info| info.id == id) else {
        let known = devices.iter().map(|info| info.id).collect();
        return Err(Error::UnknownDevice { device: id, known });
    };
    if info.id == info.card {
        return Err(Error::NotLogical { device: id });
    }
    let device = OPEN.read().iter().find(|device| device.id() == id).cloned();
    if let Some(device) = device {
        let live_buffers = device.account().live_buffers;
        if live_buffers > 0 && !device.is_lost() {
            return Err(Error::DeviceInUse {
                device: id,
                live_buffers,
            });
        }
        // Memory that cannot be trimmed now is freed with the driver.
        let _ = device.reset();
        // A logical CUDA device uses the driver of its card.
        if id.runtime != Runtime::Cuda {
            let mut spare = SPARE.lock();
            spare.retain(|(_, driver)| !driver.is_lost());
            spare.extend(device.driver.clone().map(|driver| (info.card, driver)));
        }
    }
    LOGICAL.lock().retain(|info| info.id != id);
    drop(close(id));
    shared_pools::forget_lost();
    Ok(())
}

/// A driver left by a removed logical device on the same card.
fn spare(info: &Info) -> Option<Arc<dyn Driver>> {
    let mut spare = SPARE.lock();
    let alive =
        |(card, driver): &(DeviceId, Arc<dyn Driver>)| *card == info.card && !driver.is_lost();
    let found = spare
        .iter()
        .position(alive)
        .filter(|_| info.id != info.card)?;
    Some(spare.swap_remove(found).1)
}

fn new_driver(info: &Info) -> Result<Arc<dyn Driver>> {
    static OPENED: AtomicU64 = AtomicU64::new(0);
    if OPENED.load(Relaxed) >= MOST_OPENED {
        return Err(Error::driver(format!(
            "devices were opened {MOST_OPENED} times, which is the most for the life of a VM: start it again"
        )));
    }
    OPENED.fetch_add(1, Relaxed);
    Ok(runtime::open(info)?.into())
}

/// Removes a device from `OPEN` and returns it, so that it is dropped after the lock is released.
fn close(id: DeviceId) -> Option<Arc<Device>> {
    let mut open = OPEN.write();
    let at = open.iter().position(|device| device.id() == id)?;
    Some(open.swap_remove(at))
}

/// The first discrete GPU, else an integrated GPU, else a virtual GPU, else a CPU. On the same card
/// CUDA is preferred to Vulkan.
pub fn default_id() -> Result<DeviceId> {
    let rank = |info: &Info| match info.hardware {
        Hardware::DiscreteGpu => 0,
        Hardware::IntegratedGpu => 1,
        Hardware::VirtualGpu => 2,
        Hardware::Cpu => 3,
        Hardware::Other => 4,
    };
    let mut devices = list()?;
    devices.retain(|info| info.id == info.card);
    let best = devices.iter().min_by_key(|info| rank(info));
    let Some(best) = best else {
        return Err(Error::NoDevice {
            reason: runtime::missing(),
        });
    };
    let twin = devices
        .iter()
        .find(|info| info.id.runtime == Runtime::Cuda && info.adapter == best.adapter);
    Ok(twin.unwrap_or(best).id)
}

/// The memory limits with which devices are opened.
static LIMITS: Mutex<Vec<(DeviceId, u64)>> = Mutex::new(Vec::new());

/// Sets the memory limit with which a device is opened. A device that is open keeps its limit.
pub fn set_first_limit(id: DeviceId, bytes: u64) {
    let mut limits = LIMITS.lock();
    limits.retain(|(known, _)| *known != id);
    limits.push((id, bytes));
}

fn first_limit(id: DeviceId) -> Option<u64> {
    let limits = LIMITS.lock();
    let found = limits.iter().find(|(known, _)| *known == id);
    found.map(|(_, bytes)| *bytes)
}

/// The device with this id, opened at its first use and again after it was lost.
pub fn open(id: DeviceId) -> Result<Arc<Device>> {
    if let Some(device) = find_open(id) {
        return Ok(device);
    }
    let _only_one = OPENING.lock();
    open_alone(id)
}

fn open_alone(id: DeviceId) -> Result<Arc<Device>> {
    if let Some(device) = find_open(id) {
        return Ok(device);
    }
    let devices = list()?;
    let known = devices.iter().map(|info| info.id).collect();
    let Some(info) = devices.into_iter().find(|info| info.id == id) else {
        return Err(Error::UnknownDevice { device: id, known });
    };
    let before = OPEN.read().iter().find(|device| device.id() == id).cloned();
    let limit = match &before {
        Some(device) => device.meter.limit(),
        None => first_limit(id),
    };
    let alive = before.and_then(|device| device.driver.clone());
    let driver = match alive.filter(|driver| !driver.is_lost()) {
        Some(driver) => driver,
        // CubeCL has one server for each CUDA card, so logical devices share its driver.
        _ if info.id != info.card && info.id.runtime == Runtime::Cuda => {
            let card = open_alone(info.card)?;
            let driver = card.driver.clone();
            driver.ok_or(Error::DeviceLost { device: info.card })?
        }
        _ => match spare(&info) {
            Some(driver) => driver,
            None => new_driver(&info)?,
        },
    };
    let device = Device::new(info, driver, limit);
    if let Some(lost) = close(id) {
        drop(lost);
        shared_pools::forget_lost();
    }
    OPEN.write().push(device.clone());
    Ok(device)
}

/// The devices that are open.
pub fn opened() -> Vec<DeviceId> {
    let open = OPEN.read();
    let alive = open.iter().filter(|device| !device.is_lost());
    alive.map(|device| device.id()).collect()
}

/// The device with this id, if it is open.
pub fn find_open(id: DeviceId) -> Option<Arc<Device>> {
    let open = OPEN.read();
    let found = open.iter().find(|device| device.id() == id);
    found.filter(|device| !device.is_lost()).cloned()
}

/// Marks a device as lost, as if its driver had reported it. For tests.
pub fn lose(id: DeviceId) -> Result<()> {
    open(id)?.driver()?.lose();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::Buffer;
    use crate::joint::copy_across;

    /// A second device on the same adapter, not registered.
    fn another() -> Arc<Device> {
        let info = list().unwrap().into_iter().next().unwrap();
        let driver = runtime::open(&info).unwrap().into();
        Device::new(info, driver, None)
    }

    fn copied(source: Buffer, target: Buffer) -> Result<()> {
        let (sender, outcome) = std::sync::mpsc::channel();
        let done = move |outcome: Result<Box<Buffer>>| sender.send(outcome.map(|_| ())).unwrap();
        copy_across(Box::new(source), Box::new(target), None, done)?;
        outcome.recv().unwrap()
    }

    #[test]
    fn copies_go_from_device_to_device() {
        let (one, other) = (another(), another());
        let data: Vec<u8> = (0..3_000_001u32)
            .map(|at| (at * 31 + at / 7) as u8)
            .collect();
        let source = Buffer::from_bytes(one.clone(), DType::U8, &data).unwrap();
        let copy = Buffer::lazy(other.clone(), (DType::U8, 3_000_000)).unwrap();
        copied(source.view(1, 3_000_000).unwrap(), copy.share()).unwrap();
        assert_eq!(copy.read(0, copy.count()).unwrap()[..], data[1..]);
        assert_eq!(other.usage().unwrap().0.live_bytes, 3_000_000);
        let part = copy.view(5, 10).unwrap();
        copied(source.view(0, 10).unwrap(), part).unwrap();
        assert_eq!(copy.read(5, 10).unwrap()[..], data[..10]);
    }

    #[test]
    fn a_lost_device_does_not_disturb_another() {
        let (one, other) = (another(), another());
        let gone = Buffer::from_bytes(one.clone(), DType::U8, &[1; 100]).unwrap();
        let kept = Buffer::from_bytes(other.clone(), DType::U8, &[2; 100]).unwrap();
        one.driver().unwrap().lose();
        let copies = [(&gone, &kept), (&kept, &gone)];
        for (source, target) in copies {
            let outcome = copied(source.share(), target.share());
            assert!(matches!(outcome, Err(Error::DeviceLost { .. })));
        }
        assert_eq!(kept.read(0, 100).unwrap()[..], [2; 100]);
    }
}
