//! Leaves the unwind tables out of the release binary on Linux, an eighth of its size: its panics abort, so nothing
//! reads them. Cargo.toml can't ask rustc for that (`force-unwind-tables=no`) in one profile only, hence the linker is
//! told.

use std::{env, fs, io, path::Path};

/// What the linker adds to its own script.
const SCRIPT: &str =
    "SECTIONS { /DISCARD/ : { *(.eh_frame .gcc_except_table .gcc_except_table.*) } } INSERT AFTER .text;\n";

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=.cargo/build.rs");
    let is = |name, value| env::var(name).is_ok_and(|is| is == value);
    if is("PROFILE", "release") && is("CARGO_CFG_TARGET_OS", "linux") {
        let script = Path::new(&env::var("OUT_DIR").map_err(io::Error::other)?).join("no-unwind-tables.ld");
        fs::write(&script, SCRIPT)?;
        println!("cargo::rustc-link-arg-bin=gehen=-Wl,--no-eh-frame-hdr,-T,{}", script.display());
    }
    Ok(())
}
