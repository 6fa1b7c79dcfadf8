//! What a clean root begins with: an archive of a minimal Debian, of this machine's own release, because the agent is
//! linked with this machine's C library. Made once, with mmdebstrap, and kept in the target directory.

use std::{
    env, fs,
    path::PathBuf,
    process::{self, Command},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::process::output_within;

/// Downloads of some 60 MB, and their installation.
const DEADLINE: Duration = Duration::from_secs(300);
/// What the package depends on, and what the tests look with.
const PACKAGES: &str = "systemd-sysv,iproute2,libgcc-s1,passwd";

/// The archive; made if it is not there.
pub(super) fn archive() -> Result<PathBuf> {
    let release = release()?;
    let own = env::current_exe().context("where am I")?;
    // target/release/deps/it-…
    let target = own.ancestors().nth(3).context("the tests are not in a target directory")?;
    let folder = target.join("clean-root");
    let archive = folder.join(format!("{release}.tar"));
    if archive.is_file() {
        return Ok(archive);
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let unfinished = folder.join(format!("{release}-{}.tar", process::id()));
    let mut command = Command::new("mmdebstrap");
    command
        .args(["--quiet", "--variant=apt", "--include", PACKAGES, "--aptopt=Acquire::Check-Valid-Until \"false\""])
        .arg(&release)
        .arg(&unfinished)
        .arg(format!("deb {} {release} main", mirror(&release)?));
    let output = output_within(command, DEADLINE)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cannot make a clean Debian {release}: is its mirror reachable? {errors}");
    // Whole or not at all, whoever else makes one.
    fs::rename(&unfinished, &archive).with_context(|| format!("cannot rename {}", unfinished.display()))?;
    Ok(archive)
}

/// The code name of this machine's Debian.
fn release() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(|value| value.trim_matches('"'));
    match (value("ID="), value("VERSION_CODENAME=")) {
        (Some("debian"), Some(release)) => Ok(release.to_owned()),
        (id, _) => bail!("the package is for Debian, and this machine is {}", id.unwrap_or("something else")),
    }
}

/// Where this machine gets that release from.
fn mirror(release: &str) -> Result<String> {
    let mut command = Command::new("apt-get");
    command.args(["indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"]);
    let output = output_within(command, DEADLINE)?;
    let targets = String::from_utf8_lossy(&output.stdout).into_owned();
    let mirror = targets.lines().find_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
        [uri, of, "main"] if of == release => Some(uri),
        _ => None,
    });
    let mirror = mirror.with_context(|| format!("apt knows no mirror of Debian {release}: run `apt-get update`"))?;
    Ok(mirror.trim_end_matches('/').to_owned())
}
