//! The agent and its command line, as a library that the binary, the tests and the tools share.

pub mod actuators;
pub mod agent;
pub mod audit;
pub mod cli;
pub mod client;
pub mod config;
pub mod dataplane;
pub mod doctor;
pub mod engine;
pub mod governor;
pub mod human;
pub mod inventory;
pub mod mac;
pub mod model;
pub mod state_file;
pub mod who;

#[cfg(test)]
mod small_disk;
