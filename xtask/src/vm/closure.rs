//! The shared libraries that programs need, as the dynamic linker finds them.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

/// All libraries of a program, and the linker itself. Of one that is linked statically: none.
pub(crate) fn libraries(program: &Path) -> Result<BTreeSet<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("cannot run ldd (package libc-bin)")?;
    Ok(parse(&String::from_utf8_lossy(&output.stdout)))
}

/// `libm.so.6 => /lib/libm.so.6 (0x7f…)`, or for the linker `/lib64/ld-linux-x86-64.so.2 (0x7f…)`.
fn parse(said: &str) -> BTreeSet<PathBuf> {
    said.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_nothing_else() {
        let said = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f1)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f2)\n";
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(parse(said), BTreeSet::from(expected));
        assert_eq!(parse("\tstatically linked\n"), BTreeSet::new());
    }
}
