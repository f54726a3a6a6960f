//! How far the watches have come: for readiness, and for people.

use std::{collections::BTreeMap, fmt};

use tokio::sync::watch;

/// How far the watches have come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Every required watch has listed, and the first world was sent. Stays: when the API server is away later, what it
    /// said last goes on.
    pub synced: bool,
    /// Each watch, by resource (`apiroutes.sluice.dev`), and `reads`, of single objects. Empty: not begun.
    pub watches: BTreeMap<&'static str, WatchState>,
}

/// The progress of one watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchState {
    /// The operator can do without it.
    pub optional: bool,
    /// Whether the watch has listed once, or is optional and there is nothing to list.
    pub listed: bool,
    /// Why it does not work at present.
    pub failing: Option<String>,
}

/// A channel for the progress: one end for [`super::run`], one for readiness.
pub fn progress() -> (watch::Sender<Progress>, watch::Receiver<Progress>) {
    watch::channel(Progress::default())
}

/// In one line, for `/readyz`: `synced`, or what is waited for and why.
impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failing = |state: &WatchState| state.failing.as_ref().filter(|_| !state.optional).cloned();
        let mut notes: Vec<String> = vec![];
        for (resource, state) in
            self.watches.iter().filter(|(_, state)| self.synced || !state.listed || state.failing.is_some())
        {
            match failing(state) {
                Some(why) if notes.contains(&why) => {} // nobody answers: the same for each
                Some(why) => notes.push(why),
                None if !state.listed => notes.push(format!("{resource}: being listed")),
                None => {}
            }
        }
        match (self.synced, notes.is_empty()) {
            (true, true) => f.write_str("synced"),
            (true, false) => write!(f, "synced, but now failing: {}", notes.join("; ")),
            (false, _) if self.watches.is_empty() => f.write_str("not synced: the watches have not begun"),
            (false, true) => f.write_str("not synced: the first world is being put together"),
            (false, false) => write!(f, "not synced: {}", notes.join("; ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(synced: bool, watches: &[(&'static str, WatchState)], expect: &str) {
        let progress = Progress { synced, watches: watches.iter().cloned().collect() };
        assert_eq!(progress.to_string(), expect);
    }

    #[test]
    fn one_line() {
        let state = |optional, listed, failing: Option<&str>| WatchState {
            optional,
            listed,
            failing: failing.map(str::to_owned),
        };
        check(false, &[], "not synced: the watches have not begun");
        check(
            false,
            &[
                ("apiroutes.sluice.dev", state(false, false, Some("apiroutes.sluice.dev: not installed"))),
                ("secrets", state(false, false, None)),
                ("services", state(false, true, None)),
            ],
            "not synced: apiroutes.sluice.dev: not installed; secrets: being listed",
        );
        check(false, &[("services", state(false, true, None))], "not synced: the first world is being put together");
        let gone = || state(false, false, Some("nobody answers"));
        check(false, &[("secrets", gone()), ("services", gone())], "not synced: nobody answers");
        check(true, &[("services", state(false, true, None))], "synced");
        check(true, &[("x", state(true, true, Some("x: forbidden")))], "synced");
        check(true, &[("x", state(false, true, Some("x: forbidden")))], "synced, but now failing: x: forbidden");
    }
}
