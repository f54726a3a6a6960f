//! Listeners, worker threads, client connections, drain.
