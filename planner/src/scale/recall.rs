//! A scaler that takes over knows what an earlier one would have recommended: proxies tell the load of their last minutes
//! again, so the stabilization window goes on where it was, instead of beginning anew.

use super::{
    Observed, Scaler, decide,
    signals::{self, Demand},
    windows::Windows,
};
use crate::{Millis, fleet::FleetSettings};

/// The furthest that is looked back, whatever proxies say: windows are kept for 300 s, of proxies that were silent for no
/// longer than that.
const FURTHEST_MS: u64 = 600_000;

impl Scaler {
    /// Makes the recommendations of the last minutes anew, once what proxies report again is known and before the first decision.
    pub fn recall(&mut self, settings: &FleetSettings, observed: Observed, now: Millis) {
        let told = self.windows.by_arrival();
        let Some((first, ..)) = told.first() else { return };
        // Who was to report has reported: nothing is to be waited for, and no recommendation to be made up meanwhile.
        self.began = Some(Millis(0));
        // Windows tell no more than 300 s. What came before is known by what it led to: the present number was recommended
        // when they begin, at the latest. Were it not for this, a window of 600 s would end 300 s too early.
        let first = Millis(first.0.max(now.0.saturating_sub(FURTHEST_MS)));
        self.history.recommend(decide::clamp(observed.current, settings), first);
        let mut past = Windows::default();
        let mut told = told.iter().peekable();
        for second in first.0 / 1000..now.0 / 1000 {
            let at = Millis(second * 1000 + 999);
            while let Some((arrived, proxy, load)) = told.next_if(|(arrived, ..)| *arrived <= at) {
                past.push(proxy, load, *arrived);
            }
            let load = signals::load(&past, at);
            if load.proxies == 0 {
                continue;
            }
            let asked = signals::read(settings, &load, load.proxies).into_iter().map(|reading| match reading.demand {
                Demand::Replicas(n) => decide::ceil(n),
                // Latency is not kept for long, and what was not measured asks for what there was.
                Demand::Ratio(_) | Demand::Idle | Demand::NoData => observed.current,
            });
            self.history.recommend(decide::clamp(asked.max().unwrap_or(observed.current), settings), at);
        }
    }
}
