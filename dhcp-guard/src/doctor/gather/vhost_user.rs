//! Guests whose frames go from their memory to another process (OVS-DPDK, VPP), past this host's kernel.
//!
//! What can be seen is the command line of whoever runs the guest: QEMU's `-netdev vhost-user` and cloud-hypervisor's
//! `vhost_user=true`. Other programs that use such sockets (DPDK in containers) cannot be told from the outside.

use std::fs;

/// Processes with such a network: pid and name.
pub(super) fn processes() -> Option<Vec<(u32, String)>> {
    let all = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    let found = all.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let words = fs::read(entry.path().join("cmdline")).ok()?;
        has_network(&words).then(|| (pid, name(&words)))
    });
    Some(found.collect())
}

/// Whether a command line, its words ended by NULs, asks for a vhost-user network.
fn has_network(words: &[u8]) -> bool {
    let words: Vec<&[u8]> = words.split(|byte| *byte == 0).collect();
    let contains = |word: &[u8], part: &[u8]| word.windows(part.len()).any(|window| window == part);
    words.windows(2).any(|pair| match pair[0] {
        // `vhost-user,…`, `type=vhost-user,…` or JSON.
        b"-netdev" | b"--netdev" => contains(pair[1], b"vhost-user"),
        b"--net" => contains(pair[1], b"vhost_user=true"),
        _ => false,
    })
}

/// The program's name, without its folder.
fn name(words: &[u8]) -> String {
    let program = words.split(|byte| *byte == 0).next().unwrap_or_default();
    let program = String::from_utf8_lossy(program);
    program.rsplit('/').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_told_from_other_uses_of_vhost_user() {
        let has = |line: &str| has_network(line.replace(' ', "\0").as_bytes());
        assert!(has("/usr/bin/qemu-system-x86_64 -chardev socket,id=c,path=/s -netdev vhost-user,id=n,chardev=c"));
        assert!(has("qemu -netdev {\"type\":\"vhost-user\",\"chardev\":\"c\"}"));
        assert!(has("cloud-hypervisor --net vhost_user=true,socket=/s"));
        assert!(!has("qemu -netdev tap,id=n,vhost=on -device vhost-user-fs-pci,chardev=c"));
        assert!(!has("grep vhost-user"));
        assert!(!has(""));
        assert_eq!(name(b"/usr/bin/qemu-system-x86_64\0-netdev\0"), "qemu-system-x86_64");
    }
}
