//! A switch for the end-to-end tests: a proxy that refuses a resource which is fine. Only with the feature `fault`.

use snapshot::{Entry, Key, check::Unfit};

/// Which resources to refuse.
#[derive(Default)]
pub(crate) struct Fault {
    /// Keys, and the bytes that make their content refused.
    #[cfg(feature = "fault")]
    refuse: Option<(Vec<String>, String)>,
}

impl Fault {
    /// `SLUICE_FAULT_NACK=KEY[,KEY]` refuses these resources when their content holds `SLUICE_FAULT_NEEDLE`
    /// (`fault-injected` unless set).
    pub(crate) fn from_environment() -> Self {
        #[cfg(feature = "fault")]
        {
            let keys = std::env::var("SLUICE_FAULT_NACK").ok();
            let keys = keys.map(|keys| keys.split(',').map(str::to_owned).collect());
            let needle = std::env::var("SLUICE_FAULT_NEEDLE").unwrap_or_else(|_| "fault-injected".to_owned());
            Self { refuse: keys.map(|keys| (keys, needle)) }
        }
        #[cfg(not(feature = "fault"))]
        Self::default()
    }

    #[cfg(feature = "fault")]
    pub(crate) fn check(&self, key: &Key, entry: &Entry) -> Result<(), Unfit> {
        let refused = self.refuse.as_ref().is_some_and(|(keys, needle)| {
            keys.iter().any(|k| k == key.as_str()) && memchr::memmem::find(entry.bytes(), needle.as_bytes()).is_some()
        });
        if refused { Err(Unfit::new("", "FaultInjected", "refused by the fault switch of this build")) } else { Ok(()) }
    }

    #[cfg(not(feature = "fault"))]
    #[allow(clippy::unused_self, clippy::unnecessary_wraps)] // the other form can fail
    pub(crate) fn check(&self, _key: &Key, _entry: &Entry) -> Result<(), Unfit> {
        Ok(())
    }
}
