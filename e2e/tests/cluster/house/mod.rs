//! Each seam of the house is held by the first thing that was built on it.

mod consumer;
