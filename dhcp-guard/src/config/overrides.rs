//! What the command line says over the file, when the agent starts and whenever it reads the file again.

use std::path::PathBuf;

use super::Config;
use crate::{dataplane::hook::Hook, model::Mode};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Instead of the file's, unless empty.
    pub interfaces: Vec<String>,
    /// Of every class and port.
    pub mode: Option<Mode>,
    /// The control API's socket.
    pub socket: Option<PathBuf>,
    /// Folder for what survives a restart.
    pub state_dir: Option<PathBuf>,
    /// Folder in which the guard outlives its agent.
    pub pin_dir: Option<PathBuf>,
    /// Where frames are judged.
    pub hook: Option<Hook>,
    /// Guard although some packets would not be judged as the configuration says; false: as the file says.
    pub even_if_blind: bool,
}

impl Overrides {
    /// The file's configuration with this over it. Not validated.
    #[must_use]
    pub fn over(&self, mut config: Config) -> Config {
        if !self.interfaces.is_empty() {
            config.interfaces.clone_from(&self.interfaces);
        }
        if let Some(mode) = self.mode {
            config.mode = mode;
            // Whoever starts it to watch only must not find that some class or port drops after all.
            config.classes.values_mut().for_each(|class| class.mode = None);
            config.ports.iter_mut().for_each(|port| port.mode = None);
        }
        if let Some(socket) = &self.socket {
            config.socket.clone_from(socket);
        }
        if let Some(hook) = self.hook {
            config.hook = hook;
        }
        if let Some(folder) = &self.pin_dir {
            config.pin_dir.clone_from(folder);
        }
        if let Some(folder) = &self.state_dir {
            config.state_dir.clone_from(folder);
        }
        config.even_if_blind |= self.even_if_blind;
        config
    }
}
