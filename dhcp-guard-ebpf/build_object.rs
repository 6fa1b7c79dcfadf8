//! Builds one binary of this crate for the BPF target; shared by the build scripts that embed one
//! (`#[path = "../dhcp-guard-ebpf/build_object.rs"]`).
//!
//! Why not aya-build: it fixes the rustc flags, so it cannot ask for `target-cpu=v3` (32-bit arithmetic and jumps, which
//! make the parser shorter), and it fails where the BPF toolchain is missing. Here a missing toolchain gives an empty
//! object and a warning, so that `cargo check` and the pure unit tests work on any machine.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Builds the binary `bin` into `$OUT_DIR/<bin>.o`, or leaves an empty file there and says what is missing.
pub(crate) fn build(bin: &str) {
    let manifest_dir = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo"));
    let workspace = manifest_dir.parent().expect("every crate is a folder of the workspace");
    for input in ["dhcp-guard-ebpf", "dhcp-guard-common/src", "Cargo.lock", "Cargo.toml"] {
        println!("cargo::rerun-if-changed={}", workspace.join(input).display());
    }
    let object = out_dir.join(bin).with_extension("o");
    // OUT_DIR is <target>/<profile>/build/<package>-<hash>/out.
    let target_dir = out_dir.ancestors().nth(4).expect("cargo's layout of OUT_DIR").to_owned();
    match toolchain(&target_dir) {
        Ok(path) => {
            let built = compile(bin, workspace, &target_dir.join("bpf"), &path);
            fs::copy(&built, &object).unwrap_or_else(|e| panic!("cannot copy {}: {e}", built.display()));
        }
        Err(missing) => {
            println!("cargo::warning=built without the BPF program `{bin}`: {missing}; run `cargo xtask setup`");
            fs::write(&object, []).unwrap_or_else(|e| panic!("cannot write {}: {e}", object.display()));
        }
    }
}

/// The PATH to build with, or what is missing. The project's own linker (`cargo xtask setup`) comes first.
fn toolchain(target_dir: &Path) -> Result<OsString, String> {
    let own_tools = target_dir.join("tools/bin");
    // A path that does not exist makes cargo run the build script again next time, which is what is wanted here.
    println!("cargo::rerun-if-changed={}", own_tools.join("bpf-linker").display());
    println!("cargo::rerun-if-env-changed=PATH");
    let mut search = vec![own_tools];
    search.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    if !search.iter().any(|dir| dir.join("bpf-linker").is_file()) {
        return Err("bpf-linker is not installed".into());
    }
    let rustc = env::var_os("RUSTC").expect("set by cargo");
    let sysroot = Command::new(rustc).args(["--print", "sysroot"]).output().map_err(|e| format!("rustc: {e}"))?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&sysroot.stdout).trim());
    let core = sysroot.join("lib/rustlib/src/rust/library/core");
    println!("cargo::rerun-if-changed={}", core.join("Cargo.toml").display());
    if !core.is_dir() {
        return Err("the rust-src component is not installed".into());
    }
    env::join_paths(search).map_err(|e| format!("PATH: {e}"))
}

/// Runs cargo for the BPF target and answers the path of the object.
fn compile(bin: &str, workspace: &Path, target_dir: &Path, path: &OsString) -> PathBuf {
    const TARGET: &str = "bpfel-unknown-none";
    let mut cargo = Command::new(env::var_os("CARGO").expect("set by cargo"));
    cargo
        .current_dir(workspace)
        .args(["build", "--quiet", "--package", "dhcp-guard-ebpf", "--bin", bin, "--release", "--locked"])
        .args(["-Z", "build-std=core", "--target", TARGET])
        .arg("--target-dir")
        .arg(target_dir)
        .env("PATH", path)
        // The pinned stable compiler, with the few unstable features that the BPF target needs.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", ["-Ctarget-cpu=v3", "-Cdebuginfo=2", "-Clink-arg=--btf"].join("\x1f"));
    if env::var_os("CARGO_FEATURE_OTHER_LAYOUT").is_some() {
        cargo.args(["--features", "other-layout"]);
    }
    // Meant for the crate whose build script this is, not for the one it builds.
    for name in ["RUSTC", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTFLAGS", "CLIPPY_ARGS"] {
        cargo.env_remove(name);
    }
    let status = cargo.status().unwrap_or_else(|e| panic!("cannot run cargo for the BPF program: {e}"));
    assert!(status.success(), "the BPF program `{bin}` does not build: see the errors above");
    target_dir.join(TARGET).join("release").join(bin)
}
