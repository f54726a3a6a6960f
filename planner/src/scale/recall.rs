//! A scaler that takes over knows what an earlier one would have recommended: proxies tell the load of their last minutes
//! again, so the stabilization window goes on where it was, instead of beginning anew.

use super::{
    Observed, Scaler, decide,
    signals::{self, Demand},
    windows::Windows,
};
use crate::{Millis, fleet::FleetSettings};

impl Scaler {
    /// To be called once what proxies tell again is known, before the first decision.
    pub fn recall(&mut self, settings: &FleetSettings, observed: Observed, now: Millis) {
        let told = self.windows.told();
        let Some((first, ..)) = told.first() else { return };
        // Who was to report has reported: nothing is to be waited for, and no recommendation to be made up meanwhile.
        self.began = Some(Millis(0));
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
