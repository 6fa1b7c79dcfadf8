//! The kernel, our rights, the clock.

use super::Row;
use crate::{
    dataplane::features::Feature,
    doctor::facts::{Agent, Clock, Facts},
    model::Finding,
};

pub(super) fn capabilities(facts: &Facts) -> Vec<Finding> {
    let row = Row::host("capabilities");
    if facts.kernel.missing_capabilities.is_empty() {
        return vec![row.ok("nothing is missing of CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON")];
    }
    let missing = facts.kernel.missing_capabilities.join(", ");
    // Then they are only missing here.
    if let Some(Agent::Runs { pid, .. }) = &facts.agent {
        let what =
            format!("this command lacks {missing}, and could not look at everything; the agent (pid {pid}) runs");
        return vec![row.info(what, "ask as root: `sudo dhcp-guard doctor`")];
    }
    vec![row.blind(
        format!("the BPF program cannot be loaded without {missing}, and not everything could be looked at"),
        "run `sudo dhcp-guard doctor`, and the agent as root or with these as AmbientCapabilities= of its systemd unit",
    )]
}

pub(super) fn kernel_btf(facts: &Facts) -> Vec<Finding> {
    let row = Row::host("kernel_btf");
    let finding = match facts.kernel.btf {
        Some(true) => row.ok("the kernel offers its types (BTF)"),
        Some(false) => row.blind(
            "the kernel offers no types (BTF; /sys/kernel/btf/vmlinux is missing), and the guard does not start",
            "boot a kernel with CONFIG_DEBUG_INFO_BTF=y (`grep BTF /boot/config-$(uname -r)`), as all current \
             distributions have, and mount sysfs (`mount -t sysfs sysfs /sys`) if it is missing",
        ),
        None => return Vec::new(),
    };
    vec![finding]
}

pub(super) fn kernel_features(facts: &Facts) -> Vec<Finding> {
    let row = || Row::host("kernel_features");
    let release = &facts.kernel.release;
    let of = |state: Option<bool>| facts.kernel.features.iter().filter(move |feature| feature.present == state);
    let missing = of(Some(false)).map(|feature| missing(row(), feature, release));
    let unknown: Vec<&str> = of(None).map(|feature| feature.name).collect();
    let unknown = (!unknown.is_empty()).then(|| {
        let what = format!("Linux {release} does not say to this user whether it has {}", unknown.join(", "));
        row().info(what, "ask as root: `sudo dhcp-guard doctor`")
    });
    let all: Vec<Finding> = missing.chain(unknown).collect();
    if all.is_empty() { vec![row().ok(format!("Linux {release} has all that the guard is made of"))] } else { all }
}

fn missing(row: Row, feature: &Feature, release: &str) -> Finding {
    let Feature { name, since: (major, minor), needed, .. } = feature;
    let what = format!("Linux {release} lacks {name}, which exists since Linux {major}.{minor}");
    let remedy = format!("boot Linux {major}.{minor} or later (`uname -r` says which one runs)");
    if *needed { row.blind(what + ": the guard does not start", remedy) } else { row.info(what, remedy) }
}

pub(super) fn program(facts: &Facts) -> Vec<Finding> {
    let row = Row::host("program");
    let finding = match &facts.kernel.program {
        Some(Ok(())) => row.ok("the kernel takes the BPF program"),
        Some(Err(why)) => row.blind(
            format!("the BPF program cannot be loaded ({})", crate::human::one_line(why, 300)),
            "boot one of the kernels that README.md names (`uname -r` says which one runs), or report it with the output \
             of `dhcp-guard doctor --json`",
        ),
        None => return Vec::new(),
    };
    vec![finding]
}

pub(super) fn jit(facts: &Facts) -> Vec<Finding> {
    let row = Row::host("jit");
    let finding = match facts.kernel.jit {
        Some(true) => row.ok("BPF programs are compiled to machine code"),
        Some(false) => row.weak(
            "BPF programs are interpreted (net.core.bpf_jit_enable is 0): every frame costs several times as much",
            "`sysctl -w net.core.bpf_jit_enable=1` in the host's own network namespace, then start the agent again",
        ),
        None => return Vec::new(),
    };
    vec![finding]
}

pub(super) fn clock(facts: &Facts) -> Vec<Finding> {
    /// The measurement is some percent off; a wrong frequency is a fifth off or more.
    const TOLERATED_PERCENT: u32 = 10;
    let row = Row::host("clock");
    let finding = match facts.clock {
        Some(Clock { ticks_per_s, measured: Some(measured) }) => {
            if ticks_per_s.abs_diff(measured) <= ticks_per_s * TOLERATED_PERCENT / 100 {
                row.ok(format!("the kernel's clock makes {ticks_per_s} ticks a second, as measured ({measured})"))
            } else {
                row.weak(
                    format!(
                        "limits count with {ticks_per_s} ticks a second, and the kernel's clock was seen to make {measured}: \
                         limits are {:.1} times what is configured",
                        f64::from(measured) / f64::from(ticks_per_s.max(1))
                    ),
                    "measure again when the machine is less busy (`dhcp-guard doctor`), and report it if it stays",
                )
            }
        }
        Some(Clock { measured: None, .. }) => {
            row.info("the kernel's clock could not be measured", "measure it as root: `sudo dhcp-guard doctor`")
        }
        None => return Vec::new(),
    };
    vec![finding]
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, healthy, rows, with};
    use super::*;
    use crate::model::Severity::{self, Blind, Info, Weak};

    #[test]
    fn rights() {
        let lacks =
            |facts: &mut Facts| facts.kernel.missing_capabilities = vec!["CAP_BPF".into(), "CAP_PERFMON".into()];
        let facts = with(lacks);
        check("capabilities", &facts, Info, "host", &["CAP_BPF, CAP_PERFMON", "pid 4711", "sudo"]);
        let facts = Facts { agent: Some(Agent::None("/s".into())), ..facts };
        check("capabilities", &facts, Blind, "host", &["without CAP_BPF, CAP_PERFMON", "AmbientCapabilities="]);
    }

    #[test]
    fn the_kernel() {
        check("kernel_btf", &with(|f| f.kernel.btf = Some(false)), Blind, "host", &["CONFIG_DEBUG_INFO_BTF=y"]);
        check("jit", &with(|f| f.kernel.jit = Some(false)), Weak, "host", &["sysctl -w net.core.bpf_jit_enable=1"]);
        let refused = with(|f| f.kernel.program = Some(Err("too\nlarge".into())));
        check("program", &refused, Blind, "host", &["too", "large", "uname -r"]);
    }

    #[test]
    fn features() {
        let lacking = |needed, present| {
            with(|facts| {
                facts.kernel.release = "5.10.0-30".into();
                facts.kernel.features = vec![
                    Feature { name: "batch lookups", since: (5, 6), needed: true, present: Some(true) },
                    Feature { name: "that", since: (5, 18), needed, present },
                ];
            })
        };
        let parts = ["Linux 5.10.0-30 lacks that", "since Linux 5.18", "boot Linux 5.18 or later"];
        check("kernel_features", &lacking(true, Some(false)), Blind, "host", &parts);
        check("kernel_features", &lacking(false, Some(false)), Info, "host", &parts);
        check("kernel_features", &lacking(true, None), Info, "host", &["does not say", "that", "sudo"]);
        let ok = rows("kernel_features", &lacking(true, Some(true)));
        assert_eq!(ok[0].severity, Severity::Ok);
    }

    #[test]
    fn the_clock() {
        let measured = |ticks_per_s, measured| with(|f| f.clock = Some(Clock { ticks_per_s, measured }));
        for (ticks_per_s, seen) in [(250, 230), (250, 274), (100, 97), (1000, 1003), (300, 290)] {
            assert_eq!(rows("clock", &measured(ticks_per_s, Some(seen)))[0].severity, Severity::Ok, "{seen}");
        }
        let parts = ["250 ticks", "seen to make 1000", "limits are 4.0 times", "`dhcp-guard doctor`"];
        check("clock", &measured(250, Some(1000)), Weak, "host", &parts);
        for (ticks_per_s, seen) in [(250, 300), (300, 250), (100, 250), (1000, 250), (250, 0)] {
            assert_eq!(rows("clock", &measured(ticks_per_s, Some(seen)))[0].severity, Weak, "{seen}");
        }
        check("clock", &measured(250, None), Info, "host", &["could not be measured"]);
        assert_eq!(rows("clock", &Facts { clock: None, ..healthy() }), []);
    }
}
