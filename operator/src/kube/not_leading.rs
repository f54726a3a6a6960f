//! The error of a write that was not sent, since this operator does not lead: [`crate::leader::fencing`] makes it.

/// Not written: this operator does not lead.
#[derive(Debug, thiserror::Error)]
#[error("not written: this operator does not hold the lease")]
pub struct NotLeading;

/// Whether an error says that this operator does not lead.
pub fn is_not_leading(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Service(error) if error.is::<NotLeading>())
}
