//! Housekeeping of one worker: its connections' request rates and times, retiring some when this proxy carries more
//! than its share, or all when it leaves, closing upstream connections that idled too long, and giving memory back
//! after a peak.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior};

use crate::{
    connection::Conn,
    memory::Ebb,
    shared::Rebalance,
    worker::{Phase, Worker},
};

/// Runs as long as the worker.
pub(super) async fn housekeeping(worker: Arc<Worker>) {
    let mut orders = worker.shared.rebalance.subscribe();
    let mut phase = worker.phase.subscribe();
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Connections to retire and when, the next one last.
    let mut leaving: Vec<(Instant, Weak<Conn>)> = vec![];
    let (mut ebb, mut ebbed) = (Ebb::default(), false);
    loop {
        let next = leaving.last().map(|(at, _)| *at);
        tokio::select! {
            _ = second.tick() => {
                let now = worker.clock.second().saturating_add(1);
                worker.clock.set(now);
                worker.conns().values().for_each(|c| c.tick());
                worker.pool.reap(now);
                // While another worker is at it, this one is a second later.
                ebbed |= ebb.tick(worker.account.held());
                ebbed = ebbed && !allocator::give_back();
            }
            changed = phase.changed() => {
                if changed.is_err() {
                    return;
                }
                let now = *phase.borrow_and_update();
                // Those that come later look for themselves.
                let conns: Vec<_> = worker.conns().values().cloned().collect();
                match now {
                    Phase::Serving => {}
                    Phase::Retiring => conns.iter().for_each(|c| c.retire()),
                    Phase::Closing => conns.iter().for_each(|c| c.close()),
                }
            }
            changed = orders.changed() => {
                if changed.is_err() {
                    return;
                }
                // A new order replaces what is left of the last: it was measured with what has moved since.
                leaving = match *orders.borrow_and_update() {
                    Some(order) => schedule(&worker, order),
                    None => vec![],
                };
            }
            () = at(next) => {
                if let Some(conn) = leaving.pop().and_then(|(_, conn)| conn.upgrade()) {
                    conn.retire();
                }
            }
        }
    }
}

async fn at(next: Option<Instant>) {
    match next {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn schedule(worker: &Worker, order: Rebalance) -> Vec<(Instant, Weak<Conn>)> {
    let mut conns: Vec<_> = worker.conns().values().filter(|c| !c.is_retiring()).cloned().collect();
    fastrand::shuffle(&mut conns);
    let rates: Vec<u32> = conns.iter().map(|c| c.recent()).collect();
    let chosen = choose(&rates, order.excess);
    let step = order.over / u32::try_from(chosen.len().max(1)).unwrap_or(u32::MAX);
    let now = Instant::now();
    let times = (0..chosen.len()).map(|i| now + step * u32::try_from(i).unwrap_or(u32::MAX));
    let mut leaving: Vec<_> = times.zip(chosen).map(|(at, i)| (at, Arc::downgrade(&conns[i]))).collect();
    leaving.reverse();
    leaving
}

/// Connections, by index, that together carry about `excess` of the rates' sum. Each brings the sum nearer to it: one
/// that carries far more than what is still wanted stays, since moving it would only move the imbalance. Without any
/// requests each connection counts the same.
fn choose(rates: &[u32], excess: f64) -> Vec<usize> {
    let total: f64 = rates.iter().copied().map(f64::from).sum();
    if total == 0.0 {
        let wanted = (rates.len() as f64 * excess).round();
        return (0..rates.len()).take(wanted as usize).collect();
    }
    let mut wanted = total * excess;
    let mut chosen = vec![];
    for (i, rate) in rates.iter().copied().map(f64::from).enumerate() {
        if rate > 0.0 && rate < wanted * 2.0 {
            chosen.push(i);
            wanted -= rate;
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chosen_carry_the_excess() {
        assert_eq!(choose(&[10; 8], 0.75), [0, 1, 2, 3, 4, 5]);
        assert_eq!(choose(&[100, 10, 10, 10], 0.2), [1, 2, 3]);
        assert_eq!(choose(&[100], 0.5), [] as [usize; 0]);
        assert_eq!(choose(&[0, 0], 0.5), [0]);
        assert_eq!(choose(&[], 0.5), [] as [usize; 0]);
    }
}
