//! When what clients held is given back to the system: not while it comes and goes, which would cost each wave anew
//! what it takes to fetch memory, but once it has been gone for a moment.

/// Seconds after a peak until its memory is given back.
const CALM_SECONDS: u32 = 5;
/// Fewest bytes that are worth being given back.
const MIN_GIVEN_BACK_BYTES: usize = 4 << 20;

/// The course of what the clients of one worker held.
#[derive(Debug, Default)]
pub(crate) struct Ebb {
    /// The most since something was last given back,
    peak: usize,
    /// Peak within the span under way.
    most: usize,
    /// which has so many seconds.
    seconds: u32,
}

impl Ebb {
    /// Called once a second: so much is held now. Whether it is time.
    pub(crate) fn tick(&mut self, held: usize) -> bool {
        (self.most, self.seconds) = (self.most.max(held), self.seconds + 1);
        if self.seconds < CALM_SECONDS {
            return false;
        }
        let most = std::mem::take(&mut self.most);
        self.seconds = 0;
        let is_time = self.peak.saturating_sub(most) >= MIN_GIVEN_BACK_BYTES;
        self.peak = if is_time { most } else { self.peak.max(most) };
        is_time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    /// Seconds at which it is time, when so much is held at each.
    fn times(held: impl Fn(u32) -> usize) -> Vec<u32> {
        let mut ebb = Ebb::default();
        (1..=60).filter(|second| ebb.tick(held(*second))).collect()
    }

    #[test]
    fn a_peak_is_given_back_once_it_is_over() {
        assert_eq!(times(|second| if second <= 10 { 100 * MIB } else { MIB }), [15]);
        assert_eq!(times(|second| if second <= 11 { 100 * MIB } else { MIB }), [20]);
        // One in the middle of a span.
        assert_eq!(times(|second| if second == 3 { 100 * MIB } else { MIB }), [10]);
        // Step by step.
        assert_eq!(times(|second| (60 - second as usize) / 20 * 20 * MIB), [25, 45]);
    }

    #[test]
    fn what_comes_and_goes_is_kept() {
        assert!(times(|second| if second % 5 == 0 { 100 * MIB } else { MIB }).is_empty());
        assert!(times(|second| second as usize * MIB).is_empty());
        assert!(times(|second| if second <= 10 { 3 * MIB } else { 0 }).is_empty());
    }
}
