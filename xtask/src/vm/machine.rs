//! QEMU: a machine with nothing but a processor, memory and two serial ports.

use std::{
    fmt,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};

use super::{
    image::{self, Parts},
    kernels::Kernel,
};

const QEMU: &str = "qemu-system-x86_64";
/// Megabytes: the image twice, the tables of several agents, and what they write.
const MEMORY: &str = "2048";
/// A crash ends the guest at once: an oops, a lockup and a hung task are made a panic, a panic starts the machine again, and
/// that ends QEMU (`-no-reboot`). Warnings come on the console, all else is in the log.
const COMMAND_LINE: &str = "console=ttyS0,115200 loglevel=5 panic=-1 oops=panic softlockup_panic=1 hung_task_panic=1 \
                            random.trust_cpu=on";
/// What costs an emulated processor a tenth of its time, and no test is about.
const EMULATED: &str = "mitigations=off init_on_alloc=0";
/// Where KVM works, a guest with nothing to do takes a second or two.
const PROBE: Duration = Duration::from_secs(10);

/// What carries out a guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accelerator {
    /// The processor.
    Kvm,
    /// QEMU.
    Tcg,
}

impl Accelerator {
    /// With TCG an older processor costs a third less than the newest one that QEMU knows, and a second one slows the first
    /// one down.
    fn arguments(self) -> [&'static str; 6] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host", "-smp", "2"],
            Self::Tcg => ["-accel", "tcg", "-cpu", "Nehalem,+rdrand", "-smp", "1"],
        }
    }
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "KVM",
            Self::Tcg => "TCG (emulated: slow)",
        })
    }
}

/// A guest that runs; killed when dropped, and by the kernel when this process goes.
pub(crate) struct Machine {
    child: Child,
    /// What it says on its second serial port, line by line. Ends when QEMU has ended.
    pub(crate) lines: mpsc::Receiver<String>,
    /// Where its kernel's console goes.
    pub(crate) console: PathBuf,
    /// What QEMU itself has to say.
    complaints: PathBuf,
}

impl Machine {
    /// What QEMU itself has said, if anything.
    pub(crate) fn complaints(&self) -> String {
        fs::read_to_string(&self.complaints).unwrap_or_default().trim().to_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Fails only where it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a guest. The thread that calls this must live as long as the guest: the guest ends with it.
pub(crate) fn start(kernel: &Kernel, image: &Path, folder: &Path, accelerator: Accelerator) -> Result<Machine> {
    let (console, complaints) = (folder.join("console.log"), folder.join("qemu.log"));
    let errors = File::create(&complaints).with_context(|| format!("cannot write {}", complaints.display()))?;
    // An old one must not be taken for this one's.
    let _ = fs::remove_file(&console);
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", QEMU]).args(accelerator.arguments());
    command.args(["-machine", "q35", "-m", MEMORY, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    command.arg("-serial").arg(format!("file:{}", console.display()));
    command.args(["-chardev", "stdio,id=host,signal=off", "-serial", "chardev:host"]);
    command.arg("-append").arg(match accelerator {
        Accelerator::Kvm => COMMAND_LINE.to_owned(),
        Accelerator::Tcg => format!("{COMMAND_LINE} {EMULATED}"),
    });
    command.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(image);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors)
        .spawn()
        .context("cannot run setpriv (package util-linux)")?;
    let output = child.stdout.take().ok_or_else(|| anyhow!("QEMU has no output"))?;
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim().to_owned();
            if !line.is_empty() && sender.send(line).is_err() {
                return;
            }
        }
    });
    Ok(Machine { child, lines, console, complaints })
}

/// Whether guests can be run with KVM: one is, from its start until it has switched itself off. That the device is there says
/// little: inside another guest a KVM guest may hang, at once or later.
pub(crate) fn probe(folder: &Path, kernel: &Kernel, parts: &Parts) -> Result<Accelerator> {
    if File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return Ok(Accelerator::Tcg);
    }
    let folder = folder.join("probe");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let image = folder.join("image.cpio");
    image::write_empty(&image, parts.init())?;
    let machine = start(kernel, &image, &folder, Accelerator::Kvm)?;
    let deadline = Instant::now() + PROBE;
    let mut has_ended = false;
    let why = loop {
        match machine.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => has_ended |= line.contains(r#""event":"end""#),
            Err(RecvTimeoutError::Disconnected) if has_ended => return Ok(Accelerator::Kvm),
            Err(RecvTimeoutError::Disconnected) => break format!("QEMU has ended: {}", machine.complaints()),
            Err(RecvTimeoutError::Timeout) => break format!("no guest is up and down again in {} s", PROBE.as_secs()),
        }
    };
    println!("KVM does not work here: {why}");
    Ok(Accelerator::Tcg)
}
