//! The address space of the process (`ulimit -v`).

use std::sync::atomic::{AtomicU64, Ordering::AcqRel};

/// Address space left to the VM, to threads (each may reserve 64 MiB for its allocations), and to
/// what a driver allocates beside buffers.
const HEADROOM: u64 = 256 << 20;

/// Address space left by a small request. Large requests are refused earlier, so that reads and
/// writes of existing buffers still find room after the rest of the process has grown.
const SMALL_HEADROOM: u64 = 32 << 20;
const SMALL_BYTES: u64 = 1 << 20;

/// Bytes that calls under way are about to map.
static PENDING: AtomicU64 = AtomicU64::new(0);

/// Address space that is reserved until the memory has been allocated.
///
/// Lavapipe of Mesa 25 maps a buffer's memory without checking whether that worked: the first
/// command on a buffer that found no address space ends the process. Mesa 22 returned an error.
pub struct Reservation(u64);

impl Reservation {
    /// If there is a limit that leaves no room for `bytes`, the error is the number of available
    /// bytes.
    pub fn new(bytes: u64) -> Result<Reservation, u64> {
        let Some(limit) = limit() else {
            return Ok(Reservation(0));
        };
        let reservation = Reservation(bytes);
        let others = PENDING.fetch_add(bytes, AcqRel);
        let taken = size().unwrap_or(0) + others + headroom(bytes);
        let available = limit.saturating_sub(taken);
        // A refused reservation is dropped here, which subtracts it again.
        if bytes > available {
            Err(available)
        } else {
            Ok(reservation)
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        PENDING.fetch_sub(self.0, AcqRel);
    }
}

fn headroom(bytes: u64) -> u64 {
    if bytes <= SMALL_BYTES {
        SMALL_HEADROOM
    } else {
        HEADROOM
    }
}

/// The limit of the address space. Only Linux reports it in a file; `None` if there is no limit, or
/// none is known.
fn limit() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/limits").ok()?;
    parse_limit(&text)
}

fn parse_limit(text: &str) -> Option<u64> {
    let mut lines = text.lines();
    let fields = lines.find_map(|line| line.strip_prefix("Max address space"))?;
    fields.split_whitespace().next()?.parse().ok()
}

fn size() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmSize:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units
Max cpu time              unlimited            unlimited            seconds
Max address space         6144000000           unlimited            bytes
";

    #[test]
    fn the_soft_limit_is_read() {
        assert_eq!(parse_limit(LIMITS), Some(6_144_000_000));
        assert_eq!(
            parse_limit(&LIMITS.replace("6144000000", "unlimited")),
            None
        );
        assert_eq!(parse_limit(""), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_process_has_a_size() {
        assert!(size().unwrap() > 1 << 20);
    }
}
