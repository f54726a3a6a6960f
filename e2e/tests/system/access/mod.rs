//! Who may call: access policies on the built programs.

mod recipes;
mod revocation;
