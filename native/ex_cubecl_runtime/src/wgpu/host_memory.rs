//! The memory of the machine, which a CPU device shares with all processes.

/// The value of a line of `/proc/meminfo` on Linux, in bytes.
pub fn host_memory(line: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|other| other.strip_prefix(line))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
