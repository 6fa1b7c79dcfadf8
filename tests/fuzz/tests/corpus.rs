//! The committed corpora, one by one: what the fuzz targets once found stays found, without libFuzzer.

use std::{fs, io, path::Path};

use fuzz::check;

fn each(target: &str, check: fn(&[u8])) -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut count = 0;
    for file in fs::read_dir(&folder)? {
        let path = file?.path();
        let bytes = fs::read(&path)?;
        assert!(std::panic::catch_unwind(|| check(&bytes)).is_ok(), "see above; the input: {}", path.display());
        count += 1;
    }
    assert!((50..1000).contains(&count), "{count} inputs in {}", folder.display());
    Ok(())
}

#[test]
fn frame_walk() -> io::Result<()> {
    each("frame_walk", check::frame)
}

#[test]
fn option_walk() -> io::Result<()> {
    each("option_walk", check::payload)
}
