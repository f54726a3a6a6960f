//! Tasks that each do one thing about one object, a bounded number at a time: the half that all queues of work share.
//! Which object is next, and when, is for their owners to say, since that is what they differ in.

use std::collections::HashMap;

use tokio::task::{Id, JoinSet};

/// The tasks under way, each with the job that it does. They end with it.
#[derive(Debug)]
pub(crate) struct KeyedTasks<J, O> {
    most: usize,
    tasks: JoinSet<O>,
    jobs: HashMap<Id, J>,
}

impl<J, O: Send + 'static> KeyedTasks<J, O> {
    /// None under way, of at most so many.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, tasks: JoinSet::new(), jobs: HashMap::new() }
    }

    /// Whether one more may begin.
    pub(crate) fn has_room(&self) -> bool {
        self.tasks.len() < self.most
    }

    /// Whether none is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Begins a task. Its owner looks for room before, and begins no second one for the same object.
    pub(crate) fn begin(&mut self, job: J, run: impl Future<Output = O> + Send + 'static) {
        self.jobs.insert(self.tasks.spawn(run).id(), job);
    }

    /// The next task that ends: its job, and what came of it; `None`: it panicked, and the object is free all the same.
    /// Waits for ever while none is under way. Nothing is lost when it is not waited for to the end.
    pub(crate) async fn ended(&mut self) -> (J, Option<O>) {
        loop {
            let (id, outcome) = match self.tasks.join_next_with_id().await {
                Some(Ok((id, outcome))) => (id, Some(outcome)),
                Some(Err(error)) => (error.id(), None),
                None => std::future::pending().await,
            };
            if let Some(job) = self.jobs.remove(&id) {
                return (job, outcome);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_job_comes_back_also_of_a_task_that_panics() {
        let mut tasks = KeyedTasks::new(2);
        tasks.begin("good", std::future::ready(7));
        assert!(tasks.has_room());
        tasks.begin("bad", async { panic!("a bug of ours") });
        assert!(!tasks.has_room());
        let mut ended = [tasks.ended().await, tasks.ended().await];
        ended.sort_unstable();
        assert_eq!(ended, [("bad", None), ("good", Some(7))]);
        assert!(tasks.is_empty() && tasks.has_room() && tasks.jobs.is_empty());
    }
}
