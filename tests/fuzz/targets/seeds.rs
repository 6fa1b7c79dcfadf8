//! Writes what the corpora start from: `seeds DIR` makes `DIR/frame_walk` and `DIR/option_walk`.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use fuzz::shapes::{self, messages};

fn main() -> ExitCode {
    let Some(folder) = env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: seeds DIR");
        return ExitCode::from(2);
    };
    let written = write(&folder.join("frame_walk"), &shapes::frames())
        .and_then(|()| write(&folder.join("option_walk"), &[messages::v4(), messages::v6()].concat()));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: cannot write seeds to {}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}

fn write(folder: &Path, seeds: &[messages::Named]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    seeds.iter().try_for_each(|(name, bytes)| fs::write(folder.join(name), bytes))
}
