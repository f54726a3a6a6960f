use std::{
    future::pending,
    net::IpAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    task::{Context, Waker},
};

use futures::FutureExt;
use proptest::prelude::*;

use super::{account::Entered, *};

fn client(n: u8) -> IpAddr {
    [192, 0, 2, n].into()
}

/// A budget that is not measured.
fn memory(budget: usize) -> Arc<Memory> {
    let memory = Memory::new(Limit::of_process(1 << 40));
    memory.budget.store(budget, Relaxed);
    memory.divide();
    memory
}

fn charged(entered: &Entered, kind: Kind, bytes: usize) -> Charge {
    let mut charge = Charge::new(&entered.holder, kind);
    charge.set(bytes);
    charge
}

/// The keeper of an account, run for as long as it has something to do.
fn keep(account: &Arc<Account>) {
    let mut keeper = Box::pin(account.clone().keep());
    assert!(keeper.poll_unpin(&mut Context::from_waker(Waker::noop())).is_pending());
}

#[test]
fn what_is_used_besides_is_not_for_clients() {
    const MIB: u64 = 1 << 20;
    assert_eq!(budget(512 * MIB, 40 * MIB), 408 * MIB);
    assert_eq!(budget(512 * MIB, 600 * MIB), 64 * MIB);
    assert_eq!(budget(0, 1), 0);
}

#[test]
fn whoever_holds_most_in_all_is_ended_first() {
    let memory = memory(1000);
    let account = memory.account();
    // An honest client with the largest connection of all, and one with many.
    let honest = account.enter(client(1));
    let upload = charged(&honest, Kind::Bodies, 300);
    let many: Vec<_> = (0..8).map(|_| account.enter(client(2))).collect();
    let mut charges: Vec<_> = many.iter().map(|entered| charged(entered, Kind::Heads, 80)).collect();
    keep(&account);
    assert!(many.iter().all(|entered| !entered.holder.is_ended()), "940 of 1000 are held");
    charges.push(charged(&many[0], Kind::Bodies, 100));
    keep(&account);
    // 1040 are held, and 875 shall be: the largest of the client that holds 740.
    let ended: Vec<_> = many.iter().map(|entered| entered.holder.is_ended()).collect();
    assert_eq!(ended, [true, false, false, false, false, false, false, false]);
    assert!(!honest.holder.is_ended());
    assert_eq!(memory.report().ended, 1);
    // What leaves is not ended twice, nor another in its place.
    charges.push(charged(&many[1], Kind::Heads, 5));
    keep(&account);
    assert_eq!(memory.report().ended, 1);
    drop((charges, upload));
    assert_eq!(memory.report().held, [0; 4]);
}

#[test]
fn nobody_is_ended_where_less_than_a_share_is_held() {
    let memory = memory(1000);
    let [first, second] = [memory.account(), memory.account()];
    let (honest, hostile) = (first.enter(client(1)), second.enter(client(2)));
    let _honest = charged(&honest, Kind::Bodies, 400);
    let _hostile = charged(&hostile, Kind::Bodies, 700);
    assert!(!first.is_full() && second.is_full());
    keep(&first);
    keep(&second);
    assert!(!honest.holder.is_ended() && hostile.holder.is_ended());
}

#[test]
fn a_budget_that_shrinks_ends_those_that_hold_most() {
    let memory = memory(1000);
    let account = memory.account();
    let [small, large] = [1, 2].map(|n| account.enter(client(n)));
    let _charges = (charged(&small, Kind::Heads, 100), charged(&large, Kind::Heads, 700));
    keep(&account);
    memory.budget.store(500, Relaxed);
    memory.divide();
    account.look();
    keep(&account);
    assert!(!small.holder.is_ended() && large.holder.is_ended());
}

#[test]
fn who_holds_much_gets_no_new_streams_when_memory_is_nearly_used_up() {
    let memory = memory(1 << 20);
    let account = memory.account();
    let [little, much] = [1, 2].map(|n| account.enter(client(n)));
    let _little = charged(&little, Kind::Heads, 60 << 10);
    let mut charge = charged(&much, Kind::Heads, 800 << 10);
    assert!(!much.holder.is_refused());
    charge.set(900 << 10);
    assert!(much.holder.is_refused() && !little.holder.is_refused());
    assert_eq!(memory.report().refused, 1);
}

#[tokio::test]
async fn what_waits_is_accepted_once_there_is_room() {
    let memory = memory(1000);
    let account = memory.account();
    assert!(account.room().now_or_never().is_some());
    let entered = account.enter(client(1));
    let charge = charged(&entered, Kind::Heads, 1100);
    let waits = async {
        account.room().await;
        assert!(!account.is_full());
    };
    let ends = async {
        tokio::select! {
            () = account.clone().keep() => pending().await,
            () = poll_ended(&entered.holder) => drop(charge),
        }
    };
    tokio::time::timeout(Duration::from_secs(5), async { tokio::join!(waits, ends) }).await.unwrap();
}

async fn poll_ended(holder: &Holder) {
    std::future::poll_fn(|cx| {
        holder.note_task(cx);
        std::task::Poll::Ready(())
    })
    .await;
    holder.ended().await;
}

#[derive(Clone, Debug)]
enum Step {
    Set(usize, usize),
    Drop(usize),
    Panic(usize),
}

proptest! {
    /// Whatever is charged, changed and given back, in whatever order, and whoever panics with it: the sums are those
    /// of what lives, and nothing is left in the end.
    #[test]
    fn charges_are_given_back(steps in proptest::collection::vec(
        prop_oneof![
            (0..12usize, 0..1000usize).prop_map(|(i, bytes)| Step::Set(i, bytes)),
            (0..12usize).prop_map(Step::Drop),
            (0..12usize).prop_map(Step::Panic),
        ],
        0..60,
    )) {
        let memory = memory(2000);
        let account = memory.account();
        let holders: Vec<_> = (0..3).map(|n| account.enter(client(n))).collect();
        let mut charges: Vec<Option<Charge>> = (0..12).map(|_| None).collect();
        for step in steps {
            match step {
                Step::Set(i, bytes) => charges[i]
                    .get_or_insert_with(|| Charge::new(&holders[i % 3].holder, Kind::ALL[i % 4]))
                    .set(bytes),
                Step::Drop(i) => charges[i] = None,
                Step::Panic(i) => {
                    let charge = charges[i].take();
                    let panicked = catch_unwind(AssertUnwindSafe(move || {
                        let _charge = charge;
                        std::panic::resume_unwind(Box::new(()));
                    }));
                    prop_assert!(panicked.is_err());
                }
            }
            let bytes = |of: &dyn Fn(usize) -> bool| -> usize {
                (0..12).filter(|i| of(*i)).filter_map(|i| charges[i].as_ref()).map(|charge| charge.bytes()).sum()
            };
            prop_assert_eq!(account.held(), bytes(&|_| true));
            for (k, kind) in Kind::ALL.into_iter().enumerate() {
                prop_assert_eq!(account.held_of(kind), bytes(&|i| i % 4 == k));
            }
            for (h, entered) in holders.iter().enumerate() {
                prop_assert_eq!(entered.holder.held(), bytes(&|i| i % 3 == h));
            }
        }
        charges.clear();
        prop_assert_eq!(memory.report().held, [0; 4]);
        drop(holders);
        prop_assert_eq!(account.holder_count(), 0);
    }
}
