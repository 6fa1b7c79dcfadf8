//! What a kernel must have for the guard, and since when kernels have it. Asked before anything is loaded, since the verifier
//! only says "invalid argument" to what it does not know.

use aya::{maps::MapType, sys::is_map_supported};

use super::{
    Error,
    probe::{COMPARE_AND_SWAP, EXIT, PASS, loads},
    tcx,
};

const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;
/// The kernel index that the loopback interface has in every network namespace.
const LOOPBACK: u32 = 1;

/// Something that a kernel has or has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// What it is.
    pub name: &'static str,
    /// The first version that has it.
    pub since: (u32, u32),
    /// Nothing works without it.
    pub needed: bool,
    /// It is there; none: that could not be found out.
    pub present: Option<bool>,
}

/// `uname -r`.
#[must_use]
pub fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// What the data plane is made of, on the kernel of this release that runs.
#[must_use]
pub fn all(release: &str) -> Vec<Feature> {
    let frags = loads(&[PASS, EXIT], BPF_F_XDP_HAS_FRAGS);
    let feature = |name, since, needed, present| Feature { name, since, needed, present };
    let by_age = |name, since| feature(name, since, true, is_of_age(since, version(release), frags));
    vec![
        by_age("batch lookups", (5, 6)),
        feature("the BPF ring buffer", (5, 8), true, is_map_supported(MapType::RingBuf).ok()),
        by_age("BPF links of XDP programs", (5, 9)),
        feature("compare-and-swap in BPF", (5, 12), true, loads(COMPARE_AND_SWAP, 0)),
        feature("XDP on packets in several buffers", (5, 18), true, frags),
        feature("TCX, whose place filters of tc (clsact) take", (6, 6), false, tcx::is_offered(LOOPBACK).ok()),
    ]
}

/// What cannot be tried without an interface is there where something younger is, because whoever brings new features to an
/// old kernel brings all of them; else the version says it.
fn is_of_age(since: (u32, u32), version: Option<(u32, u32)>, younger: Option<bool>) -> Option<bool> {
    match (version, younger) {
        (_, Some(true)) => Some(true),
        (Some(version), _) if version >= since => Some(true),
        (Some(_), Some(false)) => Some(false),
        _ => None,
    }
}

/// Of a release: `6.18.44-cloud` is (6, 18).
#[must_use]
pub fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// Refuses a kernel that lacks something without which nothing works. What could not be found out is no reason.
///
/// # Errors
/// [`Error::Kernel`].
pub(super) fn check(release: &str, features: &[Feature]) -> Result<(), Error> {
    let needed = || features.iter().filter(|feature| feature.needed);
    let missing: Vec<&Feature> = needed().filter(|feature| feature.present == Some(false)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let (major, minor) = needed().map(|feature| feature.since).max().unwrap_or_default();
    Err(Error::Kernel { release: release.to_owned(), missing: in_words(&missing), enough: format!("{major}.{minor}") })
}

/// "this (since kernel 5.6), that (since 5.8) and more (since 5.18)".
fn in_words(missing: &[&Feature]) -> String {
    let words = missing.iter().enumerate().map(|(index, Feature { name, since: (major, minor), .. })| {
        let kernel = if index == 0 { "kernel " } else { "" };
        format!("{name} (since {kernel}{major}.{minor})")
    });
    let words: Vec<String> = words.collect();
    match words.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} and {last}", others.join(", ")),
        _ => words.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEATURES: [Feature; 4] = [
        Feature { name: "this", since: (5, 8), needed: true, present: Some(true) },
        Feature { name: "that", since: (5, 12), needed: true, present: Some(true) },
        Feature { name: "frags", since: (5, 18), needed: true, present: Some(true) },
        Feature { name: "more", since: (6, 6), needed: false, present: Some(false) },
    ];

    /// What is said where the first three are there or not.
    fn said(present: [Option<bool>; 3]) -> Option<String> {
        let mut features = FEATURES;
        features.iter_mut().zip(present).for_each(|(feature, present)| feature.present = present);
        check("5.10.0-46-cloud", &features).err().map(|error| format!("{:#}", anyhow::Error::new(error)))
    }

    #[test]
    fn a_kernel_that_is_too_old_is_refused_in_one_sentence() {
        let sentence = |missing: &str| {
            Some(format!("the kernel 5.10.0-46-cloud lacks {missing}: dhcp-guard needs kernel 5.18 or later"))
        };
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(said([yes, no, yes]), sentence("that (since kernel 5.12)"));
        assert_eq!(said([yes, no, no]), sentence("that (since kernel 5.12) and frags (since 5.18)"));
        let all = "this (since kernel 5.8), that (since 5.12) and frags (since 5.18)";
        assert_eq!(said([no, no, no]), sentence(all));
    }

    #[test]
    fn what_is_optional_or_not_known_refuses_nothing() {
        assert_eq!(said([Some(true); 3]), None);
        assert_eq!(said([None; 3]), None);
    }

    #[test]
    fn versions_of_all_shapes() {
        let of = ["6.18.44-cloud-amd64", "5.10-rc3", "4.18.0-553.el8_10.x86_64", "odd", ""].map(version);
        assert_eq!(of, [Some((6, 18)), Some((5, 10)), Some((4, 18)), None, None]);
    }

    #[test]
    fn the_age_says_what_cannot_be_tried() {
        let of = |version, younger| is_of_age((5, 9), version, younger);
        assert_eq!(of(Some((4, 18)), Some(true)), Some(true));
        assert_eq!(of(Some((5, 10)), Some(false)), Some(true));
        assert_eq!(of(Some((5, 4)), Some(false)), Some(false));
        assert_eq!([of(Some((5, 4)), None), of(None, Some(false)), of(None, None)], [None; 3]);
    }
}
