//! Whether what is to outlive the agent is still pinned. Anybody who may can remove a pin, or the file system with all of
//! them, and the kernel tells nobody: so they are looked for once a second, and made again.

use std::{io, path::Path};

use super::{Context, start::Guarded};
use crate::{
    dataplane::{
        attach::Attachment,
        pins::{PinError, PinFolder},
    },
    human::counted,
    model::AttachMode,
};

/// That pins were gone, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// Larger than those of the news before.
    pub number: u64,
    /// One sentence.
    pub what: String,
}

/// What is known of the pins.
#[derive(Debug, Default)]
pub struct Watch {
    /// How often there was something to tell.
    number: u64,
    /// What is not told yet.
    pub news: Option<News>,
    /// Why pins are missing now, one sentence; none: all is pinned that is to be.
    pub trouble: Option<String>,
}

impl Watch {
    fn tell(&mut self, what: String) {
        self.number += 1;
        self.news = Some(News { number: self.number, what });
    }

    /// Takes what came of looking: how many pins were made again, or why that cannot be.
    fn take(&mut self, dir: &Path, looked: Result<usize, String>) {
        let dir = dir.display();
        match looked {
            Ok(made) => {
                let was_in_trouble = self.trouble.take().is_some();
                if made > 0 || was_in_trouble {
                    let many = counted(made as u64, "pin");
                    self.tell(format!("somebody has removed {many} of {dir}: the agent has pinned it all again"));
                }
            }
            Err(why) => {
                let what = format!(
                    "somebody has removed the agent's pins, or their file system, and they cannot be made again ({why}): the \
                     guard ends with the agent, unless {dir} can be used again before that"
                );
                if self.trouble.as_ref() != Some(&what) {
                    self.tell(what.clone());
                    self.trouble = Some(what);
                }
            }
        }
    }
}

impl Guarded {
    /// Looks whether everything is still pinned, and pins again what is not.
    pub fn keep_pinned(&mut self) {
        if let Some(dir) = self.plane.pin_dir().map(Path::to_owned) {
            let looked = self.pin_again();
            self.pins.take(&dir, looked);
        }
    }

    fn pin_again(&mut self) -> Result<usize, String> {
        let maps = self.plane.pin_again().map_err(|error| match error {
            PinError::NotBpffs(_) => "no BPF file system is there".to_owned(),
            PinError::InUse(_) => "another agent has the folder by now".to_owned(),
            PinError::Folder { reason, .. } => reason.to_string(),
        })?;
        let without = self.attachments.iter().filter(|one| !one.has_pin()).map(|one| one.interface.name.as_str());
        let without: Vec<&str> = without.collect();
        let judging = self.attachments.iter().map(Attachment::pin_again);
        let counting = self.replies.iter().filter_map(|(_, watch)| Some(watch.as_ref().ok()?.pin_again()));
        let links = judging.chain(counting).collect::<io::Result<Vec<bool>>>().map_err(|error| error.to_string())?;
        if !without.is_empty() {
            let names = without.join(", ");
            return Err(format!("{names} came to be guarded while there was no place for pins: start the agent again"));
        }
        Ok(maps + links.into_iter().filter(|made| *made).count())
    }
}

/// Of the interfaces that are guarded, those that would not be without this agent: nothing that holds the guard is pinned.
///
/// # Errors
/// The folder cannot be looked into.
pub fn end_with_agent(pin_dir: &Path, context: &Context) -> io::Result<Vec<String>> {
    let links = match PinFolder::peek(pin_dir)? {
        Some(folder) => folder.links()?,
        None => Vec::new(),
    };
    let stays = |ifindex: u32| links.iter().any(|link| link.ifindex == ifindex && link.kind.judges() && link.is_live());
    let guarded = context.plan.interfaces.iter().zip(&context.modes);
    let guarded = guarded.filter(|(_, mode)| **mode != AttachMode::Detached);
    Ok(guarded.filter(|(one, _)| !stays(one.ifindex)).map(|(one, _)| one.name.clone()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_to_pins_is_told_once() {
        let mut watch = Watch::default();
        let mut told = |looked: Result<usize, &str>| {
            watch.take(Path::new("/pins"), looked.map_err(str::to_owned));
            (watch.news.take().map(|news| (news.number, news.what)), watch.trouble.is_some())
        };
        assert_eq!(told(Ok(0)), (None, false));
        let (news, trouble) = told(Ok(3));
        let again = "somebody has removed 3 pins of /pins: the agent has pinned it all again";
        assert_eq!((news, trouble), (Some((1, again.to_owned())), false));
        let (news, trouble) = told(Err("no room"));
        assert!(
            news.is_some_and(|(number, what)| number == 2 && what.contains("(no room): the guard ends with the agent"))
        );
        assert!(trouble);
        assert_eq!(told(Err("no room")), (None, true));
        assert_eq!(told(Ok(14)).0.map(|(number, _)| number), Some(3));
        assert_eq!(told(Ok(0)), (None, false));
    }
}
