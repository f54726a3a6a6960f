//! The allocator of our programs, mimalloc, and the one thing that it has to be told.
//!
//! It gives memory that was freed back to the system a second later, but only when it is asked for more. So a process that
//! has nothing to do after a peak keeps what the peak took, until it is told.

use std::sync::Mutex;

pub use mimalloc::MiMalloc;

/// Gives back what is free: of this thread's memory, since nobody else may look there, and of what no thread has. It takes
/// as long as there is to give back. False: another thread is at it, and this one's part is left; nobody waits.
pub fn give_back() -> bool {
    static ONE: Mutex<()> = Mutex::new(());
    let Ok(_one) = ONE.try_lock() else { return false };
    collect();
    true
}

#[expect(unsafe_code, reason = "mimalloc's functions are C's")]
fn collect() {
    unsafe extern "C" {
        /// Of mimalloc.h, in each version of it: `void mi_collect(bool force)`.
        fn mi_collect(force: bool);
    }
    // SAFETY: it takes no pointers, may be called by any thread at any time, and frees nothing that is in use. That it is
    // linked with this signature is the business of `mimalloc`, which is used above.
    unsafe { mi_collect(true) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[global_allocator]
    static ALLOCATOR: MiMalloc = MiMalloc;

    fn resident() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    }

    #[test]
    fn what_was_freed_goes_back_at_once() {
        let peak: Vec<Vec<u8>> = (0..2000).map(|_| vec![1; 20_000]).collect();
        let most = resident();
        drop(peak);
        assert!(give_back());
        assert!(resident() + (30 << 20) < most, "{} of {most} bytes are still there", resident());
    }
}
