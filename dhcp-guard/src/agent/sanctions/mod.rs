//! Between the pure parts that decide about quarantines and everything around them.

use std::collections::HashMap;

use crate::{
    engine::Subject,
    model::{AllowReport, QuarantineReport, State},
};

/// The part of the picture that queries about quarantines are answered from.
#[derive(Clone, Debug, Default)]
pub struct Sanctioned {
    /// Automatic quarantine is on hold: by whom and why.
    pub hold: Option<String>,
    /// The latest first; times left are those at the picture's moment.
    pub quarantines: Vec<QuarantineReport>,
    /// The allowlist, the configuration's entries first.
    pub allowed: Vec<AllowReport>,
    /// Those whose state is none of the four that the limits alone decide.
    pub states: HashMap<Subject, State>,
    /// What people should know: systemic trouble, held back, a disk that is full. One sentence each.
    pub warnings: Vec<String>,
}
