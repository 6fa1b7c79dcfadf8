//! Pinning again what somebody has removed from the pin folder while the agent runs. What is pinned is still open here; but
//! without its pins it would end with the agent, and nobody would know before that.

use std::{fs, io};

use super::{DataPlane, links::innermost, pins, pins::PinError, state_maps};

impl DataPlane {
    /// Makes the folder, and the pins of the maps in it, again where they are gone. Answers how many maps were not there.
    ///
    /// # Errors
    /// It cannot be done: until it can, the maps end with the agent.
    pub fn pin_again(&mut self) -> Result<usize, PinError> {
        let (Some(folder), Some(generation)) = (&mut self.maps.pins, &self.maps.generation) else { return Ok(0) };
        folder.restore()?;
        let failed = |reason| PinError::Folder { dir: folder.dir().to_owned(), reason };
        if pins::is_missing(&generation.path) {
            fs::create_dir(&generation.path).map_err(failed)?;
        }
        let mut missing = 0;
        for name in state_maps::names() {
            let pin = generation.map(name);
            let Some(map) = self.ebpf.map(name).filter(|_| pins::is_missing(&pin)) else { continue };
            map.pin(&pin).map_err(|error| failed(io::Error::other(innermost(&error))))?;
            missing += 1;
        }
        Ok(missing)
    }
}
