//! A switch for the end-to-end tests: a proxy that refuses a resource which is fine, or ends by it. Only with the
//! feature
//! `fault`.

use snapshot::{Entry, Key, check::Unfit};

/// Resources to refuse, for tests.
#[derive(Default)]
pub(crate) struct Fault {
    /// Keys, and the bytes that make their content refused.
    #[cfg(feature = "fault")]
    refuse: Option<(Vec<String>, String)>,
    /// Content that ends this process, for tests.
    #[cfg(feature = "fault")]
    end: Option<(Vec<String>, String)>,
}

impl Fault {
    /// `SLUICE_FAULT_NACK=KEY[,KEY]` refuses these resources when their content holds `SLUICE_FAULT_NEEDLE`
    /// (`fault-injected` unless set); `SLUICE_FAULT_END` ends the process by them. With `SLUICE_FAULT_PROXY=NAME` only
    /// the proxy that was started under this name does so.
    pub(crate) fn from_environment() -> Self {
        #[cfg(feature = "fault")]
        {
            let is_other = |name: String| !std::env::args().any(|argument| argument == name);
            if std::env::var("SLUICE_FAULT_PROXY").is_ok_and(is_other) {
                return Self::default();
            }
            let needle = std::env::var("SLUICE_FAULT_NEEDLE").unwrap_or_else(|_| "fault-injected".to_owned());
            let keys = |variable: &str| {
                let keys = std::env::var(variable).ok()?;
                Some((keys.split(',').map(str::to_owned).collect(), needle.clone()))
            };
            Self { refuse: keys("SLUICE_FAULT_NACK"), end: keys("SLUICE_FAULT_END") }
        }
        #[cfg(not(feature = "fault"))]
        Self::default()
    }

    #[cfg(feature = "fault")]
    pub(crate) fn check(&self, key: &Key, entry: &Entry) -> Result<(), Unfit> {
        let is_meant = |(keys, needle): &(Vec<String>, String)| {
            keys.iter().any(|k| k == key.as_str()) && memchr::memmem::find(entry.bytes(), needle.as_bytes()).is_some()
        };
        if self.end.as_ref().is_some_and(is_meant) {
            std::process::abort();
        }
        if self.refuse.as_ref().is_some_and(is_meant) {
            Err(Unfit::new("", "FaultInjected", "refused by the fault switch of this build"))
        } else {
            Ok(())
        }
    }

    #[cfg(not(feature = "fault"))]
    #[allow(clippy::unused_self, clippy::unnecessary_wraps)] // the other form can fail
    pub(crate) fn check(&self, _key: &Key, _entry: &Entry) -> Result<(), Unfit> {
        Ok(())
    }
}
