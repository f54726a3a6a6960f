//! The resources that the process uses.

use std::{fs, time::SystemTime};

use rustix::{
    param::page_size,
    time::{ClockId, clock_gettime},
};

/// CPU time of all threads, in µs.
pub(super) fn cpu_us() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1_000
}

/// Resident memory; 0 where `/proc` is not.
pub(super) fn memory_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_ascii_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok());
    pages.unwrap_or(0) * page_size() as u64
}

/// Open file descriptors; 0 where `/proc` is not.
pub(super) fn open_files() -> usize {
    // The folder itself is open while it is read.
    fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1))
}

/// Seconds since 1970.
pub(super) fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_uses_something() {
        let before = cpu_us();
        let mut n = 1u64;
        while cpu_us() < before + 5_000 {
            n = std::hint::black_box(n.wrapping_mul(7));
        }
        assert!(memory_bytes() > 1 << 20);
        let files = open_files();
        let one_more = fs::File::open("/proc/self/statm").unwrap();
        assert!(open_files() > 0 && files > 0);
        drop(one_more);
    }
}
