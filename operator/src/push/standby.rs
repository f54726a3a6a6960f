//! The answer of a standby to a proxy: the leader's address. While nobody does, proxies keep what they have; one that
//! has nothing gets what this operator would publish, once, under epoch 0, so that whatever a leader publishes counts
//! more.

use std::sync::Arc;

use planner::FleetRef;
use snapshot::proto::{Hello, NotLeader, OperatorMessage, operator_message::Message};
use tonic::Status;

use super::{Published, Registry};
use crate::leader::election::{LeaderState, LeaderWatch};

/// The epoch of a snapshot that no leader published.
pub(super) const NO_LEADER_EPOCH: u64 = 0;

/// The answer to a proxy that dialled.
#[derive(Debug)]
pub(super) enum Answer {
    /// The stream of a leader.
    Serve { epoch: u64 },
    /// An interim snapshot: nobody leads, and the proxy has nothing.
    Interim(Arc<Published>),
    /// A redirection to another operator, or to this one later.
    NotLeader(OperatorMessage),
}

/// The answer to a proxy that dialled.
pub(super) fn answer(
    lead: &LeaderState,
    hello: &Hello,
    fleet: &FleetRef,
    registry: &Registry,
) -> Result<Answer, Status> {
    let holder = match lead {
        LeaderState::Leader { epoch } => return Ok(Answer::Serve { epoch: *epoch }),
        LeaderState::Standby { holder } => holder,
    };
    // An epoch without content is a leader's too, who had nothing to publish.
    let has_nothing = hello.held.is_empty() && hello.epoch == NO_LEADER_EPOCH && !hello.ready;
    let plan = registry.plan().filter(|_| holder.is_none() && has_nothing);
    let Some(plan) = plan else { return Ok(Answer::NotLeader(not_leader(lead))) };
    match plan.fleets.get(fleet) {
        Some(planned) => Ok(Answer::Interim(Arc::new(Published::from(planned.snapshot.clone())))),
        None => Err(unknown(fleet)),
    }
}

/// Comes back when there is a leader, with what a proxy is then told.
pub(super) async fn leader(mut lead: LeaderWatch) -> OperatorMessage {
    let decided = lead.wait_for(|lead| !matches!(lead, LeaderState::Standby { holder: None })).await;
    // An error: the operator ends, and the stream with it.
    decided.map_or_else(|_| not_leader(&LeaderState::Standby { holder: None }), |lead| not_leader(&lead))
}

pub(super) fn unknown(fleet: &FleetRef) -> Status {
    Status::not_found(format!("there is no GatewayFleet {fleet}, or its content was never accepted"))
}

/// Without a holder, the proxy dials the Service again: also when it is this operator that leads now.
fn not_leader(lead: &LeaderState) -> OperatorMessage {
    let holder = match lead {
        LeaderState::Standby { holder: Some(holder) } => holder.clone(),
        _ => String::new(),
    };
    OperatorMessage { message: Some(Message::NotLeader(NotLeader { holder })) }
}
