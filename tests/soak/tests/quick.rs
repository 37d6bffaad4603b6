//! The soak itself, as short as it can be: one cluster of real processes on disks that lose their power.
#![allow(clippy::disallowed_methods)]

use std::process::Command;

#[test]
fn a_cluster_keeps_everything_through_rot_kills_and_a_power_cut() {
    let output = Command::new(env!("CARGO_BIN_EXE_soak"))
        .args(["--seconds", "1", "--only", "real", "--faults", "FlipBits,KillTwo,CutPowerOfAll"])
        .args(["--keep", env!("CARGO_TARGET_TMPDIR")])
        .output()
        .expect("the soak can be started");
    let said = String::from_utf8_lossy(&output.stdout);
    let last = said.lines().last().unwrap_or_default();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(last.starts_with("soak: schedules=") && last.ends_with(" violations=0 unknown=0"), "{said}");
    // Where there are no loop devices, it says so; where there are, the power really went.
    let row = |id: &str| said.lines().any(|line| line.trim_start().starts_with(&format!("{id} ")));
    assert!(row("D5") && row("M6"), "{said}");
    assert!(said.contains("SKIPPED") || row("D2"), "{said}");
}
