//! A kernel that lacks what the guard is made of: the refusal, where one boots. Once, because nothing is asked about a hook
//! before, and each hook is tried.

use anyhow::{Context as _, Result, ensure};
use dhcp_guard::dataplane::features;
use libtest_mimic::Trial;
use tests::{
    agent::{Launch, errors},
    attached,
    harness::{Need, trial_once},
    link,
};

const NEEDS: &[Need] = &[Need::Root, Need::BpfObject, Need::Tool("ip"), Need::Tool("ethtool"), Need::OldKernel];

/// What each kernel may lack, as the sentence has it, and since when kernels have it.
const PARTS: [(&str, (u32, u32)); 2] =
    [("compare-and-swap in BPF (since kernel 5.12)", (5, 12)), ("XDP on packets in several buffers (since ", (5, 18))];

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial_once("refused: a kernel that is too old is refused in one sentence", NEEDS, too_old)]
}

fn too_old() -> Result<()> {
    let host = link::host_with_two()?;
    let release = features::release();
    let version = features::version(&release).context("a release without a version")?;
    for hook in ["auto", "xdp", "tcx", "clsact"] {
        let launch = Launch::new(&host, &["up0"])?.arguments(&["--hook", hook]);
        let output = launch.run_to_its_end()?;
        let said = errors(&output);
        ensure!(output.status.code() == Some(2), "{hook}: {}, not exit code 2: {said}", output.status);
        ensure!(output.stdout.is_empty(), "{hook}: {}", String::from_utf8_lossy(&output.stdout));
        ensure!(said.matches('\n').count() == 1, "{hook}: not one line: {said:?}");
        ensure!(said.starts_with(&format!("dhcp-guard: the kernel {release} lacks ")), "{hook}: {said}");
        ensure!(said.ends_with(": dhcp-guard needs kernel 5.18 or later\n"), "{hook}: {said}");
        for (part, since) in PARTS {
            ensure!(said.matches(part).count() == usize::from(version < since), "{hook}: {part:?} in {said}");
        }
        ensure!(!launch.pin_dir().exists(), "{hook}: something is pinned");
        ensure!(!launch.socket_path().exists(), "{hook}: a socket is left");
        let programs = attached::programs(&host)?;
        ensure!(programs.is_empty(), "{hook}: {programs:?}");
        println!("{hook}: {said}");
    }
    Ok(())
}
