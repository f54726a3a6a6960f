//! Neighbours that cannot hurt each other: one client, one tenant or one proxy misbehaves, and the others notice nothing.
//!
//! Each module holds one kind of harm: its header names the kind, its tests are examples of it that failed before.

mod attacker;
mod expressions;
mod hostnames;
mod memory;
mod shares;
mod websockets;
mod word;
mod worst;
