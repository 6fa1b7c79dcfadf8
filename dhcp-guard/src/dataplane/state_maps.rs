//! The maps that outlive a program: which they are, how large, and which set of them a program is to be loaded with.
//!
//! Policies and the control block are not among them: each program has its own, so that putting it on an interface puts
//! its policy into force, as a whole, while its predecessor elsewhere goes on with the old one.

use std::{
    io,
    path::{Path, PathBuf},
};

use aya::maps::{MapData, MapError, MapInfo, MapType};
use dhcp_guard_common::{
    hash::Seeds,
    layout::{
        Bucket, ClientKey, ClientRule, ClientState, CpuState, Head, HostState, LAYOUT_VERSION, META_FORMAT, Meta,
        PortCounters, PortKey, PortState, Troubles,
    },
};

use super::{
    Error,
    interface::Interface,
    load::Sizes,
    pins::{Generation, LinkKind, PinError, PinFolder},
    sys,
};

/// The map with what the set says about itself.
pub(super) const META: &str = "META";

/// What it means that maps are lost.
const ANEW: &str = "limits and counters begin anew, and whoever was learned is a stranger again";

/// A map, as it must be.
struct Shape {
    name: &'static str,
    kind: MapType,
    key: usize,
    value: usize,
    entries: fn(&Sizes) -> u32,
}

const fn array<V>(name: &'static str, entries: fn(&Sizes) -> u32) -> Shape {
    Shape { name, kind: MapType::Array, key: 4, value: size_of::<V>(), entries }
}

const fn per_cpu<V>(name: &'static str, entries: fn(&Sizes) -> u32) -> Shape {
    Shape { name, kind: MapType::PerCpuArray, key: 4, value: size_of::<V>(), entries }
}

const fn hash<K, V>(name: &'static str, entries: fn(&Sizes) -> u32) -> Shape {
    Shape { name, kind: MapType::Hash, key: size_of::<K>(), value: size_of::<V>(), entries }
}

/// Limiters, counters, who is known, who is in quarantine.
const SHAPES: &[Shape] = &[
    hash::<PortKey, u32>("PORTS", |sizes| sizes.slots),
    array::<PortState>("PORT_STATES", |sizes| sizes.slots),
    per_cpu::<PortCounters>("PORT_COUNTERS", |sizes| sizes.slots),
    array::<u64>("REPLIES", |sizes| sizes.slots),
    array::<HostState>("HOST_STATE", |_| 1),
    hash::<ClientKey, ClientState>("KNOWN", |sizes| sizes.known),
    hash::<ClientKey, ClientRule>("RULES", |sizes| sizes.rules),
    array::<Head>("HEADS", |sizes| 1 << sizes.heads_bits),
    array::<Bucket>("STRANGERS", |sizes| 1 << sizes.strangers_bits),
    per_cpu::<CpuState>("CPU", |_| 1),
    per_cpu::<Troubles>("TROUBLES", |_| 1),
    array::<Meta>(META, |_| 1),
];

/// Names of these maps.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    SHAPES.iter().map(|shape| shape.name)
}

/// How many entries each of them is to have.
pub(super) fn entries(sizes: &Sizes) -> impl Iterator<Item = (&'static str, u32)> {
    SHAPES.iter().map(|shape| (shape.name, (shape.entries)(sizes)))
}

/// A set of maps that an agent has left, and what it says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) generation: Generation,
    pub(super) meta: Meta,
}

/// The set of maps that a program is to be loaded with. Half-made ones go with it.
#[derive(Debug)]
pub(super) struct Maps {
    /// None: nothing is pinned, and everything ends with the process.
    pub(super) pins: Option<PinFolder>,
    /// Where they are, or are to be, pinned.
    pub(super) generation: Option<Generation>,
    /// They are those of an agent before this one.
    pub(super) reused: bool,
    /// Others, whose contents are to be brought over.
    pub(super) heritage: Option<Found>,
    /// Of the hashes: as before, where there was one.
    pub(super) seeds: Option<Seeds>,
    /// What could not be used, one sentence each.
    pub(super) warnings: Vec<String>,
    /// They stay.
    pub(super) kept: bool,
}

impl Maps {
    /// None that outlive the process.
    pub(super) fn unpinned() -> Self {
        Self {
            pins: None,
            generation: None,
            reused: false,
            heritage: None,
            seeds: None,
            warnings: Vec::new(),
            kept: true,
        }
    }

    /// Those that are there, if they fit; else new ones, and what is to be brought over.
    pub(super) fn choose(pins: PinFolder, sizes: &Sizes, ticks_per_s: u32) -> Result<Self, Error> {
        let failed = |reason| Error::Pins(PinError::Folder { dir: pins.dir().to_owned(), reason });
        let mut warnings = Vec::new();
        let found = latest(&pins, &mut warnings).map_err(failed)?;
        if found.is_none() && warnings.is_empty() && guards(&pins).map_err(failed)? {
            warnings.push(format!(
                "the guard that is on some interface uses maps whose pins in {} are gone, or half of them: {ANEW}",
                pins.dir().display()
            ));
        }
        let is_same =
            |meta: &Meta| meta.layout == u64::from(LAYOUT_VERSION) && meta.ticks_per_s == u64::from(ticks_per_s);
        let reused = match &found {
            Some(found) if is_same(&found.meta) => fits(&found.generation, sizes).map_err(failed)?,
            _ => false,
        };
        if let Some(found) = found.as_ref().filter(|found| !reused && is_same(&found.meta)) {
            warnings.extend(foreign(&found.generation).map_err(failed)?);
        }
        let seeds = found.as_ref().map(|found| Seeds::new(found.meta.seeds));
        let (generation, heritage) = match found {
            Some(found) if reused => (found.generation, None),
            found => (pins.new_generation(LAYOUT_VERSION).map_err(failed)?, found),
        };
        Ok(Self { generation: Some(generation), reused, heritage, seeds, warnings, kept: reused, pins: Some(pins) })
    }

    /// Where the link of a program on an interface is to be pinned.
    pub(super) fn pin(&self, kind: LinkKind, interface: &Interface) -> Option<PathBuf> {
        self.pins.as_ref().map(|pins| pins.link(kind, interface.ifindex))
    }

    /// All sets but these go.
    pub(super) fn remove_others(&self) {
        let generations = self.pins.as_ref().and_then(|pins| pins.generations().ok()).unwrap_or_default();
        generations.iter().filter(|one| Some(*one) != self.generation.as_ref()).for_each(Generation::remove);
    }
}

impl Drop for Maps {
    fn drop(&mut self) {
        if let (false, Some(generation)) = (self.kept, &self.generation) {
            generation.remove();
        }
    }
}

/// The latest set that can be used. Those that were never finished are passed over without a word: whoever made them has
/// said why, or was killed. Those that are none of ours are told of, if there is no other.
///
/// # Errors
/// A set that is there cannot be read now (no descriptors, no rights): it must not be taken for one that is lost.
pub(super) fn latest(pins: &PinFolder, warnings: &mut Vec<String>) -> io::Result<Option<Found>> {
    let mut foreign = Vec::new();
    for generation in pins.generations()?.into_iter().rev() {
        match read_meta(&generation.map(META))? {
            Description::Of(meta) if meta.complete == 1 => return Ok(Some(Found { generation, meta: *meta })),
            Description::Of(_) | Description::Missing => {}
            Description::Foreign => foreign.push(format!(
                "the pinned maps in {} cannot be taken over (their description is none of ours, or of a later version): {ANEW}",
                generation.path.display()
            )),
        }
    }
    warnings.append(&mut foreign);
    Ok(None)
}

/// What a set of maps says about itself.
enum Description {
    Of(Box<Meta>),
    /// Nothing, or nothing yet.
    Missing,
    /// Something else.
    Foreign,
}

/// Reads it, in whatever layout. What it does not have is 0.
fn read_meta(path: &Path) -> io::Result<Description> {
    let Some(map) = open(path)? else { return Ok(Description::Missing) };
    let info = map.info().map_err(io::Error::other)?;
    if info.map_type().ok() != Some(MapType::Array) || info.value_size() < 8 {
        return Ok(Description::Foreign);
    }
    let mut value = vec![0; info.value_size() as usize];
    sys::element(map.fd(), info.value_size(), 0, &mut value)?;
    value.resize(size_of::<Meta>(), 0);
    // SAFETY: as long as Meta, which is words.
    let meta = unsafe { value.as_ptr().cast::<Meta>().read_unaligned() };
    Ok(match meta.format {
        META_FORMAT => Description::Of(Box::new(meta)),
        0 => Description::Missing,
        _ => Description::Foreign,
    })
}

/// A pinned map; `None`: there is no such pin.
///
/// # Errors
/// The kernel's.
pub(super) fn open(path: &Path) -> io::Result<Option<MapData>> {
    found(MapData::from_pin(path))
}

/// Whether it is there; any other error is one.
fn found<T>(result: Result<T, MapError>) -> io::Result<Option<T>> {
    match result {
        Ok(it) => Ok(Some(it)),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(MapError::SyscallError(error)) => Err(error.io_error),
        Err(error) => Err(io::Error::other(error)),
    }
}

/// Whether a program of ours is on some interface: then there was a set of maps.
fn guards(pins: &PinFolder) -> io::Result<bool> {
    Ok(pins.links()?.iter().any(|link| link.kind.judges() && link.is_live()))
}

/// Maps that are others', in the place of ours of this very layout: one sentence each.
fn foreign(generation: &Generation) -> io::Result<Vec<String>> {
    let mut sentences = Vec::new();
    for shape in SHAPES {
        let path = generation.map(shape.name);
        let Some(info) = found(MapInfo::from_pin(&path))? else { continue };
        let is = (info.map_type().ok(), info.key_size() as usize, info.value_size() as usize);
        if is != (Some(shape.kind), shape.key, shape.value) {
            let path = path.display();
            sentences
                .push(format!("the map that is pinned as {path} is none of ours: what was in that map begins anew"));
        }
    }
    Ok(sentences)
}

/// Whether all maps are there and have the sizes that are wanted: the loader does not look, and writes past the end of
/// values that are too long.
fn fits(generation: &Generation, sizes: &Sizes) -> io::Result<bool> {
    for shape in SHAPES {
        let Some(info) = found(MapInfo::from_pin(generation.map(shape.name)))? else { return Ok(false) };
        let is = (info.map_type().ok(), info.key_size() as usize, info.value_size() as usize, info.max_entries());
        if is != (Some(shape.kind), shape.key, shape.value, (shape.entries)(sizes)) {
            return Ok(false);
        }
    }
    Ok(true)
}
