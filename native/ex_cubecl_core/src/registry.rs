//! Which devices are open: each is opened once, at its first use, and again after it was lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::{Mutex, RwLock};

use crate::allocators::shared_pools;
use crate::device::Device;
use crate::device_id::{DeviceId, Runtime};
use crate::driver::{Driver, Hardware, Info, Opener};
use crate::error::{Error, Result};

static OPENER: RwLock<Option<&'static dyn Opener>> = RwLock::new(None);

/// Sets what finds and opens devices. Called once, before any other function of this module.
pub fn set_opener(opener: &'static dyn Opener) {
    *OPENER.write() = Some(opener);
}

fn opener() -> Result<&'static dyn Opener> {
    let found = *OPENER.read();
    found.ok_or_else(|| Error::NoDevice {
        reason: "this build has no runtime".into(),
    })
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
/// device, so the next logical device on the adapter reuses the driver.
static SPARE: Mutex<Vec<(DeviceId, Arc<dyn Driver>)>> = Mutex::new(Vec::new());

/// How often devices may be opened during the life of an OS process. CubeCL 0.10 never ends the thread
/// of a lost device, with its queue of a quarter of a MiB, and numbers devices with 16 bits.
const MOST_OPENED: u64 = 1000;

/// All devices of this machine, including added logical devices. It opens none of them.
pub fn list() -> Result<Vec<Info>> {
    let mut found = opener()?.enumerate();
    found.extend(LOGICAL.lock().iter().cloned());
    if found.is_empty() {
        Err(Error::NoDevice {
            reason: opener()?.missing(),
        })
    } else {
        Ok(found)
    }
}

/// Adds `id` as a logical device on the adapter of device `on`. It has its own queue and meter, and
/// shares the memory of the adapter.
pub fn open_logical(on: DeviceId, id: DeviceId) -> Result<Info> {
    let devices = list()?;
    let taken = devices.iter().any(|info| info.id == id);
    if taken || id.runtime != on.runtime {
        return Err(Error::BadDeviceId { device: id, on });
    }
    let known = devices.iter().map(|info| info.id).collect();
    let Some(adapter) = devices.into_iter().find(|info| info.id == on) else {
        return Err(Error::UnknownDevice { device: on, known });
    };
    let info = Info { id, ..adapter };
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
    if info.id == info.adapter {
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
        let _ = reset(&device);
        // A logical CUDA device uses the driver of its adapter.
        if id.runtime != Runtime::Cuda {
            let mut spare = SPARE.lock();
            spare.retain(|(_, driver)| !driver.is_lost());
            spare.extend(device.shared_driver().map(|driver| (info.adapter, driver)));
        }
    }
    LOGICAL.lock().retain(|info| info.id != id);
    drop(close(id));
    shared_pools::forget_lost();
    Ok(())
}

/// A driver left by a removed logical device on the same adapter.
fn spare(info: &Info) -> Option<Arc<dyn Driver>> {
    let mut spare = SPARE.lock();
    let alive = |(adapter, driver): &(DeviceId, Arc<dyn Driver>)| {
        *adapter == info.adapter && !driver.is_lost()
    };
    let found = spare
        .iter()
        .position(alive)
        .filter(|_| info.id != info.adapter)?;
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
    Ok(opener()?.open(info)?.into())
}

/// Removes a device from `OPEN` and returns it, so that it is dropped after the lock is released.
fn close(id: DeviceId) -> Option<Arc<Device>> {
    let mut open = OPEN.write();
    let at = open.iter().position(|device| device.id() == id)?;
    Some(open.swap_remove(at))
}

/// The first discrete GPU, else an integrated GPU, else a virtual GPU, else a CPU. On the same adapter
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
    devices.retain(|info| info.id == info.adapter);
    let best = devices.iter().min_by_key(|info| rank(info));
    let Some(best) = best else {
        return Err(Error::NoDevice {
            reason: opener()?.missing(),
        });
    };
    let twin = devices
        .iter()
        .find(|info| info.id.runtime == Runtime::Cuda && info.pci_address == best.pci_address);
    Ok(twin.unwrap_or(best).id)
}

/// The memory limits with which devices are opened.
static LIMITS: Mutex<Vec<(DeviceId, u64)>> = Mutex::new(Vec::new());

/// Sets the memory limit with which a device is opened. A device that is open keeps its limit.
pub fn set_initial_limit(id: DeviceId, bytes: u64) {
    let mut limits = LIMITS.lock();
    limits.retain(|(known, _)| *known != id);
    limits.push((id, bytes));
}

fn initial_limit(id: DeviceId) -> Option<u64> {
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
        Some(device) => device.limit(),
        None => initial_limit(id),
    };
    let alive = before.and_then(|device| device.shared_driver());
    let driver = match alive.filter(|driver| !driver.is_lost()) {
        Some(driver) => driver,
        // CubeCL has one server for each CUDA adapter, so logical devices share its driver.
        _ if info.id != info.adapter && info.id.runtime == Runtime::Cuda => {
            let adapter = open_alone(info.adapter)?;
            let driver = adapter.shared_driver();
            driver.ok_or(Error::DeviceLost {
                device: info.adapter,
            })?
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

/// Abandons everything on a device. Calls on its buffers then return `DeviceLost`; the next use of the id
/// starts with an empty meter, and memory is freed as the old handles are dropped.
pub fn reset(device: &Device) -> Result<()> {
    let trimmed = device.trim();
    device.retire();
    shared_pools::forget_lost();
    trimmed.map(|_| ())
}
