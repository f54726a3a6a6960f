//! Pure rate-limit algorithms: no clock, no I/O; `now` is passed in.
